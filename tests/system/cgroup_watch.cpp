// What is told of control groups and containers: processes killed for want of memory, pressure, the last one gone.
#include <caisson/cgroup.hpp>
#include <caisson/cgroup_watch.hpp>
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

#include <chrono>
#include <cstring>
#include <optional>
#include <string>

#include <sys/mman.h>

#include "support/doctest.hpp"
#include "support/hierarchies.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;
using namespace std::chrono_literals;

namespace {

const char* why_no_watch() {
    if (const char* why = cannot()) return why;
    try {
        Cgroup group = Cgroup::create("probe");
        if (!group.oom_notice()) return "the controller 'memory' is not to be had";
    } catch (const Error&) {
        return "no control group can be made";
    }
    return TestRoot::missing();
}

constexpr std::size_t mib = std::size_t{1} << 20;

/// Uses memory until it is killed.
int hog() {
    for (;;) {
        void* all = ::mmap(nullptr, mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) return 98;
        std::memset(all, 1, mib);
    }
}
/// Reads a file that does not fit into its limit again and again, until the pipe says something.
int reclaim(const std::string& file, const Pipe& down) {
    const Fd fd = detail::sys::open(file, O_RDONLY);
    static char buffer[mib];
    while (!detail::wait_readable(down.read.get(), 0)) {
        for (off_t at = 0; ::pread(fd.get(), buffer, sizeof buffer, at) > 0;) at += static_cast<off_t>(mib);
    }
    return 0;
}

/// The next event of a watch or of a controller.
template <class Watched>
auto next_of(Watched& watched, int milliseconds = 5000) -> decltype(watched.next()) {
    const std::int64_t deadline = detail::deadline_in(milliseconds);
    for (;;) {
        if (auto event = watched.next()) return event;
        const std::int64_t left = deadline - detail::monotonic_ms();
        if (left <= 0) return std::nullopt;
        (void)detail::wait_readable(watched.fd(), left);
    }
}
/// More than fits into 16 MiB, in no cache of anybody's.
bool write_uncached(const std::string& file) {
    const Fd fd = detail::sys::open(file, O_WRONLY | O_CREAT, 0644);
    return detail::sys::write_all(fd.get(), std::string(40 * mib, 'x')) && ::fdatasync(fd.get()) == 0 &&
           ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED) == 0;
}
Cgroup limited_to(std::uint64_t bytes) {
    Cgroup group = Cgroup::create("watched");
    LimitSpec limits;
    limits.memory = bytes;
    group.limit(limits);
    return group;
}

}  // namespace

TEST_CASE("each process that is killed for want of memory is told once, one that somebody kills is not") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Cgroup group = limited_to(16 * mib);
    CgroupWatch watch = group.watch();
    CHECK_FALSE(watch.next());
    const pid_t calm = spawn_in(group, [] {
        ::pause();
        return 0;
    });
    for (int round = 0; round < 2; ++round) {
        const pid_t pid = spawn_in(group, hog);
        CHECK(WTERMSIG(wait_for(pid)) == SIGKILL);
        const auto event = next_of(watch);
        REQUIRE(event);
        CHECK(*event == CgroupEvent{.kind = CgroupEvent::Kind::out_of_memory, .count = 1});
    }
    REQUIRE(::kill(calm, SIGKILL) == 0);
    CHECK(WTERMSIG(wait_for(calm)) == SIGKILL);
    CHECK_FALSE(next_of(watch, 300));
    group.remove();
    // Nor is its descriptor ready for ever.
    CHECK_FALSE(next_of(watch, 100));
    CHECK_FALSE(detail::wait_readable(watch.fd(), 50));
}

TEST_CASE("what was killed before the watch began is not told") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Cgroup group = limited_to(16 * mib);
    CHECK(WTERMSIG(wait_for(spawn_in(group, hog))) == SIGKILL);
    CgroupWatch watch = group.watch();
    CHECK_FALSE(next_of(watch, 300));
}

TEST_CASE("kills in a group that was made inside are told on v2, and on v1 not") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Cgroup group = limited_to(16 * mib);
    CgroupWatch watch = group.watch();
    const bool v1 = !path_for(group, "memory.oom_control").empty();
    std::string inner = path_for(group, v1 ? "memory.oom_control" : "memory.events");
    inner.replace(inner.rfind('/'), std::string::npos, "/in");
    REQUIRE(::mkdir(inner.c_str(), 0755) == 0);
    const pid_t pid = spawn_in(group, [&] {
        const Fd fd = detail::sys::open(inner + (v1 ? "/tasks" : "/cgroup.procs"), O_WRONLY);
        return detail::sys::write_all(fd.get(), "0") ? hog() : 95;
    });
    CHECK(WTERMSIG(wait_for(pid)) == SIGKILL);
    const auto event = next_of(watch, v1 ? 300 : 5000);
    CHECK(event.has_value() == !v1);
    if (event) CHECK(event->count == 1);
    group.remove();
}

TEST_CASE("a group on v2 tells when its last process has left, each time") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    if (mounted("").empty()) CAISSON_SKIP("cgroup v2 is not mounted");
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("watched");
    CgroupWatch watch = group.watch({.out_of_memory = false, .empty = true});
    CHECK_FALSE(next_of(watch, 50));
    for (int round = 0; round < 2; ++round) {
        const Pipe down;
        const auto wait = [&] {
            down.take();
            return 0;
        };
        const pid_t first = spawn_in(group, wait);
        const pid_t second = spawn_in(group, wait);
        CHECK_FALSE(next_of(watch, 50));
        if (round == 0) {
            group.freeze();
            CHECK_FALSE(next_of(watch, 50));
            group.thaw();
        }
        down.put();
        CHECK_FALSE(next_of(watch, 50));
        down.put();
        CHECK(code_of(first) + code_of(second) == 0);
        CHECK(next_of(watch) == CgroupEvent{.kind = CgroupEvent::Kind::empty});
    }
    // One that is gone before anybody looks is not missed.
    CHECK(code_of(spawn_in(group, [] { return 0; })) == 0);
    CHECK(next_of(watch) == CgroupEvent{.kind = CgroupEvent::Kind::empty});
    group.remove();
    CHECK_FALSE(watch.next());
    CHECK_FALSE(detail::wait_readable(watch.fd(), 50));
}

TEST_CASE("what the kernel does not tell of is an error") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const auto said_by = [](const CgroupWatchOptions& options) {
        Cgroup group = Cgroup::create("watched");
        try {
            (void)group.watch(options);
            return std::string{"it is watched"};
        } catch (const Error& e) {
            std::string text = e.what();
            const std::size_t at = text.find(group.name());
            return at == std::string::npos ? text : text.replace(at, group.name().size(), "NAME");
        }
    };
    if (!mounted("memory").empty()) {
        CHECK(
            in_host([&] { return hide("") ? said_by({.out_of_memory = false, .empty = true}) : "cannot hide v2"; }) ==
            "watch for the end of control group 'NAME': Operation not supported: it has no directory on cgroup v2, and "
            "v1 does not tell that the last process has left");
        if (!mounted("").empty()) {
            const std::string said = in_host([&] { return hide("memory") ? said_by({}) : "cannot hide it"; });
            CHECK(said == "out-of-memory events for control group 'NAME': cgroup hierarchy 'memory' is not mounted");
        }
    } else if (::access("/proc/pressure/memory", R_OK) != 0) {
        CHECK(said_by({.out_of_memory = false, .pressure = MemoryPressure::low}) ==
              "memory pressure of control group 'NAME': Operation not supported: this kernel does not count pressure "
              "(PSI): boot it with psi=1, or build it with CONFIG_PSI");
    }
    Cgroup gone = Cgroup::create("watched");
    gone.remove();
    CHECK_THROWS_WITH_AS((void)gone.watch(),
                         ("out-of-memory events for control group '" + gone.name() + "': there is no group").c_str(),
                         Error);
    CHECK_THROWS_WITH_AS((void)gone.watch({.out_of_memory = false, .pressure = MemoryPressure::low}),
                         ("memory pressure of control group '" + gone.name() + "': there is no group").c_str(), Error);
}

TEST_CASE("who reclaims memory all the time is told of as under pressure, who sleeps is not") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory directory;
    const std::string file = directory / "data";
    REQUIRE(write_uncached(file));
    std::vector<std::string> ways;
    if (::access("/proc/pressure/memory", R_OK) == 0 && !mounted("").empty()) ways.emplace_back("PSI");
    if (!mounted("memory").empty()) ways.emplace_back("v1");
    if (ways.empty()) CAISSON_SKIP("this kernel has neither PSI nor a v1 controller 'memory'");
    for (const std::string& way : ways) {
        CAPTURE(way);
        CHECK(in_host([&]() -> std::string {
                  if (way == "v1" && !hide("")) return "cannot hide v2";
                  Cgroup group = limited_to(16 * mib);
                  CgroupWatch watch = group.watch({.pressure = MemoryPressure::low});
                  CgroupWatch worst = group.watch({.pressure = MemoryPressure::critical});
                  if (next_of(watch, way == "v1" ? 100 : 1100)) return "pressure without a process";
                  const Pipe down;
                  const pid_t pid = spawn_in(group, [&] { return reclaim(file, down); });
                  const auto event = next_of(watch, 10'000);
                  down.put();
                  if (code_of(pid) != 0) return "no success";
                  if (!event) return "no event";
                  if (event->kind != CgroupEvent::Kind::memory_pressure) return "another event";
                  if (event->pressure != MemoryPressure::low) return "another level";
                  return "ok";
              }) == "ok");
    }
}

TEST_CASE("a controller tells that a process inside was killed for want of memory, and the container goes on") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "tail /dev/zero; sleep 1000 & kill -9 $!; wait; echo > /tmp/on; sleep 1000");
    spec.limits.memory = 16 * mib;
    const ContainerId id = controller.start(spec);
    REQUIRE(next_of(controller)->kind == Event::Kind::started);
    const auto event = next_of(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::out_of_memory);
    CHECK(event->id == id);
    CHECK(event->name == spec.name);
    CHECK(event->count == 1);
    CHECK_FALSE(next_of(controller, 300));
    CHECK(root.read("/tmp/on") == "\n");
    CHECK(controller.usage(id).oom_kills == 1);
    controller.suspend(id);
    CHECK(next_of(controller)->kind == Event::Kind::suspended);
    CHECK(controller.signal(id, SIGKILL));
    const auto end = next_of(controller);
    REQUIRE(end);
    CHECK(end->kind == Event::Kind::exited);
    CHECK(end->status == ExitStatus::killed(SIGKILL).with_out_of_memory(true));
}

TEST_CASE("the event that init was killed for want of memory comes before its end; a plain kill is none") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "exec tail /dev/zero");
    spec.limits.memory = 16 * mib;
    for (int round = 0; round < 4; ++round) {
        (void)controller.start(spec);
        REQUIRE(next_of(controller)->kind == Event::Kind::started);
        // Also where nothing was asked for until the group and its files are gone.
        if (round % 2 == 1) CHECK(groups_vanish(::getpid()));
        const auto event = next_of(controller);
        REQUIRE(event);
        CHECK(event->kind == Event::Kind::out_of_memory);
        CHECK(event->count == 1);
        const auto end = next_of(controller);
        REQUIRE(end);
        CHECK(end->kind == Event::Kind::exited);
        CHECK(end->status == ExitStatus::killed(SIGKILL).with_out_of_memory(true));
    }
    spec.command[2] = "sleep 1000";
    const ContainerId calm = controller.start(spec);
    REQUIRE(next_of(controller)->kind == Event::Kind::started);
    CHECK(controller.signal(calm, SIGKILL));
    const auto end = next_of(controller);
    REQUIRE(end);
    CHECK(end->kind == Event::Kind::exited);
    CHECK(end->status == ExitStatus::killed(SIGKILL));
    CHECK_FALSE(controller.next());
}

TEST_CASE("a container that is taken or adopted brings no events of the past, and keeps its count") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Controller first;
    ContainerSpec spec = shell(root, "tail /dev/zero; read line; exec tail /dev/zero");
    spec.limits.memory = 16 * mib;
    const ContainerId id = first.start(spec, ConsoleUse::raw);
    REQUIRE(next_of(first)->kind == Event::Kind::started);
    REQUIRE(next_of(first)->kind == Event::Kind::out_of_memory);
    Controller second;
    Container container = first.take(id);
    const int console = container.console()->fd();
    (void)second.adopt(std::move(container), ConsoleUse::raw);
    CHECK_FALSE(next_of(second, 100));
    REQUIRE(detail::sys::write_all(console, "\n"));
    const auto event = next_of(second);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::out_of_memory);
    CHECK(event->count == 1);
    CHECK(next_of(second)->kind == Event::Kind::exited);
    CHECK_FALSE(first.next());
}

TEST_CASE("a controller tells of memory pressure where it is asked to") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(write_uncached(root / "/tmp/data"));
    Controller controller;
    ContainerSpec spec = shell(root, "while :; do cat /tmp/data > /dev/null; done");
    spec.limits.memory = 16 * mib;
    const ContainerId id = controller.start(spec);
    REQUIRE(next_of(controller)->kind == Event::Kind::started);
    const bool has = ::access("/proc/pressure/memory", R_OK) == 0 || !mounted("memory").empty();
    std::string said;
    try {
        controller.watch_pressure(id, MemoryPressure::critical);
        controller.watch_pressure(id, MemoryPressure::low);
    } catch (const Error& e) {
        said = e.what();
    }
    if (has) {
        CHECK(said.empty());
        const auto event = next_of(controller, 10'000);
        REQUIRE(event);
        CHECK(event->kind == Event::Kind::memory_pressure);
        CHECK(event->id == id);
        CHECK(event->pressure == MemoryPressure::low);
    } else {
        CHECK(said.starts_with("memory pressure of container 'test': memory pressure of control group 'caisson.test."));
        CHECK(
            said.ends_with("': Operation not supported: this kernel does not count pressure (PSI): boot it with "
                           "psi=1, or build it with CONFIG_PSI"));
    }
    CHECK(controller.signal(id, SIGKILL));
    auto event = next_of(controller);
    while (event && event->kind == Event::Kind::memory_pressure) event = next_of(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::exited);
    CHECK_THROWS_WITH_AS(controller.watch_pressure(id, MemoryPressure::low),
                         "container 1: No such process: it has ended", Error);
}

TEST_CASE("a helper goes on when a process of its container is killed for want of memory, and counts it") {
    if (const char* reason = why_no_watch()) CAISSON_SKIP(reason);
    const TestRoot root;
    const TestDirectory directory;
    ContainerSpec spec = shell(root, "tail /dev/zero; echo > /tmp/on; sleep 1000");
    spec.limits.memory = 16 * mib;
    Helper helper = Helper::start(spec, {.run_directory = directory / "run"});
    for (int waited = 0; root.read("/tmp/on").empty() && waited < 5000; waited += 5) ::usleep(5000);
    REQUIRE_FALSE(root.read("/tmp/on").empty());
    CHECK(helper.usage().oom_kills == 1);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL).with_out_of_memory(true));
    CHECK(::rmdir((directory / "run").c_str()) == 0);
}
