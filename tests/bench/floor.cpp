// See floor.hpp. Linux system calls by number, so that the child, which shares the memory, touches no libc.
#include "floor.hpp"

#include <cerrno>
#include <stdexcept>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/filter.hpp>
#include <caisson/detail/id_range.hpp>

#include "../../src/stage/syscall.hpp"

namespace caisson_bench {
namespace {

using stage::call;

constexpr std::uint32_t first_id = 0x6f000000;

long must(long result, const char* what) {
    if (result >= 0) return result;
    const long error = result == -1 ? errno : -result;
    throw std::runtime_error{std::string{"floor: "} + what + ": errno " + std::to_string(error)};
}

/// clone3(2) with a stack of the child's own, on which it calls `main(argument)`.
long clone3_on_stack(clone_args& args, int (*main)(void*), void* argument) {
    long result;
#if defined(__x86_64__)
    register auto r12 asm("r12") = main;
    register auto r13 asm("r13") = argument;
    asm volatile("syscall\n test %%rax, %%rax\n jnz 1f\n xor %%ebp, %%ebp\n mov %%r13, %%rdi\n call *%%r12\n ud2\n1:"
                 : "=a"(result)
                 : "a"(static_cast<long>(SYS_clone3)), "D"(&args), "S"(sizeof args), "r"(r12), "r"(r13)
                 : "rcx", "r11", "memory");
#else
    register long x8 asm("x8") = SYS_clone3;
    register auto x0 asm("x0") = reinterpret_cast<long>(&args);
    register long x1 asm("x1") = sizeof args;
    register auto x19 asm("x19") = main;
    register auto x20 asm("x20") = argument;
    asm volatile("svc 0\n cbnz x0, 1f\n mov x29, #0\n mov x0, x20\n blr x19\n brk #1\n1:"
                 : "+r"(x0)
                 : "r"(x8), "r"(x1), "r"(x19), "r"(x20)
                 : "memory");
    result = x0;
#endif
    return result;
}

int new_mount(const char* type, std::initializer_list<std::pair<const char*, std::string>> options,
              unsigned attributes) {
    const int context = static_cast<int>(must(::fsopen(type, FSOPEN_CLOEXEC), type));
    for (const auto& [key, value] : options) {
        if (value.empty()) must(::fsconfig(context, FSCONFIG_SET_FLAG, key, nullptr, 0), key);
        else must(::fsconfig(context, FSCONFIG_SET_STRING, key, value.c_str(), 0), key);
    }
    must(::fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "create");
    const auto made = static_cast<int>(must(::fsmount(context, FSMOUNT_CLOEXEC, attributes), "fsmount"));
    ::close(context);
    return made;
}

void write_file(const std::string& path, const std::string& text) {
    const int fd = static_cast<int>(must(::open(path.c_str(), O_WRONLY | O_CLOEXEC), path.c_str()));
    must(::write(fd, text.data(), text.size()), path.c_str());
    ::close(fd);
}

}  // namespace

Floor::Floor(std::string root) : root_{std::move(root)}, name_{"bench-floor." + std::to_string(::gettid())} {
    for (const auto& hierarchy : caisson::detail::cgroup_hierarchies()) {
        auto parent = caisson::detail::open_cgroup_parent(hierarchy, "");
        if (!parent.directory) continue;
        const bool cpuset = caisson::detail::list_has(hierarchy.controllers, "cpuset");
        if (cpuset) {
            (void)caisson::detail::sys::read_file(parent.directory.get(), "cpuset.cpus", cpus_);
            (void)caisson::detail::sys::read_file(parent.directory.get(), "cpuset.mems", mems_);
        }
        const bool devices = caisson::detail::list_has(hierarchy.controllers, "devices");
        hierarchies_.push_back({parent.path, parent.directory.release(), hierarchy.v2(), cpuset, devices, -1, -1});
    }
    null_ = static_cast<int>(must(::open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null"));
    filter_ = caisson::detail::filter_program({});
}

Floor::~Floor() {
    for (const Hierarchy& h : hierarchies_) {
        (void)::unlinkat(h.parent, name_.c_str(), AT_REMOVEDIR);  // only after a failure is it there
        ::close(h.parent);
    }
    ::close(null_);
}

void Floor::make_group() {
    for (Hierarchy& h : hierarchies_) {
        must(::mkdirat(h.parent, name_.c_str(), 0755), "mkdir");
        if (h.cpuset) {
            write_file(h.path + "/" + name_ + "/cpuset.cpus", cpus_);
            write_file(h.path + "/" + name_ + "/cpuset.mems", mems_);
        }
        if (h.devices) {
            const std::string group = h.path + "/" + name_;
            write_file(group + "/devices.deny", "a");
            for (const char* rule : {"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm",
                                     "c 5:2 rwm", "c 136:* rwm"}) {
                write_file(group + "/devices.allow", rule);
            }
        }
        if (h.v2) {
            h.directory = static_cast<int>(must(::openat(h.parent, name_.c_str(), O_PATH | O_CLOEXEC), "group"));
        } else {
            h.tasks =
                static_cast<int>(must(::openat(h.parent, (name_ + "/tasks").c_str(), O_WRONLY | O_CLOEXEC), "tasks"));
        }
    }
}

void Floor::make_devices() {
    devices_ = new_mount(
        "tmpfs",
        {{"size", "65536"}, {"mode", "0755"}, {"uid", std::to_string(first_id)}, {"gid", std::to_string(first_id)}},
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    terminals_ = new_mount(
        "devpts", {{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", std::to_string(first_id + 5)}},
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    const auto own = [&](const char* name) {
        must(::fchownat(devices_, name, first_id, first_id, AT_SYMLINK_NOFOLLOW), "chown");
    };
    struct Node {
        const char* name;
        unsigned major, minor;
    };
    for (const Node& n : {Node{"null", 1, 3}, Node{"zero", 1, 5}, Node{"full", 1, 7}, Node{"random", 1, 8},
                          Node{"urandom", 1, 9}, Node{"tty", 5, 0}}) {
        must(::mknodat(devices_, n.name, S_IFCHR, ::makedev(n.major, n.minor)), n.name);
        must(::fchmodat(devices_, n.name, 0666, 0), n.name);
        own(n.name);
    }
    for (const auto& [name, target] : {std::pair{"fd", "/proc/self/fd"}, std::pair{"stdin", "/proc/self/fd/0"},
                                       std::pair{"stdout", "/proc/self/fd/1"}, std::pair{"stderr", "/proc/self/fd/2"},
                                       std::pair{"ptmx", "pts/ptmx"}}) {
        must(::symlinkat(target, devices_, name), name);
    }
    for (const char* name : {"pts", "shm", "mqueue"}) must(::mkdirat(devices_, name, 0755), name);
}

void Floor::write_maps(int pid) {
    const std::string proc = "/proc/" + std::to_string(pid);
    const std::string map = "0 " + std::to_string(first_id) + " 65536\n";
    write_file(proc + "/uid_map", map);
    write_file(proc + "/gid_map", map);
    const int user = static_cast<int>(must(::open((proc + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC), "ns/user"));
    mount_attr attr{};
    attr.attr_set = MOUNT_ATTR_IDMAP;
    attr.userns_fd = static_cast<std::uint64_t>(user);
    must(::mount_setattr(tree_, "", AT_EMPTY_PATH, &attr, sizeof attr), "id map of the root");
    ::close(user);
}

int Floor::child(void* argument) {
    auto& self = *static_cast<Floor*>(argument);
    const auto step = [&](const char* name, long result) {
        if (result >= 0) return result;
        self.failed_ = name;
        for (;;) call(__NR_exit, 1);
    };
    // What needs no id map is done while the parent writes it.
    for (const Hierarchy& h : self.hierarchies_) {
        if (h.tasks >= 0) step("tasks", call(__NR_write, h.tasks, "0", 1));
    }
    step("cgroup namespace", call(__NR_unshare, CLONE_NEWCGROUP));
    char byte = 0;
    step("go", call(__NR_read, self.go_[0], &byte, 1));
    step("setresgid", call(__NR_setresgid, 0, 0, 0));
    step("setresuid", call(__NR_setresuid, 0, 0, 0));
    const long lo = step("socket", call(__NR_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    request.ifr_name[0] = 'l';
    request.ifr_name[1] = 'o';
    request.ifr_flags = IFF_UP;
    step("lo up", call(__NR_ioctl, lo, SIOCSIFFLAGS, &request));
    step("hostname", call(__NR_sethostname, "floor", 5));
    mount_attr attr{};
    attr.propagation = MS_PRIVATE;
    step("private", call(__NR_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr));
    constexpr unsigned nothing_runs = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    const auto filesystem = [&](const char* type) {
        const long context = step(type, call(__NR_fsopen, type, FSOPEN_CLOEXEC));
        step(type, call(__NR_fsconfig, context, static_cast<int>(FSCONFIG_CMD_CREATE), nullptr, nullptr, 0));
        return step(type, call(__NR_fsmount, context, FSMOUNT_CLOEXEC, nothing_runs));
    };
    const auto cover = [&](const char* path, long source, const char* below, unsigned attributes) {
        const long tree =
            call(__NR_open_tree, source, below, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);
        if (tree < 0) return;  // not on this machine
        mount_attr attributes_of_it{};
        attributes_of_it.attr_set = attributes;
        step(path, call(__NR_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes_of_it, sizeof attributes_of_it));
        step(path, call(__NR_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH));
        call(__NR_close, tree);
    };
    const long proc = filesystem("proc");
    const long shm = filesystem("tmpfs");
    const long mqueue = filesystem("mqueue");
    step("move root", call(__NR_move_mount, self.tree_, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
    step("fchdir", call(__NR_fchdir, self.tree_));
    step("pivot_root", call(__NR_pivot_root, ".", "."));
    step("detach", call(__NR_umount2, ".", MNT_DETACH));
    step("chdir", call(__NR_chdir, "/"));
    step("move proc", call(__NR_move_mount, proc, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH));
    step("move dev", call(__NR_move_mount, self.devices_, "", AT_FDCWD, "/dev", MOVE_MOUNT_F_EMPTY_PATH));
    step("move pts", call(__NR_move_mount, self.terminals_, "", AT_FDCWD, "/dev/pts", MOVE_MOUNT_F_EMPTY_PATH));
    step("move shm", call(__NR_move_mount, shm, "", AT_FDCWD, "/dev/shm", MOVE_MOUNT_F_EMPTY_PATH));
    step("move mqueue", call(__NR_move_mount, mqueue, "", AT_FDCWD, "/dev/mqueue", MOVE_MOUNT_F_EMPTY_PATH));
    for (const char* path :
         {"/proc/bus", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}) {
        cover(path, AT_FDCWD, path, MOUNT_ATTR_RDONLY);
    }
    const long empty = filesystem("tmpfs");
    step("masks", call(__NR_mknodat, empty, "file", S_IFREG | 0444, 0));
    step("masks", call(__NR_mkdirat, empty, "directory", 0555));
    step("masks", call(__NR_move_mount, empty, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
    for (const char* path :
         {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"}) {
        struct stat status {};
        if (call(__NR_newfstatat, AT_FDCWD, path, &status, 0) != 0) continue;
        cover(path, empty, S_ISDIR(status.st_mode) ? "directory" : "file", nothing_runs | MOUNT_ATTR_RDONLY);
    }
    step("masks", call(__NR_fchdir, empty));
    step("masks", call(__NR_umount2, ".", MNT_DETACH));
    step("masks", call(__NR_chdir, "/"));
    step("setsid", call(__NR_setsid));
    const std::uint64_t no_core[]{0, 0};
    const std::uint64_t files[]{1024, 1024};
    step("limits", call(__NR_prlimit64, 0, 4, no_core, nullptr));
    step("limits", call(__NR_prlimit64, 0, 7, files, nullptr));
    for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
        if (capability > 10) call(__NR_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0);
    }
    step("setgroups", call(__NR_setgroups, 0, nullptr));
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    data[0].permitted = data[0].effective = 0x7ff;
    step("capset", call(__NR_capset, &header, data));
    step("no_new_privs", call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    for (int fd = 0; fd < 3; ++fd) step("dup3", call(__NR_dup3, self.null_, fd, 0));
    sock_fprog filter{static_cast<unsigned short>(self.filter_.size()),
                      reinterpret_cast<sock_filter*>(self.filter_.data())};
    if (filter.len > 0) step("seccomp", call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
    char program[] = "/stamp";
    char* argv[] = {program, nullptr};
    char* envp[] = {nullptr};
    step("execve", call(__NR_execve, program, argv, envp));
    return 0;
}

void Floor::run() {
    make_group();
    tree_ = static_cast<int>(must(::open_tree(AT_FDCWD, root_.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), "root"));
    make_devices();
    must(::pipe2(go_, O_CLOEXEC), "pipe");
    clone_args args{};
    int pidfd = -1;
    args.flags = CLONE_VM | CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
                 CLONE_NEWUSER;
    args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
    args.exit_signal = SIGCHLD;
    args.stack = reinterpret_cast<std::uint64_t>(stack_);
    args.stack_size = sizeof stack_;
    for (const Hierarchy& h : hierarchies_) {
        if (!h.v2) continue;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = static_cast<std::uint64_t>(h.directory);
    }
    failed_ = nullptr;
    const long pid = must(clone3_on_stack(args, child, this), "clone3");
    write_maps(static_cast<int>(pid));
    must(::write(go_[1], "", 1), "go");
    siginfo_t info{};
    must(::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED), "waitid");
    if (failed_ != nullptr || info.si_status != 0) {
        throw std::runtime_error{std::string{"floor, in the child: "} + (failed_ != nullptr ? failed_ : "the stamp")};
    }
    for (auto h = hierarchies_.rbegin(); h != hierarchies_.rend(); ++h) {
        while (::unlinkat(h->parent, name_.c_str(), AT_REMOVEDIR) != 0) must(errno == EBUSY ? 0 : -1, "rmdir");
        ::close(h->v2 ? h->directory : h->tasks);
    }
    for (const int fd : {tree_, devices_, terminals_, go_[0], go_[1], pidfd}) ::close(fd);
}

}  // namespace caisson_bench
