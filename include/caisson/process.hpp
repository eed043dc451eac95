// caisson/process.hpp - processes held by pidfd, and how they end.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// How a container's first process ended.
class ExitStatus {
public:
    /// What init asked of the "machine" as it ended: reboot(2) inside a pid namespace kills init by SIGHUP (restart) or
    /// SIGINT (halt, poweroff); see pid_namespaces(7).
    enum class Request : std::uint8_t { none, restart, poweroff };

    constexpr ExitStatus() noexcept = default;
    [[nodiscard]] static constexpr ExitStatus exited(int code) noexcept { return ExitStatus{code, false}; }
    [[nodiscard]] static constexpr ExitStatus killed(int signal) noexcept { return ExitStatus{signal, true}; }

    [[nodiscard]] constexpr bool success() const noexcept { return !by_signal_ && value_ == 0; }
    /// The code given to exit(2), 0 to 255; nothing if a signal ended it.
    [[nodiscard]] constexpr std::optional<int> code() const noexcept {
        return by_signal_ ? std::nullopt : std::optional<int>{value_};
    }
    [[nodiscard]] constexpr std::optional<int> signal() const noexcept {
        return by_signal_ ? std::optional<int>{value_} : std::nullopt;
    }
    /// The kernel's out-of-memory killer killed at least one process of the container.
    [[nodiscard]] constexpr bool out_of_memory() const noexcept { return out_of_memory_; }
    [[nodiscard]] constexpr bool core_dumped() const noexcept { return core_dumped_; }
    [[nodiscard]] constexpr Request request() const noexcept { return request_; }

    [[nodiscard]] constexpr ExitStatus with(Request request) const noexcept {
        ExitStatus copy = *this;
        copy.request_ = request;
        return copy;
    }
    [[nodiscard]] constexpr ExitStatus with_out_of_memory(bool value) const noexcept {
        ExitStatus copy = *this;
        copy.out_of_memory_ = value;
        return copy;
    }
    [[nodiscard]] constexpr ExitStatus with_core_dumped(bool value) const noexcept {
        ExitStatus copy = *this;
        copy.core_dumped_ = value;
        return copy;
    }

    /// "exited with status 3", "killed by signal 9 (out of memory)", "asked for a restart".
    [[nodiscard]] std::string str() const {
        std::string text;
        if (request_ == Request::restart) text = "asked for a restart";
        else if (request_ == Request::poweroff) text = "powered off";
        else if (by_signal_) text = "killed by signal " + std::to_string(value_);
        else text = "exited with status " + std::to_string(value_);
        if (core_dumped_) text += " (core dumped)";
        if (out_of_memory_) text += " (out of memory)";
        return text;
    }

    friend constexpr bool operator==(ExitStatus, ExitStatus) noexcept = default;

private:
    constexpr ExitStatus(int value, bool by_signal) noexcept : value_{value}, by_signal_{by_signal} {}
    int value_ = 0;
    bool by_signal_ = false;
    bool out_of_memory_ = false;
    bool core_dumped_ = false;
    Request request_ = Request::none;
};

/// A process named by a pidfd, so that a recycled pid is never signalled or waited for.
///
/// Owns the pidfd, not the process: destroying the object does nothing to the process. `signal` may be called from any
/// thread; moving or destroying belongs to one thread at a time. On an object that holds nothing, `signal` throws
/// `std::logic_error` and `ended` is true. Kernel: pidfd_open(2), pidfd_send_signal(2).
class Process {
public:
    Process() noexcept = default;
    Process(pid_t pid, Fd pidfd) noexcept : pid_{pid}, pidfd_{std::move(pidfd)} {}
    Process(Process&& other) noexcept : pid_{std::exchange(other.pid_, -1)}, pidfd_{std::move(other.pidfd_)} {}
    Process& operator=(Process&& other) noexcept {
        if (this != &other) {
            pid_ = std::exchange(other.pid_, -1);
            pidfd_ = std::move(other.pidfd_);
        }
        return *this;
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() = default;
    /// A handle of the process that has `pid` at this moment. Throws `Step::signal` if there is none.
    [[nodiscard]] static Process open(pid_t pid) {
        Fd fd{detail::sys::pidfd_open(pid)};
        if (!fd) detail::fail(Step::signal, "process " + std::to_string(pid));
        return Process{pid, std::move(fd)};
    }
    /// Of a pidfd, which it takes over: one that another process has passed on, say. Throws `Step::signal` with ESRCH
    /// if the process has ended and was reaped, or is in a pid namespace that /proc does not show.
    [[nodiscard]] static Process adopt(Fd pidfd) {
        const std::string file = "/proc/thread-self/fdinfo/" + std::to_string(pidfd.get());
        std::string text;
        if (!detail::sys::read_file(AT_FDCWD, file.c_str(), text)) {
            detail::fail(Step::signal, "read " + detail::quote(file));
        }
        const std::size_t at = text.find("\nPid:\t");
        const long pid = at == std::string::npos ? -1 : std::strtol(text.c_str() + at + 6, nullptr, 10);
        if (pid <= 0) throw Error{Step::signal, ESRCH, "process of pidfd " + std::to_string(pidfd.get())};
        return Process{static_cast<pid_t>(pid), std::move(pidfd)};
    }
    /// Another handle of the same process. Throws `Step::descriptors`.
    [[nodiscard]] Process duplicate() const {
        if (!pidfd_) throw std::logic_error{"this Process holds nothing"};
        Fd copy{::fcntl(pidfd_.get(), F_DUPFD_CLOEXEC, 3)};
        if (!copy) detail::fail(Step::descriptors, "pidfd of process " + std::to_string(pid_), "raise 'ulimit -n'");
        return Process{pid_, std::move(copy)};
    }
    /// A handle of the calling process.
    [[nodiscard]] static Process self() { return open(::getpid()); }

    /// As the caller's pid namespace numbers it; -1 if this object holds nothing.
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    /// Readable for poll(2) once the process has ended (all its threads).
    [[nodiscard]] int pidfd() const noexcept { return pidfd_.get(); }
    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(pidfd_); }
    /// Sends a signal; false if the process has ended. Throws `Step::signal` on any other refusal.
    bool signal(int number) const {
        if (!pidfd_) throw std::logic_error{"this Process holds nothing"};
        if (detail::sys::pidfd_send_signal(pidfd_.get(), number) == 0) return true;
        if (errno == ESRCH) return false;
        // Whoever may not for want of rights gets EPERM.
        detail::fail(Step::signal, "signal " + std::to_string(number) + " to process " + std::to_string(pid_),
                     errno == EACCES ? "a policy keeps it from this process: with AppArmor, its profile needs 'signal "
                                       "(receive) peer=unconfined,'"
                                     : "");
    }
    /// True once the process has ended, reaped or not. Never blocks.
    [[nodiscard]] bool ended() const noexcept { return ended_within(0); }
    /// Waits up to `milliseconds` (-1: for ever) for the end; true if it has ended.
    [[nodiscard]] bool ended_within(int milliseconds) const noexcept {
        if (!pidfd_) return true;
        pollfd p{pidfd_.get(), POLLIN, 0};
        const std::int64_t deadline = milliseconds > 0 ? now() + milliseconds : 0;
        int n = ::poll(&p, 1, milliseconds);
        while (n < 0 && errno == EINTR) {
            if (milliseconds > 0) milliseconds = static_cast<int>(std::max<std::int64_t>(0, deadline - now()));
            n = ::poll(&p, 1, milliseconds);
        }
        return n > 0;
    }

private:
    static std::int64_t now() noexcept {
        timespec t{};
        (void)::clock_gettime(CLOCK_MONOTONIC, &t);
        return std::int64_t{t.tv_sec} * 1000 + t.tv_nsec / 1'000'000;
    }
    pid_t pid_ = -1;
    Fd pidfd_;
};

}  // namespace caisson::inline v0
