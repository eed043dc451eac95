// What a container's command is as a process: its user, limits, settings, descriptors, and the init that it may have.
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/probe.hpp>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// A root with a user and the groups that he is in.
struct RootWithAlice : TestRoot {
    RootWithAlice() {
        write("etc/passwd",
              "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
              "7:x:2000:2000::/:/bin/sh\nfar:x:70000:70000::/:/bin/sh\n");
        write("etc/group", "root:x:0:\nusers:x:1001:\nwheel:x:10:bob,alice\naudio:x:29:alice\nvideo:x:44:alicex\n");
    }
};

std::string run_as(const TestRoot& root, const std::string& user, const std::string& group = "") {
    ContainerSpec spec = shell(root, "id -u; id -g; id -G; echo $HOME");
    spec.user = user;
    spec.group = group;
    return run(spec);
}

Container wait_ready(const ContainerSpec& spec) {
    Container container = Container::start(spec);
    char c = 0;
    while (::read(container.console()->fd(), &c, 1) == 1 && c != '!') {
    }
    return container;
}

}  // namespace

TEST_CASE("a user by name has the ids, the groups and the home of the root's own files") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const RootWithAlice root;
    CHECK(run_as(root, "alice") == "1000\n1001\n1001 10 29\n/home/alice\n");
    CHECK(run_as(root, "alice", "wheel") == "1000\n10\n10 29\n/home/alice\n");
    CHECK(run_as(root, "alice", "77") == "1000\n77\n77 10 29\n/home/alice\n");
    CHECK(run_as(root, "", "audio") == "0\n29\n29\n/\n");
    // Digits are a number, whatever the file calls so.
    CHECK(run_as(root, "7") == "7\n0\n0\n/\n");
    ContainerSpec spec = shell(root, "id -u; id -g; id -G");
    spec.uid = 5;
    spec.gid = 6;
    spec.groups = {8, 9};
    CHECK(run(spec) == "5\n6\n6 8 9\n");
}

TEST_CASE("a user who cannot be found is named with the file, and nothing is started") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const RootWithAlice root;
    const auto refusal = [&](const char* user, const char* group = "") {
        ContainerSpec spec = shell(root, "true");
        spec.user = user;
        spec.group = group;
        return error_of(spec);
    };
    CHECK(refusal("bob") ==
          "container 'test': user 'bob': it is not in '/etc/passwd' of the root: add it there, or give a number");
    CHECK(refusal("alice", "bob") ==
          "container 'test': group 'bob': it is not in '/etc/group' of the root: add it there, or give a number");
    CHECK(refusal("far") ==
          "container 'test': user 'far': its number 70000 is not mapped into the user namespace: give uid_map and "
          "gid_map that have it");
    root.write("etc/group", "far:x:70000:alice\n");
    CHECK(refusal("alice") ==
          "container 'test': a group of user 'alice': its number 70000 is not mapped into the user namespace: give "
          "uid_map and gid_map that have it");
    root.write("etc/passwd", "broken\nbroken:x:1000\nbroken:x:x:1000::/:/bin/sh\n");
    CHECK(refusal("broken") ==
          "container 'test': user 'broken': it is not in '/etc/passwd' of the root: add it there, or give a number");
    REQUIRE(::unlink((root / "etc/passwd").c_str()) == 0);
    CHECK(refusal("alice") ==
          "container 'test': '/etc/passwd' of the root: No such file or directory: give the user and group as numbers");
}

TEST_CASE("CVE-2026-47262: passwd files that are none are refused at once") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const RootWithAlice root;
    const std::string file = root / "etc/passwd";
    ContainerSpec spec = shell(root, "true");
    spec.user = "alice";
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::mkfifo(file.c_str(), 0644) == 0);
    CHECK(error_of(spec) == "container 'test': '/etc/passwd' of the root: it is no regular file");
    REQUIRE(::unlink(file.c_str()) == 0);
    root.write("etc/passwd", "");
    REQUIRE(::truncate(file.c_str(), off_t{5} << 30) == 0);
    CHECK(error_of(spec) == "container 'test': '/etc/passwd' of the root: it has more than 1048576 bytes");
    root.write("etc/passwd", std::string(70000, 'x') + "\nalice:x:1:1::/:/bin/sh\n");
    CHECK(error_of(spec) == "container 'test': '/etc/passwd' of the root: line 1 has 70000 bytes, 65536 are possible");
    // A link is followed inside the root alone: the host's own file has no alice.
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::symlink("/etc/../../../../etc/users", file.c_str()) == 0);
    root.write("etc/users", "alice:x:12:13::/:/bin/sh\n");
    CHECK(run_as(root, "alice").starts_with("12\n13\n"));
}

TEST_CASE("an ordinary user keeps the ambient capabilities that the spec gives, and no other") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "grep ^Cap /proc/self/status");
    spec.uid = 1000;
    CHECK(run(spec) ==
          "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
          "CapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\n");
    spec.capabilities.inheritable = spec.capabilities.ambient = CapabilitySet::of({"net_bind_service"});
    CHECK(run(spec) ==
          "CapInh:\t0000000000000400\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n"
          "CapBnd:\t00000000800405fb\nCapAmb:\t0000000000000400\n");
}

TEST_CASE("limits of a process are what the spec says, and the defaults what the machine can give") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    rlimit own{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &own) == 0);
    ContainerSpec spec = shell(root, "ulimit -Sc; ulimit -Hc; ulimit -Sn; ulimit -Hn; ulimit -Ht; ulimit -St");
    spec.resource_limits = {{ResourceLimit::Kind::cpu, 100, 200}};
    const std::uint64_t hard = std::min<std::uint64_t>(524288, own.rlim_max);
    const std::string soft = std::to_string(std::min<std::uint64_t>(1024, hard));
    CHECK(run(spec) == "0\n0\n" + soft + "\n" + std::to_string(hard) + "\n200\n100\n");
    spec.resource_limits = {{ResourceLimit::Kind::nofile, 5, 6}};
    CHECK(run(spec).find("\n5\n6\n") != std::string::npos);
}

TEST_CASE("umask, personality and oom_score_adj are the spec's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "umask; uname -m; cat /proc/self/oom_score_adj; cat /proc/self/personality");
    spec.umask = 027;
    spec.oom_score_adj = 321;
    spec.masked_paths = {};
    const std::string native = run(spec);
    CHECK(native.starts_with("0027\n"));
    CHECK(native.find("\n321\n") != std::string::npos);
    spec.personality = Personality::linux32;
    const std::string twin = run(spec);
    // uname(2) tells it, too, but not in every kernel.
    CHECK(native.ends_with("\n00000000\n"));
    CHECK(twin.ends_with("\n00000008\n"));
}

TEST_CASE("a host without address space randomisation does not hand that down") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "cat /proc/self/personality");
    struct Own {
        int before = ::personality(0xffffffff);
        Own() { (void)::personality(static_cast<unsigned long>(before) | ADDR_NO_RANDOMIZE); }
        ~Own() { (void)::personality(static_cast<unsigned long>(before)); }
    } const own;
    CHECK(run(spec) == "00000000\n");
}

TEST_CASE("an oom_score_adj below the host's own is an error, not a wish") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (probe().has(Feature::cap_sys_resource)) CAISSON_SKIP("with CAP_SYS_RESOURCE it can be lowered");
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.oom_score_adj = -900;
    CHECK(error_of(spec) ==
          "container 'test': oom_score_adj -900: Permission denied: only CAP_SYS_RESOURCE lowers it below the host's "
          "own");
}

TEST_CASE("settings of the container's own namespaces are made before its command runs, and are not the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    std::string before;
    REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/sys/kernel/shmmax", before));
    ContainerSpec spec = shell(root,
                               "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max "
                               "/proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/domainname");
    spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
    spec.sysctls = {{"net.ipv4.ip_forward", "1"},
                    {"kernel.shmmax", "12345"},
                    {"fs.mqueue.msg_max", "7"},
                    {"net/ipv4/conf/lo/forwarding", "0"},
                    {"kernel.domainname", std::string(64, 'd')}};
    CHECK(run(spec) == "1\n12345\n7\n0\n" + std::string(64, 'd') + "\n");
    std::string after;
    REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/sys/kernel/shmmax", after));
    CHECK(after == before);
    // The same without a procfs for the command.
    spec.proc = false;
    spec.command = {"/bin/sh", "-c", "ls /proc; echo"};
    CHECK(run(spec) == "\n");
    spec.sysctls = {{"net.ipv4.no_such", "1"}};
    CHECK(error_of(spec) ==
          "container 'test': sysctl 'net.ipv4.no_such' = '1' (in the child): No such file or directory: this kernel "
          "has no such setting");
    spec.sysctls = {{"net.ipv4", "1"}};
    CHECK(error_of(spec).ends_with("Is a directory: this is a group of settings: name one of them"));
    spec.sysctls = {{"kernel.shmmax", "many"}};
    CHECK(error_of(spec) ==
          "container 'test': sysctl 'kernel.shmmax' = 'many' (in the child): Invalid argument: the kernel does not "
          "take this value");
}

TEST_CASE("a label is refused where the kernel has no module for it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    std::string label;
    if (detail::sys::read_file(AT_FDCWD, "/proc/thread-self/attr/apparmor/current", label)) {
        CAISSON_SKIP("this kernel runs with AppArmor: see security_label.cpp");
    }
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.security_label = "apparmor:unconfined";
    CHECK(error_of(spec) ==
          "container 'test': security_label: 'apparmor:unconfined', but this kernel runs without AppArmor: leave it "
          "empty, "
          "or start the kernel with the module");
}

TEST_CASE("passed descriptors are 3 and on, and nothing else is open") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Fd low = detail::sys::open(root.write("low", "low\n"), O_RDONLY);
    const Fd high{::fcntl(detail::sys::open(root.write("high", "high\n"), O_RDONLY).get(), F_DUPFD_CLOEXEC, 700)};
    ContainerSpec spec = shell(root, "cat <&4; cat <&3; cat <&5; exec ls /proc/self/fd | xargs echo");
    spec.descriptors = {low.get(), high.get(), high.get()};
    const std::string text = run(spec);
    // 5 shares its offset with 4, and the shell has one open for its pattern.
    INFO(text);
    CHECK(text.starts_with("high\nlow\n0 1 2 3 4 5"));
    spec.descriptors = {9999};
    CHECK(error_of(spec) == "container 'test': descriptors[0], descriptor 9999: Bad file descriptor: it is not open");
}

TEST_CASE("the built-in init reaps what is orphaned, and the command is its child") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "echo $$ $PPID $(tty); i=0; while [ $i -lt 200 ]; do (true & true & true &); "
                               "i=$((i + 1)); done; wait; i=0; while ps -o stat | grep -q Z && [ $i -lt 100 ]; do "
                               "sleep 0.1; i=$((i + 1)); done; ps -o stat | grep -c Z; grep ^Cap /proc/1/status | "
                               "sort -u | cut -f2; ls /proc/1/fd | wc -l");
    spec.init = true;
    const std::string text = run(spec);
    INFO(text);
    CHECK(text.starts_with("2 1 /dev/pts/0\n0\n"));
    // It kept the right to send signals, and nothing is open in it.
    CHECK(text.find("0000000000000020\n") != std::string::npos);
    CHECK(text.ends_with("\n0\n"));
}

TEST_CASE("with the built-in init, every exit code and every signal of the command is told exactly") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (int code = 0; code < 256; code += 15) {
        ContainerSpec spec = shell(root, "exit " + std::to_string(code));
        spec.init = true;
        CHECK(Container::start(spec).wait() == ExitStatus::exited(code));
    }
    for (int number = 1; number <= 64; ++number) {
        // Those that are ignored or only stop, and those that a C library keeps for itself.
        if (number == SIGCHLD || number == SIGCONT || number == SIGURG || number == SIGWINCH || number == SIGSTOP ||
            number == SIGKILL || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU ||
            (number > 31 && number < 35)) {
            continue;
        }
        CAPTURE(number);
        ContainerSpec spec = shell(root, "");
        spec.command = {"/bin/sleep", "60"};
        spec.init = true;
        Container container = Container::start(spec);
        REQUIRE(container.signal(number));
        const ExitStatus status = container.wait();
        CHECK(status.signal() == number);
        CHECK(status.request() == ExitStatus::Request::none);
    }
}

TEST_CASE("the built-in init hands signals on to the command") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "trap 'echo got; exit 5' TERM; echo '!'; while :; do sleep 0.05; done");
    spec.init = true;
    Container container = wait_ready(spec);
    REQUIRE(container.signal(SIGTERM));
    CHECK(output(container).find("got") != std::string::npos);
    CHECK(container.wait() == ExitStatus::exited(5));

    Container killed = wait_ready(spec);
    CHECK(killed.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a start with the built-in init that fails says why") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.command = {"/bin/nothing"};
    spec.init = true;
    CHECK(error_of(spec).starts_with("container 'test': command '/bin/nothing' (in the child): No such file"));
}

TEST_CASE("a hook sees the namespaces, before the command runs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const ContainerSpec spec = shell(root, "cat /hooked");
    std::string name;
    pid_t init = -1;
    bool other_network = false;
    Container container = Container::start(spec, [&](const Starting& starting) {
        name = starting.name;
        init = starting.init.pid();
        other_network =
            Namespace::of(starting.init, NamespaceKind::net).id() != Namespace::current(NamespaceKind::net).id();
        root.write("/hooked", "in time\n");
    });
    CHECK(output(container) == "in time\n");
    CHECK(name == "test");
    CHECK(init == container.init().pid());
    CHECK(other_network);
    CHECK(container.wait().code() == 0);
}

TEST_CASE("what a hook throws is thrown, and nothing is left of the container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    struct Mine {
        int number;
    };
    const ContainerSpec spec = shell(root, "touch /ran");
    int thrown = 0;
    try {
        (void)Container::start(spec, [](const Starting&) { throw Mine{7}; });
    } catch (const Mine& mine) {
        thrown = mine.number;
    }
    CHECK(thrown == 7);
    const auto refuse = [](const Starting&) { throw Error{Step::network, EBUSY, "bridge of mine"}; };
    CHECK_THROWS_WITH_AS((void)Container::start(spec, refuse), "bridge of mine: Device or resource busy", Error);
    // An init that dies under it is the start's failure.
    const auto kill = [](const Starting& starting) { (void)starting.init.signal(SIGKILL); };
    std::string said;
    try {
        (void)Container::start(spec, kill);
    } catch (const Error& e) {
        said = e.what();
    }
    CHECK(said.starts_with("container 'test': init died (killed by signal 9)"));
    CHECK(::access((root / "/ran").c_str(), F_OK) != 0);
    // And one for a container that cannot begin is not called.
    ContainerSpec wrong = spec;
    wrong.root = "/no/such";
    bool called = false;
    CHECK_THROWS_AS((void)Container::start(wrong, [&](const Starting&) { called = true; }), Error);
    CHECK_FALSE(called);
}

TEST_CASE("a controller calls a hook for a start and for each restart, and tells what it throws") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    int calls = 0;
    const auto count = [&](const Starting&) { ++calls; };
    const auto next = [&](const StartHook& hook) {
        for (;;) {
            if (auto event = controller.next(hook)) return event;
            REQUIRE(detail::wait_readable(controller.fd(), 20'000));
        }
    };
    (void)controller.start(shell(root, "true"), ConsoleUse::relay, [](const Starting&) { throw 1; });
    CHECK(next({})->error->what() ==
          std::string{"container 'test': start: the hook has thrown what is no std::exception"});
    ContainerSpec spec = shell(root, "exit 1");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    (void)controller.start(spec, ConsoleUse::relay, count);
    CHECK(next(count)->kind == Event::Kind::started);
    CHECK(calls == 1);
    CHECK(next(count)->kind == Event::Kind::restarting);
    CHECK(next(count)->kind == Event::Kind::started);
    CHECK(calls == 2);
    CHECK(next(count)->kind == Event::Kind::restarting);
    const auto failed = next([](const Starting&) { throw std::runtime_error{"no address is free"}; });
    CHECK(failed->kind == Event::Kind::failed);
    CHECK(failed->error->what() == std::string{"container 'test': start: no address is free"});
    CHECK(controller.size() == 0);
}

TEST_CASE("what a container is asked while it is started again, it is asked once it runs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    ContainerId id{};
    const auto next = [&](const StartHook& hook) {
        for (;;) {
            if (auto event = controller.next(hook)) return *std::move(event);
            REQUIRE(detail::wait_readable(controller.fd(), 20'000));
        }
    };
    ContainerSpec spec = shell(root, "[ -e /again ] && exec sleep 1000; touch /again; exit 3");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    bool stops = false;
    SUBCASE("to shut down") {
        // Which has its child end by SIGTERM.
        spec.init = true;
    }
    SUBCASE("to stop, for longer than an end by SIGKILL may take") {
        stops = true;
    }
    const auto ask = [&](const Starting&) {
        CHECK((stops ? controller.stop(id, std::chrono::milliseconds{0}) : controller.shutdown(id)));
        if (stops) (void)::poll(nullptr, 0, 550);
    };
    std::vector<Event::Kind> told{Event::Kind::started, Event::Kind::exited};
    if (!stops) told.insert(told.begin() + 1, Event::Kind::powered_off);
    id = controller.start(spec);
    CHECK(next({}).kind == Event::Kind::started);
    CHECK(next({}).kind == Event::Kind::restarting);
    for (const Event::Kind kind : told) {
        const Event event = next(ask);
        CAPTURE(event.error ? event.error->what() : "");
        CHECK(event.kind == kind);
        CHECK(event.is_last() == (kind == Event::Kind::exited));
    }
}
