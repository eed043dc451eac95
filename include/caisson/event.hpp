// caisson/event.hpp - what a controller tells of its containers.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <caisson/detail/cgroup_notice.hpp>
#include <caisson/error.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

/// Names a container within one controller; never used twice.
enum class ContainerId : std::uint64_t {};

/// What one of a controller's containers has used.
struct ContainerUsage {
    ContainerId id{};
    std::string name{};
    Usage usage{};
    std::string missing{};  ///< why there is nothing in `usage`; empty where it was answered
    friend bool operator==(const ContainerUsage&, const ContainerUsage&) = default;
};

/// Something that happened to a container. Move-only.
struct Event {
    enum class Kind : std::uint8_t {
        started,    ///< its command runs
        failed,     ///< it did not start; the controller does not know it any more
        exited,     ///< it has ended, and everything that was made for it is gone; the controller does not know it any
                    ///< more
        suspended,  ///< by `Controller::suspend`: its processes stand still
        resumed,    ///< by `Controller::resume` or `stop`, or by an end that a restart follows
        /// The kernel's out-of-memory killer has ended processes of it: told of each container that has the controller
        /// `memory`, and before `exited` if that ended init. On v1 it takes a descriptor for each container.
        out_of_memory,
        memory_pressure,  ///< as `Controller::watch_pressure` has asked; comes again as long as it lasts
        rebooted,         ///< it has asked to be started again, or was to be; `restarting` or `exited` follows
        powered_off,      ///< it has asked to be switched off; `restarting` or `exited` follows
        /// It has ended, and is started again after `pause`: `started` or `failed` follows, or, where `stop` ends that,
        /// `exited`.
        restarting,
        console_data,      ///< with ConsoleUse::told: something can be read of console number `console_number`
        console_attached,  ///< `viewer` has come to console number `console_number`
        console_detached,  ///< and has gone
        /// By who is inside, or on the terminal of the host, told once in a second: see Controller::console_state.
        console_resized,
        /// `viewer` (0: the terminal of the host) was too slow for the others, or for a console that does not wait, and
        /// missed `count` bytes since the last such event: told once in a second, and before `exited`.
        console_lost,
        console_log_failed,  ///< `count` bytes could not be written to its log; told as often
        device_added,        ///< `device` was attached while it ran
        device_removed,      ///< was detached
        noted,               ///< by Helper::set_note, which Helper::next_event alone tells of: its note is another
        stuck,  ///< it was killed, and has not ended half a second later: `error` names the process that waits
    };
    Kind kind = Kind::started;
    ContainerId id{};
    std::string name{};                  ///< the container's
    std::optional<ExitStatus> status{};  ///< of `exited`, `restarting`, `rebooted`, `powered_off`
    std::optional<Error> error{};        ///< of `failed`, `stuck`
    /// Of `out_of_memory`: how many processes, since the last such event. Of `started` and `restarting`: how many times
    /// it has been started again. Of `console_lost` and `console_log_failed`: bytes.
    std::uint64_t count = 0;
    std::chrono::milliseconds pause{};  ///< of `restarting`
    bool preserved = false;             ///< of `exited`: the controller still knows it, see EndAction::preserve
    MemoryPressure pressure = MemoryPressure::low;  ///< of `memory_pressure`: the level that was asked for
    /// Of `exited` and `restarting`, with ConsoleUse::raw: the console, out of which the last bytes can still be read.
    std::optional<Pty> console{};
    std::vector<Pty> more_consoles{};  ///< the others, of the same two events
    std::size_t console_number = 0;    ///< of the events about a console
    std::uint32_t viewer = 0;          ///< of `console_attached`, `console_detached` and `console_lost`

    std::string device{};  ///< of the two about one: "network 'eth1'", "device '/dev/fuse'", "mount '/mnt'"

    /// True where the controller does not know the container any more: no other event about it follows.
    [[nodiscard]] bool is_last() const noexcept { return (kind == Kind::exited && !preserved) || kind == Kind::failed; }
};

}  // namespace caisson::inline v0
