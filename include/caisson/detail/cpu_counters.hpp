// caisson/detail/cpu_counters.hpp - a group's time on each CPU, where no file tells: by perf events of the group.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// One counter of the CPU clock on each CPU, for a group and those below it; counts from `open` on. See
/// perf_event_open(2), PERF_FLAG_PID_CGROUP.
class CpuCounters {
public:
    /// On the group whose directory (not O_PATH) this is: in the hierarchy that has `perf_event`, or on v2. False where
    /// the kernel refuses, with the reason in `errno`; nothing is held then.
    [[nodiscard, gnu::visibility("default")]] bool open(Fd group);
    [[nodiscard]] explicit operator bool() const noexcept { return !counters_.empty(); }
    /// Nanoseconds on each CPU, in the order of their numbers, in the place of what is in `into`. A CPU that comes
    /// online is counted from the next question on; one that goes and comes back between two is not noticed. False
    /// where that takes counters that the kernel refuses, with the reason in `errno`.
    [[nodiscard, gnu::visibility("default")]] bool read(std::vector<std::uint64_t>& into);
    /// For the `errno` of `open`.
    [[nodiscard, gnu::visibility("default")]] static std::string_view remedy(int error) noexcept;

private:
    struct Counter {
        Fd fd{};                 // nothing: the CPU is offline
        std::uint64_t past = 0;  // what those before it have counted
    };
    [[nodiscard]] bool open_all(std::vector<Fd>& into) const;
    [[nodiscard]] bool follow_online();

    Fd group_;
    Fd online_;  // the kernel's list of CPUs that are online
    std::string online_text_;
    std::vector<Counter> counters_;
};

}  // namespace caisson::inline v0::detail
