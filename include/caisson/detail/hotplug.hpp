// caisson/detail/hotplug.hpp - what is given to a container that runs, or taken from it. Implemented in
// src/hotplug.cpp.
#pragma once

#include <optional>
#include <string>
#include <utility>

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
    /// `group`: where the container has one. `tag`: of the links' owner, see Owner.
    Hotplug(Process init, Equipment equipment, std::optional<Cgroup> group, std::string tag)
        : init_{std::move(init)}, equipment_{std::move(equipment)}, group_{std::move(group)}, tag_{std::move(tag)} {}

    [[nodiscard]] [[gnu::visibility("default")]] PluggedLink attach(const NetworkSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] GivenDevice attach(const DeviceSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] GivenMount attach(const MountSpec& spec);
    [[gnu::visibility("default")]] void detach(const PluggedLink& link);
    [[gnu::visibility("default")]] void detach(const GivenDevice& device);
    [[gnu::visibility("default")]] void detach(const GivenMount& mount);

private:
    void require_running() const;
    [[nodiscard]] Fd open_dev() const;
    void change_rules(const Equipment& before, const Equipment& after) const;

    Process init_;
    Equipment equipment_;
    std::optional<Cgroup> group_;
    std::string tag_;
};

}  // namespace caisson::inline v0::detail
