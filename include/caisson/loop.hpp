// caisson/loop.hpp - a file as a block device.
#pragma once

#include <algorithm>
#include <cerrno>
#include <ctime>
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

/// The path of a loop device that shows the file `st` is of, unless both only read; empty where there is none. Those of
/// mount(8) and losetup(8) take no lock.
[[nodiscard]] inline std::string find_other_loop(const struct stat& st, bool read_only) {
    struct Directory {
        DIR* stream = ::opendir("/sys/block");
        Directory() noexcept = default;
        Directory(const Directory&) = delete;
        Directory& operator=(const Directory&) = delete;
        ~Directory() {
            if (stream != nullptr) (void)::closedir(stream);
        }
    } const blocks;
    while (const dirent* entry = blocks.stream != nullptr ? ::readdir(blocks.stream) : nullptr) {
        const std::string name = entry->d_name;
        // Of those that show a file alone, since one that is open is not freed.
        if (!name.starts_with("loop") || ::access(("/sys/block/" + name + "/loop").c_str(), F_OK) != 0) continue;
        std::string path = "/dev/" + name;
        const Fd device = sys::open(path, O_RDONLY | O_NONBLOCK);
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
/// read.
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
        std::string other = detail::find_other_loop(st, read_only);
        // One that was just unmounted stays as long as somebody has a look at it, as udev(7) has at each.
        for (int tries = 0; !other.empty() && tries < 50; ++tries) {
            const timespec pause{0, 10'000'000};
            (void)::nanosleep(&pause, nullptr);
            other = detail::find_other_loop(st, read_only);
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
