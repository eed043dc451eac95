// caisson/detail/plan_protect.hpp - the part of a Plan about paths that show nothing or cannot be written to.
#pragma once

#include <string>

#include <sys/mount.h>

#include <caisson/detail/kernel_paths.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// To be run when all mounts of the container are in their places. `proc`: its procfs, or none.
inline void plan_protection(PlanBuilder& plan, const ContainerSpec& spec, bool own_network, Slot proc) {
    // Who administers a network of his own may set it up.
    const bool keeps_net = own_network && proc != no_slot && spec.proc &&
                           spec.capabilities.bounding.has(*CapabilitySet::number("net_admin"));
    Slot net = no_slot;
    for (const std::string& path : spec.read_only_paths) {
        if (path == "/proc/sys" && keeps_net) {
            net = plan.dynamic();
            plan.add(
                {.op = Op::clone_mount, .slot = net, .other = proc, .a = plan.text("sys/net"), .x = clone_optional},
                Step::mount, "bind '/proc/sys/net'");
        }
        constexpr std::uint64_t attributes = MOUNT_ATTR_RDONLY;
        plan.add({.op = Op::read_only, .a = plan.text(path), .x = attributes}, Step::mount,
                 "make " + quote(path) + " read-only");
    }
    if (net != no_slot) {
        plan.add({.op = Op::place, .slot = net, .a = plan.text("/proc/sys/net"), .x = place_no_symlinks}, Step::mount,
                 "mount '/proc/sys/net'");
    }
    if (spec.masked_paths.empty()) return;
    const Slot empty = plan.dynamic();
    const Slot file = plan.dynamic();
    constexpr std::uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    plan.add({.op = Op::mask_begin,
              .slot = empty,
              .other = file,
              .a = plan.text("tmpfs"),
              .b = plan.pairs({{"source", "masked"}, {"size", "4096"}, {"nr_inodes", "4"}, {"mode", "0555"}}),
              .x = attributes},
             Step::mount, "mount 'tmpfs' for masked paths");
    for (const std::string& pattern : spec.masked_paths) {
        for (const std::string& path : kernel_paths(pattern)) {
            plan.add({.op = Op::mask, .slot = empty, .other = file, .a = plan.text(path)}, Step::mount,
                     "mask " + quote(path));
        }
    }
    plan.add({.op = Op::mask_end, .slot = empty}, Step::mount, "unmount 'tmpfs' for masked paths");
}

}  // namespace caisson::inline v0::detail
