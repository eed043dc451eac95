// Family F: what a container may do with control groups, and what those hold it to.
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>
#include <caisson/sweep.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/cgroup.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;
using caisson_test::exists;
using caisson_test::read_file;

namespace {

std::string said_until(Container& container, const std::string& word) {
    std::string said;
    for (char c = 0; !contains(said, word) && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    return said;
}

/// The directories of a process's groups, in every hierarchy that the host has mounted.
std::vector<std::string> groups_of(const std::string& proc) {
    std::vector<std::string> found;
    const std::string lines = read_file(proc + "/cgroup");
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        if (hierarchy.places.empty()) continue;
        const std::string mark = ":" + hierarchy.controllers + ":";
        const std::size_t at = lines.find(mark);
        if (at == std::string::npos) continue;
        const std::size_t path = at + mark.size();
        found.push_back(hierarchy.places.front().mount_point + lines.substr(path, lines.find('\n', path) - path));
    }
    return found;
}
std::string file_in(const std::vector<std::string>& groups, const std::string& name) {
    for (const std::string& group : groups) {
        if (exists(group + "/" + name)) return group + "/" + name;
    }
    return {};
}

}  // namespace

TEST_CASE("CVE-2023-25809: nothing of the host's control groups can be written to, and a container's own is its top") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string script =
        "cut -d: -f3 /proc/self/cgroup | grep -v '^/$'; "
        "find /sys/fs/cgroup | while read f; do if [ -d $f ]; then mkdir $f/made && echo made in $f; "
        "else ( : >> $f ) && echo opened $f; fi; done 2>/dev/null | sort; "
        "mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted; echo tried";
    for (const bool user : {true, false}) {
        ContainerSpec spec = with_user(shell(root, script), user);
        CHECK(attempt(spec) == "tried\n");
        spec.cgroup_mount = CgroupMount::read_only;
        CHECK(attempt(spec) == "tried\n");
    }
    // Who may write makes groups below its own, and changes nothing that it is held to.
    ContainerSpec spec = shell(root, script);
    spec.cgroup_mount = CgroupMount::read_write;
    CHECK(attempt(spec) ==
          "made in /sys/fs/cgroup\nopened /sys/fs/cgroup/cgroup.procs\nopened /sys/fs/cgroup/cgroup.subtree_control\n"
          "opened /sys/fs/cgroup/cgroup.threads\ntried\n");
}

TEST_CASE("groups that a container makes are not deeper than what is removed with it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "d=/sys/fs/cgroup; n=0; while [ $n -lt 40 ]; do d=$d/x; mkdir $d 2>/dev/null || break; "
                               "n=$((n + 1)); done; echo $n");
    spec.cgroup_mount = CgroupMount::read_write;
    CHECK(attempt(spec) == "16\n");
}

TEST_CASE("CVE-2019-14891: a payload that runs out of memory is killed, and its keeper is in another group") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "echo re\"\"ady; read line; tail /dev/zero");
    spec.limits.memory = std::uint64_t{64} << 20;
    const int times = rounds(5, 50);
    for (int i = 0; i < times; ++i) {
        Container container = Container::start(spec);
        (void)said_until(container, "ready");
        const std::string keeper = keeper_directory(container);
        const std::string inside = read_file("/proc/" + std::to_string(container.init().pid()) + "/cgroup");
        CHECK(contains(inside, "/caisson.test."));
        CHECK_FALSE(contains(read_file(keeper + "/cgroup"), "caisson.test."));
        CHECK_FALSE(contains(read_file("/proc/self/cgroup"), "caisson.test."));
        const Process watched = Process::open(std::stoi(keeper.substr(6)));
        REQUIRE(::write(container.console()->fd(), "\n", 1) == 1);
        // init is the shell, which the kernel may leave alone.
        const ExitStatus status = container.wait();
        CHECK(status.out_of_memory());
        CHECK_FALSE(status.success());
        // It told, and ended by itself.
        CHECK(watched.ended_within(5000));
    }
}

TEST_CASE("CVE-2025-47291: limits are in force before the command runs, read back from the host and met inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool user : {true, false}) {
        ContainerSpec spec =
            with_user(shell(root,
                            "echo re\"\"ady; read line; n=1; while [ $n -lt 40 ]; do sleep 1000 & n=$((n+1)); "
                            "echo $n; done 2>/dev/null"),
                      user);
        spec.limits.memory = std::uint64_t{64} << 20;
        spec.limits.pids = 17;
        Container container = Container::start(spec);
        (void)said_until(container, "ready");
        const auto groups = groups_of("/proc/" + std::to_string(container.init().pid()));
        REQUIRE(!groups.empty());
        for (const std::string& group : groups) CHECK(contains(group, "/caisson.test."));
        std::string memory = file_in(groups, "memory.max");
        if (memory.empty()) memory = file_in(groups, "memory.limit_in_bytes");
        CHECK(read_file(memory) == "67108864\n");
        CHECK(read_file(file_in(groups, "pids.max")) == "17\n");
        CHECK(read_file(file_in(groups, "pids.current")) == "1\n");
        REQUIRE(::write(container.console()->fd(), "\n", 1) == 1);
        // A fork bomb stops exactly there.
        const std::string text = output(container);
        CAPTURE(text);
        CHECK(text.ends_with("\n16\n17\n"));
        (void)container.wait();
        for (const std::string& group : groups) CHECK_FALSE(exists(group));
    }
}

TEST_CASE("a container cannot leave its control groups, whatever it may write to") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string script =
        "cd /sys/fs/cgroup; for d in . .. ../.. ../../..; do for f in $d/cgroup.procs $d/tasks; do "
        "[ -e $f ] && echo $$ > $f && [ $d != . ] && echo left by $f; done; done 2>/dev/null; "
        "find / -xdev -name cgroup.procs 2>/dev/null; mkdir -p a && echo $$ > a/cgroup.procs; echo re\"\"ady; read "
        "line";
    for (const CgroupMount mount : {CgroupMount::none, CgroupMount::read_only, CgroupMount::read_write}) {
        for (const bool user : {true, false}) {
            ContainerSpec spec = with_user(shell(root, "exec 2>/dev/null; " + script), user);
            spec.cgroup_mount = mount;
            Container container = Container::start(spec);
            CHECK(said_until(container, "ready") == "ready");
            for (const std::string& group : groups_of("/proc/" + std::to_string(container.init().pid()))) {
                CAPTURE(group);
                CHECK(contains(group, "/caisson.test."));
            }
        }
    }
}

TEST_CASE("a payload whose pid 1 is held by its tracer ends all the same, by whatever kills it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const Place place;
    place.root.copy(program("payload"), "/bin/payload");
    ContainerSpec spec = place.spec("held");
    spec.command = {"/bin/payload", "hold"};
    const auto begin = [&] {
        Container container = Container::start(spec);
        REQUIRE(contains(said_until(container, "held"), "held"));
        return container;
    };
    const auto ends = [](const Process& init) { return init.ended_within(5000); };
    for (const std::string way : {"kill", "stop", "destructor", "keeper", "controller", "helper", "owner"}) {
        CAPTURE(way);
        if (way == "helper" || way == "owner") {
            HelperOptions options = place.options;
            options.open_console = true;
            Helper helper = Helper::start(spec, options);
            const Fd console = helper.open_console();
            char c = 0;
            while (c != 'd' && ::read(console.get(), &c, 1) == 1) {
            }
            const Process init = Process::open(helper.info().init);
            if (way == "helper") CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
            else REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
            CHECK(ends(init));
            (void)helper.wait();
            continue;
        }
        std::optional<Container> container{begin()};
        const Process init = Process::open(container->init().pid());
        if (way == "kill") CHECK(container->kill() == ExitStatus::killed(SIGKILL));
        if (way == "stop") CHECK(container->stop(std::chrono::milliseconds{0}) == ExitStatus::killed(SIGKILL));
        if (way == "destructor") container.reset();
        if (way == "keeper") {
            (void)Process::open(std::stoi(keeper_directory(*container).substr(6))).signal(SIGKILL);
            CHECK(container->wait_for(std::chrono::seconds{5}) == ExitStatus::killed(SIGKILL));
        }
        if (way == "controller") {
            Controller controller;
            const ContainerId id = controller.adopt(std::move(*container), ConsoleUse::raw);
            CHECK(controller.signal(id, SIGKILL));
            for (int i = 0; i < 500 && controller.size() > 0; ++i) {
                (void)detail::wait_readable(controller.fd(), 10);
                (void)controller.next();
            }
            CHECK(controller.size() == 0);
        }
        CHECK(ends(init));
    }
    (void)sweep_only(place.run);
}
