// What check() says of a command's user, capabilities, limits, settings and label.
#include <caisson/check.hpp>

#include <cstdint>
#include <string>
#include <utility>

#include <signal.h>

#include "support/doctest.hpp"
#include "support/refusal.hpp"

using namespace caisson;
using caisson_test::refusal;

namespace {

std::string of_user(const std::string& name) {
    return refusal([&](ContainerSpec& s) { s.user = name; });
}
std::string of_sysctl(const std::string& name, const std::string& value = "1") {
    return refusal([&](ContainerSpec& s) { s.sysctls = {{name, value}}; });
}

using S = ContainerSpec;

}  // namespace

TEST_CASE("a user is a name or a number, and nothing else") {
    for (const char* name : {"", "0", "1000", "4294967294", "alice", "_apt", "www-data", "a.b", "host$"}) {
        CAPTURE(name);
        CHECK(of_user(name) == "accepted");
    }
    for (const char* name : {"01", "4294967295", "99999999999999999999"}) {
        CHECK(of_user(name) == std::string{"user: '"} + name +
                                   "' is no number of a user or group: give 0 to 4294967294, without leading zeros");
    }
    for (const std::string& name :
         {std::string{"-1"}, std::string{"+1"}, std::string{"1000x"}, std::string{"a:b"}, std::string{" a"},
          std::string{"0x10"}, std::string{"a b"}, std::string(33, 'a'), std::string{"\xc3\xa4"}}) {
        CAPTURE(name);
        CHECK(
            of_user(name).ends_with("is neither a name nor a number: a name begins with a letter or '_' and has up "
                                    "to 32 letters, digits, '_', '.', '-' and '$'"));
    }
    CHECK(refusal([](S& s) { s.group = "1:2"; }).starts_with("group: '1:2' is neither"));
    CHECK(refusal([](S& s) { s.groups = {1, 4294967295u}; }) == "groups[1]: 4294967295 is no group id");
    CHECK(refusal([](S& s) { s.groups.assign(65537, 1); }) == "groups: 65537 groups: the kernel takes at most 65536");
}

TEST_CASE("each capability set lies within the one that it depends on") {
    CHECK(refusal([](S& s) { s.capabilities.effective.add(21); }) ==
          "capabilities.effective: 'sys_admin' is not in permitted: add it there as well");
    CHECK(refusal([](S& s) { s.capabilities.permitted.add(21); }) ==
          "capabilities.permitted: 'sys_admin' is not in bounding: add it there as well");
    CHECK(refusal([](S& s) { s.capabilities.inheritable.add(21); }) ==
          "capabilities.inheritable: 'sys_admin' is not in permitted: add it there as well");
    CHECK(refusal([](S& s) { s.capabilities.ambient.add(0); }) ==
          "capabilities.ambient: 'chown' is not in inheritable: add it there as well");
    CHECK(refusal([](S& s) { s.capabilities.bounding.add(41); }) ==
          "capabilities.bounding: number 41 is no capability: the kernel's list ends with 40, checkpoint_restore");
    CHECK(refusal([](S& s) { s.capabilities = CapabilitySet::all(); }) == "accepted");
}

TEST_CASE("a resource limit is given once, with soft below hard") {
    const auto limit = [](std::uint64_t soft, std::uint64_t hard) {
        return refusal([&](S& s) { s.resource_limits = {{ResourceLimit::Kind::nofile, soft, hard}}; });
    };
    CHECK(limit(5, 5) == "accepted");
    CHECK(
        limit(ResourceLimit::unlimited, 5) ==
        "resource_limits[0]: resource limit 'nofile': soft unlimited, hard 5: soft is above hard: raise hard or lower "
        "soft");
    CHECK(refusal([](S& s) {
              s.resource_limits = {{ResourceLimit::Kind::core, 0, 0}, {ResourceLimit::Kind::core, 1, 1}};
          }) == "resource_limits[0]: 'core' is given twice");
    CHECK(refusal([](S& s) {
              s.resource_limits = {{static_cast<ResourceLimit::Kind>(16), 0, 0}};
          }) == "resource_limits[0].kind: 16 is no resource limit");
    CHECK(ResourceLimit::kind_of("rtprio") == ResourceLimit::Kind::rtprio);
    CHECK_FALSE(ResourceLimit::kind_of("RLIMIT_CPU"));
}

TEST_CASE("only settings of the container's own namespaces are accepted") {
    for (const char* name : {"net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.shmmax", "kernel.msgmnb",
                             "kernel.sem", "fs.mqueue.msg_max", "user.max_user_namespaces", "kernel.domainname"}) {
        CAPTURE(name);
        CHECK(of_sysctl(name) == "accepted");
    }
    CHECK(refusal([](ContainerSpec& s) {
              s.sysctls = {{"kernel.domainname", std::string(65, 'd')}};
          }) == "sysctls[0]: 'kernel.domainname' gets 65 bytes: 64 are possible");
    const std::string whole =
        "' is the whole machine's: those of a container are net.*, user.*, fs.mqueue.*, kernel.shm*, kernel.msg*, "
        "kernel.sem and kernel.domainname";
    for (const char* name : {"kernel.core_pattern", "vm.drop_caches", "kernel", "fs.suid_dumpable", "network.x"}) {
        CHECK(of_sysctl(name) == std::string{"sysctls[0]: '"} + name + whole);
    }
    for (const char* name : {"", "net..ipv4", "net/../kernel/core_pattern", "net/./x", "/net/x", "net.x\n", "net x",
                             "net.ipv4+kernel", ".net"}) {
        CAPTURE(name);
        CHECK(of_sysctl(name).ends_with("is no name of a kernel setting: write it as sysctl(8) does"));
    }
    CHECK(refusal([](ContainerSpec& s) {
              s.sysctls = {{"net.a.b", "1"}, {"net/a/b", "2"}};
          }) == "sysctls[0]: 'net.a.b' is given twice");
    CHECK(of_sysctl("net.x", "") == "sysctls[0]: 'net.x' gets '': give one line of 1 to 4095 bytes");
    CHECK(of_sysctl("net.x", "1\n2").ends_with("give one line of 1 to 4095 bytes"));
    CHECK(of_sysctl("net.x", std::string{"1\0", 2}).ends_with("give one line of 1 to 4095 bytes"));
    CHECK(refusal([](S& s) {
              s.namespaces = s.namespaces.without(NamespaceKind::net);
              s.sysctls = {{"net.ipv4.ip_forward", "1"}};
          }) ==
          "sysctls[0]: 'net.ipv4.ip_forward' is the host's, as the container has no net namespace of its own: add "
          "NamespaceKind::net to namespaces");
}

TEST_CASE("numbers and words of a command have their bounds") {
    CHECK(refusal([](S& s) { s.oom_score_adj = 1001; }) == "oom_score_adj: 1001 is out of range: give -1000 to 1000");
    CHECK(refusal([](S& s) { s.oom_score_adj = -1000; }) == "accepted");
    CHECK(refusal([](S& s) { s.umask = 01000; }) ==
          "umask: 512 has more than the nine permission bits: give 0 to 0777");
    CHECK(refusal([](S& s) { s.descriptors.assign(257, 0); }) == "descriptors: 257 descriptors: 256 are possible");
    for (const char* label : {"x", "apparmor:", "smack:x", "selinux:a b", "apparmor:\x7f"}) {
        CAPTURE(label);
        CHECK(refusal([&](S& s) {
                  s.security_label = label;
              }).ends_with("is no label: write 'apparmor:PROFILE' or 'selinux:USER:ROLE:TYPE:RANGE'"));
    }
    CHECK(refusal([](S& s) { s.security_label = "selinux:system_u:system_r:container_t:s0:c1,c2"; }) == "accepted");
    CHECK(refusal([](S& s) {
              s.cgroup_mount = CgroupMount::read_only;
              s.cgroup = false;
          }) ==
          "cgroup_mount: the container has no control group and cgroup namespace of its own: set cgroup to true and "
          "add NamespaceKind::cgroup to namespaces");
    CHECK(refusal([](S& s) { s.masked_paths = {"proc"}; }) ==
          "masked_paths[0]: 'proc' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) { s.read_only_paths = {"/a/../b"}; }) ==
          "read_only_paths[0]: '/a/../b' holds '..': write the path without it");
}

TEST_CASE("pauses between restarts are bounded, and an init is asked by signals that it can catch") {
    CHECK(refusal([](S& s) { s.back_off.first_pause_ms = 9; }) ==
          "back_off.first_pause_ms: 9 ms: 10 to 86400000 are possible");
    CHECK(refusal([](S& s) { s.back_off.longest_pause_ms = 86400001; }) ==
          "back_off.longest_pause_ms: 86400001 ms: 10 to 86400000 are possible");
    CHECK(refusal([](S& s) { s.back_off = {.first_pause_ms = 200, .longest_pause_ms = 199}; }) ==
          "back_off.longest_pause_ms: 199 ms are less than back_off.first_pause_ms, 200: give at least that");
    CHECK(refusal([](S& s) { s.back_off = {10, 10, 0, 0}; }) == "accepted");
    CHECK(refusal([](S& s) { s.shutdown_signal = 0; }) == "shutdown_signal: 0 is no signal: give 1 to 64");
    CHECK(refusal([](S& s) { s.reboot_signal = 65; }) == "reboot_signal: 65 is no signal: give 1 to 64");
    CHECK(refusal([](S& s) { s.shutdown_signal = SIGKILL; }) ==
          "shutdown_signal: 9 is SIGKILL, which no init is told of: give one that it catches");
    CHECK(refusal([](S& s) { s.reboot_signal = SIGSTOP; }) ==
          "reboot_signal: 19 is SIGSTOP, which no init is told of: give one that it catches");
    CHECK(refusal([](S& s) { s.shutdown_signal = 38; }) == "accepted");
}

TEST_CASE("an end is a reboot, a poweroff or a crash, and pauses double up to the longest") {
    using Request = ExitStatus::Request;
    CHECK(end_kind(ExitStatus::exited(0)) == EndKind::poweroff);
    CHECK(end_kind(ExitStatus::exited(0).with_out_of_memory(true)) == EndKind::poweroff);
    CHECK(end_kind(ExitStatus::killed(SIGINT).with(Request::poweroff)) == EndKind::poweroff);
    CHECK(end_kind(ExitStatus::killed(SIGHUP).with(Request::restart)) == EndKind::reboot);
    CHECK(end_kind(ExitStatus::killed(SIGHUP)) == EndKind::crash);
    CHECK(end_kind(ExitStatus::exited(1)) == EndKind::crash);
    const BackOff pauses{.first_pause_ms = 100, .longest_pause_ms = 1000};
    CHECK(pauses.pause_ms(0) == 100);
    CHECK(pauses.pause_ms(3) == 800);
    CHECK(pauses.pause_ms(4) == 1000);
    CHECK(pauses.pause_ms(4000000000u) == 1000);
}

TEST_CASE("a container may restart by itself only where one of its ends is followed by that, and can come") {
    ContainerSpec spec;
    CHECK_FALSE(spec.may_restart());
    spec.capabilities.bounding.add(22);
    CHECK(spec.may_restart());
    spec.on_reboot = EndAction::destroy;
    CHECK_FALSE(spec.may_restart());
    spec.on_crash = EndAction::restart;
    CHECK(spec.may_restart());
    CHECK(spec.after(EndKind::crash) == EndAction::restart);
    CHECK(spec.after(EndKind::reboot) == EndAction::destroy);
}
