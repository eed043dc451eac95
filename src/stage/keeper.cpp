// src/stage/keeper.cpp - one process per container: makes init, writes its id maps, waits for its end, removes what was
// made for the container, and ends the container when its owner dies. It never enters the container.
#include "stage.hpp"

namespace stage {

s64 send_report(const plan::Report& report, int first, int second) {
    plan::Report copy = report;
    Message m{};
    m.iov = {&copy, sizeof copy};
    m.header.iov = &m.iov;
    m.header.iov_count = 1;
    if (first >= 0) {
        const u64 count = second >= 0 ? 2 : 1;
        m.control = {sizeof(u64) + (2 + count) * sizeof(int), 1 /* SOL_SOCKET */, 1 /* SCM_RIGHTS */, {first, second}};
        m.header.control = &m.control;
        m.header.control_length = sizeof m.control;
    }
    return retry(__NR_sendmsg, plan::host_slot, &m.header, 0x4040 /* MSG_NOSIGNAL | MSG_DONTWAIT */);
}

namespace {

using plan::KeeperStep;
using plan::Report;

[[noreturn]] void refuse(KeeperStep step, s64 error, unsigned index = 0) {
    Report report{};
    report.kind = Report::Kind::refused;
    report.value = static_cast<int>(-error);
    report.place = static_cast<unsigned>(step);
    report.index = index;
    send_report(report);
    end(1);
}

/// "/proc/PID" as a descriptor; PID is our child and not reaped, so it cannot be another process.
s64 open_proc(s64 pid) {
    char path[32] = "/proc/";
    char digits[20];
    int n = 0;
    for (s64 rest = pid; rest != 0; rest /= 10) digits[n++] = static_cast<char>('0' + rest % 10);
    int at = 6;
    while (n > 0) path[at++] = digits[--n];
    path[at] = 0;
    return retry(__NR_openat, at_fdcwd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

s64 write_file(s64 directory, const char* name, const char* text) {
    const s64 fd = retry(__NR_openat, directory, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fd;
    const s64 n = retry(__NR_write, fd, text, length(text));
    call(__NR_close, fd);
    return n < 0 ? n : 0;
}

[[noreturn]] void kill_and_refuse(int pidfd, KeeperStep step, s64 error, unsigned index = 0) {
    call(__NR_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
    // Left alone, it would become a zombie of a host that is pid 1 or a subreaper.
    retry(__NR_waitid, 3 /* P_PIDFD */, pidfd, nullptr, 4 /* WEXITED */, nullptr);
    refuse(step, error, index);
}

void write_maps(const Stage& stage, s64 pid, int pidfd) {
    const plan::PlanHeader& header = *stage.header;
    const s64 proc = open_proc(pid);
    if (proc < 0) kill_and_refuse(pidfd, KeeperStep::prepare, proc);
    // A host that the out-of-memory killer spares must not hand that down. Only a container of a host that it prefers
    // is refused this, and may stay as preferred as the host is.
    s64 result = write_file(proc, "oom_score_adj", "0");
    if (result < 0 && result != eacces) kill_and_refuse(pidfd, KeeperStep::prepare, result);
    if (header.uid_map == 0) {
        call(__NR_close, proc);
        return;
    }
    result = 0;
    if (result == 0 && (header.flags & plan::plan_deny_setgroups) != 0) result = write_file(proc, "setgroups", "deny");
    if (result == 0) result = write_file(proc, "uid_map", stage.text(header.uid_map));
    if (result == 0) result = write_file(proc, "gid_map", stage.text(header.gid_map));
    if (result < 0) kill_and_refuse(pidfd, KeeperStep::id_map, result);
    if (header.idmap_count > 0) {
        const s64 user = retry(__NR_openat, proc, "ns/user", O_RDONLY | O_CLOEXEC);
        if (user < 0) kill_and_refuse(pidfd, KeeperStep::id_map, user);
        const auto* mounts = stage.array<plan::Slot>(header.idmaps);
        for (unsigned i = 0; i < header.idmap_count; ++i) {
            mount_attr attr{};
            attr.attr_set = MOUNT_ATTR_IDMAP;
            attr.userns_fd = static_cast<u64>(user);
            result =
                call(__NR_mount_setattr, mounts[i], "", at_empty_path | 0x8000 /* AT_RECURSIVE */, &attr, sizeof attr);
            if (result < 0) kill_and_refuse(pidfd, KeeperStep::id_map_mount, result, i);
        }
        call(__NR_close, user);
    }
    call(__NR_close, proc);
}

/// The number behind "oom_kill " in the group's file; 0 where it cannot be read.
u64 oom_kills(int fd) {
    if (fd < 0) return 0;
    char text[256];
    const s64 n = retry(__NR_pread64, fd, text, sizeof text - 1, 0);
    if (n <= 0) return 0;
    text[n] = 0;
    constexpr char key[] = "oom_kill ";
    for (const char* line = text; *line != 0;) {
        int same = 0;
        while (key[same] != 0 && line[same] == key[same]) ++same;
        if (key[same] == 0) {
            u64 value = 0;
            for (const char* digit = line + same; *digit >= '0' && *digit <= '9'; ++digit) {
                value = value * 10 + static_cast<u64>(*digit - '0');
            }
            return value;
        }
        while (*line != 0 && *line != '\n') ++line;
        if (*line == '\n') ++line;
    }
    return 0;
}

struct Dirent {
    u64 inode;
    s64 offset;
    unsigned short size;
    unsigned char type;
    char name[1];
};

/// Nanoseconds that all removals together may wait.
using Patience = s64;

s64 remove_group(int parent, const char* name, int depth, Patience& patience);

/// Removes the groups that the container made below its own.
void remove_children(int parent, const char* name, int depth, Patience& patience) {
    if (depth > 16) return;
    const s64 directory = retry(__NR_openat, parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) return;
    alignas(8) char buffer[1024];
    for (;;) {
        const s64 n = call(__NR_getdents64, directory, buffer, sizeof buffer);
        if (n <= 0) break;
        for (s64 at = 0; at < n;) {
            const auto* entry = reinterpret_cast<const Dirent*>(buffer + at);
            const bool dots =
                entry->name[0] == '.' && (entry->name[1] == 0 || (entry->name[1] == '.' && entry->name[2] == 0));
            if (entry->type == 4 /* DT_DIR */ && !dots) {
                remove_group(static_cast<int>(directory), entry->name, depth + 1, patience);
            }
            at += entry->size;
        }
    }
    call(__NR_close, directory);
}

s64 remove_group(int parent, const char* name, int depth, Patience& patience) {
    // The last task has been reaped, but the kernel may still count it for some tens of milliseconds (EBUSY).
    for (s64 pause = 50'000;; pause = pause < 50'000'000 ? pause * 2 : pause) {
        s64 result = call(__NR_unlinkat, parent, name, at_removedir);
        if (result != ebusy && result != enotempty) return result;
        remove_children(parent, name, depth, patience);
        result = call(__NR_unlinkat, parent, name, at_removedir);
        if ((result != ebusy && result != enotempty) || patience <= 0) return result;
        const __kernel_timespec t{0, pause};
        call(__NR_clock_nanosleep, 1 /* CLOCK_MONOTONIC */, 0, &t, nullptr);
        patience -= pause;
    }
}

/// Gives up what is not needed to watch, kill and clean up.
s64 lower_privileges() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (const s64 result = call(__NR_capget, &header, data); result < 0) return result;
    constexpr unsigned kept = 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[0].inheritable = 0;
    data[1] = {};
    if (const s64 result = call(__NR_capset, &header, data); result < 0) return result;
    // Id maps have been written: nothing needs to look into this process any more.
    const s64 result = call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    return result < 0 ? result : call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/// Waits for the host's "go"; false if host or init died before it.
bool wait_for_host(int pidfd) {
    for (;;) {
        pollfd p[3]{{plan::host_slot, POLLIN, 0}, {plan::owner_slot, POLLIN, 0}, {pidfd, POLLIN, 0}};
        if (call(__NR_ppoll, p, 3, nullptr, nullptr, 8) <= 0) continue;
        if (p[1].revents != 0 || p[2].revents != 0) return false;
        char go = 0;
        if (p[0].revents != 0) return retry(__NR_read, plan::host_slot, &go, 1) == 1;
    }
}

/// What is needed when init has ended, so that the plan does not take memory as long as the container runs.
struct Cleanup {
    plan::Slot oom;
    unsigned reached;  // the instruction that init was at when it executed its command, or died
    unsigned count;
    plan::Slot parents[plan::most_teardowns];
    char name[plan::longest_teardown_name + 1];
};

Cleanup cleanup_of(const Stage& stage) {
    const plan::PlanHeader& header = *stage.header;
    Cleanup cleanup;
    cleanup.oom = header.oom_slot;
    cleanup.reached = ~0u;
    cleanup.count = header.teardown_count < plan::most_teardowns ? header.teardown_count : plan::most_teardowns;
    const auto* parents = stage.array<plan::Slot>(header.teardowns);
    for (unsigned i = 0; i < cleanup.count; ++i) cleanup.parents[i] = parents[i];
    const char* name = stage.text(header.teardown_name);
    unsigned n = 0;
    for (; header.teardown_name != 0 && name[n] != 0 && n < plan::longest_teardown_name; ++n) cleanup.name[n] = name[n];
    cleanup.name[n] = 0;
    return cleanup;
}

/// Waits until init has ended; kills it when the owner dies or has hung up, which is how it gives up a start. `status`:
/// its end-of-file tells that init has executed its command, and that the plan is of no more use.
void watch(Stage& stage, Cleanup& cleanup, int pidfd, int status) {
    pollfd p[4]{{pidfd, POLLIN, 0}, {plan::owner_slot, POLLIN, 0}, {status, 0, 0}, {plan::host_slot, 0, 0}};
    for (;;) {
        if (call(__NR_ppoll, p, 4, nullptr, nullptr, 8) <= 0) continue;
        if (p[2].revents != 0) {
            cleanup.reached = *stage.progress;
            call(__NR_munmap, stage.progress, 4096);
            call(__NR_munmap, stage.base, stage.header->size);
            call(__NR_close, status);
            p[2].fd = -1;
        }
        for (int i = 1; i < 4; i += 2) {
            if (p[i].revents == 0) continue;
            call(__NR_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
            p[i].fd = -1;
        }
        // Init's end closes its status pipe first, so this has been seen.
        if (p[0].revents != 0 && p[2].fd < 0) return;
    }
}

/// The kernel's siginfo as waitid(2) fills it, as far as it is read here.
struct ChildInfo {
    int signo, error, code, pad, pid, uid, status;
    int rest[25];
};

/// A socket to the host whose end here nobody else has, in the place of the inherited one.
void own_channel() {
    int ends[2];
    s64 result = call(__NR_socketpair, 1 /* AF_UNIX */, 5 /* SOCK_SEQPACKET */ | O_CLOEXEC, 0, ends);
    Report report{};
    report.kind = Report::Kind::channel;
    if (result == 0) result = send_report(report, ends[0]);
    if (result >= 0) result = call(__NR_dup3, ends[1], plan::host_slot, O_CLOEXEC);
    if (result < 0) refuse(KeeperStep::prepare, result);
    call(__NR_close, ends[0]);
    call(__NR_close, ends[1]);
}

[[noreturn]] void keep(Stage& stage) {
    const plan::PlanHeader& header = *stage.header;
    own_channel();
    int go[2];
    int status[2];
    if (const s64 result = call(__NR_pipe2, go, O_CLOEXEC); result < 0) refuse(KeeperStep::prepare, result);
    if (const s64 result = call(__NR_pipe2, status, O_CLOEXEC); result < 0) refuse(KeeperStep::prepare, result);
    const s64 page = call(__NR_mmap, nullptr, 4096, 3 /* read, write */, 0x21 /* MAP_SHARED | MAP_ANONYMOUS */, -1, 0);
    if (page < 0) refuse(KeeperStep::prepare, page);
    stage.progress = reinterpret_cast<volatile unsigned*>(page);
    *stage.progress = ~0u;

    int pidfd = -1;
    clone_args args{};
    args.flags = header.clone_flags | CLONE_PIDFD;
    args.pidfd = reinterpret_cast<u64>(&pidfd);
    args.exit_signal = SIGCHLD;
    if (header.cgroup_slot >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = static_cast<u64>(header.cgroup_slot);
    }
    const s64 pid = call(__NR_clone3, &args, sizeof args);
    if (pid < 0) refuse(KeeperStep::clone, pid);
    if (pid == 0) {
        stage.go = go[0];
        stage.status = status[1];
        call(__NR_close, go[1]);
        init(stage);
    }
    call(__NR_close, status[1]);
    call(__NR_close_range, 0, 2, 0);
    call(__NR_close, go[0]);
    write_maps(stage, pid, pidfd);
    if (const s64 result = lower_privileges(); result < 0) kill_and_refuse(pidfd, KeeperStep::prepare, result);

    Report report{};
    report.kind = Report::Kind::cloned;
    report.value = static_cast<int>(pid);
    // A host that has not got these descriptors would wait for ever: init ends, and that is reported.
    if (send_report(report, pidfd, status[0]) < 0) call(__NR_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);

    if ((header.flags & plan::plan_wait_for_host) == 0 || wait_for_host(pidfd)) {
        char byte = 1;
        if (retry(__NR_write, go[1], &byte, 1) != 1) call(__NR_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
        // Kept open until the end: its hang-up tells init that the keeper died.
    } else {
        call(__NR_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
    }
    if (header.inherited_end > header.keep_end) {
        call(__NR_close_range, header.keep_end, header.inherited_end - 1, 0);
    }
    Cleanup cleanup = cleanup_of(stage);
    watch(stage, cleanup, pidfd, status[0]);

    ChildInfo info{};
    retry(__NR_waitid, 1 /* P_PID */, pid, &info, 4 /* WEXITED */, nullptr);
    report = {};
    report.kind = Report::Kind::ended;
    report.value = info.status;
    report.place = static_cast<unsigned>(info.code);
    report.index = cleanup.reached;
    report.oom_kills = oom_kills(cleanup.oom);
    Patience patience = 3'000'000'000;
    for (unsigned i = 0; i < cleanup.count; ++i) {
        const s64 result = remove_group(cleanup.parents[i], cleanup.name, 0, patience);
        if (result < 0 && result != enoent) ++report.left;
    }
    send_report(report);
    end(0);
}

/// To the top of the mount namespace, by joining the one that this process is in. From a chroot(2) of the host, no user
/// namespace could be made, and pivot_root(2) would leave the mounts above it within the container's reach.
s64 leave_chroot() {
    const s64 self = call(__NR_pidfd_open, call(__NR_getpid), 0);
    if (self < 0) return self;
    const s64 result = call(__NR_setns, self, CLONE_NEWNS);
    call(__NR_close, self);
    return result;
}

/// Every signal the default disposition: one that the host ignores passes through exec and would be ignored by the
/// payload; an ignored SIGCHLD would take init's exit status away from this process.
void reset_signals() {
    struct {
        u64 handler, flags, restorer, mask;
    } action{};
    for (int signal = 1; signal <= 64; ++signal) {
        if (signal != SIGKILL && signal != SIGSTOP) call(__NR_rt_sigaction, signal, &action, nullptr, 8);
    }
}

}  // namespace

[[noreturn]] void main() {
    reset_signals();
    // A session of its own: the host's terminal does not hang it up, and ps(1) shows it by itself.
    call(__NR_setsid);
    Stage stage;
    const s64 size = call(__NR_lseek, plan::plan_slot, 0, 2 /* SEEK_END */);
    if (size < static_cast<s64>(sizeof(plan::PlanHeader))) refuse(KeeperStep::read_plan, size < 0 ? size : einval);
    const s64 base = call(__NR_mmap, nullptr, size, 3 /* read, write */, 2 /* MAP_PRIVATE */, plan::plan_slot, 0);
    if (base < 0) refuse(KeeperStep::read_plan, base);
    call(__NR_close, plan::plan_slot);
    stage.base = reinterpret_cast<char*>(base);
    stage.header = reinterpret_cast<const plan::PlanHeader*>(base);
    if (stage.header->magic != plan::plan_magic || stage.header->size != static_cast<u64>(size)) {
        refuse(KeeperStep::read_plan, einval);
    }
    if (stage.header->name != 0) call(__NR_prctl, PR_SET_NAME, stage.text(stage.header->name), 0, 0, 0);
    const bool own_root = (stage.header->flags & plan::plan_own_root) != 0;
    // The host's working directory must neither be kept busy nor be what init resolves the container's paths from.
    if (const s64 result = own_root ? leave_chroot() : call(__NR_chdir, "/"); result < 0) {
        refuse(KeeperStep::prepare, result);
    }
    keep(stage);
}

}  // namespace stage

// The compiler may call these for copies and initialisers.
extern "C" {
void* memcpy(void* to, const void* from, unsigned long n) {
    auto* t = static_cast<char*>(to);
    const auto* f = static_cast<const char*>(from);
    while (n-- > 0) *t++ = *f++;
    return to;
}
void* memset(void* to, int value, unsigned long n) {
    auto* t = static_cast<char*>(to);
    while (n-- > 0) *t++ = static_cast<char>(value);
    return to;
}
[[noreturn]] void caisson_stage_start() {
    stage::main();
}
}

#if defined(__x86_64__)
asm(".globl _start\n_start:\n  xor %ebp, %ebp\n  and $-16, %rsp\n  call caisson_stage_start\n");
#else
asm(".globl _start\n_start:\n  mov x29, #0\n  mov x30, #0\n  b caisson_stage_start\n");
#endif
