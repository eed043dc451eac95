// src/check.cpp - what makes a ContainerSpec impossible, field by field.
#include <caisson/check.hpp>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <range/v3/algorithm/any_of.hpp>
#include <range/v3/algorithm/count_if.hpp>
#include <range/v3/algorithm/find.hpp>
#include <range/v3/view/enumerate.hpp>
#include <range/v3/view/split.hpp>
#include <range/v3/range/conversion.hpp>

#include <caisson/detail/id_range.hpp>

#include "check_parts.hpp"

namespace caisson::inline v0 {

using detail::quote;
namespace views = ranges::views;

namespace checking {

constexpr std::size_t longest_path = 4095;  // PATH_MAX with its NUL

void refuse(const std::string& field, const std::string& problem, std::string_view remedy) {
    throw Error{Step::check_spec, 0, field + ": " + problem, remedy};
}

std::string indexed(const char* list, std::size_t index, const char* member) {
    return std::string{list} + "[" + std::to_string(index) + "]" + member;
}

void check_no_nul(const std::string& field, std::string_view text) {
    if (text.find('\0') != std::string_view::npos) refuse(field, "it holds a NUL byte");
}

void check_path(const std::string& field, const std::string& path) {
    check_no_nul(field, path);
    if (path.empty()) refuse(field, "it is empty", "give an absolute path");
    if (path.front() != '/') refuse(field, quote(path) + " is not absolute", "begin it with '/'");
    if (path.size() > longest_path)
        refuse(field, "it has " + std::to_string(path.size()) + " bytes", "4095 are possible");
    auto components = path | views::split('/');
    const bool climbs =
        ranges::any_of(components, [](auto&& component) { return ranges::to<std::string>(component) == ".."; });
    if (climbs) refuse(field, quote(path) + " holds '..'", "write the path without it");
}

}  // namespace checking

namespace {

using namespace checking;

constexpr std::size_t most_map_lines = 340;  // user_namespaces(7), since Linux 4.15
constexpr std::size_t most_bytes_of_strings = 1u << 20;
constexpr std::size_t longest_string = (1u << 17) - 1;  // execve(2): 32 pages with the NUL

void check_hostname(const std::string& name) {
    if (name.size() > 64) refuse("hostname", "it has " + std::to_string(name.size()) + " bytes", "64 are possible");
    const auto bad = [](char c) {
        return !((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' ||
                 c == '_');
    };
    if (ranges::any_of(name, bad) || (!name.empty() && name.front() == '-')) {
        refuse("hostname", quote(name) + " is no host name", "use letters, digits, '-', '_' and '.'");
    }
}

void check_command(const ContainerSpec& spec) {
    if (spec.command.empty()) refuse("command", "it is empty", "name the program to run, as seen inside");
    if (spec.command.front().empty() || spec.command.front().front() != '/') {
        refuse("command[0]", quote(spec.command.front()) + " is not absolute",
               "give the program's full path inside the container");
    }
    std::size_t total = 0;
    const auto check_length = [](const std::string& field, std::size_t bytes) {
        if (bytes > longest_string) refuse(field, "it has " + std::to_string(bytes) + " bytes", "131071 are possible");
    };
    for (auto&& [i, argument] : views::enumerate(spec.command)) {
        check_no_nul(indexed("command", i), argument);
        check_length(indexed("command", i), argument.size());
        total += argument.size() + 1;
    }
    std::set<std::string_view> names;
    for (auto&& [i, variable] : views::enumerate(spec.environment)) {
        const auto& [name, value] = variable;
        const std::string field = indexed("environment", i);
        if (name.empty() || name.find('=') != std::string::npos) {
            refuse(field, quote(name) + " is no name of a variable", "it must not be empty nor hold '='");
        }
        check_no_nul(field, name);
        check_no_nul(field, value);
        check_length(field, name.size() + 1 + value.size());
        total += name.size() + value.size() + 2;
        if (!names.insert(name).second) {
            refuse(field, quote(name) + " is given twice", "programs differ in which of the two they take");
        }
    }
    constexpr std::size_t longest_uuid = longest_string - std::string_view{"container_uuid="}.size();
    if (spec.uuid.size() > longest_uuid) {
        refuse("uuid", "it has " + std::to_string(spec.uuid.size()) + " bytes",
               std::to_string(longest_uuid) + " are possible");
    }
    total += spec.uuid.size();
    if (total > most_bytes_of_strings) {
        refuse("command and environment", "they have " + std::to_string(total) + " bytes", "1048576 are possible");
    }
}

void check_users(const ContainerSpec& spec) {
    constexpr std::uint32_t no_id = 0xffffffff;
    if (spec.uid == no_id) refuse("uid", "4294967295 is no user id");
    if (spec.gid == no_id) refuse("gid", "4294967295 is no group id");
    if (spec.id_mapped_mounts && !spec.has_user_namespace()) {
        refuse("id_mapped_mounts", "there is no user namespace", "add NamespaceKind::user to namespaces");
    }
    if (spec.id_mapped_mounts && spec.root == "/") {
        refuse("id_mapped_mounts", "root is '/', which is seen as the host has it",
               "give the container a root of its own");
    }
    if (!spec.has_user_namespace()) {
        if (!spec.uid_map.empty() || !spec.gid_map.empty()) {
            refuse(spec.uid_map.empty() ? "gid_map" : "uid_map", "there is a map, but no user namespace",
                   "add NamespaceKind::user to namespaces, or remove the map");
        }
        return;
    }
    if (spec.wants_automatic_map()) {
        if (spec.root == "/") {
            refuse("uid_map", "it is empty, but root is '/'",
                   "with the host's own root say which ids the container has, for example {0, 100000, 65536}");
        }
        constexpr std::uint32_t automatic = 65536;
        const auto require_mapped = [](const std::string& field, std::uint32_t id) {
            if (id < automatic) return;
            refuse(field, std::to_string(id) + " is not among the 65536 ids of an automatic map",
                   "give uid_map and gid_map");
        };
        require_mapped("uid", spec.uid);
        require_mapped("gid", spec.gid);
        for (auto&& [i, gid] : views::enumerate(spec.groups)) require_mapped(indexed("groups", i), gid);
        return;
    }
    check_id_maps(spec.uid_map, "uid_map");
    check_id_maps(spec.gid_map, "gid_map");
    const auto covers = [](const std::vector<IdMap>& maps, std::uint32_t id) {
        return ranges::any_of(maps, [&](const IdMap& m) { return id >= m.inside && id - m.inside < m.count; });
    };
    if (!covers(spec.uid_map, spec.uid)) refuse("uid", std::to_string(spec.uid) + " is not in uid_map");
    if (!covers(spec.gid_map, spec.gid)) refuse("gid", std::to_string(spec.gid) + " is not in gid_map");
    for (auto&& [i, gid] : views::enumerate(spec.groups)) {
        if (!covers(spec.gid_map, gid)) refuse(indexed("groups", i), std::to_string(gid) + " is not in gid_map");
    }
}

void check_protected(const char* field, const std::vector<std::string>& paths, const char* remedy) {
    for (auto&& [i, path] : views::enumerate(paths)) {
        check_path(indexed(field, i), path);
        // A process's root stays the mount that it is, whatever is put over it.
        if (names_root(path)) refuse(indexed(field, i), quote(path) + " is the root itself", remedy);
    }
}

void check_networks(const ContainerSpec& spec) {
    for (auto&& [i, network] : views::enumerate(spec.networks)) {
        check_network(indexed("networks", i), network);
        const auto refuse_twice = [&spec, i = i](const char* member, std::string NetworkSpec::*name) {
            const std::string& own = spec.networks[static_cast<std::size_t>(i)].*name;
            const auto same = [&own, name](const NetworkSpec& other) { return other.*name == own; };
            if (own.empty() || ranges::count_if(spec.networks, same) == 1) return;
            refuse(indexed("networks", static_cast<std::size_t>(i), member), quote(own) + " is given twice");
        };
        refuse_twice(".name", &NetworkSpec::name);
        refuse_twice(".host_name", &NetworkSpec::host_name);
    }
    unsigned unnamed = 0;
    for (auto&& [i, network] : views::enumerate(spec.networks)) {
        if (!network.name.empty()) continue;
        const std::string name = "eth" + std::to_string(unnamed++);
        const auto same = ranges::find(spec.networks, name, &NetworkSpec::name);
        if (same == spec.networks.end()) continue;
        refuse(
            indexed("networks", static_cast<std::size_t>(same - spec.networks.begin()), ".name"),
            quote(name) + " is what " + indexed("networks", static_cast<std::size_t>(i)) + " is called without a name",
            "name both");
    }
}

}  // namespace

void check_id_maps(const std::vector<IdMap>& maps, const std::string& field) {
    if (maps.empty()) refuse(field, "it is empty", "uid_map and gid_map come together");
    if (maps.size() > most_map_lines) {
        refuse(field, std::to_string(maps.size()) + " lines", "the kernel takes at most 340");
    }
    const auto describe = [](const IdMap& m) {
        return "{" + std::to_string(m.inside) + ", " + std::to_string(m.outside) + ", " + std::to_string(m.count) + "}";
    };
    for (auto&& [i, m] : views::enumerate(maps)) {
        if (m.count == 0) refuse(indexed(field.c_str(), i), describe(m) + " has no ids");
        // 4294967295 is no id, so a range may end right before it.
        if (m.count > 0xffffffffu - m.inside || m.count > 0xffffffffu - m.outside) {
            refuse(indexed(field.c_str(), i), describe(m) + " goes past the last id, 4294967294");
        }
    }
    const auto refuse_overlap = [&](std::uint32_t IdMap::*start, const char* side) {
        std::vector<IdMap> sorted = maps;
        std::sort(sorted.begin(), sorted.end(), [&](const IdMap& a, const IdMap& b) { return a.*start < b.*start; });
        for (std::size_t i = 1; i < sorted.size(); ++i) {
            if (sorted[i].*start - sorted[i - 1].*start < sorted[i - 1].count) {
                refuse(field, describe(sorted[i - 1]) + " and " + describe(sorted[i]) + " overlap " + side);
            }
        }
    };
    refuse_overlap(&IdMap::inside, "inside");
    refuse_overlap(&IdMap::outside, "outside");
    if (!ranges::any_of(maps, [](const IdMap& m) { return m.inside == 0; })) {
        refuse(field, "root (id 0) is not in it", "map inside id 0: the container is made by its root");
    }
    if (const std::size_t bytes = detail::map_text(maps).size(); bytes > detail::longest_map_text) {
        refuse(field, "its " + std::to_string(maps.size()) + " lines have " + std::to_string(bytes) + " bytes",
               "the kernel takes 4095: give fewer lines");
    }
}

void check(const ContainerSpec& spec) {
    if (!is_valid_name(spec.name)) {
        refuse("name", quote(spec.name) + " is no valid name",
               "use a letter or digit, then up to 62 letters, digits, '_', '.' and '-'");
    }
    check_root(spec);
    check_command(spec);
    check_path("working_directory", spec.working_directory);
    check_hostname(spec.hostname);
    if (spec.namespaces.has(NamespaceKind::time)) {
        refuse("namespaces", "a time namespace is not supported", "remove NamespaceKind::time");
    }
    check_process(spec);
    check_users(spec);
    check_mounts(spec);
    check_protected("masked_paths", spec.masked_paths, "name what is below it");
    check_protected("read_only_paths", spec.read_only_paths, "set root_read_only to true");
    for (auto&& [i, path] : views::enumerate(spec.masked_paths)) {
        if (path.find('*') != std::string::npos && !path.starts_with("/proc/") && !path.starts_with("/sys/")) {
            refuse(indexed("masked_paths", i), quote(path) + " holds '*' and is below neither /proc nor /sys",
                   "name each path");
        }
    }
    check_networks(spec);
    check_devices(spec);
    check_seccomp(spec);
    check_consoles(spec);
    check_group_limits(spec);
    if (spec.count_cpus && !spec.cgroup) refuse("count_cpus", "it needs a control group", "set cgroup to true");
    check_lifecycle(spec);
    check_no_nul("uuid", spec.uuid);
    if (!spec.cgroup_parent.empty()) check_path("cgroup_parent", spec.cgroup_parent);
    if (!spec.stage_path.empty()) check_path("stage_path", spec.stage_path);
    if (!spec.id_map_tools.empty()) check_path("id_map_tools", spec.id_map_tools);
}

}  // namespace caisson::inline v0
