// caisson/detail/running.hpp - a started container as the host holds it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <signal.h>
#include <sys/wait.h>

#include <caisson/cancellation.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/detail/owned.hpp>
#include <caisson/detail/plan.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/fd.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/spec.hpp>
#include <caisson/start_hook.hpp>

namespace caisson::inline v0::detail {

/// What a command that is started in the running container is like, unless it is told otherwise.
struct ExecDefaults {
    ContainerSpec spec{};         ///< of its command alone
    bool deny_setgroups = false;  ///< the container's user namespace has no supplementary groups
    [[nodiscard]] [[gnu::visibility("default")]] static ExecDefaults of(const ContainerSpec& spec, bool deny_setgroups);
};

/// What a started container consists of in the host.
struct Running {
    Channel channel{};
    Process init{};
    bool has_command_below = false;                 ///< init is that of `ContainerSpec::init`
    std::optional<std::int32_t> shutdown_signal{};  ///< as in the spec
    std::optional<std::int32_t> reboot_signal{};
    Fd keeper{};
    std::optional<Cgroup> cgroup{};
    std::vector<Pty> consoles{};
    Links links{};
    Owned<const ExecDefaults> defaults{};
    Equipment equipment{};
};

/// Starts one container; any throw leaves nothing behind, and what `hook` throws is thrown as it is. Compiled once, in
/// the library: what a start does takes longer to compile than all the rest.
[[nodiscard]] [[gnu::visibility("default")]] Running start(const ContainerSpec& spec, const StartHook& hook = {},
                                                           const Cancellation* cancellation = nullptr);

/// The keeper's report of init's end as a status.
[[nodiscard]] inline ExitStatus exit_status_of(const Report& report) {
    const int code = static_cast<int>(report.place);
    ExitStatus status = code == CLD_EXITED ? ExitStatus::exited(report.value) : ExitStatus::killed(report.value);
    status = status.with_core_dumped(code == CLD_DUMPED).with_out_of_memory(report.oom_kills > 0);
    // What the child of a built-in init died of says nothing more.
    if (report.of_child != 0) return status;
    // The kernel's way to tell reboot(2) inside a pid namespace; a SIGHUP or SIGINT from anybody else does not kill an
    // init with the default disposition.
    if (code == CLD_KILLED && report.value == SIGHUP) return status.with(ExitStatus::Request::restart);
    if (code == CLD_KILLED && report.value == SIGINT) return status.with(ExitStatus::Request::poweroff);
    return status;
}

/// The keeper, and after its death init, is the host's child only where the host is pid 1 or a subreaper; nobody else
/// would reap it then. `pidfd`: of a process that has ended or is about to; `options`: WNOHANG where a tracer inside
/// may keep it, whose it is to reap then.
inline void reap_if_ours(int pidfd, int options = 0) noexcept {
    if (pidfd < 0) return;
    siginfo_t info{};
    (void)sys::retry([&] {
        return ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED | __WALL | options);
    });
}

}  // namespace caisson::inline v0::detail
