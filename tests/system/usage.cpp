// What a group's processes have used, after work of which it is known what it takes.
#include <caisson/cgroup.hpp>
#include <caisson/controller.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include <poll.h>

#include <caisson/helper.hpp>

#include "support/cgroup.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/usage.hpp"

namespace {
std::atomic<long> allocations{0};
}

void* operator new(std::size_t size) {
    ++allocations;
    if (void* const place = std::malloc(size == 0 ? 1 : size)) return place;
    throw std::bad_alloc{};
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    ++allocations;
    return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* place) noexcept {
    std::free(place);
}
void operator delete(void* place, const std::nothrow_t&) noexcept {
    std::free(place);
}
void operator delete(void* place, std::size_t) noexcept {
    std::free(place);
}

using namespace caisson;
using namespace caisson_test;

TEST_CASE("300 ms of work on one CPU are 300 ms in all, and on that CPU") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("cpu");
    const Usage before = group.usage(UsagePart::cpu);
    if (!before.cpu) CAISSON_SKIP("no hierarchy counts the time");
    const int cpu = last_cpu();
    const Worker worker{group, [cpu] { burn_on(cpu, 300 * ms); }};
    const Usage usage = group.usage(UsagePart::cpu | UsagePart::details);
    CHECK(*usage.cpu >= 290 * ms);
    check_near(*usage.cpu, worker.cpu_time());
    REQUIRE(usage.cpu_user);
    REQUIRE(usage.cpu_system);
    check_near(*usage.cpu_user + *usage.cpu_system, worker.cpu_time());
    if (usage.cpu_each_missing.empty()) check_all_on(cpu, usage.cpu_each, worker.cpu_time());
    else CHECK(usage.cpu_each.empty());
}

TEST_CASE("where only v2 counts the time, perf events tell that of each CPU, or the answer says why not") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    if (!has_v2()) CAISSON_SKIP("no v2 hierarchy is mounted");
    const Covered covered{"cpuacct"};
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("perf");
    const int cpu = last_cpu();
    const Usage first = group.usage(UsagePart::cpu);
    REQUIRE(first.cpu);
    if (!first.cpu_each_missing.empty()) {
        CHECK(first.cpu_each.empty());
        CHECK(first.cpu_each_missing.starts_with("perf_event_open: "));
        CHECK_THROWS_AS(group.count_cpus(), Error);
        CAISSON_SKIP(first.cpu_each_missing.c_str());
    }
    const Elapsed elapsed;
    const Worker worker{group, [cpu] { burn_on(cpu, 300 * ms); }};
    const Usage usage = group.usage(UsagePart::cpu);
    CHECK(*usage.cpu >= 290 * ms);
    check_near(*usage.cpu, worker.cpu_time());
    check_clock_on(cpu, usage.cpu_each, worker.cpu_time(), elapsed);
    CHECK(usage.cpu_each_missing.empty());
    SUBCASE("what is below the group counts as well, and what is beside it does not") {
        Cgroup other = Cgroup::create("perf");
        const Worker beside{other, [cpu] { burn_on(cpu, 50 * ms); }};
        const std::vector<std::uint64_t> after = group.usage(UsagePart::cpu).cpu_each;
        REQUIRE(after.size() == usage.cpu_each.size());
        for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] - usage.cpu_each[i] <= 15 * ms);
    }
}

TEST_CASE("each CPU's time is counted from count_cpus on, and who may not have it is told what it takes") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    if (!has_v2()) CAISSON_SKIP("no v2 hierarchy is mounted");
    const Covered covered{"cpuacct"};
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("counted");
    try {
        group.count_cpus();
    } catch (const Error& e) {
        CHECK(e.step() == Step::cgroup);
        CAISSON_SKIP(e.what());
    }
    const int cpu = last_cpu();
    {
        const Elapsed elapsed;
        const Worker worker{group, [cpu] { burn_on(cpu, 300 * ms); }};
        check_clock_on(cpu, group.usage(UsagePart::cpu).cpu_each, worker.cpu_time(), elapsed);
    }
    if (read_file("/proc/sys/kernel/perf_event_paranoid")[0] < '1') return;
    const auto in_child = [](const std::function<bool()>& good) {
        const pid_t pid = ::fork();
        if (pid == 0) ::_exit(drop({CAP_SYS_ADMIN, CAP_PERFMON}) && good() ? 0 : 1);
        return code_of(pid) == 0;
    };
    Cgroup other = Cgroup::create("uncounted");
    CHECK(in_child([&] {
        const Usage usage = other.usage(UsagePart::cpu);
        return usage.cpu && usage.cpu_each.empty() &&
               usage.cpu_each_missing ==
                   "perf_event_open: Permission denied: this takes CAP_PERFMON, or kernel.perf_event_paranoid at 0 or "
                   "below";
    }));
    CHECK(in_child([&] {
        try {
            other.count_cpus();
            return false;
        } catch (const Error& e) {
            return e.what() ==
                   "count the time on each CPU for control group '" + other.name() +
                       "': Permission denied: this takes CAP_PERFMON, or kernel.perf_event_paranoid at 0 or "
                       "below";
        }
    }));
}

TEST_CASE("a quota's waiting time is counted") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("quota");
    LimitSpec limits;
    limits.cpu_quota = 2000;
    try {
        group.limit(limits);
    } catch (const Error& e) {
        CAISSON_SKIP(e.what());
    }
    const Worker worker{group, [] { burn_on(last_cpu(), 8 * ms); }};
    const Usage usage = group.usage(UsagePart::cpu | UsagePart::details);
    REQUIRE(usage.cpu_throttled);
    CHECK(*usage.cpu_throttled > 10 * ms);
    CHECK_FALSE(group.usage(UsagePart::cpu).cpu_throttled);
}

TEST_CASE("memory that is touched is counted for what it is") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("memory");
    constexpr auto parts = UsagePart::memory | UsagePart::details;
    if (!group.usage(parts).memory) CAISSON_SKIP("no hierarchy counts memory");
    CHECK_FALSE(group.usage(parts).memory_limit);
    LimitSpec limits;
    limits.memory = 64 * mib;
    group.limit(limits);
    const auto grown = [&](std::optional<std::uint64_t> value, std::optional<std::uint64_t> before) {
        REQUIRE(value);
        REQUIRE(before);
        return static_cast<std::int64_t>(*value - *before);
    };
    // One process may have a few pages more of its own than the next.
    constexpr std::int64_t touched = 8 * mib - 64 * 1024, little = mib;
    Usage before;
    {
        const Worker idle{group, [] {}};
        before = group.usage(parts);
        CHECK(before.memory_limit == 64 * mib);
        const bool swap =
            !path_for(group, "memory.memsw.limit_in_bytes").empty() || !path_for(group, "memory.swap.max").empty();
        CHECK(before.swap_limit == (swap ? std::optional<std::uint64_t>{0} : std::nullopt));
        CHECK(before.swap.value_or(0) == 0u);
        CHECK(before.memory_limit_hits == 0u);
        CHECK(before.oom_kills == 0u);
    }
    {
        const Worker anon{group, [] { touch(8 * mib); }};
        const Usage usage = group.usage(parts);
        CHECK(grown(usage.memory_anon, before.memory_anon) >= touched);
        CHECK(grown(usage.memory_anon, before.memory_anon) < touched + little);
        CHECK(grown(usage.memory_file, before.memory_file) < little);
        CHECK(usage.memory >= 8 * mib);
        if (usage.memory_peak) CHECK(usage.memory_peak >= usage.memory);
        if (usage.memory_peak) CHECK(usage.memory_peak < 32 * mib);
        const Usage quick = group.usage(UsagePart::memory);
        CHECK(quick.memory >= 8 * mib);
        CHECK_FALSE(quick.memory_anon);
    }
    {
        const Worker shared{group, [] { touch(8 * mib, MAP_SHARED | MAP_ANONYMOUS); }};
        const Usage usage = group.usage(parts);
        CHECK(grown(usage.memory_file, before.memory_file) >= touched);
        CHECK(grown(usage.memory_anon, before.memory_anon) < little);
    }
    const int status = wait_for(spawn_in(group, [] {
        touch(128 * mib);
        return 0;
    }));
    CHECK(WIFSIGNALED(status));
    const Usage killed = group.usage(parts);
    CHECK(killed.oom_kills == 1u);
    REQUIRE(killed.memory_limit_hits);
    const std::string v1 = path_for(group, "memory.failcnt");
    if (v1.empty()) {
        CHECK(*killed.memory_limit_hits > 0);
    } else {
        // Some kernels never count them.
        const std::string both = path_for(group, "memory.memsw.failcnt");
        const std::uint64_t hits = std::stoull(read_file(v1)) + (both.empty() ? 0 : std::stoull(read_file(both)));
        CHECK(*killed.memory_limit_hits == hits);
    }
    if (killed.memory_peak) CHECK(killed.memory_peak >= 60 * mib);
}

TEST_CASE("processes are counted beside their limit") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("pids");
    if (!group.usage(UsagePart::pids).pids) CAISSON_SKIP("no hierarchy counts processes");
    CHECK_FALSE(group.usage(UsagePart::pids).pids_limit);
    LimitSpec limits;
    limits.pids = 17;
    group.limit(limits);
    const Worker a{group, [] {}};
    const Worker b{group, [] {}};
    const Usage usage = group.usage(UsagePart::pids);
    CHECK(usage.pids == 2u);
    CHECK(usage.pids_limit == 17u);
    CHECK_FALSE(usage.cpu);
}

TEST_CASE("what is written to and read from a block device is counted for that device") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("block");
    if (path_for(group, "io.stat").empty() && path_for(group, "blkio.throttle.io_serviced_recursive").empty()) {
        CAISSON_SKIP("no hierarchy counts what goes to block devices");
    }
    const Disk disk;
    if (!disk) CAISSON_SKIP("this machine has no loop devices");
    const std::string limit = path_for(group, "blkio.throttle.read_bps_device");
    // On v1 nothing is counted of a device that is not limited; 0 is no limit, but enough.
    const std::string none = std::to_string(disk.major) + ":" + std::to_string(disk.minor) + " 0";
    if (!limit.empty()) REQUIRE(detail::sys::write_file(AT_FDCWD, limit.c_str(), none));
    const Worker worker{group, [&disk] {
                            const Fd direct = detail::sys::open(disk.path, O_RDWR | O_DIRECT);
                            void* const data = std::aligned_alloc(4096, mib);
                            std::memset(data, 1, mib);
                            if (::pwrite(direct.get(), data, mib, 0) != static_cast<ssize_t>(mib)) ::_exit(96);
                            for (const off_t at : {0, 65536, 131072}) {
                                if (::pread(direct.get(), data, 65536, at) != 65536) ::_exit(95);
                            }
                        }};
    const Usage usage = group.usage(UsagePart::block);
    const auto found = std::find_if(usage.block.begin(), usage.block.end(), [&](const BlockUsage& one) {
        return one.major == disk.major && one.minor == disk.minor;
    });
    REQUIRE(found != usage.block.end());
    // A file has some more to write than what is in it.
    CHECK(found->write_bytes >= mib);
    CHECK(found->write_bytes < mib + mib / 2);
    CHECK(found->read_bytes == 3 * 65536);
    CHECK(found->write_operations >= 1);
    CHECK(found->read_operations >= 3);
    CHECK(found->read_operations < 30);
}

TEST_CASE("a file that cannot be read any more hinders no other figure") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    Cgroup group = Cgroup::create("switched-off");
    const std::string file = path_for(group, "cgroup.pressure");
    if (file.empty()) CAISSON_SKIP("no hierarchy's pressure can be switched off here");
    REQUIRE(group.usage().cpu_pressure);
    REQUIRE(detail::sys::write_file(AT_FDCWD, file.c_str(), "0"));
    for (int i = 0; i < 2; ++i) {
        const Usage usage = group.usage();
        CHECK(usage.cpu);
        CHECK_FALSE(usage.cpu_pressure);
    }
}

TEST_CASE("pressure is told wherever there is a v2 hierarchy with it") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    Cgroup group = Cgroup::create("pressure");
    const Usage usage = group.usage(UsagePart::pressure);
    CHECK(usage.cpu_pressure.has_value() == !path_for(group, "cpu.pressure").empty());
    CHECK(usage.memory_pressure.has_value() == !path_for(group, "memory.pressure").empty());
    CHECK(usage.io_pressure.has_value() == !path_for(group, "io.pressure").empty());
    if (!usage.cpu_pressure) CAISSON_SKIP("no hierarchy tells of pressure");
    CHECK(usage.cpu_pressure->some == 0);
    // Three that want the same CPU.
    {
        const int cpu = last_cpu();
        std::vector<pid_t> pids;
        for (int i = 0; i < 3; ++i) {
            pids.push_back(spawn_in(group, [cpu] {
                burn_on(cpu, 50 * ms);
                return 0;
            }));
        }
        for (const pid_t pid : pids) CHECK(code_of(pid) == 0);
    }
    CHECK(group.usage(UsagePart::pressure).cpu_pressure->some > 20'000);
}

TEST_CASE("only what is asked for is opened and told, and what was told before is not told again") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("parts");
    const auto descriptors = [] {
        const Fd next = detail::sys::open("/dev/null", O_RDONLY);
        return next.get();
    };
    const int before = descriptors();
    Usage usage;
    group.usage(UsagePart::pids, usage);
    CHECK(descriptors() - before <= 2);
    group.usage(UsagePart::memory, usage);
    CHECK(descriptors() - before <= 4);
    CHECK_FALSE(usage.pids);
    group.usage(UsageParts::all(), usage);
    group.usage({}, usage);
    CHECK(usage == Usage{});
    group.remove();
    CHECK(descriptors() <= before);
    CHECK_THROWS_WITH((void)group.usage(), "read the usage of a control group: there is no group");
}

TEST_CASE("once somebody else has removed the group, every question is refused, the first one too") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    for (const bool asked_before : {false, true}) {
        Cgroup group = Cgroup::create("gone");
        if (asked_before) (void)group.usage();
        for (const std::string& path : paths_of(group)) REQUIRE(::rmdir(path.c_str()) == 0);
        for (const UsageParts parts : {UsageParts::all(), UsageParts{UsagePart::cpu}}) {
            CHECK_THROWS_WITH((void)group.usage(parts),
                              "read the usage of a control group: No such device: the group was removed");
        }
    }
}

TEST_CASE("an object that has been filled is filled again without allocating") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    Cgroup group = Cgroup::create("allocations");
    const Worker worker{group, [] { touch(mib); }};
    Usage usage;
    for (int i = 0; i < 2; ++i) group.usage(UsageParts::all(), usage);
    const long before = allocations;
    for (int i = 0; i < 10; ++i) group.usage(UsageParts::all(), usage);
    CHECK(allocations == before);
    CHECK(usage.cpu.value_or(1) > 0);
    SUBCASE("nor where perf events count") {
        if (!has_v2()) CAISSON_SKIP("no v2 hierarchy is mounted");
        const Covered covered{"cpuacct"};
        Cgroup other = Cgroup::create("allocations");
        for (int i = 0; i < 2; ++i) other.usage(UsageParts::all(), usage);
        const long at = allocations;
        for (int i = 0; i < 10; ++i) other.usage(UsageParts::all(), usage);
        CHECK(allocations == at);
    }
}

TEST_CASE("a controller tells of all its containers in one call, and leaves out what has ended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    std::vector<ContainerId> ids;
    for (const char* name : {"a-name-that-is-longer-than-a-short-string", "b", "c"}) {
        ContainerSpec spec = shell(root, "sleep 100 & wait");
        spec.name = name;
        spec.console.reset();
        ids.push_back(controller.start(spec));
    }
    REQUIRE(controller.size() == 3);
    std::vector<ContainerUsage> all;
    constexpr auto parts = UsageParts::all();
    for (int i = 0; i < 2; ++i) controller.usage(parts, all);
    REQUIRE(all.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(all[i].id == ids[i]);
    CHECK(all[0].name == "a-name-that-is-longer-than-a-short-string");
    CHECK(all[2].name == "c");
    CHECK(all[1].missing.empty());
    if (all[1].usage.cpu) CHECK(*all[1].usage.cpu > 0);
    const long before = allocations;
    for (int i = 0; i < 10; ++i) controller.usage(parts, all);
    CHECK(allocations == before);

    // The controller has not been told yet.
    const Process second = Process::open(controller.init_pid(ids[1]));
    REQUIRE(controller.signal(ids[1], SIGKILL));
    REQUIRE(second.ended_within(10'000));
    const std::string path = "caisson.b.";
    const auto there = [&] {
        const auto hierarchies = detail::cgroup_hierarchies();
        const auto parent = detail::open_cgroup_parent(hierarchies.front(), "");
        for (const std::string& group : detail::groups_in(parent.directory)) {
            if (group.starts_with(path)) return true;
        }
        return false;
    };
    for (int i = 0; i < 200 && there(); ++i) ::usleep(10'000);
    controller.usage(parts, all);
    REQUIRE(all.size() == 2);
    CHECK(all[1].name == "c");
    CHECK(all[1].id == ids[2]);
}

TEST_CASE("a container without a control group does not hinder what is told of the others") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    for (const bool cgroup : {false, true}) {
        ContainerSpec spec = shell(root, "sleep 100 & wait");
        spec.name = cgroup ? "with" : "without";
        spec.cgroup = cgroup;
        spec.console.reset();
        (void)controller.start(spec);
    }
    REQUIRE(controller.size() == 2);
    std::vector<ContainerUsage> all(1);
    all[0].usage.pids = 7;
    controller.usage(UsagePart::pids, all);
    REQUIRE(all.size() == 2);
    CHECK(all[0].missing == "usage of container 'without': No such file or directory: it has no control group");
    CHECK(all[0].usage == Usage{});
    CHECK(all[1].missing.empty());
    CHECK(all[1].usage.pids.value_or(1) > 0);
}

TEST_CASE("a container that counts its CPUs has all of its time on them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!has_v2()) CAISSON_SKIP("no v2 hierarchy is mounted");
    const Covered covered{"cpuacct"};
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo done; read line");
    spec.count_cpus = true;
    try {
        const Elapsed elapsed;
        Container container = Container::start(spec);
        char buffer[16];
        REQUIRE(::read(container.console()->fd(), buffer, sizeof buffer) > 0);
        const Usage usage = container.usage(UsagePart::cpu);
        std::uint64_t sum = 0;
        for (const std::uint64_t one : usage.cpu_each) sum += one;
        REQUIRE(usage.cpu);
        CHECK(*usage.cpu > 10 * ms);
        check_clock(sum, *usage.cpu, elapsed);
    } catch (const Error& e) {
        CHECK(std::string{e.what()}.starts_with("container 'test': count the time on each CPU for control group "));
        CAISSON_SKIP(e.what());
    }
}

TEST_CASE("a helper counts each CPU on v2 although it has given up what that takes") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!has_v2()) CAISSON_SKIP("no v2 hierarchy is mounted");
    const Covered covered{"cpuacct"};
    const Place place;
    Helper helper = Helper::start(place.spec("cpus", "while :; do sleep 0.01; done"), place.options);
    Usage usage = helper.usage(UsagePart::cpu);
    if (usage.cpu_each_missing.find("CONFIG_CGROUP_PERF") != std::string::npos) {
        CAISSON_SKIP(usage.cpu_each_missing.c_str());
    }
    CHECK(usage.cpu_each_missing.empty());
    const auto sum = [&] { return std::accumulate(usage.cpu_each.begin(), usage.cpu_each.end(), std::uint64_t{0}); };
    for (int i = 0; i < 500 && sum() == 0; ++i) {
        (void)::poll(nullptr, 0, 10);
        usage = helper.usage(UsagePart::cpu);
    }
    CHECK(sum() > 0);
    (void)helper.kill();
}
