// mount_number.hpp - which mount a descriptor is on.
#pragma once

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

inline constexpr unsigned unique_number = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8

/// The number of a mount, and how it is asked for: where the kernel has numbers that never come again, those.
struct MountNumber {
    std::uint64_t id = 0;
    unsigned mask = 0;

    [[nodiscard]] static MountNumber of(int mount, unsigned best = unique_number) {
        struct statx status {};
        for (const unsigned mask : {best, static_cast<unsigned>(STATX_MNT_ID)}) {
            if (::statx(mount, "", AT_EMPTY_PATH, mask, &status) != 0) fail(Step::mount, "number of a mount");
            if ((status.stx_mask & mask) != 0) return {status.stx_mnt_id, mask};
        }
        throw Error{Step::mount, ENOTSUP, "number of a mount"};
    }
    [[nodiscard]] static unsigned mask_of_kernel() {
        const Fd root = sys::open("/", O_PATH | O_DIRECTORY);
        if (!root) fail(Step::mount, "open '/'");
        return of(root.get()).mask;
    }
};

/// Where in its mount namespace a descriptor leads, and the number of the mount: without asking the file system.
struct Place {
    std::string path;
    unsigned long mount = 0;
};
[[nodiscard]] inline Place place_of(const Fd& fd) {
    const std::string number = std::to_string(fd.get());
    std::string path(PATH_MAX, '\0');
    const ssize_t length = ::readlink(("/proc/self/fd/" + number).c_str(), path.data(), path.size());
    if (length < 0) fail(Step::mount, "place of a mount");
    path.resize(static_cast<std::size_t>(length));
    std::string text;
    const std::string_view key = "mnt_id:\t";
    if (!sys::read_file(AT_FDCWD, ("/proc/self/fdinfo/" + number).c_str(), text))
        fail(Step::mount, "number of a mount");
    const std::size_t at = text.find(key);
    std::string_view rest =
        at == std::string::npos ? std::string_view{} : std::string_view{text}.substr(at + key.size());
    return {std::move(path),
            parse_decimal(take_field(rest, '\n'), std::numeric_limits<unsigned long>::max()).value_or(0)};
}

/// True for what has the number that the mount had in mountinfo, and is not that mount: the kernel gives such numbers
/// again, and `there` keeps this one. Without asking the file system.
[[nodiscard]] inline bool is_another(const Fd& there, const GivenMount& mount) {
    struct statx status {};
    return there && place_of(there).mount == mount.listed &&
           ::statx(there.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, unique_number, &status) == 0 &&
           (status.stx_mask & unique_number) != 0 && status.stx_mnt_id != mount.id;
}

}  // namespace caisson::inline v0::detail
