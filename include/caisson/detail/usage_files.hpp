// caisson/detail/usage_files.hpp - the files behind Cgroup::usage, kept open; implemented in src/usage_files.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <caisson/detail/cpu_counters.hpp>
#include <caisson/fd.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0::detail {

/// Each is opened when it is first asked for. Who is not there tells nothing.
class UsageFiles {
public:
    enum File : std::size_t {
        cpu_each,   // v1 cpuacct.usage_percpu
        cpu_ticks,  // v1 cpuacct.stat
        cpu_stat,   // v2 cpu.stat
        throttled,  // cpu.stat of the hierarchy that limits, where that is another
        memory,
        memory_limit,
        memory_peak,
        memory_stat,
        memory_hits,  // v1 memory.failcnt
        both_hits,    // v1 memory.memsw.failcnt
        oom,          // v1 memory.oom_control, v2 memory.events
        swap,         // v2 memory.swap.current
        swap_limit,   // v2 memory.swap.max
        both_limit,   // v1 memory.memsw.limit_in_bytes
        pids,
        pids_limit,
        block_bytes,       // v1 blkio.throttle.io_service_bytes_recursive
        block_operations,  // v1 blkio.throttle.io_serviced_recursive
        block_stat,        // v2 io.stat
        cpu_pressure,
        memory_pressure,
        io_pressure,
        count
    };
    /// Files that are opened together.
    enum Set : std::uint32_t {
        cpu_set = 1,
        cpu_details_set = 2,
        memory_set = 4,
        memory_details_set = 8,
        pids_set = 16,
        block_set = 32,
        pressure_set = 64,
    };
    [[nodiscard]] static std::uint32_t sets_for(UsageParts parts) noexcept;

    /// What is not open of these sets.
    [[nodiscard]] std::uint32_t missing(std::uint32_t sets) const noexcept { return sets & ~open_sets_; }
    void opened(std::uint32_t sets) noexcept { open_sets_ |= sets; }
    [[nodiscard]] bool has(File file) const noexcept { return static_cast<bool>(files_[file]); }
    void set(File file, Fd fd) noexcept { files_[file] = std::move(fd); }
    /// Where `cpu_each` is no file. `group` is its directory, or nothing, for `error`. False, and it is told in
    /// `Usage::cpu_each_missing` from then on, where the kernel refuses.
    bool count_cpus(Fd group, int error);
    [[nodiscard]] bool counts_cpus() const noexcept { return static_cast<bool>(counters_) || has(cpu_each); }

    /// True, once, where a file was there and is not any more: the group was removed, or its controller switched off.
    /// What is there is looked for again by the next question.
    [[nodiscard]] bool take_lost() noexcept { return std::exchange(has_lost_, false); }
    /// Fills what is asked for; the rest becomes nothing. Throws `Step::cgroup`.
    void read(UsageParts parts, Usage& into);

private:
    using Number = std::optional<std::uint64_t>;
    /// All of a file, valid until the next call; nothing where it is not there.
    [[nodiscard]] std::optional<std::string_view> load(File file);
    [[nodiscard]] Number number(File file);
    [[nodiscard]] Number limit(File file);
    void read_cpu(bool details, Usage& into);
    void read_memory(bool details, Usage& into);
    void read_block(Usage& into);
    void read_pressure(File file, std::optional<Pressure>& into);

    Fd files_[count];
    std::uint32_t open_sets_ = 0;
    bool has_lost_ = false;
    CpuCounters counters_;
    std::string uncounted_;  // why there are no counters
    std::vector<char> text_;
};

}  // namespace caisson::inline v0::detail
