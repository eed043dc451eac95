#include <caisson/cgroup.hpp>
#include <caisson/sweep.hpp>

#include "../../src/limit_words.hpp"
#include "support/doctest.hpp"

using namespace caisson;
using detail::parse_cgroup_hierarchies;

namespace {

std::string parent_of(const detail::CgroupHierarchy& h) {
    return h.places.empty() ? "none" : detail::default_cgroup_parent(h.places.front(), h.v2());
}

}  // namespace

TEST_CASE("hybrid: every v1 hierarchy is found by its controllers, and the v2 one by its type") {
    const auto found = parse_cgroup_hierarchies(
        "12:net_cls,net_prio:/\n3:cpu,cpuacct:/user/me\n2:pids:/\n1:name=systemd:/user.slice\n0::/user.slice/"
        "me.scope\n",
        "20 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw,errors=cgroup\n"
        "31 20 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw,mode=755\n"
        "32 31 0:28 / /sys/fs/cgroup/unified rw shared:10 master:3 - cgroup2 cgroup rw,nsdelegate\n"
        "33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    REQUIRE(found.size() == 5);
    CHECK(found[0].controllers == "net_cls,net_prio");
    CHECK(found[0].places.empty());
    CHECK(parent_of(found[1]) == "/sys/fs/cgroup/cpu,cpuacct/user/me");
    CHECK(found[1].places[0].device == makedev(0, 30));
    CHECK(found[2].places.empty());
    CHECK(parent_of(found[3]) == "/sys/fs/cgroup/systemd/user.slice");
    CHECK(found[4].v2());
    CHECK(parent_of(found[4]) == "/sys/fs/cgroup/unified/user.slice");
}

TEST_CASE("v2: the default parent is beside the caller's group, and the top where the caller is in the top") {
    const char* mounts = "25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    CHECK(parent_of(parse_cgroup_hierarchies("0::/a/b/c\n", mounts).at(0)) == "/sys/fs/cgroup/a/b");
    CHECK(parent_of(parse_cgroup_hierarchies("0::/a\n", mounts).at(0)) == "/sys/fs/cgroup");
    CHECK(parent_of(parse_cgroup_hierarchies("0::/\n", mounts).at(0)) == "/sys/fs/cgroup");
}

TEST_CASE("a mount whose root is a group shows what is below that group only") {
    CHECK(detail::cgroup_below_root("/docker/abc", "/docker/abc") == "");
    CHECK(detail::cgroup_below_root("/docker/abc/x", "/docker/abc") == "/x");
    CHECK(detail::cgroup_below_root("/", "/") == "");
    CHECK(detail::cgroup_below_root("/a", "/") == "/a");
    CHECK_FALSE(detail::cgroup_below_root("/docker/abcd", "/docker/abc"));
    CHECK_FALSE(detail::cgroup_below_root("/", "/docker/abc"));
    CHECK_FALSE(detail::cgroup_below_root("/docker", "/docker/abc"));
    // Relative to the caller's cgroup namespace, these are outside of it.
    CHECK_FALSE(detail::cgroup_below_root("/../other", "/"));
    CHECK_FALSE(detail::cgroup_below_root("/", "/.."));
    CHECK_FALSE(detail::cgroup_below_root("/", "/../.."));
    CHECK(detail::cgroup_below_root("/..a", "/") == "/..a");
}

TEST_CASE("a hierarchy that is mounted twice has both places, in the order of the mounts") {
    const auto found =
        parse_cgroup_hierarchies("4:pids:/docker/abc/in\n",
                                 "40 1 0:30 /docker/other /mnt/pids rw - cgroup cgroup rw,pids\n"
                                 "41 1 0:30 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
    REQUIRE(found.at(0).places.size() == 2);
    CHECK_FALSE(found[0].places[0].own);
    CHECK(found[0].places[1].own == "/in");
}

TEST_CASE("octal escapes of mount paths are undone") {
    CHECK(detail::unescape_mount_path("/a\\040b\\134c\\011\\012") == "/a b\\c\t\n");
    CHECK(detail::unescape_mount_path("/a\\04") == "/a\\04");
    CHECK(detail::unescape_mount_path("/a\\090") == "/a\\090");
    const auto found = parse_cgroup_hierarchies("0::/x\n", "25 1 0:22 / /c\\040g rw - cgroup2 none rw\n");
    CHECK(parent_of(found.at(0)) == "/c g");
}

TEST_CASE("lines that are not of the files' form are passed over") {
    CHECK(parse_cgroup_hierarchies("", "").empty());
    CHECK(parse_cgroup_hierarchies("nonsense\n\n:::\n", "x\n1 2 3\n - cgroup2 a b\n").empty());
    CHECK(parse_cgroup_hierarchies("0::/\n", "1 2 no:device / /m rw - cgroup2 a b\n1 2 / - cgroup2\n - cgroup2 a b")
              .at(0)
              .places.empty());
}

TEST_CASE("a group's name must be a valid name, and its parent may not lead up") {
    CHECK_THROWS_AS((void)Cgroup::create(""), std::invalid_argument);
    CHECK_THROWS_AS((void)Cgroup::create("a/b"), std::invalid_argument);
    CHECK_THROWS_AS((void)Cgroup::create(".."), std::invalid_argument);
    CHECK_THROWS_WITH((void)Cgroup::create("web", "a/../b"), "control group parent 'a/../b': has '..' in it");
}

TEST_CASE("a group that holds nothing has nothing to give and nothing to remove") {
    Cgroup none;
    CHECK_FALSE(none);
    CHECK(none.into_fd() == -1);
    CHECK(none.oom_fd() == -1);
    CHECK(none.tasks_fds().empty());
    CHECK_NOTHROW(none.remove());
    CHECK_NOTHROW(none.kill());
    LimitSpec limits;
    limits.pids = 3;
    try {
        none.limit(limits);
        FAIL("limited nothing");
    } catch (const Error& e) {
        CHECK(e.step() == Step::cgroup);
        CHECK(e.remedy() == "there is no group");
    }
}

TEST_CASE("the owner is read from a group's name, and from nothing else") {
    const auto owner = detail::owner_of_group("caisson.web.12-345-4026531836");
    REQUIRE(owner);
    CHECK(owner->pid == 12);
    CHECK(owner->start_time == 345);
    CHECK(owner->pid_namespace == 4026531836);
    CHECK(detail::owner_of_group("caisson.web.12-345-4026531836.2"));
    CHECK(detail::owner_of_group("caisson.a.b.7-8-9.1.12-345-4026531836.17")->pid == 12);
    CHECK(detail::owner_of_group("caisson.1.12-345-4026531836")->pid == 12);
    for (const char* other :
         {"", "caisson", "caisson.", "caisson.web", "caisson.web.2", "caisson.12-345-4026531836", "caisson.12-3-4.2",
          "web.12-345-4026531836", "xcaisson.web.12-345-4026531836", "caisson.web.12-345", "caisson.web.12-345-x",
          "caisson.web.12-345-4026531836.x", "caisson.web.12-345-4026531836.2.3", "caisson.web.12-345-4026531836."}) {
        CAPTURE(other);
        CHECK_FALSE(detail::owner_of_group(other));
    }
}

TEST_CASE("what the kernel writes where there is no limit is none, whatever the size of its pages") {
    // The last two are v1's, of huge pages of 2 MB and 1 GB.
    for (const char* text :
         {"max", "-1", "9223372036854771712", "9223372036854710272", "9223372036852678656", "9223372035781033984"}) {
        CAPTURE(text);
        CHECK(limit_words::value_of(text) == LimitSpec::unlimited);
    }
    CHECK(limit_words::value_of("0") == 0);
    CHECK(limit_words::value_of("4611686018427387904") == std::uint64_t{1} << 62);
}
