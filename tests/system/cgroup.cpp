#include "support/cgroup.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include <sys/mman.h>

#include "support/doctest.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("a group is made in every hierarchy, empty, and its destructor leaves nothing") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    std::vector<std::string> paths;
    {
        Cgroup group = Cgroup::create("web");
        paths = paths_of(group);
        std::size_t mounted = 0;
        for (const auto& h : detail::cgroup_hierarchies()) mounted += h.places.empty() ? 0 : 1;
        CHECK(paths.size() == mounted);
        CHECK(group.name().starts_with("caisson.web." + detail::Owner::current().tag() + "."));
        for (const std::string& path : paths) {
            CAPTURE(path);
            CHECK(exists(path));
            CHECK(read_file(path + "/cgroup.procs").empty());
        }
        std::size_t v1 = 0;
        for (const CgroupDirectory& d : group.directories()) v1 += d.v2() ? 0 : 1;
        CHECK(group.tasks_fds().size() == v1);
        CHECK((group.into_fd() >= 0) == (v1 < mounted));
        for (const int fd : group.tasks_fds()) CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK_FALSE(any_exists(paths));
}

TEST_CASE("a process that writes 0 to each tasks file and is cloned into the v2 directory is in all of the group") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    const Pipe up, down;
    const pid_t pid = spawn_in(group, [&] {
        up.put();
        down.take();
        return 7;
    });
    REQUIRE(pid > 0);
    up.take();
    for (const std::string& path : paths_of(group)) {
        CAPTURE(path);
        CHECK(read_file(path + "/cgroup.procs") == std::to_string(pid) + "\n");
    }
    down.put();
    CHECK(code_of(pid) == 7);
    group.remove();
    CHECK_FALSE(group);
    group.remove();
}

TEST_CASE("a group that is gone takes no limit, and says so") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    group.remove();
    LimitSpec limits;
    limits.pids = 5;
    CHECK_THROWS_WITH_AS(group.limit(limits),
                         ("limits of control group '" + group.name() + "': there is no group").c_str(), Error);
    Cgroup taken = Cgroup::create("web");
    for (const CgroupDirectory& d : taken.directories()) {
        REQUIRE(::unlinkat(d.parent.get(), taken.name().c_str(), AT_REMOVEDIR) == 0);
    }
    const std::string gone = "limits of control group '" + taken.name() +
                             "': No such file or directory: it was removed: what was in it has ended";
    CHECK_THROWS_WITH(taken.limit(limits), gone.c_str());
    CHECK_THROWS_WITH((void)taken.limits(), gone.c_str());
}

TEST_CASE("the same name twice is two groups") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup first = Cgroup::create("web");
    Cgroup second = Cgroup::create("web");
    Cgroup third = Cgroup::create("web");
    CHECK(second.name() != first.name());
    CHECK(third.name() != second.name());
    CHECK(second.directories().size() == first.directories().size());
    const auto kept = paths_of(first);
    const auto gone = paths_of(second);
    second.remove();
    CHECK(std::all_of(kept.begin(), kept.end(), exists));
    CHECK_FALSE(any_exists(gone));
}

TEST_CASE("a group that somebody else removed is never taken for the next one of that name") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    std::optional<Cgroup> old{Cgroup::create("web")};
    for (auto d = old->directories().rbegin(); d != old->directories().rend(); ++d) {
        REQUIRE(::unlinkat(d->parent.get(), old->name().c_str(), AT_REMOVEDIR) == 0);
    }
    const Cgroup next = Cgroup::create("web");
    old.reset();
    const auto kept = paths_of(next);
    CHECK(std::all_of(kept.begin(), kept.end(), exists));
}

TEST_CASE("a process over its memory limit is killed, and the kernel counts it") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("hog");
    LimitSpec limits;
    limits.memory = (std::uint64_t{16} << 20) + 100;
    group.limit(limits);
    const std::string v1 = path_for(group, "memory.limit_in_bytes");
    CHECK(read_file(v1.empty() ? path_for(group, "memory.max") : v1) == "16777216\n");
    const std::string swap = path_for(group, "memory.memsw.limit_in_bytes");
    if (!swap.empty()) CHECK(read_file(swap) == "16777216\n");
    REQUIRE(group.oom_fd() >= 0);
    const pid_t pid = spawn_in(group, [] {
        constexpr std::size_t size = std::size_t{64} << 20;
        void* all = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED) return 98;
        std::memset(all, 1, size);
        return 0;
    });
    REQUIRE(pid > 0);
    const int status = wait_for(pid);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);
    char text[4096]{};
    CHECK(::pread(group.oom_fd(), text, sizeof text - 1, 0) > 0);
    CHECK(std::string{text}.find("oom_kill 1\n") != std::string::npos);
    SUBCASE("and the limit can be moved up and down") {
        for (const std::uint64_t mib : {64u, 32u, 128u}) {
            limits.memory = mib << 20;
            CHECK_NOTHROW(group.limit(limits));
        }
    }
}

TEST_CASE("fork gets EAGAIN at the pids limit") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("bomb");
    LimitSpec limits;
    limits.pids = 3;
    group.limit(limits);
    const pid_t pid = spawn_in(group, [] {
        for (int forks = 0; forks < 10; ++forks) {
            const pid_t child = ::fork();
            if (child == 0) {
                ::pause();
                ::_exit(0);
            }
            if (child < 0) return errno == EAGAIN ? forks : 97;
        }
        return 96;
    });
    REQUIRE(pid > 0);
    CHECK(code_of(pid) == 2);
}

TEST_CASE("a limit that the kernel refuses is an error that says which and why") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    LimitSpec limits;
    limits.pids = std::uint64_t{1} << 40;
    try {
        group.limit(limits);
        FAIL("the limit was taken");
    } catch (const Error& e) {
        CHECK(e.step() == Step::cgroup);
        CHECK(std::string{e.what()} == "pids limit of 1099511627776 for control group '" + group.name() + "': write '" +
                                           path_for(group, "pids.max") +
                                           "': Invalid argument: the kernel takes 4194304 at most");
    }
}

TEST_CASE("the largest memory limit is the kernel's largest") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    LimitSpec limits;
    limits.memory = UINT64_MAX;
    CHECK_NOTHROW(group.limit(limits));
}

TEST_CASE("remove takes the groups that were made inside, however deep") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("nest");
    const auto paths = paths_of(group);
    for (const std::string& path : paths) {
        for (const char* below : {"/a", "/a/b", "/a/b/c", "/a/d", "/e"})
            REQUIRE(::mkdir((path + below).c_str(), 0755) == 0);
    }
    group.remove();
    CHECK_FALSE(any_exists(paths));
}

TEST_CASE("remove says which process is in the way, kill takes it away") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("busy");
    const Pipe up;
    const pid_t pid = spawn_in(group, [&] {
        up.put();
        ::pause();
        return 0;
    });
    REQUIRE(pid > 0);
    up.take();
    try {
        group.remove();
        FAIL("a busy group was removed");
    } catch (const Error& e) {
        CHECK(e.code() == std::errc::device_or_resource_busy);
        CHECK(std::string{e.what()}.find("remove control group '/") == 0);
        CHECK(std::string{e.what()}.find("': Device or resource busy: process " + std::to_string(pid) + " is in it") !=
              std::string::npos);
    }
    CHECK(group);
    group.kill();
    CHECK(WTERMSIG(wait_for(pid)) == SIGKILL);
    group.remove();
    CHECK_FALSE(group);
}

TEST_CASE("kill ends frozen processes and those of groups made inside") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("ice");
    std::vector<std::string> inner;
    for (const std::string& path : paths_of(group)) {
        const bool v2 = exists(path + "/cgroup.events");
        if (v2) continue;
        REQUIRE(::mkdir((path + "/in").c_str(), 0755) == 0);
        for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
            if (!exists(path + file)) continue;
            const Fd fd = detail::sys::open(path + "/in" + file, O_WRONLY);
            REQUIRE(detail::sys::write_all(fd.get(), read_file(path + file)));
        }
        inner.push_back(path + "/in/tasks");
    }
    const Pipe up;
    const pid_t pid = spawn_in(group, [&] {
        for (const std::string& tasks : inner) {
            const Fd fd = detail::sys::open(tasks, O_WRONLY);
            if (!detail::sys::write_all(fd.get(), "0")) return 95;
        }
        up.put();
        ::pause();
        return 0;
    });
    REQUIRE(pid > 0);
    up.take();
    std::string freezer = path_for(group, "in/freezer.state");
    const bool v1 = !freezer.empty();
    if (!v1) freezer = path_for(group, "cgroup.freeze");
    REQUIRE(detail::sys::write_file(AT_FDCWD, freezer.c_str(), v1 ? "FROZEN" : "1"));
    group.kill();
    CHECK(WTERMSIG(wait_for(pid)) == SIGKILL);
    group.remove();
}

TEST_CASE("the destructor kills what still runs") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    std::vector<std::string> paths;
    pid_t pid = -1;
    {
        Cgroup group = Cgroup::create("left");
        paths = paths_of(group);
        const Pipe up;
        pid = spawn_in(group, [&] {
            up.put();
            ::pause();
            return 0;
        });
        REQUIRE(pid > 0);
        up.take();
    }
    CHECK(WTERMSIG(wait_for(pid)) == SIGKILL);
    CHECK_FALSE(any_exists(paths));
}

TEST_CASE("a group that somebody else removed is removed") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("gone");
    for (const CgroupDirectory& d : group.directories()) {
        REQUIRE(::unlinkat(d.parent.get(), group.name().c_str(), AT_REMOVEDIR) == 0);
    }
    CHECK_NOTHROW(group.remove());
    CHECK_FALSE(group);
}

TEST_CASE("a group without its descriptors is still limited and removed") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("calm");
    const auto paths = paths_of(group);
    group.settle();
    CHECK(group.into_fd() == -1);
    CHECK(group.tasks_fds().empty());
    LimitSpec limits;
    limits.pids = 5;
    CHECK_NOTHROW(group.limit(limits));
    CHECK(read_file(path_for(group, "pids.max")) == "5\n");
    group.remove();
    CHECK_FALSE(any_exists(paths));
}

TEST_CASE("a released group stays, and a forked copy owns nothing") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("kept");
    const auto paths = paths_of(group);
    const pid_t pid = ::fork();
    if (pid == 0) {
        { const Cgroup taken = std::move(group); }
        ::_exit(0);
    }
    CHECK(code_of(pid) == 0);
    CHECK(std::all_of(paths.begin(), paths.end(), exists));
    group.release();
    CHECK_FALSE(group);
    CHECK(std::all_of(paths.begin(), paths.end(), exists));
    for (const std::string& path : paths) CHECK(::rmdir(path.c_str()) == 0);
}

TEST_CASE("a parent that is not there is named, and nothing is left") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    try {
        (void)Cgroup::create("web", "no/such/parent");
        FAIL("made below nothing");
    } catch (const Error& e) {
        CHECK(e.step() == Step::cgroup);
        CHECK(e.code() == std::errc::no_such_file_or_directory);
        CHECK(std::string{e.what()}.find("control group 'web' below '/") == 0);
        CHECK(e.remedy().find("/no/such/parent' does not exist: make it first") != std::string::npos);
    }
}

TEST_CASE("groups can be made below a parent of one's own") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    const OwnParent own;
    const auto& tops = own.paths;
    {
        Cgroup group = Cgroup::create("web", own.name);
        CHECK(group.directories().size() == tops.size());
        for (const CgroupDirectory& d : group.directories()) {
            CHECK(std::find(tops.begin(), tops.end(), d.parent_path) != tops.end());
        }
    }
}
