#include "support/cgroup.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include <linux/blkpg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include <caisson/check.hpp>
#include <caisson/loop.hpp>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

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

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

/// A disk of the test's own, or one of the machine's that is only read.
struct TestDisk {
    TestDirectory directory{};
    Loop loop{};
    std::string path = exists("/dev/ubda") ? "/dev/ubda" : "/dev/vda";  // virtual machines' first
    std::string numbers{};                                              ///< "MAJOR:MINOR"
    TestDisk() {
        if (exists("/dev/loop-control")) {
            const Fd file{::open((directory / "disk").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
            if (::ftruncate(file.get(), 8 * mib) != 0) throw std::runtime_error{"ftruncate"};
            loop = Loop::make(file.get(), false);
            path = loop.path();
        }
        struct stat st {};
        if (::stat(path.c_str(), &st) != 0) return;
        numbers = std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev));
    }
};
/// A partition of it, gone with this object.
class Partition {
public:
    explicit Partition(const TestDisk& disk) : fd_{disk.loop.fd()} {
        there_ = fd_ >= 0 && change(BLKPG_ADD_PARTITION);
        const std::string name = disk.path.substr(disk.path.rfind('/') + 1);
        if (there_) numbers = read_file("/sys/class/block/" + name + "p1/dev");
        if (numbers.ends_with('\n')) numbers.pop_back();
    }
    Partition(const Partition&) = delete;
    Partition& operator=(const Partition&) = delete;
    ~Partition() {
        if (there_) (void)change(BLKPG_DEL_PARTITION);
    }
    std::string numbers{};

private:
    [[nodiscard]] bool change(int operation) const {
        blkpg_partition partition{};
        partition.start = mib;
        partition.length = mib;
        partition.pno = 1;
        blkpg_ioctl_arg argument{operation, 0, sizeof partition, &partition};
        return ::ioctl(fd_, BLKPG, &argument) == 0;
    }
    int fd_;
    bool there_ = false;
};
LimitSpec block(const BlockLimit& limit) {
    return limits_of([&](LimitSpec& l) { l.block = {limit}; });
}

}  // namespace

TEST_CASE("a throttled disk is slow, and a free one is fast") {
    if (const char* why = lacks("blkio", "io")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestDisk disk;
    if (disk.numbers.empty()) CAISSON_SKIP("there is neither a loop device nor a disk");
    Cgroup group = Cgroup::create("disk");
    const std::string set = refused(group, block({.device = disk.path, .read_bytes = 2 * mib}));
    if (set.find("CONFIG_BLK_DEV_THROTTLING") != std::string::npos) CAISSON_SKIP("this kernel throttles no disks");
    REQUIRE(set == "accepted");
    CHECK(group.limits() == block({.device = disk.numbers, .read_bytes = 2 * mib}));
    const auto read_all = [&] {
        const Fd fd{::open(disk.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)};
        void* const buffer = ::mmap(nullptr, mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return fd && buffer != MAP_FAILED && ::pread(fd.get(), buffer, mib, 0) == static_cast<ssize_t>(mib) ? 0 : 1;
    };
    const auto time_of = [&] {
        const double start = seconds();
        CHECK(code_of(spawn_in(group, read_all)) == 0);
        return seconds() - start;
    };
    // The first slice of the kernel's bookkeeping, of 0.1 s, is free.
    CHECK(time_of() > 0.35);
    group.limit(block({.device = disk.path, .read_bytes = LimitSpec::unlimited}));
    CHECK(group.limits() == LimitSpec{});
    CHECK(time_of() < 0.3);

    group.limit(block({.device = disk.numbers, .read_bytes = mib, .write_bytes = 3 * mib, .write_operations = 70}));
    group.limit(block({.device = disk.numbers, .write_bytes = LimitSpec::unlimited}));
    CHECK(group.limits() == block({.device = disk.numbers, .read_bytes = mib, .write_operations = 70}));
    // What was set before the one that is refused is put back.
    LimitSpec wrong = block({.device = disk.path, .read_bytes = 5 * mib, .read_operations = 9});
    wrong.huge_pages = {{std::uint64_t{1} << 60, 0}};
    CHECK(refused(group, wrong).starts_with("limit on huge pages of 0 bytes in pages of 1073741824GB"));
    CHECK(group.limits() == block({.device = disk.numbers, .read_bytes = mib, .write_operations = 70}));
}

TEST_CASE("a partition's limits are its disk's") {
    if (const char* why = lacks("blkio", "io")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestDisk disk;
    const Partition partition{disk};
    if (partition.numbers.empty()) CAISSON_SKIP("there is no loop device that takes a partition");
    Cgroup group = Cgroup::create("disk");
    group.limit(block({.device = partition.numbers, .write_operations = 50}));
    CHECK(group.limits() == block({.device = disk.numbers, .write_operations = 50}));
    LimitSpec both = block({.device = disk.path, .write_operations = 50});
    both.block.push_back({.device = partition.numbers, .write_bytes = mib});
    CHECK_THROWS_WITH(check_limit_change(both),
                      ("limits.block[1].device: '" + partition.numbers + "' is on the disk " + disk.numbers + ", as '" +
                       disk.path + "' is: give the limits of a disk in one")
                          .c_str());
}

TEST_CASE("a weight on a disk is for the I/O schedulers that know groups, and the others are named") {
    if (const char* why = lacks("blkio", "io")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestDisk disk;
    if (disk.numbers.empty()) CAISSON_SKIP("there is neither a loop device nor a disk");
    Cgroup group = Cgroup::create("disk");
    const LimitSpec weight = block({.device = disk.path, .weight = 200});
    const std::string text = refused(group, weight);
    CAPTURE(text);
    CHECK(text.starts_with("block weight of 200 on '" + disk.path + "' for control group '"));
    const bool says_why = text.ends_with("set it to bfq, see /sys/block/*/queue/scheduler") ||
                          text.ends_with("divides a disk's time among groups: load bfq");
    CHECK(says_why);
    if (!disk.loop) return;
    const std::string scheduler = "/sys/dev/block/" + disk.numbers + "/queue/scheduler";
    if (!detail::sys::write_file(AT_FDCWD, scheduler.c_str(), "bfq")) return;
    CHECK(refused(group, weight) == "accepted");
    CHECK(group.limits() == block({.device = disk.numbers, .weight = 200}));
    CHECK(detail::sys::write_file(AT_FDCWD, scheduler.c_str(), "none"));
}
