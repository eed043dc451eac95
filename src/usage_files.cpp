// src/usage_files.cpp - reads the files of a group that are open.
#include <caisson/detail/usage_files.hpp>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

#include "usage_text.hpp"

namespace caisson::inline v0::detail {
namespace {

/// Nothing in it, but the room that its lists and texts have taken.
void clear(Usage& usage) {
    Usage empty;
    empty.cpu_each.swap(usage.cpu_each);
    empty.cpu_each_missing.swap(usage.cpu_each_missing);
    empty.block.swap(usage.block);
    empty.networks.swap(usage.networks);
    empty.cpu_each.clear();
    empty.cpu_each_missing.clear();
    empty.block.clear();
    empty.networks.clear();
    usage = std::move(empty);
}

/// Why CPUs are not counted.
std::string reason(int error) {
    return "perf_event_open: " + std::generic_category().message(error) + ": " +
           std::string{CpuCounters::remedy(error)};
}

std::uint64_t page_size() noexcept {
    return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

std::uint32_t UsageFiles::sets_for(UsageParts parts) noexcept {
    const bool details = parts.has(UsagePart::details);
    std::uint32_t sets = 0;
    if (parts.has(UsagePart::cpu)) sets |= cpu_set | (details ? cpu_details_set : 0u);
    if (parts.has(UsagePart::memory)) sets |= memory_set | (details ? memory_details_set : 0u);
    if (parts.has(UsagePart::pids)) sets |= pids_set;
    if (parts.has(UsagePart::block)) sets |= block_set;
    if (parts.has(UsagePart::pressure)) sets |= pressure_set;
    return sets;
}

bool UsageFiles::count_cpus(Fd group, int error) {
    uncounted_.clear();
    if (group) {
        if (counters_.open(std::move(group))) return true;
        error = errno;
    }
    uncounted_ = reason(error);
    errno = error;
    return false;
}

std::optional<std::string_view> UsageFiles::load(File file) {
    if (!files_[file]) return std::nullopt;
    if (text_.empty()) text_.resize(4096);
    for (;;) {
        const ssize_t n = sys::retry([&] { return ::pread(files_[file].get(), text_.data(), text_.size(), 0); });
        if (n < 0) {
            // EOPNOTSUPP: pressure that the kernel could count, and does not. ENODEV: the group is gone, or the
            // controller was switched off.
            if (errno != ENODEV && errno != EOPNOTSUPP) fail(Step::cgroup, "read the usage of a control group");
            if (errno == ENODEV) {
                has_lost_ = true;
                open_sets_ = 0;
            }
            files_[file].reset();
            return std::nullopt;
        }
        // The kernel gives what it has at once, so that all of it is there when some room is left.
        if (static_cast<std::size_t>(n) < text_.size())
            return std::string_view{text_.data(), static_cast<std::size_t>(n)};
        text_.resize(text_.size() * 2);
    }
}

UsageFiles::Number UsageFiles::number(File file) {
    const auto text = load(file);
    return text ? parse_number(*text) : std::nullopt;
}

UsageFiles::Number UsageFiles::limit(File file) {
    const auto text = load(file);
    return text ? parse_memory_limit(*text, page_size()) : std::nullopt;
}

void UsageFiles::read(UsageParts parts, Usage& into) {
    clear(into);
    const bool details = parts.has(UsagePart::details);
    if (parts.has(UsagePart::cpu)) read_cpu(details, into);
    if (parts.has(UsagePart::memory)) read_memory(details, into);
    if (parts.has(UsagePart::pids)) {
        into.pids = number(pids);
        into.pids_limit = number(pids_limit);
    }
    if (parts.has(UsagePart::block)) read_block(into);
    if (parts.has(UsagePart::pressure)) {
        read_pressure(cpu_pressure, into.cpu_pressure);
        read_pressure(memory_pressure, into.memory_pressure);
        read_pressure(io_pressure, into.io_pressure);
    }
}

void UsageFiles::read_cpu(bool details, Usage& into) {
    if (const auto text = load(cpu_each)) parse_cpu_each(*text, into);
    else if (counters_ && !counters_.read(into.cpu_each)) into.cpu_each_missing = reason(errno);
    else if (!counters_) into.cpu_each_missing = uncounted_;
    if (const auto text = load(cpu_stat)) parse_cpu_stat(*text, details, into);
    if (!details) return;
    if (const auto text = load(cpu_ticks)) {
        parse_cpu_ticks(*text, 1'000'000'000 / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)), into);
    }
    if (const auto text = load(throttled)) parse_throttled(*text, into);
}

void UsageFiles::read_memory(bool details, Usage& into) {
    into.memory = number(memory);
    bool limited = true;
    if (details) {
        if (const auto text = load(memory_stat)) limited = parse_memory_stat(*text, page_size(), into);
    }
    if (limited) into.memory_limit = limit(memory_limit);
    if (!details) return;
    into.memory_peak = number(memory_peak);
    into.memory_limit_hits = number(memory_hits);
    if (const auto text = load(oom)) parse_memory_events(*text, into);
    if (has(swap)) into.swap = number(swap);
    if (has(swap_limit)) into.swap_limit = limit(swap_limit);
    if (!into.memory_limit || !has(both_limit)) return;
    // Of v1, where it is one limit for RAM and swap, and never below the other: what is left beside that. Where they
    // are the same it is this one that is met.
    if (const auto both = limit(both_limit)) into.swap_limit = *both - std::min(*both, *into.memory_limit);
    if (const auto hits = number(both_hits)) into.memory_limit_hits = into.memory_limit_hits.value_or(0) + *hits;
}

void UsageFiles::read_block(Usage& into) {
    if (const auto text = load(block_stat)) parse_block_v2(*text, into.block);
    if (const auto text = load(block_bytes)) {
        parse_block_v1(*text, &BlockUsage::read_bytes, &BlockUsage::write_bytes, into.block);
    }
    // Where no byte went there was nothing else.
    if (into.block.empty()) return;
    if (const auto text = load(block_operations)) {
        parse_block_v1(*text, &BlockUsage::read_operations, &BlockUsage::write_operations, into.block);
    }
}

void UsageFiles::read_pressure(File file, std::optional<Pressure>& into) {
    if (const auto text = load(file)) into = parse_pressure(*text);
}

}  // namespace caisson::inline v0::detail
