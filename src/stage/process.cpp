// src/stage/process.cpp - init's instructions about what its command is as a process: session, limits, credentials.
#include "init.hpp"

namespace stage {

/// In a devpts of this user namespace: its terminals belong to ids that the host cannot give them.
s64 open_terminal(const Instr& instr) {
    constexpr int flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
    const s64 controller = open_below(descriptor(instr.other), "ptmx", O_RDWR | O_NOCTTY);
    if (controller < 0) return controller;
    const int locked = 0;
    struct {
        unsigned short rows, columns, unused[2];
    } size{static_cast<unsigned short>(instr.y >> 16), static_cast<unsigned short>(instr.y), {}};
    s64 result = call(__NR_ioctl, controller, 0x40045431 /* TIOCSPTLCK */, &locked);
    if (result == 0) result = call(__NR_ioctl, controller, 0x5414 /* TIOCSWINSZ */, &size);
    if (result == 0) result = call(__NR_ioctl, controller, 0x5441 /* TIOCGPTPEER */, flags);
    if (result >= 0) {
        const s64 terminal = result;
        result = call(__NR_fchown, terminal, instr.x >> 32, instr.x & 0xffffffff);
        if (instr.slot == plan::no_slot) close(terminal);
        else made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(terminal);
    }
    if (result == 0) {
        plan::Report report{};
        report.kind = plan::Report::Kind::terminal;
        result = send_report(report, static_cast<int>(controller));
    }
    close(controller);
    return result < 0 ? result : 0;
}

s64 session(const Instr& instr) {
    s64 result = call(__NR_setsid);
    if (result >= 0 && instr.slot != plan::no_slot) result = standard_descriptors(instr.slot, 0);
    if (result < 0 || instr.x == 0) return result < 0 ? result : 0;
    return call(__NR_ioctl, 0, 0x540E /* TIOCSCTTY */, 0);
}

s64 working_directory(const char* path) {
    const s64 fd = resolve(path, 0);
    if (fd < 0) return fd;
    const s64 result = call(__NR_fchdir, fd);
    close(fd);
    return result;
}

s64 write_setting(Stage& stage, const Instr& instr) {
    const s64 fd = open_below(descriptor(instr.slot), stage.text(instr.a), O_WRONLY);
    if (fd < 0) return fd;
    const char* value = stage.text(instr.b);
    const s64 n = retry(__NR_write, fd, value, length(value));
    close(fd);
    return n < 0 ? n : 0;
}

s64 resource_limit(const Instr& instr) {
    const u64 limit[]{instr.x, instr.y};
    return call(__NR_prlimit64, 0, instr.other, limit, nullptr);
}

s64 bounding_set(u64 kept) {
    for (u64 capability = 0; capability < 64; ++capability) {
        if ((kept >> capability & 1) != 0) continue;
        const s64 result = prctl(PR_CAPBSET_DROP, capability);
        if (result == einval) return 0;  // past the kernel's last capability
        if (result < 0) return result;
    }
    return 0;
}

s64 credentials(const Stage& stage, const Instr& instr) {
    const u64 uid = instr.x >> 32;
    const u64 gid = instr.x & 0xffffffff;
    // Where the next instruction gives an ordinary user capabilities, it must still have them; execve(2) resets this.
    s64 result = (instr.b & plan::credentials_keep_capabilities) != 0 ? prctl(PR_SET_KEEPCAPS, 1) : 0;
    const bool groups = (instr.b & plan::credentials_keep_groups) == 0;
    if (result == 0 && groups) result = call(__NR_setgroups, instr.y, stage.array<unsigned>(instr.a));
    if (result == 0) result = call(__NR_setresgid, gid, gid, gid);
    if (result == 0) result = call(__NR_setresuid, uid, uid, uid);
    if (result == 0) result = prctl(PR_SET_DUMPABLE, 0);
    return result;
}

s64 capabilities(const plan::Capabilities& wanted) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    s64 result = call(__NR_capget, &header, data);
    if (result < 0) return result;
    for (int i = 0; i < 2; ++i) {
        const int shift = 32 * i;
        // What an unprivileged parent does not hold cannot be asked for.
        data[i].permitted &= static_cast<unsigned>(wanted.permitted >> shift);
        data[i].effective = data[i].permitted & static_cast<unsigned>(wanted.effective >> shift);
        data[i].inheritable = data[i].permitted & static_cast<unsigned>(wanted.inheritable >> shift);
    }
    result = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
    if (result == 0) result = call(__NR_capset, &header, data);
    for (u64 capability = 0; result == 0 && capability < 64; ++capability) {
        if ((wanted.ambient >> capability & 1) == 0) continue;
        result = call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
    }
    return result;
}

s64 descriptors(Stage& stage, const Instr& instr) {
    // While the keeper can still be asked for.
    s64 result = die_with_keeper(stage);
    const int count = static_cast<int>(stage.rest->passed_count);
    const int status = 3 + count;
    const bool needs_go = instr.x != 0;
    const int last = needs_go ? status + 1 : status;
    int* const passed = received + (plan::passed_slot - plan::first_received_slot);
    // First out of the way of the numbers that are given, then down to them.
    const auto move_up = [&](int& fd) {
        if (result >= 0) result = call(__NR_fcntl, fd, 1030 /* F_DUPFD_CLOEXEC */, last + 1);
        if (result >= 0) fd = static_cast<int>(result);
    };
    const auto move_down = [&](int fd, int to, int flags) {
        if (result >= 0) result = retry(__NR_dup3, fd, to, flags);
    };
    for (int i = 0; i < count; ++i) move_up(passed[i]);
    move_up(stage.status);
    if (needs_go) move_up(stage.go);
    for (int i = 0; i < count; ++i) move_down(passed[i], 3 + i, 0);
    move_down(stage.status, status, O_CLOEXEC);
    if (needs_go) move_down(stage.go, last, O_CLOEXEC);
    if (result < 0) return result;
    stage.status = status;
    stage.go = last;
    // Closed, not close-on-exec: execve(2) resolves the command's path first, and a link in the root that leads through
    // /proc/self/fd would lead to the host by a directory that is still open.
    return call(__NR_close_range, last + 1, ~0u, 0);
}

s64 filter(const Stage& stage, const Instr& instr) {
    const sock_fprog program{static_cast<unsigned short>(instr.x),
                             const_cast<sock_filter*>(stage.array<sock_filter>(instr.a))};
    return call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

namespace {

/// What pid 1 needs to watch its child, and what it tells the keeper.
struct Reaper {
    s64 child;
    volatile unsigned* told;
};

/// The kernel's wait status.
[[noreturn]] void end_as(const Reaper& reaper, int status) {
    reaper.told[plan::child_status] = static_cast<unsigned>(status);
    reaper.told[plan::child_told] = 1;
    const int signal = status & 0x7f;
    end(signal == 0 ? status >> 8 & 0xff : 128 + signal);
}

[[noreturn]] void reap(const Reaper& reaper) {
    const u64 all = ~0ul;
    for (;;) {
        // Every signal is blocked, and blocked ones reach a pid 1 that has no handler for them.
        const s64 signal = call(__NR_rt_sigtimedwait, &all, nullptr, nullptr, sizeof all);
        if (signal > 0 && signal != SIGCHLD) call(__NR_kill, reaper.child, signal);
        for (;;) {
            int status = 0;
            const s64 pid = call(__NR_wait4, -1, &status, 1 /* WNOHANG */, nullptr);
            if (pid <= 0) break;
            if (pid == reaper.child) end_as(reaper, status);
        }
    }
}

/// Of an init that only waits and sends signals on.
s64 give_up_privileges() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    data[0].permitted = data[0].effective = 1u << CAP_KILL;
    const s64 result = call(__NR_capset, &header, data);
    return result < 0 ? result : prctl(PR_SET_NO_NEW_PRIVS, 1);
}

}  // namespace

s64 first_process(Stage& stage) {
    const u64 all = ~0ul;
    s64 result = call(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &all, nullptr, sizeof all);
    if (result < 0) return result;
    clone_args args{};
    args.exit_signal = SIGCHLD;
    const s64 child = call(__NR_clone3, &args, sizeof args);
    if (child <= 0) return child == 0 ? die_with_keeper(stage) : child;
    // What fails here ends the start by the status pipe, which is closed last.
    result = give_up_privileges();
    if (result >= 0) result = call(__NR_close_range, 0, ~0u, 0);
    if (result < 0) return result;
    const Reaper reaper{child, stage.progress};
    reap(reaper);
}

}  // namespace stage
