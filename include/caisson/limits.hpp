// caisson/limits.hpp - what all processes of a container together may use.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace caisson::inline v0 {

/// What may be read from and written to one block device.
struct BlockLimit {
    /// Of the host: the device's node, or "MAJOR:MINOR". A partition's limits are its whole disk's.
    std::string device{};
    std::optional<std::uint32_t> weight{};           ///< as `LimitSpec::block_weight`, for this device
    std::optional<std::uint64_t> read_bytes{};       ///< a second
    std::optional<std::uint64_t> write_bytes{};      ///< a second
    std::optional<std::uint64_t> read_operations{};  ///< a second
    std::optional<std::uint64_t> write_operations{};
    friend bool operator==(const BlockLimit&, const BlockLimit&) = default;
};

/// How much may be in huge pages of one size, rounded down to whole ones: mmap(2) fails with ENOMEM beyond it, and what
/// was mapped with MAP_NORESERVE gets SIGBUS where it is touched.
struct HugePageLimit {
    std::uint64_t page_size = 0;  ///< bytes: 2097152, 1073741824
    std::uint64_t bytes = 0;
    friend bool operator==(const HugePageLimit&, const HugePageLimit&) = default;
};

/// Limits on all processes of a container together, see cgroups(7). Nothing means: as the kernel has it for a new
/// group, or, in `Container::limit`, as it is. `unlimited` takes a limit away. The same values mean the same on v1 and
/// v2, whatever their files count in.
struct LimitSpec {
    static constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

    /// Bytes of RAM, rounded down to whole pages. What does not fit into it is reclaimed, and, where that is not
    /// enough, the kernel kills. Without `memory_and_swap`, nothing is swapped out beyond it. A change to less than
    /// what is used and cannot be reclaimed is refused with EBUSY and kills nobody, on v2 too.
    std::optional<std::uint64_t> memory{};
    /// Bytes of RAM above which the group's memory is reclaimed first (v1 memory.soft_limit_in_bytes), or at once, by
    /// its own processes (v2 memory.high); nothing is killed.
    std::optional<std::uint64_t> memory_soft{};
    /// Bytes of RAM and swap together, at least `memory`: v1 memory.memsw.limit_in_bytes; on v2, memory.swap.max is
    /// what is left of it after `memory`. Only with `memory`, but in a change of limits: there, `memory` alone leaves
    /// it as it is, unless it was the same or would be less, and then it is the same again.
    std::optional<std::uint64_t> memory_and_swap{};
    /// CPU time against that of other groups where CPUs are busy: 2 to 262144, 1024 is the usual. On v2 it becomes
    /// cpu.weight, as the kernel converts: 100 for 1024; 10 to 102400 there, and read back only nearly the same.
    std::optional<std::uint64_t> cpu_shares{};
    /// Microseconds of CPU time in each period, on all CPUs together: 1000 to 17592186044415. 20000 is 20 % of a CPU.
    std::optional<std::uint64_t> cpu_quota{};
    /// Microseconds, 1000 to 1000000; nothing, with `cpu_quota`: 100000, or the one in force.
    std::optional<std::uint64_t> cpu_period{};
    std::string cpus{};          ///< the CPUs to run on, in the list format of cpuset(7): "0-3,6"; empty: nothing said
    std::string memory_nodes{};  ///< as well, the NUMA nodes to take memory from
    std::optional<std::uint64_t> pids{};  ///< processes and threads
    /// Share of block devices' time, against that of other groups: 1 to 1000, 100 is the usual. Only I/O schedulers
    /// that know groups keep to it (BFQ); an error where the kernel has none.
    std::optional<std::uint32_t> block_weight{};
    std::vector<BlockLimit> block{};
    std::vector<HugePageLimit> huge_pages{};
    friend bool operator==(const LimitSpec&, const LimitSpec&) = default;
};

}  // namespace caisson::inline v0
