// src/check_process.cpp - what makes impossible what a container's command is as a process.
#include "check_parts.hpp"

#include <cstdint>
#include <string>
#include <string_view>

#include <range/v3/algorithm/all_of.hpp>
#include <range/v3/algorithm/any_of.hpp>
#include <range/v3/algorithm/count_if.hpp>
#include <range/v3/view/enumerate.hpp>

#include <caisson/detail/plan_payload.hpp>
#include <caisson/detail/user_database.hpp>

namespace caisson::inline v0::checking {
namespace {

using detail::quote;
namespace views = ranges::views;

bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/// Only digits, or a name as useradd(8) takes it.
void check_user_name(const char* field, const std::string& name) {
    if (name.empty()) return;
    if (ranges::all_of(name, is_digit)) {
        if (!detail::id_of(name)) {
            refuse(field, quote(name) + " is no number of a user or group",
                   "give 0 to 4294967294, without leading zeros");
        }
        return;
    }
    const bool good = name.size() <= 32 && is_letter(name.front()) && ranges::all_of(name, [](char c) {
                          return is_letter(c) || is_digit(c) || c == '.' || c == '-' || c == '$';
                      });
    if (!good) {
        refuse(field, quote(name) + " is neither a name nor a number",
               "a name begins with a letter or '_' and has up to 32 letters, digits, '_', '.', '-' and '$'");
    }
}

void check_sysctl(const ContainerSpec& spec, const std::string& field, const std::string& name,
                  const std::string& value) {
    const std::string path = detail::sysctl_path(name);
    const bool spelled = !name.empty() && ranges::all_of(name, [](char c) {
        return is_letter(c) || is_digit(c) || c == '.' || c == '/' || c == '-' || c == '@' || c == ':';
    });
    const std::string bounded = "/" + path + "/";
    const bool walks = bounded.find("//") != std::string::npos || bounded.find("/./") != std::string::npos ||
                       bounded.find("/../") != std::string::npos;
    if (!spelled || walks) {
        refuse(field, quote(name) + " is no name of a kernel setting", "write it as sysctl(8) does");
    }
    if (value.empty() || value.size() > 4095 || value.find('\0') != std::string::npos ||
        value.find('\n') != std::string::npos) {
        refuse(field, quote(name) + " gets " + quote(value), "give one line of 1 to 4095 bytes");
    }
    const auto begins = [&](std::string_view with) { return std::string_view{path}.starts_with(with); };
    const auto require = [&](NamespaceKind kind) {
        if (spec.effective_namespaces().has(kind)) return;
        refuse(field,
               quote(name) + " is the host's, as the container has no " + to_string(kind) + " namespace of its own",
               std::string{"add NamespaceKind::"} + to_string(kind) + " to namespaces");
    };
    if (begins("net/")) return require(NamespaceKind::net);
    if (begins("user/")) return require(NamespaceKind::user);
    if (begins("fs/mqueue/") || begins("kernel/shm") || begins("kernel/msg") || path == "kernel/sem") return;
    if (path == detail::domain_name) {
        if (value.size() <= 64) return;
        refuse(field, quote(name) + " gets " + std::to_string(value.size()) + " bytes", "64 are possible");
    }
    refuse(field, quote(name) + " is the whole machine's",
           "those of a container are net.*, user.*, fs.mqueue.*, kernel.shm*, kernel.msg*, kernel.sem and "
           "kernel.domainname");
}

void check_capabilities(const CapabilitySpec& caps) {
    const auto require_within = [](const char* field, CapabilitySet set, CapabilitySet other, const char* of) {
        for (unsigned i = 0; i < 64; ++i) {
            if (!set.has(i) || other.has(i)) continue;
            const bool known = i < capability_names.size();
            refuse(std::string{"capabilities."} + field,
                   known ? "'" + std::string{capability_names[i]} + "' is not in " + of
                         : "number " + std::to_string(i) + " is no capability",
                   known ? "add it there as well" : "the kernel's list ends with 40, checkpoint_restore");
        }
    };
    require_within("bounding", caps.bounding, CapabilitySet::all(), "the kernel's list");
    require_within("permitted", caps.permitted, caps.bounding, "bounding");
    require_within("effective", caps.effective, caps.permitted, "permitted");
    require_within("inheritable", caps.inheritable, caps.permitted, "permitted");
    require_within("ambient", caps.ambient, caps.inheritable, "inheritable");
}

void check_limits(const ContainerSpec& spec) {
    for (auto&& [i, limit] : views::enumerate(spec.resource_limits)) {
        const std::string field = indexed("resource_limits", i);
        if (static_cast<std::size_t>(limit.kind) >= ResourceLimit::names.size()) {
            refuse(field + ".kind", std::to_string(static_cast<unsigned>(limit.kind)) + " is no resource limit");
        }
        if (limit.soft > limit.hard) {
            refuse(field, detail::describe(limit) + ": soft is above hard", "raise hard or lower soft");
        }
        const auto same = [kind = limit.kind](const ResourceLimit& other) { return other.kind == kind; };
        if (ranges::count_if(spec.resource_limits, same) > 1) {
            refuse(field, quote(ResourceLimit::name(limit.kind)) + " is given twice");
        }
    }
}

}  // namespace

void check_process(const ContainerSpec& spec) {
    check_user_name("user", spec.user);
    check_user_name("group", spec.group);
    if (spec.groups.size() > detail::UserFile::most_groups) {
        refuse("groups", std::to_string(spec.groups.size()) + " groups", "the kernel takes at most 65536");
    }
    for (auto&& [i, gid] : views::enumerate(spec.groups)) {
        if (gid > detail::last_id) refuse(indexed("groups", i), "4294967295 is no group id");
    }
    check_capabilities(spec.capabilities);
    check_limits(spec);
    for (auto&& [i, setting] : views::enumerate(spec.sysctls)) {
        check_sysctl(spec, indexed("sysctls", i), setting.first, setting.second);
        const auto same = [path = detail::sysctl_path(setting.first)](const auto& other) {
            return detail::sysctl_path(other.first) == path;
        };
        if (ranges::count_if(spec.sysctls, same) > 1) {
            refuse(indexed("sysctls", i), quote(setting.first) + " is given twice");
        }
    }
    if (spec.oom_score_adj && (*spec.oom_score_adj < -1000 || *spec.oom_score_adj > 1000)) {
        refuse("oom_score_adj", std::to_string(*spec.oom_score_adj) + " is out of range", "give -1000 to 1000");
    }
    if (spec.umask > 0777) {
        refuse("umask", std::to_string(spec.umask) + " has more than the nine permission bits", "give 0 to 0777");
    }
    if (spec.descriptors.size() > 256) {
        refuse("descriptors", std::to_string(spec.descriptors.size()) + " descriptors", "256 are possible");
    }
    const std::string& label = spec.security_label;
    if (!label.empty()) {
        const std::string_view rest = std::string_view{label}.substr(label.find(':') + 1);
        const bool known = label.starts_with("apparmor:") || label.starts_with("selinux:");
        const auto plain = [](char c) { return c > ' ' && c < 127; };
        if (!known || rest.empty() || rest.size() > 1024 || !ranges::all_of(rest, plain)) {
            refuse("security_label", quote(label) + " is no label",
                   "write 'apparmor:PROFILE' or 'selinux:USER:ROLE:TYPE:RANGE'");
        }
    }
    if (spec.cgroup_mount != CgroupMount::none && (!spec.cgroup || !spec.namespaces.has(NamespaceKind::cgroup))) {
        refuse("cgroup_mount", "the container has no control group and cgroup namespace of its own",
               "set cgroup to true and add NamespaceKind::cgroup to namespaces");
    }
}

}  // namespace caisson::inline v0::checking
