// src/stage/maps.cpp - what the keeper writes into init's /proc files before init goes on: its id maps above all.
#include "stage.hpp"

namespace stage {
namespace {

/// "/proc/PID" as a descriptor; PID is our child and not reaped, so it cannot be another process.
[[gnu::section(".early")]] s64 open_proc(s64 pid) {
    char path[32];
    char* at = path + sizeof path - 1;
    *at = 0;
    for (s64 rest = pid; rest != 0; rest /= 10) *--at = static_cast<char>('0' + rest % 10);
    for (int i = 5; i >= 0; --i) *--at = "/proc/"[i];
    return retry(__NR_openat, at_fdcwd, at, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

[[gnu::section(".early")]] s64 write_file(s64 directory, const char* name, const char* text) {
    const s64 fd = retry(__NR_openat, directory, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fd;
    const s64 n = retry(__NR_write, fd, text, length(text));
    close(fd);
    return n < 0 ? n : 0;
}

/// Or is about to: the kernel takes its memory away, and with it its files' owner, somewhat before.
[[gnu::section(".early")]] bool has_ended(const Stage& stage) {
    pollfd ended{stage.pidfd, POLLIN, 0};
    const __kernel_timespec soon{0, 100'000'000};
    return retry(__NR_ppoll, &ended, 1, &soon, nullptr, 8) > 0;
}

}  // namespace

[[gnu::section(".early")]] int write_maps(const Stage& stage, s64 pid) {
    const plan::PlanHeader& header = *stage.header;
    const s64 proc = open_proc(pid);
    if (proc < 0) refuse(stage, plan::KeeperStep::prepare, proc);
    // A host that the out-of-memory killer spares must not hand that down. Only a container of a host that it prefers
    // is refused this, and may stay as preferred as the host is.
    s64 result = write_file(proc, "oom_score_adj", stage.text(header.oom_score_adj));
    if (result < 0 && (result != eacces || header.strict_oom_score_adj != 0)) {
        refuse(stage, plan::KeeperStep::oom_score_adj, result);
    }
    // While init has the ids of this process, which is what lets one process set another's limits.
    for (unsigned i = 0; i < header.raise_count; ++i) {
        const plan::Raise& raise = stage.array<plan::Raise>(header.raises)[i];
        result = call(__NR_prlimit64, pid, raise.resource, &raise.soft, nullptr);
        if (result < 0) refuse(stage, plan::KeeperStep::raise_limit, result, i);
    }
    if (header.uid_map == 0) {
        close(proc);
        return -1;
    }
    result = (header.flags & plan::plan_deny_setgroups) != 0 ? write_file(proc, "setgroups", "deny") : 0;
    if (result == 0) result = write_file(proc, "uid_map", stage.text(header.uid_map));
    if (result == 0) result = write_file(proc, "gid_map", stage.text(header.gid_map));
    // While init may still be looked into.
    if (result == 0) result = retry(__NR_openat, proc, "ns/user", O_RDONLY | O_CLOEXEC);
    close(proc);
    if (result >= 0) return static_cast<int>(result);
    // The files of an init that has ended are not this user's any more: init's own report is the reason.
    if (!has_ended(stage)) refuse(stage, plan::KeeperStep::id_map, result);
    return -1;
}

[[gnu::section(".early")]] bool mapped_by_host() {
    pollfd p[3]{{go_slot, POLLIN, 0}, {plan::host_slot, 0, 0}, {plan::owner_slot, POLLIN, 0}};
    while (call(__NR_ppoll, p, 3, nullptr, nullptr, 8) <= 0) {
    }
    char mark = 0;
    if ((p[1].revents | p[2].revents) == 0) retry(__NR_read, go_slot, &mark, 1);
    return mark == plan::mapped_mark;
}

}  // namespace stage
