// src/check_limits.cpp - what makes limits impossible: by themselves, and on this machine.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <range/v3/algorithm/contains.hpp>
#include <range/v3/view/enumerate.hpp>

#include <caisson/check.hpp>
#include <caisson/limits.hpp>

#include "check_parts.hpp"
#include "limit_words.hpp"

namespace caisson::inline v0 {
namespace checking {
namespace {

using detail::quote;
namespace views = ranges::views;
constexpr std::uint64_t unlimited = LimitSpec::unlimited;

void check_range(const std::string& field, std::optional<std::uint64_t> value, std::uint64_t least, std::uint64_t most,
                 bool may_be_unlimited) {
    if (!value || (*value >= least && *value <= most) || (may_be_unlimited && *value == unlimited)) return;
    refuse(field, (*value == unlimited ? "no limit" : std::to_string(*value)) + " is not possible",
           "give " + std::to_string(least) + " to " + std::to_string(most));
}

void check_memory(const LimitSpec& limits, bool is_change) {
    const auto not_nothing = [](const char* field, std::optional<std::uint64_t> bytes) {
        if (bytes == 0u) refuse(field, "0 bytes hold no process", "leave it out for no limit");
        const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
        if (bytes && *bytes < page) {
            refuse(field, std::to_string(*bytes) + " bytes are less than a page",
                   "give " + std::to_string(page) + " or more");
        }
    };
    not_nothing("limits.memory", limits.memory);
    not_nothing("limits.memory_soft", limits.memory_soft);
    not_nothing("limits.memory_and_swap", limits.memory_and_swap);
    if (limits.memory && limits.memory_soft && *limits.memory_soft != unlimited &&
        *limits.memory_soft > *limits.memory) {
        refuse("limits.memory_soft",
               std::to_string(*limits.memory_soft) + " is more than limits.memory, " + std::to_string(*limits.memory),
               "give less than that");
    }
    if (!limits.memory_and_swap) return;
    if (!limits.memory && !is_change) {
        refuse("limits.memory_and_swap", "it is given without limits.memory",
               "give that too: both may be the same, for no swap");
    }
    if (limits.memory && *limits.memory_and_swap < *limits.memory) {
        const bool none = *limits.memory == unlimited;
        refuse("limits.memory_and_swap",
               std::to_string(*limits.memory_and_swap) + " is less than limits.memory, " +
                   (none ? "which is no limit" : std::to_string(*limits.memory)),
               "it counts RAM and swap together");
    }
}

void check_list(const char* field, const std::string& list, const char* of_what) {
    if (list.empty() || limit_words::parse_list(list)) return;
    refuse(field, quote(list) + " is no list of " + of_what, "write it as '0-3,6'");
}

void check_block(const LimitSpec& limits) {
    check_range("limits.block_weight", limits.block_weight, 1, 1000, false);
    for (auto&& [i, limit] : views::enumerate(limits.block)) {
        const std::size_t index = i;
        const auto field = [&](const char* member) { return indexed("limits.block", index, member); };
        if (!limit_words::parse_disk(limit.device)) check_path(field(".device"), limit.device);
        check_range(field(".weight"), limit.weight, 1, 1000, false);
        bool any = limit.weight.has_value();
        const auto not_zero = [&](const char* member, std::optional<std::uint64_t> rate) {
            any = any || rate.has_value();
            if (rate == 0u) refuse(field(member), "0 a second never ends", "leave it out for no limit");
        };
        not_zero(".read_bytes", limit.read_bytes);
        not_zero(".write_bytes", limit.write_bytes);
        not_zero(".read_operations", limit.read_operations);
        not_zero(".write_operations", limit.write_operations);
        for (const auto& [member, rate] : {std::pair{".read_operations", limit.read_operations},
                                           std::pair{".write_operations", limit.write_operations}}) {
            check_range(field(member), rate, 1, limit_words::most_operations, true);
        }
        if (!any) refuse(field(""), "it limits nothing", "give a weight or a rate, or leave it out");
        for (std::size_t j = 0; j < index; ++j) {
            if (limits.block[j].device != limit.device) continue;
            refuse(field(".device"), quote(limit.device) + " is that of limits.block[" + std::to_string(j) + "] too",
                   "give both in one");
        }
    }
}

void check_huge_pages(const LimitSpec& limits) {
    for (auto&& [i, limit] : views::enumerate(limits.huge_pages)) {
        const std::size_t index = i;
        const std::string field = indexed("limits.huge_pages", index, ".page_size");
        if (limit.page_size == 0 || (limit.page_size & (limit.page_size - 1)) != 0) {
            refuse(field, std::to_string(limit.page_size) + " is no size of a page", "give bytes, as 2097152");
        }
        for (std::size_t j = 0; j < index; ++j) {
            if (limits.huge_pages[j].page_size != limit.page_size) continue;
            refuse(field,
                   std::to_string(limit.page_size) + " is that of limits.huge_pages[" + std::to_string(j) + "] too",
                   "give one limit");
        }
    }
}

void check_values(const LimitSpec& limits, bool is_change) {
    check_memory(limits, is_change);
    check_range("limits.cpu_shares", limits.cpu_shares, 2, 262144, true);
    check_range("limits.cpu_quota", limits.cpu_quota, 1000, 17592186044415, true);
    check_range("limits.cpu_period", limits.cpu_period, 1000, 1000000, false);
    check_list("limits.cpus", limits.cpus, "CPUs");
    check_list("limits.memory_nodes", limits.memory_nodes, "memory nodes");
    if (limits.pids == 0u) refuse("limits.pids", "0 allows no process", "leave it out for no limit");
    // PID_MAX_LIMIT of the kernel.
    if (limits.pids && *limits.pids > 4194304 && *limits.pids != unlimited) {
        refuse("limits.pids", std::to_string(*limits.pids) + " is more than a machine can have",
               "give 4194304 at most, or leave it out for no limit");
    }
    check_block(limits);
    check_huge_pages(limits);
}

/// Where `file` cannot be read, the kernel's own answer comes when the limit is set.
void check_there(const char* field, const std::string& list, const char* file, const char* what) {
    const auto wanted = limit_words::parse_list(list);
    const auto text = limit_words::text_of(file);
    const auto there = limit_words::parse_list(text.value_or(""));
    if (!wanted || !there || there->empty()) return;
    if (const auto missing = limit_words::first_missing(*wanted, *there)) {
        refuse(field, what + (" " + std::to_string(*missing)) + " is not there", "this machine has " + *text);
    }
}

}  // namespace

void check_group_limits(const ContainerSpec& spec) {
    if (!spec.cgroup && spec.limits != LimitSpec{}) {
        refuse("limits", "they need a control group", "set cgroup to true");
    }
    check_values(spec.limits, false);
}

}  // namespace checking

void detail::check_machine_has(const LimitSpec& limits) {
    using namespace checking;
    check_there("limits.cpus", limits.cpus, "/sys/devices/system/cpu/online", "CPU");
    check_there("limits.memory_nodes", limits.memory_nodes, "/sys/devices/system/node/has_memory", "memory node");
    std::vector<limit_words::Disk> disks;
    for (auto&& [i, limit] : views::enumerate(limits.block)) {
        const std::string field = indexed("limits.block", i, ".device");
        std::string why;
        const auto disk = limit_words::find_disk(limit.device, why);
        if (!disk) refuse(field, quote(limit.device) + " " + why, "name a disk's node, or MAJOR:MINOR");
        for (auto&& [j, other] : views::enumerate(disks)) {
            if (*disk != other) continue;
            refuse(field,
                   quote(limit.device) + " is on the disk " + disk->str() + ", as " +
                       quote(limits.block[static_cast<std::size_t>(j)].device) + " is",
                   "give the limits of a disk in one");
        }
        disks.push_back(*disk);
    }
    if (limits.huge_pages.empty()) return;
    const std::vector<std::uint64_t> sizes = limit_words::huge_page_sizes();
    std::string has;
    for (const std::uint64_t size : sizes) has += (has.empty() ? "" : ", ") + std::to_string(size);
    for (auto&& [i, limit] : views::enumerate(limits.huge_pages)) {
        if (ranges::contains(sizes, limit.page_size)) continue;
        refuse(indexed("limits.huge_pages", i, ".page_size"),
               "this kernel has no huge pages of " + std::to_string(limit.page_size) + " bytes",
               has.empty() ? "it has none at all" : "it has those of " + has);
    }
}

void check_limit_change(const LimitSpec& limits) {
    checking::check_values(limits, true);
    detail::check_machine_has(limits);
}

}  // namespace caisson::inline v0
