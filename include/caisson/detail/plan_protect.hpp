// caisson/detail/plan_protect.hpp - the part of a Plan about paths that show nothing or cannot be written to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/mount.h>

#include <caisson/detail/kernel_paths.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/detail/plan_mounts.hpp>
#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// The file systems that the start has placed on /proc and /sys; `no_slot` for none.
struct KernelMounts {
    Slot proc = no_slot;
    Slot sys = no_slot;
};

/// A path by the mount that it is in: by name, it leads elsewhere where another container has the same root and renames
/// the directories that are mounted on.
struct ProtectedPath {
    Slot base = no_slot;  ///< `no_slot`: the container's root
    std::string path{};   ///< relative to it
};
[[nodiscard]] inline ProtectedPath protected_path(const ContainerSpec& spec, const KernelMounts& mounts,
                                                  const std::string& path) {
    const std::vector<std::string_view> parts = path_parts(path);
    const Slot base = parts.empty()        ? no_slot
                      : parts[0] == "proc" ? mounts.proc
                      : parts[0] == "sys"  ? mounts.sys
                                           : no_slot;
    // What the spec itself has put over it is what is to be protected.
    const bool is_covered = std::any_of(spec.mounts.begin(), spec.mounts.end(), [&](const MountSpec& mount) {
        const std::vector<std::string_view> target = path_parts(mount.target);
        return target.size() == 1 && target[0] == parts[0];
    });
    if (base == no_slot || is_covered) return {no_slot, path};
    std::string below;
    for (std::size_t i = 1; i < parts.size(); ++i) below += (below.empty() ? "" : "/") + std::string{parts[i]};
    return {base, below.empty() ? "." : below};
}

/// To be run when all mounts of the container are in their places.
inline void plan_protection(PlanBuilder& plan, const ContainerSpec& spec, bool own_network,
                            const KernelMounts& mounts) {
    // Who administers a network of his own may set it up.
    const bool keeps_net =
        own_network && mounts.proc != no_slot && spec.capabilities.bounding.has(*CapabilitySet::number("net_admin"));
    Slot net = no_slot;
    for (const std::string& path : spec.read_only_paths) {
        if (path == "/proc/sys" && keeps_net) {
            net = plan.dynamic();
            plan.add({.op = Op::clone_mount,
                      .slot = net,
                      .other = mounts.proc,
                      .a = plan.text("sys/net"),
                      .x = clone_optional},
                     Step::mount, "bind '/proc/sys/net'");
        }
        constexpr std::uint64_t attributes = MOUNT_ATTR_RDONLY;
        const ProtectedPath found = protected_path(spec, mounts, path);
        plan.add({.op = Op::read_only, .other = found.base, .a = plan.text(found.path), .x = attributes}, Step::mount,
                 "make " + quote(path) + " read-only");
    }
    if (net != no_slot) {
        const ProtectedPath found = protected_path(spec, mounts, "/proc/sys/net");
        plan.add(
            {.op = Op::place, .slot = net, .other = found.base, .a = plan.text(found.path), .x = place_no_symlinks},
            Step::mount, "mount '/proc/sys/net'");
    }
    if (spec.masked_paths.empty()) return;
    const Slot empty = plan.dynamic();
    constexpr std::uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    plan.add({.op = Op::mask_begin,
              .slot = empty,
              .a = plan.text("tmpfs"),
              .b = plan.pairs({{"source", "masked"}, {"size", "4096"}, {"nr_inodes", "4"}, {"mode", "0555"}}),
              .x = attributes},
             Step::mount, "mount 'tmpfs' for masked paths");
    for (const std::string& pattern : spec.masked_paths) {
        for (const std::string& path : kernel_paths(pattern)) {
            const ProtectedPath found = protected_path(spec, mounts, path);
            plan.add({.op = Op::mask, .slot = empty, .other = found.base, .a = plan.text(found.path)}, Step::mount,
                     "mask " + quote(path));
        }
    }
    plan.add({.op = Op::mask_end, .slot = empty}, Step::mount, "unmount 'tmpfs' for masked paths");
}

}  // namespace caisson::inline v0::detail
