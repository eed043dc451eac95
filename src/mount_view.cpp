#include "mount_view.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>

namespace caisson::inline v0::detail {
namespace {

bool parse(std::string_view line, MountLine& into) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) return false;
    std::string_view tail = line.substr(dash + 3);
    constexpr std::uint64_t most = std::numeric_limits<unsigned long>::max();
    const auto id = parse_decimal(take_field(line, ' '), most);
    const auto parent = parse_decimal(take_field(line, ' '), most);
    if (!id || !parent) return false;
    into.id = *id;
    into.parent = *parent;
    into.device = take_field(line, ' ');
    into.root = unescape_mount_path(take_field(line, ' '));
    into.point = unescape_mount_path(take_field(line, ' '));
    into.type = take_field(tail, ' ');
    into.source = unescape_mount_path(take_field(tail, ' '));
    into.processes_only = into.type == "proc" && list_has(tail, "subset=pid");
    into.read_only = list_has(take_field(line, ' '), "ro") || list_has(tail, "ro");
    return true;
}

}  // namespace

MountView::MountView(std::string_view mountinfo) {
    while (!mountinfo.empty()) {
        MountLine line;
        if (parse(take_field(mountinfo, '\n'), line)) lines_.push_back(std::move(line));
    }
    std::set<unsigned long> listed;
    for (const MountLine& line : lines_) listed.insert(line.id);
    for (const MountLine& line : lines_) {
        // The process does not see what its root is mounted on.
        const bool topmost = line.parent == line.id || !listed.contains(line.parent);
        children_.try_emplace({topmost ? 0 : line.parent, line.point}, &line);
    }
    // Mounts that lie on each other's roots: where a path comes to one of them, it goes on from the topmost. The kernel
    // writes a long list in parts and gives numbers again in between, so that some may seem to go round in a circle.
    const std::pair<unsigned long, std::string_view> root{0, "/"};
    for (auto& [place, first] : children_) {
        // What is mounted over the root itself is not walked into: a walk begins below it.
        if (place == root) continue;
        std::set<const MountLine**> passed;
        const MountLine** top = &first;
        while (passed.insert(top).second) {
            const auto over = children_.find({(*top)->id, (*top)->point});
            if (over == children_.end()) break;
            top = &over->second;
        }
        for (const MountLine** of : passed) *of = *top;
    }
}

const MountLine* MountView::at(std::string_view path) const {
    const auto child = [&](const MountLine* of, std::string_view point) {
        const auto found = children_.find({of != nullptr ? of->id : 0, point});
        return found == children_.end() ? nullptr : found->second;
    };
    const MountLine* now = child(nullptr, "/");
    for (std::size_t end = 0; path != "/" && end < path.size();) {
        end = std::min(path.find('/', end + 1), path.size());
        if (const MountLine* next = child(now, path.substr(0, end))) now = next;
    }
    return now;
}

bool MountView::is_mask(const MountLine& mount) noexcept {
    // As detail/plan_protect.hpp has them made.
    return mount.type == "tmpfs" && mount.source == "masked" && mount.read_only;
}

}  // namespace caisson::inline v0::detail
