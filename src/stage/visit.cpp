// src/stage/visit.cpp - a visit to a container that runs. The stage stays outside, as the parent of who goes in, which
// it watches as the keeper watches init. Who goes in joins the namespaces and is not seen there, as a pid namespace is
// for children alone: so it does all that takes privileges, opens what it opens, and becomes what the command is to be.
// Only then does it make a child, if there is a command: root inside may take hold of that one by ptrace(2) as soon as
// it is there, where it has no user namespace of its own.
#include "init.hpp"

namespace stage {

s64 join(const Instr& instr) {
    // Before anybody inside could look: the memory's user namespace is the host's, and nobody there has rights over it.
    s64 result = prctl(PR_SET_DUMPABLE, 0);
    const bool has_user = (instr.x & CLONE_NEWUSER) != 0;
    // On this side, as an init that has made a user namespace of its own may have it forbid this.
    if (result == 0 && has_user && instr.y == 0) result = call(__NR_setgroups, 0, nullptr);
    if (result == 0) result = call(__NR_setns, descriptor(instr.slot), instr.x);
    if (result == 0 && has_user) {
        if (instr.y != 0) result = call(__NR_setgroups, 0, nullptr);
        if (instr.y != 0 && result == eperm) result = 0;  // he has no range of ids
        if (result == 0) result = call(__NR_setresgid, 0, 0, 0);
        if (result == 0) result = call(__NR_setresuid, 0, 0, 0);
        // A change of ids sets it to what fs.suid_dumpable says.
        if (result == 0) result = prctl(PR_SET_DUMPABLE, 0);
    }
    return result;
}

s64 pass_up(const Instr& instr) {
    plan::Report report{};
    report.kind = plan::Report::Kind::passed;
    return send_report(report, descriptor(instr.slot));
}

namespace {

s64 keep_made(const Instr& instr, s64 fd) {
    if (fd < 0) return fd;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(fd);
    return 0;
}

/// A descriptor of the directory that `path` is in, and the last part of it, which may be a link. A path that ends in
/// '/' or is "/" has none.
s64 resolve_parent(char* path, const char*& name) {
    char* last = path;
    for (char* c = path; *c != 0; ++c) {
        if (*c == '/') last = c + 1;
    }
    if (last == path || *last == 0) return einval;
    name = last;
    if (last - 1 == path) return resolve("/", 0);
    last[-1] = 0;
    const s64 parent = resolve(path, 0);
    last[-1] = '/';
    return parent;
}

/// A file of the container's.
s64 open_inside(const char* path, u64 flags, u64 mode) {
    open_how how{};
    how.flags = flags | O_CLOEXEC | O_NOCTTY;
    how.mode = (flags & O_CREAT) != 0 ? mode : 0;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    s64 fd = eagain;
    for (int attempt = 0; (fd == eagain || fd == -4 /* EINTR */) && attempt < 128; ++attempt) {
        fd = call(__NR_openat2, at_fdcwd, path, &how, sizeof how);
    }
    return fd;
}

}  // namespace

s64 standard(const Instr& instr) {
    const plan::Slot slots[]{instr.slot, instr.other, static_cast<plan::Slot>(instr.x)};
    for (int i = 0; i < 3; ++i) {
        const s64 result = retry(__NR_dup3, descriptor(slots[i]), i, 0);
        if (result < 0) return result;
    }
    return 0;
}

s64 become_visible(Stage& stage) {
    // As far as the host is told, the child is at the last instruction, the command, from now on.
    static unsigned of_child;
    *stage.progress = stage.header->instr_count + stage.rest->instr_count - 1;
    // The stage becomes the child's parent, and knows of it however this process ends. Not clone3(2), whose flags a
    // filter cannot see, so that a profile may refuse it.
    const s64 pid =
        call(__NR_clone, CLONE_PARENT | CLONE_PARENT_SETTID, nullptr, stage.progress + plan::visitor_pid, nullptr, 0);
    if (pid < 0) return pid;
    if (pid > 0) end(0);
    stage.progress = &of_child;
    return die_with_keeper(stage);
}

s64 open_netlink(const Instr& instr) {
    return keep_made(instr, call(__NR_socket, 16 /* AF_NETLINK */, 3 /* SOCK_RAW */ | O_CLOEXEC, 0));
}

s64 open_file(Stage& stage, const Instr& instr) {
    return keep_made(instr, open_inside(stage.text(instr.a), instr.x, instr.y));
}

s64 open_devpts(Stage& stage, const Instr& instr) {
    const s64 fd = resolve(stage.text(instr.a), 0);
    if (fd < 0) return fd;
    struct {
        s64 type, rest[14];
    } system{};
    const s64 result = call(__NR_fstatfs, fd, &system);
    if (result == 0 && system.type == DEVPTS_SUPER_MAGIC) return keep_made(instr, fd);
    close(fd);
    return result < 0 ? result : -25 /* ENOTTY */;
}

s64 open_null(Stage& stage, const Instr& instr) {
    const s64 fd = open_inside(stage.text(instr.a), O_RDWR | O_NONBLOCK, 0);
    if (fd < 0) return fd;
    struct stat status;
    const s64 result = call(__NR_newfstatat, fd, "", &status, at_empty_path);
    if (result == 0 && (status.st_mode & 0170000) == 0020000 && status.st_rdev == 0x103) {
        call(__NR_fcntl, fd, 4 /* F_SETFL */, O_RDWR);
        return keep_made(instr, fd);
    }
    close(fd);
    return result < 0 ? result : -19 /* ENODEV */;
}

s64 send_file(const Instr& instr) {
    struct stat status;
    const int from = descriptor(instr.slot);
    const s64 result = call(__NR_newfstatat, from, "", &status, at_empty_path);
    if (result < 0) return result;
    if ((status.st_mode & 0170000) != 0100000) return einval;
    for (u64 left = instr.x; left > 0;) {
        const s64 n = retry(__NR_sendfile, descriptor(instr.other), from, nullptr, left);
        if (n <= 0) return n;
        left -= static_cast<u64>(n);
    }
    return 0;
}

namespace {

bool is_mount(s64 fd, const char* name, const Instr& instr) {
    if (instr.x == 0) return true;
    struct statx status {};
    const u64 flags = *name == 0 ? at_empty_path : at_symlink_nofollow;
    return call(__NR_statx, fd, name, flags, instr.y, &status) == 0 && status.stx_mnt_id == instr.x;
}

s64 unmount_from(s64 directory, const char* name) {
    s64 result = call(__NR_fchdir, directory);
    if (result == 0) result = call(__NR_umount2, name, 2 | 8 /* MNT_DETACH | UMOUNT_NOFOLLOW */);
    call(__NR_chdir, "/");
    return result;
}

}  // namespace

s64 unmount(Stage& stage, const Instr& instr) {
    // A directory is reached by its descriptor, links on the way or not; a file by its name, which nobody inside can
    // give to anything else as long as something is mounted on it.
    char* const path = stage.base + instr.a;
    const s64 there = resolve(path, 0);
    if (there < 0) return there;
    s64 result = is_mount(there, "", instr) ? 0 : estale;
    const bool by_name = result == 0 && !is_directory(there);
    if (result == 0 && !by_name) result = unmount_from(there, ".");
    close(there);
    if (!by_name) return result;
    const char* name = nullptr;
    const s64 parent = resolve_parent(path, name);
    if (parent < 0) return parent;
    result = is_mount(parent, name, instr) ? unmount_from(parent, name) : estale;
    close(parent);
    return result;
}

s64 remove_name(Stage& stage, const Instr& instr) {
    const char* name = nullptr;
    const s64 parent = resolve_parent(stage.base + instr.a, name);
    if (parent < 0) return parent;
    const s64 result = call(__NR_unlinkat, parent, name, instr.x);
    close(parent);
    return result;
}

namespace {

plan::CallRequest request;
plan::CallAnswer answer;

}  // namespace

s64 serve(const Instr& instr) {
    for (;;) {
        int fds[plan::most_in_message];
        const s64 count = receive(descriptor(instr.slot), &request, sizeof request, fds);
        if (count == epipe || count == econnreset) return 0;  // the host has all that it wanted
        if (count < 0) return count;
        s64 values[6];
        for (int i = 0; i < 6; ++i) {
            values[i] = request.arguments[i];
            if ((request.pointers >> i & 1) != 0) values[i] = word(request.data + values[i]);
            if ((request.descriptors >> i & 1) != 0) values[i] = count > 0 ? fds[0] : -1;
        }
        answer.result = syscall6(request.number, values[0], values[1], values[2], values[3], values[4], values[5]);
        for (s64 i = 0; i < count; ++i) close(fds[i]);
        for (u64 i = 0; i < sizeof answer.data; ++i) answer.data[i] = request.data[i];
        const s64 n = call(__NR_sendto, descriptor(instr.slot), &answer, sizeof answer, 0x4000 /* MSG_NOSIGNAL */);
        if (n < 0) return n == epipe ? 0 : n;
    }
}

namespace {

/// Joins and does what the visit is for, unseen, but for what comes after an `Op::become_visible`.
[[noreturn]] void visitor(Stage& stage) {
    if (die_with_keeper(stage) < 0) end(1);
    const plan::PlanHeader& header = *stage.header;
    // The stage goes by what is in this page: a child that the container sees does not have it.
    if (call(__NR_madvise, stage.progress, 4096, 10 /* MADV_DONTFORK */) < 0) end(1);
    for (unsigned i = 0; i < plan::most_received; ++i) received[i] = header.received_at + static_cast<int>(i);
    call(__NR_umask, 022);
    Stage inside = stage;
    if (map_plan(inside, descriptor(plan::second_plan_slot), inside.rest) < 0) end(1);
    run_all(stage, stage.array<Instr>(header.instrs), header.instr_count, 0);
    // A change of ids takes it away.
    if (die_with_keeper(stage) < 0) end(1);
    // What is opened inside must not get the numbers of the standard descriptors.
    if (call(__NR_dup3, plan::host_slot, go_slot, O_CLOEXEC) < 0) end(1);
    if (call(__NR_dup3, plan::host_slot, plan::owner_slot, O_CLOEXEC) < 0) end(1);
    if (call(__NR_close_range, plan::rest_slot, header.received_at - 1, 0) < 0) end(1);
    run_all(inside, inside.array<Instr>(inside.rest->instrs), inside.rest->instr_count, header.instr_count);
    // All was done, and there was no command among it.
    end(retry(__NR_write, stage.status, &plan::exec_mark, 1) == 1 ? 0 : 1);
}

/// Waits for the end of the process of `stage.pidfd` and reaps it; kills it once owner or container have ended or the
/// host has hung up.
void see_to(const Stage& stage, plan::Report& report) {
    pollfd p[4]{{stage.pidfd, POLLIN, 0},
                {plan::owner_slot, POLLIN, 0},
                {plan::host_slot, POLLIN, 0},
                {plan::visited_slot, POLLIN, 0}};
    for (;;) {
        if (call(__NR_ppoll, p, 4, nullptr, nullptr, 8) <= 0) continue;
        if (p[0].revents != 0) break;
        for (int i = 1; i < 4; ++i) {
            if (p[i].revents == 0) continue;
            p[i].fd = -1;
            call(__NR_pidfd_send_signal, stage.pidfd, SIGKILL, nullptr, 0);
            if (i != 2) continue;
            plan::Report given_up{};
            given_up.kind = plan::Report::Kind::given_up;
            given_up.index = *stage.progress;
            send_report(given_up);
        }
    }
    ChildInfo info{};
    if (retry(__NR_waitid, 3 /* P_PIDFD */, stage.pidfd, &info, 4 /* WEXITED */, nullptr) < 0) end(1);
    report.kind = plan::Report::Kind::ended;
    report.value = info.status;
    report.place = static_cast<unsigned>(info.code);
    report.index = *stage.progress;
}

/// Gives up what is not needed to watch and to kill.
s64 lower_privileges() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    s64 result = call(__NR_capget, &header, data);
    if (result < 0) return result;
    data[0].permitted &= 1u << CAP_KILL;
    data[0].effective = data[0].permitted;
    data[0].inheritable = 0;
    data[1] = {};
    result = call(__NR_capset, &header, data);
    return result < 0 ? result : prctl(PR_SET_NO_NEW_PRIVS, 1);
}

}  // namespace

[[noreturn]] void visit(Stage& stage) {
    const plan::PlanHeader& header = *stage.header;
    int go[2];
    int status[2];
    s64 result = call(__NR_pipe2, status, O_CLOEXEC);
    if (result >= 0) result = make_own_channel(status[0]);
    if (result >= 0) result = call(__NR_pipe2, go, O_CLOEXEC);
    if (result >= 0)
        result = call(__NR_mmap, nullptr, 4096, 3 /* read, write */, 0x21 /* MAP_SHARED | MAP_ANONYMOUS */, -1, 0);
    if (result < 0) refuse(stage, plan::KeeperStep::prepare, result);
    stage.progress = reinterpret_cast<volatile unsigned*>(result);
    *stage.progress = ~0u;

    clone_args args{};
    args.flags = CLONE_PIDFD;
    args.pidfd = reinterpret_cast<u64>(&stage.pidfd);
    args.exit_signal = SIGCHLD;
    if (header.cgroup_slot >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = static_cast<u64>(header.cgroup_slot);
    }
    const s64 pid = call(__NR_clone3, &args, sizeof args);
    if (pid < 0) refuse(stage, plan::KeeperStep::clone, pid);
    if (pid == 0) {
        stage.go = go[0];
        stage.status = status[1];
        close(go[1]);
        close(status[0]);
        visitor(stage);
    }
    // Not before: who goes in changes settings of its own in /proc first, as the host's user.
    result = prctl(PR_SET_DUMPABLE, 0);
    // Only the writing end of `go` and the pidfd stay, whose numbers are behind all others: they take places of what is
    // not needed here.
    if (result >= 0) result = call(__NR_dup3, go[1], plan::rest_slot, O_CLOEXEC);
    if (result >= 0) result = call(__NR_dup3, stage.pidfd, plan::program_slot, O_CLOEXEC);
    if (result >= 0) stage.pidfd = plan::program_slot;
    if (result >= 0) result = call(__NR_close_range, plan::marks_slot + 1, ~0u, 0);
    if (result < 0) refuse(stage, plan::KeeperStep::prepare, result);

    plan::Report report{};
    see_to(stage, report);
    if (const unsigned visitor = stage.progress[plan::visitor_pid]; visitor != 0) {
        // Its parent is this process, so that nobody else can have its number.
        stage.pidfd = static_cast<int>(call(__NR_pidfd_open, visitor, 0));
        plan::Report cloned{};
        cloned.kind = plan::Report::Kind::cloned;
        cloned.value = static_cast<int>(visitor);
        // This process's end is that of the visitor.
        if (stage.pidfd < 0 || send_report(cloned, stage.pidfd) < 0 || lower_privileges() < 0) {
            // The container ends no sooner than its last process is reaped, and pid 1 may take its time for that.
            call(__NR_kill, visitor, SIGKILL);
            retry(__NR_wait4, visitor, nullptr, 0, nullptr);
            end(1);
        }
        see_to(stage, report);
    }
    send_report(report);
    end(0);
}

}  // namespace stage
