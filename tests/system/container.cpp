// A container from its start to its end, as a caller sees it.
#include <caisson/container.hpp>
#include <caisson/detail/id_range.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

TEST_CASE("a container's exit status is the one that its command gave") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    for (const int code : {0, 1, 7, 127, 255}) {
        Container container = Container::start(shell(root, "exit " + std::to_string(code)));
        const ExitStatus status = container.wait();
        CHECK(status == ExitStatus::exited(code));
        CHECK(container.wait() == status);
        CHECK(container.try_wait() == status);
        CHECK_FALSE(container.signal(SIGKILL));
    }
}

TEST_CASE("inside, the command is pid 1 and root with its own host name, and sees nothing of the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "echo $$ $(id -u) $(hostname) $(tty) $container; cat /proc/self/cgroup; ls /");
    spec.name = "in_side.1";
    const std::string text = run(spec);
    CHECK(text.find("1 0 in-side.1 /dev/pts/0 caisson\n") == 0);
    CHECK(text.find("caisson.in_side") == std::string::npos);
    CHECK(text.find("/root") == std::string::npos);
}

TEST_CASE("root inside is nobody that the host knows, and files keep their owners through the id map") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "echo x > /made; read line"));
    std::string map;
    REQUIRE(detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(container.init().pid()) + "/uid_map").c_str(),
                                   map));
    // "INSIDE OUTSIDE COUNT" in columns: root's id outside is in the range that is set aside for containers.
    unsigned inside = 1, outside = 0, count = 0;
    REQUIRE(std::sscanf(map.c_str(), "%u %u %u", &inside, &outside, &count) == 3);
    CHECK(inside == 0);
    CHECK(outside >= detail::IdRange::first);
    CHECK(count == 65536);
    REQUIRE(::write(container.console()->fd(), "\n", 1) == 1);
    (void)output(container);
    CHECK(container.wait().success());
    struct stat st {};
    REQUIRE(::stat((root / "/made").c_str(), &st) == 0);
    CHECK(st.st_uid == 0);
}

TEST_CASE("two containers never have the same automatic id range") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    std::vector<std::string> maps;
    std::vector<Container> all;
    for (int i = 0; i < 8; ++i) {
        all.push_back(Container::start(shell(root, "read line")));
        std::string map;
        REQUIRE(detail::sys::read_file(AT_FDCWD,
                                       ("/proc/" + std::to_string(all.back().init().pid()) + "/uid_map").c_str(), map));
        maps.push_back(map);
    }
    std::sort(maps.begin(), maps.end());
    CHECK(std::adjacent_find(maps.begin(), maps.end()) == maps.end());
}

TEST_CASE("the payload has the capabilities that were asked for and no more") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const std::string text = run(shell(root, "grep -E 'Cap|NoNewPrivs' /proc/self/status"));
    CHECK(text.find("CapInh:\t0000000000000000") != std::string::npos);
    CHECK(text.find("CapPrm:\t00000000800405fb") != std::string::npos);
    CHECK(text.find("CapEff:\t00000000800405fb") != std::string::npos);
    CHECK(text.find("CapBnd:\t00000000800405fb") != std::string::npos);
    CHECK(text.find("CapAmb:\t0000000000000000") != std::string::npos);
    CHECK(text.find("NoNewPrivs:\t1") != std::string::npos);
}

TEST_CASE("without a user namespace the host's knobs in /proc/sys are read-only") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "cat /proc/self/uid_map; echo 1 > /proc/sys/kernel/hostname || echo refused");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    const std::string text = run(spec);
    CHECK(text.find("4294967295") != std::string::npos);
    CHECK(text.find("Read-only file system") != std::string::npos);
    CHECK(text.find("refused") != std::string::npos);
}

TEST_CASE("the host's root is kept where it is asked for, with private mounts over it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec =
        shell(root, "test -d " + root.path() + " && echo same root; ls -A /tmp | wc -l; echo x > /tmp/private");
    spec.root = "/";
    spec.uid_map = spec.gid_map = {{0, 0, 65536}};
    spec.mounts.push_back(MountSpec::tmpfs("/tmp", 1 << 20));
    CHECK(run(spec) == "same root\n0\n");
    struct stat st {};
    CHECK(::stat("/tmp/private", &st) != 0);
}

TEST_CASE("the host's root is read-only where that is asked, and the mounts over it are not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "echo x > " + root.path() + "/x; echo y > /tmp/y && cat /tmp/y");
    spec.root = "/";
    spec.root_read_only = true;
    spec.mounts.push_back(MountSpec::tmpfs("/tmp", 1 << 20));
    SUBCASE("without a user namespace") {
        spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    }
    SUBCASE("with one") {
        spec.uid_map = spec.gid_map = {{0, 0, 65536}};
    }
    const std::string text = run(spec);
    CHECK(text.find("Read-only file system\ny\n") != std::string::npos);
    struct stat st {};
    CHECK(::stat((root.path() + "/x").c_str(), &st) != 0);
}

TEST_CASE("without a console the command has the descriptors that were given, and no other") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    int out[2];
    REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
    Fd from{out[0]};
    Fd to{out[1]};
    ContainerSpec spec = shell(root, "cat; ls /proc/self/fd; echo to-err >&2");
    spec.console.reset();
    spec.stdio.out = to.get();
    spec.stdio.err = to.get();
    Container container = Container::start(spec);
    CHECK(container.console() == nullptr);
    to.reset();
    std::string text;
    char buffer[256];
    for (ssize_t n = 0; (n = ::read(from.get(), buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(n));
    CHECK(text == "0\n1\n2\n3\nto-err\n");  // 3 is the directory that ls itself has open
    CHECK(container.wait().success());
}

TEST_CASE("a mount shows the host's directory, read-only where that is asked") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const TestRoot other;
    other.write("/data/file", "hello\n");
    ContainerSpec spec = shell(root, "cat /a/b/file; echo x > /a/b/file; mount | grep /a/b");
    spec.mounts.push_back(MountSpec::bind(other / "/data", "/a/b", {.read_only = true}));
    const std::string text = run(spec);
    CHECK(text.find("hello\n") == 0);
    CHECK(text.find("Read-only file system") != std::string::npos);
    CHECK(text.find("ro,nosuid,nodev") != std::string::npos);
}

TEST_CASE("what is wrong with the root or the command is found before start returns, with its remedy") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.root = root / "/nowhere";
    CHECK(error_of(spec) == "container 'test': root '" + spec.root +
                                "': No such file or directory: make the directory "
                                "and put a root file system into it");
    spec.root = root / "/bin/busybox";
    CHECK(error_of(spec) ==
          "container 'test': image '" + spec.root +
              "': no file system is found in it: Invalid argument: ext4, squashfs, erofs, xfs and btrfs are known; of "
              "partitions, or what is encrypted, name the block device of what is inside");
    spec.root = "/dev/null";
    CHECK(error_of(spec) ==
          "container 'test': root '/dev/null': Invalid argument: name a directory, a block device, or a file with a "
          "file system in it");

    spec = shell(root, "true");
    spec.command = {"/sbin/init"};
    CHECK(error_of(spec).find(
              "container 'test': command '/sbin/init' (in the child): No such file or directory: there is "
              "no such file in root '") == 0);
    root.write("/sbin/init", "#!/bin/sh\n", 0644);
    CHECK(error_of(spec) ==
          "container 'test': command '/sbin/init' (in the child): Permission denied: it is no file that its user may "
          "execute: chmod +x it in root '" +
              root.path() + "', unless what it lies on is mounted noexec");
    root.write("/sbin/init", "true\n", 0755);
    CHECK(error_of(spec) ==
          "container 'test': command '/sbin/init' (in the child): Exec format error: it is no program: "
          "it begins neither with an ELF header nor with '#!'");
    spec = shell(root, "true");
    spec.working_directory = "/nowhere";
    CHECK(error_of(spec).find(
              "container 'test': working directory '/nowhere' (in the child): No such file or directory") == 0);
    spec = shell(root, "true");
    spec.mounts.push_back(MountSpec::bind("/does/not/exist", "/mnt"));
    CHECK(error_of(spec).find("container 'test': bind '/does/not/exist': No such file or directory") == 0);

    root.write("/etc/file", "x");
    spec.mounts = {MountSpec::bind(root.path() + "/bin", "/etc/file")};
    CHECK(error_of(spec) == "container 'test': mount '" + root.path() +
                                "/bin' on '/etc/file' (in the child): Invalid argument: a directory goes on a "
                                "directory, and a file on a file");
    const std::string memory =
        "' (in the child): Invalid argument: it goes on a directory, and takes no options but its own, see mount(8)";
    spec.mounts = {MountSpec::tmpfs("/etc/file", 1 << 20)};
    CHECK(error_of(spec) == "container 'test': mount 'tmpfs' on '/etc/file" + memory);
    spec.mounts = {MountSpec::tmpfs("/mnt", 1 << 20)};
    spec.mounts.front().data = "size=much";
    CHECK(error_of(spec) == "container 'test': mount 'tmpfs' on '/mnt" + memory);
}

TEST_CASE("stop asks first, kills after the grace, and says how it ended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container obedient = Container::start(shell(root, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"));
    char byte = 0;
    REQUIRE(::read(obedient.console()->fd(), &byte, 1) == 1);
    CHECK(obedient.stop(20s) == ExitStatus::exited(5));

    Container stubborn = Container::start(shell(root, "trap '' TERM; while :; do sleep 1; done"));
    const auto before = std::chrono::steady_clock::now();
    CHECK(stubborn.stop(300ms) == ExitStatus::killed(SIGKILL));
    CHECK(std::chrono::steady_clock::now() - before >= 300ms);
    CHECK(std::chrono::steady_clock::now() - before < 10s);
}

TEST_CASE("the shortest and the longest time that can be written are a wait of no time and an endless one") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(shell(root, "sleep 20; exit 3"));
    const auto from = std::chrono::steady_clock::now();
    for (int i = 0; i < 20000; ++i) REQUIRE_FALSE(container.wait_for(std::chrono::milliseconds::min()));
    CHECK(std::chrono::steady_clock::now() - from < 15s);
    (void)container.signal(SIGKILL);
    CHECK(container.wait_for(std::chrono::milliseconds::max()) == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a container that asks for a restart or a poweroff is told apart from one that was killed") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "reboot -f");
    spec.capabilities = CapabilitySet::application().with({"sys_boot"});
    Container restart = Container::start(spec);
    CHECK(restart.wait().request() == ExitStatus::Request::restart);
    spec.command[2] = "poweroff -f";
    Container poweroff = Container::start(spec);
    CHECK(poweroff.wait().request() == ExitStatus::Request::poweroff);
    spec.command[2] = "kill -9 -1; sleep 10";
    Container killed = Container::start(spec);
    CHECK(killed.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("destroying a running container kills it, and a moved-from one does nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Process init;
    {
        Container first = Container::start(shell(root, "sleep 1000"));
        init = Process::open(first.init().pid());
        Container second = std::move(first);
        CHECK_THROWS_AS((void)first.wait(), std::logic_error);
        Container& self = second;
        second = std::move(self);
        CHECK_FALSE(init.ended());
    }
    CHECK(init.ended_within(10'000));
}

TEST_CASE("in a forked copy of the host, destructors leave the container alone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "sleep 1000"));
    const pid_t child = ::fork();
    if (child == 0) {
        { const Container copy = std::move(container); }
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK_FALSE(container.try_wait());
    CHECK_FALSE(container.init().ended());
}

TEST_CASE("when the keeper is killed the container ends, and wait returns") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "sleep 1000"));
    REQUIRE(Process::open(keeper_of(container)).signal(SIGKILL));
    CHECK(container.wait_for(10s) == ExitStatus::killed(SIGKILL));
}

TEST_CASE("the namespaces of a container can be opened while it runs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "sleep 1000"));
    for (const NamespaceKind kind : {NamespaceKind::mount, NamespaceKind::pid, NamespaceKind::uts, NamespaceKind::ipc,
                                     NamespaceKind::net, NamespaceKind::user, NamespaceKind::cgroup}) {
        CHECK(container.open_namespace(kind).id() != Namespace::current(kind).id());
    }
    (void)container.kill();
    try {
        (void)container.open_namespace(NamespaceKind::pid);
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(e.code().value() == ESRCH);
    }
}

TEST_CASE("the memory limit holds and its breach is told apart from a plain kill") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "exec tail /dev/zero");
    spec.limits.memory = 16 << 20;
    try {
        Container container = Container::start(spec);
        const ExitStatus status = container.wait();
        CHECK(status.signal() == SIGKILL);
        CHECK(status.out_of_memory());
    } catch (const Error& e) {
        if (e.step() == Step::cgroup) CAISSON_SKIP(e.what());
        throw;
    }
    Container plain = Container::start(shell(root, "sleep 1000"));
    CHECK_FALSE(plain.kill().out_of_memory());
}

TEST_CASE("a memory limit that is too small to start in is named in the error") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.limits.memory = 4096;
    try {
        (void)Container::start(spec).wait();
    } catch (const Error& e) {
        if (e.step() == Step::cgroup) CAISSON_SKIP(e.what());
        const std::string text = e.what();
        CAPTURE(text);
        CHECK(text.find("init died (killed by signal 9 (out of memory)) during ") != std::string::npos);
        CHECK(e.remedy() == "limits.memory is 4096 bytes: raise it");
        return;
    }
    CAISSON_SKIP("this kernel starts it all the same");
}

TEST_CASE("the console has the size that was asked for, and follows a change") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec =
        shell(root, "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done");
    spec.console->size = {30, 100};
    Container container = Container::start(spec);
    std::string text;
    char buffer[256];
    while (text.find("ready") == std::string::npos) {
        const ssize_t n = ::read(container.console()->fd(), buffer, sizeof buffer);
        REQUIRE(n > 0);
        text.append(buffer, static_cast<std::size_t>(n));
    }
    CHECK(text.find("30 100") == 0);
    container.console()->resize({50, 132});
    CHECK(output(container).find("50 132") != std::string::npos);
    CHECK(container.wait().success());
}

TEST_CASE("usage counts what runs in the container, and is refused once it has ended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container =
        Container::start(shell(root, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line"));
    char buffer[16];
    REQUIRE(::read(container.console()->fd(), buffer, sizeof buffer) > 0);
    const Usage usage = container.usage();
    if (usage.cpu) CHECK(*usage.cpu > 0);
    if (usage.pids) CHECK(*usage.pids == 1u);
    (void)container.kill();
    try {
        (void)container.usage();
        FAIL("it was answered");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "usage of container 'test': No such process: it has ended");
    }
}
