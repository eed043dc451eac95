#include "support/inject.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/fd.hpp>

namespace caisson_test {

std::string_view to_string(Role role) {
    constexpr std::string_view names[] = {"host", "intermediate", "keeper", "init", "other"};
    return names[static_cast<std::size_t>(role)];
}

#if !defined(__x86_64__)
const char* inject_missing() {
    return "the injector knows the registers of x86-64 alone";
}
Run inject(const std::vector<std::string>&, const Fault&, int) {
    throw std::runtime_error{inject_missing()};
}
#else

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void refuse(const std::string& what) {
    throw std::runtime_error{what + ": " + std::system_category().message(errno)};
}

/// Calls that cannot meet a fault: they do not return to where they were made, or have no way to fail, so that whoever
/// calls them rightly looks at nothing.
bool cannot_fail(std::uint64_t number) {
    switch (number) {
        case SYS_exit:  // the end of the process; there is nobody to return to
        case SYS_exit_group:
        case SYS_rt_sigreturn:     // restores the registers: its "result" is whatever the interrupted code had there
        case SYS_restart_syscall:  // made by the kernel itself, in the name of the call before
        case SYS_rt_sigprocmask:   // refuse bad arguments and nothing else
        case SYS_rt_sigaction:
        case SYS_getpid:
        case SYS_gettid:
        case SYS_getppid:
        case SYS_getuid:
        case SYS_geteuid:
        case SYS_getgid:
        case SYS_getegid:
        case SYS_umask:
        case SYS_sched_yield: return true;
        default: return false;
    }
}

std::string name_of(std::uint64_t number) {
    static const std::map<std::uint64_t, const char*> names{{SYS_read, "read"},
                                                            {SYS_write, "write"},
                                                            {SYS_open, "open"},
                                                            {SYS_close, "close"},
                                                            {SYS_stat, "stat"},
                                                            {SYS_fstat, "fstat"},
                                                            {SYS_lstat, "lstat"},
                                                            {SYS_poll, "poll"},
                                                            {SYS_ppoll, "ppoll"},
                                                            {SYS_lseek, "lseek"},
                                                            {SYS_mmap, "mmap"},
                                                            {SYS_munmap, "munmap"},
                                                            {SYS_brk, "brk"},
                                                            {SYS_mprotect, "mprotect"},
                                                            {SYS_rt_sigaction, "rt_sigaction"},
                                                            {SYS_rt_sigprocmask, "rt_sigprocmask"},
                                                            {SYS_ioctl, "ioctl"},
                                                            {SYS_pread64, "pread64"},
                                                            {SYS_access, "access"},
                                                            {SYS_pipe2, "pipe2"},
                                                            {SYS_socket, "socket"},
                                                            {SYS_socketpair, "socketpair"},
                                                            {SYS_sendto, "sendto"},
                                                            {SYS_recvfrom, "recvfrom"},
                                                            {SYS_sendmsg, "sendmsg"},
                                                            {SYS_recvmsg, "recvmsg"},
                                                            {SYS_bind, "bind"},
                                                            {SYS_getsockname, "getsockname"},
                                                            {SYS_setsockopt, "setsockopt"},
                                                            {SYS_clone, "clone"},
                                                            {SYS_clone3, "clone3"},
                                                            {SYS_execve, "execve"},
                                                            {SYS_execveat, "execveat"},
                                                            {SYS_wait4, "wait4"},
                                                            {SYS_waitid, "waitid"},
                                                            {SYS_kill, "kill"},
                                                            {SYS_fcntl, "fcntl"},
                                                            {SYS_chdir, "chdir"},
                                                            {SYS_fchdir, "fchdir"},
                                                            {SYS_mkdir, "mkdir"},
                                                            {SYS_rmdir, "rmdir"},
                                                            {SYS_fchown, "fchown"},
                                                            {SYS_fchmod, "fchmod"},
                                                            {SYS_chmod, "chmod"},
                                                            {SYS_readlink, "readlink"},
                                                            {SYS_readlinkat, "readlinkat"},
                                                            {SYS_statfs, "statfs"},
                                                            {SYS_fstatfs, "fstatfs"},
                                                            {SYS_setsid, "setsid"},
                                                            {SYS_setgroups, "setgroups"},
                                                            {SYS_setresuid, "setresuid"},
                                                            {SYS_setresgid, "setresgid"},
                                                            {SYS_capget, "capget"},
                                                            {SYS_capset, "capset"},
                                                            {SYS_prctl, "prctl"},
                                                            {SYS_pivot_root, "pivot_root"},
                                                            {SYS_umount2, "umount2"},
                                                            {SYS_mount, "mount"},
                                                            {SYS_sethostname, "sethostname"},
                                                            {SYS_getdents64, "getdents64"},
                                                            {SYS_openat, "openat"},
                                                            {SYS_mkdirat, "mkdirat"},
                                                            {SYS_mknodat, "mknodat"},
                                                            {SYS_fchownat, "fchownat"},
                                                            {SYS_unlinkat, "unlinkat"},
                                                            {SYS_symlinkat, "symlinkat"},
                                                            {SYS_fchmodat, "fchmodat"},
                                                            {SYS_faccessat, "faccessat"},
                                                            {SYS_newfstatat, "newfstatat"},
                                                            {SYS_statx, "statx"},
                                                            {SYS_unshare, "unshare"},
                                                            {SYS_setns, "setns"},
                                                            {SYS_dup3, "dup3"},
                                                            {SYS_prlimit64, "prlimit64"},
                                                            {SYS_memfd_create, "memfd_create"},
                                                            {SYS_getrandom, "getrandom"},
                                                            {SYS_clock_nanosleep, "clock_nanosleep"},
                                                            {SYS_futex, "futex"},
                                                            {SYS_open_tree, "open_tree"},
                                                            {SYS_move_mount, "move_mount"},
                                                            {SYS_fsopen, "fsopen"},
                                                            {SYS_fsconfig, "fsconfig"},
                                                            {SYS_fsmount, "fsmount"},
                                                            {SYS_mount_setattr, "mount_setattr"},
                                                            {SYS_openat2, "openat2"},
                                                            {SYS_close_range, "close_range"},
                                                            {SYS_pidfd_open, "pidfd_open"},
                                                            {SYS_pidfd_send_signal, "pidfd_send_signal"},
                                                            {SYS_epoll_ctl, "epoll_ctl"}};
    const auto found = names.find(number);
    return found != names.end() ? found->second : "system call " + std::to_string(number);
}

struct Tracee {
    std::optional<Role> role{};  // nothing: seen before its parent told of it
    bool waiting = false;        // stopped until its role is known
    std::uint64_t number = 0;    // of the system call that it is in
    bool replace = false;        // the result of that call
};

class Tracer {
public:
    Tracer(const Fault& fault, int seconds) : fault_{fault}, deadline_{Clock::now() + std::chrono::seconds{seconds}} {}

    Run run(const std::vector<std::string>& command) {
        start(command);
        tick(20'000);
        while (!tracees_.empty()) {
            int status = 0;
            const pid_t pid = ::waitpid(-1, &status, __WALL);
            if (pid < 0 && errno == EINTR) {
                on_tick();
                continue;
            }
            if (pid < 0) break;
            on_status(pid, status);
        }
        tick(0);
        collect();
        return std::move(run_);
    }

private:
    void start(const std::vector<std::string>& command) {
        output_.reset(static_cast<int>(::syscall(SYS_memfd_create, "output", 1u /* MFD_CLOEXEC */)));
        if (!output_) refuse("memfd_create");
        int go[2];
        if (::pipe2(go, O_CLOEXEC) != 0) refuse("pipe2");
        std::vector<char*> argv;
        for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
        argv.push_back(nullptr);
        host_ = ::fork();
        if (host_ < 0) refuse("fork");
        if (host_ == 0) {
            char byte = 0;
            (void)::dup2(output_.get(), 1);
            (void)::dup2(output_.get(), 2);
            (void)::close(go[1]);
            if (::read(go[0], &byte, 1) == 1) ::execv(argv[0], argv.data());
            ::_exit(127);
        }
        (void)::close(go[0]);
        constexpr long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                 PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
        if (::ptrace(PTRACE_SEIZE, host_, nullptr, options) != 0) {
            const int saved = errno;
            (void)::close(go[1]);
            (void)::waitpid(host_, nullptr, 0);
            errno = saved;
            refuse("ptrace");
        }
        tracees_[host_].role = Role::host;
        // Interrupted so that it is resumed by PTRACE_SYSCALL.
        (void)::ptrace(PTRACE_INTERRUPT, host_, nullptr, nullptr);
        (void)!::write(go[1], "x", 1);
        (void)::close(go[1]);
    }

    static void tick(int microseconds) {
        struct sigaction action {};
        action.sa_handler = [](int) {};  // without SA_RESTART, so that waitpid returns
        (void)::sigaction(SIGALRM, &action, nullptr);
        itimerval timer{{0, microseconds}, {0, microseconds}};
        (void)::setitimer(ITIMER_REAL, &timer, nullptr);
    }

    void on_tick() {
        const auto now = Clock::now();
        for (auto held = held_.begin(); held != held_.end();) {
            const auto [pid, until] = *held;
            if (now < until) {
                ++held;
                continue;
            }
            held = held_.erase(held);
            go_on(pid);
        }
        if (now < deadline_) return;
        if (!run_.hung) {
            for (const auto& [pid, tracee] : tracees_) {
                run_.still_there += std::string{to_string(tracee.role.value_or(Role::other))} + " (pid " +
                                    std::to_string(pid) + ") in " + name_of(tracee.number) + "; ";
            }
        }
        run_.hung = true;
        for (const auto& [pid, tracee] : tracees_) (void)::kill(pid, SIGKILL);
    }

    void go_on(pid_t pid, int signal = 0) {
        // What has its last role is only followed, not looked at.
        const auto found = tracees_.find(pid);
        if (found == tracees_.end()) return;
        const bool looked_at = found->second.role != Role::other || pid == host_;
        (void)::ptrace(looked_at ? PTRACE_SYSCALL : PTRACE_CONT, pid, nullptr, static_cast<long>(signal));
    }

    void on_status(pid_t pid, int status) {
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == host_) run_.status = status;
            // Killed before its parent told of it.
            if (const auto found = tracees_.find(pid); found != tracees_.end() && !found->second.role)
                gone_.insert(pid);
            tracees_.erase(pid);
            return;
        }
        if (!WIFSTOPPED(status)) return;
        Tracee& tracee = tracees_[pid];
        const int signal = WSTOPSIG(status);
        const int event = status >> 16;
        if (signal == (SIGTRAP | 0x80)) {
            on_system_call(pid, tracee);
            return;
        }
        switch (event) {
            case 0: go_on(pid, signal); return;
            case PTRACE_EVENT_FORK:
            case PTRACE_EVENT_VFORK:
            case PTRACE_EVENT_CLONE: on_child(pid, tracee); break;
            case PTRACE_EVENT_EXEC:
                if (tracee.role == Role::init) tracee.role = Role::other;
                if (tracee.role == Role::intermediate) tracee.role = Role::keeper;
                break;
            case PTRACE_EVENT_STOP:
                if (signal != SIGTRAP) {  // stopped by a signal: stays so until SIGCONT
                    (void)::ptrace(PTRACE_LISTEN, pid, nullptr, nullptr);
                    return;
                }
                if (!tracee.role) {
                    tracee.waiting = true;
                    return;
                }
                break;
            default: break;
        }
        go_on(pid);
    }

    void on_child(pid_t parent_pid, Tracee& parent) {
        unsigned long message = 0;
        (void)::ptrace(PTRACE_GETEVENTMSG, parent_pid, nullptr, &message);
        const auto pid = static_cast<pid_t>(message);
        if (gone_.erase(pid) > 0) return;
        Role role = Role::other;
        if (parent.role == Role::host && inside_) role = Role::intermediate;
        if (parent.role == Role::intermediate) role = Role::intermediate;
        if (parent.role == Role::keeper || parent.role == Role::init) role = Role::init;
        Tracee& child = tracees_[pid];
        child.role = role;
        if (std::exchange(child.waiting, false)) go_on(pid);
    }

    void on_system_call(pid_t pid, Tracee& tracee) {
        __ptrace_syscall_info info{};
        (void)::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            tracee.number = info.entry.nr;
            ++run_.seen;
            if (tracee.number == SYS_prctl && info.entry.args[0] == inject_marker) {
                inside_ = info.entry.args[1] == 1;
            } else if (on_entry(pid, tracee, info.entry.args[0])) {
                return;
            }
        } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && std::exchange(tracee.replace, false)) {
            user_regs_struct regs{};
            (void)::ptrace(PTRACE_GETREGS, pid, nullptr, &regs);
            regs.rax = static_cast<unsigned long long>(-static_cast<long long>(fault_.errnum));
            (void)::ptrace(PTRACE_SETREGS, pid, nullptr, &regs);
        }
        go_on(pid);
    }

    /// True if the process is not to go on by itself.
    bool on_entry(pid_t pid, Tracee& tracee, std::uint64_t argument) {
        const Role role = tracee.role.value_or(Role::other);
        if (role == Role::other || (role == Role::host && !inside_) || cannot_fail(tracee.number)) return false;
        if (role != Role::host && name_of(tracee.number) == fault_.slow) {
            hold(pid, fault_.milliseconds / 3);
            return true;
        }
        if (role == fault_.role && !fault_.only.empty() && name_of(tracee.number) != fault_.only) return false;
        const long count = ++run_.calls[static_cast<std::size_t>(role)];
        if (fault_.action == Fault::Action::none || role != fault_.role || count != fault_.call) return false;
        run_.hit = name_of(tracee.number);
        if (tracee.number == SYS_prctl) run_.hit += ' ' + std::to_string(argument);
        switch (fault_.action) {
            case Fault::Action::none: return false;
            case Fault::Action::fail:
                tracee.replace = true;
                if (tracee.number != SYS_close) {
                    user_regs_struct regs{};
                    (void)::ptrace(PTRACE_GETREGS, pid, nullptr, &regs);
                    regs.orig_rax = ~0ull;  // no such call: the kernel does nothing
                    (void)::ptrace(PTRACE_SETREGS, pid, nullptr, &regs);
                }
                return false;
            case Fault::Action::kill: (void)::kill(pid, SIGKILL); return true;
            case Fault::Action::hold: hold(pid, fault_.milliseconds); return true;
        }
        return false;
    }
    void hold(pid_t pid, int milliseconds) { held_[pid] = Clock::now() + std::chrono::milliseconds{milliseconds}; }

    void collect() {
        char buffer[4096];
        off_t at = 0;
        for (ssize_t n; (n = ::pread(output_.get(), buffer, sizeof buffer, at)) > 0; at += n) {
            run_.output.append(buffer, static_cast<std::size_t>(n));
        }
    }

    Fault fault_;
    Clock::time_point deadline_;
    std::map<pid_t, Tracee> tracees_{};
    std::set<pid_t> gone_{};
    pid_t host_ = -1;
    std::map<pid_t, Clock::time_point> held_{};
    bool inside_ = false;
    caisson::Fd output_{};
    Run run_{};
};

}  // namespace

const char* inject_missing() {
    if (::geteuid() != 0) return "needs root";
    static const char* const reason = [] {
        try {
            const Run run = inject({"/bin/true"}, {}, 5);
            if (run.status == 0 && run.seen > 0) return static_cast<const char*>(nullptr);
            if (run.status == 0) return "ptrace(2) does not tell here which system call is made";
        } catch (const std::runtime_error&) {
        }
        return "ptrace(2) is not permitted";
    }();
    return reason;
}

Run inject(const std::vector<std::string>& command, const Fault& fault, int seconds) {
    return Tracer{fault, seconds}.run(command);
}

#endif

}  // namespace caisson_test
