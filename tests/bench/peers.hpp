// Other programs that start containers, each as one whole command.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include <caisson/fd.hpp>

namespace caisson_bench {

struct Peer {
    std::string name;
    std::vector<std::string> command;
    bool v1_only = false;  ///< refuses a machine that mounts v1 and v2 hierarchies: sees the v1 ones alone
};

/// The peers that are installed, with their configuration written below `work`, whose `rootfs` is `root`.
[[nodiscard]] std::vector<Peer> installed_peers(const std::string& root, const std::string& work);

/// What a container of an OCI runtime is, as a file in the new directory `bundle`.
void write_bundle(const std::string& root, const std::string& bundle, const std::string& name,
                  const std::string& command, bool terminal);
/// What a container of liblxc's is, as a file in the new directory `directory`.
void write_lxc(const std::string& root, const std::string& directory);

/// A peer that executes a program in a container of its own that runs.
struct Visitor {
    Peer begin;    ///< starts the container; without a command where it is the caller's
    Peer command;  ///< executes the stamp in it
    Peer end;      ///< ends it
};

/// Those that are installed; `init`: of a container of the caller's, for who needs none of its own. `root` has a
/// program `stay`.
[[nodiscard]] std::vector<Visitor> installed_visitors(const std::string& root, const std::string& work, pid_t init);

/// Runs a peer's command to its end; false if it fails. Its output goes to `output`, a descriptor.
class PeerRunner {
public:
    PeerRunner();
    /// Prepares what `run` needs, outside the time that is taken.
    void enter(const Peer& peer);
    /// Sees the v1 hierarchies alone, where there are some.
    void enter_v1();
    [[nodiscard]] bool run(const Peer& peer, int output) const;
    void leave();

private:
    caisson::Fd own_;
    caisson::Fd v1_only_;
    bool inside_ = false;
};

/// Removes the control groups that a peer left behind; how many there were.
int remove_leftovers();

}  // namespace caisson_bench
