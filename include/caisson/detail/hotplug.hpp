// caisson/detail/hotplug.hpp - what is given to a container that runs, or taken from it. Implemented in
// src/hotplug.cpp.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <caisson/cgroup.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/device.hpp>
#include <caisson/process.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// Works on a container from outside, in the calling process, with nothing of its owner's in its hands: who keeps the
/// records notes the result. One at a time for each container, since rules for devices are replaced as a whole.
///
/// All or nothing. Throws without the container's name: `Step::check_spec`, what a start throws for the same thing, and
/// ESRCH once the container has ended. A container that is suspended gets what it is given; who waits for a file system
/// of its own meanwhile gets ETIMEDOUT after some seconds.
class Hotplug {
public:
    /// `links`: those that the container has; `group`: where it has one; `tag`: of the links' owner, see Owner.
    Hotplug(Process init, Equipment equipment, std::vector<PluggedLink> links, std::optional<Cgroup> group,
            std::string tag)
        : init_{std::move(init)},
          equipment_{std::move(equipment)},
          links_{std::move(links)},
          group_{std::move(group)},
          tag_{std::move(tag)} {}

    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const NetworkSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const DeviceSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const MountSpec& spec);
    /// By the name inside; by the path of the node, absolute or below /dev; by the target. ENOENT where the container
    /// has been given no such thing, or, of mounts, not while it ran.
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_network(const std::string& name);
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_device(const std::string& path);
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_mount(const std::string& target);
    /// Takes back what `attach` has given; silently.
    [[gnu::visibility("default")]] void undo(const Change& change) noexcept;

private:
    void require_running() const;
    [[nodiscard]] Fd open_dev() const;
    void change_rules(const Equipment& before, const Equipment& after) const;

    Process init_;
    Equipment equipment_;
    std::vector<PluggedLink> links_;
    std::optional<Cgroup> group_;
    std::string tag_;
};

}  // namespace caisson::inline v0::detail
