// support/hierarchies.hpp - hosts that see some of the machine's control group hierarchies alone.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sched.h>
#include <sys/mount.h>

#include <caisson/detail/cgroup_hierarchy.hpp>

#include "support/host.hpp"

namespace caisson_test {

/// Where the v2 hierarchy is mounted, or the v1 one with `controller`; empty if it is not.
inline std::string mounted(std::string_view controller) {
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        const bool wanted = controller.empty() ? hierarchy.v2() : detail::list_has(hierarchy.controllers, controller);
        if (wanted && !hierarchy.places.empty()) return hierarchy.places.front().mount_point;
    }
    return {};
}
/// In a forked host: takes a hierarchy out of its sight.
inline bool hide(std::string_view controller) {
    const std::string where = mounted(controller);
    if (where.empty()) return true;
    return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::umount2(where.c_str(), MNT_DETACH) == 0;
}

/// What freezes a group there.
inline std::vector<std::string> freezers() {
    std::vector<std::string> all;
    if (!mounted("").empty()) all.emplace_back("v2");
    if (!mounted("freezer").empty()) all.emplace_back("v1");
    return all;
}
/// A host in which `freezer` of them is the one.
template <class Body>
std::string in_host_with(const std::string& freezer, Body&& body) {
    return in_host([&]() -> std::string {
        if (freezer == "v1" && !hide("")) return "cannot hide v2";
        return body();
    });
}

}  // namespace caisson_test
