// What a security report says of what it holds; and of processes that need no privilege.
#include <caisson/security_report.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/process.hpp>

#include "support/doctest.hpp"

using namespace caisson;

namespace {

using Sentences = std::vector<std::string>;

/// What the container of a default spec gives.
SecurityReport usual() {
    SecurityReport r;
    r.pid = 4711;
    r.namespaces = ContainerSpec{}.namespaces;
    r.uid_map = r.gid_map = {{0, 1879048192, 65536}};
    r.uid = r.gid = 1879048192;
    r.capabilities = CapabilitySpec{};
    r.no_new_privileges = true;
    r.seccomp = SecurityReport::Seccomp::filter;
    r.seccomp_filters = 1;
    r.masked_paths = {"/proc/kcore", "/sys/firmware"};
    r.read_only_paths = {"/proc/sys", "/sys"};
    r.resource_limits = {{ResourceLimit::Kind::core, 0, 0}, {ResourceLimit::Kind::nofile, 1024, 524288}};
    r.device_rules = {{"c 1:3 rwm", "c 136:* rwm", "b *:* m"}};
    return r;
}

}  // namespace

TEST_CASE("the default container is neither weaker nor stricter than the default") {
    const SecurityReport r = usual();
    CHECK(r.weaker() == Sentences{});
    CHECK(r.stricter() == Sentences{});
    CHECK(r.left_open() == Sentences{"no memory limit: it may take all that the host has",
                                     "no limit on processes: it may take all the pids that the host has"});
    CHECK(r.masks_hold());
    CHECK(r == usual());
}

TEST_CASE("each thing that is held less tightly is a sentence") {
    const auto one = [](auto&& change) {
        SecurityReport r = usual();
        change(r);
        const Sentences all = r.weaker();
        CHECK(r.stricter() == Sentences{});
        return all.size() == 1 ? all[0] : std::to_string(all.size()) + " sentences";
    };
    using R = SecurityReport&;
    CHECK(one([](R r) { r.namespaces = r.namespaces.without(NamespaceKind::user); }) ==
          "no user namespace: root inside is root outside");
    CHECK(one([](R r) { r.namespaces = r.namespaces.without(NamespaceKind::net); }) ==
          "no network namespace: addresses, ports and abstract sockets are the host's");
    CHECK(one([](R r) { r.namespaces = r.namespaces.without(NamespaceKind::pid); }) ==
          "no pid namespace: it sees the host's processes");
    CHECK(one([](R r) { r.namespaces = r.namespaces.without(NamespaceKind::cgroup); }) ==
          "no cgroup namespace: it sees the names of the host's control groups");
    CHECK(one([](R r) {
              r.capabilities.bounding = CapabilitySet::application().with({"net_raw"}), r.no_new_privileges = false;
          }) == "2 sentences");
    CHECK(one([](R r) {
              r.capabilities.permitted = CapabilitySet::application().with({"net_raw", "syslog"});
          }) == "more capabilities can be had: net_raw, syslog");
    CHECK(one([](R r) { r.no_new_privileges = false; }) ==
          "new privileges can be had: set-user-ID programs and file capabilities");
    CHECK(one([](R r) { r.seccomp = SecurityReport::Seccomp::none; }) == "no filter of system calls");
    CHECK(one([](R r) { r.seccomp_filters = 0; }) == "no filter of system calls but the host's own");
    CHECK(one([](R r) { r.open_paths = {"/proc/kcore", "/proc/keys"}; }) == "not masked: /proc/kcore, /proc/keys");
    CHECK(one([](R r) { r.writable_paths = {"/proc/sys"}; }) == "not read-only: /proc/sys");
    CHECK(one([](R r) { r.host_root = true; }) == "its root is the host's root");
    CHECK(one([](R r) { r.host_paths = {"/data", "/a\nb"}; }) == "files of the host are seen: /data, /a\\x0ab");
    CHECK(one([](R r) { r.host_devices = true; }) == "/dev is the host's, with a node of every device");
    CHECK(one([](R r) { r.cgroup_mount = CgroupMount::read_only; }) == "it sees its control groups");
    CHECK(one([](R r) { r.cgroup_mount = CgroupMount::read_write; }) ==
          "it sees its control groups and may write to them");
    CHECK(one([](R r) { r.device_rules = {{"a *:* rwm"}}; }) ==
          "no rules for devices: of what it has a node, that it may use");
    CHECK(one([](R r) { r.device_rules.reset(); }) == "no rules for devices: of what it has a node, that it may use");
    CHECK(one([](R r) { r.device_rules->push_back("c 10:229 rwm"); }) == "more devices may be used: c 10:229 rwm");
    CHECK(one([](R r) { r.resource_limits[0].hard = 1; }) == "a program that crashes may write a core file");
    CHECK(one([](R r) { r.resource_limits[1].hard = 1'000'000; }) ==
          "a process may have 1000000 descriptors, not 524288");
    CHECK(one([](R r) { r.oom_score_adj = -500; }) ==
          "oom_score_adj is -500: where memory is short, the host's programs are killed before it");
}

TEST_CASE("ids of the host's own users that are mapped are told") {
    SecurityReport r = usual();
    r.uid_map = {{0, 1000, 1}, {1, 100000, 65535}};
    r.uid = 1000;
    CHECK(r.weaker() == Sentences{"user 0 inside is 1000 outside: of the host's own users"});
    r.gid_map = {{0, 0, 70000}};
    CHECK(r.weaker().at(1) == "group 0-65535 inside are 0-65535 outside: root, and others of the host's own");
    // Of a user namespace that is the host's, this is said once.
    r.namespaces = r.namespaces.without(NamespaceKind::user);
    CHECK(r.weaker() == Sentences{"no user namespace: root inside is root outside"});
}

TEST_CASE("masks hold only against who cannot get CAP_SYS_ADMIN") {
    const unsigned sys_admin = *CapabilitySet::number("sys_admin");
    SecurityReport r = usual();
    r.capabilities.bounding.add(sys_admin);
    CHECK(r.masks_hold());  // nothing that it executes gives it that
    r.no_new_privileges = false;
    CHECK_FALSE(r.masks_hold());
    CHECK(r.weaker().at(1) ==
          "capability sys_admin can be had: masks and read-only paths can be undone, unless the "
          "filter refuses mount and umount2");
    r.seccomp = SecurityReport::Seccomp::none;
    CHECK(r.weaker().at(1) == "capability sys_admin can be had: masks and read-only paths can be undone");
    r = usual();
    r.capabilities.permitted.add(sys_admin);
    CHECK_FALSE(r.masks_hold());
    r = usual();
    r.capabilities.inheritable.add(sys_admin);
    CHECK_FALSE(r.masks_hold());
}

TEST_CASE("each thing that is held more tightly is a sentence") {
    const auto one = [](auto&& change) {
        SecurityReport r = usual();
        change(r);
        CHECK(r.weaker() == Sentences{});
        const Sentences all = r.stricter();
        return all.size() == 1 ? all[0] : std::to_string(all.size()) + " sentences";
    };
    using R = SecurityReport&;
    CHECK(one([](R r) { r.namespaces = r.namespaces | NamespaceSet{NamespaceKind::time}; }) ==
          "a time namespace of its own");
    CHECK(one([](R r) { r.uid += 1000; }) == "its first process is not root, but user 1000 (1879049192 outside)");
    CHECK(one([](R r) {
              r.capabilities = CapabilitySet::application().without({"chown", "kill"});
          }) == "fewer capabilities: not chown, kill");
    CHECK(one([](R r) { r.seccomp = SecurityReport::Seccomp::strict; }) ==
          "read, write and exit are the only system calls");
    CHECK(one([](R r) { r.masked_paths.push_back("/etc/secret"); }) == "also masked: /etc/secret");
    CHECK(one([](R r) { r.root_read_only = true; }) == "its root cannot be written to");
    CHECK(one([](R r) { r.read_only_paths.push_back("/srv"); }) == "also read-only: /srv");
    CHECK(one([](R r) { r.memory_limit = 1 << 20; }) == "at most 1048576 bytes of memory");
    CHECK(one([](R r) { r.pids_limit = 50; }) == "at most 50 processes and threads");
    CHECK(one([](R r) { r.oom_score_adj = 500; }) == "oom_score_adj is 500: it is killed before others");
    CHECK(one([](R r) { r.security_label = "web (enforce)"; }) == "held by a policy, as web (enforce)");
    CHECK(one([](R r) { r.security_label = "unconfined"; }) == "0 sentences");
    CHECK(one([](R r) { r.security_label = "kernel"; }) == "0 sentences");
    CHECK(one([](R r) { r.security_label = "web (complain)"; }) == "0 sentences");
    SecurityReport r = usual();
    r.memory_limit = r.pids_limit = 1;
    CHECK(r.left_open().empty());
}

TEST_CASE("a report is shown in lines of at most 100 columns, with nothing that a terminal acts on") {
    SecurityReport r = usual();
    CHECK(r.str() == R"(Process:        4711, user 0 (1879048192 outside), group 0 (1879048192 outside)
Groups:         none
Namespaces:     user, ipc, uts, net, pid, mnt, cgroup; of the host: time
User ids:       0-65535 are 1879048192-1879113727 outside
Group ids:      0-65535 are 1879048192-1879113727 outside
Capabilities:
  bounding:     chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
                net_bind_service, sys_chroot, setfcap
  permitted:    as bounding
  effective:    as bounding
  inheritable:  none
  ambient:      none
New privileges: refused
System calls:   filters of its own: 1
Masked:         /proc/kcore, /sys/firmware
Read-only:      /proc/sys, /sys
Of the host:    none
Masks hold:     yes
Control groups: not seen
Devices:        c 1:3 rwm, c 136:* rwm, b *:* m
Memory:         no limit
Processes:      no limit
Each process:   core 0, nofile 1024:524288
oom_score_adj:  0
Label:          none

Open, as in the default:
  - no memory limit: it may take all that the host has
  - no limit on processes: it may take all the pids that the host has
)");
    r.capabilities = CapabilitySet::libvirt();
    r.no_new_privileges = false;
    r.root_read_only = r.host_root = true;
    r.read_only_paths.clear();
    r.host_paths = {"/data"};
    r.security_label = "odd\x1b[2J\nlabel";
    r.masked_paths.assign(40, "/proc/\x1b[0m");
    r.uid_map.clear();
    r.memory_limit = r.pids_limit = 7;
    const std::string text = r.str();
    CHECK(text.find("user 1879048192 outside, no id inside") != std::string::npos);
    CHECK(text.find("bounding:     all but sys_module, sys_time, mknod, audit_control, mac_admin\n") !=
          std::string::npos);
    CHECK(text.find("Read-only:      /\n") != std::string::npos);
    CHECK(text.find("Of the host:    /, /data\n") != std::string::npos);
    CHECK(text.find("New privileges: possible\n") != std::string::npos);
    CHECK(text.find("Masks hold:     only if the filter refuses mount and umount2\n") != std::string::npos);
    CHECK(text.find("Label:          odd\\x1b[2J\\x0alabel\n") != std::string::npos);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find("Weaker than the default:\n  - more capabilities can be had: dac_read_search,") !=
          std::string::npos);
    CHECK(text.find("Stricter than the default:\n") != std::string::npos);
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        CAPTURE(text.substr(at, end - at));
        CHECK(end - at <= 100);
        CHECK((end == at || text[end - 1] != ' '));
    }
}

TEST_CASE("the calling process is as the host") {
    const SecurityReport r = SecurityReport::of(Process::self());
    CHECK(r.pid == ::getpid());
    CHECK(r.namespaces == NamespaceSet{});
    CHECK(r.uid == ::geteuid());
    CHECK(r.gid == ::getegid());
    std::vector<gid_t> groups(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
    REQUIRE(::getgroups(static_cast<int>(groups.size()), groups.data()) == static_cast<int>(groups.size()));
    CHECK(r.groups == std::vector<std::uint32_t>(groups.begin(), groups.end()));
    CHECK(r.resource_limits.size() == ResourceLimit::names.size());
    for (std::size_t i = 0; i < r.resource_limits.size(); ++i) {
        CHECK(static_cast<std::size_t>(r.resource_limits[i].kind) == i);
        rlimit limit{};
        // The kinds have the kernel's numbers.
        REQUIRE(::getrlimit(static_cast<__rlimit_resource>(i), &limit) == 0);
        CHECK(r.resource_limits[i].soft == limit.rlim_cur);
        CHECK(r.resource_limits[i].hard == limit.rlim_max);
    }
    CHECK(r.host_root);
    CHECK(SecurityReport::of(Process::self()) == r);
}

TEST_CASE("filters of system calls are counted less those that the parent has too") {
    int told[2];
    REQUIRE(::pipe(told) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        sock_filter all{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
        sock_fprog program{1, &all};
        bool good = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        for (int i = 0; i < 2; ++i) good = good && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
        const pid_t grandchild = good ? ::fork() : -1;
        if (grandchild != 0) (void)!::write(told[1], &grandchild, sizeof grandchild);
        for (;;) ::pause();
    }
    pid_t grandchild = -1;
    REQUIRE(::read(told[0], &grandchild, sizeof grandchild) == sizeof grandchild);
    const auto end = [&] {
        if (grandchild > 0) (void)::kill(grandchild, SIGKILL);
        (void)::kill(child, SIGKILL);
        (void)::waitpid(child, nullptr, 0);
        (void)::close(told[0]);
        (void)::close(told[1]);
    };
    if (grandchild < 0) {
        end();
        CAISSON_SKIP("no filter can be set here");
    }
    const SecurityReport first = SecurityReport::of(Process::open(child));
    const SecurityReport second = SecurityReport::of(Process::open(grandchild));
    end();
    CHECK(first.seccomp == SecurityReport::Seccomp::filter);
    CHECK(first.seccomp_filters == 2);
    CHECK(first.no_new_privileges);
    CHECK(second.seccomp == SecurityReport::Seccomp::filter);
    CHECK(second.seccomp_filters == 0);
}

TEST_CASE("a process that has ended has no report") {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    const Process process = Process::open(child);
    REQUIRE(process.ended_within(10'000));
    const auto text = [&] {
        try {
            return SecurityReport::of(process).str();
        } catch (const Error& e) {
            CHECK(e.step() == Step::report);
            CHECK(e.code().value() == ESRCH);
            return std::string{e.what()};
        }
    };
    const std::string expected =
        "security report of process " + std::to_string(child) + ": No such process: it has ended";
    CHECK(text() == expected);  // a zombie
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(text() == expected);
    CHECK_THROWS_AS((void)SecurityReport::of(Process{}), std::logic_error);
}
