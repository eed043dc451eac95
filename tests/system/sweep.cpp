#include <caisson/sweep.hpp>

#include <cstring>

#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "support/cgroup.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("usage tells what the group has used, also of processes that have ended") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("meter");
    LimitSpec limits;
    limits.memory = std::uint64_t{256} << 20;
    group.limit(limits);
    const Usage before = group.usage();
    REQUIRE(before.cpu);
    CHECK(*before.cpu == 0);
    CHECK(before.pids == 0);
    CHECK(before.oom_kills == 0);
    CHECK(before.memory_limit == limits.memory);
    constexpr std::uint64_t busy_for = 50'000'000;  // nanoseconds
    constexpr std::size_t size = std::size_t{8} << 20;
    const Pipe up, down;
    const pid_t pid = spawn_in(group, [&] {
        void* all = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) return 98;
        std::memset(all, 1, size);
        timespec t{};
        do ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        while (t.tv_sec == 0 && static_cast<std::uint64_t>(t.tv_nsec) < busy_for);
        up.put();
        down.take();
        return 0;
    });
    REQUIRE(pid > 0);
    up.take();
    const Usage during = group.usage();
    CHECK(during.pids == 1);
    CHECK(during.memory.value_or(0) >= size);
    CHECK(during.memory.value_or(0) <= *limits.memory);
    if (during.memory_peak) CHECK(*during.memory_peak >= size);
    down.put();
    CHECK(code_of(pid) == 0);
    const Usage after = group.usage();
    CHECK(after.pids == 0);
    // The process counts its life before it came into the group too, which is next to nothing.
    CHECK(*after.cpu >= busy_for * 9 / 10);
    CHECK(*after.cpu < 100 * busy_for);
    CHECK(*after.cpu_user + *after.cpu_system <= *after.cpu + 20'000'000);
    std::uint64_t sum = 0;
    for (const std::uint64_t each : after.cpu_each) sum += each;
    const bool v1 = !path_for(group, "cpuacct.usage").empty();
    CHECK(after.cpu_each.empty() == !after.cpu_each_missing.empty());
    if (v1) CHECK(std::to_string(sum) + "\n" == read_file(path_for(group, "cpuacct.usage")));
    for (const CgroupDirectory& d : group.directories()) {
        REQUIRE(::unlinkat(d.parent.get(), group.name().c_str(), AT_REMOVEDIR) == 0);
    }
    CHECK_THROWS_WITH((void)group.usage(), "read the usage of a control group: No such device: the group was removed");
}

TEST_CASE("sweep removes the groups of dead owners with all that runs in them, and no others") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    // Nobody else's leavings are looked at.
    const OwnParent own;
    Cgroup living = Cgroup::create("swept", own.name);
    const auto living_paths = paths_of(living);
    // The owner dies without cleaning up and leaves a process in its group, frozen.
    const Pipe up;
    const pid_t owner = ::fork();
    if (owner == 0) {
        Cgroup group = Cgroup::create("swept", own.name);
        const Pipe placed;
        const pid_t left = spawn_in(group, [&] {
            placed.put();
            ::pause();
            return 0;
        });
        placed.take();
        std::string freezer = path_for(group, "freezer.state");
        const bool v1 = !freezer.empty();
        if (!v1) freezer = path_for(group, "cgroup.freeze");
        if (!detail::sys::write_file(AT_FDCWD, freezer.c_str(), v1 ? "FROZEN" : "1")) ::_exit(93);
        for (const std::string& path : paths_of(group)) (void)::mkdir((path + "/below").c_str(), 0755);
        const std::string text = std::to_string(left) + " " + group.name();
        ::_exit(::write(up.write.get(), text.data(), text.size()) > 0 ? 0 : 92);
    }
    REQUIRE(code_of(owner) == 0);
    char text[256]{};
    REQUIRE(::read(up.read.get(), text, sizeof text - 1) > 0);
    const std::string told{text};
    const Fd left{static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(told), 0))};
    REQUIRE(left);
    const std::string name = told.substr(told.find(' ') + 1);
    std::vector<std::string> dead_paths;
    for (const CgroupDirectory& d : living.directories()) dead_paths.push_back(d.parent_path + "/" + name);
    REQUIRE(std::all_of(dead_paths.begin(), dead_paths.end(), exists));

    SweepOptions options;
    options.cgroup_parents = {own.name};
    options.run_directory = "";
    options.links = false;
    const SweepReport report = sweep(options);
    for (const std::string& path : dead_paths) {
        CAPTURE(path);
        CHECK_FALSE(exists(path));
        CHECK(std::find(report.removed.begin(), report.removed.end(), path) != report.removed.end());
    }
    for (const std::string& path : living_paths) {
        CAPTURE(path);
        CHECK(exists(path));
        CHECK(std::find(report.removed.begin(), report.removed.end(), path) == report.removed.end());
    }
    CHECK(report.kept.empty());
    CHECK(report.removed.size() == dead_paths.size());
    pollfd ended{left.get(), POLLIN, 0};
    CHECK(::poll(&ended, 1, 5000) == 1);
}

TEST_CASE("sweep removes the run directories of dead owners, and no others") {
    const caisson_test::LeavesNothing nothing;
    char top[] = "/tmp/caisson-sweep-XXXXXX";
    REQUIRE(::mkdtemp(top) != nullptr);
    const std::string run = top;
    detail::Owner dead = detail::Owner::current();
    dead.start_time += 1;
    const auto make = [&](const char* name, const std::string& tag) {
        REQUIRE(::mkdir((run + "/" + name).c_str(), 0700) == 0);
        for (const auto& [file, content] : {std::pair<const char*, std::string>{"owner", tag}, {"sock", ""}}) {
            const Fd fd = detail::sys::open(run + "/" + name + "/" + file, O_WRONLY | O_CREAT, 0600);
            REQUIRE(fd);
            REQUIRE(detail::sys::write_all(fd.get(), content));
        }
    };
    make("gone", dead.tag() + "\n");
    make("here", detail::Owner::current().tag() + "\n");
    make("odd", "not a tag");
    make("full", dead.tag());
    REQUIRE(::mkdir((run + "/full/inner").c_str(), 0700) == 0);
    detail::Owner elsewhere = dead;
    elsewhere.pid_namespace += 1;
    make("elsewhere", elsewhere.tag());
    // One that has just been taken over by a helper, which has not yet written its own tag.
    make("taken", dead.tag());
    const Fd taken = detail::sys::open(run + "/taken/owner", O_RDWR);
    REQUIRE(::flock(taken.get(), LOCK_EX | LOCK_NB) == 0);

    SweepReport report;
    detail::sweep_run_directory(run, report);
    CHECK(report.removed == std::vector<std::string>{run + "/gone"});
    CHECK(report.kept == std::vector<std::string>{run + "/full: Directory not empty"});
    CHECK_FALSE(exists(run + "/gone"));
    for (const char* name : {"/here", "/odd", "/elsewhere", "/taken"}) CHECK(exists(run + name + "/sock"));
    CHECK(exists(run + "/full/owner"));

    CHECK(::rmdir((run + "/full/inner").c_str()) == 0);
    for (const char* name : {"here", "odd", "full", "elsewhere", "taken"}) {
        for (const char* file : {"/owner", "/sock"}) (void)::unlink((run + "/" + name + file).c_str());
        CHECK(::rmdir((run + "/" + name).c_str()) == 0);
    }
    CHECK(::rmdir(top) == 0);
}

TEST_CASE("nobody is taken for dead by who has no descriptor left to look with") {
    const detail::Owner living = detail::Owner::current();
    detail::Owner dead = living;
    dead.start_time += 1;
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    // The lowest number that is free is beyond it.
    none.rlim_cur = static_cast<rlim_t>(Fd{::dup(0)}.get());
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const bool is_dead = living.is_dead();
    const bool is_certain = dead.is_dead();
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_FALSE(is_dead);
    CHECK_FALSE(is_certain);
    CHECK_FALSE(living.is_dead());
    CHECK(dead.is_dead());
}
