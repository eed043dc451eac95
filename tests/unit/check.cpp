#include <caisson/check.hpp>

#include <string>
#include <vector>

#include "support/doctest.hpp"
#include "support/refusal.hpp"

using namespace caisson;
using caisson_test::good;
using caisson_test::refusal;

TEST_CASE("a plain specification is accepted") {
    CHECK_NOTHROW(check(good()));
}

TEST_CASE("each refusal names the field, the value and the remedy") {
    using S = ContainerSpec;
    CHECK(refusal([](S& s) { s.name = "../x"; }) ==
          "name: '../x' is no valid name: use a letter or digit, then up to 62 letters, digits, '_', '.' and '-'");
    CHECK(refusal([](S& s) { s.root = ""; }) == "root: it is empty: give an absolute path");
    CHECK(refusal([](S& s) { s.root = "srv"; }) == "root: 'srv' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) { s.root = "/srv/../etc"; }) == "root: '/srv/../etc' holds '..': write the path without it");
    CHECK(refusal([](S& s) { s.root = std::string{"/a\0b", 4}; }) == "root: it holds a NUL byte");
    CHECK(refusal([](S& s) { s.command.clear(); }) == "command: it is empty: name the program to run, as seen inside");
    CHECK(refusal([](S& s) { s.command = {"sh"}; }) ==
          "command[0]: 'sh' is not absolute: give the program's full path inside the container");
    CHECK(refusal([](S& s) {
              s.environment = {{"A=B", "c"}};
          }) == "environment[0]: 'A=B' is no name of a variable: it must not be empty nor hold '='");
    CHECK(refusal([](S& s) {
              s.environment = {{"A", "1"}, {"B", "2"}, {"A", "3"}};
          }) == "environment[2]: 'A' is given twice: programs differ in which of the two they take");
    CHECK(refusal([](S& s) { s.uuid = std::string(131057, 'x'); }) == "uuid: it has 131057 bytes: 131056 are possible");
    CHECK(refusal([](S& s) { s.command.push_back(std::string(131072, 'x')); }) ==
          "command[1]: it has 131072 bytes: 131071 are possible");
    CHECK(refusal([](S& s) {
              s.environment = {{"A", std::string(131070, 'x')}};
          }) == "environment[0]: it has 131072 bytes: 131071 are possible");
    CHECK(refusal([](S& s) { s.command.insert(s.command.end(), 9, std::string(131071, 'x')); }) ==
          "command and environment: they have 1179659 bytes: 1048576 are possible");
    CHECK(refusal([](S& s) { s.hostname = "a b"; }) ==
          "hostname: 'a b' is no host name: use letters, digits, '-', '_' and '.'");
    CHECK(refusal([](S& s) { s.working_directory = "x"; }) ==
          "working_directory: 'x' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) { s.namespaces = s.namespaces | NamespaceSet{NamespaceKind::time}; }) ==
          "namespaces: a time namespace is not supported: remove NamespaceKind::time");
    CHECK(
        refusal([](S& s) { s.root = "/"; }) ==
        "uid_map: it is empty, but root is '/': with the host's own root say which ids the container has, for example "
        "{0, 100000, 65536}");
    CHECK(refusal([](S& s) { s.mounts.push_back(MountSpec::bind("/a", "b")); }) ==
          "mounts[0].target: 'b' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) { s.mounts.push_back(MountSpec::tmpfs("/", 1)); }) ==
          "mounts[0].target: '/' is the root's own place: use the field root");
    CHECK(refusal([](S& s) { s.networks = {{.bridge = "br0", .name = "much-too-long-name"}}; }) ==
          "networks[0].name: 'much-too-long-name' is no name of a network interface: use at most 15 bytes, no space, "
          "'/', "
          "':' nor '%'");
    CHECK(refusal([](S& s) { s.networks = {{.bridge = "br0", .mtu = 12}}; }) ==
          "networks[0].mtu: 12 bytes: 68 to 65535 are possible");
    CHECK(refusal([](ContainerSpec& s) { s.networks.assign(2, {.bridge = "br0", .host_name = "veth7"}); }) ==
          "networks[0].host_name: 'veth7' is given twice");
    CHECK(refusal([](S& s) { s.networks = {{.bridge = "br0", .name = "lo"}}; }) ==
          "networks[0].name: 'lo' is in each network namespace already: choose another");
    CHECK(refusal([](S& s) {
              s.networks = {{.bridge = "br0", .name = "eth1"}, {.bridge = "br0"}, {.bridge = "br0"}};
          }) == "networks[0].name: 'eth1' is what networks[2] is called without a name: name both");
    CHECK(refusal([](S& s) { s.stdio.out = 1; }) ==
          "stdio: it is given together with a console: set console to nothing");
    CHECK(refusal([](S& s) {
              s.cgroup = false;
              s.limits.pids = 5;
          }) == "limits: they need a control group: set cgroup to true");
    CHECK(refusal([](S& s) {
              s.cgroup = false;
              s.count_cpus = true;
          }) == "count_cpus: it needs a control group: set cgroup to true");
    CHECK(refusal([](S& s) { s.limits.pids = 4194305; }) ==
          "limits.pids: 4194305 is more than a machine can have: give 4194304 at most, or leave it out for no limit");
    CHECK(refusal([](S& s) { s.limits.pids = 4194304; }) == "accepted");
    CHECK(refusal([](S& s) { s.uuid.push_back('\0'); }) == "uuid: it holds a NUL byte");
    for (const char* root : {"//", "/.", "/./"}) {
        CHECK(refusal([&](S& s) { s.root = root; }) ==
              "root: '" + std::string{root} + "' is the host's own root: write it as '/'");
        CHECK(refusal([&](S& s) { s.mounts.push_back(MountSpec::tmpfs(root, 1)); }) ==
              "mounts[0].target: '" + std::string{root} + "' is the root's own place: use the field root");
    }
    CHECK(refusal([](S& s) { s.root = "/.hidden"; }) == "accepted");
    CHECK(refusal([](S& s) { s.uid = 65536; }) ==
          "uid: 65536 is not among the 65536 ids of an automatic map: give uid_map and gid_map");
    CHECK(refusal([](S& s) {
              s.groups = {5, 65536};
          }) == "groups[1]: 65536 is not among the 65536 ids of an automatic map: give uid_map and gid_map");
    CHECK(refusal([](S& s) {
              s.uid_map = s.gid_map = {{0, 100000, 10}};
              s.groups = {10};
          }) == "groups[0]: 10 is not in gid_map");
    CHECK(refusal([](S& s) {
              s.mounts.push_back(MountSpec::bind("/a", "/b"));
              s.mounts.back().work = "/w";
          }) == "mounts[0].work: it is given for bind: only an overlay has one");
    CHECK(refusal([](S& s) {
              s.mounts.push_back(MountSpec::tmpfs("/b", 1));
              s.mounts.back().source.push_back('\0');
          }) == "mounts[0].source: it holds a NUL byte");
    CHECK(refusal([](S& s) { s.limits.memory = 0; }) ==
          "limits.memory: 0 bytes hold no process: leave it out for no limit");
    CHECK(refusal([](S& s) {
              s.limits.memory = 100;
          }).starts_with("limits.memory: 100 bytes are less than a page: give "));
}

TEST_CASE("id maps that the kernel would refuse are refused by name") {
    using Maps = std::vector<IdMap>;
    const auto with = [](const Maps& maps) {
        return refusal([&](ContainerSpec& s) {
            s.uid_map = maps;
            s.gid_map = {{0, 100000, 65536}};
        });
    };
    CHECK(with({{0, 100000, 65536}}) == "accepted");
    CHECK(with({}) == "uid_map: it is empty: uid_map and gid_map come together");
    CHECK(with({{0, 100000, 0}}) == "uid_map[0]: {0, 100000, 0} has no ids");
    CHECK(with({{0, 4294967290, 10}}) == "uid_map[0]: {0, 4294967290, 10} goes past the last id, 4294967294");
    CHECK(with({{0, 0, 4294967295}}) == "accepted");
    CHECK(with({{0, 100000, 10}, {5, 200000, 10}}) == "uid_map: {0, 100000, 10} and {5, 200000, 10} overlap inside");
    CHECK(with({{0, 100000, 10}, {50, 100005, 10}}) == "uid_map: {0, 100000, 10} and {50, 100005, 10} overlap outside");
    CHECK(with({{1, 100000, 10}}) ==
          "uid_map: root (id 0) is not in it: map inside id 0: the container is made by its root");
    Maps many;
    for (std::uint32_t i = 0; i < 341; ++i) many.push_back({i, 1000 + 2 * i, 1});
    CHECK(with(many) == "uid_map: 341 lines: the kernel takes at most 340");
    many.pop_back();
    CHECK(with(many) == "accepted");
    for (IdMap& m : many) m.outside += 4000000000;
    CHECK(with(many) == "uid_map: its 340 lines have 5670 bytes: the kernel takes 4095: give fewer lines");
}

TEST_CASE("a map without a user namespace is refused") {
    CHECK(refusal([](ContainerSpec& s) {
              s.namespaces = s.namespaces.without(NamespaceKind::user);
              s.uid_map = {{0, 100000, 65536}};
          }) ==
          "uid_map: there is a map, but no user namespace: add NamespaceKind::user to namespaces, or remove the map");
}

TEST_CASE("limits out of the kernel's range are refused with the range") {
    using L = LimitSpec;
    constexpr std::uint64_t unlimited = L::unlimited;
    const auto limits = [](auto change) { return refusal([&](ContainerSpec& s) { change(s.limits); }); };
    const auto range = [](const std::string& field, const std::string& value, const std::string& least_and_most) {
        return "limits." + field + ": " + value + " is not possible: give " + least_and_most;
    };
    CHECK(limits([](L& l) { l.cpu_shares = 1; }) == range("cpu_shares", "1", "2 to 262144"));
    CHECK(limits([](L& l) { l.cpu_shares = 262145; }) == range("cpu_shares", "262145", "2 to 262144"));
    CHECK(limits([](L& l) { l.cpu_quota = 999; }) == range("cpu_quota", "999", "1000 to 17592186044415"));
    CHECK(limits([](L& l) { l.cpu_quota = 17592186044416; }) ==
          range("cpu_quota", "17592186044416", "1000 to 17592186044415"));
    CHECK(limits([](L& l) { l.cpu_period = 1000001; }) == range("cpu_period", "1000001", "1000 to 1000000"));
    CHECK(limits([&](L& l) { l.cpu_period = unlimited; }) == range("cpu_period", "no limit", "1000 to 1000000"));
    CHECK(limits([](L& l) { l.block_weight = 0; }) == range("block_weight", "0", "1 to 1000"));
    CHECK(limits([](L& l) { l.block = {{.device = "8:0", .weight = 1001}}; }) ==
          range("block[0].weight", "1001", "1 to 1000"));
    CHECK(limits([&](L& l) {
              l.cpu_shares = 2;
              l.cpu_quota = 1000;
              l.cpu_period = 1000000;
              l.pids = unlimited;
              l.memory = l.memory_soft = l.memory_and_swap = unlimited;
              l.cpus = "0-3,6";
              l.memory_nodes = "0";
              l.block_weight = 1000;
              l.block = {{.device = "8:0", .weight = 1}, {.device = "/dev/sdb", .read_operations = unlimited}};
              l.huge_pages = {{2097152, 0}, {1073741824, unlimited}};
          }) == "accepted");
}

TEST_CASE("limits that contradict each other, or mean nothing, are refused") {
    using L = LimitSpec;
    const auto limits = [](auto change) { return refusal([&](ContainerSpec& s) { change(s.limits); }); };
    CHECK(limits([](L& l) { l.memory = 4096, l.memory_soft = 8192; }) ==
          "limits.memory_soft: 8192 is more than limits.memory, 4096: give less than that");
    CHECK(limits([](L& l) { l.memory = 8192, l.memory_and_swap = 4096; }) ==
          "limits.memory_and_swap: 4096 is less than limits.memory, 8192: it counts RAM and swap together");
    CHECK(limits([](L& l) { l.memory = L::unlimited, l.memory_and_swap = 4096; }) ==
          "limits.memory_and_swap: 4096 is less than limits.memory, which is no limit: it counts RAM and swap "
          "together");
    CHECK(
        limits([](L& l) { l.memory_and_swap = 4096; }) ==
        "limits.memory_and_swap: it is given without limits.memory: give that too: both may be the same, for no swap");
    CHECK(limits([](L& l) { l.memory_soft = 0; }) ==
          "limits.memory_soft: 0 bytes hold no process: leave it out for no limit");
    for (const char* list : {"0-", "-1", "1-0", "0,", ",0", "a", "0 1", "0,,1", "00", "4000000"}) {
        CAPTURE(list);
        CHECK(limits([&](L& l) { l.cpus = list; }) ==
              "limits.cpus: '" + std::string{list} + "' is no list of CPUs: write it as '0-3,6'");
    }
    CHECK(limits([](L& l) { l.memory_nodes = "x"; }) ==
          "limits.memory_nodes: 'x' is no list of memory nodes: write it as '0-3,6'");
    CHECK(limits([](L& l) { l.block = {{.device = "sda", .weight = 1}}; }) ==
          "limits.block[0].device: 'sda' is not absolute: begin it with '/'");
    CHECK(limits([](L& l) { l.block = {{.device = "/dev/sda"}}; }) ==
          "limits.block[0]: it limits nothing: give a weight or a rate, or leave it out");
    CHECK(limits([](L& l) { l.block = {{.device = "/dev/sda", .write_bytes = 0}}; }) ==
          "limits.block[0].write_bytes: 0 a second never ends: leave it out for no limit");
    CHECK(limits([](L& l) { l.block = {{.device = "8:0", .read_operations = std::uint64_t{1} << 32}}; }) ==
          "limits.block[0].read_operations: 4294967296 is not possible: give 1 to 4294967294");
    CHECK(
        limits([](L& l) {
            l.block = {{.device = "8:0", .weight = 1}, {.device = "8:16", .weight = 1}, {.device = "8:0", .weight = 2}};
        }) == "limits.block[2].device: '8:0' is that of limits.block[0] too: give both in one");
    CHECK(limits([](L& l) {
              l.huge_pages = {{3000000, 1}};
          }) == "limits.huge_pages[0].page_size: 3000000 is no size of a page: give bytes, as 2097152");
    CHECK(limits([](L& l) {
              l.huge_pages = {{2097152, 0}, {2097152, 1}};
          }) == "limits.huge_pages[1].page_size: 2097152 is that of limits.huge_pages[0] too: give one limit");
    CHECK(refusal([](ContainerSpec& s) { s.cgroup = false, s.limits.cpus = "0"; }) ==
          "limits: they need a control group: set cgroup to true");
}

TEST_CASE("a change of limits is checked as the limits of a start are, and may name memory and swap alone") {
    LimitSpec change;
    change.memory_and_swap = 4096;
    CHECK_NOTHROW(check_limit_change(change));
    change.pids = 0;
    CHECK_THROWS_WITH(check_limit_change(change), "limits.pids: 0 allows no process: leave it out for no limit");
}

TEST_CASE("consoles that cannot be are refused") {
    using S = ContainerSpec;
    CHECK(refusal([](S& s) {
              s.console.reset();
              s.more_consoles.resize(1);
          }) == "more_consoles: they are given without a console: set console, too");
    CHECK(refusal([](S& s) {
              s.dev = false;
              s.more_consoles.resize(1);
          }) == "more_consoles: there is no /dev of the container's own: set dev to true");
    CHECK(refusal([](S& s) { s.more_consoles.resize(63); }) == "more_consoles: 63 are given: at most 62 are possible");
    CHECK(refusal([](S& s) { s.more_consoles.resize(62); }) == "accepted");
    CHECK(refusal([](S& s) { s.console->scroll_back = 16777217; }) ==
          "console.scroll_back: 16777217 bytes: at most 16777216 are possible");
    CHECK(refusal([](S& s) { s.console->log_limit = 8192; }) == "console.log_limit: there is no log: give log, too");
    CHECK(refusal([](S& s) {
              s.more_consoles.resize(2);
              s.more_consoles[1].log = "x";
          }) == "more_consoles[1].log: 'x' is not absolute: begin it with '/'");
    CHECK(refusal([](S& s) { s.console->log = "/var/log/"; }) ==
          "console.log: '/var/log/' is a directory: name the file in it");
    CHECK(refusal([](S& s) {
              s.console->log = "/l";
              s.console->log_limit = 4095;
          }) == "console.log_limit: 4095 bytes: give at least 4096, or 0 for no limit");
    CHECK(refusal([](S& s) {
              s.more_consoles.resize(1);
              s.console->log = "/l";
              s.more_consoles[0].log = "//./l";
          }) == "more_consoles[0].log: '//./l' is that of console: give each a file of its own");
    // What a log becomes when it has grown is not another's either.
    for (const bool first_is_old : {false, true}) {
        CHECK(refusal([&](S& s) {
                  s.more_consoles.resize(1);
                  ConsoleSpec& limited = first_is_old ? s.more_consoles[0] : *s.console;
                  limited.log = "/l";
                  limited.log_limit = 4096;
                  (first_is_old ? *s.console : s.more_consoles[0]).log = "/./l.1";
              }) == "more_consoles[0].log: '" + std::string{first_is_old ? "/l.1" : "/./l.1"} +
                        "' is that of console: give each a file of its own");
    }
    CHECK(refusal([](S& s) {
              s.more_consoles.resize(1);
              s.console->log = "/l";
              s.more_consoles[0].log = "/l.1";
          }) == "accepted");
    CHECK(refusal([](S& s) {
              s.more_consoles.resize(1);
              s.more_consoles[0].log = "/.";
          }) == "more_consoles[0].log: '/.' is a directory: name the file in it");
    CHECK(
        refusal([](S& s) { s.devices = {{.source = "/dev/x", .target = "tty1"}}; }) ==
        "devices[0].target: 'tty1' is not free: '/dev/tty1' is a console of the container's: choose another place, or "
        "set console to nothing");
    CHECK(refusal([](S& s) { s.devices = {{.source = "/dev/x", .target = "tty2"}}; }) == "accepted");
    CHECK(refusal([](S& s) {
              s.console.reset();
              s.devices = {{.source = "/dev/x", .target = "tty1"}};
          }) == "accepted");
}
