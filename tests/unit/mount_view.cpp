// Which mount a path leads to, and which mounts show nothing, from the text of a mountinfo.
#include "../../src/mount_view.hpp"

#include <string>

#include "support/doctest.hpp"

using caisson::detail::MountLine;
using caisson::detail::MountView;

namespace {

constexpr const char* container =
    "100 1 8:1 /srv/web / rw,nosuid - ext4 /dev/sda1 rw\n"
    "101 100 0:50 / /proc rw,nosuid,nodev,noexec - proc proc rw\n"
    "102 101 0:61 /file /proc/kcore ro,nosuid - tmpfs masked rw\n"
    "103 101 0:61 /directory /proc/acpi rw - tmpfs masked ro\n"
    "104 101 0:50 /sys /proc/sys ro shared:5 - proc proc rw\n"
    "105 100 0:60 / /dev rw - tmpfs dev rw\n"
    "106 105 0:60 /null /dev/null rw - tmpfs dev rw\n"
    "107 100 0:70 / /srv/a\\040b rw - tmpfs tmpfs ro\n"
    "108 100 0:71 / /srv/box ro - tmpfs tmpfs ro\n"
    "109 108 0:72 / /srv/box/in rw - ext4 /dev/sdb rw\n";

std::string type_at(const MountView& view, const char* path) {
    const MountLine* mount = view.at(path);
    return mount == nullptr ? "nothing" : mount->point + " " + mount->type;
}
const MountLine& line(const MountView& view, unsigned long id) {
    for (const MountLine& mount : view.lines()) {
        if (mount.id == id) return mount;
    }
    throw id;
}

}  // namespace

TEST_CASE("a path leads to the mount that is nearest above it") {
    const MountView view{container};
    REQUIRE(view.lines().size() == 10);
    CHECK(type_at(view, "/") == "/ ext4");
    CHECK(type_at(view, "/etc/passwd") == "/ ext4");
    CHECK(type_at(view, "/proc") == "/proc proc");
    CHECK(type_at(view, "/proc/1/status") == "/proc proc");
    CHECK(type_at(view, "/proc/kcore") == "/proc/kcore tmpfs");
    CHECK(type_at(view, "/proc/kcores") == "/proc proc");
    CHECK(type_at(view, "/proc/sys/kernel") == "/proc/sys proc");
    CHECK(type_at(view, "/srv/a b/file") == "/srv/a b tmpfs");
    CHECK(type_at(MountView{""}, "/etc") == "nothing");
    CHECK(MountView{"no line of a mountinfo\n1 x - a b c\n"}.lines().empty());
}

TEST_CASE("a mount that another one covers is not seen, nor is what was mounted on it") {
    const MountView over{std::string{container} +
                         "110 101 0:80 / /proc rw - proc proc rw\n"
                         "111 110 0:80 /sys /proc/sys rw - proc proc rw\n"};
    CHECK(over.at("/proc")->id == 110);
    CHECK(over.at("/proc/kcore")->id == 110);
    CHECK(over.at("/proc/sys/net")->id == 111);
    CHECK_FALSE(over.is_visible(line(over, 102)));
    CHECK_FALSE(over.is_visible(line(over, 104)));
    CHECK(over.is_visible(line(over, 111)));

    const MountView above{std::string{container} + "110 100 0:80 / /srv rw - tmpfs tmpfs rw\n"};
    CHECK(type_at(above, "/srv/box/in") == "/srv tmpfs");
    CHECK_FALSE(above.is_visible(line(above, 109)));
    CHECK(above.is_visible(line(above, 100)));
}

TEST_CASE("however many mounts lie on one place, a look-up takes no longer") {
    // The kernel's usual limit, fs.mount-max; with a step for each that lies there it would be 5,000,000,000 of them.
    constexpr unsigned long most = 100000;
    const auto stack = [](auto&& parent_of) {
        std::string text = "1 1 8:1 / / rw - ext4 a rw\n";
        for (unsigned long id = 2; id <= most; ++id) {
            text += std::to_string(id) + " " + std::to_string(parent_of(id)) + " 0:9 / /mnt rw - tmpfs b rw\n";
        }
        return text;
    };
    const auto visible = [](const MountView& view) {
        std::size_t count = 0;
        for (const MountLine& mount : view.lines()) count += view.is_visible(mount) ? 1 : 0;
        return count;
    };
    const MountView up{stack([](unsigned long id) { return id - 1; })};
    CHECK(up.at("/mnt")->id == most);
    CHECK(up.at("/mnt/file")->id == most);
    CHECK(visible(up) == 2);
    const MountView down{stack([](unsigned long id) { return id == most ? 1 : id + 1; })};
    CHECK(down.at("/mnt")->id == 2);
    CHECK(visible(down) == 2);
}

TEST_CASE("a list in which the kernel has given a number twice has an end") {
    const MountView view{
        "1 1 8:1 / / rw - ext4 a rw\n3 1 0:9 / /mnt rw - tmpfs b rw\n"
        "5 3 0:9 / /mnt rw - tmpfs b rw\n3 5 0:9 / /mnt rw - tmpfs b rw\n"};
    CHECK(view.at("/mnt")->point == "/mnt");
    CHECK(view.at("/mnt/file")->point == "/mnt");
}

TEST_CASE("what is mounted over a process's root is not where its paths begin") {
    const MountView view{"5 5 8:1 / / rw - ext4 a rw\n6 5 0:9 / / rw - tmpfs b rw\n7 5 0:3 / /proc rw - proc c rw\n"};
    CHECK(view.at("/")->id == 5);
    CHECK(view.at("/proc")->id == 7);
}

TEST_CASE("a mask is what a start puts over a masked path, as long as it cannot be written to") {
    const MountView view{container};
    CHECK(MountView::is_mask(line(view, 102)));
    CHECK(MountView::is_mask(line(view, 103)));
    CHECK_FALSE(MountView::is_mask(line(view, 104)));  // a part of procfs
    CHECK_FALSE(MountView::is_mask(line(view, 107)));  // a file system in memory that somebody else has made
    const MountView other{
        "1 1 8:1 / / rw - ext4 a rw\n2 1 0:61 /file /x rw - tmpfs masked rw\n3 1 8:2 / /y ro - ext4 masked rw\n"};
    CHECK_FALSE(MountView::is_mask(line(other, 2)));
    CHECK_FALSE(MountView::is_mask(line(other, 3)));
}

TEST_CASE("a proc of processes alone is told from one that has the kernel's files") {
    const MountView view{
        "1 1 8:1 / / rw - ext4 a rw\n2 1 0:9 / /proc rw - proc proc rw,hidepid=2\n"
        "3 1 0:8 / /second rw - proc proc rw,subset=pid\n4 1 0:7 / /third rw - fuse.proc proc rw,subset=pid\n"};
    CHECK_FALSE(line(view, 2).processes_only);
    CHECK(line(view, 3).processes_only);
    CHECK_FALSE(line(view, 4).processes_only);
}

TEST_CASE("read-only is told by the mount's options and by the file system's") {
    const MountView view{container};
    CHECK(line(view, 104).read_only);
    CHECK(line(view, 107).read_only);
    CHECK_FALSE(line(view, 101).read_only);
}
