#include <caisson/loop.hpp>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <sys/mman.h>

#include <caisson/detail/superblock.hpp>

#include "support/doctest.hpp"

using namespace caisson;

static_assert(!std::is_copy_constructible_v<Loop>);
static_assert(std::is_nothrow_move_constructible_v<Loop> && std::is_nothrow_move_assignable_v<Loop>);

namespace {

std::string error_of(int file) {
    try {
        (void)Loop::make(file, true);
    } catch (const Error& e) {
        CHECK(e.step() == Step::mount);
        return e.what();
    }
    return "nothing was thrown";
}

/// A file in memory with `bytes` at `offset`.
Fd file_with(std::string_view bytes, off_t offset) {
    Fd file{::memfd_create("image", MFD_CLOEXEC)};
    REQUIRE(::ftruncate(file.get(), 1 << 17) == 0);
    REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), offset) == static_cast<ssize_t>(bytes.size()));
    return file;
}

}  // namespace

TEST_CASE("a loop device that holds nothing has no descriptor and no path") {
    Loop none;
    CHECK_FALSE(none);
    CHECK(none.fd() == -1);
    CHECK(none.path().empty());
    Loop other{std::move(none)};
    CHECK_FALSE(other);
}

TEST_CASE("a loop device is of a regular file alone") {
    const Fd null{::open("/dev/null", O_PATH | O_CLOEXEC)};
    CHECK(error_of(null.get()) == "loop device for '/dev/null': Invalid argument: it takes a regular file");
    const Fd directory{::open("/", O_PATH | O_CLOEXEC)};
    CHECK(error_of(directory.get()) == "loop device for '/': Invalid argument: it takes a regular file");
    CHECK(error_of(1'000'000) == "loop device for descriptor 1000000: Bad file descriptor");
}

TEST_CASE("a loop device whose file is in the hands of another server or daemon is not asked") {
    constexpr std::string_view mounts =
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "21 20 0:30 / /data rw - btrfs /dev/sdb rw\n"
        "22 20 0:40 /sub /home/a\\040b rw - nfs4 server:/ rw\n"
        "23 20 0:40 / /net rw - nfs4 server:/ rw\n"
        "24 23 8:17 / /net/disk rw - xfs /dev/sdb1 rw\n"
        "25 20 8:33 / /stick rw - fuseblk /dev/sdc1 rw\n"
        "26 20 8:49 / /over rw - ext4 /dev/sdd1 rw\n"
        "27 26 0:50 / /over rw - fuse.sshfs host: rw\n";
    const auto skips = [&](const char* path, const char* own) {
        return detail::may_not_answer(detail::mounted_as(mounts, path), detail::mounted_as(mounts, own));
    };
    CHECK(skips("/net/image\n", "/srv/image"));
    CHECK(skips("/net/image (deleted)\n", "/srv/image"));
    CHECK(skips("/stick/image\n", "/srv/image"));
    CHECK(skips("/over/image\n", "/srv/image"));
    CHECK(skips("/over/image\n", "/net/image"));
    // Those that a disk answers for, or the same one as ours.
    CHECK_FALSE(skips("/srv/image\n", "/net/image"));
    CHECK_FALSE(skips("/network/image\n", "/data/image"));
    CHECK_FALSE(skips("/net/disk/image\n", "/srv/image"));
    CHECK_FALSE(skips("/net/image\n", "/home/a b/image"));
    CHECK_FALSE(skips("/stick/image\n", "/stick/other"));
    CHECK_FALSE(skips("/data/image\n", "/srv/image"));
    CHECK_FALSE(skips("/net/home/image\n", "/net/image"));
    // Where nothing is known of it.
    CHECK_FALSE(skips("", "/srv/image"));
    CHECK_FALSE(detail::may_not_answer(detail::mounted_as("", "/net/image\n"), detail::mounted_as("", "/srv/image")));
}

TEST_CASE("a file system is found by its mark, at its place") {
    for (const auto& type : detail::file_system_types) {
        CAPTURE(type.name);
        const Fd right = file_with(type.magic, type.offset);
        const auto found = detail::find_file_system(right.get());
        REQUIRE(found.has_value());
        CHECK(std::string_view{found->name} == type.name);
        const Fd beside = file_with(type.magic, type.offset + 1);
        CHECK_FALSE(detail::find_file_system(beside.get()).has_value());
    }
    const Fd empty{::memfd_create("image", MFD_CLOEXEC)};
    CHECK_FALSE(detail::find_file_system(empty.get()).has_value());
    const Fd path{::open("/", O_PATH | O_CLOEXEC)};
    CHECK_FALSE(detail::find_file_system(path.get()).has_value());
}
