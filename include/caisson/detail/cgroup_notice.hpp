// caisson/detail/cgroup_notice.hpp - what the kernel tells of the memory of one control group.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// How hard a control group's processes have it to get memory.
///
/// Where the group has a v2 directory, by its memory.pressure (PSI): within a second, one process or more has waited
/// for memory for 50 ms (low) or 200 ms (medium), or all at once for 200 ms (critical). Else by v1's
/// memory.pressure_level: memory is being reclaimed (low), with little success (medium), or with next to none
/// (critical).
enum class MemoryPressure : std::uint8_t { low, medium, critical };

namespace detail {

class [[gnu::visibility("default")]] OomNotice;
class [[gnu::visibility("default")]] PressureNotice;

/// Tells of the processes that the kernel's out-of-memory killer ended.
class OomNotice {
public:
    /// On v1 makes an eventfd and hands it to the kernel by `event_control`, an open cgroup.event_control. `file` is
    /// the one that Cgroup::oom_fd tells of, opened for this object. Throws `Step::cgroup`.
    OomNotice(Fd file, const Fd& event_control);
    /// What epoll(7) is to wait for.
    [[nodiscard]] int fd() const noexcept { return event_ ? event_.get() : file_.get(); }
    [[nodiscard]] std::uint32_t events() const noexcept;
    /// How many since the last call; nothing once the group was removed.
    [[nodiscard]] std::optional<std::uint64_t> take();
    /// v1 tells that the killer begins, and the count comes after: the milliseconds in which to call `take` again; 0
    /// for not before the descriptor says so.
    [[nodiscard]] int again_in() const noexcept { return again_in_; }
    /// How many there were up to the last `take`.
    [[nodiscard]] std::uint64_t seen() const noexcept { return seen_; }

private:
    Fd file_;
    Fd event_;  // v1
    std::uint64_t seen_ = 0;
    int again_in_ = 0;
};

/// Tells when a group's processes have had it as hard as `level`, or harder.
class PressureNotice {
public:
    /// How often `take` is to be called where there is no descriptor to wait for: a trigger of the kernel's (PSI) would
    /// be taken away by who polls an epoll descriptor that it is in.
    static constexpr std::int64_t period_ms = 1000;

    /// With PSI: the open memory.pressure.
    PressureNotice(MemoryPressure level, Fd file) noexcept;
    /// v1: an open memory.pressure_level, and cgroup.event_control. Throws `Step::cgroup`.
    PressureNotice(MemoryPressure level, const Fd& file, const Fd& event_control);
    [[nodiscard]] MemoryPressure level() const noexcept { return level_; }
    /// v1: what to wait for; -1 with PSI.
    [[nodiscard]] int fd() const noexcept { return event_.get(); }
    [[nodiscard]] bool take();
    /// With PSI: the group was removed, and `take` has nothing more to tell.
    [[nodiscard]] bool is_gone() const noexcept { return is_gone_; }

private:
    [[nodiscard]] std::optional<std::uint64_t> stalled() const;

    MemoryPressure level_;
    Fd file_;   // PSI
    Fd event_;  // v1
    std::uint64_t seen_ = 0;
    std::int64_t at_ = 0;  // when that was, in milliseconds
    bool is_gone_ = false;
};

}  // namespace detail
}  // namespace caisson::inline v0
