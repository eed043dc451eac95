// Which devices a container has, and that the kernel holds it to them.
#include <caisson/container.hpp>
#include <caisson/detail/device_control.hpp>
#include <caisson/mount.hpp>

#include <cerrno>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "support/cgroup.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

// The kernel's log: a device that each kernel has, no container, and that anybody may open for writing without effect.
constexpr unsigned log_major = 1;
constexpr unsigned log_minor = 11;
constexpr DeviceRule to_log{DeviceRule::Type::character, log_major, log_minor, {false, true, false}};

/// Nodes on a file system of the host, as a volume that somebody else could write to may hold.
class Nodes {
public:
    Nodes() {
        make("log", log_major, log_minor);
        make("null", 1, 3);
        make("memory", 1, 1);
    }
    /// A bind of them on which device nodes work.
    [[nodiscard]] MountSpec mount() const { return MountSpec::bind(directory_.path(), "/nodes", {.no_dev = false}); }
    [[nodiscard]] std::string operator/(const std::string& name) const { return directory_ / name; }

private:
    void make(const char* name, unsigned major, unsigned minor) const {
        const std::string path = directory_ / name;
        REQUIRE(::mknod(path.c_str(), S_IFCHR | 0666, makedev(major, minor)) == 0);
        REQUIRE(::chmod(path.c_str(), 0666) == 0);
    }
    TestDirectory directory_;
};

/// A shell script that tells of each path whether it can be opened for writing.
std::string try_to_write(const std::string& paths) {
    return "for p in " + paths + "; do if (: > $p) 2>/tmp/e; then echo $p ok; else sed 's/.*: //' /tmp/e; fi; done";
}

/// Why device rules cannot be tried here; null where they can.
const char* cannot_limit() {
    if (!can_run()) return why_not();
    try {
        Cgroup group = Cgroup::create("probe");
        detail::DeviceControl{}.apply(group, {.asked = true});
        return nullptr;
    } catch (const Error&) {
        return "this machine can set no device rules";
    }
}

/// The directory of the devices in cgroup v1; null where they are not there.
const CgroupDirectory* devices_of(const Cgroup& group) {
    for (const CgroupDirectory& d : group.directories()) {
        if (detail::list_has(d.controllers, "devices")) return &d;
    }
    return nullptr;
}

}  // namespace

TEST_CASE("a node that was made beforehand opens only if each container has the device") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const Nodes nodes;
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = shell(root, try_to_write("/nodes/log /nodes/memory /nodes/null"));
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        spec.mounts.push_back(nodes.mount());
        CHECK(run(spec) == "Operation not permitted\nOperation not permitted\n/nodes/null ok\n");
    }
}

TEST_CASE("root that is root outside makes no node of a device that it may not use") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "mknod /dev/memory c 1 1; mknod /dev/disk b 8 0; mknod /dev/again c 1 3 && "
                               "echo x > /dev/again && echo null is there again");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::all();
    CHECK(run(spec) ==
          "mknod: /dev/memory: Operation not permitted\nmknod: /dev/disk: Operation not permitted\n"
          "null is there again\n");
}

TEST_CASE("root that is root outside cannot take the rules off by mounting the control groups") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    {
        const Cgroup group = Cgroup::create("probe");
        if (group.into_fd() < 0) CAISSON_SKIP("on a machine with cgroup v1 alone it can");
    }
    ContainerSpec spec = shell(root,
                               "mkdir /v1; mount -t cgroup -o devices none /v1 2>/dev/null && "
                               "echo a > /v1/devices.allow && echo lifted; mknod /dev/memory c 1 1");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::all();
    const std::string text = run(spec);
    CAPTURE(text);
    CHECK(text.ends_with("mknod: /dev/memory: Operation not permitted\n"));
}

TEST_CASE("what each container has works under its rules") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "for d in zero full random urandom null tty ptmx pts/0 console; do "
                               "(: < /dev/$d) 2>&1 || echo $d; done; (echo x > /dev/full) 2>&1; echo end > /dev/tty");
    CHECK(run(spec) == "sh: write error: No space left on device\nend\n");
}

TEST_CASE("a device of the spec is a node with its numbers, owner and mode, and can be used") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const Nodes nodes;
    const mode_t before = ::umask(077);
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = shell(root,
                                   "stat -c '%F %t:%T %u:%g %a' /dev/deep/below/log /dev/deep/null; "
                                   "stat -c '%u:%g %a' /dev/deep /dev/deep/below; " +
                                       try_to_write("/dev/deep/below/log"));
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        spec.devices = {
            {.source = nodes / "log", .target = "deep/below/log", .access = {false, true, false}, .mode = 0624},
            {.source = nodes / "null", .target = "/dev/deep/null", .mode = 0600, .uid = 7, .gid = 8}};
        CHECK(run(spec) ==
              "character special file 1:b 0:0 624\ncharacter special file 1:3 7:8 600\n"
              "0:0 755\n0:0 755\n/dev/deep/below/log ok\n");
    }
    (void)::umask(before);
}

TEST_CASE("a device that may only be read from cannot be written to, nor made again") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const Nodes nodes;
    ContainerSpec spec = shell(root, try_to_write("/dev/log") + "; mknod /dev/log2 c 1 11");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::all();
    spec.devices = {{.source = nodes / "log", .target = "log", .access = {true, false, false}, .mode = 0666}};
    CHECK(run(spec) == "Operation not permitted\nmknod: /dev/log2: Operation not permitted\n");
}

TEST_CASE("a rule of the spec lets a container use a node that it has from elsewhere") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const Nodes nodes;
    ContainerSpec spec = shell(root, try_to_write("/nodes/log /nodes/memory"));
    spec.mounts.push_back(nodes.mount());
    spec.device_rules = {to_log};
    CHECK(run(spec) == "/nodes/log ok\nOperation not permitted\n");
}

TEST_CASE("a device that does not exist refuses the start before anything is made") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.devices = {{.source = "/dev/null", .target = "x"}, {.source = "/dev/there-is-none"}};
    // Were anything made before, the root would be what is missed.
    spec.root = root / "there-is-none-either";
    CHECK(error_of(spec) ==
          "container 'test': devices[1].source: '/dev/there-is-none': No such file or directory: name a device that "
          "the host has");
    spec.devices = {{.source = root / "etc", .target = "x"}};
    CHECK(error_of(spec) == "container 'test': devices[0].source: '" + root / "etc" +
                                "' is no device: name a device node, such as '/dev/fuse'");
}

TEST_CASE("on v1, what the group above may not use is left out, or an error where the spec asks for it") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const OwnParent parent;
    std::string deny;
    for (const std::string& path : parent.paths) {
        if (exists(path + "/devices.deny")) deny = path + "/devices.deny";
    }
    if (deny.empty()) CAISSON_SKIP("this machine has no devices controller of cgroup v1");
    const LeavesNothing nothing;
    const TestRoot root;
    const Nodes nodes;
    for (const char* rule : {"c 1:11 rwm", "c 1:7 rwm"}) {
        REQUIRE(detail::sys::write_file(AT_FDCWD, deny.c_str(), rule));
    }
    ContainerSpec spec = shell(root, try_to_write("/dev/full /dev/zero"));
    spec.cgroup_parent = "/" + parent.name;
    CHECK(run(spec) == "Operation not permitted\n/dev/zero ok\n");
    spec.device_rules = {to_log};
    const std::string text = error_of(spec);
    CAPTURE(text);
    CHECK(text.find("container 'test': device rules for control group 'caisson.test.") == 0);
    CHECK(text.find("write 'c 1:11 w' to '") != std::string::npos);
    CHECK(text.find("/devices.allow': Operation not permitted: the group above may not use this device itself") !=
          std::string::npos);
}

TEST_CASE("on v1, the group's own list is what is in force") {
    if (const char* why = cannot_limit()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("list");
    const CgroupDirectory* d = devices_of(group);
    if (d == nullptr) CAISSON_SKIP("this machine has no devices controller of cgroup v1");
    detail::DeviceControl control;
    control.allow(to_log);
    control.apply(group, {.asked = true});
    CHECK(read_file(path_of(*d, group) + "/devices.list") ==
          "c 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:2 rwm\nc 136:* rwm\nc 1:11 w\n");
}

TEST_CASE("on v2, a program holds the group and those below it to the rules for as long as they live") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("program");
    if (group.into_fd() < 0) CAISSON_SKIP("this machine has no cgroup v2");
    try {
        detail::attach_device_program(group.into_fd(), {{DeviceRule::Type::character, 1, 3, {true, true, false}}});
    } catch (const Error& e) {
        CAISSON_SKIP(e.what());
    }
    const TestDirectory directory;
    const std::string node = directory / "node";
    const auto try_all = [&] {
        const auto opens = [](const char* path, int flags) {
            const int fd = ::open(path, flags | O_CLOEXEC);
            return fd >= 0 ? 0 : errno;
        };
        if (opens("/dev/null", O_RDWR) != 0) return 1;
        if (opens("/dev/zero", O_RDONLY) != EPERM) return 2;
        if (::mknod(node.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0 || errno != EPERM) return 3;
        return 0;
    };
    CHECK(code_of(spawn_in(group, try_all)) == 0);

    const std::string below = path_of(group.directories().front(), group) + "/below";
    REQUIRE(::mkdir(below.c_str(), 0755) == 0);
    const Fd inner = detail::sys::open(below, O_PATH | O_DIRECTORY);
    // A group below may take rights away, and give none.
    detail::attach_device_program(inner.get(), {{DeviceRule::Type::character, {}, {}, {true, true, true}}});
    CHECK(code_of(spawn_in(group, [&] {
              if (!detail::sys::write_file(AT_FDCWD, (below + "/cgroup.procs").c_str(), "0")) return 9;
              return try_all();
          })) == 0);
}

TEST_CASE("on v2, the kernel takes programs of every shape") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Cgroup group = Cgroup::create("shapes");
    if (group.into_fd() < 0) CAISSON_SKIP("this machine has no cgroup v2");
    try {
        detail::attach_device_program(group.into_fd(), {});
    } catch (const Error& e) {
        CAISSON_SKIP(e.what());
    }
    constexpr auto character = DeviceRule::Type::character;
    constexpr auto block = DeviceRule::Type::block;
    constexpr DeviceAccess all{true, true, true};
    constexpr DeviceAccess some{true, false, false};
    const std::vector<DeviceRule> shapes{{character, {}, {}, all}, {character, {}, 1, some},
                                         {character, 1, {}, all},  {character, 1, 1, all},
                                         {block, {}, {}, some},    {block, 4095, 1048575, all}};
    for (const DeviceRule& first : shapes) {
        for (const DeviceRule& second : shapes) {
            CAPTURE(detail::device_rule_text(first));
            CAPTURE(detail::device_rule_text(second));
            CHECK_NOTHROW(detail::attach_device_program(group.into_fd(), {first, second}));
        }
    }
    std::vector<DeviceRule> many;
    for (std::uint32_t minor = 0; minor < 1000; ++minor) many.push_back({block, 8, minor, some});
    CHECK_NOTHROW(detail::attach_device_program(group.into_fd(), many));
}

TEST_CASE("a node of the host's /dev that is bound where ids are mapped is told what to do instead") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const Fd node = detail::sys::open("/dev/null", O_PATH);
    const std::string file_system = detail::file_system_of(node.get());
    if (file_system != "devtmpfs") CAISSON_SKIP(("/dev is on " + file_system).c_str());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.mounts = {MountSpec::bind("/dev/null", "/node")};
    CHECK(error_of(spec) ==
          "container 'test': id map of mount on '/node', which is on devtmpfs: Invalid argument: a node of the host's "
          "/dev cannot be id-mapped: name the device in devices, for a node of the container's own");
}
