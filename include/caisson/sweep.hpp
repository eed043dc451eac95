// caisson/sweep.hpp - removes what processes that died left behind.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/cgroup_tree.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// Where `sweep` looks.
struct SweepOptions {
    /// Directories below each hierarchy's mount point; "/" for its top: a service's containers may be anywhere, and no
    /// group is touched but one whose name says that its owner, now dead, was caisson's.
    std::vector<std::string> cgroup_parents{"/"};
    unsigned depth = 32;  ///< how many levels below each parent groups are looked for, at least 1
    std::string run_directory = "/run/caisson";  ///< of the helpers' sockets; empty: not looked into
    bool links = true;                           ///< network links, in the calling thread's network namespace
    friend bool operator==(const SweepOptions&, const SweepOptions&) = default;
};

/// What `sweep` did.
struct SweepReport {
    std::vector<std::string> removed{};  ///< paths of groups and files, names of links
    std::vector<std::string> kept{};     ///< "PATH: reason": a dead owner's, but in the way of removal
    friend bool operator==(const SweepReport&, const SweepReport&) = default;
};

namespace detail {

/// The owner in the name of a group that `Cgroup` made: `caisson.NAME.TAG` or `caisson.NAME.TAG.NUMBER`.
[[nodiscard]] inline std::optional<Owner> owner_of_group(std::string_view name) {
    if (!name.starts_with("caisson.")) return std::nullopt;
    std::size_t dot = name.rfind('.');
    if (parse_decimal(name.substr(dot + 1), UINT32_MAX)) {
        name = name.substr(0, dot);
        dot = name.rfind('.');
    }
    // A name is in between.
    if (dot == std::string_view::npos || dot <= std::string_view{"caisson."}.size()) return std::nullopt;
    return Owner::parse(name.substr(dot + 1));
}

/// A directory of a dead owner's group.
struct DeadGroup {
    Fd parent;
    std::string path;  ///< of the parent
    std::string name;
    std::string controllers;
};

inline void find_dead_groups(const Fd& directory, const std::string& path, const std::string& controllers,
                             unsigned depth, std::vector<DeadGroup>& into) {
    if (depth == 0) return;
    for (std::string& name : groups_in(directory)) {
        const auto owner = owner_of_group(name);
        if (!owner) {
            const Fd below = sys::open_at(directory.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW);
            if (below) find_dead_groups(below, path + "/" + name, controllers, depth - 1, into);
        } else if (owner->is_dead()) {
            into.push_back({directory.duplicate(), path, std::move(name), controllers});
        }
    }
}

inline void sweep_groups(const SweepOptions& options, SweepReport& report) {
    std::vector<DeadGroup> dead;
    for (const CgroupHierarchy& hierarchy : cgroup_hierarchies()) {
        for (const std::string& parent : options.cgroup_parents) {
            const CgroupParent found = open_cgroup_parent(hierarchy, parent);
            if (found.directory) find_dead_groups(found.directory, found.path, found.controllers, options.depth, dead);
        }
    }
    // A frozen process of one hierarchy dies only once it is thawed in another: all directories of a group together.
    std::sort(dead.begin(), dead.end(), [](const DeadGroup& a, const DeadGroup& b) { return a.name < b.name; });
    for (auto first = dead.begin(); first != dead.end();) {
        std::vector<CgroupRef> group;
        auto next = first;
        for (; next != dead.end() && next->name == first->name; ++next) {
            group.push_back({next->parent.get(), next->name, next->controllers});
        }
        Patience patience{2000};
        (void)kill_group(group, patience);
        first = next;
    }
    Patience patience{2000};
    for (const DeadGroup& group : dead) {
        const std::string path = group.path + "/" + group.name;
        if (::faccessat(group.parent.get(), group.name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) continue;
        const int error = remove_group(group.parent.get(), group.name, patience);
        if (error == 0) report.removed.push_back(path);
        else report.kept.push_back(path + ": " + std::system_category().message(error));
    }
}

/// Directories of helpers: a socket, a record of what runs, and a file `owner` with an owner's tag, which a helper that
/// lives holds locked.
[[gnu::visibility("default")]] void sweep_run_directory(const std::string& path, SweepReport& report);

}  // namespace detail

/// Removes control groups, network links and helpers' files that the library made for processes that are dead for
/// certain; in the groups, what still runs is killed first. What belongs to a living process, to another pid namespace
/// or to another program is not touched.
///
/// Blocks for two seconds at most for each group that does not end. Throws `Step::cgroup` where /proc does not tell;
/// what cannot be removed is in the report. May be called from any thread, and by several processes at once.
inline SweepReport sweep(const SweepOptions& options = {}) {
    SweepReport report;
    detail::sweep_groups(options, report);
    if (!options.run_directory.empty()) detail::sweep_run_directory(options.run_directory, report);
    if (options.links) {
        for (std::string& link : detail::sweep_links()) report.removed.push_back(std::move(link));
    }
    return report;
}

}  // namespace caisson::inline v0
