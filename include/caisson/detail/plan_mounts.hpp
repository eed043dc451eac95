// caisson/detail/plan_mounts.hpp - instructions for the mounts that init makes itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <caisson/detail/plan_builder.hpp>
#include <caisson/detail/text.hpp>
#include <caisson/mount.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// True for a path that says itself that it is in a proc or sysfs of the container.
[[nodiscard]] inline bool names_kernel(const ContainerSpec& spec, const std::string& path) {
    const std::vector<std::string_view> parts = path_parts(path);
    const auto is_in = [&](const std::vector<std::string_view>& place) {
        return parts.size() >= place.size() && std::equal(place.begin(), place.end(), parts.begin());
    };
    return is_in({"proc"}) || is_in({"sys"}) ||
           std::any_of(spec.mounts.begin(), spec.mounts.end(), [&](const MountSpec& mount) {
               return (mount.type == MountSpec::Type::proc || mount.type == MountSpec::Type::sysfs) &&
                      is_in(path_parts(mount.target));
           });
}

/// A `MountSpec::Type::bind_inside`, detached. The source is resolved in the container's root. A link there must not
/// lead to its proc: what is seen elsewhere is neither masked nor read-only.
[[nodiscard]] inline Slot plan_bind_inside(PlanBuilder& plan, const ContainerSpec& spec, const MountSpec& mount) {
    const Slot slot = plan.dynamic();
    const std::string what = "bind " + quote(mount.source) + " of the container";
    const std::uint64_t flags = names_kernel(spec, mount.source) ? 0 : std::uint64_t{clone_no_kernel};
    plan.add({.op = Op::clone_mount, .slot = slot, .a = plan.text(mount.source), .x = flags}, Step::mount, what);
    const std::uint64_t attributes = Mount::attributes(mount.options);
    if (attributes != 0) {
        plan.add({.op = Op::set_attributes, .slot = slot, .x = attributes}, Step::mount, "options of " + what);
    }
    return slot;
}

}  // namespace caisson::inline v0::detail
