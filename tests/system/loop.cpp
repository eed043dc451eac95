// Loop devices, and the file systems in files that they make into mounts.
#include <caisson/loop.hpp>
#include <caisson/mount.hpp>

#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <linux/loop.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "support/doctest.hpp"
#include "support/image.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

const char* why_not() {
    if (::geteuid() != 0) return "this needs root";
    return ::access("/dev/loop-control", F_OK) == 0 ? nullptr : "this machine has no loop devices";
}

Fd new_file(const std::string& path, off_t size = 1 << 20) {
    Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    REQUIRE(::ftruncate(file.get(), size) == 0);
    return file;
}

template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.step() == Step::mount);
        return e.what();
    }
    return "nothing was thrown";
}

}  // namespace

TEST_CASE("a loop device shows the bytes of its file, and is free when it goes") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const Fd file = new_file(dir / "disk");
    REQUIRE(::pwrite(file.get(), "hello", 5, 4096) == 5);
    {
        const Loop loop = Loop::make(file.get(), false);
        CHECK(loop.path().find("/dev/loop") == 0);
        CHECK((::fcntl(loop.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        char bytes[5];
        CHECK(::pread(loop.fd(), bytes, 5, 4096) == 5);
        CHECK(std::string(bytes, 5) == "hello");
        CHECK(::pwrite(loop.fd(), "world", 5, 8192) == 5);
        REQUIRE(::fsync(loop.fd()) == 0);
        CHECK(::pread(file.get(), bytes, 5, 8192) == 5);
        CHECK(std::string(bytes, 5) == "world");
        CHECK(loops_of(dir.path()) == 1);
    }
    CHECK(loops_of(dir.path()) == 0);
}

TEST_CASE("a read-only loop device cannot be written to, and takes a file that cannot be either") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    (void)new_file(dir / "disk");
    const Fd file{::open((dir / "disk").c_str(), O_PATH | O_CLOEXEC)};
    const Loop loop = Loop::make(file.get(), true);
    const Fd again{::open(loop.path().c_str(), O_WRONLY | O_CLOEXEC)};
    CHECK((!again || ::pwrite(again.get(), "x", 1, 0) < 0));
}

TEST_CASE("who writes to a file through a loop device has it alone, who reads shares it") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const Fd file = new_file(dir / "disk");
    const std::string taken = "loop device for '" + (dir / "disk") +
                              "': Resource temporarily unavailable: it is in use by another container or program "
                              "(flock(2)): use it read-only everywhere, or give each a copy of its own";
    {
        const Loop first = Loop::make(file.get(), true);
        const Loop second = Loop::make(file.get(), true);
        CHECK(first.path() != second.path());
        CHECK(error_of([&] { (void)Loop::make(file.get(), false); }) == taken);
    }
    {
        const Loop writer = Loop::make(file.get(), false);
        CHECK(error_of([&] { (void)Loop::make(file.get(), true); }) == taken);
    }
    CHECK_NOTHROW((void)Loop::make(file.get(), false));
}

TEST_CASE("a file that the host shows by a loop device of its own is not written to beside it") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const Fd file = new_file(dir / "disk");
    // As mount(8) makes one: without a lock.
    const auto of_host = [&](bool read_only) {
        for (;;) {
            const Fd control = detail::sys::open("/dev/loop-control", O_RDWR);
            const std::string path = "/dev/loop" + std::to_string(::ioctl(control.get(), LOOP_CTL_GET_FREE));
            Fd device = detail::sys::open(path, read_only ? O_RDONLY : O_RDWR);
            loop_config config{};
            config.fd = static_cast<__u32>(file.get());
            config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
            if (device && ::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return device;
            REQUIRE((errno == EBUSY || errno == ENXIO));  // another process was faster
        }
    };
    {
        const Fd device = of_host(false);
        const std::string taken = "loop device for '" + (dir / "disk") + "': Device or resource busy: '" +
                                  detail::path_of(device.get()) +
                                  "' shows it already (losetup(8), mount(8)): free that, use it read-only everywhere, "
                                  "or give each a copy of its own";
        CHECK(error_of([&] { (void)Loop::make(file.get(), false); }) == taken);
        CHECK(detail::find_other_loop(file.get(), true, "") == detail::path_of(device.get()));
    }
    {
        const Fd device = of_host(true);
        CHECK(detail::find_other_loop(file.get(), false, "") == detail::path_of(device.get()));
        CHECK_NOTHROW((void)Loop::make(file.get(), true));
    }
    // One that goes is waited for.
    Fd device = of_host(false);
    std::thread closer{[&] {
        (void)::poll(nullptr, 0, 20);
        device.reset();
    }};
    CHECK_NOTHROW((void)Loop::make(file.get(), false));
    closer.join();
}

TEST_CASE("a file is not taken for free where there is no descriptor to look with") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const Fd file = new_file(dir / "disk");
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const auto first_free = static_cast<rlim_t>(Fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)}.get());
    const rlimit few{first_free + 1, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
    const std::string text = error_of([&] { (void)Loop::make(file.get(), false); });
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(text == "loop device for '" + (dir / "disk") +
                      "': '/sys/block': Too many open files: no descriptor is left: raise 'ulimit -n'");
}

TEST_CASE("many processes that want loop devices at once get one each") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    std::vector<pid_t> children;
    for (int i = 0; i < 6; ++i) {
        const pid_t child = ::fork();
        if (child == 0) {
            int bad = 0;
            const std::string path = dir / std::to_string(i);
            const Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
            if (::ftruncate(file.get(), 1 << 20) != 0 || ::pwrite(file.get(), path.data(), path.size(), 0) < 0) ++bad;
            for (int n = 0; n < 25; ++n) {
                try {
                    const Loop loop = Loop::make(file.get(), false);
                    std::string bytes(path.size(), '\0');
                    if (::pread(loop.fd(), bytes.data(), bytes.size(), 0) < 0 || bytes != path) ++bad;
                } catch (const Error&) {
                    ++bad;
                }
            }
            ::_exit(bad);
        }
        children.push_back(child);
    }
    for (const pid_t child : children) {
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    CHECK(loops_of(dir.path()) == 0);
}

TEST_CASE("a process that is killed leaves no loop device, with a file system mounted or without") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const TestDirectory empty;
    const std::string reason = make_image(dir / "disk", "ext4", empty.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    const Fd file{::open((dir / "disk").c_str(), O_PATH | O_CLOEXEC)};
    for (const bool mounted : {false, true}) {
        CAPTURE(mounted);
        int ready[2];
        REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
        const Fd from{ready[0]};
        const pid_t child = ::fork();
        if (child == 0) {
            try {
                Loop loop;
                Mount mount;
                if (mounted) mount = Mount::image(file.get());
                else loop = Loop::make(file.get(), false);
                (void)!::write(ready[1], "x", 1);
                for (;;) ::pause();
            } catch (const Error&) {
            }
            ::_exit(1);
        }
        ::close(ready[1]);
        char byte = 0;
        CHECK(::read(from.get(), &byte, 1) == 1);
        CHECK(loops_of(dir.path()) == 1);
        REQUIRE(::kill(child, SIGKILL) == 0);
        REQUIRE(::waitpid(child, nullptr, 0) == child);
        CHECK(loops_of(dir.path()) == 0);
    }
}

TEST_CASE("an image is mounted by the file system that is in it, and what cannot be written to is read-only") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const TestDirectory content;
    REQUIRE(write(content / "file", "text"));
    for (const auto& type : detail::file_system_types) {
        const LeavesNothing nothing;
        CAPTURE(type.name);
        const TestDirectory dir;
        const std::string reason = make_image(dir / "disk", type.name, content.path());
        if (!reason.empty()) {
            MESSAGE(type.name << " is left out: " << reason);
            continue;
        }
        {
            const Mount mount = Mount::image(dir / "disk");
            CHECK(detail::file_system_of(mount.fd()) == type.name);
            const Fd file{::openat(mount.fd(), "file", O_RDONLY | O_CLOEXEC)};
            char bytes[4];
            // mkfs.xfs takes no directory.
            if (type.name != std::string{"xfs"}) {
                CHECK(::read(file.get(), bytes, 4) == 4);
                CHECK(std::string(bytes, 4) == "text");
            }
            const Fd made{::openat(mount.fd(), "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
            CHECK(static_cast<bool>(made) == !type.read_only);
            struct statvfs st {};
            REQUIRE(::fstatvfs(mount.fd(), &st) == 0);
            CHECK((st.f_flag & (ST_NOSUID | ST_NODEV)) == (ST_NOSUID | ST_NODEV));
        }
        CHECK(loops_of(dir.path()) == 0);
        {
            const Mount mount = Mount::image(dir / "disk", {.read_only = true});
            const Fd made{::openat(mount.fd(), "newer", O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
            CHECK(errno == EROFS);
            CHECK_FALSE(made);
            // Not the mount alone is read-only, so nobody can turn it into one that is not.
            const Mount again = Mount::image(dir / "disk", {.read_only = true});
            CHECK(loops_of(dir.path()) == 2);
        }
        CHECK(loops_of(dir.path()) == 0);
    }
}

TEST_CASE("an error in an ext4 makes it read-only, unless the spec says what else") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const LeavesNothing nothing;
    const TestDirectory dir;
    const TestDirectory empty;
    const TestDirectory target;
    const std::string reason = make_image(dir / "disk", "ext4", empty.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    // As a hostile image would.
    REQUIRE(run_quietly(maker("tune2fs") + " -e panic " + (dir / "disk")));
    const auto options_of = [&](std::string_view data) {
        Mount mount = Mount::image(dir / "disk", {}, data);
        mount.attach(target.path());
        std::string line = mounts();
        line.erase(0, line.find(target.path()));
        return line.substr(0, line.find('\n'));
    };
    CHECK(options_of("").find("errors=remount-ro") != std::string::npos);
    CHECK(options_of("errors=continue").find("errors=continue") != std::string::npos);
}

TEST_CASE("an image that is none, or is damaged, is told with the remedy, and leaves no loop device") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    (void)new_file(dir / "zeros");
    CHECK(error_of([&] { (void)Mount::image(dir / "zeros"); }) ==
          "image '" + (dir / "zeros") +
              "': no file system is found in it: Invalid argument: ext4, squashfs, erofs, xfs and btrfs are known; of "
              "partitions, or what is encrypted, name the block device of what is inside");
    CHECK(error_of([&] { (void)Mount::image(dir.path()); }) ==
          "image '" + dir.path() + "': Invalid argument: name a block device, or a file with a file system in it");
    CHECK(error_of([&] { (void)Mount::image(dir / "none"); }) ==
          "image '" + (dir / "none") + "': No such file or directory: the source must exist on the host");
    REQUIRE(::symlink("zeros", (dir / "link").c_str()) == 0);
    CHECK(error_of([&] { (void)Mount::image(dir / "link"); }) ==
          "image '" + (dir / "link") +
              "': Too many levels of symbolic links: a symbolic link is in it: name what it leads to, or set "
              "options.follow_links");
    CHECK(error_of([&] {
              (void)Mount::image(dir / "link", {.follow_links = true});
          }).find("no file system is found in it") != std::string::npos);

    const Fd damaged = new_file(dir / "damaged");
    REQUIRE(::pwrite(damaged.get(), "hsqs", 4, 0) == 4);
    const std::string text = error_of([&] { (void)Mount::image(dir / "damaged"); });
    CAPTURE(text);
    CHECK(text.find("image '" + (dir / "damaged") + "' (squashfs): ") == 0);
    const TestDirectory content;
    if (const std::string reason = make_image(dir / "short", "ext4", content.path()); !reason.empty()) {
        CAISSON_SKIP(reason.c_str());
    }
    std::filesystem::resize_file(dir / "short", 1 << 20);
    CHECK(error_of([&] { (void)Mount::image(dir / "short"); }) ==
          "image '" + (dir / "short") +
              "' (ext4): Invalid argument: it is cut short or damaged, or an option of its data is not one that it "
              "takes");
    CHECK(loops_of(dir.path()) == 0);
}

TEST_CASE("a block device is mounted as it is") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestDirectory dir;
    const TestDirectory content;
    REQUIRE(write(content / "file", "text"));
    const std::string reason = make_image(dir / "disk", "ext4", content.path());
    if (!reason.empty()) CAISSON_SKIP(reason.c_str());
    const Fd file{::open((dir / "disk").c_str(), O_PATH | O_CLOEXEC)};
    const Loop loop = Loop::make(file.get(), false);
    const Mount mount = Mount::image(loop.path());
    CHECK(::faccessat(mount.fd(), "file", F_OK, 0) == 0);
    CHECK(loops_of(dir.path()) == 1);
    const std::string busy = error_of([&] { (void)Mount::image(loop.path(), {.read_only = true}); });
    CHECK(busy.ends_with(
        "Device or resource busy: it is mounted already, to be written to (unmount that), or part of another "
        "device (lsblk(8))"));
}
