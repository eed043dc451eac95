// caisson/detail/root_tree.hpp - what becomes a container's "/", and the overlays of a container whose ids are mapped.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/fscontext.hpp>
#include <caisson/detail/id_range.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/mount.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// The layers of an overlay, each held from when it was opened. Throws `Step::mount`.
///
/// The kernel maps the ids of layers, not of an overlay; the user namespace that they are mapped by is the keeper's to
/// know, and what an overlay does to its upper directory it does as who made it: so the keeper makes it where ids are
/// mapped, after the layers have been.
class OverlayTree {
public:
    OverlayTree() = default;

    /// A directory as the host has it, or the file system in an image.
    struct Layer {
        Fd directory{};
        Mount image{};
    };

    /// Of a `MountSpec::Type::overlay`.
    [[nodiscard]] static OverlayTree open(const MountSpec& spec) {
        OverlayTree tree;
        tree.what_ = "mount on " + quote(spec.target);
        tree.links_ = spec.options.follow_links;
        for (const std::string& path : split_escaped(spec.source, ':')) tree.add(path);
        if (!spec.upper.empty()) tree.set_upper(spec.upper, spec.work);
        return tree;
    }
    /// Of a root that is seen through an overlay. The spec's own choice of paths is trusted, links and all.
    [[nodiscard]] static OverlayTree open(const ContainerSpec& spec, Layer root) {
        OverlayTree tree;
        tree.what_ = "root_overlay";
        tree.links_ = true;
        for (const std::string& path : spec.root_overlay->lower) tree.add(path);
        tree.lower_.push_back(std::move(root));
        if (!spec.root_overlay->upper.empty()) {
            tree.set_upper(spec.root_overlay->upper, spec.root_overlay->work);
        } else if (!spec.root_read_only) {
            tree.memory_ = spec.root_overlay->bytes;
        }
        return tree;
    }

    /// The overlay, detached.
    [[nodiscard]] Mount make(MountOptions options, std::string_view data = {}) {
        OverlayLayers layers;
        for (const Layer& layer : lower_) {
            layers.lower.push_back(layer.image ? layer.image.fd() : layer.directory.get());
        }
        if (memory_) make_memory(layers.lower.front(), {}, {});
        layers.upper = upper_.get();
        layers.work = work_.get();
        return Mount::overlay(layers, options, data);
    }
    /// The topmost directory, or a read-only overlay of all, which `held` then holds.
    [[nodiscard]] int look(Mount& held) const {
        OverlayLayers layers;
        if (upper_) layers.lower.push_back(upper_.get());
        for (const Layer& layer : lower_) {
            layers.lower.push_back(layer.image ? layer.image.fd() : layer.directory.get());
        }
        if (layers.lower.size() == 1) return layers.lower.front();
        held = Mount::overlay(layers, {.read_only = true});
        return held.fd();
    }
    /// Makes ready what the keeper makes the overlay of: `mapped` and `context`, for a user namespace with these maps.
    void configure(const std::vector<IdMap>& uids, const std::vector<IdMap>& gids, std::string_view data = {}) {
        OverlayLayers layers;
        for (Layer& layer : lower_) {
            mapped_.push_back(layer.image ? std::move(layer.image) : Mount::bind(layer.directory.get(), whole));
            layers.lower.push_back(mapped_.back().fd());
        }
        if (memory_) {
            make_memory(layers.lower.front(), uids, gids);
        } else if (upper_) {
            find_upper_below_one();
        }
        layers.upper = upper_.get();
        layers.work = work_.get();
        context_.emplace(overlay_context(layers, split_options(data)));
    }
    [[nodiscard]] const std::vector<Mount>& mapped() const noexcept { return mapped_; }
    [[nodiscard]] const FsContext& context() const { return context_.value(); }
    /// For messages.
    [[nodiscard]] const std::string& what() const noexcept { return what_; }
    /// Why the keeper could not make it.
    [[nodiscard]] Error refusal(int errnum) const {
        Error error = context().refusal(errnum);
        return {error.step(), errnum, what_ + ": " + std::string{error.context()}, error.remedy()};
    }

private:
    /// A layer is seen as it is, but for what is mounted below it.
    static constexpr MountOptions whole{.no_suid = false, .no_dev = false, .recursive = false};

    [[nodiscard]] Fd open_directory(const std::string& path, const char* role) const {
        const std::uint64_t how = links_ ? 0 : RESOLVE_NO_SYMLINKS;
        Fd fd = sys::openat2(AT_FDCWD, path.c_str(), O_PATH | O_DIRECTORY, how);
        if (fd) return fd;
        fail(Step::mount, what_ + ": " + role + " directory " + quote(path),
             errno == ENOENT ? "make the directory"
             : errno == ELOOP && !links_
                 ? "a symbolic link is in it: name what it leads to, or set options.follow_links"
                 : "");
    }
    void add(const std::string& path) { lower_.push_back({.directory = open_directory(path, "lower")}); }
    void set_upper(const std::string& upper, const std::string& work) {
        upper_ = open_directory(upper, "upper");
        work_ = open_directory(work, "work");
    }

    /// Two directories of a new file system. The upper one stands for the root of the tree, and so is as the topmost
    /// layer below it.
    void make_memory(int below, const std::vector<IdMap>& uids, const std::vector<IdMap>& gids) {
        memory_tree_ = Mount::tmpfs(*memory_, whole, 0700);
        const int dir = memory_tree_.fd();
        struct stat st {};
        const bool ok =
            ::fstat(below, &st) == 0 && ::mkdirat(dir, "upper", 0700) == 0 && ::mkdirat(dir, "work", 0700) == 0 &&
            ::fchownat(dir, "upper", outside(uids, st.st_uid), outside(gids, st.st_gid), AT_SYMLINK_NOFOLLOW) == 0 &&
            ::fchmodat(dir, "upper", st.st_mode & 07777, 0) == 0;
        if (ok) {
            upper_ = sys::openat2(dir, "upper", O_PATH | O_DIRECTORY, sys::beneath);
            work_ = sys::openat2(dir, "work", O_PATH | O_DIRECTORY, sys::beneath);
        }
        if (!upper_ || !work_) fail(Step::mount, what_ + ": directories in memory");
    }

    /// Both must be of one mount, so the directory that holds both is what is mapped.
    void find_upper_below_one() {
        const std::string upper_path = path_of(upper_.get());
        const std::string work_path = path_of(work_.get());
        std::size_t same = 0;
        const std::size_t shorter = std::min(upper_path.size(), work_path.size());
        while (same < shorter && upper_path[same] == work_path[same]) ++same;
        while (same > 0 && upper_path[same - 1] != '/') --same;
        const Mount& both = mapped_.emplace_back(Mount::bind(upper_path.substr(0, same), whole));
        const auto find = [&](const std::string& path, Fd& opened) {
            Fd fd = sys::openat2(both.fd(), path.c_str() + same, O_PATH | O_DIRECTORY, sys::beneath);
            struct stat before {};
            struct stat found {};
            if (!fd || ::fstat(opened.get(), &before) != 0 || ::fstat(fd.get(), &found) != 0 ||
                before.st_dev != found.st_dev || before.st_ino != found.st_ino) {
                throw Error{Step::mount, fd ? EXDEV : errno, what_ + ": directory " + quote(path),
                            "upper and work must be on one mount, and stay where they are during the start"};
            }
            opened = std::move(fd);
        };
        find(upper_path, upper_);
        find(work_path, work_);
    }

    std::string what_;
    bool links_ = false;
    std::vector<Layer> lower_;  // the topmost first
    Fd upper_;
    Fd work_;
    std::optional<std::uint64_t> memory_;  // bytes
    Mount memory_tree_;
    std::vector<Mount> mapped_;
    std::optional<FsContext> context_;
};

/// Locks on the directories that the overlays of a container write to, each held as long as any copy is open: what two
/// overlays do to one directory is undefined. The locks are for the keeper to inherit. Throws `Step::mount`; a
/// directory that cannot be opened is told by who makes the overlay.
[[nodiscard]] inline std::vector<Fd> lock_uppers(const ContainerSpec& spec) {
    std::vector<Fd> locks;
    const auto lock = [&](const std::string& what, const std::string& path, bool links) {
        if (path.empty()) return;
        Fd fd = sys::openat2(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY, links ? 0 : RESOLVE_NO_SYMLINKS);
        if (!fd) return;
        lock_for_use(fd.get(), false, what + ": upper directory " + quote(path),
                     "it is in use by another container or program (flock(2)): give each an upper and a work directory "
                     "of its own");
        locks.push_back(std::move(fd));
    };
    if (spec.root_overlay) lock("root_overlay", spec.root_overlay->upper, true);
    for (const MountSpec& mount : spec.mounts) {
        if (mount.type == MountSpec::Type::overlay) {
            lock("mount on " + quote(mount.target), mount.upper, mount.options.follow_links);
        }
    }
    return locks;
}

/// What `spec.root` names, as a detached mount, or what an overlay shows of it. Throws `Step::open_root` and
/// `Step::mount`.
class RootTree {
public:
    explicit RootTree(const ContainerSpec& spec) : spec_{spec} {
        Fd root = sys::open(spec.root, O_PATH);
        struct stat st {};
        if (!root || ::fstat(root.get(), &st) != 0) {
            const int saved = errno;
            throw Error{Step::open_root, saved, "root " + quote(spec.root),
                        saved == ENOENT ? "make the directory and put a root file system into it" : ""};
        }
        const bool image = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
        if (!image && !S_ISDIR(st.st_mode)) {
            throw Error{Step::open_root, EINVAL, "root " + quote(spec.root),
                        "name a directory, a block device, or a file with a file system in it"};
        }
        if (!spec.root_overlay) {
            mount_ = image ? Mount::image(root.get(), options()) : Mount::bind(root.get(), options());
            return;
        }
        OverlayTree::Layer layer;
        if (image) layer.image = Mount::image(root.get(), {.read_only = true, .no_suid = false});
        else layer.directory = std::move(root);
        overlay_.emplace(OverlayTree::open(spec, std::move(layer)));
    }
    /// The mount itself, whose ids are still to be mapped; nothing where it is an overlay.
    [[nodiscard]] const Mount& mount() const noexcept { return mount_; }
    /// For who reads in it meanwhile; with an overlay a read-only one of its own, which `held` holds.
    [[nodiscard]] int look(Mount& held) const {
        if (!overlay_) return mount_.fd();
        return overlay_->look(held);
    }
    [[nodiscard]] std::optional<OverlayTree> take_overlay() noexcept { return std::move(overlay_); }
    [[nodiscard]] MountOptions options() const noexcept { return options_of(spec_); }

private:
    /// Root inside may have set-user-ID programs: they are its own.
    [[nodiscard]] static MountOptions options_of(const ContainerSpec& spec) noexcept {
        return {.read_only = spec.root_read_only, .no_suid = false};
    }

    const ContainerSpec& spec_;
    Mount mount_;
    std::optional<OverlayTree> overlay_;
};

}  // namespace caisson::inline v0::detail
