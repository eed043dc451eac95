// src/stage/keeper.cpp - one process per container: makes init, writes its id maps, waits for its end, removes what was
// made for the container, and ends the container when its owner dies. It never enters the container.
#include "stage.hpp"

namespace stage {

namespace {

constexpr u64 control_header = sizeof(u64) + 2 * sizeof(int);

}  // namespace

s64 send_report(const plan::Report& report, int first, int second) {
    plan::Report copy = report;
    Message m;
    m.iov = {&copy, sizeof copy};
    m.header = {nullptr, 0, &m.iov, 1, nullptr, 0, 0};
    if (first >= 0) {
        m.control.length = control_header + (second >= 0 ? 2 : 1) * sizeof(int);
        m.control.level = 1;  // SOL_SOCKET
        m.control.type = 1;   // SCM_RIGHTS
        m.control.fds[0] = first;
        m.control.fds[1] = second;
        m.header.control = &m.control;
        m.header.control_length = control_header + 2 * sizeof(int);
    }
    return retry(__NR_sendmsg, plan::host_slot, &m.header, 0x4040 /* MSG_NOSIGNAL | MSG_DONTWAIT */);
}

s64 receive(int socket, void* body, u64 size, int (&fds)[plan::most_in_message]) {
    Message m;
    m.iov = {body, size};
    m.header = {nullptr, 0, &m.iov, 1, &m.control, sizeof m.control, 0};
    const s64 n = retry(__NR_recvmsg, socket, &m.header, 0x40000000 /* MSG_CMSG_CLOEXEC */);
    if (n <= 0) return n < 0 ? n : epipe;
    if ((m.header.flags & 0x8 /* MSG_CTRUNC */) != 0) return emfile;
    if (static_cast<u64>(n) != size) return einval;
    const u64 count = m.header.control_length < control_header ? 0 : (m.control.length - control_header) / sizeof(int);
    for (u64 i = 0; i < count; ++i) fds[i] = m.control.fds[i];
    return static_cast<s64>(count);
}

namespace {

using plan::KeeperStep;
using plan::Report;

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

/// Calls `visit(directory, name, depth + 1)` for each group that the container made right below one of its own.
template <class Visit>
void visit_children(int parent, const char* name, int depth, const Visit& visit) {
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
                visit(static_cast<int>(directory), entry->name, depth + 1);
            }
            at += entry->size;
        }
    }
    close(directory);
}

s64 remove_group(int parent, const char* name, int depth, Patience& patience) {
    // The last task has been reaped, but the kernel may still count it for some tens of milliseconds (EBUSY).
    for (s64 pause = 50'000;; pause = pause < 50'000'000 ? pause * 2 : pause) {
        s64 result = call(__NR_unlinkat, parent, name, at_removedir);
        if (result != ebusy && result != enotempty) return result;
        visit_children(parent, name, depth, [&](int directory, const char* child, int below) {
            remove_group(directory, child, below, patience);
        });
        result = call(__NR_unlinkat, parent, name, at_removedir);
        if ((result != ebusy && result != enotempty) || patience <= 0) return result;
        const __kernel_timespec t{0, pause};
        call(__NR_clock_nanosleep, 1 /* CLOCK_MONOTONIC */, 0, &t, nullptr);
        patience -= pause;
    }
}

/// What is needed when init has ended, so that the plan does not take memory as long as the container runs.
struct Cleanup {
    unsigned reached;  // the instruction that init was at when it executed its command, or died
    unsigned count;
    bool has_first_process;
    plan::Slot parents[plan::most_teardowns];
    char name[plan::longest_teardown_name + 1];
};

Cleanup cleanup_of(const Stage& stage) {
    Cleanup cleanup;
    cleanup.reached = ~0u;
    cleanup.count = 0;
    cleanup.has_first_process = false;
    if (stage.header == nullptr) return cleanup;
    const plan::PlanHeader& header = *stage.header;
    cleanup.count = header.teardown_count < plan::most_teardowns ? header.teardown_count : plan::most_teardowns;
    const auto* parents = stage.array<plan::Slot>(header.teardowns);
    for (unsigned i = 0; i < cleanup.count; ++i) cleanup.parents[i] = parents[i];
    const char* name = stage.text(header.teardown_name);
    unsigned n = 0;
    for (; name[n] != 0 && n < plan::longest_teardown_name; ++n) cleanup.name[n] = name[n];
    cleanup.name[n] = 0;
    return cleanup;
}

/// v1 delivers SIGKILL only to who is thawed. The groups of other hierarchies have no such file.
void thaw(int parent, const char* name, int depth) {
    const s64 directory = retry(__NR_openat, parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) return;
    const s64 file = retry(__NR_openat, directory, "freezer.state", O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        visit_children(parent, name, depth,
                       [](int within, const char* child, int below) { thaw(within, child, below); });
        call(__NR_write, file, "THAWED", 6);
        close(file);
    }
    close(directory);
}

/// How many groups are still there.
unsigned remove_groups(const Cleanup& cleanup) {
    Patience patience = 3'000'000'000;
    unsigned left = 0;
    for (unsigned i = 0; i < cleanup.count; ++i) {
        const s64 result = remove_group(cleanup.parents[i], cleanup.name, 0, patience);
        if (result < 0 && result != enoent) ++left;
    }
    return left;
}

void thaw_groups(const Cleanup& cleanup) {
    for (unsigned i = 0; i < cleanup.count; ++i) thaw(cleanup.parents[i], cleanup.name, 0);
}

/// The end of a start that has failed here. The host goes on making groups until it has read why, and hangs up then.
[[noreturn]] void give_up(const Cleanup& cleanup, const Report& report) {
    // Not started by a host, but by hand, or as the command of a container: its /proc/self/exe.
    if (send_report(report) == -88 /* ENOTSOCK */) end(1);
    // The host may be at the other end of what a visit was to bring in.
    if (cleanup.count == 0) call(__NR_close_range, plan::first_free_slot, ~0u, 0);
    pollfd p[3]{{go_slot, 0, 0}, {plan::host_slot, 0, 0}, {plan::owner_slot, POLLIN, 0}};
    while (call(__NR_ppoll, p, 3, nullptr, nullptr, 8) <= 0) {
    }
    remove_groups(cleanup);
    end(1);
}

// Does nothing before there is one.
[[gnu::noinline]] s64 kill_init(const Stage& stage) {
    return call(__NR_pidfd_send_signal, stage.pidfd, SIGKILL, nullptr, 0);
}

/// A security module may keep signals from a command that has a label; it does not keep this from a group.
void kill_group(const Cleanup& cleanup) {
    for (unsigned i = 0; i < cleanup.count; ++i) {
        const s64 group =
            retry(__NR_openat, cleanup.parents[i], cleanup.name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (group < 0) continue;
        const s64 file = retry(__NR_openat, group, "cgroup.kill", O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
        if (file >= 0) {
            retry(__NR_write, file, "1", 1);
            close(file);
        }
        close(group);
    }
}

}  // namespace

[[noreturn]] void refuse(const Stage& stage, KeeperStep step, s64 error, unsigned index) {
    Report report{};
    report.kind = Report::Kind::refused;
    report.value = static_cast<int>(-error);
    report.place = static_cast<unsigned>(step);
    report.index = index;
    kill_init(stage);
    // Left alone, it would become a zombie of a host that is pid 1 or a subreaper.
    retry(__NR_waitid, 3 /* P_PIDFD */, stage.pidfd, nullptr, 4 /* WEXITED */, nullptr);
    give_up(cleanup_of(stage), report);
}

namespace {

/// Gives up what is not needed to watch, kill and clean up.
[[gnu::section(".early")]] s64 lower_privileges(bool has_links) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (const s64 result = call(__NR_capget, &header, data); result < 0) return result;
    unsigned kept = 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH;
    if (has_links) kept |= 1u << CAP_NET_ADMIN;
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[0].inheritable = 0;
    data[1] = {};
    if (const s64 result = call(__NR_capset, &header, data); result < 0) return result;
    // Id maps have been written: nothing needs to look into this process any more.
    const s64 result = prctl(PR_SET_DUMPABLE, 0);
    return result < 0 ? result : prctl(PR_SET_NO_NEW_PRIVS, 1);
}

/// Lets init go on. Its death is seen elsewhere.
void let_go_on(const Stage& stage, int go) {
    const char byte = 1;
    if (retry(__NR_write, go, &byte, 1) != 1) kill_init(stage);
}

/// Waits for the host's `Go` and does what it says. False if the host dies or gives up before it, for which init is
/// killed, and if init dies. `user`: see `write_maps`.
[[gnu::section(".early")]] bool wait_for_host(const Stage& stage, int user, int go,
                                              int (&kept)[plan::kept_descriptors]) {
    plan::Go message{};
    unsigned count = 0;
    do {
        pollfd p[4]{
            {go_slot, POLLIN, 0}, {plan::host_slot, 0, 0}, {plan::owner_slot, POLLIN, 0}, {stage.pidfd, POLLIN, 0}};
        while (call(__NR_ppoll, p, 4, nullptr, nullptr, 8) <= 0) {
        }
        if (p[3].revents != 0) return false;
        int fds[plan::most_in_message];
        s64 n = (p[1].revents | p[2].revents) != 0 ? epipe : receive(go_slot, &message, sizeof message, fds);
        if (n == epipe || n == econnreset) {
            kill_init(stage);
            return false;
        }
        if (n < 0) refuse(stage, KeeperStep::prepare, n);
        for (s64 i = 0; i < n; ++i, ++count) {
            if (count < plan::kept_descriptors) {
                kept[count] = fds[i];
            } else if (const unsigned at = count - plan::kept_descriptors; at < message.idmap_count) {
                const s64 result = map_mount(fds[i], user);
                if (result < 0) refuse(stage, KeeperStep::id_map_mount, result, at);
            } else {
                const s64 result = make_as_root_inside(fds[i], message.root_uid, message.root_gid);
                if (result < 0) refuse(stage, KeeperStep::context, result, at - message.idmap_count);
            }
        }
    } while (count < plan::kept_descriptors + message.idmap_count + message.context_count);
    if (user >= 0) close(user);
    close(go_slot);
    if (const s64 result = lower_privileges(message.has_links != 0); result < 0)
        refuse(stage, KeeperStep::prepare, result);
    let_go_on(stage, go);
    return true;
}

/// The kernel has carried the requests out, messages of rtnetlink(7), when write(2) returns.
void remove_links(int netlink, int requests) {
    char buffer[512];  // a multiple of a request's 32 bytes: none is cut in two
    for (s64 at = 0;;) {
        const s64 n = call(__NR_pread64, requests, buffer, sizeof buffer, at);
        if (n <= 0) return;
        call(__NR_write, netlink, buffer, n);
        at += n;
    }
}

// From the linker, see stage.ld; the file begins where the first is.
extern "C" const char stage_begin[], stage_early_begin[], stage_early_end[];

/// Gives the memory of the program's first part back, where nobody runs it any more, and seals the file. What is not in
/// memory (ContainerSpec::stage_path) cannot be written to, and stays.
void seal_program(bool give_back_early) {
    if (give_back_early) {
        call(__NR_fallocate, plan::program_slot, 3 /* FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */,
             stage_early_begin - stage_begin, stage_early_end - stage_early_begin);
    }
    call(__NR_fcntl, plan::program_slot, 1033 /* F_ADD_SEALS */, 9 /* F_SEAL_WRITE | F_SEAL_SEAL */);
    close(plan::program_slot);
}

/// Waits until init has ended; kills it when the owner dies or has hung up, which is how it gives up a start. `status`:
/// its end-of-file tells that init has executed its command, and that the plan is of no more use.
void watch(const Stage& stage, Cleanup& cleanup, int status) {
    pollfd p[4]{{stage.pidfd, POLLIN, 0}, {plan::owner_slot, POLLIN, 0}, {status, 0, 0}, {plan::host_slot, 0, 0}};
    bool killed = false;
    for (;;) {
        // Who is still alive in it may hold init's end up: as its tracer, as the server of a file system that it waits
        // for, or by freezing groups again.
        __kernel_timespec again{0, 100'000'000};
        const s64 ready = call(__NR_ppoll, p, 4, killed ? &again : nullptr, nullptr, 8);
        if (killed) kill_group(cleanup);
        if (killed) thaw_groups(cleanup);
        if (ready <= 0) continue;
        if (p[2].revents != 0) {
            cleanup.reached = *stage.progress;
            cleanup.has_first_process = (stage.header->flags & plan::plan_first_process) != 0;
            call(__NR_munmap, stage.base, stage.header->size);
            close(status);
            if (!cleanup.has_first_process) call(__NR_munmap, stage.progress, 4096);
            seal_program(!cleanup.has_first_process);
            p[2].fd = -1;
        }
        for (int i = 1; i < 4; i += 2) {
            if (p[i].revents == 0) continue;
            if (kill_init(stage) == eacces) kill_group(cleanup);
            thaw_groups(cleanup);
            killed = true;
            p[i].fd = -1;
        }
        // Init's end closes its status pipe first, so this has been seen.
        if (p[0].revents != 0 && p[2].fd < 0) return;
    }
}

/// From now on to the end. Never returns: what called it may be given back.
[[noreturn, gnu::noinline]] void stay(const Stage& stage, s64 pid, int status,
                                      const int (&kept)[plan::kept_descriptors], bool goes_on) {
    Cleanup cleanup = cleanup_of(stage);
    watch(stage, cleanup, status);

    ChildInfo info{};
    const s64 waited = retry(__NR_waitid, 1 /* P_PID */, pid, &info, 4 /* WEXITED */, nullptr);
    Report report{};
    report.kind = Report::Kind::ended;
    report.value = info.status;
    report.place = static_cast<unsigned>(info.code);
    if (cleanup.has_first_process && stage.progress[plan::child_told] != 0) {
        const unsigned wait_status = stage.progress[plan::child_status];
        const unsigned signal = wait_status & 0x7f;
        report.of_child = 1;
        report.value = static_cast<int>(signal != 0 ? signal : wait_status >> 8 & 0xff);
        // CLD_EXITED, CLD_KILLED, CLD_DUMPED
        report.place = signal == 0 ? 1 : (wait_status & 0x80) == 0 ? 2 : 3;
    }
    report.index = cleanup.reached;
    report.oom_kills = oom_kills(kept[0]);
    if (!goes_on) give_up(cleanup, report);
    remove_links(kept[1], kept[2]);
    report.left = remove_groups(cleanup);
    // To the host it is the keeper that has died, then, and that is what it tells.
    if (waited >= 0) send_report(report);
    end(0);
}

}  // namespace

[[gnu::section(".early")]] s64 make_own_channel(int also) {
    int ends[2];
    s64 result = call(__NR_dup3, plan::host_slot, go_slot, O_CLOEXEC);
    if (result >= 0) result = call(__NR_socketpair, 1 /* AF_UNIX */, 5 /* SOCK_SEQPACKET */ | O_CLOEXEC, 0, ends);
    if (result < 0) return result;
    Report report{};
    report.kind = Report::Kind::channel;
    result = send_report(report, ends[0], also);
    if (result >= 0) result = call(__NR_dup3, ends[1], plan::host_slot, O_CLOEXEC);
    close(ends[0]);
    close(ends[1]);
    return result;
}

[[noreturn, gnu::section(".early")]] void keep(Stage& stage) {
    const plan::PlanHeader& header = *stage.header;
    int go[2];
    int status[2];
    s64 result = make_own_channel();
    if (result >= 0) result = call(__NR_pipe2, go, O_CLOEXEC);
    if (result >= 0) result = call(__NR_pipe2, status, O_CLOEXEC);
    if (result >= 0)
        result = call(__NR_mmap, nullptr, 4096, 3 /* read, write */, 0x21 /* MAP_SHARED | MAP_ANONYMOUS */, -1, 0);
    if (result < 0) refuse(stage, KeeperStep::prepare, result);
    stage.progress = reinterpret_cast<volatile unsigned*>(result);
    *stage.progress = ~0u;

    clone_args args{};
    args.flags = header.clone_flags | CLONE_PIDFD;
    args.pidfd = reinterpret_cast<u64>(&stage.pidfd);
    args.exit_signal = SIGCHLD;
    if (header.cgroup_slot >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = static_cast<u64>(header.cgroup_slot);
    }
    const s64 pid = call(__NR_clone3, &args, sizeof args);
    if (pid < 0) refuse(stage, KeeperStep::clone, pid);
    if (pid == 0) {
        stage.go = go[0];
        stage.status = status[1];
        close(go[1]);
        init(stage);
    }
    const int inits[]{plan::rest_slot, status[1], go[0]};
    for (const int fd : inits) close(fd);
    if (header.cgroup_slot >= 0) close(header.cgroup_slot);
    const int user = write_maps(stage, pid);
    const bool by_host = (header.flags & plan::plan_host_maps) != 0;
    if (!by_host) let_go_on(stage, go[1]);

    Report report{};
    report.kind = Report::Kind::cloned;
    report.value = static_cast<int>(pid);
    // A host that has not got these descriptors would wait for ever: init ends, and that is reported.
    if (send_report(report, stage.pidfd, status[0]) < 0) kill_init(stage);
    if (by_host && mapped_by_host()) let_go_on(stage, go[1]);

    // The pipe is kept open until the end: its hang-up tells init that the keeper died.
    int kept[plan::kept_descriptors]{-1, -1, -1};
    const bool goes_on = wait_for_host(stage, user, go[1], kept);
    stay(stage, pid, status[0], kept, goes_on);
}

}  // namespace stage

// The compiler may call these for copies and initialisers.
extern "C" {
[[gnu::used]] void* memcpy(void* to, const void* from, unsigned long n) {
    auto* t = static_cast<char*>(to);
    const auto* f = static_cast<const char*>(from);
    while (n-- > 0) *t++ = *f++;
    return to;
}
[[gnu::used]] void* memset(void* to, int value, unsigned long n) {
    auto* t = static_cast<char*>(to);
    while (n-- > 0) *t++ = static_cast<char>(value);
    return to;
}
}
