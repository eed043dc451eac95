// caisson/device.hpp - which devices a container may use, as plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace caisson::inline v0 {

/// What may be done with a device: read, write, and make a node of it (mknod(2)).
struct DeviceAccess {
    bool read = true;
    bool write = true;
    bool make = false;
    friend bool operator==(const DeviceAccess&, const DeviceAccess&) = default;
};

/// Devices that a container may use, if it has a node of one, beside null, zero, full, random, urandom, tty, ptmx and
/// terminals. The kernel refuses (EPERM) to open or make any other: by the control group's `devices` on cgroup v1, else
/// by a program (BPF) on its v2 directory; without a control group (`ContainerSpec::cgroup`) nothing does. Rules that
/// cannot be set refuse the start; without rules in the spec, a container in a user namespace, which makes no nodes,
/// then starts all the same. What a group above may not use is not to be had: an error on v1, found by the EPERM inside
/// on v2. See bpf(2) and mknod(2).
struct DeviceRule {
    enum class Type : std::uint8_t { character, block };
    Type type = Type::character;
    std::optional<std::uint32_t> major{};  ///< nothing: every one
    std::optional<std::uint32_t> minor{};  ///< nothing: every one
    DeviceAccess access{};
    friend bool operator==(const DeviceRule&, const DeviceRule&) = default;
};

/// A device of the host that a container gets: a node in its /dev, and the right to use it. Of the host's path links
/// are followed; what it leads to must be there, and a device, when the container starts.
struct DeviceSpec {
    std::string source{};  ///< the host's node: "/dev/fuse"
    std::string target{};  ///< below /dev, or absolute and below /dev; empty: the same path as `source`
    enum class Type : std::uint8_t { any, character, block };
    Type type = Type::any;  ///< a source of another type is refused
    DeviceAccess access{};
    std::uint32_t mode = 0660;  ///< of the node, which belongs to `uid` and `gid` inside
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    friend bool operator==(const DeviceSpec&, const DeviceSpec&) = default;
};

}  // namespace caisson::inline v0
