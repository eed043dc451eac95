// Devices and device rules as values: what is refused, and what a rule is called on cgroup v1.
#include <caisson/check.hpp>
#include <caisson/detail/device_control.hpp>
#include <caisson/detail/device_node.hpp>

#include <algorithm>
#include <string>

#include <sys/sysmacros.h>

#include "support/doctest.hpp"
#include "support/refusal.hpp"

using namespace caisson;

namespace {

template <class Change>
std::string refusal(Change change) {
    return caisson_test::refusal([&](ContainerSpec& spec) {
        spec.devices = {{.source = "/dev/fuse"}};
        change(spec);
    });
}
std::string refused_target(const std::string& target, const std::string& source = "/dev/fuse") {
    return refusal([&](ContainerSpec& s) { s.devices = {{.source = source, .target = target}}; });
}
std::string refused_rule(const DeviceRule& rule) {
    return refusal([&](ContainerSpec& s) { s.device_rules = {rule}; });
}
std::string not_found(const std::string& source, DeviceSpec::Type type = {}) {
    try {
        (void)detail::DeviceNode::find({.source = source, .type = type}, "devices[3]");
    } catch (const Error& e) {
        CHECK(e.step() == Step::check_spec);
        return e.what();
    }
    return "found";
}
constexpr auto character = DeviceRule::Type::character;
constexpr auto block = DeviceRule::Type::block;

}  // namespace

TEST_CASE("a device may be anywhere below /dev") {
    CHECK(refused_target("") == "accepted");
    CHECK(refused_target("net/tun") == "accepted");
    CHECK(refused_target("/dev/mapper/x") == "accepted");
    CHECK(refused_target("node", "/srv/node") == "accepted");
}

TEST_CASE("a device's place that is not below /dev, or not free, is refused by name") {
    CHECK(refused_target("", "/srv/node") ==
          "devices[0].target: it is empty, and source '/srv/node' is not below /dev: say where below /dev the node is "
          "to be");
    CHECK(refused_target("/etc/x") ==
          "devices[0].target: '/etc/x' is not below /dev: say where below /dev the node is to be");
    CHECK(refused_target("../etc/x") ==
          "devices[0].target: '../etc/x' is no path of a node: write it without '//', '.' and '..'");
    for (const char* bad : {"a//b", "a/", "./a", "a/../b", "/dev/", "."}) {
        CAPTURE(bad);
        CHECK(refused_target(bad).find(" is no path of a node: ") != std::string::npos);
    }
    CHECK(refused_target("null") ==
          "devices[0].target: 'null' is not free: each container has '/dev/null': choose another place");
    for (const char* bad : {"pts/0", "/dev/console", "fd/3", "shm/x", "ptmx", "stdin", "tty"}) {
        CAPTURE(bad);
        CHECK(refused_target(bad).find(" is not free: ") != std::string::npos);
    }
    CHECK(refusal([](ContainerSpec& s) { s.devices.push_back({.source = "/dev/kvm", .target = "fuse"}); }) ==
          "devices[1].target: 'fuse' collides with that of devices[0]: choose another place");
    CHECK(refusal([](ContainerSpec& s) { s.devices.push_back({.source = "/dev/kvm", .target = "fuse/kvm"}); }) ==
          "devices[1].target: 'fuse/kvm' collides with that of devices[0]: choose another place");
    CHECK(refusal([](ContainerSpec& s) { s.devices.push_back({.source = "/dev/kvm", .target = "fuse2"}); }) ==
          "accepted");
}

TEST_CASE("what else a device cannot be is refused by name") {
    using S = ContainerSpec;
    CHECK(refusal([](S& s) { s.devices[0].source = "fuse"; }) ==
          "devices[0].source: 'fuse' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) {
              s.devices[0].target = std::string{"a\0b", 3};
          }) == "devices[0].target: it holds a NUL byte");
    CHECK(refusal([](S& s) { s.dev = false; }) == "devices: there is no /dev of the container's own: set dev to true");
    CHECK(refusal([](S& s) {
              s.devices[0].access = {false, false, false};
          }) == "devices[0].access: it allows nothing: allow to read, to write or to make, or leave it out");
    CHECK(refusal([](S& s) { s.cgroup = false; }) == "accepted");
    CHECK(refusal([](S& s) {
              s.cgroup = false;
              s.devices[0].access.write = false;
          }) == "devices[0].access: to allow less than to read and write needs a control group: set cgroup to true");
    CHECK(refusal([](S& s) { s.devices[0].mode = 04755; }) ==
          "devices[0].mode: it has more than permissions: 0 to 0777 are possible");
    CHECK(refusal([](S& s) { s.devices[0].uid = 65536; }) ==
          "devices[0].uid: 65536 is not among the 65536 ids of an automatic map: give uid_map and gid_map");
    CHECK(refusal([](S& s) {
              s.uid_map = s.gid_map = {{0, 100000, 10}};
              s.devices[0].gid = 10;
          }) == "devices[0].gid: 10 is not in gid_map");
    CHECK(refusal([](S& s) {
              s.namespaces = s.namespaces.without(NamespaceKind::user);
              s.devices[0].uid = 0xffffffff;
          }) == "devices[0].uid: 4294967295 is no id");
}

TEST_CASE("a rule that allows nothing, or names no device, is refused by name") {
    CHECK(refused_rule({character, 4095, 1048575, {}}) == "accepted");
    CHECK(refused_rule({block, {}, {}, {}}) == "accepted");
    CHECK(refused_rule({block, 8, 0, {false, false, false}}) ==
          "device_rules[0].access: it allows nothing: allow to read, to write or to make, or leave it out");
    CHECK(refused_rule({block, 4096, 0, {}}) ==
          "device_rules[0].major: 4096 is no device number: the kernel has 0 to 4095");
    CHECK(refused_rule({block, 0, 1048576, {}}) ==
          "device_rules[0].minor: 1048576 is no device number: the kernel has 0 to 1048575");
    CHECK(refusal([](ContainerSpec& s) {
              s.device_rules = {{}};
              s.cgroup = false;
          }) == "device_rules: they need a control group: set cgroup to true");
}

TEST_CASE("a source that is not there, or no device, is named with its remedy") {
    CHECK(not_found("/dev/there-is-none") ==
          "devices[3].source: '/dev/there-is-none': No such file or directory: name a device that the host has");
    CHECK(not_found("/proc/self/status") ==
          "devices[3].source: '/proc/self/status' is no device: name a device node, such as '/dev/fuse'");
    CHECK(not_found("/dev/null", DeviceSpec::Type::block) ==
          "devices[3].source: '/dev/null' is a character device: name a block device, or set type to any");
    CHECK(not_found("/dev/null", DeviceSpec::Type::character) == "found");
}

TEST_CASE("a device of the host becomes a node with its numbers and the rule for it") {
    const auto node = detail::DeviceNode::find({.source = "/dev/zero", .target = "a/b", .mode = 0640}, "devices[0]");
    CHECK(node.path == "a/b");
    CHECK(node.mode == (S_IFCHR | 0640u));
    CHECK(node.device == makedev(1, 5));
    CHECK(node.rule({true, false, false}) == DeviceRule{character, 1, 5, {true, false, false}});
}

TEST_CASE("a rule has the text that devices.allow takes") {
    CHECK(detail::device_rule_text({character, 136, {}, {true, true, true}}) == "c 136:* rwm");
    CHECK(detail::device_rule_text({block, {}, {}, {true, false, false}}) == "b *:* r");
    CHECK(detail::device_rule_text({character, 10, 229, {}}) == "c 10:229 rw");
}

TEST_CASE("two rules for one device become one with the access of both") {
    detail::DeviceControl control;
    const std::size_t standard = control.rules().size();
    control.allow({block, 7, 1, {true, false, false}});
    control.allow({block, 7, 1, {false, true, false}});
    control.allow({character, 1, 3, {true, false, false}});
    const std::vector<DeviceRule> rules = control.rules();
    REQUIRE(rules.size() == standard + 1);
    CHECK(rules.back() == DeviceRule{block, 7, 1, {true, true, false}});
    CHECK(std::find(rules.begin(), rules.end(), DeviceRule{character, 1, 3, {true, true, true}}) != rules.end());
}

TEST_CASE("where a group cannot be held to rules, only a default of a user namespace is let go") {
    using Demand = detail::DeviceControl::Demand;
    const Cgroup nowhere;
    const detail::DeviceControl control;
    CHECK_NOTHROW(control.apply(nowhere, {}));
    for (const Demand& demand : {Demand{.root_outside = true}, Demand{.asked = true}}) {
        try {
            control.apply(nowhere, demand);
            FAIL("it was let go");
        } catch (const Error& e) {
            CHECK(e.step() == Step::cgroup);
            CHECK(std::string{e.what()} ==
                  "device rules for control group '': there is neither cgroup v1's controller 'devices' nor cgroup v2: "
                  "mount one of them so that the caller may write to it");
        }
    }
}
