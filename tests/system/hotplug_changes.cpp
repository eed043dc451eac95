// What changes of a container that runs: mounts that come and go, and what a restart keeps of all that was attached.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

#include <cerrno>
#include <csignal>
#include <string>
#include <type_traits>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/cgroup.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/hotplug.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/shell.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

ContainerSpec plain_system(const TestRoot& root) {
    ContainerSpec spec = plain(root);
    spec.capabilities = CapabilitySet::system();
    spec.seccomp.profile = SeccompProfile::system;
    return spec;
}

}  // namespace

TEST_CASE("a directory, a file and memory are mounted in a container that runs, and unmounted") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    for (const char* const name : {"a", "b"}) {
        const Fd file = Fd{::open((data / name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
        REQUIRE(::write(file.get(), name, 1) == 1);
    }
    for (const bool user : {true, false}) {
        CAPTURE(user);
        Shell shell{plain(root, user)};
        shell->attach(MountSpec::bind(data.path(), "/mnt/data", {.read_only = true}));
        CHECK(shell.ask("cat /mnt/data/a /mnt/data/b; stat -c %u /mnt/data/a; (: >/mnt/data/c)") ==
              "ab0\n/bin/sh: eval: line 0: can't create /mnt/data/c: Read-only file system\n");
        shell->attach(MountSpec::bind(data / "b", "/mnt/file"));
        CHECK(shell.ask("cat /mnt/file") == "b");
        shell->attach(MountSpec::tmpfs("/mnt/memory", 1 << 20));
        CHECK(shell.ask("stat -f -c %T /mnt/memory; stat -c %u /mnt/memory; : >/mnt/memory/x && echo ok") ==
              "tmpfs\n0\nok\n");
        // Over one of them, and busy.
        (void)shell.ask("cd /mnt/memory");
        shell->attach(MountSpec::bind(data.path(), "/mnt/memory"));
        CHECK(shell.ask("cat /mnt/memory/a") == "a");
        shell->detach_mount("/mnt/memory");
        shell->detach_mount("/mnt/memory");
        shell->detach_mount("/mnt/file");
        shell->detach_mount("/mnt/data");
        CHECK(shell.ask("cd /; grep -c /mnt /proc/self/mountinfo") == "0\n");
        CHECK(
            refusal([&] { shell->detach_mount("/mnt/data"); }, ENOENT) ==
            "container 'test': mount on '/mnt/data': No such file or directory: it was not given to the container, or "
            "is gone already");
    }
}

TEST_CASE("a mount of the start can be taken out, unless something needs it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    REQUIRE(::symlink("/mnt", (root / "link").c_str()) == 0);
    REQUIRE(::symlink("/veiled", (root / "alias").c_str()) == 0);
    REQUIRE(::mkdir((root / "veiled").c_str(), 0755) == 0);
    REQUIRE(Fd{::open((data / "file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)});
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = plain(root, user);
        spec.capabilities = CapabilitySet::system();
        spec.seccomp.profile = SeccompProfile::system;
        spec.mounts = {MountSpec::bind(data.path(), "/mnt/a"),    MountSpec::tmpfs("/mnt/a", 1 << 20),
                       MountSpec::tmpfs("/mnt/a/below", 1 << 20), MountSpec::bind(data / "file", "/mnt/file"),
                       MountSpec::tmpfs("/link/x", 1 << 20),      MountSpec::tmpfs("/masked", 1 << 20),
                       MountSpec::tmpfs("/twice", 1 << 20),       MountSpec::tmpfs("/twice/", 1 << 20),
                       MountSpec::tmpfs("/sys", 1 << 20),         MountSpec::tmpfs("/.//kept", 1 << 20),
                       MountSpec::tmpfs("/proc/tty", 1 << 20),    MountSpec::tmpfs("/alias/in", 1 << 20),
                       MountSpec::tmpfs("/.//deep", 1 << 20),     MountSpec::tmpfs("//deep/below", 1 << 20)};
        spec.masked_paths.push_back("/proc/t*y/drivers");
        spec.masked_paths.push_back("/veiled/in/it");
        spec.masked_paths.push_back("/masked");
        spec.masked_paths.push_back("/kept/below");
        Shell shell{spec};
        const auto refused = [&](const char* target, int errnum) {
            return refusal([&] { shell->detach_mount(target); }, errnum);
        };
        const std::string busy = "Device or resource busy: ";
        CHECK(refused("/mnt/a", EBUSY) ==
              "container 'test': unmount '/mnt/a': " + busy + "'/mnt/a/below' was mounted below it: detach that first");
        shell->detach_mount("/mnt/a/below");
        (void)shell.ask("cd /mnt/a");
        shell->detach_mount("/mnt/a");
        CHECK(shell.ask("cd /; grep -c /mnt/a /proc/self/mountinfo") == "1\n");
        CHECK(refused("/.//deep", EBUSY) == "container 'test': unmount '/.//deep': " + busy +
                                                "'//deep/below' was mounted below it: detach that first");
        shell->detach_mount("/deep/below");
        shell->detach_mount("/deep");
        // With something of the container's on it.
        CHECK(shell.ask("mount -t tmpfs over /mnt/a && echo ok") == "ok\n");
        CHECK(refused("/mnt/a", EBUSY) ==
              "container 'test': unmount '/mnt/a': " + busy + "something else lies on it by now");
        CHECK(shell.ask("umount /mnt/a && echo ok") == "ok\n");
        shell->detach_mount("/mnt/a");
        shell->detach_mount("/mnt/file");
        // By way of what is a link, and one of two that are named in two ways.
        shell->detach_mount("/link/x");
        CHECK(shell.ask("grep -c -e /mnt /proc/self/mountinfo") == "0\n");
        shell->detach_mount("/twice");
        shell->detach_mount("/twice");
        CHECK(shell.ask("grep -c -e /twice /proc/self/mountinfo") == "0\n");
        CHECK(refused("/mnt/a", ENOENT) ==
              "container 'test': mount on '/mnt/a': No such file or directory: it was not given to the container, or "
              "is gone already");
        CHECK(refused("/proc", ENOENT) != "");
        const std::string bare = "what is masked or read-only might lie bare: start without it";
        for (const char* const target : {"/sys", "/masked", "/.//kept", "/proc/tty", "/alias/in"}) {
            CHECK(refused(target, EBUSY) == "container 'test': unmount '" + std::string{target} + "': " + busy + bare);
        }
        // One that is hidden is not gone.
        shell->attach(MountSpec::tmpfs("/over/under", 1 << 20));
        shell->attach(MountSpec::tmpfs("/over", 1 << 20));
        CHECK(refused("/over/under", EBUSY) ==
              "container 'test': unmount '/over/under': " + busy + "'/over' was mounted over it: detach that first");
        shell->detach_mount("/over");
        shell->detach_mount("/over/under");
    }
}

TEST_CASE("a mount of the start that the container has moved or taken out is not said to be gone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = plain(root, user);
        spec.capabilities = CapabilitySet::system();
        spec.seccomp.profile = SeccompProfile::system;
        spec.mounts = {MountSpec::bind(data.path(), "/srv/data"), MountSpec::bind(data.path(), "/mnt/data"),
                       MountSpec::tmpfs("/masks", 1 << 20)};
        Shell shell{spec};
        CHECK(shell.ask("mv /srv /old && mkdir /new && mount --move /mnt/data /new && umount /masks && echo ok") ==
              "ok\n");
        for (const char* const target : {"/srv/data", "/mnt/data", "/masks"}) {
            for (int times = 0; times < 2; ++times) {
                CHECK(refusal([&] { shell->detach_mount(target); }, ESTALE) ==
                      "container 'test': unmount '" + std::string{target} +
                          "': Stale file handle: the container has moved it, or taken it out: end the container to be "
                          "sure of it");
            }
        }
        CHECK(shell.ask("mv /old /srv && mount --move /new /mnt/data && rmdir /new && echo ok") == "ok\n");
        shell->detach_mount("/srv/data");
        shell->detach_mount("/mnt/data");
        CHECK(shell.ask("grep -c /data /proc/self/mountinfo") == "0\n");
    }
}

TEST_CASE("a mount that nobody could look for is not said to be gone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    Shell shell{plain(root)};
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    const auto is_mounted = [&] { return shell.ask("grep -c ' /mnt ' /proc/self/mountinfo") == "1\n"; };
    struct rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const auto first_free = static_cast<rlim_t>(Fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)}.get());
    int refused = 0;
    for (rlim_t most = first_free; most < first_free + 200; ++most) {
        const struct rlimit few { most, before.rlim_max };
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        std::string why;
        try {
            shell->detach_mount("/mnt");
        } catch (const Error& e) {
            why = e.what();
        }
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
        if (why.empty()) break;
        ++refused;
        CAPTURE(why);
        REQUIRE(is_mounted());
    }
    CHECK(refused > 3);
    CHECK_FALSE(is_mounted());
}

TEST_CASE("a mount where no look-up of the host's comes is not said to be gone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    const ContainerSpec spec = plain_system(root);
    Shell shell{spec};
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    // Init's own list says where it is below init's root.
    (void)shell.ask(
        "mkdir /below && mount --rbind / /below && mkdir /below/kept && mount --move /mnt /below/kept && "
        "exec chroot /below " +
        Shell::again());
    CHECK(shell.ask("grep -c ' /kept ' /proc/self/mountinfo") == "1\n");
    for (int times = 0; times < 2; ++times) {
        CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ESTALE) ==
              "container 'test': unmount '/kept' (in the child): Stale file handle: the container keeps moving "
              "it, or keeps the way to it: end the container to be sure of it");
    }
}

TEST_CASE("a mount is not said to be gone where init does not see all that is mounted") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    const ContainerSpec spec = plain_system(root);
    const std::string below =
        "mkdir /aside /below && mount --rbind / /below && mount --move /mnt /aside && exec chroot /below";
    for (const std::string& step : {std::string{"exec unshare -m"}, below}) {
        CAPTURE(step);
        Shell shell{spec};
        shell->attach(MountSpec::bind(data.path(), "/mnt"));
        (void)shell.ask(step + ' ' + Shell::again());
        for (int times = 0; times < 2; ++times) {
            CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ESTALE) ==
                  "container 'test': unmount '/mnt': Stale file handle: init has gone on to namespaces or to a root "
                  "that it has made, where nobody can look for it");
        }
    }
}

TEST_CASE("a mount whose number is another's by now is gone, and the other is left alone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    bool is_hosts = false;
    SUBCASE("one of the container's own") {}
    SUBCASE("one that the host has given") {
        is_hosts = true;
    }
    Shell shell{plain_system(root)};
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    std::string number = shell.ask("grep ' /mnt ' /proc/self/mountinfo | cut -d ' ' -f 1");
    number.pop_back();
    const std::string count = "grep -c '^" + number + " ' /proc/self/mountinfo";
    CHECK(shell.ask("umount /mnt; " + count) == "0\n");
    for (int i = 0; i < 100 && shell.ask(count) != "1\n"; ++i) {
        const std::string other = "/other/" + std::to_string(i);
        if (is_hosts) shell->attach(MountSpec::bind(data.path(), other));
        else (void)shell.ask("mkdir -p " + other + "; mount -t tmpfs other " + other);
    }
    if (shell.ask(count) != "1\n") CAISSON_SKIP("the kernel has not given the number again");
    CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ESTALE) == "it was not refused");
    CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ENOENT).ends_with("or is gone already"));
    if (!is_hosts && !has_unique_mount_numbers()) CAISSON_SKIP("the kernel has no number that it does not give again");
    CHECK(shell.ask(count) == "1\n");
}

TEST_CASE("a mount is not said to be gone where there are more than can be looked through") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    Shell shell{plain_system(root)};
    // Each of 8,192 has a line of 15 KiB.
    (void)shell.ask(
        "n=$(printf %0250d | tr 0 '\t'); p=; for i in $(seq 15); do p=\"$p/$n\"; done; mkdir -p \"$p\"; "
        "mount -t tmpfs many \"$p\"; for i in $(seq 13); do mkdir \"$p/$i\"; "
        "mount --rbind \"$p\" \"$p/$i\"; done");
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    CHECK(shell.ask("mkdir /aside && mount --move /mnt /aside && echo ok") == "ok\n");
    CHECK(
        refusal([&] { shell->detach_mount("/mnt"); }, E2BIG)
            .ends_with("Argument list too long: the container has made more mounts than can be looked through: end it "
                       "to be sure"));
}

TEST_CASE("nothing but the very mount is unmounted") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    const ContainerSpec spec = plain_system(root);
    Shell shell{spec};
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    CHECK(shell.ask("mount -t tmpfs over /mnt && echo ok") == "ok\n");
    const std::string text = refusal([&] { shell->detach_mount("/mnt"); }, ESTALE);
    CHECK(text ==
          "container 'test': unmount '/mnt' (in the child): Stale file handle: something else is mounted there by now");
    CHECK(shell.ask("grep -c ' /mnt ' /proc/self/mountinfo; umount /mnt && echo ok") == "2\nok\n");
    shell->detach_mount("/mnt");
    CHECK(shell.ask("grep -c ' /mnt ' /proc/self/mountinfo") == "0\n");
    // What the container has taken out itself is out.
    shell->attach(MountSpec::bind(data.path(), "/mnt"));
    CHECK(shell.ask("umount /mnt && echo ok") == "ok\n");
    shell->detach_mount("/mnt");
    CHECK(refusal([&] { shell->detach_mount("/mnt"); }, ENOENT).ends_with("or is gone already"));
}

TEST_CASE("files are never shown by an id map that the container has made") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory data;
    const ContainerSpec spec = plain_system(root);
    Shell shell{spec};
    (void)shell.ask("exec unshare -U -m -r " + Shell::again());
    CHECK(shell.ask("cat /proc/1/uid_map | wc -l") == "1\n");
    CHECK(
        refusal([&] { shell->attach(MountSpec::bind(data.path(), "/mnt")); }, ESTALE) ==
        "container 'test': mount '" + data.path() +
            "' on '/mnt': Stale file handle: init has gone on to a user namespace that it has made: attach a tmpfs, or "
            "start with the mount");
    CHECK(shell.ask("grep -c ' /mnt ' /proc/self/mountinfo") == "0\n");
}

namespace {

/// Waits for the last event of a restart, and tells of all that came before it.
template <class Source>
std::string events_until(Source& source, Event::Kind last) {
    std::string told;
    const auto next = [&] {
        if constexpr (std::is_same_v<Source, Controller>) return source.next();
        else return source.next_event();
    };
    do {
        while (const auto event = next()) {
            switch (event->kind) {
                case Event::Kind::device_added: told += "+" + event->device + " "; break;
                case Event::Kind::device_removed: told += "-" + event->device + " "; break;
                case Event::Kind::restarting: told += "restarting "; break;
                case Event::Kind::noted: told += "noted "; break;
                case Event::Kind::failed: told += event->error->what(); break;
                default: break;
            }
            if (event->kind == last) return told;
        }
    } while (detail::wait_readable(source.fd(), 5000));
    return told + "and nothing more";
}
/// Attaches, detaches and limits, and sees what is left of it once the container has been started again.
template <class Source, class Of>
void change_and_restart(Source& source, const Of& of) {
    const auto attach = [&](const auto& device) { of([&](auto&&... id) { (void)source.attach(id..., device); }); };
    attach(NetworkSpec{.bridge = "br0", .host_name = "late0"});
    attach(log_device);
    attach(MountSpec::tmpfs("/mnt", 1 << 20));
    attach(MountSpec::tmpfs("/tmp", 1 << 20));
    of([&](auto&&... id) {
        source.detach_mount(id..., "/mnt");
        source.detach_network(id..., "eth0");
        source.detach_device(id..., "gone");
        source.limit(id..., LimitSpec{.pids = 77});
    });
    CHECK(events_until(source, Event::Kind::device_removed) ==
          "+network 'eth2' +device '/dev/log/kernel' +mount '/mnt' +mount '/tmp' -mount '/mnt' ");
    (void)events_until(source, Event::Kind::device_removed);
    for (int times = 0; times < 2; ++times) {
        of([&](auto&&... id) { CHECK(source.signal(id..., SIGKILL)); });
        CHECK(events_until(source, Event::Kind::started).ends_with("restarting "));
    }
    std::string networks;
    of([&](auto&&... id) {
        for (const NetworkUsage& one : source.usage(id..., UsagePart::network).networks) networks += one.name + " ";
        CHECK(source.limits(id...).pids == 77u);
    });
    CHECK(networks == "eth1 eth2 ");
    CHECK(contains(links(), "late0"));
}

}  // namespace

TEST_CASE("a container that is started again has what was attached, its limits, and not what was detached") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    Place place;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec spec = place.spec("web");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    spec.networks = {NetworkSpec{.bridge = "br0"}, NetworkSpec{.bridge = "br0"}};
    spec.devices = {DeviceSpec{.source = "/dev/null", .target = "gone"}};
    pid_t init = -1;
    const auto look = [&init] {
        const std::string root = "/proc/" + std::to_string(init) + "/root/dev/";
        CHECK(::access((root + "log/kernel").c_str(), F_OK) == 0);
        CHECK(::access((root + "gone").c_str(), F_OK) != 0);
        CHECK(contains(output(("cat /proc/" + std::to_string(init) + "/mountinfo").c_str()), " /tmp "));
        CHECK_FALSE(contains(output(("cat /proc/" + std::to_string(init) + "/mountinfo").c_str()), " /mnt "));
    };
    SUBCASE("of a controller's") {
        Controller controller;
        const ContainerId id = controller.start(spec);
        change_and_restart(controller, [id](auto&& act) { act(id); });
        init = controller.init_pid(id);
        look();
    }
    SUBCASE("of a helper's") {
        place.options.note = "as it was";
        SUBCASE("that has one") {}
        SUBCASE("that has a group") {
            place.options.group = "all";
        }
        Helper helper = Helper::start(spec, place.options);
        helper.watch();
        change_and_restart(helper, [](auto&& act) { act(); });
        init = helper.info().init;
        look();
        // What describes it is right still.
        helper.set_note("with more");
        CHECK(helper.signal(SIGKILL));
        CHECK(events_until(helper, Event::Kind::started) == "noted restarting ");
        CHECK(helper.info().note == "with more");
        // It can be taken now, as any other.
        helper.detach_device("log/kernel");
        helper.detach_mount("/tmp");
        (void)helper.kill();
    }
}

TEST_CASE("a container is not started again without what was attached to it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("web");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    Controller controller;
    const ContainerId id = controller.start(spec);
    std::string data;
    {
        const TestDirectory there;
        data = there.path();
        controller.attach(id, MountSpec::bind(data, "/mnt"));
    }
    CHECK(controller.signal(id, SIGKILL));
    CHECK(events_until(controller, Event::Kind::failed) ==
          "+mount '/mnt' restarting container 'web': bind '" + data +
              "': No such file or directory: the source must exist on the host");
}

TEST_CASE("a container whose limits were changed is started again, though the kernel counts in pages") {
    if (const char* why = lacks("memory", "memory")) CAISSON_SKIP(why);
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("web");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    spec.limits.memory = (64 << 20) + 1;
    Controller controller;
    const ContainerId id = controller.start(spec);
    (void)events_until(controller, Event::Kind::started);
    // Both are as many pages, and so it was no error. Of a kernel that counts no swap it cannot be asked.
    if (controller.usage(id).swap) controller.limit(id, memory_limit({}, 64 << 20));
    const LimitSpec before = controller.limits(id);
    CHECK(controller.signal(id, SIGKILL));
    CHECK(events_until(controller, Event::Kind::started) == "restarting ");
    CHECK(controller.limits(id) == before);
    // No limit, by two words for it.
    controller.limit(id, memory_limit(LimitSpec::unlimited));
    controller.limit(id, memory_limit({}, INT64_MAX));
    CHECK(controller.signal(id, SIGKILL));
    CHECK(events_until(controller, Event::Kind::started) == "restarting ");
    CHECK(controller.limits(id) == LimitSpec{});
}
