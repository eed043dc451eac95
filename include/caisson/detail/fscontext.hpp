// caisson/detail/fscontext.hpp - one file system being configured with fsopen, and what its driver says about it.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

using Options = std::vector<std::pair<std::string, std::string>>;

/// The parts of `text` between the separators. A backslash takes the next character as it is.
[[nodiscard]] inline std::vector<std::string> split_escaped(std::string_view text, char separator) {
    std::vector<std::string> parts;
    if (text.empty()) return parts;
    std::string part;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == separator) {
            parts.push_back(std::exchange(part, {}));
        } else {
            if (text[i] == '\\' && i + 1 < text.size()) ++i;
            part += text[i];
        }
    }
    parts.push_back(std::move(part));
    return parts;
}

/// "size=64m,noswap" as keys and values; a flag has an empty value and no '=' in its key. Empty parts are left out.
[[nodiscard]] inline Options split_options(std::string_view data) {
    Options options;
    for (std::string& part : split_escaped(data, ',')) {
        if (part.empty()) continue;
        const std::size_t equals = part.find('=');
        if (equals == std::string::npos) options.emplace_back(std::move(part), std::string{});
        else options.emplace_back(part.substr(0, equals), part.substr(equals));
    }
    return options;
}

/// The same as `Op::new_filesystem` takes them, which does not tell a flag from an empty value.
[[nodiscard]] inline Options plan_options(std::string_view data) {
    Options options = split_options(data);
    for (auto& [key, value] : options) {
        if (!value.empty()) value.erase(0, 1);  // '='
    }
    return options;
}

[[nodiscard]] inline std::string octal(unsigned value) {
    char text[16];
    (void)std::snprintf(text, sizeof text, "%o", value);
    return text;
}

/// The type of the file system with this number, by where the caller sees it mounted; empty where that is nowhere.
[[nodiscard]] inline std::string mounted_type(dev_t device) {
    std::string all;
    if (!sys::read_file(AT_FDCWD, "/proc/thread-self/mountinfo", all, std::size_t{64} << 20)) return {};
    const std::string number = " " + std::to_string(major(device)) + ":" + std::to_string(minor(device)) + " ";
    const std::size_t line = all.find(number);
    const std::size_t dash = line == std::string::npos ? line : all.find(" - ", line);
    return dash == std::string::npos ? std::string{} : all.substr(dash + 3, all.find(' ', dash + 3) - dash - 3);
}

/// What to do where a node of the host's /dev cannot be seen with other ids.
inline constexpr std::string_view node_remedy =
    "a node of the host's /dev cannot be id-mapped: name the device in devices, for a node of the container's own";

/// For messages: the name of the file system that a descriptor is on, by statfs(2).
[[nodiscard]] inline std::string file_system_of(int fd) {
    struct statfs st {};
    if (::fstatfs(fd, &st) != 0) return "unknown";
    const auto magic = static_cast<std::uint32_t>(st.f_type);
    switch (magic) {
        case EXT4_SUPER_MAGIC: return "ext4";
        case TMPFS_MAGIC: {
            // The kernel's own, on /dev, has no number of its kind.
            struct stat status {};
            return ::fstat(fd, &status) == 0 && mounted_type(status.st_dev) == "devtmpfs" ? "devtmpfs" : "tmpfs";
        }
        case OVERLAYFS_SUPER_MAGIC: return "overlay";
        case PROC_SUPER_MAGIC: return "proc";
        case SYSFS_MAGIC: return "sysfs";
        case DEVPTS_SUPER_MAGIC: return "devpts";
        case CGROUP_SUPER_MAGIC: return "cgroup";
        case CGROUP2_SUPER_MAGIC: return "cgroup2";
        case BTRFS_SUPER_MAGIC: return "btrfs";
        case XFS_SUPER_MAGIC: return "xfs";
        case F2FS_SUPER_MAGIC: return "f2fs";
        case SQUASHFS_MAGIC: return "squashfs";
        case EROFS_SUPER_MAGIC_V1: return "erofs";
        case NFS_SUPER_MAGIC: return "nfs";
        case V9FS_MAGIC: return "9p";
        case FUSE_SUPER_MAGIC: return "fuse";
        case MSDOS_SUPER_MAGIC: return "vfat";
        case RAMFS_MAGIC: return "ramfs";
        case NSFS_MAGIC: return "nsfs";
        case 0x19800202: return "mqueue";
        case 0x00c0ffee: return "hostfs";
        case 0x2fc12fc1: return "zfs";
        default: break;
    }
    char text[24];
    (void)std::snprintf(text, sizeof text, "of type 0x%x", magic);
    return text;
}

/// A file system under construction. Every function throws `Step::mount` with the driver's own words in the context.
class FsContext {
public:
    /// `what` heads every message: "mount 'tmpfs'".
    FsContext(const char* type, std::string what) : what_{std::move(what)}, fd_{::fsopen(type, FSOPEN_CLOEXEC)} {
        if (fd_) return;
        fail(Step::mount, what_,
             errno == ENODEV  ? "this kernel has no such file system"
             : errno == EPERM ? "this needs CAP_SYS_ADMIN"
                              : "");
    }
    void set(const char* key, const std::string& value) {
        if (::fsconfig(fd_.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
            refuse(": option " + quote(std::string{key} + "=" + value));
        }
    }
    void set_all(const Options& options) {
        for (const auto& [key, value] : options) {
            if (!value.empty()) {
                set(key.c_str(), value.substr(1));
                continue;
            }
            if (::fsconfig(fd_.get(), FSCONFIG_SET_FLAG, key.c_str(), nullptr, 0) == 0) continue;
            const bool of_the_mount = key == "nosuid" || key == "nodev" || key == "noexec" || key == "bind" ||
                                      key == "rbind" || key == "suid" || key == "dev" || key == "exec";
            refuse(": option " + quote(key), of_the_mount ? "this is set in MountOptions, not among the data" : "");
        }
    }
    /// An option without a value: "ro".
    void set_flag(const char* key) {
        if (::fsconfig(fd_.get(), FSCONFIG_SET_FLAG, key, nullptr, 0) != 0) refuse(": option " + quote(key));
    }
    /// An option whose value is a directory. By descriptor where the kernel takes that (Linux 6.15 and later), else by
    /// the descriptor's name in /proc: neither has characters with a meaning, nor resolves the user's path again.
    void set_directory(const char* key, int directory) {
        if (set_descriptor(key, directory) || (is_for_strings() && set_magic_path(key, directory))) return;
        refuse(std::string{": option '"} + key + "'");
    }
    /// Overlay's lower directories, topmost first.
    void set_lower(const std::vector<int>& layers) {
        std::string joined;
        for (std::size_t i = 0; i < layers.size(); ++i) {
            if (joined.empty()) {
                if (set_descriptor("lowerdir+", layers[i])) continue;
                // An overlay that is older than the mount API takes any key, and complains when it is too late.
                if (errno != EOPNOTSUPP && is_for_strings() && set_magic_path("lowerdir+", layers[i])) continue;
                if (i > 0) refuse(": option 'lowerdir+'");
            }
            joined += (joined.empty() ? "" : ":") + magic_path(layers[i]);
        }
        if (joined.empty()) return;
        if (joined.size() > longest_value) {
            errno = E2BIG;
            refuse(": " + std::to_string(layers.size()) + " lower directories",
                   "before Linux 6.8 there is room for about ten: use fewer");
        }
        set("lowerdir", joined);
    }
    /// Ends each message about a file system that the kernel cannot make of what it was given: EINVAL, or ENOENT where
    /// it looks for descriptors by their names and another process makes it.
    void explain_invalid(std::string remedy) { remedy_of_invalid_ = std::move(remedy); }
    /// The same for EBUSY.
    void explain_busy(std::string remedy) { remedy_of_busy_ = std::move(remedy); }
    /// Makes the file system, and a detached mount of it.
    [[nodiscard]] Fd mount(std::uint64_t attributes) {
        if (::fsconfig(fd_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) refuse("");
        Fd made{::fsmount(fd_.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes))};
        if (!made) refuse("");
        return made;
    }
    [[nodiscard]] const std::string& what() const noexcept { return what_; }
    /// For who makes the file system in the place of this process.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// What `mount` would throw where another process has tried, and failed with `errnum`.
    [[nodiscard]] Error refusal(int errnum) const { return error(errnum, ""); }

private:
    static constexpr std::size_t longest_value = 255;  // of fsconfig(2), FSCONFIG_SET_STRING
    bool set_descriptor(const char* key, int directory) {
        return ::fsconfig(fd_.get(), FSCONFIG_SET_FD, key, nullptr, directory) == 0;
    }
    /// After `set_descriptor`: this kernel wants a string there, or no O_PATH descriptor.
    static bool is_for_strings() noexcept { return errno == EBADF || errno == EINVAL || errno == EOPNOTSUPP; }
    bool set_magic_path(const char* key, int directory) {
        (void)messages();
        return ::fsconfig(fd_.get(), FSCONFIG_SET_STRING, key, magic_path(directory).c_str(), 0) == 0;
    }
    /// What the driver has logged as errors, which reading takes away.
    std::string messages() const {
        std::string all;
        char line[512];
        ssize_t n = 0;
        while ((n = sys::retry([&] { return ::read(fd_.get(), line, sizeof line); })) > 0) {
            std::string_view text{line, static_cast<std::size_t>(n)};
            while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
            if (text.substr(0, 2) != "e ") continue;
            all.append(": ").append(text.substr(2));
        }
        return all;
    }
    [[noreturn]] void refuse(const std::string& where, std::string_view remedy = {}) const {
        const int saved = errno;
        throw error(saved, where, remedy);
    }
    [[nodiscard]] Error error(int errnum, const std::string& where, std::string_view remedy = {}) const {
        if (remedy.empty() && errnum == EPERM) {
            remedy =
                "this needs CAP_SYS_ADMIN; a new proc or sysfs also needs one in sight that nothing is mounted "
                "over";
        }
        if (remedy.empty() && (errnum == EINVAL || errnum == ENOENT)) remedy = remedy_of_invalid_;
        if (remedy.empty() && errnum == EBUSY) remedy = remedy_of_busy_;
        // Overlay's alone.
        if (remedy.empty() && errnum == ELOOP) remedy = "a directory is given twice, or lies in another one of them";
        if (remedy.empty() && errnum == EUCLEAN) remedy = "it is damaged: repair it with fsck(8)";
        return {Step::mount, errnum, what_ + where + messages(), remedy};
    }

    std::string what_;
    std::string remedy_of_invalid_;
    std::string remedy_of_busy_;
    Fd fd_;
};

/// Directories for an overlay, by descriptor.
struct OverlayLayers {
    std::vector<int> lower{};  ///< the topmost first
    int upper = -1;            ///< -1: read-only, and needs two lower ones
    int work = -1;
};
/// An overlay that is still to be made.
[[nodiscard]] inline FsContext overlay_context(const OverlayLayers& layers, const Options& settings) {
    FsContext context{"overlay", "mount 'overlay'"};
    context.explain_invalid("a directory that is id-mapped, in memory or in an image needs Linux 6.15");
    context.set("source", "overlay");
    context.set_all(settings);
    context.set_lower(layers.lower);
    if (layers.upper >= 0) context.set_directory("upperdir", layers.upper);
    if (layers.work >= 0) context.set_directory("workdir", layers.work);
    return context;
}

}  // namespace caisson::inline v0::detail
