// What is attached to a container that runs, and detached from it.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/hotplug.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/shell.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("a network that comes later is as one that was there at the start, and goes again") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {*IpPrefix::parse("10.9.0.1/24")});
    const std::string before = links();
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = plain(root, user);
        spec.capabilities = CapabilitySet::application().with({"net_raw"});
        Shell shell{spec};
        NetworkSpec network;
        network.bridge = "br0";
        network.mac = MacAddress::parse("00:11:22:34:34:34");
        network.addresses = {*IpPrefix::parse("10.9.0.2/24")};
        network.routes = {{*IpPrefix::parse("0.0.0.0/0"), IpAddress::parse("10.9.0.1")}};
        CHECK(shell->attach(network) == "eth0");
        const std::string seen =
            shell.ask("ip -o addr show dev eth0; ip link show eth0; ip route; ping -c 1 -W 5 10.9.0.1");
        CAPTURE(seen);
        CHECK(contains(seen, "10.9.0.2/24"));
        CHECK(contains(seen, "00:11:22:34:34:34"));
        CHECK(contains(seen, "default via 10.9.0.1"));
        CHECK(contains(seen, " 0% packet loss"));
        NetworkSpec second;
        second.bridge = "br0";
        second.host_name = "late0";
        second.isolated = true;
        CHECK(shell->attach(second) == "eth1");
        CHECK(contains(links(), "late0"));
        const std::vector<NetworkUsage> usage = shell->usage(UsagePart::network).networks;
        REQUIRE(usage.size() == 2);
        CHECK(usage[0].received_packets >= 1);
        CHECK(usage[1].name == "eth1");
        CHECK(usage[1].host_name == "late0");
        shell->detach_network("eth0");
        CHECK(contains(shell.ask("ip link show eth0"), "can't find device 'eth0'"));
        CHECK(shell->usage(UsagePart::network).networks.size() == 1);
        CHECK(refusal([&] { shell->detach_network("eth0"); }, ENOENT) ==
              "container 'test': interface 'eth0': No such file or directory: it was not given to the container, or is "
              "gone already");
        // The name is free when the end is told.
        (void)shell->kill();
        CHECK(links() == before);
    }
}

TEST_CASE("a network that cannot come leaves nothing, and says why") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec spec = plain(root);
    spec.networks = {NetworkSpec{.bridge = "br0"}};
    Shell shell{spec};
    const std::string before = links();
    const auto refused = [&](const NetworkSpec& network, int errnum) {
        const std::string text = refusal([&] { (void)shell->attach(network); }, errnum);
        CHECK(links() == before);
        return text;
    };
    CHECK(refused({}, 0) == "container 'test': network.bridge: it is empty: name a bridge of the host");
    CHECK(refused({.bridge = "br9"}, ENODEV) ==
          "container 'test': bridge 'br9': No such device: create it with 'ip link add br9 type bridge'");
    CHECK(refused({.bridge = "br0", .name = "eth0"}, EEXIST) ==
          "container 'test': interface 'eth0' on bridge 'br0': File exists: the container was given one of that name: "
          "choose another, or detach that one first");
    CHECK(refused({.bridge = "br0", .host_name = "br0"}, EEXIST) ==
          "container 'test': interface 'br0': File exists: the name is taken on the host: choose another, or none");
    NetworkSpec far;
    far.bridge = "br0";
    far.routes = {{*IpPrefix::parse("0.0.0.0/0"), IpAddress::parse("10.9.0.1")}};
    CHECK(contains(refused(far, ENETUNREACH), "give the interface an address in the gateway's network"));
    CHECK(shell->attach({.bridge = "br0"}) == "eth1");
    // Those of the start go the same way.
    shell->detach_network("eth0");
    CHECK(shell->attach({.bridge = "br0"}) == "eth0");
    (void)shell->kill();

    ContainerSpec shares = plain(root, false);
    shares.namespaces = shares.namespaces.without(NamespaceKind::net);
    Shell other{shares};
    CHECK(refusal([&] { (void)other->attach({.bridge = "br0"}); }, 0) ==
          "container 'test': network.bridge: 'br0': the container has the host's own network: start it with a network "
          "namespace");
}

TEST_CASE("a device that comes later can be used as long as it is there") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const LogNode node;
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = plain(root, user);
        spec.mounts.push_back(node.mount());
        Shell shell{spec};
        const auto try_node = [&] { return contains(shell.ask("(: >/nodes/log)"), "Operation not permitted"); };
        const bool is_held = try_node();  // false where this machine can set no rules
        shell->attach(log_device);
        CHECK(shell.ask("stat -c '%t %T %a %u %g' /dev/log/kernel; stat -c '%a %u' /dev/log") ==
              "1 b 666 0 0\n755 0\n");
        CHECK(shell.ask("(: >/dev/log/kernel) && echo ok") == "ok\n");
        CHECK(refusal([&] { shell->attach(log_device); }, EEXIST) ==
              "container 'test': device '/dev/log/kernel': File exists: the container was given '/dev/log/kernel': "
              "choose "
              "another target, or detach that one first");
        CHECK(shell.ask("(: >/dev/log/kernel) && echo ok; : >/dev/other") == "ok\n");
        CHECK(refusal([&] { shell->attach(DeviceSpec{.source = "/dev/kmsg", .target = "other"}); }, EEXIST) ==
              "container 'test': device '/dev/other': File exists: choose another target, or remove what is there");
        // A second node of the same device: the right stays with the last of them.
        DeviceSpec twin = log_device;
        twin.target = "/dev/twin";
        shell->attach(twin);
        shell->detach_device("/dev/log/kernel");
        CHECK_FALSE(try_node());
        CHECK(shell.ask("(: >/dev/twin) && echo ok") == "ok\n");
        (void)shell.ask("exec 7>/dev/twin");
        shell->detach_device("twin");
        CHECK(contains(shell.ask("ls /dev/twin"), "No such file"));
        CHECK(try_node() == is_held);
        // Who has it open keeps it.
        CHECK(shell.ask("echo >&7 && echo ok") == "ok\n");
        CHECK(
            refusal([&] { shell->detach_device("twin"); }, ENOENT) ==
            "container 'test': device '/dev/twin': No such file or directory: it was not given to the container, or is "
            "gone already");
    }
}

TEST_CASE("a device comes where another one was given only once that one is detached, whatever became of its node") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Shell shell{plain(root)};
    shell->attach(log_device);
    CHECK(shell.ask("rm -r /dev/log && echo ok") == "ok\n");
    DeviceSpec other = log_device;
    for (const char* const target : {"log/kernel", "/dev/log/kernel", "log", "log/kernel/below"}) {
        CAPTURE(std::string{target});
        other.target = target;
        const std::string path = std::string{target}.starts_with('/') ? target : "/dev/" + std::string{target};
        CHECK(refusal([&] { shell->attach(other); }, EEXIST) ==
              "container 'test': device '" + path +
                  "': File exists: the container was given '/dev/log/kernel': choose another target, or detach that "
                  "one first");
    }
    CHECK(shell.ask("ls /dev | grep log") == "");
    (void)refusal([&] { shell->detach_device("log/kernel"); }, ENOENT);
}

TEST_CASE("a container cannot keep a device by laying something over its /dev") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const LogNode node;
    ContainerSpec spec = plain(root);
    spec.capabilities = CapabilitySet::system();
    spec.seccomp.profile = SeccompProfile::system;
    spec.mounts.push_back(node.mount());
    Shell shell{spec};
    const auto is_refused = [&] { return contains(shell.ask("(: >/nodes/log)"), "Operation not permitted"); };
    const bool is_held = is_refused();  // false where this machine can set no rules
    shell->attach(log_device);
    CHECK_FALSE(is_refused());
    CHECK(shell.ask("mount -t tmpfs over /dev && echo ok") == "ok\n");
    const std::string why =
        "directory '/dev' (in the child): Stale file handle: the container has put something else in its place";
    CHECK(refusal([&] { shell->attach(DeviceSpec{.source = "/dev/kmsg", .target = "twin"}); }, ESTALE) ==
          "container 'test': " + why);
    CHECK(refusal([&] { shell->detach_device("log/kernel"); }, ESTALE) ==
          "container 'test': device '/dev/log/kernel'" +
              std::string{is_held ? " is detached, but its node is left: " : ", which no device rules take away: "} +
              why);
    CHECK(is_refused() == is_held);
    CHECK(shell.ask("umount /dev; ls /dev/log") == "kernel\n");
    CHECK(refusal([&] { shell->detach_device("log/kernel"); }, ENOENT) ==
          (is_held ? "container 'test': device '/dev/log/kernel': No such file or directory: it was not given to the "
                     "container, or is gone already"
                   : "it was not refused"));
}

TEST_CASE("who makes its own attach fail has the right to use the device at no time") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const LogNode node;
    ContainerSpec spec = plain(root);
    spec.mounts.push_back(node.mount());
    Shell shell{spec};
    if (shell.ask("true >/nodes/log") == "") CAISSON_SKIP("no rules for devices can be set here");
    (void)shell.ask("mkdir /dev/log; touch /dev/log/kernel");
    (void)shell.ask("while :; do true >/nodes/log && touch /dev/got; done 2>/dev/null &");
    for (int i = 0; i < 50; ++i) CHECK(contains(refusal([&] { shell->attach(log_device); }, EEXIST), "File exists"));
    CHECK(shell.ask("ls /dev | grep got") == "");
}

TEST_CASE("without rules for devices, only the removal of its node takes one away") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = plain(root);
    spec.cgroup = false;
    Shell shell{spec};
    shell->attach(log_device);
    CHECK(shell.ask("mv /dev/log/kernel /dev/kept && echo ok") == "ok\n");
    CHECK(refusal([&] { shell->detach_device("log/kernel"); }, ENOENT) ==
          "container 'test': device '/dev/log/kernel', which no device rules take away: remove its node: No such file "
          "or directory: the container has moved or replaced it");
    (void)shell.ask("mv /dev/kept /dev/log/kernel");
    shell->detach_device("log/kernel");
    CHECK(shell.ask("ls /dev/log") == "");
}

TEST_CASE("devices that cannot come are refused with their field") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Shell shell{plain(root)};
    const auto refused = [&](const DeviceSpec& device, int errnum = 0) {
        return refusal([&] { shell->attach(device); }, errnum);
    };
    CHECK(refused({.source = "kmsg"}) == "container 'test': device.source: 'kmsg' is not absolute: begin it with '/'");
    CHECK(refused({.source = "/dev/kmsg", .target = "/tmp/log"}) ==
          "container 'test': device.target: '/tmp/log' is not below /dev: say where below /dev the node is to be");
    CHECK(refused({.source = "/dev/none"}, ENOENT) ==
          "container 'test': device.source: '/dev/none': No such file or directory: name a device that the host has");
    CHECK(
        refused({.source = "/dev/kmsg", .type = DeviceSpec::Type::block}) ==
        "container 'test': device.source: '/dev/kmsg' is a character device: name a block device, or set type to any");
    CHECK(refused({.source = "/dev/kmsg", .uid = 70000}) == "container 'test': device.uid: 70000 is not in uid_map");
    (void)shell->kill();
    ContainerSpec without = plain(root, false);
    without.dev = false;
    Shell other{without};
    CHECK(refusal([&] { other->attach(log_device); }, 0) ==
          "container 'test': device.target: there is no /dev of the container's own: start it with dev");
}

TEST_CASE("mounts that cannot come are refused with their field, and leave nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    Shell shell{plain(root)};
    const std::string before = shell.ask("cat /proc/self/mountinfo");
    const auto refused = [&](const MountSpec& mount, int errnum = 0) {
        return refusal([&] { shell->attach(mount); }, errnum);
    };
    CHECK(refused(MountSpec::bind("/nowhere", "/mnt"), ENOENT) ==
          "container 'test': bind '/nowhere': No such file or directory: the source must exist on the host");
    CHECK(refused(MountSpec::bind(data.path(), "/")) ==
          "container 'test': mount.target: '/' is the root's own place: use the field root");
    CHECK(
        refused(MountSpec::bind_inside("/etc", "/mnt")) ==
        "container 'test': mount.type: bind_inside is not for a container that runs: a bind, a tmpfs and an image are");
    CHECK(refused(MountSpec::bind(data.path(), "/bin/busybox"), EINVAL) ==
          "container 'test': mount '" + data.path() +
              "' on '/bin/busybox' (in the child): Invalid argument: a directory goes on a directory, and a file on a "
              "file");
    MountSpec memory = MountSpec::tmpfs("/mnt", 1 << 20);
    memory.data = "size=what";
    CHECK(contains(refused(memory, EINVAL),
                   "container 'test': mount 'tmpfs' on '/mnt' (in the child): Invalid argument"));
    CHECK(shell.ask("cat /proc/self/mountinfo") == before);
}

TEST_CASE("what is attached to a container that is suspended is there when it goes on") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Shell shell{plain(root)};
    try {
        shell->suspend();
    } catch (const Error& e) {
        CAISSON_SKIP(e.what());
    }
    shell->attach(MountSpec::tmpfs("/mnt", 1 << 20));
    shell->attach(log_device);
    shell->resume();
    CHECK(shell.ask("stat -f -c %T /mnt; ls /dev/log") == "tmpfs\nkernel\n");
}

TEST_CASE("a container that has ended gets nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Shell shell{plain(root)};
    shell->attach(MountSpec::tmpfs("/mnt", 1 << 20));
    (void)shell->kill();
    const std::string ended = "attach to container 'test': No such process: it has ended";
    CHECK(refusal([&] { (void)shell->attach(NetworkSpec{.bridge = "br0"}); }, ESRCH) == ended);
    CHECK(refusal([&] { shell->attach(log_device); }, ESRCH) == ended);
    CHECK(refusal([&] { shell->attach(MountSpec::tmpfs("/mnt", 1 << 20)); }, ESRCH) == ended);
    const std::string gone = "detach from container 'test': No such process: it has ended";
    CHECK(refusal([&] { shell->detach_network("eth0"); }, ESRCH) == gone);
    CHECK(refusal([&] { shell->detach_device("x"); }, ESRCH) == gone);
    CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ESRCH) == gone);
}

TEST_CASE("an interface that the container has renamed keeps its name for who takes it away") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec spec = plain(root);
    spec.capabilities = CapabilitySet::application().with({"net_admin"});
    Shell shell{spec};
    CHECK(shell->attach(NetworkSpec{.bridge = "br0", .host_name = "first0"}) == "eth0");
    CHECK(shell.ask("ip link set eth0 down && ip link set eth0 name kept && echo ok") == "ok\n");
    CHECK(shell->attach(NetworkSpec{.bridge = "br0", .host_name = "second0"}) == "eth1");
    CHECK(refusal([&] { (void)shell->attach(NetworkSpec{.bridge = "br0", .name = "kept"}); }, EEXIST) ==
          "container 'test': interface 'kept' on bridge 'br0': File exists: the name is taken in the container's "
          "network namespace");
    shell->detach_network("eth0");
    CHECK_FALSE(contains(links(), "first0"));
    CHECK(contains(links(), "second0"));
}

TEST_CASE("a name on the host that somebody else was quicker to take is chosen anew, which is told before") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    Shell shell{plain(root)};
    detail::Hotplug plug = shell->hotplug("attach to");
    std::vector<std::string> told;
    std::optional<Bridge> quicker;
    const auto tell = [&](const detail::Change& change) {
        told.push_back(change.link.host_name);
        if (!quicker) quicker.emplace(Bridge::create(change.link.host_name));
    };
    plug.tell_before(tell);
    const detail::Change change = plug.attach(NetworkSpec{.bridge = "br0"});
    (void)shell->note(change);
    REQUIRE(told.size() == 2);
    CHECK(told[0] != told[1]);
    CHECK(change.link.host_name == told[1]);
    shell->detach_network("eth0");
}

TEST_CASE("a link of another network namespace is never taken for a container's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    Shell shell{plain(root)};
    CHECK(shell->attach(NetworkSpec{.bridge = "br0", .host_name = "late0"}) == "eth0");
    {
        const OwnNetwork other;
        // One of each number that the link may have.
        REQUIRE(output("for i in 2 3 4 5 6 7 8 9; do ip link add other$i index $i type bridge; done 2>&1") == "");
        const std::string before = links();
        const std::string elsewhere =
            "the container's interfaces are in another network namespace of the host's: call from that one";
        CHECK(refusal([&] { shell->detach_network("eth0"); }, EXDEV) ==
              "container 'test': interface 'eth0': Invalid cross-device link: " + elsewhere);
        CHECK(links() == before);
        CHECK(refusal([&] { (void)shell->attach(NetworkSpec{.bridge = "other2"}); }, EXDEV) ==
              "container 'test': network.bridge: 'other2': Invalid cross-device link: " + elsewhere);
        CHECK(links() == before);
    }
    CHECK(contains(links(), "late0"));
    CHECK(shell->usage(UsagePart::network).networks.size() == 1);
    shell->detach_network("eth0");
    CHECK_FALSE(contains(links(), "late0"));
    // Where it has none, it may have them anywhere.
    const OwnNetwork third;
    const Bridge there = Bridge::create("br0");
    CHECK(shell->attach(NetworkSpec{.bridge = "br0", .host_name = "late0"}) == "eth0");
    CHECK(shell->usage(UsagePart::network).networks.size() == 1);
    (void)shell->kill();
    CHECK_FALSE(contains(links(), "late0"));
}

TEST_CASE("a copy of the process attaches nothing to its original's containers") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec spec = plain(root);
    spec.networks = {NetworkSpec{.bridge = "br0", .host_name = "first0"}};
    Shell shell{spec};
    CHECK(in_child([&] {
              try {
                  (void)shell->attach(NetworkSpec{.bridge = "br0"});
              } catch (const std::logic_error&) {
                  ::_exit(0);
              }
              return 1;
          }) == 0);
    CHECK(contains(links(), "first0"));
}
