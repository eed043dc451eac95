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

#include <caisson/detail/descriptor.hpp>
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
    /// owner's, `root_uid` and `root_gid` the directories', all as the host numbers them. Who can rename what is in it
    /// meanwhile may make this fail, or have what is theirs there take its owner and mode, but it leads nowhere else.
    /// Throws `Step::mount`.
    void make(int dev, uid_t uid, gid_t gid, uid_t root_uid, gid_t root_gid) const {
        Fd at = sys::open_at(dev, ".", O_PATH | O_DIRECTORY);
        std::size_t begin = 0;
        for (std::size_t slash = 0; (slash = path.find('/', begin)) != std::string::npos; begin = slash + 1) {
            const std::string name = path.substr(begin, slash - begin);
            const std::string context = "directory " + quote("/dev/" + path.substr(0, slash));
            const bool made = ::mkdirat(at.get(), name.c_str(), 0755) == 0;
            // Two devices may share a directory.
            if (!made && errno != EEXIST) fail(Step::mount, context);
            at = sys::openat2(at.get(), name.c_str(), O_PATH | O_DIRECTORY, within);
            if (!at) fail(Step::mount, context);
            if (made) own(at.get(), 0755, root_uid, root_gid, context);
        }
        const std::string name = path.substr(begin);
        const std::string context = "device " + quote("/dev/" + path);
        if (::mknodat(at.get(), name.c_str(), mode & S_IFMT, device) != 0) {
            const int saved = errno;
            throw Error{Step::mount, saved, context,
                        saved == EPERM    ? "this needs CAP_MKNOD in the host's first user namespace"
                        : saved == EEXIST ? "choose another target, or remove what is there"
                                          : ""};
        }
        try {
            const Fd node = sys::openat2(at.get(), name.c_str(), O_PATH | O_NOFOLLOW, within);
            if (!node) fail(Step::mount, context);
            if (!is_it(node.get())) throw Error{Step::mount, EBUSY, context, "another program has replaced it"};
            own(node.get(), mode & 0777, uid, gid, context);
        } catch (...) {
            (void)remove(dev);
            throw;
        }
    }
    /// Removes the node; 0, or the error: ENOENT where it is not in its place, EEXIST where something else is.
    [[nodiscard]] int remove(int dev) const {
        const std::size_t slash = path.rfind('/');
        const Fd at = slash == std::string::npos
                          ? sys::open_at(dev, ".", O_PATH | O_DIRECTORY)
                          : sys::openat2(dev, path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY, within);
        if (!at) return errno;
        const std::string name = path.substr(slash == std::string::npos ? 0 : slash + 1);
        const Fd node = sys::openat2(at.get(), name.c_str(), O_PATH | O_NOFOLLOW, within);
        if (!node) return errno;
        if (!is_it(node.get())) return EEXIST;
        return ::unlinkat(at.get(), name.c_str(), 0) == 0 ? 0 : errno;
    }

private:
    /// Never out of the one file system, whatever is mounted or linked in it.
    static constexpr std::uint64_t within = sys::beneath | RESOLVE_NO_XDEV;

    [[nodiscard]] bool is_it(int node) const noexcept {
        struct stat st {};
        return ::fstat(node, &st) == 0 && (st.st_mode & S_IFMT) == (mode & S_IFMT) && st.st_rdev == device;
    }
    /// mkdir and mknod are subject to the caller's umask, which is not the library's to change.
    static void own(int fd, mode_t permissions, uid_t uid, gid_t gid, const std::string& context) {
        if (::chmod(magic_path(fd).c_str(), permissions) != 0 ||
            ::fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
            fail(Step::mount, "owner and mode of " + context);
        }
    }
};

}  // namespace caisson::inline v0::detail
