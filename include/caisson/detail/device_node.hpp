// caisson/detail/device_node.hpp - a device of the host that a container gets, and its node in the container's /dev.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>

#include <caisson/detail/sys.hpp>
#include <caisson/device.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Where the node of a device is, below /dev; nothing where that is not below /dev.
[[nodiscard]] inline std::optional<std::string> path_below_dev(const DeviceSpec& device) {
    std::string path = device.target.empty() ? device.source : device.target;
    if (!path.starts_with('/')) return path;
    if (!path.starts_with("/dev/")) return std::nullopt;
    path.erase(0, 5);
    return path;
}

/// A device that was found on the host.
struct DeviceNode {
    std::string path{};  ///< below /dev
    mode_t mode = 0;     ///< type and permissions
    dev_t device = 0;

    /// Looks `spec.source` up, following links, as it is the host's own path. `field` is the spec's: "devices[0]".
    [[nodiscard]] static DeviceNode find(const DeviceSpec& spec, const std::string& field) {
        const std::string context = field + ".source: " + quote(spec.source);
        const Fd source = sys::open(spec.source, O_PATH);
        struct stat st {};
        if (!source || ::fstat(source.get(), &st) != 0) {
            const int saved = errno;
            throw Error{Step::check_spec, saved, context,
                        saved == ENOENT || saved == ENOTDIR ? "name a device that the host has" : ""};
        }
        if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) {
            throw Error{Step::check_spec, 0, context + " is no device", "name a device node, such as '/dev/fuse'"};
        }
        const bool block = S_ISBLK(st.st_mode);
        if (spec.type == (block ? DeviceSpec::Type::character : DeviceSpec::Type::block)) {
            throw Error{Step::check_spec, 0, context + " is a " + (block ? "block" : "character") + " device",
                        std::string{"name a "} + (block ? "character" : "block") + " device, or set type to any"};
        }
        return {path_below_dev(spec).value_or(""), (st.st_mode & S_IFMT) | spec.mode, st.st_rdev};
    }

    /// The right to use it.
    [[nodiscard]] DeviceRule rule(DeviceAccess access) const noexcept {
        return {S_ISBLK(mode) ? DeviceRule::Type::block : DeviceRule::Type::character, major(device), minor(device),
                access};
    }

    /// Makes the node, and the directories above it, in the /dev that `dev` is a descriptor of. `uid` and `gid` are the
    /// owner's, `root_uid` and `root_gid` the directories', all as the host numbers them. Throws `Step::mount`.
    void make(int dev, uid_t uid, gid_t gid, uid_t root_uid, gid_t root_gid) const {
        Fd at = sys::open_at(dev, ".", O_PATH | O_DIRECTORY);
        std::size_t begin = 0;
        for (std::size_t slash = 0; (slash = path.find('/', begin)) != std::string::npos; begin = slash + 1) {
            const std::string name = path.substr(begin, slash - begin);
            const std::string context = "directory " + quote("/dev/" + path.substr(0, slash));
            const bool made = ::mkdirat(at.get(), name.c_str(), 0755) == 0;
            // Two devices may share a directory.
            if (!made && errno != EEXIST) fail(Step::mount, context);
            // mkdir and mknod are subject to the caller's umask, which is not the library's to change.
            if (made && (::fchmodat(at.get(), name.c_str(), 0755, 0) != 0 ||
                         ::fchownat(at.get(), name.c_str(), root_uid, root_gid, AT_SYMLINK_NOFOLLOW) != 0)) {
                fail(Step::mount, context);
            }
            at = sys::openat2(at.get(), name.c_str(), O_PATH | O_DIRECTORY, sys::beneath);
            if (!at) fail(Step::mount, context);
        }
        const std::string name = path.substr(begin);
        const std::string context = "device " + quote("/dev/" + path);
        if (::mknodat(at.get(), name.c_str(), mode & S_IFMT, device) != 0) {
            const int saved = errno;
            throw Error{Step::mount, saved, context,
                        saved == EPERM ? "this needs CAP_MKNOD in the host's first user namespace" : ""};
        }
        if (::fchmodat(at.get(), name.c_str(), mode & 0777, 0) != 0 ||
            ::fchownat(at.get(), name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
            fail(Step::mount, "owner and mode of " + context);
        }
    }
};

}  // namespace caisson::inline v0::detail
