// helper/lock_down.cpp - what a helper that has no start to make any more keeps itself from.
#include "lock_down.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/consoles.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson_helper {
namespace {

constexpr std::uint64_t look = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t write = LANDLOCK_ACCESS_FS_WRITE_FILE;
constexpr std::uint64_t truncate = std::uint64_t{1} << 14;  // needed until the oldest headers know Linux 6.2
constexpr std::uint64_t of_first_version = (std::uint64_t{1} << 13) - 1;

/// What may be opened. Where the kernel has no Landlock, all of this does nothing.
class OpenRules {
public:
    OpenRules() {
        const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
        if (version < 1) return;
        handled_ = of_first_version | (version >= 2 ? std::uint64_t{LANDLOCK_ACCESS_FS_REFER} : 0) |
                   (version >= 3 ? truncate : 0);
        // The first field alone: the others came later, and are for what the filter refuses altogether.
        const std::uint64_t attributes = handled_;
        rules_ = Fd{static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0))};
    }
    void allow(int directory, std::uint64_t access) {
        landlock_path_beneath_attr rule{};
        rule.allowed_access = access & handled_;
        rule.parent_fd = directory;
        if (!rules_ || directory < 0) return;
        if (::syscall(SYS_landlock_add_rule, rules_.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
            detail::fail(Step::helper, "landlock rule");
        }
    }
    /// What is not there cannot be opened either.
    void allow(const std::string& path, std::uint64_t access) {
        const Fd fd = detail::sys::open(path, O_PATH);
        allow(fd.get(), access);
    }
    void enforce() {
        if (rules_ && ::syscall(SYS_landlock_restrict_self, rules_.get(), 0) != 0 && errno != E2BIG) {
            detail::fail(Step::helper, "landlock rules");
        }
    }

private:
    std::uint64_t handled_ = 0;
    Fd rules_;
};

/// The files alone: whoever could rename a log could write to all that is in its directory, or below.
void allow_logs(OpenRules& rules, const ContainerSpec& spec) {
    const auto allow = [&](const ConsoleSpec& console) {
        if (console.log.empty()) return;
        rules.allow(console.log, LANDLOCK_ACCESS_FS_READ_FILE | write | truncate);
        if (console.log_limit == 0) return;
        const Fd old = detail::open_old_log(console);
        rules.allow(old.get(), write | truncate);
    };
    if (spec.console) allow(*spec.console);
    for (const ConsoleSpec& console : spec.more_consoles) allow(console);
}

void restrict_opens(const RunDirectory& place, const ContainerSpec& spec) {
    OpenRules rules;
    rules.allow(place.run(), LANDLOCK_ACCESS_FS_REMOVE_DIR);
    rules.allow(place.directory(), look | LANDLOCK_ACCESS_FS_REMOVE_FILE);
    for (const char* path : {"/proc", "/sys"}) rules.allow(path, look);
    for (const char* path : {"/dev/null", "/dev/ptmx"}) rules.allow(path, LANDLOCK_ACCESS_FS_READ_FILE | write);
    rules.allow("/dev/pts", look | write);
    for (const detail::CgroupHierarchy& hierarchy : detail::cgroup_hierarchies()) {
        for (const detail::CgroupPlace& one : hierarchy.places) {
            rules.allow(one.mount_point, look | write | truncate | LANDLOCK_ACCESS_FS_REMOVE_DIR);
        }
    }
    allow_logs(rules, spec);
    rules.enforce();
}

constexpr std::uint32_t allowed[] = {
    // Files that it has, or may open.
    __NR_read,
    __NR_write,
    __NR_readv,
    __NR_writev,
    __NR_pread64,
    __NR_pwrite64,
    __NR_close,
    __NR_close_range,
    __NR_lseek,
    __NR_fcntl,
    __NR_flock,
    __NR_ftruncate,
    __NR_fallocate,
    __NR_ioctl,
    __NR_openat,
    __NR_openat2,
    __NR_fstat,
    __NR_newfstatat,
    __NR_statx,
    __NR_fstatfs,
    __NR_statfs,
    __NR_faccessat,
    __NR_faccessat2,
    __NR_readlinkat,
    __NR_getdents64,
    __NR_unlinkat,
    __NR_renameat,
    __NR_renameat2,
    __NR_getcwd,
    __NR_dup,
    __NR_dup3,
    __NR_memfd_create,
    __NR_pipe2,
    // Waiting.
    __NR_ppoll,
    __NR_pselect6,
    __NR_epoll_create1,
    __NR_epoll_ctl,
    __NR_epoll_pwait,
    __NR_eventfd2,
    __NR_timerfd_create,
    __NR_timerfd_settime,
    __NR_timerfd_gettime,
    __NR_inotify_init1,
    __NR_inotify_add_watch,
    __NR_inotify_rm_watch,
    __NR_clock_gettime,
    __NR_clock_getres,
    __NR_clock_nanosleep,
    __NR_nanosleep,
    __NR_gettimeofday,
    __NR_futex,
    __NR_restart_syscall,
    __NR_sched_yield,
    // Clients, viewers and the container's links: all sockets that it has.
    __NR_accept4,
    __NR_socketpair,
    __NR_sendmsg,
    __NR_recvmsg,
    __NR_sendto,
    __NR_recvfrom,
    __NR_shutdown,
    __NR_getsockopt,
    __NR_setsockopt,
    __NR_getsockname,
    __NR_getpeername,
    // The container's processes.
    __NR_pidfd_open,
    __NR_pidfd_send_signal,
    __NR_waitid,
    // Itself.
    __NR_brk,
    __NR_munmap,
    __NR_mremap,
    __NR_madvise,
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_rt_sigreturn,
    __NR_sigaltstack,
    __NR_getpid,
    __NR_gettid,
    __NR_getppid,
    __NR_getuid,
    __NR_geteuid,
    __NR_getgid,
    __NR_getegid,
    __NR_getrandom,
    __NR_sysinfo,
    __NR_uname,
    __NR_sched_getaffinity,
    __NR_rseq,
    __NR_exit,
    __NR_exit_group,
#ifdef __x86_64__
    // What aarch64 has only in a newer form.
    __NR_poll,
    __NR_select,
    __NR_epoll_wait,
    __NR_access,
    __NR_stat,
    __NR_lstat,
    __NR_readlink,
    __NR_time,
    __NR_getrlimit,
    __NR_open,
    __NR_unlink,
    __NR_rmdir,
    __NR_rename,
    __NR_dup2,
#endif
};

#ifdef __x86_64__
constexpr std::uint32_t architecture = AUDIT_ARCH_X86_64;
#else
constexpr std::uint32_t architecture = AUDIT_ARCH_AARCH64;
#endif

sock_filter load(std::size_t offset) {
    return {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
}
/// The lower half comes first.
std::size_t argument(std::size_t index, bool upper_half = false) {
    return offsetof(seccomp_data, args) + 8 * index + (upper_half ? 4 : 0);
}

}  // namespace

std::vector<sock_filter> loop_filter() {
    const sock_filter pass{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    // Not killed: what was forgotten here is an error that somebody reports, and no container's death.
    const sock_filter refuse{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM};
    constexpr std::uint32_t x32 = 0x40000000;
    std::vector<sock_filter> program{
        load(offsetof(seccomp_data, arch)), {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, architecture}, refuse,
        load(offsetof(seccomp_data, nr)),   {BPF_JMP | BPF_JGE | BPF_K, 0, 1, x32},          refuse};
    for (const int call : {__NR_mmap, __NR_mprotect}) {
        program.insert(program.end(), {{BPF_JMP | BPF_JEQ | BPF_K, 0, 4, static_cast<std::uint32_t>(call)},
                                       load(argument(2)),
                                       {BPF_JMP | BPF_JSET | BPF_K, 0, 1, PROT_EXEC},
                                       refuse,
                                       pass});
    }
    // Limits are looked at only.
    program.insert(program.end(), {{BPF_JMP | BPF_JEQ | BPF_K, 0, 6, __NR_prlimit64},
                                   load(argument(2)),
                                   {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, 0},
                                   load(argument(2, true)),
                                   {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0},
                                   pass,
                                   refuse});
    for (const std::uint32_t call : allowed) {
        program.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, call});
        program.push_back(pass);
    }
    program.push_back(refuse);
    return program;
}

void lock_down(const RunDirectory& place, const ContainerSpec& spec) {
    restrict_opens(place, spec);
    std::vector<sock_filter> filter = loop_filter();
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    // EINVAL and ENOSYS: a kernel without filters.
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0 && errno != EINVAL && errno != ENOSYS) {
        detail::fail(Step::helper, "system call filter of the helper");
    }
}

}  // namespace caisson_helper
