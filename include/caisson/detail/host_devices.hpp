// caisson/detail/host_devices.hpp - the host's devices that a container gets, from the spec to nodes and rules.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/device_control.hpp>
#include <caisson/detail/device_node.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/id_range.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// What `devices` and `device_rules` of a spec come to on this host. The spec must outlive it.
class HostDevices {
public:
    /// Looks the devices up, before anything is made. Throws `Step::check_spec`.
    explicit HostDevices(const ContainerSpec& spec) : spec_{&spec} {
        for (std::size_t i = 0; i < spec.devices.size(); ++i) {
            nodes_.push_back(DeviceNode::find(spec.devices[i], "devices[" + std::to_string(i) + "]"));
        }
    }
    /// Holds the processes of `group` to them. Throws `Step::cgroup`.
    void limit(const Cgroup& group) const {
        DeviceControl control;
        // A user namespace may not make nodes, and its mounts show none but those that the host gave it.
        DeviceControl::Demand demand{.asked = !spec_->device_rules.empty(),
                                     .root_outside = !spec_->has_user_namespace()};
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            const DeviceAccess& access = spec_->devices[i].access;
            control.allow(nodes_[i].rule(access));
            demand.asked = demand.asked || !access.read || !access.write;
        }
        for (const DeviceRule& rule : spec_->device_rules) control.allow(rule);
        control.apply(group, demand);
    }
    /// Makes the nodes in the /dev that `dev` is a descriptor of. Throws `Step::mount`.
    void make_in(int dev, const std::vector<IdMap>& uid_map, const std::vector<IdMap>& gid_map) const {
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            const DeviceSpec& device = spec_->devices[i];
            nodes_[i].make(dev, outside(uid_map, device.uid), outside(gid_map, device.gid), outside(uid_map, 0),
                           outside(gid_map, 0));
        }
    }

    /// What is to be known of the container while it runs; `dev` is a descriptor of its /dev, or -1.
    [[nodiscard]] Equipment equipment(int dev, std::vector<IdMap> uid_map, std::vector<IdMap> gid_map) const {
        Equipment equipment;
        equipment.own_network = spec_->effective_namespaces().has(NamespaceKind::net);
        equipment.maps_mounts = spec_->maps_mounts();
        struct stat st {};
        if (dev >= 0 && ::fstat(dev, &st) == 0) equipment.dev_number = st.st_dev;
        equipment.uid_map = std::move(uid_map);
        equipment.gid_map = std::move(gid_map);
        equipment.rules = spec_->device_rules;
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            equipment.devices.push_back({nodes_[i].path, nodes_[i].rule(spec_->devices[i].access)});
        }
        for (const MountSpec& mount : spec_->mounts) equipment.mounts.push_back({.target = mount.target});
        // They are so on top of the mounts, and where one hides them, nowhere.
        if (!spec_->mounts.empty()) {
            equipment.guarded = spec_->masked_paths;
            equipment.guarded.insert(equipment.guarded.end(), spec_->read_only_paths.begin(),
                                     spec_->read_only_paths.end());
        }
        equipment.stage_path = spec_->stage_path;
        return equipment;
    }

private:
    const ContainerSpec* spec_;
    std::vector<DeviceNode> nodes_;
};

}  // namespace caisson::inline v0::detail
