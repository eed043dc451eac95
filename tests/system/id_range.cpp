// Ranges of ids that containers have, and maps that somebody wrote down.
#include <caisson/container.hpp>
#include <caisson/detail/id_range.hpp>

#include <set>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using caisson::detail::IdRange;
using caisson_test::can_run;
using caisson_test::error_of;
using caisson_test::shell;
using caisson_test::TestRoot;
using caisson_test::why_not;

TEST_CASE("automatic ranges are never those of maps that are written down") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const auto check_range = [](const IdRange& range) {
        CHECK(range.begin() % 65536 == 0);
        CHECK(range.begin() >= IdRange::first);
        CHECK(range.begin() < IdRange::end);
        CHECK_FALSE(IdRange::is_written({{0, range.begin(), 65536}}));
    };
    std::vector<IdRange> held;
    std::set<std::uint32_t> begins;
    for (int i = 0; i < 100; ++i) {
        held.push_back(IdRange::reserve());
        check_range(held.back());
        CHECK(begins.insert(held.back().begin()).second);
    }
    held.clear();
    // Where those below the written ones are in use, those above them follow.
    const Fd registry = detail::sys::open(IdRange::registry, O_RDWR);
    for (off_t at = 0; at < (IdRange::first_written - IdRange::first) / IdRange::size; ++at) {
        struct flock lock {};
        lock.l_type = F_RDLCK;
        lock.l_start = at;
        lock.l_len = 1;
        // Those of other containers of this machine are in use anyway.
        (void)::fcntl(registry.get(), F_OFD_SETLK, &lock);
    }
    const IdRange high = IdRange::reserve();
    check_range(high);
    CHECK(high.begin() >= 0x80000000);
}

TEST_CASE("a range for a written map is one that is neither taken nor in use") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const auto found = IdRange::find_unwritten({});
    REQUIRE(found);
    CHECK(IdRange::is_written({{0, *found, 65536}}));
    // All but one are taken, in one extent and in many.
    const std::uint32_t begin = 0x78000000;
    std::vector<IdMap> taken{{0, 0x60000000, begin - 0x60000000 + 5 * 65536}};
    for (std::uint32_t at = begin + 6 * 65536; at < 0x80000000; at += 65536) taken.push_back({0, at + 65535, 1});
    CHECK(IdRange::find_unwritten(taken) == begin + 5 * 65536);
    {
        const IdRange user = IdRange::share({{0, begin + 5 * 65536 + 100, 1}}, {});
        CHECK_FALSE(IdRange::find_unwritten(taken));
    }
    CHECK(IdRange::find_unwritten(taken) == begin + 5 * 65536);
    taken.push_back({0, begin + 5 * 65536, 1});
    CHECK_FALSE(IdRange::find_unwritten(taken));
}

TEST_CASE("who may not see which ids are in use is told no free range") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const IdRange held = IdRange::reserve();
    std::string text = "a range was found";
    REQUIRE(::seteuid(65534) == 0);
    try {
        (void)IdRange::find_unwritten({});
    } catch (const Error& e) {
        text = e.what();
    }
    REQUIRE(::seteuid(0) == 0);
    CHECK(text ==
          "file '/run/caisson/id-ranges' of the id ranges in use: Permission denied: root alone sees which ids are "
          "in use");
}

TEST_CASE("maps that are given may share ids with each other, but not with an automatic map") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const IdRange automatic = IdRange::reserve();
    ContainerSpec spec = shell(root, "");
    spec.uid_map = {{0, 100000, 1000}, {1000, automatic.begin() + 10, 100}};
    spec.gid_map = {{0, 100000, 65536}};
    CHECK(error_of(spec) ==
          "container 'test': uid_map: ids " + std::to_string(automatic.begin() + 10) + "-" +
              std::to_string(automatic.begin() + 109) +
              " outside: Device or resource busy: a container with an automatic map has some of them: "
              "give ids below 1879048192");
    const std::vector<IdMap> map{{0, 0x7fff0000, 65536}};
    const IdRange one = IdRange::share(map, map);
    const IdRange other = IdRange::share(map, map);
}

TEST_CASE("a container that runs with a given map keeps its ids, also when its owner has forgotten them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    std::vector<IdMap> taken;
    for (std::uint32_t at = 0x78010000; at < 0x80000000; at += 65536) taken.push_back({0, at, 65536});
    REQUIRE(IdRange::find_unwritten(taken) == 0x78000000);
    ContainerSpec spec = shell(root, "sleep 1000");
    spec.uid_map = spec.gid_map = {{0, 0x78000000, 65536}};
    spec.id_mapped_mounts = true;
    Container container = Container::start(spec);
    CHECK_FALSE(IdRange::find_unwritten(taken));
    (void)container.kill();
    CHECK(IdRange::find_unwritten(taken) == 0x78000000);
}

TEST_CASE("with id-mapped mounts, files are whose they are on disk; without, they are nobody's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    root.write("/file", "x");
    const TestRoot other;
    other.write("/inner", "x");
    ContainerSpec spec = shell(root, "stat -c %u /file /bound/inner; touch /new && echo made");
    spec.uid_map = spec.gid_map = {{0, 0x78000000, 65536}};
    spec.mounts.push_back(MountSpec::bind(other.path(), "/bound"));
    root.write("/bound/x", "");
    CHECK(caisson_test::run(spec).starts_with("65534\n65534\n"));
    spec.id_mapped_mounts = true;
    CHECK(caisson_test::run(spec) == "0\n0\nmade\n");
}

TEST_CASE("id-mapped mounts need a user namespace and a root of one's own") {
    ContainerSpec spec;
    spec.name = "test";
    spec.root = "/srv/web";
    spec.command = {"/sbin/init"};
    spec.id_mapped_mounts = true;
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    CHECK(error_of(spec) ==
          "container 'test': id_mapped_mounts: there is no user namespace: add NamespaceKind::user to namespaces");
    spec.namespaces = ContainerSpec{}.namespaces;
    spec.uid_map = spec.gid_map = {{0, 100000, 65536}};
    spec.root = "/";
    CHECK(error_of(spec) ==
          "container 'test': id_mapped_mounts: root is '/', which is seen as the host has it: give the "
          "container a root of its own");
}
