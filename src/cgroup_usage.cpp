// src/cgroup_usage.cpp - what a control group has used, read from its files.
#include <fcntl.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/usage_files.hpp>
#include <caisson/error.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

detail::UsageFiles Cgroup::open_usage() const {
    using Files = detail::UsageFiles;
    Files files;
    if (directories_.empty()) throw Error{Step::cgroup, 0, "read the usage of a control group", "there is no group"};
    const auto open = [&](Files::File file, const CgroupDirectory* d, const char* name) {
        if (d != nullptr) files.set(file, open_file(*d, name, O_RDONLY));
    };
    if (const CgroupDirectory* d = find("cpuacct")) {
        open(Files::cpu_each, d, "cpuacct.usage_percpu");
        open(Files::cpu_ticks, d, "cpuacct.stat");
    } else {
        // In every v2 group, whatever the controllers.
        for (const CgroupDirectory& unified : directories_) {
            if (unified.v2()) open(Files::cpu_stat, &unified, "cpu.stat");
        }
    }
    const CgroupDirectory* memory = find("memory");
    const bool v2 = memory != nullptr && memory->v2();
    open(Files::memory, memory, v2 ? "memory.current" : "memory.usage_in_bytes");
    open(Files::memory_peak, memory, v2 ? "memory.peak" : "memory.max_usage_in_bytes");
    open(Files::memory_limit, memory, v2 ? "memory.max" : "memory.limit_in_bytes");
    open(Files::oom, memory, v2 ? "memory.events" : "memory.oom_control");
    open(Files::pids, find("pids"), "pids.current");
    return files;
}

void Cgroup::usage(UsageParts /*parts*/, Usage& into) {
    if (!usage_) usage_ = open_usage();
    into = usage_->read();
}

}  // namespace caisson::inline v0
