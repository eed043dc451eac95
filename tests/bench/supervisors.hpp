// Programs that stay beside one container each, as a controller of caisson's does beside all of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "peers.hpp"

namespace caisson_bench {

/// Starts containers of `root` below conmon(8) and below a monitor of liblxc's, and ends them all at its end.
class Supervisors {
public:
    explicit Supervisors(std::string root);
    Supervisors(const Supervisors&) = delete;
    Supervisors& operator=(const Supervisors&) = delete;
    ~Supervisors();
    /// The supervising process; nothing where the program is not installed or does not work. The output goes to `log`,
    /// in conmon's own format; `before` is called before the command is.
    [[nodiscard]] std::optional<pid_t> start_conmon(
        const std::string& command, const std::string& log, const std::function<void()>& before = [] {});
    [[nodiscard]] std::optional<pid_t> start_lxc(const std::string& command);
    /// The command line of a container below the calling process; empty where it is not installed.
    [[nodiscard]] std::vector<std::string> lxc_execute(const std::string& command);

private:
    [[nodiscard]] std::string next_name();
    [[nodiscard]] bool run(std::vector<std::string> command) const;
    [[nodiscard]] std::optional<pid_t> pid_in(const std::string& file) const;

    std::string root_;
    std::string work_;
    PeerRunner runner_;
    caisson::Fd null_;
    int last_ = 0;
    std::vector<pid_t> all_;
    std::vector<std::string> of_crun_;
};

/// Microseconds of processor time of a process, without its children; it may have ended, if nobody has waited for it.
[[nodiscard]] double cpu_of(pid_t pid);

/// KiB of a process that nobody else has.
[[nodiscard]] long private_memory_of(pid_t pid);

}  // namespace caisson_bench
