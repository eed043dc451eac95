// caisson/detail/plan_mounts.hpp - instructions for the mounts that init makes itself.
#pragma once

#include <cstdint>
#include <string>

#include <caisson/detail/plan_builder.hpp>
#include <caisson/mount.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// A `MountSpec::Type::bind_inside`, detached. The source is resolved in the container's root.
[[nodiscard]] inline Slot plan_bind_inside(PlanBuilder& plan, const MountSpec& mount) {
    const Slot slot = plan.dynamic();
    const std::string what = "bind " + quote(mount.source) + " of the container";
    plan.add({.op = Op::clone_mount, .slot = slot, .a = plan.text(mount.source)}, Step::mount, what);
    const std::uint64_t attributes = Mount::attributes(mount.options);
    if (attributes != 0) {
        plan.add({.op = Op::set_attributes, .slot = slot, .x = attributes}, Step::mount, "options of " + what);
    }
    return slot;
}

}  // namespace caisson::inline v0::detail
