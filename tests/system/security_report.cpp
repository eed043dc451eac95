// What security_report() reads back of running containers, friendly and not.
#include <caisson/container.hpp>
#include <caisson/security_report.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using caisson_test::Host;
using caisson_test::Place;
using caisson_test::TestRoot;
using caisson_test::why_not;

namespace {

bool can_run() {
    return why_not() == nullptr;
}
bool is_there(const std::string& path) {
    return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}
bool has(const std::vector<std::string>& list, std::string_view text) {
    return std::find(list.begin(), list.end(), text) != list.end();
}
ContainerSpec sleeper(const TestRoot& root, const std::string& before = "") {
    return caisson_test::shell(root, before + "echo ready && exec sleep 1000");
}
/// Runs until it has said that it is ready.
Container started(const ContainerSpec& spec) {
    Container container = Container::start(spec);
    std::string said;
    for (char c = 0; said.find("ready") == std::string::npos && ::read(container.console()->fd(), &c, 1) == 1;) {
        said += c;
    }
    INFO(said);
    REQUIRE(said.find("ready") != std::string::npos);
    return container;
}
std::string error_of_report(Container& container) {
    try {
        return container.security_report().str();
    } catch (const Error& e) {
        CHECK(e.code().value() == ESRCH);
        return e.what();
    }
}

}  // namespace

TEST_CASE("the report of a container says what the kernel holds it by") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = started(sleeper(root));
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.pid == container.init().pid());
    CHECK(r.namespaces == ContainerSpec{}.namespaces);
    REQUIRE(r.uid_map.size() == 1);
    CHECK(r.uid_map[0].inside == 0);
    CHECK(r.uid_map[0].count == 65536);
    CHECK(r.uid_map[0].outside >= 0x70000000);
    CHECK(r.gid_map == r.uid_map);
    CHECK(r.uid == r.uid_map[0].outside);
    CHECK(r.gid == r.uid_map[0].outside);
    CHECK(r.groups.empty());
    CHECK(r.capabilities == CapabilitySpec{CapabilitySet::application()});
    CHECK(r.no_new_privileges);
    CHECK(r.masks_hold());
    CHECK(r.oom_score_adj == 0);
    for (const std::string& path : ContainerSpec::default_masked_paths()) {
        CAPTURE(path);
        CHECK(has(r.masked_paths, path) == is_there(path));
    }
    CHECK(has(r.read_only_paths, "/sys"));
    CHECK(has(r.read_only_paths, "/proc/sys"));
    CHECK(r.open_paths.empty());
    CHECK(r.writable_paths.empty());
    CHECK(has(r.masked_paths, "/proc/keys"));
    CHECK_FALSE(r.root_read_only);
    CHECK(r.host_paths.empty());
    CHECK_FALSE(r.host_root);
    CHECK_FALSE(r.host_devices);
    CHECK(r.cgroup_mount == CgroupMount::none);
    CHECK(r.resource_limits.size() == 16);
    CHECK(r.seccomp == SecurityReport::Seccomp::filter);
    CHECK(r.seccomp_filters == 1);
    CHECK((r.device_rules || r.device_programs.value_or(0) > 0));
    CHECK(r.weaker().empty());
    // The machine's own limits may be lower than none.
    if (!r.memory_limit && !r.pids_limit) CHECK(r.stricter().empty());
    CHECK(r == container.security_report());
}

TEST_CASE("with an init of caisson's the report is about the command, which is what is held") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    // Whoever is orphaned is init's child as well.
    ContainerSpec spec = sleeper(root, "(sleep 1000 &); (sleep 1000 &); ");
    spec.init = true;
    spec.capabilities = CapabilitySet::application().with({"sys_admin"});
    {
        Container container = started(spec);
        const SecurityReport r = container.security_report();
        CAPTURE(r.str());
        CHECK(r.pid != container.init().pid());
        CHECK(r.capabilities == spec.capabilities);
        CHECK(r.no_new_privileges);
        CHECK(r.seccomp == SecurityReport::Seccomp::filter);
        CHECK(r.seccomp_filters == 1);
        CHECK_FALSE(r.masks_hold());
        CHECK(r.weaker().size() == 2);
        (void)container.kill();
        CHECK(error_of_report(container).find("it has ended") != std::string::npos);
    }
    const Place place;
    spec = place.spec("web");
    spec.init = true;
    Helper helper = Helper::start(spec, place.options);
    const SecurityReport r = helper.security_report();
    CHECK(r.pid != helper.info().init);
    CHECK(r.seccomp_filters == 1);
    CHECK(r.weaker().empty());
    (void)helper.kill();
}

TEST_CASE("the report names what a container sees of the host's files, and nothing of its own") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const caisson_test::TestDirectory data;
    // What it has bound itself is its own.
    ContainerSpec spec = sleeper(root, "mkdir /again && mount -o bind /bin /again || exit 1; ");
    spec.capabilities = CapabilitySet::application().with({"sys_admin"});
    spec.seccomp.profile = SeccompProfile::system;
    spec.mounts = {MountSpec::tmpfs("/scratch", 1 << 20), MountSpec::bind(data.path(), "/of host"),
                   MountSpec::bind(data.path(), "/scratch/again", {.read_only = true})};
    const Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.host_paths == std::vector<std::string>{"/of host", "/scratch/again"});
    CHECK(has(r.weaker(), "files of the host are seen: /of host, /scratch/again"));
}

TEST_CASE("what is masked is told where another mount shows it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = sleeper(root);
    MountSpec second;
    second.type = MountSpec::Type::proc;
    second.target = "/second";
    MountSpec processes = second;
    processes.target = "/processes";
    processes.data = "subset=pid";
    spec.mounts = {second, processes, MountSpec::bind_inside("/proc/sys/kernel", "/knobs"),
                   MountSpec::bind_inside("/proc/irq", "/irq", {.read_only = true}),
                   MountSpec::bind_inside("/proc/self", "/own")};
    const Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(has(r.open_paths, "/second/keys"));
    CHECK_FALSE(has(r.open_paths, "/proc/keys"));
    CHECK_FALSE(has(r.open_paths, "/processes/keys"));
    CHECK_FALSE(has(r.writable_paths, "/processes/sys"));
    CHECK(has(r.writable_paths, "/second/sys"));
    CHECK(has(r.writable_paths, "/knobs"));
    CHECK_FALSE(has(r.writable_paths, "/irq"));
    CHECK_FALSE(has(r.writable_paths, "/own"));
    CHECK_FALSE(has(r.writable_paths, "/proc/sys"));
}

TEST_CASE("a system container says what it can undo") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = ContainerSpec::system();
    const ContainerSpec sleeps = sleeper(root);
    spec.name = sleeps.name;
    spec.root = sleeps.root;
    spec.command = sleeps.command;
    Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.namespaces == spec.namespaces);
    CHECK_FALSE(r.no_new_privileges);
    CHECK(r.seccomp_filters == 1);
    CHECK(r.cgroup_mount == CgroupMount::read_write);
    CHECK_FALSE(r.masks_hold());
    CHECK(r.weaker().size() == 4);
    CHECK(has(r.weaker(),
              "capability sys_admin can be had: masks and read-only paths can be undone, unless the filter "
              "refuses mount and umount2"));
    CHECK(has(r.weaker(), "it sees its control groups and may write to them"));
}

TEST_CASE("limits are told of the group that init is in and of those above it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    // Two groups deeper, on v1; elsewhere it stays where it is.
    ContainerSpec spec = sleeper(root,
                                 "mkdir -p /p && { ! mount -t cgroup -o pids none /p || { mkdir /p/a && "
                                 "echo 30 >/p/a/pids.max && mkdir /p/a/b && echo 0 >/p/a/b/tasks; }; } && ");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::all();
    spec.seccomp.profile = SeccompProfile::none;
    spec.limits.pids = 50;
    spec.limits.memory = std::uint64_t{64} << 20;
    Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    std::string groups;
    REQUIRE(detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(r.pid) + "/cgroup").c_str(), groups));
    CHECK(r.pids_limit == (groups.find("/a/b\n") != std::string::npos ? 30 : 50));
    CHECK(r.memory_limit == std::uint64_t{64} << 20);
}

TEST_CASE("what a spec gives beyond the default is read back and told") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = sleeper(root);
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::libvirt();
    spec.no_new_privileges = false;
    spec.root_read_only = true;
    spec.limits.memory = std::uint64_t{64} << 20;
    spec.limits.pids = 50;
    spec.mounts.push_back(MountSpec::tmpfs("/run", 1 << 20));
    spec.mounts.push_back(MountSpec::tmpfs("/var", 1 << 20, {.read_only = true}));
    root.write("/run/x", "");
    root.write("/var/x", "");
    Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.namespaces == spec.namespaces);
    CHECK(r.uid == 0);
    // The machine may have less to give.
    CHECK(r.capabilities.bounding.is_within(CapabilitySet::libvirt()));
    CHECK(r.capabilities.bounding.has(*CapabilitySet::number("sys_admin")));
    CHECK(r.capabilities.effective == r.capabilities.bounding);
    CHECK(r.capabilities.ambient == CapabilitySet{});
    CHECK_FALSE(r.no_new_privileges);
    CHECK(r.root_read_only);
    CHECK(r.memory_limit == std::uint64_t{64} << 20);
    CHECK(r.pids_limit == 50);
    CHECK(has(r.read_only_paths, "/var"));
    CHECK(has(r.stricter(), "also read-only: /var"));
    CHECK_FALSE(r.masks_hold());
    CHECK(has(r.weaker(), "no user namespace: root inside is root outside"));
    CHECK(has(r.weaker(), "new privileges can be had: set-user-ID programs and file capabilities"));
    CHECK(r.weaker().size() >= 4);
    CHECK(has(r.stricter(), "its root cannot be written to"));
    CHECK(has(r.stricter(), "at most 67108864 bytes of memory"));
    CHECK(has(r.stricter(), "at most 50 processes and threads"));
    CHECK(r.left_open().empty());

    ContainerSpec shared = sleeper(root);
    shared.name = "shared";
    shared.namespaces = shared.namespaces.without(NamespaceKind::net).without(NamespaceKind::cgroup);
    Container other = started(shared);
    CHECK(other.security_report().weaker() ==
          std::vector<std::string>{"no network namespace: addresses, ports and abstract sockets are the host's",
                                   "no cgroup namespace: it sees the names of the host's control groups"});
}

TEST_CASE("a command that is not root, in the host's own root, is told as such") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = sleeper(root);
    spec.root = "/";
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.uid = spec.gid = 1234;
    Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.uid == 1234);
    CHECK(r.host_root);
    CHECK(has(r.weaker(), "its root is the host's root"));
    CHECK(has(r.stricter(), "its first process is not root, but user 1234"));
}

TEST_CASE("a payload that mounts over /proc, /sys and /dev changes nothing but what is said of them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec =
        sleeper(root,
                "mount -t tmpfs none /proc && mkdir -p /proc/1/ns && echo 'CapBnd:\t0' >/proc/1/status "
                "&& mount -t tmpfs none /sys && mount -t tmpfs none /dev && ");
    spec.capabilities = CapabilitySet::all();
    spec.seccomp.profile = SeccompProfile::none;
    Container container = started(spec);
    const SecurityReport r = container.security_report();
    CAPTURE(r.str());
    CHECK(r.capabilities.bounding.has(*CapabilitySet::number("sys_admin")));
    CHECK(r.namespaces == ContainerSpec{}.namespaces);
    // Nothing of the kernel's is seen there any more.
    CHECK(r.open_paths.empty());
    CHECK(r.writable_paths.empty());
    CHECK_FALSE(has(r.read_only_paths, "/sys"));
}

TEST_CASE("masks and read-only paths that a payload has taken away are told as open") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const auto report_after = [&](const std::string& script) {
        ContainerSpec spec = sleeper(root, script);
        spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        spec.capabilities = CapabilitySet::all();
        spec.seccomp.profile = SeccompProfile::none;
        return started(spec).security_report();
    };
    const SecurityReport untouched = report_after("");
    CHECK(untouched.open_paths.empty());
    CHECK(untouched.writable_paths.empty());
    CHECK_FALSE(untouched.masks_hold());

    const SecurityReport some = report_after("umount /proc/keys && umount /proc/irq && ");
    CAPTURE(some.str());
    CHECK_FALSE(has(some.masked_paths, "/proc/keys"));
    CHECK(some.open_paths == std::vector<std::string>{"/proc/keys"});
    CHECK(some.writable_paths == std::vector<std::string>{"/proc/irq"});
    CHECK(has(some.weaker(), "not masked: /proc/keys"));
    CHECK(has(some.weaker(), "not read-only: /proc/irq"));

    // A procfs over the first covers all masks in it.
    const SecurityReport all = report_after("mount -t proc proc /proc && ");
    CAPTURE(all.str());
    CHECK(has(all.open_paths, "/proc/keys"));
    CHECK(has(all.writable_paths, "/proc/sys"));
    CHECK_FALSE(has(all.masked_paths, "/proc/keys"));
    CHECK(has(all.masked_paths, "/sys/firmware") == is_there("/sys/firmware"));
}

TEST_CASE("a payload's file system that never answers does not keep the reader") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const Fd fuse{::open("/dev/fuse", O_RDWR | O_CLOEXEC)};
    if (!fuse) CAISSON_SKIP("/dev/fuse cannot be opened here");
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const std::string options = "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0";
        const bool made = ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                          ::mount("never", "/proc", "fuse", 0, options.c_str()) == 0;
        (void)!::write(ready[1], made ? "y" : "n", 1);
        for (;;) ::pause();
    }
    char answer = 0;
    REQUIRE(::read(ready[0], &answer, 1) == 1);
    ::close(ready[0]);
    ::close(ready[1]);
    {
        Host reader{[&](const Host&) {
            const SecurityReport r = SecurityReport::of(Process::open(child));
            const bool as_expected = r.namespaces == NamespaceSet{NamespaceKind::mount} &&
                                     !has(r.open_paths, "/proc/keys") && !has(r.writable_paths, "/proc/sys");
            return as_expected ? "told" : r.str();
        }};
        if (answer == 'y') CHECK(reader.text(10'000) == "told");
    }
    ::kill(child, SIGKILL);
    (void)caisson_test::wait_for(child);
    if (answer != 'y') CAISSON_SKIP("a FUSE file system cannot be mounted here");
}

TEST_CASE("a container that has ended has no report") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = started(sleeper(root));
    const std::string expected = "container 'test': security report of process " +
                                 std::to_string(container.init().pid()) + ": No such process: it has ended";
    REQUIRE(container.signal(SIGKILL));
    REQUIRE(container.init().ended_within(10'000));
    CHECK(error_of_report(container) == expected);
    (void)container.wait();
    CHECK(error_of_report(container) == expected);
}

TEST_CASE("a reader that may not look at the process is told what it needs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = started(sleeper(root));
    const Process& init = container.init();
    Host other{[&](const Host&) {
        if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) return std::string{"no"};
        return SecurityReport::of(Process::open(init.pid())).str();
    }};
    CHECK(other.text() == "exception: security report of process " + std::to_string(init.pid()) +
                              ": user namespace of it: Permission denied: this needs ptrace access to the process: its "
                              "user, or CAP_SYS_PTRACE over it");
}

TEST_CASE("a container that a helper runs is reported to its clients, whatever the helper itself may read") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const Place place;
    for (const bool with_users : {true, false}) {
        CAPTURE(with_users);
        ContainerSpec spec = place.spec("web");
        if (!with_users) {
            spec.namespaces = spec.namespaces.without(NamespaceKind::user);
            spec.capabilities = CapabilitySet{}.with({"net_raw", "sys_admin"});
        }
        Helper helper = Helper::start(spec, place.options);
        const SecurityReport r = helper.security_report();
        CHECK(r.pid == helper.info().init);
        CHECK(r.namespaces == spec.namespaces);
        CHECK(r.capabilities == spec.capabilities);
        auto again = Helper::find("web", place.run);
        REQUIRE(again);
        CHECK(again->security_report() == r);
        (void)helper.kill();
        try {
            (void)helper.security_report();
            FAIL("there is a report");
        } catch (const Error& e) {
            CHECK(std::string{e.what()} == "container 'web': No such process: it has ended");
        }
    }
    CHECK(place.empty());
}
