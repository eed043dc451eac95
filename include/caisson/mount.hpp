// caisson/mount.hpp - mounts as owned handles: made detached, placed by descriptor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/fscontext.hpp>
#include <caisson/detail/superblock.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/loop.hpp>
#include <caisson/namespace.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// Settings of a devpts instance. The ids count in the caller's user namespace.
struct DevptsOptions {
    std::optional<std::uint32_t> uid{};  ///< owner of every terminal; nothing: who opens it
    std::optional<std::uint32_t> gid{};  ///< group of every terminal; nothing: of who opens it
    std::uint32_t mode = 0620;           ///< of every terminal
    std::uint32_t ptmx_mode = 0666;      ///< of the instance's own ptmx
    std::optional<std::uint32_t> max{};  ///< terminals at a time; nothing: as many as kernel.pty.max allows
};

/// Owns a mount, or a tree of mounts.
///
/// It starts detached: nobody sees it, no mount namespace is changed, and the kernel discards it with the last
/// descriptor. `attach` places it; an attached one is unmounted (lazily, silently) on destruction, `detach` does so
/// loudly, and `release` leaves it in place. A detached tree is private: nothing that happens in it propagates to where
/// it was copied from, or back.
///
/// Move-only; every function throws `Step::mount`, and `std::logic_error` when used on an object that holds nothing.
/// One thread at a time; any thread may make, attach and destroy, in the mount namespace that it is in. Needs
/// CAP_SYS_ADMIN over that namespace. Kernel: mount_setattr(2), and fsopen, fsmount, open_tree, move_mount.
class Mount {
public:
    Mount() noexcept = default;
    Mount(Mount&& other) noexcept
        : fd_{std::move(other.fd_)},
          what_{std::move(other.what_)},
          target_{std::move(other.target_)},
          attached_{std::exchange(other.attached_, false)},
          maker_{other.maker_},
          recursive_{other.recursive_} {}
    Mount& operator=(Mount&& other) noexcept {
        if (this != &other) {
            discard();
            fd_ = std::move(other.fd_);
            what_ = std::move(other.what_);
            target_ = std::move(other.target_);
            attached_ = std::exchange(other.attached_, false);
            maker_ = other.maker_;
            recursive_ = other.recursive_;
        }
        return *this;
    }
    Mount(const Mount&) = delete;
    Mount& operator=(const Mount&) = delete;
    ~Mount() { discard(); }

    /// What the host has at `path` (a directory or a file), seen once more. A symbolic link in the path is an error
    /// (ELOOP) unless `options.follow_links` is set: who may write to a directory on the way could lead it elsewhere.
    [[nodiscard]] static Mount bind(const std::string& path, MountOptions options = {}) {
        const std::string what = "bind " + detail::quote(path);
        return clone(open_source(path, what, 0, options).get(), what, options);
    }
    /// As above for what an open descriptor names (O_PATH is enough), which stays the caller's.
    [[nodiscard]] static Mount bind(int fd, MountOptions options = {}) {
        return clone(fd, "bind " + detail::name_of(fd), options);
    }
    /// The file system that is in a regular file of the host, or on a block device: ext4, squashfs, erofs, xfs or
    /// btrfs, which is found by looking at it. What cannot be written to by its kind is read-only in any case. `data`
    /// as in `MountSpec::data`; without a word about errors there, one on an ext4 makes it read-only, whatever the
    /// image says of panics. Links in the path as in `bind`.
    ///
    /// A file goes by a `Loop`, whose lock it has until the file system is unmounted. A hostile image is parsed by the
    /// kernel as any other: mount only what its maker could give you on a disk.
    [[nodiscard]] static Mount image(const std::string& path, MountOptions options = {}, std::string_view data = {}) {
        const std::string what = "image " + detail::quote(path);
        return open_image(open_source(path, what, 0, options).get(), what, options, data);
    }
    /// As above, for what an open descriptor names (O_PATH is enough), which stays the caller's.
    [[nodiscard]] static Mount image(int fd, MountOptions options = {}, std::string_view data = {}) {
        return open_image(fd, "image " + detail::name_of(fd), options, data);
    }
    /// An empty file system in memory that holds at most `bytes` (0: the kernel's default, half of the memory).
    [[nodiscard]] static Mount tmpfs(std::uint64_t bytes, MountOptions options = {}, mode_t mode = 01777) {
        detail::FsContext context{"tmpfs", "mount 'tmpfs'"};
        context.set("source", "tmpfs");
        if (bytes != 0) context.set("size", std::to_string(bytes));
        context.set("mode", detail::octal(mode));
        return create(context, options);
    }
    /// A procfs that shows the pid namespace of the calling process.
    [[nodiscard]] static Mount proc(MountOptions options = {}) { return plain("proc", options); }
    /// A sysfs that shows the network namespace of the calling thread.
    [[nodiscard]] static Mount sysfs(MountOptions options = {}) { return plain("sysfs", options); }
    /// The message queues of the ipc namespace of the calling thread.
    [[nodiscard]] static Mount mqueue(MountOptions options = {}) { return plain("mqueue", options); }
    /// A new instance of devpts, whose terminals no other instance shows. For `Pty::open_in`. Its device nodes are
    /// usable whatever `options.no_dev` says: a devpts without devices is of no use.
    [[nodiscard]] static Mount devpts(const DevptsOptions& settings = {}, MountOptions options = {}) {
        detail::FsContext context{"devpts", "mount 'devpts'"};
        context.set("source", "devpts");
        if (settings.uid) context.set("uid", std::to_string(*settings.uid));
        if (settings.gid) context.set("gid", std::to_string(*settings.gid));
        context.set("mode", detail::octal(settings.mode));
        context.set("ptmxmode", detail::octal(settings.ptmx_mode));
        if (settings.max) context.set("max", std::to_string(*settings.max));
        options.no_dev = false;
        return create(context, options);
    }
    /// The directories `lower` (topmost first) seen as one; changes go to `upper`. Both `upper` and `work` empty: it is
    /// read-only, and needs two lower directories. The paths are the host's and may hold any character.
    [[nodiscard]] static Mount overlay(const std::vector<std::string>& lower, const std::string& upper,
                                       const std::string& work, MountOptions options = {}) {
        return overlay_with(lower, upper, work, {}, options);
    }
    /// As above, by descriptor (O_PATH is enough); they stay the caller's. One in a detached mount needs Linux 6.15.
    /// `data` as in `MountSpec::data`.
    [[nodiscard]] static Mount overlay(const detail::OverlayLayers& layers, MountOptions options = {},
                                       std::string_view data = {}) {
        detail::FsContext context = detail::overlay_context(layers, detail::split_options(data));
        return create(context, options);
    }

    /// True for a spec that `make` takes: what shows the namespaces of its maker (proc, sysfs, mqueue) or the
    /// container's own tree (bind_inside) must be made inside the container.
    [[nodiscard]] static bool can_make(const MountSpec& spec) noexcept {
        return spec.type == MountSpec::Type::bind || spec.type == MountSpec::Type::tmpfs ||
               spec.type == MountSpec::Type::devpts || spec.type == MountSpec::Type::overlay ||
               spec.type == MountSpec::Type::image;
    }
    /// The mount that `spec` describes, detached; `spec.target` is left to the caller. Throws `std::logic_error` where
    /// `can_make` says no.
    [[nodiscard]] static Mount make(const MountSpec& spec) {
        if (spec.type == MountSpec::Type::bind_inside) throw std::logic_error{"a bind_inside is made inside"};
        if (!can_make(spec)) {
            throw std::logic_error{std::string{"a host's "} + to_string(spec.type) +
                                   " would show the host's namespaces: use Mount::" + to_string(spec.type) +
                                   " where that is wanted"};
        }
        if (spec.type == MountSpec::Type::image) return image(spec.source, spec.options, spec.data);
        const auto settings = detail::split_options(spec.data);
        if (spec.type == MountSpec::Type::bind) {
            if (!settings.empty()) {
                throw Error{Step::mount, EINVAL,
                            "bind " + detail::quote(spec.source) + ": option " + detail::quote(settings.front().first),
                            "a bind has no file-system options"};
            }
            return bind(spec.source, spec.options);
        }
        if (spec.type == MountSpec::Type::overlay) {
            return overlay_with(detail::split_escaped(spec.source, ':'), spec.upper, spec.work, settings, spec.options);
        }
        const char* type = to_string(spec.type);
        detail::FsContext context{type, std::string{"mount '"} + type + "'"};
        context.set("source", spec.source.empty() ? type : spec.source);
        context.set_all(settings);
        MountOptions options = spec.options;
        if (spec.type == MountSpec::Type::devpts) options.no_dev = false;
        return create(context, options);
    }

    /// Turns on every option that is true in `options`, for the mounts below too if `options.recursive`; what is false
    /// there stays as it is.
    void set(MountOptions options) { apply(attributes(options), 0, options.recursive); }
    /// Shows the owners of all files as `user` maps them: a file that id 5 owns on disk belongs to the 5 of `user`,
    /// which is 100005 for the host if that is how the ids are mapped. A tree that was bound recursively is mapped
    /// whole. Only while detached, and once.
    void id_map(const Namespace& user) {
        if (user.kind() != NamespaceKind::user) throw std::logic_error{"id_map needs a user namespace"};
        if (attached_) throw std::logic_error{"id_map is for a mount that is not attached yet"};
        mount_attr attr{};
        attr.attr_set = MOUNT_ATTR_IDMAP;
        attr.userns_fd = static_cast<std::uint64_t>(user.fd());
        const int flags = AT_EMPTY_PATH | (recursive_ ? AT_RECURSIVE : 0);
        if (::mount_setattr(held(), "", static_cast<unsigned>(flags), &attr, sizeof attr) == 0) return;
        const int saved = errno;
        const std::string file_system = detail::file_system_of(held());
        std::string remedy;
        if (saved == EINVAL && file_system == "devtmpfs") {
            remedy = detail::node_remedy;
        } else if (saved == EINVAL) {
            remedy = "the file system cannot be id-mapped: map its layers, or chown the root to the range";
            if (recursive_) remedy += "; if it is one that is mounted below, bind with 'recursive' off";
        } else if (saved == EPERM) {
            remedy =
                "this needs CAP_SYS_ADMIN over the file system, a user namespace other than the host's, and a "
                "mount that is not id-mapped already";
        }
        throw Error{Step::mount, saved, "id-map " + what_ + " (file system " + file_system + ")", remedy};
    }

    /// Places the mount on the host's `target`, a directory for a directory and a file for a file; one that is placed
    /// already is moved.
    void attach(const std::string& target) {
        const std::string context = what_ + " on " + detail::quote(target);
        (void)held();
        const Fd place = detail::sys::open(target, O_PATH);
        if (!place) detail::fail(Step::mount, context, errno == ENOENT ? "the target must exist" : "");
        move_to(place.get(), context);
        target_ = target;
    }
    /// As above on what an open descriptor names (O_PATH is enough): how a container's paths are mounted on.
    void attach(int target) {
        std::string name = detail::path_of(target);
        move_to(target, what_ + " on " + (name.empty() ? detail::name_of(target) : detail::quote(name)));
        target_ = std::move(name);
    }
    /// Unmounts, lazily: what has files open there keeps them. This object then holds nothing.
    void detach() {
        (void)held();
        if (attached_ && !unmount()) {
            detail::fail(Step::mount, "unmount " + detail::quote(target_),
                         errno == EINVAL   ? "it is not mounted in the caller's mount namespace"
                         : errno == ENOENT ? "mount proc on /proc"
                                           : "");
        }
        attached_ = false;
        fd_.reset();
    }
    /// Gives the descriptor up to the caller. An attached mount stays where it is; a detached one lives as long as the
    /// descriptor.
    [[nodiscard]] Fd release() noexcept {
        attached_ = false;
        return std::move(fd_);
    }

    /// The root of the mount, for openat2(2) and `Pty::open_in`; -1 if this object holds nothing.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
    /// Where it is attached, as given to `attach` (by descriptor: the path that /proc had for it then); empty while
    /// detached.
    [[nodiscard]] std::string_view target() const noexcept { return attached_ ? target_ : std::string_view{}; }

    /// The options as mount_setattr(2)'s MOUNT_ATTR_* bits.
    [[nodiscard]] static std::uint64_t attributes(MountOptions options) noexcept {
        std::uint64_t bits = 0;
        if (options.read_only) bits |= MOUNT_ATTR_RDONLY;
        if (options.no_suid) bits |= MOUNT_ATTR_NOSUID;
        if (options.no_dev) bits |= MOUNT_ATTR_NODEV;
        if (options.no_exec) bits |= MOUNT_ATTR_NOEXEC;
        return bits;
    }

private:
    Mount(Fd fd, std::string what, bool recursive) noexcept
        : fd_{std::move(fd)}, what_{std::move(what)}, recursive_{recursive} {}

    static Mount clone(int source, const std::string& what, MountOptions options) {
        const int flags = AT_EMPTY_PATH | (options.recursive ? AT_RECURSIVE : 0);
        Fd fd{::open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | static_cast<unsigned>(flags))};
        if (!fd) {
            detail::fail(Step::mount, what,
                         errno == EPERM    ? "this needs CAP_SYS_ADMIN"
                         : errno == ENOSPC ? "a limit is reached: raise fs.mount-max or user.max_mnt_namespaces with "
                                             "sysctl(8)"
                         : errno == EINVAL && !options.recursive
                             ? "it is in another mount namespace, or what is mounted below it must come along"
                         : errno == EINVAL ? "it is in another mount namespace, or its mount is unbindable"
                                           : "");
        }
        Mount made{std::move(fd), what, options.recursive};
        made.apply(attributes(options), MS_PRIVATE, true);
        return made;
    }
    static Mount create(detail::FsContext& context, MountOptions options) {
        return Mount{context.mount(attributes(options)), context.what(), false};
    }
    static Mount plain(const char* type, MountOptions options) {
        detail::FsContext context{type, std::string{"mount '"} + type + "'"};
        context.set("source", type);
        return create(context, options);
    }
    static Mount overlay_with(const std::vector<std::string>& lower, const std::string& upper, const std::string& work,
                              const detail::Options& settings, MountOptions options) {
        const std::string what = "mount 'overlay'";
        if (lower.empty()) throw Error{Step::mount, 0, what, "name at least one lower directory"};
        if (upper.empty() != work.empty()) {
            throw Error{Step::mount, 0, what, "an upper and a work directory go together: name both or none"};
        }
        if (upper.empty() && lower.size() < 2) {
            throw Error{Step::mount, 0, what, "without an upper directory it needs two lower ones: bind a single one"};
        }
        std::vector<Fd> held;
        held.reserve(lower.size() + 2);
        const auto open = [&](const std::string& path, const char* role) {
            held.push_back(open_source(path, what + ": " + role + " " + detail::quote(path), O_DIRECTORY, options));
            return held.back().get();
        };
        detail::OverlayLayers layers;
        for (const std::string& path : lower) layers.lower.push_back(open(path, "lower directory"));
        if (!upper.empty()) layers.upper = open(upper, "upper directory");
        if (!work.empty()) layers.work = open(work, "work directory");
        detail::FsContext context = detail::overlay_context(layers, settings);
        return create(context, options);
    }
    /// What `path` names, held by an O_PATH descriptor from then on: whoever puts something else there is too late.
    static Fd open_source(const std::string& path, const std::string& what, int flags, MountOptions options) {
        const std::uint64_t how = options.follow_links ? 0 : RESOLVE_NO_SYMLINKS;
        Fd fd = detail::sys::openat2(AT_FDCWD, path.c_str(), static_cast<std::uint64_t>(O_PATH | flags), how);
        if (fd) return fd;
        detail::fail(Step::mount, what,
                     errno == ENOENT && (flags & O_DIRECTORY) == 0 ? "the source must exist on the host"
                     : errno == ELOOP && !options.follow_links
                         ? "a symbolic link is in it: name what it leads to, or set options.follow_links"
                         : "");
    }
    static Mount open_image(int source, const std::string& what, MountOptions options, std::string_view data) {
        struct stat st {};
        if (::fstat(source, &st) != 0) detail::fail(Step::mount, what);
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
            throw Error{Step::mount, EINVAL, what, "name a block device, or a file with a file system in it"};
        }
        const Fd content = detail::sys::open(detail::magic_path(source), O_RDONLY | O_NONBLOCK);
        if (!content) detail::fail(Step::mount, what);
        const auto type = detail::find_file_system(content.get());
        if (!type) {
            throw Error{Step::mount, EINVAL, what + ": no file system is found in it",
                        "ext4, squashfs, erofs, xfs and btrfs are known; of partitions, or what is encrypted, name the "
                        "block device of what is inside"};
        }
        options.read_only = options.read_only || type->read_only;
        Loop loop;
        if (S_ISREG(st.st_mode)) loop = Loop::make(source, options.read_only);
        detail::FsContext context{type->name, what + " (" + type->name + ")"};
        context.explain_invalid("it is cut short or damaged, or an option of its data is not one that it takes");
        context.explain_busy(options.read_only
                                 ? "it is mounted already, to be written to (unmount that), or part of another device "
                                   "(lsblk(8))"
                                 : "it is mounted already, read-only (unmount that, or ask for the same), or part of "
                                   "another device (lsblk(8))");
        context.set("source", loop ? loop.path() : detail::magic_path(source));
        if (options.read_only) context.set_flag("ro");
        const auto settings = detail::split_options(data);
        const std::string_view name = type->name;
        const bool has_word =
            std::any_of(settings.begin(), settings.end(), [](const auto& s) { return s.first == "errors"; });
        if (name == "ext4" && !has_word) context.set("errors", "remount-ro");
        // Copies of an image, as containers have them, have one UUID.
        if (name == "xfs") context.set_flag("nouuid");
        context.set_all(settings);
        return create(context, options);
    }
    int held() const {
        if (!fd_) throw std::logic_error{"this Mount holds nothing"};
        return fd_.get();
    }
    void apply(std::uint64_t bits, std::uint64_t propagation, bool recursive) {
        mount_attr attr{};
        attr.attr_set = bits;
        attr.propagation = propagation;
        const int flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
        if (::mount_setattr(held(), "", static_cast<unsigned>(flags), &attr, sizeof attr) != 0) {
            detail::fail(Step::mount, "options of " + what_, errno == EPERM ? "this needs CAP_SYS_ADMIN" : "");
        }
    }
    void move_to(int place, const std::string& context) {
        if (::move_mount(held(), "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
            const int saved = errno;
            struct stat from {};
            struct stat to {};
            const bool mixed = ::fstat(fd_.get(), &from) == 0 && ::fstat(place, &to) == 0 &&
                               S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode);
            errno = saved;
            detail::fail(Step::mount, context,
                         mixed             ? "a directory goes on a directory, and a file on a file"
                         : errno == EINVAL ? "the target is not in the caller's mount namespace, or the mount cannot "
                                             "leave a shared one"
                         : errno == EPERM  ? "this needs CAP_SYS_ADMIN"
                                           : "");
        }
        attached_ = true;
        maker_ = ::getpid();
    }
    /// By descriptor: a path could lead elsewhere since.
    bool unmount() const noexcept {
        char path[48];
        (void)std::snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd_.get());
        return ::umount2(path, MNT_DETACH) == 0;
    }
    void discard() noexcept {
        const int saved = errno;
        if (std::exchange(attached_, false) && fd_ && maker_ == ::getpid()) (void)unmount();
        fd_.reset();
        errno = saved;
    }

    Fd fd_;
    std::string what_;  // "mount 'tmpfs'", "bind '/srv'": the head of every later message
    std::string target_;
    bool attached_ = false;
    pid_t maker_ = -1;  // who attached it: a fork(2)ed copy detaches nothing
    bool recursive_ = false;
};

}  // namespace caisson::inline v0
