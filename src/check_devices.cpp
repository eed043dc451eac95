// check_devices.cpp - what makes devices and device rules impossible.
#include "check_parts.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <range/v3/algorithm/any_of.hpp>
#include <range/v3/algorithm/contains.hpp>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/enumerate.hpp>
#include <range/v3/view/split.hpp>

#include <caisson/detail/consoles.hpp>
#include <caisson/detail/device_node.hpp>

namespace caisson::inline v0::checking {
namespace {

using detail::quote;
namespace views = ranges::views;

/// What is in each container's /dev, and what is mounted there.
constexpr std::string_view taken[] = {"null", "zero",  "full",   "random", "urandom", "tty", "console", "ptmx",
                                      "fd",   "stdin", "stdout", "stderr", "pts",     "shm", "mqueue"};

void check_access(const std::string& field, const DeviceAccess& access) {
    if (access.read || access.write || access.make) return;
    refuse(field, "it allows nothing", "allow to read, to write or to make, or leave it out");
}

void check_target(const std::string& field, const ContainerSpec& spec, const DeviceSpec& device) {
    const std::string& written = device.target.empty() ? device.source : device.target;
    const std::optional<std::string> path = detail::path_below_dev(device);
    if (!path) {
        refuse(field,
               device.target.empty() ? "it is empty, and source " + quote(written) + " is not below /dev"
                                     : quote(written) + " is not below /dev",
               "say where below /dev the node is to be");
    }
    const auto parts = *path | views::split('/') | ranges::to<std::vector<std::string>>();
    const auto bad = [](const std::string& part) {
        return part.empty() || part == "." || part == ".." || part.size() > 255;
    };
    if (parts.empty() || path->ends_with('/') || ranges::any_of(parts, bad)) {
        refuse(field, quote(written) + " is no path of a node", "write it without '//', '.' and '..'");
    }
    if (ranges::contains(taken, std::string_view{parts.front()})) {
        refuse(field, quote(written) + " is not free: each container has '/dev/" + parts.front() + "'",
               "choose another place");
    }
    for (std::size_t i = 1; i <= detail::consoles_of(spec); ++i) {
        if (parts.front() != "tty" + std::to_string(i)) continue;
        refuse(field, quote(written) + " is not free: '/dev/" + parts.front() + "' is a console of the container's",
               "choose another place, or set console to nothing");
    }
}

/// One of the two leads through, or to, the other.
bool collide(std::string_view a, std::string_view b) {
    if (a.size() > b.size()) std::swap(a, b);
    return b.starts_with(a) && (a.size() == b.size() || b[a.size()] == '/');
}

void check_owner(const std::string& field, const ContainerSpec& spec, const std::vector<IdMap>& maps, const char* map,
                 std::uint32_t id) {
    constexpr std::uint32_t automatic = 65536;
    if (id == 0xffffffff) refuse(field, "4294967295 is no id");
    if (!spec.has_user_namespace()) return;
    if (spec.wants_automatic_map()) {
        if (id < automatic) return;
        refuse(field, std::to_string(id) + " is not among the 65536 ids of an automatic map",
               "give uid_map and gid_map");
    }
    const auto covers = [&](const IdMap& m) { return id >= m.inside && id - m.inside < m.count; };
    if (!ranges::any_of(maps, covers)) refuse(field, std::to_string(id) + " is not in " + map);
}

void check_number(const std::string& field, std::optional<std::uint32_t> number, std::uint32_t most) {
    if (!number || *number <= most) return;
    refuse(field, std::to_string(*number) + " is no device number", "the kernel has 0 to " + std::to_string(most));
}

}  // namespace

void check_device(const std::string& field, const DeviceSpec& device, const ContainerSpec& spec) {
    check_path(field + ".source", device.source);
    check_no_nul(field + ".target", device.target);
    check_target(field + ".target", spec, device);
    check_access(field + ".access", device.access);
    if ((!device.access.read || !device.access.write) && !spec.cgroup) {
        refuse(field + ".access", "to allow less than to read and write needs a control group", "set cgroup to true");
    }
    if (device.mode > 0777) refuse(field + ".mode", "it has more than permissions", "0 to 0777 are possible");
    check_owner(field + ".uid", spec, spec.uid_map, "uid_map", device.uid);
    check_owner(field + ".gid", spec, spec.gid_map, "gid_map", device.gid);
}

void check_devices(const ContainerSpec& spec) {
    if (!spec.devices.empty() && !spec.dev) {
        refuse("devices", "there is no /dev of the container's own", "set dev to true");
    }
    if (!spec.device_rules.empty() && !spec.cgroup) {
        refuse("device_rules", "they need a control group", "set cgroup to true");
    }
    for (auto&& [i, device] : views::enumerate(spec.devices)) {
        const std::size_t index = i;
        const std::string field = indexed("devices", index);
        check_device(field, device, spec);
        for (std::size_t j = 0; j < index; ++j) {
            if (!collide(*detail::path_below_dev(spec.devices[j]), *detail::path_below_dev(device))) continue;
            refuse(field + ".target",
                   quote(device.target.empty() ? device.source : device.target) + " collides with that of devices[" +
                       std::to_string(j) + "]",
                   "choose another place");
        }
    }
    for (auto&& [i, rule] : views::enumerate(spec.device_rules)) {
        check_access(indexed("device_rules", i, ".access"), rule.access);
        check_number(indexed("device_rules", i, ".major"), rule.major, 4095);
        check_number(indexed("device_rules", i, ".minor"), rule.minor, 1048575);
    }
}

}  // namespace caisson::inline v0::checking
