// caisson/detail/cgroup_hierarchy.hpp - where the cgroup hierarchies are, and where the caller is in them.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>

#include <caisson/address.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/detail/text.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// One mount of a hierarchy.
struct CgroupPlace {
    std::string mount_point;  ///< as the caller sees it
    std::optional<std::string>
        own;           ///< the caller's group below it, "" or "/a/b"; nothing: not visible through this mount
    dev_t device = 0;  ///< of the mounted file system: tells whether something covers the mount point
};

/// One hierarchy of /proc/self/cgroup.
struct CgroupHierarchy {
    std::string controllers;          ///< v1: "cpu,cpuacct", "name=systemd"; v2: empty
    std::vector<CgroupPlace> places;  ///< empty: not mounted

    [[nodiscard]] bool v2() const noexcept { return controllers.empty(); }
};

/// `path` of a group as /proc/self/cgroup has it, below a mount whose root is the group `root`. Both are relative to
/// the caller's cgroup namespace; what begins with "/.." is outside of it and has no name there.
[[nodiscard]] inline std::optional<std::string> cgroup_below_root(std::string_view path, std::string_view root) {
    const auto outside = [](std::string_view p) { return p == "/.." || p.starts_with("/../"); };
    if (outside(path) || outside(root) || !path.starts_with('/')) return std::nullopt;
    if (path == "/") path = "";
    if (root == "/") root = "";
    if (!path.starts_with(root)) return std::nullopt;
    path.remove_prefix(root.size());
    if (!path.empty() && path.front() != '/') return std::nullopt;
    return std::string{path};
}

/// The hierarchies, in the order of /proc/self/cgroup, from the texts of that file and of /proc/self/mountinfo.
[[nodiscard]] inline std::vector<CgroupHierarchy> parse_cgroup_hierarchies(std::string_view self_cgroup,
                                                                           std::string_view mountinfo) {
    struct Mounted {
        std::string_view device, root, mount_point, options;
        bool v2;
    };
    std::vector<Mounted> mounted;
    while (!mountinfo.empty()) {
        std::string_view line = take_field(mountinfo, '\n');
        const std::size_t dash = line.find(" - ");
        if (dash == std::string_view::npos) continue;
        std::string_view tail = line.substr(dash + 3);
        const std::string_view type = take_field(tail, ' ');
        if (type != "cgroup" && type != "cgroup2") continue;
        (void)take_field(tail, ' ');  // the source
        (void)take_field(line, ' ');  // id
        (void)take_field(line, ' ');  // parent
        Mounted m{};
        m.device = take_field(line, ' ');
        m.root = take_field(line, ' ');
        m.mount_point = take_field(line, ' ');
        m.options = tail;
        m.v2 = type == "cgroup2";
        mounted.push_back(m);
    }

    std::vector<CgroupHierarchy> hierarchies;
    while (!self_cgroup.empty()) {
        std::string_view path = take_field(self_cgroup, '\n');
        const std::string_view id = take_field(path, ':');
        const std::string_view controllers = take_field(path, ':');
        if (!parse_decimal(id, INT32_MAX)) continue;
        CgroupHierarchy hierarchy{std::string{controllers}, {}};
        for (const Mounted& m : mounted) {
            if (m.v2 != hierarchy.v2()) continue;
            bool same = true;
            for (std::string_view rest = controllers; same && !rest.empty();) {
                same = list_has(m.options, take_field(rest, ','));
            }
            if (!same) continue;
            std::string_view minor = m.device;
            const auto major = parse_decimal(take_field(minor, ':'), UINT32_MAX);
            const auto low = parse_decimal(minor, UINT32_MAX);
            if (!major || !low) continue;
            hierarchy.places.push_back({unescape_mount_path(m.mount_point),
                                        cgroup_below_root(path, unescape_mount_path(m.root)),
                                        makedev(static_cast<unsigned>(*major), static_cast<unsigned>(*low))});
        }
        hierarchies.push_back(std::move(hierarchy));
    }
    return hierarchies;
}

/// The hierarchies of this machine as the calling thread sees them: of a process whose first thread has ended,
/// /proc/self tells nothing any more. Throws `Step::cgroup` where /proc does not tell.
[[nodiscard]] inline std::vector<CgroupHierarchy> cgroup_hierarchies() {
    std::string self_cgroup;
    std::string mountinfo;
    if (!sys::read_file(AT_FDCWD, "/proc/thread-self/cgroup", self_cgroup)) {
        fail(Step::cgroup, "read '/proc/thread-self/cgroup'", errno == ENOENT ? "mount proc on /proc" : "");
    }
    if (!sys::read_file(AT_FDCWD, "/proc/thread-self/mountinfo", mountinfo, std::size_t{64} << 20)) {
        fail(Step::cgroup, "read '/proc/thread-self/mountinfo'");
    }
    return parse_cgroup_hierarchies(self_cgroup, mountinfo);
}

/// The directory of one hierarchy in which groups are made, or why there is none.
struct CgroupParent {
    std::string controllers;  ///< as in `CgroupHierarchy`
    std::string path;         ///< empty: no mount shows it
    Fd directory;             ///< O_PATH
    int error = 0;            ///< errno of the refusal where `directory` holds nothing; 0: not mounted
};

/// The default parent of new groups through `place`: the caller's group on v1; beside it on v2, where a group with
/// processes may not have controllers for groups below it. On v2 it is the caller's group, too, where that is delegated
/// to the caller (systemd's `Delegate=`) and the one above is not.
[[nodiscard]] inline std::string default_cgroup_parent(const CgroupPlace& place, bool v2) {
    std::string own = place.own.value_or("");
    std::string inside = place.mount_point + own;
    if (!v2 || own.empty()) return inside;
    own.erase(own.rfind('/'));
    const std::string beside = place.mount_point + own;
    const auto writable = [](const std::string& path) {
        return ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0;
    };
    return !writable(beside) && writable(inside) ? inside : beside;
}

/// Opens `parent` (below the mount point; empty: the default one) in a hierarchy.
[[nodiscard]] inline CgroupParent open_cgroup_parent(const CgroupHierarchy& hierarchy, const std::string& parent) {
    CgroupParent found{hierarchy.controllers, {}, Fd{}, 0};
    for (const CgroupPlace& place : hierarchy.places) {
        if (parent.empty() && !place.own) continue;
        std::string_view below = parent;
        while (below.starts_with('/')) below.remove_prefix(1);
        std::string path = parent.empty()  ? default_cgroup_parent(place, hierarchy.v2())
                           : below.empty() ? place.mount_point
                                           : place.mount_point + "/" + std::string{below};
        Fd directory = sys::open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        const int error = errno;
        struct stat st {};
        const bool covered = directory && (::fstat(directory.get(), &st) != 0 || st.st_dev != place.device);
        if (covered) continue;
        found.path = std::move(path);
        found.error = directory ? 0 : error;
        found.directory = std::move(directory);
        if (found.directory) break;
    }
    return found;
}

}  // namespace caisson::inline v0::detail
