// caisson/detail/equipment.hpp - what a running container has been given, for who gives it more or takes it away.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <fnmatch.h>

#include <caisson/detail/archive.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/detail/text.hpp>
#include <caisson/device.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// A node of a device of the host's.
struct GivenDevice {
    std::string path{};    ///< below /dev
    DeviceRule rule{};     ///< which device, and what may be done with it
    bool leaving = false;  ///< who was taking it died at that: the node may be there, the right goes as soon as can be
};

/// True where `path` lies below the directory `directory`, by their names.
[[nodiscard]] inline bool is_below(std::string_view path, std::string_view directory) {
    const std::vector<std::string_view> parts = path_parts(path);
    const std::vector<std::string_view> above = path_parts(directory);
    return parts.size() > above.size() && std::equal(above.begin(), above.end(), parts.begin());
}
/// True where one of what `pattern` names, which may hold a '*', is `path`, or lies above or below it.
[[nodiscard]] inline bool is_near(std::string_view path, const std::string& pattern) {
    const std::vector<std::string_view> parts = path_parts(path);
    const std::vector<std::string_view> others = path_parts(pattern);
    const bool has_any = pattern.find('*') != std::string::npos;
    const auto common = static_cast<std::ptrdiff_t>(std::min(parts.size(), others.size()));
    return std::equal(parts.begin(), parts.begin() + common, others.begin(), [&](auto part, auto other) {
        return part == other || (has_any && ::fnmatch(std::string{other}.c_str(), std::string{part}.c_str(), 0) == 0);
    });
}

/// A mount of `ContainerSpec::mounts`, or one that has been attached.
struct GivenMount {
    std::string target{};
    std::uint64_t id = 0;      ///< the kernel's, see statx(2); 0: init made it at the start, and nobody has asked
    std::uint64_t listed = 0;  ///< its number in mountinfo, which the kernel may give again
    std::uint64_t space = 0;   ///< the mount namespace that it was put in: Namespace::id
    friend bool operator==(const GivenMount&, const GivenMount&) = default;
};

/// One thing that was given to a container, or taken from it. What was given comes with its spec, as a container that
/// is started again gets it: with the name that the interface has inside.
struct Change {
    enum class Kind : std::uint8_t { network, device, mount };
    Kind kind = Kind::network;
    bool added = true;
    bool is_half = false;  ///< somebody is about to make it; if he dies, nobody knows how far he came
    PluggedLink link{};
    GivenDevice device{};
    GivenMount mount{};
    NetworkSpec network_spec{};
    DeviceSpec device_spec{};
    MountSpec mount_spec{};

    /// "network 'eth1'", "device '/dev/fuse'", "mount '/mnt'"
    [[nodiscard]] std::string what() const {
        switch (kind) {
            case Kind::network: return "network " + quote(link.name);
            case Kind::device: return "device " + quote("/dev/" + device.path);
            case Kind::mount: break;
        }
        return "mount " + quote(mount.target);
    }
};

struct Equipment {
    bool own_network = false;      ///< it has a network namespace of its own
    bool maps_mounts = false;      ///< binds are seen through the id map
    bool own_group = false;        ///< it has control groups
    std::uint64_t outer_user = 0;  ///< where `maps_mounts`, the user namespace that its own was made in: Namespace::id
    std::uint64_t dev_number = 0;  ///< device number of the file system on /dev; 0: it has none of its own
    std::vector<IdMap> uid_map{};  ///< empty: it has no user namespace
    std::vector<IdMap> gid_map{};
    std::vector<DeviceRule> rules{};  ///< those that no device of `devices` needs
    std::vector<GivenDevice> devices{};
    std::vector<GivenMount> mounts{};    ///< in the order in which they came
    std::vector<std::string> guarded{};  ///< what the start has masked or made read-only, where it has made mounts
    std::string stage_path{};            ///< see ContainerSpec

    /// True where what is guarded might lie bare without a mount of the start's that is on `path`.
    [[nodiscard]] bool guards(std::string_view path) const {
        return std::any_of(guarded.begin(), guarded.end(), [&](const auto& pattern) { return is_near(path, pattern); });
    }
    void note(const Change& change);
};

inline void Equipment::note(const Change& change) {
    const auto erase_last = [](auto& all, const auto& is_it) {
        const auto found = std::find_if(all.rbegin(), all.rend(), is_it);
        if (found != all.rend()) all.erase(std::next(found).base());
    };
    if (!change.added && change.is_half) {
        // Of another kind, it is there or gone as a whole.
        const auto is_it = [&](const GivenDevice& d) { return d.path == change.device.path; };
        const auto found = std::find_if(devices.rbegin(), devices.rend(), is_it);
        if (found != devices.rend() && change.kind == Change::Kind::device) found->leaving = true;
        return;
    }
    switch (change.kind) {
        case Change::Kind::network: return;  // those are with the links
        case Change::Kind::device:
            if (change.added) devices.push_back(change.device);
            else erase_last(devices, [&](const GivenDevice& d) { return d.path == change.device.path; });
            return;
        case Change::Kind::mount:
            if (change.added) mounts.push_back(change.mount);
            else erase_last(mounts, [&](const GivenMount& m) { return m == change.mount; });
    }
}

template <class A, SameButConst<GivenDevice> S>
void fields(A& archive, S& s) {
    auto& [path, rule, leaving] = s;
    archive(path, rule, leaving);
}
template <class A, SameButConst<GivenMount> S>
void fields(A& archive, S& s) {
    auto& [target, id, listed, space] = s;
    archive(target, id, listed, space);
}
template <class A, SameButConst<Equipment> S>
void fields(A& archive, S& s) {
    auto& [own_network, maps_mounts, own_group, outer_user, dev_number, uid_map, gid_map, rules, devices, mounts,
           guarded, stage_path] = s;
    archive(own_network, maps_mounts, own_group, outer_user, dev_number, uid_map, gid_map, rules, devices, mounts,
            guarded, stage_path);
}
template <class A, SameButConst<PluggedLink> S>
void fields(A& archive, S& s) {
    auto& [index, name, host_name, late] = s;
    archive(index, name, host_name, late);
}

template <class A, SameButConst<Change> S>
void fields(A& archive, S& s) {
    auto& [kind, added, is_half, link, device, mount, network_spec, device_spec, mount_spec] = s;
    archive.enumerator(kind, Change::Kind::mount);
    archive(added, is_half, link, device, mount, network_spec, device_spec, mount_spec);
}

}  // namespace caisson::inline v0::detail
