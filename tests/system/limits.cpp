// Starts where something is missing, used up or in the way: each works or says what to do, and leaves nothing.
#include <caisson/container.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/mount.hpp>
#include <caisson/probe.hpp>

#include <initializer_list>
#include <string>
#include <vector>

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/sanitizer.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

/// In a forked host: a mount namespace of its own.
bool own_mounts() {
    return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}
bool bind_to(const std::string& from, const std::string& to) {
    return ::mount(from.c_str(), to.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0;
}
bool write(const char* path, std::string_view text) {
    return detail::sys::write_file(AT_FDCWD, path, text);
}
void limit(int resource, rlim_t value) {
    rlimit old{};
    (void)::getrlimit(static_cast<__rlimit_resource>(resource), &old);
    old.rlim_cur = value;
    (void)::setrlimit(static_cast<__rlimit_resource>(resource), &old);
}
/// `outcome` in a host of its own that is as `prepare` makes it; what it leaves is told behind " LEFT: ".
template <class Prepare>
std::string outcome_in_host(const ContainerSpec& spec, Prepare&& prepare) {
    return in_host([&]() -> std::string {
        if (!prepare()) return "SKIP: " + std::system_category().message(errno);
        const int before = open_descriptors();
        std::string text = outcome(spec);
        if (open_descriptors() != before) text += " LEFT: descriptors";
        if (!groups_vanish(::getpid())) text += " LEFT: " + groups_of(::getpid()).front();
        return text;
    });
}
/// Needs the fewest rights: no devices, no groups.
ContainerSpec bare(const TestRoot& root) {
    ContainerSpec spec = shell(root, "true");
    spec.dev = spec.sys = spec.proc = spec.cgroup = false;
    spec.console.reset();
    return spec;
}

}  // namespace

TEST_CASE("a host in a chroot starts containers from below it, which see nothing else") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot jail;
    const TestRoot root;
    for (const bool mount_point : {false, true}) {
        for (const bool user : {false, true}) {
            CAPTURE(mount_point);
            CAPTURE(user);
            ContainerSpec spec = shell("/tmp", "sleep 1000");
            if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
            const std::string text = in_host([&]() -> std::string {
                if (!own_mounts()) return "no mounts";
                if (mount_point && !bind_to(jail.path(), jail.path())) return "no bind";
                for (const char* path : {"/proc", "/sys", "/dev"}) {
                    if (!bind_to(path, jail / path)) return std::string{"no bind of "} + path;
                }
                if (!bind_to(root.path(), jail / "/tmp")) return "no bind of the root";
                if (::chroot(jail.path().c_str()) != 0 || ::chdir("/") != 0) return "no chroot";
                struct stat wanted {};
                (void)::stat("/tmp", &wanted);
                const Container container = Container::start(spec);
                // Joining sets the root to the top of the namespace's mounts: there must be no more than the
                // container's.
                return Host{[&](const Host&) -> std::string {
                           if (::setns(container.init().pidfd(), CLONE_NEWNS) != 0) return "no setns";
                           struct stat top {};
                           if (::stat("/", &top) != 0) return "no stat";
                           return top.st_ino == wanted.st_ino && top.st_dev == wanted.st_dev ? "alone"
                                                                                             : "the host is above";
                       }}
                    .text();
            });
            CHECK(text == "alone");
        }
    }
}

TEST_CASE("the host's working directory and umask mean nothing to a container") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "test $(pwd) = / && test $(umask) = 0022 && test -c /dev/null && test -d /dev/pts && "
                               "echo x > /dev/null");
    spec.mounts.push_back(MountSpec::tmpfs("/new/below", 4096));
    CHECK(outcome_in_host(spec, [] { return ::umask(077) == 022 && ::chdir("/usr") == 0; }) == "ok");
    struct stat st {};
    REQUIRE(::stat((root / "/new").c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0755);
    CHECK(outcome_in_host(spec, [&] {
              const TestDirectory gone;
              return ::chdir(gone.path().c_str()) == 0;
          }) == "ok");
}

TEST_CASE("a host without standard descriptors starts containers") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool console : {true, false}) {
        ContainerSpec spec = shell(root, "read line; echo x && echo x >&2; test $(ls /proc/self/fd | wc -l) = 4");
        if (!console) spec.console.reset();
        if (console) spec.command[2] = "tty && echo x";
        CHECK(outcome_in_host(spec, [] { return ::close(0) == 0 && ::close(1) == 0 && ::close(2) == 0; }) == "ok");
    }
}

TEST_CASE("with any limit on descriptors a start works or says so, and leaves nothing") {
    if (const char* reason = why_it_keeps_descriptors()) CAISSON_SKIP(reason);
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool net : {false, true}) {
        bool worked = false;
        int refused = 0;
        for (rlim_t most = 3; most <= 120 && !worked; ++most) {
            CAPTURE(most);
            ContainerSpec spec = shell(root, "true");
            if (net) spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
            const std::string text = in_host([&]() -> std::string {
                for (int fd = 3; fd < 64; ++fd) {
                    struct stat st {};
                    // All but the pipe to the test, which is moved down to where it fits.
                    if (::fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode)) (void)::close(fd);
                }
                const int before = open_descriptors();
                limit(RLIMIT_NOFILE, most);
                std::string said = outcome(spec);
                limit(RLIMIT_NOFILE, 1024);
                if (open_descriptors() != before) said += " LEFT: descriptors";
                if (!groups_vanish(::getpid())) said += " LEFT: " + groups_of(::getpid()).front();
                return said;
            });
            worked = text == "ok";
            if (worked) continue;
            ++refused;
            CAPTURE(text);
            CHECK(has(text, "Too many open files: no descriptor is left: raise 'ulimit -n'"));
            CHECK_FALSE(has(text, "LEFT"));
        }
        CHECK(worked);
        CHECK(refused > 10);
    }
}

TEST_CASE("a limit on the size of files makes the start fail, not the host") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string text = outcome_in_host(shell(root, "true"), [] {
        limit(RLIMIT_FSIZE, 0);
        return true;
    });
    CHECK(text ==
          "container 'test': the stage's program in memory: File too large: the limit on the size of files "
          "(RLIMIT_FSIZE) is 0 bytes: raise 'ulimit -f'");
}

TEST_CASE("whatever the host does with its signals, a start works and the payload has none of it") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "");
    spec.command = {"/bin/grep", "-q", "SigBlk:.0000000000000000", "/proc/self/status"};
    CHECK(outcome_in_host(spec, [] {
              sigset_t all;
              (void)::sigfillset(&all);
              return ::sigprocmask(SIG_SETMASK, &all, nullptr) == 0;
          }) == "ok");
    spec.command[2] = "SigIgn:.0000000000000000";
    CHECK(outcome_in_host(spec, [] {
              for (int signal = 1; signal < 65; ++signal) (void)::signal(signal, SIG_IGN);
              return true;
          }) == "ok");
}

TEST_CASE("a timer's signal a thousand times a second does not disturb starts") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string text = in_host([&]() -> std::string {
        struct sigaction action {};
        action.sa_handler = [](int) {};  // without SA_RESTART
        (void)::sigaction(SIGALRM, &action, nullptr);
        const itimerval often{{0, 1000}, {0, 1000}};
        (void)::setitimer(ITIMER_REAL, &often, nullptr);
        // Emulated, a machine would take minutes for all.
        const std::int64_t enough = detail::monotonic_ms() + 60'000;
        for (int i = 0; i < 200 && detail::monotonic_ms() < enough; ++i) {
            ContainerSpec spec = shell(root, "exit 0");
            if (i % 4 == 0) spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
            const std::string how = outcome(spec);
            if (how != "ok") return "start " + std::to_string(i) + ": " + how;
        }
        return "ok";
    });
    CHECK(text == "ok");
}

TEST_CASE(
    "a parent group whose groups may hold no process is named as the reason, in a path without a slash too many") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnParent parent;
    ContainerSpec spec = shell(root, "true");
    spec.cgroup_parent = "/" + parent.name;
    std::string unified;
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        if (hierarchy.v2() && !hierarchy.places.empty()) unified = hierarchy.places.front().mount_point;
    }
    if (unified.empty()) CAISSON_SKIP("no cgroup v2 hierarchy is mounted");
    const std::string path = unified + "/" + parent.name;
    REQUIRE(write((path + "/cgroup.max.descendants").c_str(), "0"));
    const std::string full = outcome(spec);
    CAPTURE(full);
    CHECK(has(full, "make control group '" + path + "/caisson.test."));
    REQUIRE(write((path + "/cgroup.max.descendants").c_str(), "max"));
    if (!write((path + "/cgroup.type").c_str(), "threaded")) CAISSON_SKIP("this group cannot be threaded");
    CHECK(outcome(spec) ==
          "container 'test': make init in new namespaces: Operation not supported: its control group may hold no "
          "process, as the group above is threaded (cgroup.type): give another cgroup_parent");
}

TEST_CASE("where programs in memory are forbidden the error names stage_path, and that works") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const TestRoot root;
    const auto forbid = [&](const std::string& stage) {
        return in_host([&]() -> std::string {
            if (!own_mounts() || ::unshare(CLONE_NEWPID) != 0) return "SKIP";
            return Host{[&](const Host&) -> std::string {
                       if (::mount("proc", "/proc", "proc", 0, nullptr) != 0) return "SKIP";
                       // Of this pid namespace alone, since Linux 6.6; the first one's is left as it is.
                       if (::getpid() != 1 || !write("/proc/sys/vm/memfd_noexec", "2")) return "SKIP";
                       ContainerSpec spec = shell(root, "true");
                       spec.stage_path = stage;
                       return outcome(spec);
                   }}
                .text();
        });
    };
    const std::string text = forbid("");
    std::string global;
    if (detail::sys::read_file(AT_FDCWD, "/proc/sys/vm/memfd_noexec", global)) CHECK(global == "0\n");
    if (text == "SKIP") CAISSON_SKIP("vm.memfd_noexec cannot be set for one pid namespace");
    CHECK(text ==
          "container 'test': the stage's program in memory: Permission denied: vm.memfd_noexec forbids it: set "
          "stage_path to an installed stage");
    CHECK(forbid(CAISSON_TEST_STAGE) == "ok");
    CHECK(forbid("/no/stage") == "container 'test': stage '/no/stage': No such file or directory");
}

TEST_CASE("a limit on namespaces is named in the error") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    for (const std::string kind : {"uts", "ipc", "pid", "mnt", "cgroup", "net"}) {
        CAPTURE(kind);
        ContainerSpec spec = bare(root);
        spec.namespaces =
            NamespaceSet{NamespaceKind::mount} | NamespaceSet{NamespaceKind::cgroup} | NamespaceSet{NamespaceKind::net};
        const std::string text = in_host([&]() -> std::string {
            // Limits belong to a user namespace.
            if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return "SKIP";
            if (!write("/proc/self/setgroups", "deny") || !write("/proc/self/uid_map", "0 0 1") ||
                !write("/proc/self/gid_map", "0 0 1")) {
                return "SKIP";
            }
            if (!write(("/proc/sys/user/max_" + kind + "_namespaces").c_str(), "0")) return "SKIP";
            return outcome(spec);
        });
        if (text == "SKIP") CAISSON_SKIP("no user namespace with limits of its own can be had");
        CAPTURE(text);
        CHECK(has(text, "No space left on device"));
        CHECK(has(text, "user.max_" + kind + "_namespaces"));
        CHECK(has(text, "with sysctl(8)"));
        if (kind != "mnt") CHECK(has(text, "_namespaces is 0: raise it"));
    }
}

TEST_CASE("without privilege a start says which is missing, and leaves nothing") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const auto nobody = [] { return ::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0; };
    const auto without = [](unsigned capability) {
        return [capability] {
            __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
            __user_cap_data_struct data[2]{};
            if (::syscall(SYS_capget, &header, data) != 0) return false;
            data[capability / 32].permitted &= ~(1u << capability % 32);
            data[capability / 32].effective = data[capability / 32].permitted;
            // Out of the bounding set too: root gets the others back at the next execve(2).
            return ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 && ::syscall(SYS_capset, &header, data) == 0;
        };
    };
    ContainerSpec spec = shell(root, "true");
    // As an ordinary user's, a container has a user namespace.
    CHECK(outcome_in_host(spec, nobody) == "ok");
    CHECK(outcome_in_host(spec, without(CAP_SYS_ADMIN)) == "ok");
    ContainerSpec roots = spec;
    roots.namespaces = roots.namespaces.without(NamespaceKind::user);
    const std::string no_user_namespace =
        "container 'test': namespaces: without a user namespace it takes root to start a container: add "
        "NamespaceKind::user, or run as root";
    CHECK(outcome_in_host(roots, nobody) == no_user_namespace);
    CHECK(outcome_in_host(roots, without(CAP_SYS_ADMIN)) == no_user_namespace);
    const std::string no_mknod = outcome_in_host(spec, without(CAP_MKNOD));
    CAPTURE(no_mknod);
    CHECK(has(no_mknod, "device '/dev/null': Operation not permitted: this needs CAP_MKNOD"));
    const std::string no_chroot = outcome_in_host(spec, without(CAP_SYS_CHROOT));
    CAPTURE(no_chroot);
    CHECK(has(no_chroot, "CAP_SYS_CHROOT"));
    for (const unsigned capability :
         std::initializer_list<unsigned>{CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_SYS_RESOURCE, CAP_KILL,
                                         CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_SETPCAP, CAP_SYS_PTRACE, CAP_FOWNER}) {
        const std::string text = outcome_in_host(spec, without(capability));
        CAPTURE(capability);
        CAPTURE(text);
        CHECK_FALSE(has(text, "LEFT"));
        // Refused or not, it ends, and a refusal says more than its reason.
        if (text != "ok") CHECK(has(text, "CAP_"));
    }
}

TEST_CASE("a limit above the host's own is given or refused, never lowered") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string text = in_host([&] {
        const rlimit low{64, 128};
        if (::setrlimit(RLIMIT_NOFILE, &low) != 0) return std::string{"setrlimit"};
        ContainerSpec spec = shell(root, "test $(ulimit -Hn) = 256");
        spec.console.reset();
        spec.resource_limits = {{ResourceLimit::Kind::nofile, 256, 256}};
        return outcome(spec);
    });
    const std::string refused =
        "container 'test': resource limit 'nofile': the hard limit of 256: Operation not permitted: it is above "
        "fs.nr_open, or above the host's own, which only CAP_SYS_RESOURCE raises";
    CHECK(text == (probe().has(Feature::cap_sys_resource) ? "ok" : refused));
}

TEST_CASE("a refused clone says what is missing") {
    const NamespaceSet all = NamespaceKind::mount | NamespaceKind::pid;
    const auto text = [&](int errnum, NamespaceSet wanted) {
        return std::string{detail::clone_error(errnum, wanted).what()};
    };
    CHECK(text(EAGAIN, all) ==
          "make init in new namespaces: Resource temporarily unavailable: a limit on processes is "
          "reached: see 'ulimit -u' and the pids control group");
    CHECK(has(text(EPERM, all), "CAP_SYS_ADMIN"));
    CHECK(has(text(EPERM, all | NamespaceSet{NamespaceKind::user}), "chroot"));
    CHECK(has(text(ENOSPC, all), "a limit of /proc/sys/user/max_*_namespaces is reached"));
    CHECK(text(EINVAL, all) == "make init in new namespaces: Invalid argument");
    CHECK(detail::remedy_of(ContainerSpec{}, Step::exec, EAGAIN, "the command's own process", false) ==
          "limits.pids or the resource limit 'nproc' is reached: raise it");
}

TEST_CASE("a missing mount point in a read-only root, and a full root, are told with the remedy") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.root_read_only = true;
    CHECK(outcome(spec) == "ok");
    spec.mounts.push_back(MountSpec::tmpfs("/not/there", 4096));
    CHECK(outcome(spec) ==
          "container 'test': mount 'tmpfs' on '/not/there' (in the child): Read-only file system: the "
          "mount point is missing in a read-only root: make it there");
    REQUIRE(::rmdir((root / "/proc").c_str()) == 0);
    CHECK(has(outcome(spec), "mount 'proc' on '/proc' (in the child): Read-only file system"));
    REQUIRE(::mkdir((root / "/proc").c_str(), 0755) == 0);

    spec.root_read_only = false;
    spec.root = "/mnt";
    const std::string text = outcome_in_host(spec, [] {
        // Room for the root directory itself and its first two entries.
        return own_mounts() && ::mount("full", "/mnt", "tmpfs", 0, "nr_inodes=2,mode=755") == 0;
    });
    CAPTURE(text);
    if (has(text, "cannot be id-mapped")) CAISSON_SKIP("this kernel cannot id-map tmpfs, so a full root cannot be had");
    CHECK(has(text, "(in the child): No space left on device: the root's file system is full"));
}

TEST_CASE("where /run cannot be written an id map of one's own is the remedy") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    const auto read_only_run = [] { return own_mounts() && ::mount("run", "/run", "tmpfs", MS_RDONLY, nullptr) == 0; };
    CHECK(outcome_in_host(spec, read_only_run) ==
          "container 'test': directory '/run/caisson' of the id ranges in use: "
          "Read-only file system: give uid_map and gid_map instead");
    spec.uid_map = spec.gid_map = {{0, 0, 65536}};
    CHECK(outcome_in_host(spec, read_only_run) == "ok");
}

TEST_CASE("a hierarchy that is read-only is left out, and a limit that needs it is refused") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    std::vector<std::string> all;
    std::string pids;
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        for (const auto& place : hierarchy.places) {
            all.push_back(place.mount_point);
            if (detail::list_has(hierarchy.controllers, "pids") || (hierarchy.v2() && pids.empty()))
                pids = place.mount_point;
        }
    }
    if (all.empty()) CAISSON_SKIP("no cgroup hierarchy is mounted");
    const auto read_only = [&](const std::vector<std::string>& paths) {
        return [paths] {
            if (!own_mounts()) return false;
            for (const std::string& path : paths) {
                if (!bind_to(path, path)) return false;
                if (::mount(nullptr, path.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0)
                    return false;
            }
            return true;
        };
    };
    ContainerSpec spec = shell(root, "true");
    if (all.size() > 1) CHECK(outcome_in_host(spec, read_only({pids})) == "ok");
    const std::string none = outcome_in_host(spec, read_only(all));
    CAPTURE(none);
    CHECK(has(none, "container 'test': control group 'test' below '"));
    CHECK(has(none, "Read-only file system: remount the hierarchy read-write"));
    spec.limits.pids = 10;
    const std::string limited = outcome_in_host(spec, read_only({pids}));
    CAPTURE(limited);
    if (all.size() > 1) CHECK(has(limited, "pids"));
    CHECK(has(limited, "Read-only file system"));
    spec.limits = {};
    spec.cgroup = false;
    CHECK(outcome_in_host(spec, read_only(all)) == "ok");
}

TEST_CASE("a devpts instance without a free terminal says which limits there are") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const Mount devpts = Mount::devpts({.max = 1});
    const Pty first = Pty::open_in(devpts.fd());
    CHECK_THROWS_WITH(
        (void)Pty::open_in(devpts.fd()),
        "open a pseudo-terminal in the container's devpts: No space left on device: all are in use: raise "
        "/proc/sys/kernel/pty/max, or the instance's 'max' option");
}
