// Limits as the kernel keeps to them, as they are changed while a group's processes run, and as they are refused.
#include "support/cgroup.hpp"

#include <cstring>
#include <functional>
#include <optional>

#include <sched.h>
#include <sys/mman.h>

#include <caisson/controller.hpp>
#include <caisson/helper.hpp>
#include <caisson/probe.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t unlimited = LimitSpec::unlimited;

bool is_v2(const Cgroup& group, const char* file) {
    return path_for(group, file).empty();
}

void take_memory(std::uint64_t bytes) {
    void* all = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) ::_exit(98);
    std::memset(all, 1, bytes);
}

}  // namespace

TEST_CASE("what is set is what is in force, and what is taken away is gone") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    const LimitSpec fresh = group.limits();
    CHECK(fresh == LimitSpec{});
    const auto round_trip = [&](const LimitSpec& set, const LimitSpec& take_away) {
        group.limit(set);
        CHECK(group.limits() == set);
        group.limit(take_away);
        CHECK(group.limits() == fresh);
    };
    if (has_controller("memory", "memory")) {
        LimitSpec set = memory_limit(64 * mib, 96 * mib);
        set.memory_soft = 32 * mib;
        LimitSpec none = memory_limit(unlimited, unlimited);
        none.memory_soft = unlimited;
        round_trip(set, none);
    }
    if (has_controller("cpu", "cpu")) {
        round_trip(limits_of([](LimitSpec& l) {
                       l.cpu_shares = 512;
                       l.cpu_quota = 50000;
                       l.cpu_period = 200000;
                   }),
                   limits_of([](LimitSpec& l) {
                       l.cpu_shares = unlimited;
                       l.cpu_quota = unlimited;
                       l.cpu_period = 100000;
                   }));
        // One of the two leaves the other as it is.
        group.limit(limits_of([](LimitSpec& l) { l.cpu_quota = 20000; }));
        group.limit(limits_of([](LimitSpec& l) { l.cpu_period = 40000; }));
        CHECK(group.limits().cpu_quota == 20000);
        CHECK(group.limits().cpu_period == 40000);
        group.limit(limits_of([](LimitSpec& l) { l.cpu_quota = unlimited, l.cpu_period = 100000; }));
    }
    if (has_controller("pids", "pids")) {
        round_trip(limits_of([](LimitSpec& l) { l.pids = 12; }), limits_of([](LimitSpec& l) { l.pids = unlimited; }));
    }
    if (has_controller("hugetlb", "hugetlb")) {
        round_trip(limits_of([](LimitSpec& l) {
                       l.huge_pages = {{2 * mib, 6 * mib}};
                   }),
                   limits_of([](LimitSpec& l) {
                       l.huge_pages = {{2 * mib, unlimited}};
                   }));
    }
    if (!path_for(group, "blkio.bfq.weight").empty() || !path_for(group, "io.bfq.weight").empty()) {
        round_trip(limits_of([](LimitSpec& l) { l.block_weight = 300; }),
                   limits_of([](LimitSpec& l) { l.block_weight = 100; }));
    }
}

TEST_CASE("memory and memory with swap move up and down, together and alone") {
    if (const char* why = lacks("memory", "memory")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    const auto in_force = [&] {
        const LimitSpec l = group.limits();
        return std::pair{l.memory.value_or(unlimited) / mib, l.memory_and_swap.value_or(unlimited) / mib};
    };
    using Pair = std::pair<std::uint64_t, std::uint64_t>;
    constexpr std::uint64_t none = unlimited / mib;
    group.limit(memory_limit(64 * mib));
    CHECK(in_force() == Pair{64, 64});
    group.limit(memory_limit(256 * mib));
    CHECK(in_force() == Pair{256, 256});
    group.limit(memory_limit(32 * mib));
    CHECK(in_force() == Pair{32, 32});
    group.limit(memory_limit({}, 128 * mib));
    CHECK(in_force() == Pair{32, 128});
    group.limit(memory_limit(64 * mib));
    CHECK(in_force() == Pair{64, 128});
    group.limit(memory_limit(256 * mib));
    CHECK(in_force() == Pair{256, 256});
    group.limit(memory_limit(16 * mib, 48 * mib));
    CHECK(in_force() == Pair{16, 48});
    group.limit(memory_limit(512 * mib, 1024 * mib));
    CHECK(in_force() == Pair{512, 1024});
    group.limit(memory_limit({}, unlimited));
    CHECK(in_force() == Pair{512, none});
    group.limit(memory_limit(64 * mib, 64 * mib));
    CHECK(in_force() == Pair{64, 64});
    const std::string at = " bytes for control group '" + group.name() + "': Invalid argument: ";
    CHECK(refused(group, memory_limit({}, 32 * mib)) ==
          "limit on memory and swap of 33554432" + at +
              "the limit on memory is 67108864 bytes: give less than that as well");
    CHECK(in_force() == Pair{64, 64});
    group.limit(memory_limit(unlimited, unlimited));
    CHECK(in_force() == Pair{none, none});
    CHECK(refused(group, memory_limit({}, 32 * mib)) ==
          "limit on memory and swap of 33554432" + at + "there is no limit on memory: give one as well");
}

TEST_CASE("the largest memory limit is the kernel's largest") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const caisson_test::LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    LimitSpec limits;
    limits.memory = UINT64_MAX;
    CHECK_NOTHROW(group.limit(limits));
}

TEST_CASE("a memory limit below what is used is refused, harms nobody, and the old one holds") {
    if (const char* why = lacks("memory", "memory")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    group.limit(memory_limit(96 * mib));
    const Pipe up;
    const Inside hog{group, [&] {
                         take_memory(48 * mib);
                         up.put();
                         ::pause();
                         return 0;
                     }};
    up.take();
    const std::string text = refused(group, memory_limit(16 * mib));
    CAPTURE(text);
    CHECK(text.starts_with("memory limit of 16777216 bytes for control group '" + group.name() + "': write '"));
    CHECK(text.ends_with("': Device or resource busy: the group uses more than that"));
    CHECK(hog.lives());
    CHECK(group.limits() == memory_limit(96 * mib, 96 * mib));
    CHECK(refused(group, memory_limit(64 * mib)) == "accepted");
    CHECK(hog.lives());
}

TEST_CASE("where one limit is refused those before it are put back") {
    if (const char* why = lacks("pids", "pids")) CAISSON_SKIP(why);
    if (const char* why = lacks("memory", "memory")) CAISSON_SKIP(why);
    if (const char* why = lacks("cpu", "cpu")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    LimitSpec before = memory_limit(64 * mib, 80 * mib);
    before.memory_soft = 32 * mib;
    before.cpu_shares = 2048;
    before.cpu_quota = 30000;
    before.cpu_period = 100000;
    before.pids = 50;
    group.limit(before);
    LimitSpec wrong = memory_limit(128 * mib, 256 * mib);
    wrong.memory_soft = unlimited;
    wrong.cpu_shares = 512;
    wrong.cpu_quota = unlimited;
    wrong.pids = std::uint64_t{1} << 40;
    const std::string text = refused(group, wrong);
    CHECK(text.ends_with("pids.max': Invalid argument: the kernel takes 4194304 at most"));
    CHECK(group.limits() == before);
}

TEST_CASE("CPU shares that the kernel or cgroup v2 does not have are refused") {
    if (const char* why = lacks("cpu", "cpu")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    const bool v2 = is_v2(group, "cpu.shares");
    const auto shares = [](std::uint64_t value) { return limits_of([&](LimitSpec& l) { l.cpu_shares = value; }); };
    const std::string most = refused(group, shares(262145));
    const std::string few = refused(group, shares(9));
    if (v2) {
        CHECK(few == "CPU shares of 9 for control group '" + group.name() +
                         "': Numerical result out of range: cgroup v2 has 10 to 102400 (cpu.weight 1 to 10000)");
        CHECK(most.find("CPU shares of 262145 for control group") == 0);
        group.limit(shares(10));
        CHECK(read_file(path_for(group, "cpu.weight")) == "1\n");
        group.limit(shares(1024));
        CHECK(read_file(path_for(group, "cpu.weight")) == "100\n");
        group.limit(shares(102400));
        CHECK(read_file(path_for(group, "cpu.weight")) == "10000\n");
    } else {
        CHECK(few == "accepted");
        CHECK(most.ends_with("cpu.shares': the kernel made '262144' of it"));
        CHECK(group.limits().cpu_shares == 9);
    }
}

TEST_CASE("a bomb of processes stops at exactly the limit, also from within a group that was made inside") {
    if (const char* why = lacks("pids", "pids")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("bomb");
    group.limit(limits_of([](LimitSpec& l) { l.pids = 40; }));
    const std::string max = path_for(group, "pids.max");
    const std::string inner = max.substr(0, max.rfind('/')) + "/in";
    REQUIRE(::mkdir(inner.c_str(), 0755) == 0);
    const std::string place = inner + (exists(inner + "/tasks") ? "/tasks" : "/cgroup.procs");
    const auto bomb = [&] {
        if (!detail::sys::write_file(AT_FDCWD, place.c_str(), "0")) return 95;
        for (;;) {
            if (::fork() < 0) ::pause();
        }
    };
    const Inside first{group, bomb};
    std::uint64_t most = 0;
    for (int i = 0; i < 500 && most < 40; ++i) {
        most = std::max(most, group.usage().pids.value_or(0));
        pause_for(5);
    }
    CHECK(most == 40);
    pause_for(50);
    CHECK(group.usage().pids == 40);
    group.kill();
}

TEST_CASE("a fifth of a CPU is a fifth of a CPU, of however many processes") {
    if (const char* why = lacks("cpu", "cpu")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("spin");
    const bool v2 = is_v2(group, "cpu.shares");
    group.limit(limits_of([](LimitSpec& l) {
        l.cpu_quota = 10000;
        l.cpu_period = 50000;
    }));
    const auto spin = []() -> int {
        for (;;) (void)::getppid();
    };
    const Inside one{group, spin};
    const Inside other{group, spin};
    const std::string quota = path_for(group, v2 ? "cpu.max" : "cpu.cfs_quota_us");
    const auto counted = [&](const std::string& key) {
        const std::string text = "\n" + read_file(quota.substr(0, quota.rfind('/')) + "/cpu.stat");
        return std::stod(text.substr(text.find("\n" + key + " ") + key.size() + 2));
    };
    pause_for(100);
    (void)group.usage(UsagePart::cpu);  // the first one takes its time
    const double start = seconds(), periods = counted("nr_periods"), throttled = counted("nr_throttled");
    const std::uint64_t used = group.usage(UsagePart::cpu).cpu.value_or(0);
    pause_for(1000);
    const std::uint64_t more = group.usage(UsagePart::cpu).cpu.value_or(0);
    const double share = static_cast<double>(more - used) / 1e9 / (seconds() - start);
    const double kept_down = (counted("nr_throttled") - throttled) / (counted("nr_periods") - periods);
    INFO("a share of " << share << ", kept down in " << kept_down << " of the periods");
    CHECK(share < 0.23);
    // A machine that is busy with other things may give less than is allowed.
    if (kept_down > 0.9) CHECK(share > 0.17);
}

TEST_CASE("a process sees the CPUs that it was given, and no other CPU runs it") {
    if (const char* why = lacks("cpuset", "cpuset")) CAISSON_SKIP(why);
    if (::sysconf(_SC_NPROCESSORS_ONLN) < 2) CAISSON_SKIP("there is one CPU");
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("pinned");
    const auto cpus = [](const char* list) { return limits_of([&](LimitSpec& l) { l.cpus = list; }); };
    group.limit(cpus("1"));
    CHECK(group.limits().cpus == "1");
    const auto mask = [] {
        cpu_set_t set;
        CPU_ZERO(&set);
        (void)::sched_getaffinity(0, sizeof set, &set);
        return CPU_COUNT(&set) * 10 + (CPU_ISSET(1, &set) != 0 ? 1 : 0);
    };
    CHECK(code_of(spawn_in(group, mask)) == 11);
    const Pipe down;
    Inside later{group, [&] {
                     down.take();
                     return mask();
                 }};
    group.limit(cpus("0,1"));
    down.put();
    CHECK(WEXITSTATUS(later.end()) == 21);
    group.limit(cpus("0"));
    CHECK(code_of(spawn_in(group, mask)) == 10);
    const std::string text = refused(group, cpus("0-1000"));
    CHECK(text.starts_with("CPUs '0-1000' for control group '" + group.name() + "': write '"));
    CHECK(group.limits().cpus == "0");
    group.limit(limits_of([](LimitSpec& l) { l.memory_nodes = "0"; }));
}

TEST_CASE("on v1 CPUs that a group inside has cannot be taken away") {
    if (const char* why = lacks("cpuset", "cpuset")) CAISSON_SKIP(why);
    if (::sysconf(_SC_NPROCESSORS_ONLN) < 2) CAISSON_SKIP("there is one CPU");
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("nest");
    const std::string cpus = path_for(group, "cpuset.cpus");
    if (cpus.empty() || !exists(cpus.substr(0, cpus.rfind('/')) + "/tasks")) CAISSON_SKIP("cpuset is not on v1");
    const std::string inner = cpus.substr(0, cpus.rfind('/')) + "/in";
    REQUIRE(::mkdir(inner.c_str(), 0755) == 0);
    REQUIRE(detail::sys::write_file(AT_FDCWD, (inner + "/cpuset.cpus").c_str(), "0-1"));
    LimitSpec limits;
    limits.pids = 5;
    limits.cpu_shares = 300;
    limits.cpus = "0";
    CHECK(refused(group, limits).ends_with("': Device or resource busy: a group inside has the others"));
    CHECK(group.limits() == LimitSpec{});
}

TEST_CASE("huge pages over the limit cannot be mapped") {
    if (const char* why = lacks("hugetlb", "hugetlb")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const std::string free = read_file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if (free == "0\n" || free == "1\n") {
        CAISSON_SKIP("the machine keeps no huge pages free, and to have some is a setting of the whole machine");
    }
    Cgroup group = Cgroup::create("huge");
    const auto map = [] {
        void* all = ::mmap(nullptr, 4 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        return all == MAP_FAILED ? errno : 0;
    };
    group.limit(limits_of([](LimitSpec& l) { l.huge_pages = {{2 * mib, 2 * mib}}; }));
    CHECK(code_of(spawn_in(group, map)) == ENOMEM);
    group.limit(limits_of([](LimitSpec& l) { l.huge_pages = {{2 * mib, unlimited}}; }));
    CHECK(code_of(spawn_in(group, map)) == 0);
}

TEST_CASE("a controller that groups do not get is named, with what to do") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    if (has_controller("cpuset", "cpuset")) CAISSON_SKIP("groups have cpuset here");
    const LeavesNothing nothing;
    Cgroup group = Cgroup::create("web");
    const std::string text = refused(group, limits_of([](LimitSpec& l) { l.cpus = "0"; }));
    CHECK(text == "CPUs '0' for control group '" + group.name() + "': controller 'cpuset' is not handed down to '" +
                      group.directories().front().parent_path +
                      "': switch it on in the cgroup.subtree_control of each group above, or use a kernel that has it");
}

TEST_CASE("on v2 a limit switches its controller on in the parent, and no limit does not") {
    if (const char* why = cannot()) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const OwnParent parent;
    Cgroup group = Cgroup::create("web", parent.name);
    const CgroupDirectory& d = group.directories().front();
    if (!d.v2()) CAISSON_SKIP("there is no cgroup v2 hierarchy");
    const std::string there = read_file(d.parent_path + "/cgroup.controllers");
    const bool has_cpu = there.find("cpu") != std::string::npos;
    if (!has_cpu && there.find("hugetlb") == std::string::npos) CAISSON_SKIP("v2 groups have neither cpu nor hugetlb");
    const auto switched_on = [&] { return read_file(d.parent_path + "/cgroup.subtree_control"); };
    const std::string before = switched_on();
    const std::string name = has_cpu ? "cpu" : "hugetlb";
    CHECK(before.find(name) == std::string::npos);
    LimitSpec limits;
    if (has_cpu) limits.cpu_quota = 5000, limits.cpu_period = 20000;
    else limits.huge_pages = {{2 * mib, 0}};
    group.settle();
    group.limit(limits);
    CHECK(switched_on().find(name) != std::string::npos);
    CHECK(group.limits() == limits);
}

TEST_CASE("a container's limits hold from its first instruction on") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = lacks("memory", "memory")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "exec tail /dev/zero");
    spec.limits = memory_limit(16 * mib);
    Container hog = Container::start(spec);
    const ExitStatus status = hog.wait();
    CHECK(status.signal() == SIGKILL);
    CHECK(status.out_of_memory());
    if (probe().has(Feature::clone_into_cgroup)) {
        // A group that is made inside is within the limits, too.
        spec.cgroup_mount = CgroupMount::read_write;
        spec.command[2] = "cd /sys/fs/cgroup && mkdir a && echo $$ > a/cgroup.procs && exec tail /dev/zero";
        const ExitStatus end = Container::start(spec).wait();
        CHECK(end.signal() == SIGKILL);
        CHECK(end.out_of_memory());
        spec.cgroup_mount = CgroupMount::read_only;
        spec.command = {"/bin/cat", "/sys/fs/cgroup/memory.max"};
        const auto groups = detail::cgroup_hierarchies();
        const bool v1 = std::any_of(groups.begin(), groups.end(),
                                    [](const auto& h) { return detail::list_has(h.controllers, "memory"); });
        if (!v1) CHECK(run(spec) == "16777216\n");
    }
    if (!has_controller("cpuset", "cpuset")) return;
    spec.command = {"/bin/nproc"};
    spec.limits.cpus = "0";
    CHECK(run(spec) == "1\n");
}

TEST_CASE("a limit that cannot be set makes the start fail, and nothing is left") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.limits.cpus = "0,999";
    CHECK(error_of(spec).starts_with("container 'test': limits.cpus: CPU 999 is not there: this machine has 0"));
    spec.limits = limits_of([](LimitSpec& l) { l.block = {{.device = "/dev/null", .read_bytes = 1}}; });
    CHECK(error_of(spec) ==
          "container 'test': limits.block[0].device: '/dev/null' is no block device: name a disk's node, or "
          "MAJOR:MINOR");
    spec.limits.block[0].device = "/dev/no-disk";
    CHECK(error_of(spec) ==
          "container 'test': limits.block[0].device: '/dev/no-disk' does not exist: name a disk's node, or "
          "MAJOR:MINOR");
    spec.limits.block[0].device = "4095:1";
    CHECK(error_of(spec) ==
          "container 'test': limits.block[0].device: '4095:1' is no block device of this machine: name a disk's node, "
          "or MAJOR:MINOR");
    spec.limits = limits_of([](LimitSpec& l) { l.huge_pages = {{4096, 4096}}; });
    CHECK(error_of(spec).starts_with(
        "container 'test': limits.huge_pages[0].page_size: this kernel has no huge pages of 4096 bytes: it has "));
    // Found by the kernel alone.
    if (!has_controller("cpuset", "cpuset") || ::sysconf(_SC_NPROCESSORS_ONLN) < 2) return;
    const OwnParent parent;
    const auto of_cpuset = [](const std::string& path) { return exists(path + "/cpuset.cpus"); };
    const auto narrow = std::find_if(parent.paths.begin(), parent.paths.end(), of_cpuset);
    if (narrow == parent.paths.end()) CAISSON_SKIP("cpuset is not handed down from the top");
    REQUIRE(detail::sys::write_file(AT_FDCWD, (*narrow + "/cpuset.cpus").c_str(), "0"));
    spec.cgroup_parent = "/" + parent.name;
    spec.limits = limits_of([](LimitSpec& l) { l.cpus = "1"; });
    const std::string text = error_of(spec);
    CAPTURE(text);
    CHECK(text.starts_with("container 'test': CPUs '1' for control group 'caisson.test."));
    CHECK((text.ends_with("the group above does not have them all") || text.ends_with("the kernel made '0' of it")));
}

TEST_CASE("limits of a container change while it runs, by itself, its controller and its helper") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (const char* why = lacks("pids", "pids")) CAISSON_SKIP(why);
    const LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("test");
    spec.console.reset();
    spec.limits.pids = 20;
    const LimitSpec start = spec.limits;
    LimitSpec more;
    more.pids = 33;
    if (has_controller("memory", "memory")) more.memory = more.memory_and_swap = 64 * mib;
    if (has_controller("cpu", "cpu")) more.cpu_shares = 2048;
    LimitSpec wrong = more;
    wrong.pids = 0;
    const auto goes = [&](const char* who, const std::function<void(const LimitSpec&)>& limit,
                          const std::function<LimitSpec()>& limits) {
        CAPTURE(who);
        CHECK(limits() == start);
        limit(more);
        CHECK(limits() == more);
        std::string text;
        try {
            limit(wrong);
        } catch (const Error& e) {
            CHECK(e.step() == Step::check_spec);
            text = e.what();
        }
        CHECK(text == "container 'test': limits.pids: 0 allows no process: leave it out for no limit");
        CHECK(limits() == more);
    };
    {
        Container container = Container::start(spec);
        goes(
            "container", [&](const LimitSpec& l) { container.limit(l); }, [&] { return container.limits(); });
        (void)container.kill();
        CHECK_THROWS_WITH(container.limit(more), "limits of container 'test': No such process: it has ended");
    }
    {
        Controller controller;
        const ContainerId id = controller.start(spec);
        REQUIRE(controller.next()->kind == Event::Kind::started);
        goes(
            "controller", [&](const LimitSpec& l) { controller.limit(id, l); }, [&] { return controller.limits(id); });
    }
    Helper helper = Helper::start(spec, place.options);
    goes(
        "helper", [&](const LimitSpec& l) { helper.limit(l); }, [&] { return helper.limits(); });
    (void)helper.kill();
    CHECK(place.empty());
}
