// caisson/loop.hpp - a file as a block device.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/detail/text.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {
namespace detail {

/// Locks what `file` has open by flock(2), for one that writes alone or for all that read. Waits at most two seconds:
/// the kernel, or a keeper, may still be about to end an earlier use. Throws `Step::mount` with `remedy` where it is
/// locked.
inline void lock_for_use(int file, bool read_only, const std::string& what, std::string_view remedy) {
    constexpr long pause_ms = 10;
    for (long waited = 0;; waited += pause_ms) {
        if (::flock(file, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0) return;
        if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= 2000) break;
        // No descriptor tells of a lock that is free, and flock(2) itself would wait for ever.
        const timespec pause{0, pause_ms * 1'000'000};
        (void)::nanosleep(&pause, nullptr);
    }
    fail(Step::mount, what, errno == EWOULDBLOCK ? remedy : "");
}

/// As a mountinfo has it: the device, "0:45", and the type of the mount that a path without links is in. Empty where
/// that does not tell.
struct MountedAs {
    std::string_view device{};
    std::string_view type{};
};
[[nodiscard]] inline MountedAs mounted_as(std::string_view mountinfo, std::string_view path) {
    MountedAs found;
    if (!path.starts_with('/')) return found;
    for (std::size_t longest = 0; !mountinfo.empty();) {
        std::string_view line = take_field(mountinfo, '\n');
        const std::size_t dash = line.find(" - ");
        if (dash == std::string_view::npos) continue;
        std::string_view tail = line.substr(dash + 3);
        (void)take_field(line, ' ');  // id
        (void)take_field(line, ' ');  // parent
        const std::string_view device = take_field(line, ' ');
        (void)take_field(line, ' ');  // root
        std::string point = unescape_mount_path(take_field(line, ' '));
        if (point == "/") point.clear();
        const bool is_above = path.starts_with(point) && (path.size() == point.size() || path[point.size()] == '/');
        // Of those on one place, the last lies on top.
        if (!is_above || point.size() < longest) continue;
        longest = point.size();
        found = {device, take_field(tail, ' ')};
    }
    return found;
}
/// True for a file that is on another file system than `own`, whose server or daemon may be dead.
[[nodiscard]] inline bool may_not_answer(const MountedAs& other, const MountedAs& own) {
    // A path of another mount namespace may be taken for one that is here: so not each that has no disk of its own.
    constexpr std::string_view local[] = {"bcachefs", "btrfs", "overlay", "tmpfs", "zfs"};
    if (other.device == own.device || std::find(std::begin(local), std::end(local), other.type) != std::end(local)) {
        return false;
    }
    return other.device.starts_with("0:") || other.type.starts_with("fuse");
}

/// The path of a loop device that shows what `file` has open, unless both only read; empty where there is none that the
/// caller sees in /sys/block and may open. Those of mount(8) and losetup(8) take no lock. Throws `Step::mount` with
/// `what` where the process lacks what it takes to look.
[[nodiscard]] inline std::string find_other_loop(int file, bool read_only, const std::string& what) {
    const auto require_means = [&](const std::string& path) {
        if (errno == EMFILE) fail(Step::mount, what + ": " + quote(path), "no descriptor is left: raise 'ulimit -n'");
        if (errno == ENFILE || errno == ENOMEM) fail(Step::mount, what + ": " + quote(path));
    };
    struct Directory {
        DIR* stream = ::opendir("/sys/block");
        Directory() noexcept = default;
        Directory(const Directory&) = delete;
        Directory& operator=(const Directory&) = delete;
        ~Directory() {
            if (stream != nullptr) (void)::closedir(stream);
        }
    } const blocks;
    if (blocks.stream == nullptr) require_means("/sys/block");
    struct stat st {};
    if (::fstat(file, &st) != 0) fail(Step::mount, what);
    std::string mounts;
    MountedAs own;
    while (const dirent* entry = blocks.stream != nullptr ? ::readdir(blocks.stream) : nullptr) {
        const std::string name = entry->d_name;
        if (!name.starts_with("loop")) continue;
        const std::string shown = "/sys/block/" + name + "/loop/backing_file";
        std::string backing;
        if (!sys::read_file(AT_FDCWD, shown.c_str(), backing)) {
            // Of those that show a file alone, since one that is open is not freed.
            if (errno == ENOENT || errno == ENODEV) continue;
            require_means(shown);
            backing.clear();
        }
        if (mounts.empty() && !sys::read_file(AT_FDCWD, "/proc/thread-self/mountinfo", mounts, std::size_t{64} << 20)) {
            require_means("/proc/thread-self/mountinfo");
            mounts.clear();
        }
        if (own.device.empty()) own = mounted_as(mounts, path_of(file));
        // The device asks its file, and may do so when it is opened.
        if (may_not_answer(mounted_as(mounts, backing), own)) continue;
        std::string path = "/dev/" + name;
        const Fd device = sys::open(path, O_RDONLY | O_NONBLOCK);
        if (!device) require_means(path);
        loop_info64 info{};
        if (!device || ::ioctl(device.get(), LOOP_GET_STATUS64, &info) != 0) continue;
        const bool only_reads = (info.lo_flags & LO_FLAGS_READ_ONLY) != 0;
        if (info.lo_device == st.st_dev && info.lo_inode == st.st_ino && !(read_only && only_reads)) return path;
    }
    return {};
}

}  // namespace detail

/// Owns a loop device, /dev/loopN, whose blocks are those of a regular file.
///
/// The kernel frees the device with its last user: this object, what else has it open, and a file system on it that is
/// mounted. So it never outlives them, whoever dies, and there is nothing that a loud way to free it could tell.
///
/// The file is locked as long as the device is there, by flock(2): for one that is written to alone, shared where all
/// only read. Two writers would each have a file system of their own on the same blocks, and destroy it. For the same
/// reason a file that the host shows by a loop device of its own, as mount(8) makes it, is refused, unless both only
/// read: where the caller sees that device in /sys/block and may open it.
///
/// Move-only. Any thread may make one, one at a time may use it. Needs /dev/loop-control and the rights to its devices.
/// See loop(4), LOOP_CONFIGURE.
class Loop {
public:
    Loop() noexcept = default;
    Loop(Loop&&) noexcept = default;
    Loop& operator=(Loop&&) noexcept = default;

    /// A device for the regular file that `file` names (O_PATH is enough), which stays the caller's. Waits at most two
    /// seconds for the file's lock: the kernel may still be writing the end of an earlier use; and half a second for a
    /// device of the host's to go. Throws `Step::mount`.
    [[nodiscard]] static Loop make(int file, bool read_only) {
        const std::string what = "loop device for " + detail::name_of(file);
        struct stat st {};
        if (::fstat(file, &st) != 0) detail::fail(Step::mount, what);
        if (!S_ISREG(st.st_mode)) throw Error{Step::mount, EINVAL, what, "it takes a regular file"};
        const Fd backing = detail::sys::open(detail::magic_path(file), read_only ? O_RDONLY : O_RDWR);
        if (!backing) {
            detail::fail(Step::mount, what,
                         errno == EROFS || errno == EACCES ? "it cannot be written to: ask for it read-only" : "");
        }
        detail::lock_for_use(backing.get(), read_only, what,
                             "it is in use by another container or program (flock(2)): use it read-only everywhere, or "
                             "give each a copy of its own");
        // Once the lock is there, no other of the library's comes or goes.
        std::string other = detail::find_other_loop(backing.get(), read_only, what);
        // One that was just unmounted stays as long as somebody has a look at it, as udev(7) has at each.
        for (int tries = 0; !other.empty() && tries < 50; ++tries) {
            const timespec pause{0, 10'000'000};
            (void)::nanosleep(&pause, nullptr);
            other = detail::find_other_loop(backing.get(), read_only, what);
        }
        if (!other.empty()) {
            throw Error{Step::mount, EBUSY, what,
                        detail::quote(other) +
                            " shows it already (losetup(8), mount(8)): free that, use it read-only everywhere, or give "
                            "each a copy of its own"};
        }
        const Fd control = detail::sys::open("/dev/loop-control", O_RDWR);
        if (!control) {
            detail::fail(
                Step::mount, what + ": '/dev/loop-control'",
                errno == ENOENT || errno == ENODEV ? "load the kernel's module 'loop', or give a block device" : "");
        }
        loop_config config{};
        config.fd = static_cast<decltype(config.fd)>(backing.get());
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
        const std::string shown = detail::path_of(file);
        std::copy_n(shown.begin(), std::min(shown.size(), sizeof config.info.lo_file_name - 1),
                    config.info.lo_file_name);
        // Another process may take the free device first, or remove it.
        constexpr int most_attempts = 1000;
        for (int attempt = 1;; ++attempt) {
            const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
            if (number < 0) detail::fail(Step::mount, what + ": find a free one");
            Loop made;
            made.path_ = "/dev/loop" + std::to_string(number);
            made.fd_ = detail::sys::open(made.path_, read_only ? O_RDONLY : O_RDWR);
            const bool ok =
                made.fd_ && detail::sys::retry([&] { return ::ioctl(made.fd_.get(), LOOP_CONFIGURE, &config); }) == 0;
            if (ok) return made;
            if ((errno == EBUSY || errno == ENXIO) && attempt < most_attempts) continue;
            detail::fail(Step::mount, what + ": " + detail::quote(made.path_),
                         errno == ENOENT            ? "there is no such device node: mount a devtmpfs on /dev"
                         : errno == EPERM           ? "the device rules of the caller's control group may forbid it"
                         : attempt == most_attempts ? "others take every free device"
                                                    : "");
        }
    }

    /// The device; -1 if this object holds nothing.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
    /// "/dev/loop3".
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    std::string path_;
    Fd fd_;
};

}  // namespace caisson::inline v0
