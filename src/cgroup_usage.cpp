// src/cgroup_usage.cpp - where in the hierarchies it is told what a control group has used.
#include <cerrno>

#include <fcntl.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/usage_files.hpp>
#include <caisson/error.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {
namespace {

using Files = detail::UsageFiles;
}  // namespace

void Cgroup::require_group() const {
    if (open_file(directories_.front(), "", O_PATH | O_DIRECTORY) || errno != ENOENT) return;
    throw Error{Step::cgroup, ENODEV, "read the usage of a control group", "the group was removed"};
}

void Cgroup::open_usage(std::uint32_t sets) {
    if (directories_.empty()) throw Error{Step::cgroup, 0, "read the usage of a control group", "there is no group"};
    if (!usage_) usage_.emplace();
    const CgroupDirectory* unified = nullptr;
    for (const CgroupDirectory& d : directories_) {
        if (d.v2()) unified = &d;
    }
    bool all_there = true;
    const auto open = [&](Files::File file, const CgroupDirectory* d, const char* name) {
        if (d == nullptr || usage_->has(file)) return;
        Fd fd = open_file(*d, name, O_RDONLY);
        if (!fd) require_descriptor(*d, name);
        all_there = all_there && fd;
        usage_->set(file, std::move(fd));
    };
    const auto open_either = [&](Files::File file, const CgroupDirectory* d, const char* v1, const char* v2) {
        if (d != nullptr) open(file, d, d->v2() ? v2 : v1);
    };
    const CgroupDirectory* const cpuacct = find_v1("cpuacct");
    if ((sets & Files::cpu_set) != 0) {
        open(Files::cpu_each, cpuacct, "cpuacct.usage_percpu");
        // In every v2 group, whatever the controllers.
        if (cpuacct == nullptr) open(Files::cpu_stat, unified, "cpu.stat");
        if (!usage_->counts_cpus() && !open_counters() && (errno == EMFILE || errno == ENFILE)) {
            detail::fail(Step::cgroup, "count the time on each CPU for control group " + detail::quote(name_),
                         "no descriptor is left, and each CPU takes one: raise 'ulimit -n'");
        }
    }
    if ((sets & Files::cpu_details_set) != 0) {
        open(Files::cpu_ticks, cpuacct, "cpuacct.stat");
        if (const CgroupDirectory* const d = find("cpu"); d != nullptr && (!d->v2() || cpuacct != nullptr)) {
            open(Files::throttled, d, "cpu.stat");
        }
    }
    if ((sets & (Files::memory_set | Files::memory_details_set)) != 0) {
        const CgroupDirectory* const d = find("memory");
        if ((sets & Files::memory_set) != 0) {
            open_either(Files::memory, d, "memory.usage_in_bytes", "memory.current");
            open_either(Files::memory_limit, d, "memory.limit_in_bytes", "memory.max");
        }
        if ((sets & Files::memory_details_set) != 0) {
            open_either(Files::memory_peak, d, "memory.max_usage_in_bytes", "memory.peak");
            open(Files::memory_stat, d, "memory.stat");
            open_either(Files::oom, d, "memory.oom_control", "memory.events");
            if (d != nullptr && d->v2()) {
                open(Files::swap, d, "memory.swap.current");
                open(Files::swap_limit, d, "memory.swap.max");
            } else {
                open(Files::memory_hits, d, "memory.failcnt");
                open(Files::both_hits, d, "memory.memsw.failcnt");
                open(Files::both_limit, d, "memory.memsw.limit_in_bytes");
            }
        }
    }
    if ((sets & Files::pids_set) != 0) {
        const CgroupDirectory* const d = find("pids");
        open(Files::pids, d, "pids.current");
        open(Files::pids_limit, d, "pids.max");
    }
    if ((sets & Files::block_set) != 0) {
        if (const CgroupDirectory* const d = find_v1("blkio")) {
            open(Files::block_bytes, d, "blkio.throttle.io_service_bytes_recursive");
            open(Files::block_operations, d, "blkio.throttle.io_serviced_recursive");
        } else {
            open(Files::block_stat, find("io"), "io.stat");
        }
    }
    if ((sets & Files::pressure_set) != 0) {
        // As well in every v2 group.
        open(Files::cpu_pressure, unified, "cpu.pressure");
        open(Files::memory_pressure, unified, "memory.pressure");
        open(Files::io_pressure, unified, "io.pressure");
    }
    // A file that this kernel or host has not is no error; a group that is gone is.
    if (!all_there) require_group();
    usage_->opened(sets);
}

bool Cgroup::open_counters() {
    const CgroupDirectory* d = find_v1("perf_event");
    for (const CgroupDirectory& other : directories_) {
        if (d == nullptr && other.v2()) d = &other;
    }
    if (d == nullptr) return usage_->count_cpus(Fd{}, ENOENT);
    Fd group = open_file(*d, "", O_RDONLY | O_DIRECTORY);
    const int error = errno;
    return usage_->count_cpus(std::move(group), error);
}

void Cgroup::usage(UsageParts parts, Usage& into) {
    const std::uint32_t sets = Files::sets_for(parts);
    if (!usage_ || usage_->missing(sets) != 0) open_usage(usage_ ? usage_->missing(sets) : sets);
    usage_->read(parts, into);
    if (usage_->take_lost()) require_group();
}

void Cgroup::count_cpus() {
    require_there("CPU counters");
    if (usage_ && usage_->counts_cpus()) return;
    if (!usage_) usage_.emplace();
    if (find_v1("cpuacct") != nullptr || open_counters()) return;
    const int error = errno;
    throw Error{Step::cgroup, error, "count the time on each CPU for control group " + detail::quote(name_),
                detail::CpuCounters::remedy(error)};
}

}  // namespace caisson::inline v0
