// caisson/detail/prepare_inside.hpp - the parts of a container that init makes where the host may make no mount: an
// ordinary user's root, /dev, console and binds.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/fscontext.hpp>
#include <caisson/detail/consoles.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/mount.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// True where the caller may write to the default parent in some hierarchy.
[[nodiscard]] inline bool may_make_groups() {
    for (const CgroupHierarchy& hierarchy : cgroup_hierarchies()) {
        const CgroupParent parent = open_cgroup_parent(hierarchy, {});
        if (parent.directory && ::faccessat(parent.directory.get(), ".", W_OK, AT_EACCESS) == 0) return true;
    }
    return false;
}

/// An ordinary user's control group: none where the caller may make none and the spec does not depend on it.
[[nodiscard]] inline std::optional<Cgroup> begin_cgroup_if_allowed(const ContainerSpec& spec) {
    if (!spec.cgroup) return std::nullopt;
    const bool is_needed = spec.limits != LimitSpec{} || !spec.cgroup_parent.empty() ||
                           spec.cgroup_mount != CgroupMount::none || spec.count_cpus;
    if (!is_needed && !may_make_groups()) return std::nullopt;
    try {
        return Cgroup::begin(spec.name, spec.cgroup_parent);
    } catch (const Error& e) {
        const int reason = e.code().value();
        const bool refused = reason == 0 || reason == EACCES || reason == EPERM || reason == EROFS;
        if (!refused) throw;
        throw e.with_remedy(
            "start the program where a group is delegated to the caller (systemd-run --user --scope, or a unit with "
            "Delegate=yes), or leave limits, cgroup_parent, cgroup_mount and count_cpus out");
    }
}

/// Adds the instructions that stand for what `Preparation` makes in the host otherwise. The paths of the host are
/// resolved by init, with the caller's own rights, in its copy of the host's tree.
class PrepareInside {
public:
    PrepareInside(const ContainerSpec& spec, PlanBuilder& plan) : spec_{spec}, plan_{plan} {}

    /// The devpts and the consoles, in the plan's first part: the host gets the consoles' controlling ends. `uid`:
    /// inside, of the command.
    void make_terminals(const std::vector<IdMap>& gid_map, std::uint32_t uid) {
        if (!spec_.dev && !spec_.console) return;
        constexpr std::uint32_t tty = 5;
        bool has_terminal_group = false;
        for (const IdMap& m : gid_map) has_terminal_group |= m.inside <= tty && tty - m.inside < m.count;
        std::vector<std::pair<std::string, std::string>> options{
            {"source", "devpts"}, {"mode", "0620"}, {"ptmxmode", "0666"}};
        if (has_terminal_group) options.emplace_back("gid", "5");
        terminals_ = plan_.dynamic();
        plan_.add({.op = Op::new_filesystem,
                   .slot = terminals_,
                   .a = plan_.text("devpts"),
                   .b = plan_.pairs(options),
                   .x = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
                  Step::mount, "mount 'devpts' on '/dev/pts'");
        const std::uint64_t owner = std::uint64_t{uid} << 32 | (has_terminal_group ? tty : 0);
        for (std::size_t i = 0; i < consoles_of(spec_); ++i) {
            if (i == 0) console_ = plan_.dynamic();
            const WindowSize wanted = console_of(spec_, i).size;
            const std::uint64_t size = std::uint64_t{wanted.rows} << 16 | wanted.columns;
            plan_.add({.op = Op::open_terminal,
                       .slot = i == 0 ? console_ : no_slot,
                       .other = terminals_,
                       .x = owner,
                       .y = size},
                      Step::terminal, "open " + name_of_console(i));
        }
    }
    /// The console's terminal; `no_slot` where there is none.
    [[nodiscard]] Slot console() const noexcept { return console_; }

    /// The root, below what an overlay puts over it, for what is looked up there; init resolves them again. Throws
    /// `Step::open_root` and, of the other layers, `Step::mount`.
    [[nodiscard]] std::vector<Fd> open_layers() const {
        std::vector<Fd> layers;
        const auto open = [&](const std::string& path) {
            layers.push_back(sys::open(path, O_PATH | O_DIRECTORY));
            if (layers.back()) return;
            fail(Step::mount, "root_overlay: directory " + quote(path), errno == ENOENT ? "make the directory" : "");
        };
        if (spec_.root_overlay) {
            if (!spec_.root_overlay->upper.empty()) open(spec_.root_overlay->upper);
            for (const std::string& path : spec_.root_overlay->lower) open(path);
        }
        layers.push_back(sys::open(spec_.root, O_PATH | O_DIRECTORY));
        if (layers.back()) return layers;
        const int saved = errno;
        throw Error{Step::open_root, saved, "root " + quote(spec_.root),
                    saved == ENOENT    ? "make the directory and put a root file system into it"
                    : saved == ENOTDIR ? "it takes root to mount an image: unpack it into a directory and name that"
                                       : ""};
    }
    [[nodiscard]] Slot root() {
        const MountOptions options{.read_only = spec_.root_read_only, .no_suid = false, .follow_links = true};
        const std::string what = "root " + quote(spec_.root);
        if (!spec_.root_overlay) return bind(spec_.root, options, Step::open_root, what);
        MountSpec seen;
        seen.upper = spec_.root_overlay->upper;
        seen.work = spec_.root_overlay->work;
        seen.target = "/";
        seen.options = options;
        std::vector<std::string> lower = spec_.root_overlay->lower;
        lower.push_back(spec_.root);
        const bool in_memory = seen.upper.empty() && !spec_.root_read_only;
        return overlay(lower, seen, in_memory ? &*spec_.root_overlay : nullptr);
    }
    /// True for what the host makes otherwise.
    [[nodiscard]] static bool makes(MountSpec::Type type) noexcept {
        return type == MountSpec::Type::bind || type == MountSpec::Type::overlay;
    }
    [[nodiscard]] Slot mount(const MountSpec& mount) {
        if (mount.type == MountSpec::Type::overlay) return overlay(split_escaped(mount.source, ':'), mount);
        return bind(mount.source, mount.options, Step::mount, "bind " + quote(mount.source));
    }
    /// What the host has at `path`, seen once more.
    [[nodiscard]] Slot bind(const std::string& path, MountOptions options, Step step, const std::string& what) {
        const Slot slot = plan_.dynamic();
        const std::uint64_t whole = options.recursive ? AT_RECURSIVE : 0;
        const std::uint64_t links = options.follow_links ? 0 : std::uint64_t{clone_no_symlinks};
        plan_.add({.op = Op::clone_mount, .slot = slot, .a = plan_.text(path), .x = links, .y = whole}, step, what);
        plan_.add({.op = Op::set_attributes, .slot = slot, .x = Mount::attributes(options), .y = whole}, step,
                  "options of " + what);
        return slot;
    }
    /// `lower`: the topmost first. Each directory is opened by init once, and the kernel is given the descriptor's
    /// name. `memory` makes what the overlay writes to.
    [[nodiscard]] Slot overlay(const std::vector<std::string>& lower, const MountSpec& mount,
                               const RootOverlay* memory = nullptr) {
        const std::string what = "mount 'overlay' on " + quote(mount.target);
        if (lower.size() > most_layers) {
            throw Error{Step::mount, E2BIG, what, std::to_string(most_layers) + " lower directories are possible"};
        }
        const auto layer = [&](const std::string& path, Slot below = no_slot) {
            const Slot slot = plan_.dynamic();
            const std::uint64_t links = mount.options.follow_links ? 0 : std::uint64_t{clone_no_symlinks};
            plan_.add({.op = Op::open_path, .slot = slot, .other = below, .a = plan_.text(path), .x = links},
                      Step::mount, "layer " + quote(path) + " of the overlay on " + quote(mount.target));
            return std::string{descriptor_mark} + static_cast<char>(slot - first_dynamic_slot + 1);
        };
        auto options = plan_options(mount.data);
        options.emplace_back("source", "overlay");
        std::string all;
        for (const std::string& path : lower) all += (all.empty() ? "" : ":") + layer(path);
        options.emplace_back("lowerdir", all);
        if (!mount.upper.empty()) {
            options.emplace_back("upperdir", layer(mount.upper));
            options.emplace_back("workdir", layer(mount.work));
        } else if (memory != nullptr) {
            const Slot slot = make_memory(memory->bytes, lower.front());
            options.emplace_back("upperdir", layer("upper", slot));
            options.emplace_back("workdir", layer("work", slot));
        }
        options.emplace_back("userxattr", "");
        const Slot slot = plan_.dynamic();
        plan_.add({.op = Op::new_filesystem,
                   .slot = slot,
                   .a = plan_.text("overlay"),
                   .b = plan_.pairs(options),
                   .x = Mount::attributes(mount.options)},
                  Step::mount, what);
        return slot;
    }

    /// A file system with the directories `upper` and `work`. The upper one stands for the root of the tree, and so has
    /// the mode of the topmost layer below it.
    [[nodiscard]] Slot make_memory(std::uint64_t bytes, const std::string& below) {
        const std::string what = "root_overlay: directories in memory";
        struct stat st {};
        if (::stat(below.c_str(), &st) != 0) fail(Step::mount, "root_overlay: directory " + quote(below));
        std::vector<std::pair<std::string, std::string>> options{{"source", "tmpfs"}, {"mode", "0700"}};
        if (bytes != 0) options.emplace_back("size", std::to_string(bytes));
        const Slot slot = plan_.dynamic();
        plan_.add({.op = Op::new_filesystem, .slot = slot, .a = plan_.text("tmpfs"), .b = plan_.pairs(options)},
                  Step::mount, what);
        plan_.add({.op = Op::umask}, Step::mount, what);
        for (const auto& [name, mode] : {std::pair{"upper", st.st_mode & 07777}, std::pair{"work", 0700u}}) {
            plan_.add({.op = Op::make_node, .slot = slot, .a = plan_.text(name), .x = S_IFDIR | mode}, Step::mount,
                      what);
        }
        plan_.add({.op = Op::umask, .x = 022}, Step::mount, what);
        return slot;
    }

    /// The host's sysfs, read-only. Inside, the kernel gives it only with what is mounted below, where the host's
    /// control groups are.
    [[nodiscard]] Slot make_hosts_sys() {
        constexpr std::uint64_t nothing_runs = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        const Slot slot =
            bind("/sys", {.read_only = true, .no_exec = true, .follow_links = true}, Step::mount, "bind '/sys'");
        if (::access(cgroups, F_OK) != 0 || spec_.cgroup_mount != CgroupMount::none) return slot;
        cover_ = plan_.dynamic();
        plan_.add({.op = Op::new_filesystem,
                   .slot = cover_,
                   .a = plan_.text("tmpfs"),
                   .b = plan_.pairs({{"source", "tmpfs"}, {"size", "4096"}, {"mode", "0755"}}),
                   .x = nothing_runs | MOUNT_ATTR_RDONLY},
                  Step::mount, std::string{"mount 'tmpfs' on "} + quote(cgroups));
        return slot;
    }
    /// Once the sysfs has been placed.
    void cover_cgroups() {
        if (cover_ == no_slot) return;
        plan_.add({.op = Op::place, .slot = cover_, .a = plan_.text(cgroups), .x = place_no_symlinks}, Step::mount,
                  std::string{"mount 'tmpfs' on "} + quote(cgroups));
    }

    /// /dev, and binds of the host's nodes, before the old root goes away.
    void make_devices() {
        if (!spec_.dev) return;
        devices_ = plan_.dynamic();
        plan_.add({.op = Op::new_filesystem,
                   .slot = devices_,
                   .a = plan_.text("tmpfs"),
                   .b = plan_.pairs({{"source", "tmpfs"}, {"size", "65536"}, {"mode", "0755"}}),
                   .x = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
                  Step::mount, "mount 'tmpfs' on '/dev'");
        for (const char* name : {"null", "zero", "full", "random", "urandom", "tty"}) {
            node(name, S_IFREG | 0644);
            const std::string path = std::string{"/dev/"} + name;
            nodes_.emplace_back(name,
                                bind(path, {.no_dev = false, .no_exec = true, .recursive = false, .follow_links = true},
                                     Step::mount, "bind " + quote(path)));
        }
        for (const auto& [name, target] : {std::pair{"fd", "/proc/self/fd"}, std::pair{"stdin", "/proc/self/fd/0"},
                                           std::pair{"stdout", "/proc/self/fd/1"},
                                           std::pair{"stderr", "/proc/self/fd/2"}, std::pair{"ptmx", "pts/ptmx"}}) {
            link(name, target);
        }
        for (std::size_t i = 0; i < consoles_of(spec_); ++i) {
            link("tty" + std::to_string(i + 1), terminal_of_console(i));
        }
        for (const char* name : {"pts", "shm", "mqueue"}) node(name, S_IFDIR | 0755);
        if (spec_.console) node("console", S_IFREG | 0600);
    }
    /// `/dev` itself; the rest goes below it with `place_devices`.
    [[nodiscard]] Slot devices() const noexcept { return devices_; }
    void place_devices(Slot shm, Slot mqueue) {
        place_below("shm", shm, "'tmpfs' on '/dev/shm'", Step::mount);
        place_below("mqueue", mqueue, "'mqueue' on '/dev/mqueue'", Step::mount);
        place_below("pts", terminals_, "'devpts' on '/dev/pts'", Step::mount);
        for (const auto& [name, slot] : nodes_) {
            place_below(name, slot, std::string{"the host's node on '/dev/"} + name + "'", Step::mount);
        }
        if (console_ == no_slot) return;
        const Slot slot = plan_.dynamic();
        plan_.add({.op = Op::clone_mount, .slot = slot, .other = console_}, Step::terminal,
                  "bind the console's terminal");
        place_below("console", slot, "the terminal on '/dev/console'", Step::terminal);
    }

private:
    static constexpr const char* cgroups = "/sys/fs/cgroup";

    static constexpr std::size_t most_layers = 12;  // of 255 bytes that the kernel takes

    void node(const char* name, std::uint64_t mode) {
        plan_.add({.op = Op::make_node, .slot = devices_, .a = plan_.text(name), .x = mode}, Step::mount,
                  std::string{"'/dev/"} + name + "'");
    }
    void link(const std::string& name, const std::string& target) {
        plan_.add({.op = Op::make_node, .slot = devices_, .a = plan_.text(name), .b = plan_.text(target)}, Step::mount,
                  "symbolic link '/dev/" + name + "'");
    }
    void place_below(const char* name, Slot slot, const std::string& what, Step step) {
        plan_.add({.op = Op::place, .slot = slot, .other = devices_, .a = plan_.text(name)}, step, "mount " + what);
    }

    const ContainerSpec& spec_;
    PlanBuilder& plan_;
    Slot terminals_ = no_slot;
    Slot console_ = no_slot;
    Slot devices_ = no_slot;
    Slot cover_ = no_slot;
    std::vector<std::pair<const char*, Slot>> nodes_;
};

}  // namespace caisson::inline v0::detail
