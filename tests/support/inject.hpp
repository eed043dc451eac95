// support/inject.hpp - a fault injector on ptrace(2): one fault, at the k-th system call of one kind of process.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace caisson_test {

/// Who makes a system call, told by how the process came about. A chain of clones is followed: host - a vfork-like
/// child with the host's memory (intermediate) and what that one makes until its execve (intermediate too) - keeper -
/// the keeper's child (init), and its child, until their execve. A visit to a container that runs has the same roles:
/// its stage is the keeper, who joins is init. Whatever comes after is `other`, as is the host outside of its markers.
enum class Role { host, intermediate, keeper, init, other };
constexpr std::array<Role, 4> injected_roles{Role::host, Role::intermediate, Role::keeper, Role::init};
[[nodiscard]] std::string_view to_string(Role role);

/// The traced program brackets what is to be looked at by prctl(inject_marker, 1) and prctl(inject_marker, 0), which
/// fail and do nothing where nobody traces.
constexpr int inject_marker = 0x63616973;

struct Fault {
    enum class Action {
        none,
        fail,  ///< the call is not made and returns `errnum`; close(2) is made, as it always releases the descriptor
        kill,  ///< SIGKILL to the process, before the call
        hold,  ///< the process stands still for `milliseconds` before the call, while all others go on
    };
    Action action = Action::none;
    Role role = Role::host;
    long call = 0;  ///< which one, from 1 on
    int errnum = 0;
    int milliseconds = 100;
    std::string only{};  ///< the name of a system call: no other is counted
    std::string slow{};  ///< that of one before which all but the host stand still, for a third of `milliseconds`
};

struct Run {
    int status = -1;    ///< of the traced program, as from waitpid(2)
    bool hung = false;  ///< it, or a process that it made, was there at the deadline, and was killed
    /// The system call that the fault met, "openat", for prctl with its number: "prctl 38". Empty: the role made fewer.
    std::string hit{};
    std::string output{};         ///< standard output and standard error
    std::array<long, 5> calls{};  ///< how many were counted, by role
    long seen = 0;                ///< system calls of whomever, also outside of the markers
    std::string still_there{};    ///< with `hung`: roles and system calls
};

/// Why programs cannot be traced here; null where they can.
[[nodiscard]] const char* inject_missing();

/// Runs `command` (an absolute path and its arguments) with one fault and waits until it and all that it made have
/// ended, at most `seconds`. Throws `std::runtime_error` where the machine refuses. One at a time in a process; SIGALRM
/// is taken.
[[nodiscard]] Run inject(const std::vector<std::string>& command, const Fault& fault, int seconds = 10);

}  // namespace caisson_test
