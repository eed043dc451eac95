// caisson/cgroup_watch.hpp - what happens to a control group, on one pollable descriptor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <caisson/detail/cgroup_notice.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// What a `CgroupWatch` tells of.
struct CgroupWatchOptions {
    bool out_of_memory = true;
    /// This level and above.
    std::optional<MemoryPressure> pressure{};
    bool empty = false;
};

struct CgroupEvent {
    enum class Kind : std::uint8_t {
        out_of_memory,    ///< the kernel's out-of-memory killer ended processes of the group
        memory_pressure,  ///< see MemoryPressure; again every second (PSI), or as often as v1 says it
        empty,            ///< its last process has left it and the groups below
    };
    Kind kind = Kind::out_of_memory;
    std::uint64_t count = 0;                        ///< of `out_of_memory`: how many, since the last such event
    MemoryPressure pressure = MemoryPressure::low;  ///< of `memory_pressure`: the level that was asked for
    friend bool operator==(const CgroupEvent&, const CgroupEvent&) = default;
};

/// Tells what happens to a control group; made by `Cgroup::watch`. Move-only; one thread at a time. Outlives the group,
/// of which nothing more comes then.
///
/// Kills in groups made inside are counted on v2, and not on v1. Holds up to five descriptors.
class CgroupWatch {
public:
    /// Readable for poll(2) when there is something to ask `next` for, until it returns nothing. Owned by this object;
    /// do not read from it.
    [[nodiscard]] int fd() const noexcept { return epoll_.get(); }
    /// What has happened since; nothing if there is no more. Never blocks. Throws `Step::cgroup`.
    [[nodiscard]] [[gnu::visibility("default")]] std::optional<CgroupEvent> next();

private:
    friend class Cgroup;
    CgroupWatch() = default;
    void add(int fd, std::uint32_t events, std::uint64_t key) const;
    void look_at_kills();
    void look_at_processes();
    void set_timer() const;

    static constexpr std::int64_t never = INT64_MAX;
    Fd epoll_, timer_;
    std::optional<detail::OomNotice> oom_;
    std::int64_t oom_at_ = never;
    std::uint64_t kills_ = 0;  // to be told
    std::optional<detail::PressureNotice> pressure_;
    std::int64_t pressure_at_ = never;
    bool pressed_ = false;  // to be told
    Fd population_;         // cgroup.events
    bool populated_ = false;
    bool frozen_ = false;
    bool emptied_ = false;  // to be told
};

}  // namespace caisson::inline v0
