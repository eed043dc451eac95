// caisson/detail/equipment.hpp - what a running container has been given, for who gives it more or takes it away.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <caisson/detail/archive.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/device.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// A node of a device of the host's.
struct GivenDevice {
    std::string path{};  ///< below /dev
    DeviceRule rule{};   ///< which device, and what may be done with it
};

/// A mount that has been attached.
struct GivenMount {
    std::string target{};
    std::uint64_t id = 0;  ///< the kernel's, see statx(2)
};

struct Equipment {
    bool own_network = false;      ///< it has a network namespace of its own
    bool maps_mounts = false;      ///< binds are seen through the id map
    bool own_group = false;        ///< it has control groups
    std::uint64_t dev_number = 0;  ///< device number of the file system on /dev; 0: it has none of its own
    std::vector<IdMap> uid_map{};  ///< empty: it has no user namespace
    std::vector<IdMap> gid_map{};
    std::vector<DeviceRule> rules{};  ///< those that no device of `devices` needs
    std::vector<GivenDevice> devices{};
    std::vector<GivenMount> mounts{};  ///< those that came while it ran
    std::string stage_path{};          ///< see ContainerSpec
};

template <class A, SameButConst<GivenDevice> S>
void fields(A& archive, S& s) {
    auto& [path, rule] = s;
    archive(path, rule);
}
template <class A, SameButConst<GivenMount> S>
void fields(A& archive, S& s) {
    auto& [target, id] = s;
    archive(target, id);
}
template <class A, SameButConst<Equipment> S>
void fields(A& archive, S& s) {
    auto& [own_network, maps_mounts, own_group, dev_number, uid_map, gid_map, rules, devices, mounts, stage_path] = s;
    archive(own_network, maps_mounts, own_group, dev_number, uid_map, gid_map, rules, devices, mounts, stage_path);
}
template <class A, SameButConst<PluggedLink> S>
void fields(A& archive, S& s) {
    auto& [index, name, host_name, late] = s;
    archive(index, name, host_name, late);
}

}  // namespace caisson::inline v0::detail
