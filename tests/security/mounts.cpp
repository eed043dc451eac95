// What a payload, or who can write to a directory of the host, could make of a container's mounts.
#include <caisson/container.hpp>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/image.hpp"
#include "support/layout.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/sandbox.hpp"
#include "support/shell.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

std::string mounts_of(const Container& container) {
    return content("/proc/" + std::to_string(container.init().pid()) + "/mountinfo");
}
/// A block device that the host has a node of; empty: none.
std::string block_device() {
    for (const auto& entry : std::filesystem::directory_iterator{"/sys/block"}) {
        const std::string node = "/dev/" + entry.path().filename().string();
        if (std::filesystem::is_block_file(node)) return node;
    }
    return {};
}

}  // namespace

TEST_CASE("CVE-2014-5206, CVE-2014-5207: what is read-only stays so, with what is mounted below it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    REQUIRE(::mkdir((dir / "below").c_str(), 0777) == 0);
    struct Below {
        explicit Below(std::string at) : path{std::move(at)} {
            REQUIRE(::mount("below", path.c_str(), "tmpfs", 0, nullptr) == 0);
        }
        Below(const Below&) = delete;
        Below& operator=(const Below&) = delete;
        ~Below() { (void)::umount2(path.c_str(), MNT_DETACH); }
        std::string path;
    } below{dir / "below"};
    ContainerSpec spec = shell(root,
                               "for m in /data /data/below; do\n"
                               "  touch $m/a && echo BAD; mount -o remount,rw,bind $m && echo BAD\n"
                               "  mount -o remount,rw $m && echo BAD; umount $m && echo BAD; touch $m/b && echo BAD\n"
                               "done\n"
                               "mkdir /copy; mount -o bind /data /copy && echo BAD\n"
                               "mount -o remount,rw,bind / && echo BAD; touch /x && echo BAD\n"
                               "unshare -m -r mount -o remount,rw,bind /data && echo BAD\n"
                               "grep -c '^[0-9 ]* [0-9:]* [^ ]* /data.* ro,' /proc/self/mountinfo");
    REQUIRE(::mkdir((root / "/data").c_str(), 0755) == 0);
    spec.root_read_only = true;
    // A tmpfs can be id-mapped from Linux 6.3 on only.
    spec.uid_map = spec.gid_map = {{0, 0, 65536}};
    spec.mounts = {MountSpec::bind(dir.path(), "/data", {.read_only = true})};
    const std::string text = run(spec);
    CAPTURE(text);
    CHECK_FALSE(contains(text, "BAD"));
    CHECK(contains(text, "/data/a: Read-only file system"));
    CHECK(contains(text, "/data/below/a: Read-only file system"));
    CHECK(contains(text, "\n2\n"));
}

TEST_CASE("CVE-2024-42472: a source that is swapped for a link leads nowhere else") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    const TestDirectory canary;
    REQUIRE(write(canary / "who", "canary"));
    REQUIRE(::mkdir((dir / "source").c_str(), 0755) == 0);
    REQUIRE(::mkdir((dir / "source/deep").c_str(), 0755) == 0);
    REQUIRE(::mkdir((canary / "deep").c_str(), 0755) == 0);
    REQUIRE(write(canary / "deep/who", "canary"));
    REQUIRE(write(dir / "source/who", "source"));
    REQUIRE(write(dir / "source/deep/who", "source"));
    REQUIRE(::symlink(canary.path().c_str(), (dir / "link").c_str()) == 0);
    int seen = 0;
    int refused = 0;
    const Swapper swap{dir / "source", dir / "link"};
    // The link as the last component, and on the way.
    for (const char* path : {"source", "source/deep"}) {
        for (int i = 0; i < 60; ++i) {
            ContainerSpec spec = shell(root, "cat /data/who");
            spec.mounts = {MountSpec::bind(dir / path, "/data")};
            try {
                const std::string text = run(spec);
                CHECK(text == "source");
                ++seen;
            } catch (const Error& e) {
                CHECK(e.code().value() == ELOOP);
                ++refused;
            }
        }
    }
    CHECK(seen > 0);
    CHECK(refused > 0);
    // What the option stands for: the same race leads out.
    int led_out = 0;
    for (int i = 0; i < 200 && led_out == 0; ++i) {
        const Mount mount = Mount::bind(dir / "source", {.follow_links = true});
        const Fd file{::openat(mount.fd(), "who", O_RDONLY | O_CLOEXEC)};
        char text[6];
        if (::read(file.get(), text, 6) == 6 && std::string(text, 6) == "canary") ++led_out;
    }
    CHECK(led_out > 0);
}

TEST_CASE("CVE-2024-42472: what is bound is what was opened, whatever its name stands for by then") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestDirectory dir;
    REQUIRE(::mkdir((dir / "source").c_str(), 0755) == 0);
    REQUIRE(::mkdir((dir / "other").c_str(), 0755) == 0);
    const std::uint64_t wanted = inode(dir / "source");
    const Fd source{::open((dir / "source").c_str(), O_PATH | O_CLOEXEC)};
    REQUIRE(::renameat2(AT_FDCWD, (dir / "source").c_str(), AT_FDCWD, (dir / "other").c_str(), RENAME_EXCHANGE) == 0);
    CHECK(inode(Mount::bind(source.get()).fd()) == wanted);
}

TEST_CASE("CVE-2025-64507: a setuid program on a volume gives nobody anything inside, and is out of reach outside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory dir;
    REQUIRE(::mkdir((dir / "volume").c_str(), 0777) == 0);
    // As EMBEDDING.md says of directories that a container writes to.
    REQUIRE(::chmod(dir.path().c_str(), 0700) == 0);
    const std::string id = program("print_ids");
    ContainerSpec spec = shell(root,
                               "cp /print_ids /volume/ids; chmod 6755 /volume/ids; stat -c '%u %a' /volume/ids\n"
                               "grep ' /volume ' /proc/self/mountinfo");
    root.copy(id, "/print_ids");
    spec.mounts = {MountSpec::bind(dir / "volume", "/volume")};
    const std::string made = run(spec);
    CAPTURE(made);
    CHECK(contains(made, "0 6755\n"));
    CHECK(contains(made, "nosuid,nodev"));

    // Not only no_new_privileges is in the way.
    spec.command = {"/volume/ids"};
    spec.uid = spec.gid = 1000;
    spec.no_new_privileges = false;
    CHECK(run(spec) == "1000 1000\n");

    const pid_t child = ::fork();
    if (child == 0) {
        if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(2);
        struct stat st {};
        ::_exit(::stat((dir / "volume/ids").c_str(), &st) == 0 ? 1 : errno == EACCES ? 0 : 3);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

TEST_CASE("CVE-2025-31133: a link of the root's leads no bind from inside to an unmasked /proc or /sys") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const char* link : {"/proc", "proc/sys", "/sys", "/way/to", "/sys/kernel"}) {
        CAPTURE(link);
        (void)::unlink((root / "/data").c_str());
        REQUIRE(::symlink(link, (root / "/data").c_str()) == 0);
        if (std::string{link} == "/way/to") {
            REQUIRE(::mkdir((root / "/way").c_str(), 0755) == 0);
            REQUIRE(::symlink("../proc", (root / "/way/to").c_str()) == 0);
        }
        // Root inside is root outside, and may not unmount: masks are all that is between the two.
        ContainerSpec spec = shell(root, "true >> /seen/sys/kernel/core_pattern && echo open");
        spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        spec.mounts = {MountSpec::bind_inside("/data", "/seen")};
        CHECK(contains(error_of(spec),
                       "bind '/data' of the container (in the child): Too many levels of symbolic links: a link in it "
                       "leads in a circle, or through /proc or /sys"));
    }
    // What the spec says itself is done.
    ContainerSpec spec = shell(root, "cat /seen/ostype");
    spec.mounts = {MountSpec::bind_inside("/proc/sys/kernel", "/seen")};
    CHECK(run(spec) == "Linux\n");
}

TEST_CASE("CVE-2025-31133: who renames the directory that /proc is on meanwhile uncovers nothing of it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(::mkdir((root / "/other").c_str(), 0755) == 0);
    ContainerSpec spec =
        shell(root,
              "for d in /proc /other; do (true >> $d/sys/kernel/core_pattern) 2>/dev/null && echo open; "
              "done; true");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    const Swapper swap{root / "/proc", root / "/other"};
    for (int i = 0; i < 100; ++i) CHECK(run(spec).empty());
}

TEST_CASE(
    "CVE-2013-6456: whatever a running container has in the place of /dev, what is attached is made in its own /dev") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const TestRoot root;
    // Root inside is root outside, and may mount and rename what it likes.
    ContainerSpec spec = shell(root, "echo re\"\"ady; while read -r line; do eval \"$line\"; echo do\"\"ne; done");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.capabilities = CapabilitySet::system();
    spec.seccomp.profile = SeccompProfile::system;
    Container container = Container::start(spec);
    const auto await = [&](const std::string& word) {
        std::string said;
        for (char c = 0; !contains(said, word) && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    };
    await("ready");
    const auto refusal = [&](const DeviceSpec& device) {
        try {
            container.attach(device);
        } catch (const Error& e) {
            return std::string{e.what()};
        }
        return std::string{};
    };
    const std::string dev = "/proc/" + std::to_string(container.init().pid()) + "/root/dev";
    int made = 0;
    int refused = 0;
    const auto attack = [&](const char* target, const std::string& first, const std::string& second) {
        const Swapper attacker{first, second};
        const int times = rounds(35, 1000);
        for (int i = 0; i < times; ++i) {
            const bool is_made = refusal({.source = "/dev/null", .target = target}).empty();
            ++(is_made ? made : refused);
            if (!is_made) continue;
            try {
                container.detach_device(target);
            } catch (const Error&) {
                ++refused;
            }
        }
    };
    std::filesystem::create_directory(dev + "/a");
    replace_by_link(dev + "/b", canary.path());
    attack("a/new", dev + "/a", dev + "/b");
    replace_by_link(dev + "/c", canary / "token");
    attack("d", dev + "/c", dev + "/d");
    replace_by_link(root / "/away", canary.path());
    attack("sub/file", root / "/dev", root / "/away");
    // Where it was.
    if (std::filesystem::is_symlink(root / "/dev")) {
        REQUIRE(::renameat2(AT_FDCWD, (root / "/dev").c_str(), AT_FDCWD, (root / "/away").c_str(), RENAME_EXCHANGE) ==
                0);
    }
    CHECK(made > 0);
    CHECK(refused > 0);

    const auto run = [&](const std::string& command) {
        const std::string line = command + "\n";
        REQUIRE(::write(container.console()->fd(), line.data(), line.size()) == static_cast<ssize_t>(line.size()));
        await("done");
    };
    run("umount -l /dev");
    CHECK(
        refusal({.source = "/dev/null", .target = "x"}) ==
        "container 'test': directory '/dev' (in the child): Stale file handle: the container has put something else in "
        "its place");
    CHECK_FALSE(std::filesystem::exists(root / "/dev/x"));
    run("mv /dev /dev2; ln -s " + canary.path() + " /dev");
    CHECK(refusal({.source = "/dev/null", .target = "x"}) ==
          "container 'test': directory '/dev' (in the child): Too many levels of symbolic links");
    (void)container.kill();
    CHECK(canary.touched() == "");
}

TEST_CASE(
    "CVE-2013-6456: a target that is swapped for a link while a mount is attached never shows or touches the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const TestRoot root;
    const TestRoot source;
    std::filesystem::create_directories(root / "/vol/x");
    replace_by_link(root / "/vol/y", canary.path());
    Container container = Container::start(shell(root, "read line"));
    int made = 0;
    int refused = 0;
    {
        const Swapper attacker{root / "/vol/x", root / "/vol/y"};
        const int times = rounds(100, 2000);
        for (int i = 0; i < times; ++i) {
            const std::string target = i % 2 == 0 ? "/vol/x/sub" : "/vol/x/new" + std::to_string(i);
            try {
                container.attach(MountSpec::bind(source.path(), target));
                ++made;
                container.detach_mount(target);
            } catch (const Error&) {
                ++refused;
            }
        }
    }
    CHECK(made > 0);
    CHECK(refused > 0);
    (void)container.kill();
    CHECK(canary.touched() == "");
}

TEST_CASE(
    "CVE-2015-1335, CVE-2013-6456: with any directory of a running root a link, what is attached is inside or not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot source;
    source.write("/data/mark", "bound\n");
    const TestDirectory images;
    const bool has_image = make_image(images / "image", "squashfs", source / "/data").empty();
    const std::string block = block_device();
    each_layout([&](const Layout& layout, bool user) {
        const std::string& where = layout.where;
        Shell shell{unruly(layout.root, user)};
        // What is there before, is moved away with the directory or taken off it by the container.
        const bool takes_directories = where != "/proc" && where != "/sys" && where != "/dev/pts";
        const std::string early = takes_directories ? where + "/early/x" : where;
        shell->attach(MountSpec::bind(source / "/data", early));
        shell->attach(DeviceSpec{.source = "/dev/null", .target = "early/null"});
        REQUIRE(shell.ask("ln -s " + layout.target + " /dev/late") == "");
        layout.place_inside(shell);
        const std::string after = mounts_of(*shell);

        const std::string why =
            layout.kind == 3 ? ": Too many levels of symbolic links" : ": No such file or directory";
        std::vector<MountSpec> mounts;
        if (user) {
            mounts = {MountSpec::bind(source / "/data", where + "/sub/x"), MountSpec::tmpfs(where + "/sub", 4096)};
        } else {
            mounts = {MountSpec::bind(source / "/data/mark", where + "/passwd"),
                      MountSpec::bind(source / "/data", where)};
            if (has_image) mounts.push_back(MountSpec::image(images / "image", where + "/sub"));
        }
        for (const MountSpec& mount : mounts) {
            const std::string text = error_from([&] { shell->attach(mount); });
            CAPTURE(text);
            CHECK(text.starts_with("container 'test': mount '"));
            CHECK(contains(text, "' on '" + mount.target + "' (in the child)" + why));
        }
        std::vector<DeviceSpec> devices{{.source = "/dev/kmsg", .target = "log/kernel"},
                                        {.source = "/dev/kmsg", .target = "late/new"},
                                        {.source = "/dev/kmsg", .target = "late"}};
        if (!block.empty()) devices.push_back({.source = block, .target = "disk"});
        if (!where.starts_with("/dev")) devices.clear();
        for (const DeviceSpec& device : devices) {
            const std::string text = error_from([&] { shell->attach(device); });
            CAPTURE(device.target);
            CAPTURE(text);
            if (where == "/dev") {
                CHECK(text == "container 'test': directory '/dev' (in the child): Too many levels of symbolic links");
            } else if (device.target == "late/new") {
                CHECK(text == "container 'test': directory '/dev/late': Too many levels of symbolic links");
            } else if (device.target == "late") {
                CHECK(contains(text, "device '/dev/late': File exists"));
            } else {
                CHECK(text == "");
                shell->detach_device(device.target);
            }
        }
        CHECK(mounts_of(*shell) == after);

        // What the container keeps is told.
        const std::string text = error_from([&] { shell->detach_device("early/null"); });
        CAPTURE(text);
        CHECK(contains(text, where == "/dev" ? "is detached, but its node is left: directory '/dev'" : ""));
        CHECK(text.empty() == (where != "/dev"));
        CHECK(error_from([&] { shell->detach_mount(early); }) == "");
        CHECK_FALSE(contains(mounts_of(*shell), "/data "));
    });
}

TEST_CASE(
    "CVE-2018-15664, CVE-2013-6456: with any directory of a running root a link, commands and copies stay inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestDirectory host;
    std::filesystem::create_directory(host / "tree");
    REQUIRE(write(host / "file", "from the host"));
    REQUIRE(write(host / "tree/token", "from the host"));
    each_layout([&](const Layout& layout, bool user) {
        const std::string& where = layout.where;
        layout.root.write("/etc/passwd", "somebody:x:7:7::/:/bin/sh\n");
        Shell shell{unruly(layout.root, user)};
        layout.place_inside(shell);
        const std::string why =
            layout.kind == 3 ? ": Too many levels of symbolic links" : ": No such file or directory";
        const auto error_of_command = [&](auto&& change) {
            ExecSpec spec;
            spec.command = {"/bin/true"};
            change(spec);
            return error_from([&] {
                Exec command = shell->exec(spec);
                CHECK(command.wait().success());
            });
        };
        // Where root inside is root outside, it takes its /dev/null from there.
        const bool no_null = !user && where == "/dev";
        const std::string directory = user ? where : where + "/sub";
        CHECK(contains(error_of_command([&](ExecSpec& spec) { spec.working_directory = directory; }),
                       (no_null ? "'/dev/null' of the container" : "working directory '" + directory + "'") +
                           " (in the child)" + why));
        const std::string looked_up = error_of_command([](ExecSpec& spec) { spec.user = "somebody"; });
        CHECK(contains(looked_up, where == "/etc" ? "'/etc/passwd' of the container (in the child)" + why
                                  : no_null       ? "'/dev/null'"
                                                  : ""));
        CHECK(looked_up.empty() == (where != "/etc" && !no_null));
        const std::string at_terminal = error_of_command([](ExecSpec& spec) { spec.console.emplace(); });
        CHECK(contains(at_terminal, where.starts_with("/dev") ? "open '/dev/pts' (in the child)" + why : ""));
        CHECK(at_terminal.empty() == !where.starts_with("/dev"));

        const auto copied_in = [&](const std::string& name, const std::string& target) {
            return error_from([&] { shell->copy_in(host / name, target); });
        };
        CHECK(contains(copied_in("file", where + "/file"), "' of the container" + why));
        CHECK(contains(copied_in("tree", where + "/sub/"), "' of the container" + why));
        const TestDirectory out;
        const auto copied_out = [&](const std::string& source) {
            return error_from([&] { shell->copy_out(source, out.path()); });
        };
        for (const char* name : {"/token", "/sub/file"}) {
            CHECK(contains(copied_out(where + name), "' of the container" + why));
        }
        // A link is copied as one, and what has its name later does not go through it.
        const std::string name = where.substr(where.rfind('/') + 1);
        CHECK(copied_out(where) == "");
        CHECK(std::filesystem::read_symlink(out / name) == layout.target);
        REQUIRE(shell.ask("rm " + where + "; mkdir " + where + "; echo inside > " + where + "/token") == "");
        CHECK(contains(copied_out(where), "copy '" + where + "' of the container as '" + name + "': "));
        REQUIRE(shell.ask("rm -r " + where + "; ln -s " + layout.target + " " + where) == "");
        CHECK(contains(copied_in("tree", where), "/tree' of the host as '" + name + "': "));
        CHECK(contains(error_from([&] { shell->shutdown(ShutdownMode::initctl); }), "no init reads"));
        CHECK(copied_in("file", where) == "");
        CHECK(shell.ask("cat " + where) == "from the host");
    });
}
