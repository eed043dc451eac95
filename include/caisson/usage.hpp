// caisson/usage.hpp - what a control group has used, as values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caisson::inline v0 {

/// What a question about usage is to be answered with: each part costs its files.
enum class UsagePart : std::uint32_t {
    cpu = 1,     ///< time on all CPUs together, and on each
    memory = 2,  ///< in use, and the limit
    pids = 4,
    block = 8,
    network = 16,
    pressure = 32,  ///< wherever there is a v2 hierarchy
    /// More of `cpu`, the times as user, as system and throttled, and of `memory`: what it is used for, its peak, swap,
    /// events.
    details = 64,
};
/// Any of them, `UsagePart::cpu | UsagePart::memory`.
class UsageParts {
public:
    constexpr UsageParts() noexcept = default;
    constexpr UsageParts(UsagePart part) noexcept : bits_{static_cast<std::uint32_t>(part)} {}  // NOLINT: implicit
    [[nodiscard]] constexpr bool has(UsagePart part) const noexcept {
        return (bits_ & static_cast<std::uint32_t>(part)) != 0;
    }
    [[nodiscard]] constexpr std::uint32_t bits() const noexcept { return bits_; }
    [[nodiscard]] static constexpr UsageParts of_bits(std::uint32_t bits) noexcept {
        UsageParts parts;
        parts.bits_ = bits & 127;
        return parts;
    }
    [[nodiscard]] static constexpr UsageParts all() noexcept { return of_bits(127); }
    friend constexpr UsageParts operator|(UsageParts a, UsageParts b) noexcept { return of_bits(a.bits_ | b.bits_); }
    friend constexpr bool operator==(UsageParts, UsageParts) = default;

private:
    std::uint32_t bits_ = 0;
};
[[nodiscard]] constexpr UsageParts operator|(UsagePart a, UsagePart b) noexcept {
    return UsageParts{a} | UsageParts{b};
}

/// What was read from and written to one block device.
struct BlockUsage {
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
    std::uint64_t read_bytes = 0;
    std::uint64_t write_bytes = 0;
    std::uint64_t read_operations = 0;
    std::uint64_t write_operations = 0;
    friend bool operator==(const BlockUsage&, const BlockUsage&) = default;
};

/// What came and went through one interface of `ContainerSpec::networks`, as the container sees it.
struct NetworkUsage {
    std::string name{};       ///< inside
    std::string host_name{};  ///< its outer end
    std::uint64_t received_bytes = 0;
    std::uint64_t received_packets = 0;
    std::uint64_t received_errors = 0;
    std::uint64_t received_dropped = 0;
    std::uint64_t sent_bytes = 0;
    std::uint64_t sent_packets = 0;
    std::uint64_t sent_errors = 0;
    std::uint64_t sent_dropped = 0;
    friend bool operator==(const NetworkUsage&, const NetworkUsage&) = default;
};

/// Time lost in waiting for a resource (PSI): of some process, and of all at once.
struct Pressure {
    std::uint64_t some = 0;  ///< microseconds
    std::uint64_t full = 0;  ///< microseconds; 0 where the kernel does not tell
    /// Share of the last 10 seconds in hundredths of a percent: 10000 is all the time.
    std::uint32_t some_10s = 0;
    std::uint32_t full_10s = 0;
    friend bool operator==(const Pressure&, const Pressure&) = default;
};

/// What all processes of a control group have used since it was made, the ended ones included. Nothing: not asked for,
/// or the host's hierarchies do not tell.
struct Usage {
    std::optional<std::uint64_t> cpu{};            ///< nanoseconds on all CPUs together
    std::optional<std::uint64_t> cpu_user{};       ///< nanoseconds; on v1 in whole clock ticks (10 ms)
    std::optional<std::uint64_t> cpu_system{};     ///< nanoseconds; on v1 in whole clock ticks (10 ms)
    std::optional<std::uint64_t> cpu_throttled{};  ///< nanoseconds in which a quota kept processes from running
    /// Nanoseconds on each CPU, in the order of their numbers, those that are offline included. On v2 counted by perf
    /// events of the group: from the first question on, or from `Cgroup::count_cpus` and `ContainerSpec::count_cpus`,
    /// with the time that interrupts and the hypervisor took meanwhile; empty where that is not allowed.
    std::vector<std::uint64_t> cpu_each{};
    std::string cpu_each_missing{};                    ///< why `cpu_each` is empty
    std::optional<std::uint64_t> memory{};             ///< bytes in use, page cache included
    std::optional<std::uint64_t> memory_peak{};        ///< bytes; nothing on v2 before Linux 5.19
    std::optional<std::uint64_t> memory_limit{};       ///< bytes; nothing also where there is no limit
    std::optional<std::uint64_t> memory_anon{};        ///< bytes that are no file's
    std::optional<std::uint64_t> memory_file{};        ///< bytes of the page cache, and in tmpfs
    std::optional<std::uint64_t> swap{};               ///< bytes that are swapped out
    std::optional<std::uint64_t> swap_limit{};         ///< bytes; nothing also where there is no limit
    std::optional<std::uint64_t> memory_limit_hits{};  ///< how often it was met, on v1 with that of memory and swap
    std::optional<std::uint64_t> pids{};               ///< processes and threads at this moment
    std::optional<std::uint64_t> pids_limit{};         ///< nothing also where there is no limit
    /// Processes that the kernel's out-of-memory killer ended; on v1 without those of groups made inside.
    std::optional<std::uint64_t> oom_kills{};
    /// Devices that were used, or are limited. On v1 a kernel from 6.10 on counts only for a device that some group has
    /// a limit for.
    std::vector<BlockUsage> block{};
    std::vector<NetworkUsage> networks{};  ///< of containers; in the order of the spec, without removed ones
    std::optional<Pressure> cpu_pressure{};
    std::optional<Pressure> memory_pressure{};
    std::optional<Pressure> io_pressure{};
    friend bool operator==(const Usage&, const Usage&) = default;
};

}  // namespace caisson::inline v0
