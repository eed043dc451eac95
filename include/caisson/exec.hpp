// caisson/exec.hpp - a command in a container that runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <signal.h>
#include <unistd.h>

#include <caisson/capability.hpp>
#include <caisson/detail/asking.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/error.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/resource_limit.hpp>
#include <caisson/seccomp.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// What a command in a running container is to be. Copyable, comparable. What is nothing is as the container's spec
/// says for its own command; a given value replaces that, also where it allows more.
struct ExecSpec {
    std::vector<std::string> command{};  ///< argv; the first is an absolute path inside the container
    /// Variables beside those of the container's spec, or in the place of those of the same name.
    std::vector<std::pair<std::string, std::string>> environment{};
    bool inherit_environment = true;                 ///< false: not those of the container's spec
    std::optional<std::string> working_directory{};  ///< inside
    /// Which of the container's namespaces it is in; for the others, in the caller's. `mount`, `pid` and `user` must be
    /// among them, and all that the container has where it has no user namespace: a program in the container could
    /// reach the host by it. With one, it still reaches what the command does: without `net`, services and abstract
    /// sockets of the caller's network, as a user without rights there.
    NamespaceSet namespaces = NamespaceKind::mount | NamespaceKind::pid | NamespaceKind::user | NamespaceKind::uts |
                              NamespaceKind::ipc | NamespaceKind::net | NamespaceKind::cgroup;
    /// As ContainerSpec::user and ContainerSpec::group; names are looked up in the container as it is at this moment.
    /// Without `group`, a user that is a name has the groups of the container's files, and one that is a number has the
    /// group of the same number alone.
    std::string user{};
    std::string group{};
    std::optional<std::vector<std::uint32_t>> groups{};  ///< supplementary
    std::optional<CapabilitySpec> capabilities{};
    /// The start itself also calls clone, exit_group, prctl, ppoll and setsid under it, ioctl for a console, and
    /// prlimit64 for a limit of processes: a rule that refuses one of them, also of the container's, is an error.
    std::optional<SeccompSpec> seccomp{};
    std::optional<bool> no_new_privileges{};
    std::optional<std::string> security_label{};
    /// In the container's control groups; false: in the caller's, beyond the container's limits and device rules. That
    /// is refused where the container has no user namespace. Names of users and groups are looked up in the container's
    /// groups in any case: where these are full, numbers go.
    bool cgroup = true;
    std::vector<ResourceLimit> resource_limits{};  ///< in the place of those of the same kind
    std::optional<std::uint32_t> umask{};
    std::optional<std::int32_t> oom_score_adj{};
    /// A terminal of the container's own /dev/pts: stdin, stdout, stderr and the controlling terminal of the command.
    /// Nothing: `stdio` instead.
    std::optional<WindowSize> console{};
    StdioSpec stdio{};
    std::vector<std::int32_t> descriptors{};  ///< as ContainerSpec::descriptors
    /// How long the start may take: the container's own file systems (FUSE) may never answer.
    std::chrono::milliseconds start_timeout{10'000};
    friend bool operator==(const ExecSpec&, const ExecSpec&) = default;
};

/// Throws `Error` with `Step::check_spec`, naming the field, the value and the remedy, if `spec` cannot work in any
/// container. Looks at the spec only. `Container::exec` calls it.
[[gnu::visibility("default")]] void check(const ExecSpec& spec);

class Exec;

namespace detail {

/// What it takes to start a command in a container, for whoever does it.
struct ExecTicket {
    Process init{};
    ExecDefaults defaults{};
    GroupPlace groups{};
    bool is_suspended = false;

    /// Throws what Container::exec throws. Any number of threads may call it at a time.
    [[nodiscard]] [[gnu::visibility("default")]] Exec exec(const ExecSpec& spec) const;
    /// Throw what Container::copy_in throws.
    [[gnu::visibility("default")]] void copy_in(const std::string& source, const std::string& target) const;
    [[gnu::visibility("default")]] void copy_out(const std::string& source, const std::string& target) const;
};

}  // namespace detail

/// Owns a command that was started in a running container. Move-only.
///
/// The command is killed when the container ends, when the process that started it ends, and when this object is
/// destroyed; what it has started itself goes on in the container, unless it has ended by then. A process of its own
/// waits for it, outside the container, so that its status is exact and no SIGCHLD is raised; in a fork(2)ed copy of
/// the process the object does nothing. One object is used by one thread at a time, different objects by different
/// ones. A command in a container that is suspended meanwhile stands still with it.
class Exec {
public:
    Exec(Exec&& other) noexcept
        : visitor_{std::move(other.visitor_)},
          console_{std::move(other.console_)},
          status_{std::exchange(other.status_, std::nullopt)},
          owner_{std::exchange(other.owner_, -1)} {}
    Exec& operator=(Exec&& other) noexcept {
        if (this == &other) return *this;
        end();
        visitor_ = std::move(other.visitor_);
        console_ = std::move(other.console_);
        status_ = std::exchange(other.status_, std::nullopt);
        owner_ = std::exchange(other.owner_, -1);
        return *this;
    }
    Exec(const Exec&) = delete;
    Exec& operator=(const Exec&) = delete;
    ~Exec() { end(); }

    /// The command, as the caller's pid namespace numbers it.
    [[nodiscard]] const Process& process() const noexcept { return visitor_.process; }
    /// Readable for poll(2) once `try_wait` has the exit status. Owned by this object; do not read from it. Another one
    /// where `try_wait` has returned nothing though it was readable: somebody has killed the process that waits for the
    /// command, and the kernel cannot end the command itself yet.
    [[nodiscard]] int fd() const noexcept {
        return !status_ && is_orphaned() ? visitor_.process.pidfd() : visitor_.channel.fd();
    }
    /// The controlling end of its terminal; nullptr if the spec asked for none.
    [[nodiscard]] Pty* console() noexcept { return console_ ? &*console_ : nullptr; }
    /// Sends a signal to the command; false if it has ended. Throws `Step::signal`.
    bool signal(int number) const {
        require_started();
        return !status_ && visitor_.process.signal(number);
    }
    /// How the command ended; nothing while it runs. Never blocks. `killed by signal 9` also where the container ended.
    [[nodiscard]] std::optional<ExitStatus> try_wait() {
        require_started();
        while (!status_) {
            detail::Received message;
            switch (visitor_.channel.receive(message)) {
                case detail::Channel::State::nothing_yet: return std::nullopt;
                case detail::Channel::State::closed:
                    // Somebody has killed who sees to it, and the kernel the command with that.
                    if (!visitor_.process.ended()) {
                        (void)detail::sys::pidfd_send_signal(visitor_.process.pidfd(), SIGKILL);
                        return std::nullopt;
                    }
                    detail::reap_if_ours(visitor_.process.pidfd(), WNOHANG);
                    finish(ExitStatus::killed(SIGKILL));
                    break;
                case detail::Channel::State::report:
                    if (message.report.kind != detail::Report::Kind::ended) break;
                    finish(status_of(message.report));
                    break;
            }
        }
        return status_;
    }
    /// Blocks until the command has ended. May be called again.
    ExitStatus wait() {
        for (;;) {
            if (const auto status = wait_for(std::chrono::hours{24})) return *status;
        }
    }
    /// As `wait`, for at most `time`; nothing if it still runs then.
    [[nodiscard]] std::optional<ExitStatus> wait_for(std::chrono::milliseconds time) {
        const std::int64_t deadline = detail::deadline_in(time.count());
        for (;;) {
            if (const auto status = try_wait()) return status;
            const std::int64_t left = deadline - detail::monotonic_ms();
            if (left <= 0) return std::nullopt;
            (void)detail::wait_readable(fd(), left);
        }
    }
    /// SIGKILL; returns how it ended. Where a tracer in the container (ptrace(2)) has kept its end from it, or that to
    /// itself, for five seconds: `killed by signal 9`; it runs nothing any more.
    ExitStatus kill() {
        if (const auto status = try_wait()) return *status;
        (void)signal(SIGKILL);
        while (!visitor_.process.ended_within(100) && !detail::is_held(visitor_.process)) continue;
        if (wait_for(std::chrono::seconds{5})) return *status_;
        // Who waits for `fd` waits no longer than this.
        visitor_.channel.shut();
        return *(status_ = ExitStatus::killed(SIGKILL));
    }

private:
    friend struct detail::ExecTicket;
    explicit Exec(detail::Visitor visitor) : visitor_{std::move(visitor)}, owner_{::getpid()} {
        if (visitor_.ended) finish(status_of(*visitor_.ended));
        if (visitor_.console) console_.emplace(Pty::adopt(std::move(visitor_.console)));
    }
    /// No reboot(2) of the command's can be told from a signal.
    [[nodiscard]] static ExitStatus status_of(const detail::Report& report) noexcept {
        return detail::exit_status_of(report).with(ExitStatus::Request::none);
    }
    void require_started() const {
        if (owner_ < 0) throw std::logic_error{"this Exec has been moved from"};
        if (owner_ != ::getpid()) throw std::logic_error{"this Exec is another process's, of which this is a copy"};
    }
    /// The socket of a dead stage is readable for ever.
    [[nodiscard]] bool is_orphaned() const noexcept { return detail::wait_readable(visitor_.keeper.get(), 0); }
    void finish(ExitStatus status) noexcept {
        status_ = status;
        detail::reap_if_ours(visitor_.keeper.get());
    }
    void end() noexcept {
        if (owner_ != ::getpid()) return;
        if (!status_) {
            (void)detail::sys::pidfd_send_signal(visitor_.process.pidfd(), SIGKILL);
            visitor_.channel.hang_up();
            // One that a v1 group keeps frozen ends when the container is resumed, and what sees to it then.
            if (!detail::wait_readable(visitor_.keeper.get(), 1000)) return;
            (void)visitor_.process.ended_within(1000);
        }
        detail::reap_if_ours(visitor_.keeper.get(), WNOHANG);
        // Where somebody has killed that one, nobody else does it, and the container would not come to its end.
        detail::reap_if_ours(visitor_.process.pidfd(), WNOHANG);
    }

    detail::Visitor visitor_;
    std::optional<Pty> console_;
    std::optional<ExitStatus> status_;
    pid_t owner_ = -1;
};

}  // namespace caisson::inline v0
