// src/cgroup_limits_plan.cpp - which files a change of limits is to write, and what.
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/limits.hpp>

#include "limit_change.hpp"

namespace caisson::inline v0 {
namespace {

using detail::quote;
using limit_words::Disk;
using limit_words::in_pages;
using limit_words::value_of;

constexpr std::uint64_t unlimited = LimitSpec::unlimited;

std::string number(std::uint64_t value, const char* none) {
    return value == unlimited ? none : std::to_string(value);
}
std::string amount(const char* name, std::uint64_t value, const char* unit = "") {
    return value == unlimited ? "no " + std::string{name} : name + (" of " + std::to_string(value)) + unit;
}
std::uint64_t page_size() {
    return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// Why a file did not take a value, where the kernel's reason is not the whole of it; null: nothing special.
const char* memory_remedy(int error) {
    return error == EBUSY || error == EINVAL || error == ERANGE ? "the group uses more than that" : nullptr;
}
const char* swap_remedy(int error) {
    return error == ENOENT ? "this kernel does not count swap: boot it with swapaccount=1" : memory_remedy(error);
}
const char* pids_remedy(int error) {
    return error == EINVAL || error == ERANGE ? "the kernel takes 4194304 at most" : nullptr;
}
const char* cpu_remedy(int error) {
    return error == EINVAL ? "a group above has less, or a group inside has more" : nullptr;
}
const char* cpuset_remedy(int error) {
    switch (error) {
        case EACCES:
        case EINVAL: return "the group above does not have them all";
        case EBUSY: return "a group inside has the others";
        default: return nullptr;
    }
}
const char* weight_remedy(int error) {
    switch (error) {
        case ENOENT: return "no I/O scheduler of this kernel divides a disk's time among groups: load bfq";
        case EOPNOTSUPP:
            return "the disk's I/O scheduler knows no groups: set it to bfq, see /sys/block/*/queue/scheduler";
        default: return nullptr;
    }
}
const char* throttle_remedy(int error) {
    switch (error) {
        case ENOENT: return "this kernel has no limits on block devices (CONFIG_BLK_DEV_THROTTLING)";
        case ENODEV: return "there is no such disk";
        default: return nullptr;
    }
}
const char* huge_page_remedy(int error) {
    return error == ENOENT ? "this kernel has no limit on huge pages of that size" : nullptr;
}

}  // namespace

void Cgroup::LimitChange::plan() {
    plan_memory();
    plan_cpu();
    plan_cpuset();
    plan_pids();
    plan_block();
    plan_huge_pages();
}

void Cgroup::LimitChange::plan_memory() {
    if (limits_.memory || limits_.memory_and_swap) {
        const std::string what = limits_.memory
                                     ? amount("memory limit", *limits_.memory, " bytes")
                                     : amount("limit on memory and swap", *limits_.memory_and_swap, " bytes");
        const CgroupDirectory& d = directory("memory", "memory", what);
        const bool v2 = d.v2();
        const std::uint64_t old_memory = value_of(text_of(d, v2 ? "memory.max" : "memory.limit_in_bytes"));
        const std::string old_text = text_of(d, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes");
        const std::uint64_t old_second = old_text.empty() ? (v2 ? 0 : old_memory) : value_of(old_text);
        const bool no_sum = old_memory == unlimited || old_second == unlimited;
        const std::uint64_t old_both = !v2 ? old_second : no_sum ? unlimited : old_memory + old_second;

        const std::uint64_t memory = limits_.memory ? in_pages(*limits_.memory) : old_memory;
        // Where nothing could be swapped out beyond the old limit, nothing can beyond the new one.
        const bool goes_along = old_both == old_memory || old_both < memory;
        const std::uint64_t both = limits_.memory_and_swap ? in_pages(*limits_.memory_and_swap)
                                   : goes_along            ? memory
                                                           : old_both;
        if (both < memory) {
            throw Error{Step::cgroup, EINVAL, of_group(what),
                        memory == unlimited ? "there is no limit on memory: give one as well"
                                            : "the limit on memory is " + std::to_string(memory) +
                                                  " bytes: give less than that as well"};
        }
        const std::uint64_t second = !v2 || both == unlimited ? both : both - memory;
        const bool asked = limits_.memory_and_swap && both != unlimited;
        Change first{.directory = &d,
                     .files = {v2 ? "memory.max" : "memory.limit_in_bytes"},
                     .what = what,
                     .kind = Change::Kind::bytes,
                     .text = number(memory, v2 ? "max" : "-1"),
                     .remedy = memory_remedy,
                     .value = memory,
                     .unit = page_size()};
        Change swap{.directory = &d,
                    .files = {v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes"},
                    .what = limits_.memory_and_swap ? amount("limit on memory and swap", both, " bytes") : what,
                    .kind = Change::Kind::bytes,
                    .text = number(second, v2 ? "max" : "-1"),
                    .remedy = swap_remedy,
                    .value = second,
                    .unit = page_size(),
                    .may_be_absent = !asked};
        // v1 has the limit on RAM never above the one on both. On v2, more swap makes room for less RAM.
        const bool swap_first = v2 ? second > old_second : memory > old_both;
        if (swap_first) add(swap);
        if (limits_.memory) {
            // v2 kills at once where less is allowed than is used; v1 reclaims what it can, and refuses. To be
            // throttled by memory.high for a moment does no harm.
            const bool is_less = v2 && memory < value_of(text_of(d, "memory.current"));
            Change high = first;
            high.files = {"memory.high"};
            if (is_less) add(high);
            first.needs_room = is_less;
            add(first);
            high.text = text_of(d, "memory.high");
            high.value = value_of(high.text);
            if (is_less) add(high);
        }
        if (!swap_first) add(swap);
    }
    if (!limits_.memory_soft) return;
    const std::string what = amount("soft memory limit", *limits_.memory_soft, " bytes");
    const CgroupDirectory& d = directory("memory", "memory", what);
    add({.directory = &d,
         .files = {d.v2() ? "memory.high" : "memory.soft_limit_in_bytes"},
         .what = what,
         .kind = Change::Kind::bytes,
         .text = number(*limits_.memory_soft, d.v2() ? "max" : "-1"),
         .remedy = memory_remedy,
         .value = *limits_.memory_soft,
         .unit = page_size()});
}

void Cgroup::LimitChange::plan_cpu() {
    if (limits_.cpu_shares) {
        const std::uint64_t shares = *limits_.cpu_shares == unlimited ? limit_words::usual_shares : *limits_.cpu_shares;
        const std::string what = amount("CPU shares", shares);
        const CgroupDirectory& d = directory("cpu", "cpu", what);
        if (d.v2() && (shares < 10 || shares > 102400)) {
            throw Error{Step::cgroup, ERANGE, of_group(what), "cgroup v2 has 10 to 102400 (cpu.weight 1 to 10000)"};
        }
        add({.directory = &d,
             .files = {d.v2() ? "cpu.weight" : "cpu.shares"},
             .what = what,
             .text = std::to_string(d.v2() ? limit_words::weight_of_shares(shares) : shares)});
    }
    if (!limits_.cpu_quota && !limits_.cpu_period) return;
    const std::string what = limits_.cpu_quota
                                 ? amount("CPU quota", *limits_.cpu_quota, " us")
                                 : "CPU period of " + std::to_string(limits_.cpu_period.value_or(0)) + " us";
    const CgroupDirectory& d = directory("cpu", "cpu", what);
    if (d.v2()) {
        const std::string text = text_of(d, "cpu.max");
        std::string_view period = text;
        const std::string_view quota = detail::take_field(period, ' ');
        add({.directory = &d,
             .files = {"cpu.max"},
             .what = what,
             .text = (limits_.cpu_quota ? number(*limits_.cpu_quota, "max") : std::string{quota}) + " " +
                     (limits_.cpu_period ? std::to_string(*limits_.cpu_period) : std::string{period}),
             .remedy = cpu_remedy});
        return;
    }
    Change quota{.directory = &d,
                 .files = {"cpu.cfs_quota_us"},
                 .what = what,
                 .text = number(limits_.cpu_quota.value_or(0), "-1"),
                 .remedy = cpu_remedy};
    Change period{.directory = &d,
                  .files = {"cpu.cfs_period_us"},
                  .what = what,
                  .text = std::to_string(limits_.cpu_period.value_or(0)),
                  .remedy = cpu_remedy};
    // Between the two writes the share is never more than before or after, which a group above might refuse.
    const bool longer = limits_.cpu_period && *limits_.cpu_period > value_of(text_of(d, "cpu.cfs_period_us"));
    if (longer) add(period);
    if (limits_.cpu_quota) add(quota);
    if (limits_.cpu_period && !longer) add(period);
}

void Cgroup::LimitChange::plan_cpuset() {
    const auto plan = [&](const std::string& list, const char* name, const char* file) {
        if (list.empty()) return;
        const std::string what = name + (" " + quote(list));
        add({.directory = &directory("cpuset", "cpuset", what),
             .files = {file},
             .what = what,
             .kind = Change::Kind::list,
             .text = list,
             .remedy = cpuset_remedy});
    };
    plan(limits_.cpus, "CPUs", "cpuset.cpus");
    plan(limits_.memory_nodes, "memory nodes", "cpuset.mems");
}

void Cgroup::LimitChange::plan_pids() {
    if (!limits_.pids) return;
    const std::string what = amount("pids limit", *limits_.pids);
    add({.directory = &directory("pids", "pids", what),
         .files = {"pids.max"},
         .what = what,
         .text = number(*limits_.pids, "max"),
         .remedy = pids_remedy});
}

void Cgroup::LimitChange::plan_block() {
    if (limits_.block_weight) {
        const std::string what = "block weight of " + std::to_string(*limits_.block_weight);
        const CgroupDirectory& d = directory("blkio", "io", what);
        const std::string prefix = d.v2() ? "io." : "blkio.";
        Change change{.directory = &d,
                      .files = {},
                      .what = what,
                      .kind = Change::Kind::weight,
                      .text = std::to_string(*limits_.block_weight),
                      .remedy = weight_remedy};
        // Each is another scheduler's.
        std::vector<std::string> files{prefix + "weight", prefix + "bfq.weight"};
        std::erase_if(files, [&](const std::string& file) { return !has(d, file.c_str()); });
        if (files.empty()) files.push_back(prefix + "bfq.weight");
        for (const std::string& file : files) {
            change.files = {file};
            add(change);
        }
    }
    for (const BlockLimit& limit : limits_.block) {
        const std::string what = "block limits of " + quote(limit.device);
        const CgroupDirectory& d = directory("blkio", "io", what);
        std::string why;
        const auto disk = limit_words::find_disk(limit.device, why);
        if (!disk) throw Error{Step::cgroup, 0, of_group(what), quote(limit.device) + " " + why};
        if (limit.weight) {
            const std::string prefix = d.v2() ? "io." : "blkio.", suffix = d.v2() ? "" : "_device";
            add({.directory = &d,
                 .files = {prefix + "weight" + suffix, prefix + "bfq.weight" + suffix},
                 .what = "block weight of " + std::to_string(*limit.weight) + " on " + quote(limit.device),
                 .kind = Change::Kind::device,
                 .text = std::to_string(*limit.weight),
                 .remedy = weight_remedy,
                 .device = disk->str(),
                 .if_none = "default"});
        }
        plan_rates(d, limit, *disk);
    }
}

void Cgroup::LimitChange::plan_rates(const CgroupDirectory& d, const BlockLimit& limit, const Disk& disk) {
    const struct {
        const char* v1;
        const char* v2;
        const char* name;
        std::optional<std::uint64_t> value;
    } rates[] = {{"blkio.throttle.read_bps_device", "rbps", "bytes read", limit.read_bytes},
                 {"blkio.throttle.write_bps_device", "wbps", "bytes written", limit.write_bytes},
                 {"blkio.throttle.read_iops_device", "riops", "reads", limit.read_operations},
                 {"blkio.throttle.write_iops_device", "wiops", "writes", limit.write_operations}};
    Change all{.directory = &d,
               .files = {"io.max"},
               .what = {},
               .kind = Change::Kind::device,
               .text = {},
               .remedy = throttle_remedy,
               .device = disk.str(),
               .if_none = "rbps=max wbps=max riops=max wiops=max"};
    for (const auto& rate : rates) {
        if (!rate.value) continue;
        const bool is_operations = std::string_view{rate.v2}.ends_with("iops");
        // Of more, v1 would keep the lower half alone, of which 0 makes it divide by zero.
        if (is_operations && *rate.value != unlimited && *rate.value > limit_words::most_operations) {
            throw Error{Step::cgroup, ERANGE, of_group(std::to_string(*rate.value) + " " + rate.name + " a second"),
                        "the kernel takes " + std::to_string(limit_words::most_operations) + " at most"};
        }
        const std::string what = number(*rate.value, "any") + " " + rate.name + " a second";
        if (d.v2()) {
            all.text += (all.text.empty() ? "" : " ") + (rate.v2 + ("=" + number(*rate.value, "max")));
            all.what += (all.what.empty() ? "" : ", ") + what;
            continue;
        }
        Change one = all;
        one.files = {rate.v1};
        one.text = number(*rate.value, "0");
        one.what = what + " on " + quote(limit.device);
        one.if_none = "0";
        add(std::move(one));
    }
    all.what += " on " + quote(limit.device);
    if (!all.text.empty()) add(std::move(all));
}

void Cgroup::LimitChange::plan_huge_pages() {
    for (const HugePageLimit& limit : limits_.huge_pages) {
        const std::string name = limit_words::huge_page_name(limit.page_size);
        const std::string what = amount("limit on huge pages", limit.bytes, " bytes") + " in pages of " + name;
        const CgroupDirectory& d = directory("hugetlb", "hugetlb", what);
        // The first makes mmap(2) fail, the second is a signal at the first touch, of what was mapped without
        // reserving.
        for (const char* part : {".rsvd", ""}) {
            const std::string file = "hugetlb." + name + part + (d.v2() ? ".max" : ".limit_in_bytes");
            add({.directory = &d,
                 .files = {file},
                 .what = what,
                 .kind = Change::Kind::bytes,
                 .text = number(limit.bytes, d.v2() ? "max" : "-1"),
                 .remedy = huge_page_remedy,
                 .value = limit.bytes,
                 .unit = limit.page_size});
        }
    }
}

}  // namespace caisson::inline v0
