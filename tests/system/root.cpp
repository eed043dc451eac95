// Roots that are no plain directory: images, and overlays in memory and on disk.
#include <caisson/container.hpp>

#include <cerrno>
#include <filesystem>
#include <string>

#include <sys/stat.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/image.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

const std::vector<IdMap> own_ids{{0, 0, 4294967295}};

/// The maps that a container can have: found by the library, given for its mounts too, given, and none.
enum class Ids : int { automatic, given_for_mounts, given, none };
ContainerSpec with(ContainerSpec spec, Ids ids) {
    if (ids == Ids::given) spec.uid_map = spec.gid_map = own_ids;
    if (ids == Ids::given_for_mounts) {
        spec.uid_map = {{0, 300000, 70000}};
        spec.gid_map = {{0, 400000, 70000}};
        spec.id_mapped_mounts = true;
    }
    if (ids == Ids::none) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    return spec;
}
constexpr Ids all_ids[]{Ids::automatic, Ids::given_for_mounts, Ids::given, Ids::none};

bool exists(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0;
}
long owner(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0 ? static_cast<long>(st.st_uid) : -1;
}
bool is_told(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}
std::string run_or_refusal(const ContainerSpec& spec) {
    try {
        return run(spec);
    } catch (const Error& e) {
        return e.what();
    }
}
/// True before Linux 6.15, and then says so.
bool overlay_is_too_old(const std::string& text) {
    return is_told(text, "needs Linux 6.15");
}
/// True before Linux 6.2, whose squashfs cannot be id-mapped.
bool squashfs_is_too_old(const std::string& text) {
    return is_told(text, "which is on squashfs: Invalid argument: this file system cannot be id-mapped");
}

}  // namespace

TEST_CASE("a file with a file system in it is a root, and its owners are the container's own") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    for (const char* type : {"ext4", "squashfs", "erofs"}) {
        const LeavesNothing nothing;
        CAPTURE(type);
        const TestDirectory dir;
        const std::string reason = make_image(dir / "root.img", type, root.path());
        if (!reason.empty()) {
            MESSAGE(std::string{type} << " is left out: " << reason);
            continue;
        }
        for (const Ids ids : all_ids) {
            CAPTURE(static_cast<int>(ids));
            ContainerSpec spec = with(shell(root, "stat -c %u /bin/busybox; id -u; touch /new && echo writable"), ids);
            spec.root = dir / "root.img";
            const bool writable = type == std::string{"ext4"};
            const std::string text = run_or_refusal(spec);
            CAPTURE(text);
            if (squashfs_is_too_old(text)) {
                MESSAGE("left out: " << text);
                continue;
            }
            CHECK(text.find("0\n0\n") == 0);
            CHECK(is_told(text, "writable\n") == writable);
            CHECK(loops_of(dir.path()) == 0);
            spec.command.back() = "ls /new";
            CHECK(is_told(run(spec), "No such file") == !writable);
            spec.root_read_only = true;
            spec.command.back() = "touch /bin/x; mount -o remount,rw /; touch /bin/x";
            CHECK(is_told(run(spec), "Read-only file system"));
            CHECK(loops_of(dir.path()) == 0);
        }
    }
}

TEST_CASE("a start that fails leaves no loop device") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    const std::string reason = make_image(dir / "root.img", "ext4", root.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    ContainerSpec spec = shell(root, "true");
    spec.root = dir / "root.img";
    spec.command = {"/nowhere"};
    for (int i = 0; i < 3; ++i) {
        CHECK(is_told(error_of(spec), "command '/nowhere' (in the child): No such file or directory"));
        CHECK(loops_of(dir.path()) == 0);
    }
    spec.mounts.push_back(MountSpec::bind("/none such", "/mnt"));
    CHECK(is_told(error_of(spec), "bind '/none such': No such file or directory"));
    CHECK(loops_of(dir.path()) == 0);
}

TEST_CASE("two containers share an image that is read-only, and one that is written to not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    const std::string reason = make_image(dir / "root.img", "ext4", root.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    ContainerSpec spec = shell(root, "sleep 1000");
    spec.root = dir / "root.img";
    {
        Container first = Container::start(spec);
        CHECK(is_told(error_of(spec), "it is in use by another container or program (flock(2))"));
        first.kill();
        (void)first.wait();
    }
    spec.root_read_only = true;
    Container first = Container::start(spec);
    Container second = Container::start(spec);
    CHECK(loops_of(dir.path()) == 2);
}

TEST_CASE("an image is mounted beside the root, with the safe options") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    const TestDirectory content;
    REQUIRE(::mknod((content / "null").c_str(), S_IFCHR | 0666, 0x103) == 0);
    const std::string reason = make_image(dir / "data.img", "ext4", content.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    ContainerSpec spec =
        shell(root, "grep ' /data ' /proc/self/mountinfo; cat /data/null; echo x > /data/new; cat /data/new");
    spec.mounts = {MountSpec::image(dir / "data.img", "/data")};
    const std::string text = run(spec);
    CAPTURE(text);
    CHECK(is_told(text, "rw,nosuid,nodev"));
    CHECK(is_told(text, "- ext4 /dev/loop"));
    CHECK(is_told(text, "can't open '/data/null': Permission denied"));
    CHECK(is_told(text, "\nx\n"));
}

TEST_CASE("what is written to a root in an overlay in memory is gone with the container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const Ids ids : all_ids) {
        const LeavesNothing nothing;
        CAPTURE(static_cast<int>(ids));
        const TestRoot root;
        REQUIRE(::chmod(root.path().c_str(), 01751) == 0);
        ContainerSpec spec = with(
            shell(root, "ls -l /new; echo x > /new; rm /bin/cat; stat -c '%u:%g %a' / /new /bin/busybox; id -u"), ids);
        spec.root_overlay.emplace();
        for (int i = 0; i < 2; ++i) {
            const std::string text = i == 0 ? error_of(spec) : run(spec);
            if (overlay_is_too_old(text)) CAISSON_SKIP(text.c_str());
            CAPTURE(text);
            if (i == 1) CHECK(is_told(text, "/new: No such file or directory\n0:0 1751\n0:0 644\n0:0 755\n0\n"));
            CHECK_FALSE(exists(root / "/new"));
            CHECK(exists(root / "/bin/cat"));
        }
    }
}

TEST_CASE("an overlay in memory holds as much as the spec says") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "dd if=/dev/zero of=/big bs=65536 count=64; stat -c %s /big");
    spec.root_overlay.emplace().bytes = 1 << 20;
    const std::string started = error_of(spec);
    if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
    const std::string text = run(spec);
    CAPTURE(text);
    CHECK(is_told(text, "No space left on device"));
}

TEST_CASE("what is written to a root in an overlay stays in the upper directory, owned by who it is inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const Ids ids : all_ids) {
        const LeavesNothing nothing;
        CAPTURE(static_cast<int>(ids));
        const TestRoot root;
        const TestDirectory dir;
        const std::string upper = dir / "up,p:er\\ \"x";
        REQUIRE(::mkdir(upper.c_str(), 0755) == 0);
        REQUIRE(::mkdir((dir / "wo:rk").c_str(), 0755) == 0);
        ContainerSpec spec =
            with(shell(root, "cat /new; echo x > /new; chown 7 /new; echo y >> /etc/group; rm /bin/cat"), ids);
        spec.root_overlay = RootOverlay{{}, upper, dir / "wo:rk", 0};
        const std::string first = run_or_refusal(spec);
        CAPTURE(first);
        if (overlay_is_too_old(first)) CAISSON_SKIP(first.c_str());
        CHECK(is_told(first, "can't open '/new'"));
        CHECK(owner(upper + "/new") == 7);
        CHECK(owner(upper + "/etc/group") == 0);
        CHECK_FALSE(exists(root / "/new"));
        CHECK(exists(root / "/bin/cat"));
        spec.command.back() = "echo $(stat -c %u /new) $(cat /new); ls /bin/cat";
        const std::string second = run(spec);
        CAPTURE(second);
        CHECK(is_told(second, "7 x\n"));
        CHECK(is_told(second, "/bin/cat: No such file or directory"));
    }
}

TEST_CASE("the layers of a root lie over each other in their order, whatever their names hold") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    const std::string top = dir / "t:o,p\\";
    const std::string middle = dir / "mid dle=";
    for (const std::string& layer : {top, middle}) REQUIRE(::mkdir(layer.c_str(), 0755) == 0);
    const auto put = [](const std::string& path, const char* text) {
        const Fd file{::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
        REQUIRE(::write(file.get(), text, 2) == 2);
    };
    put(top + "/a", "1\n");
    put(middle + "/a", "2\n");
    put(middle + "/b", "2\n");
    root.write("/a", "3\n");
    root.write("/b", "3\n");
    root.write("/c", "3\n");
    for (const Ids ids : all_ids) {
        CAPTURE(static_cast<int>(ids));
        ContainerSpec spec = with(shell(root, "cat /a /b /c; touch /x"), ids);
        spec.root_overlay = RootOverlay{{top, middle}, "", "", 0};
        spec.root_read_only = true;
        const std::string started = error_of(spec);
        if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
        const std::string text = run(spec);
        CAPTURE(text);
        CHECK(is_told(text, "1\n2\n3\n"));
        CHECK(is_told(text, "/x: Read-only file system"));
    }
}

TEST_CASE("a read-only image under an overlay in memory can be written to as far as the container sees") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    for (const char* type : {"squashfs", "erofs", "ext4"}) {
        CAPTURE(type);
        const std::string reason = make_image(dir / "root.img", type, root.path());
        if (!reason.empty()) continue;
        ContainerSpec spec = shell(root, "echo x > /new && cat /new && stat -c %u /new /bin/sh");
        spec.root = dir / "root.img";
        spec.root_overlay.emplace();
        const std::string started = error_of(spec);
        if (squashfs_is_too_old(started)) continue;
        if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
        // Both at once: the image below is only read.
        Container other = Container::start([&] {
            ContainerSpec again = spec;
            again.command.back() = "sleep 1000";
            return again;
        }());
        CHECK(run(spec) == "x\n0\n0\n");
        other.kill();
        (void)other.wait();
        REQUIRE(::unlink((dir / "root.img").c_str()) == 0);
    }
}

TEST_CASE("an overlay among the mounts shows its layers' owners as the container's own") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    for (const char* name : {"lower", "upper", "work"}) REQUIRE(::mkdir((dir / name).c_str(), 0755) == 0);
    for (const Ids ids : all_ids) {
        CAPTURE(static_cast<int>(ids));
        ContainerSpec spec = with(shell(root, "echo x > /data/new && stat -c %u /data /data/new"), ids);
        MountSpec overlay;
        overlay.type = MountSpec::Type::overlay;
        overlay.source = dir / "lower";
        overlay.target = "/data";
        overlay.upper = dir / "upper";
        overlay.work = dir / "work";
        spec.mounts = {overlay};
        const std::string started = error_of(spec);
        if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
        CHECK(run(spec) == "0\n0\n");
        CHECK(owner(dir / "upper/new") == 0);
    }
    ContainerSpec spec = shell(root, "true");
    MountSpec overlay;
    overlay.type = MountSpec::Type::overlay;
    overlay.source = dir / "none";
    overlay.target = "/data";
    overlay.upper = dir / "upper";
    overlay.work = dir / "work";
    spec.mounts = {overlay};
    CHECK(error_of(spec) == "container 'test': mount on '/data': lower directory '" + (dir / "none") +
                                "': No such file or directory: make the directory");
}

TEST_CASE("two containers at once do not write to one upper directory, and one after the other do") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    for (const char* name : {"lower", "upper", "work"}) REQUIRE(::mkdir((dir / name).c_str(), 0755) == 0);
    for (const Ids ids : {Ids::automatic, Ids::none}) {
        CAPTURE(static_cast<int>(ids));
        ContainerSpec spec = with(shell(root, "sleep 1000"), ids);
        spec.root_overlay = RootOverlay{{}, dir / "upper", dir / "work", 0};
        ContainerSpec beside = with(shell(root, "true"), ids);
        beside.mounts.emplace_back().type = MountSpec::Type::overlay;
        beside.mounts[0].source = dir / "lower";
        beside.mounts[0].target = "/data";
        beside.mounts[0].upper = dir / "upper";
        beside.mounts[0].work = dir / "work";
        const std::string started = error_of(beside);
        if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
        CHECK(is_told(started, "it started"));
        Container first = Container::start(spec);
        spec.command.back() = "true";
        const std::string in_use = "upper directory '" + (dir / "upper") +
                                   "': Resource temporarily unavailable: it is in use by another container or program "
                                   "(flock(2)): give each an upper and a work directory of its own";
        CHECK(error_of(spec) == "container 'test': root_overlay: " + in_use);
        CHECK(error_of(beside) == "container 'test': mount on '/data': " + in_use);
        first.kill();
        (void)first.wait();
    }
}

TEST_CASE("an overlay of a directory over itself is told so") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    ContainerSpec spec = shell(root, "true");
    for (const std::string& layer : {root.path(), dir.path()}) {
        spec.root_overlay.emplace().lower = {layer, layer};
        const std::string text = error_of(spec);
        if (overlay_is_too_old(text)) CAISSON_SKIP(text.c_str());
        CHECK(text ==
              "container 'test': root_overlay: mount 'overlay': Too many levels of symbolic links: a directory "
              "is given twice, or lies in another one of them");
    }
}

TEST_CASE("upper and work of a container with mapped ids must be on one mount") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    REQUIRE(::mkdir((dir / "upper").c_str(), 0755) == 0);
    ContainerSpec spec = shell(root, "true");
    spec.root_overlay = RootOverlay{{}, dir / "upper", "/dev/shm", 0};
    const std::string text = error_of(spec);
    CAPTURE(text);
    CHECK(is_told(text, "root_overlay: directory '"));
    CHECK(is_told(text, "upper and work must be on one mount, and stay where they are during the start"));
    spec.root_overlay = RootOverlay{{}, dir / "none", dir / "upper", 0};
    CHECK(error_of(spec) == "container 'test': root_overlay: upper directory '" + (dir / "none") +
                                "': No such file or directory: make the directory");
}

TEST_CASE("a user's name is looked up in the topmost layer that has the file") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n");
    root.write("/etc/group", "root:x:0:\nusers:x:500:alice\n");
    const TestRoot layer;
    layer.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1007:1007::/:/bin/sh\n");
    REQUIRE(::unlink((layer / "/etc/group").c_str()) == 0);
    ContainerSpec spec = shell(root, "id -u; id -G");
    spec.user = "alice";
    spec.root_overlay.emplace();
    const std::string started = error_of(spec);
    if (overlay_is_too_old(started)) CAISSON_SKIP(started.c_str());
    CHECK(run(spec) == "1000\n1000 500\n");
    spec.root_overlay->lower = {layer.path()};
    CHECK(run(spec) == "1007\n1007 500\n");
    const TestRoot upper;
    upper.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1008:1008::/:/bin/sh\n");
    REQUIRE(::unlink((upper / "/etc/group").c_str()) == 0);
    const TestDirectory work;
    spec.root_overlay->upper = upper.path();
    spec.root_overlay->work = work.path();
    CHECK(run(spec) == "1008\n1008 500\n");
}

TEST_CASE("the host's own root can be seen through an overlay in memory") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string canary = root / "/canary";
    ContainerSpec spec = with(shell(root, "echo x > " + canary + " && echo written"), Ids::given);
    spec.root = "/";
    spec.root_overlay.emplace();
    const std::string text = run_or_refusal(spec);
    if (overlay_is_too_old(text)) CAISSON_SKIP(text.c_str());
    CHECK(text == "written\n");
    CHECK_FALSE(exists(canary));
}

TEST_CASE("a bind from inside shows what the container has by then, a directory or a file") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const Ids ids : all_ids) {
        const LeavesNothing nothing;
        CAPTURE(static_cast<int>(ids));
        const TestRoot root;
        root.write("/etc/word", "root's\n");
        const TestDirectory dir;
        REQUIRE(::symlink("/etc/passwd", (dir / "word").c_str()) == 0);
        ContainerSpec spec =
            with(shell(root, "cat /copy/word /one; touch /copy/new && echo new; touch /fixed/x; cat /links"), ids);
        spec.mounts = {MountSpec::bind_inside("/etc", "/copy"),
                       MountSpec::bind_inside("/etc/word", "/one", {.read_only = true}),
                       MountSpec::tmpfs("/fixed-source", 1 << 20),
                       MountSpec::bind_inside("/fixed-source", "/fixed", {.read_only = true}),
                       // A link of the container's leads to its own files.
                       MountSpec::bind(dir.path(), "/host"), MountSpec::bind_inside("/host/word", "/links")};
        const std::string text = run(spec);
        CAPTURE(text);
        CHECK(is_told(text, "root's\nroot's\nnew\n"));
        CHECK(is_told(text, "/fixed/x: Read-only file system"));
        CHECK(is_told(text, "root:x:0:0:root:/root:/bin/sh"));
        CHECK(exists(root / "/etc/new"));
        spec.mounts = {MountSpec::bind_inside("/none", "/copy")};
        CHECK(is_told(error_of(spec), "bind '/none' of the container (in the child): No such file or directory"));
    }
}

TEST_CASE("a bind from inside does not follow a link through the descriptors of the start") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const char* link : {"/proc/self/fd/0", "/proc/1/root/etc", "/proc/self/cwd"}) {
        CAPTURE(link);
        (void)::unlink((root / "/way").c_str());
        REQUIRE(::symlink(link, (root / "/way").c_str()) == 0);
        ContainerSpec spec = shell(root, "true");
        spec.mounts = {MountSpec::bind_inside("/way", "/copy")};
        CHECK(is_told(error_of(spec),
                      "bind '/way' of the container (in the child): Too many levels of symbolic links: a link in it "
                      "leads in a circle, or through /proc"));
    }
}
