// caisson/lifecycle.hpp - what the end of a container means, what follows it, and how it is asked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include <caisson/process.hpp>

namespace caisson::inline v0 {

/// The three ways in which a container ends.
enum class EndKind : std::uint8_t {
    poweroff,  ///< reboot(2) to power off or halt inside; or init has exited with 0
    reboot,    ///< reboot(2) to restart inside
    crash,     ///< init was killed by a signal, also for want of memory, or has exited with another status than 0
};
/// What is to follow an end.
enum class EndAction : std::uint8_t {
    destroy,   ///< nothing: the container is gone
    restart,   ///< it is started again, after a pause, see BackOff
    preserve,  ///< what is left to look at is kept until it is released: status, the console's rest, the last usage
};

[[nodiscard]] constexpr EndKind end_kind(ExitStatus status) noexcept {
    if (status.request() == ExitStatus::Request::restart) return EndKind::reboot;
    const bool off = status.request() == ExitStatus::Request::poweroff || status.success();
    return off ? EndKind::poweroff : EndKind::crash;
}
/// "poweroff", "reboot", "crash".
[[nodiscard]] constexpr const char* to_string(EndKind kind) noexcept {
    switch (kind) {
        case EndKind::poweroff: return "poweroff";
        case EndKind::reboot: return "reboot";
        case EndKind::crash: return "crash";
    }
    return "?";
}

/// How long a container that is started again and again is kept from it. In milliseconds.
struct BackOff {
    std::uint32_t first_pause_ms = 100;      ///< before the first restart; each next one waits twice as long
    std::uint32_t longest_pause_ms = 60000;  ///< but never longer than this
    std::uint32_t forget_after_ms = 10000;   ///< a run as long as this makes the next restart a first one again
    /// Restarts in a row, after which the next end is final, as with EndAction::destroy. Nothing: any number.
    std::optional<std::uint32_t> most{};
    friend bool operator==(const BackOff&, const BackOff&) = default;

    /// The pause before the restart that `already` others have gone before.
    [[nodiscard]] constexpr std::uint32_t pause_ms(std::uint32_t already) const noexcept {
        const std::uint64_t pause = std::uint64_t{first_pause_ms} << std::min(already, 31u);
        return static_cast<std::uint32_t>(std::min<std::uint64_t>(pause, longest_pause_ms));
    }
};

/// How an init is asked to shut down, or to restart.
enum class ShutdownMode : std::uint8_t {
    automatic,  ///< `initctl` where an init reads its fifo, else `signal`
    /// The request of sysvinit's init(8) for runlevel 0 or 6, into the fifo that an init inside reads: /run/initctl,
    /// /dev/initctl or /etc/.initctl of the container, never one of the host's own.
    initctl,
    /// `ContainerSpec::shutdown_signal` and `reboot_signal`; where they say nothing, what the init takes, by its name
    /// and the signals that it catches or waits for: SIGRTMIN+4 and +5 for "systemd", see systemd(1); SIGPWR and SIGINT
    /// for an init that takes SIGPWR, as sysvinit's and busybox's do; SIGTERM for anything else.
    signal,
    by_caller,  ///< not at all: the caller does, by a command inside, say; the end then counts as what was asked for
};

}  // namespace caisson::inline v0
