// src/seccomp/profiles.hpp - what the two profiles allow, by the kernel's names; read by generate.cpp at build time.
// Names of all architectures stand together: what one does not have is left out there.
#pragma once

#include <string_view>
#include <vector>

namespace caisson::inline v0::seccomp {

/// What every program may call. Not here, on purpose: what makes mounts and namespaces, keys (they are not namespaced),
/// what looks into the kernel or other programs' memory beyond ptrace(2), io_uring, whose requests no filter sees, and
/// what the kernel keeps for programs of the last century.
inline constexpr std::string_view application =
    "_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind "
    "brk cachestat capget capset chdir chmod chown chown32 chroot clock_adjtime "
    "clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep "
    "clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create "
    "epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group "
    "faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown "
    "fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork "
    "fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex "
    "futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area "
    "getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 "
    "getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid "
    "getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr "
    "getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents "
    "io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule "
    "landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount "
    "listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules "
    "lsm_set_self_attr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir "
    "mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open "
    "mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget "
    "msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat nice open openat openat2 "
    "pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl "
    "pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 "
    "ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg "
    "recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall "
    "rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min "
    "sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
    "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield "
    "seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg "
    "sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid "
    "setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 "
    "setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat "
    "shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask "
    "sigreturn sigsuspend socket socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink "
    "symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun "
    "timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 "
    "timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat "
    "utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// What `system` allows as well, for an init: mounts, namespaces, keys of its own session, host name, quotas.
inline constexpr std::string_view system =
    "add_key clone clone3 fanotify_init fsconfig fsmount fsopen fspick get_mempolicy kcmp keyctl mbind "
    "migrate_pages mount mount_setattr move_mount move_pages open_tree open_tree_attr personality pidfd_getfd "
    "pivot_root process_madvise quotactl quotactl_fd request_key set_mempolicy set_mempolicy_home_node "
    "setdomainname sethostname setns umount umount2 unshare vhangup";

/// What is allowed in both profiles where the bounding set has the capability that the kernel asks for anyway: the
/// filter then does not take away what the spec gave. Mounts and namespaces are not here: `application` never has them.
struct OfCapability {
    std::string_view capability;
    std::string_view call;
};
inline constexpr OfCapability of_capability[] = {
    {"bpf", "bpf"},
    {"perfmon", "perf_event_open"},
    {"sys_admin", "fanotify_init"},
    {"sys_admin", "setdomainname"},
    {"sys_admin", "sethostname"},
    {"sys_boot", "reboot"},
    {"sys_module", "delete_module"},
    {"sys_module", "finit_module"},
    {"sys_module", "init_module"},
    {"sys_nice", "get_mempolicy"},
    {"sys_nice", "mbind"},
    {"sys_nice", "migrate_pages"},
    {"sys_nice", "move_pages"},
    {"sys_nice", "set_mempolicy"},
    {"sys_nice", "set_mempolicy_home_node"},
    {"sys_pacct", "acct"},
    {"sys_ptrace", "kcmp"},
    {"sys_ptrace", "pidfd_getfd"},
    {"sys_ptrace", "process_madvise"},
    {"sys_rawio", "ioperm"},
    {"sys_rawio", "iopl"},
    {"sys_time", "clock_settime"},
    {"sys_time", "clock_settime64"},
    {"sys_time", "settimeofday"},
    {"sys_time", "stime"},
    {"sys_tty_config", "vhangup"},
    {"syslog", "syslog"},
};

/// The single names of a list above.
[[nodiscard]] inline std::vector<std::string_view> names(std::string_view list) {
    std::vector<std::string_view> all;
    while (!list.empty()) {
        const std::size_t end = list.find(' ');
        all.push_back(list.substr(0, end));
        list.remove_prefix(end == std::string_view::npos ? list.size() : end + 1);
    }
    return all;
}
[[nodiscard]] inline bool in_list(std::string_view list, std::string_view name) {
    for (const std::string_view one : names(list)) {
        if (one == name) return true;
    }
    return false;
}

}  // namespace caisson::inline v0::seccomp
