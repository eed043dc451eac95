// support/machine.hpp - what a machine and this process look like, so that a test can show that it left nothing behind.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace caisson_test {

/// What can be left behind, section by section ("mounts", "links", "processes", ...), each a sorted list of lines.
///
/// Other tests and programs run on the same machine at the same time, so only what is the caller's is looked at.
///
/// Processes carry a mark that every descendant inherits, whatever namespaces, sessions and parents it goes through: a
/// soft limit of real-time CPU time (RLIMIT_RTTIME) of some decades, with the first capturing process's pid in it. A
/// process with the mark descends from this one. Zombies whose parent is pid 1 are not counted, as pid 1 takes its
/// time, nor those without one, which somebody has just waited for.
///
/// In a mount or network namespace other than that of the outermost ancestor that can be looked at, everything counts.
/// In that one, mounts, links, listening sockets and nft rules count if they speak of caisson; so do control groups in
/// every mounted hierarchy. Loop devices count if their file is in a directory of this test program's.
///
/// What bears the tag of an owner that lives and has not the mark belongs to somebody else, also once that one has
/// died; what bears the tag of a dead owner may go at any time.
///
/// With the argument `--strict` on the program's command line the machine is taken for the test's alone, and everything
/// counts but control groups of systemd's units.
///
/// This process itself counts whole: descriptors and what they refer to, threads, signal mask and dispositions, ids,
/// capabilities, limits, namespaces, control groups, umask, working directory, environment.
struct MachineState {
    struct Look {
        bool machine = true;
        bool process = true;
        bool firewall = true;  ///< runs nft(8), which takes longer than all the rest
    };
    /// Of the calling thread. Throws `std::runtime_error` where /proc is missing.
    [[nodiscard]] static MachineState capture(Look look);
    [[nodiscard]] static MachineState capture() { return capture(Look{}); }
    Look look{};
    std::set<std::string> foreign{};      ///< lines about somebody else's things
    std::set<std::string> of_the_dead{};  ///< lines about what dead owners left
    std::map<std::string, std::vector<std::string>> sections{};
};

/// One line for each thing that was not there before (`+`) or is not there any more (`-`), with its section; empty if
/// nothing differs.
[[nodiscard]] std::string difference(const MachineState& before, const MachineState& after);

/// The difference between `before` and what is there once that has settled: the kernel takes network namespaces and
/// killed processes away by and by, so a difference must last for `milliseconds`. Looks at what `before` looked at.
[[nodiscard]] std::string lasting_difference(const MachineState& before, int milliseconds = 5000);

/// Put at the top of a system test: the test fails if the machine or the process is not as it was when the object goes.
/// A test that moves its own thread into other namespaces makes the object afterwards.
class LeavesNothing {
public:
    LeavesNothing() : before_{MachineState::capture()} {}
    LeavesNothing(const LeavesNothing&) = delete;
    LeavesNothing& operator=(const LeavesNothing&) = delete;
    ~LeavesNothing();

private:
    MachineState before_;
};

}  // namespace caisson_test
