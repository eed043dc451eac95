// caisson/detail/plan_payload.hpp - the part of a Plan about what a container's command is as a process: its settings,
// limits, credentials and environment.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <unistd.h>

#include <caisson/detail/consoles.hpp>
#include <caisson/detail/filter.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/detail/user_database.hpp>
#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// What each process may take, with the defaults, which are lowered to what the host has itself.
[[nodiscard]] inline std::vector<ResourceLimit> effective_limits(const ContainerSpec& spec) {
    std::vector<ResourceLimit> all = spec.resource_limits;
    for (ResourceLimit limit :
         {ResourceLimit{ResourceLimit::Kind::core, 0, 0}, ResourceLimit{ResourceLimit::Kind::nofile, 1024, 524288}}) {
        const bool is_given =
            std::any_of(all.begin(), all.end(), [&](const ResourceLimit& l) { return l.kind == limit.kind; });
        if (is_given) continue;
        rlimit own{};
        if (::getrlimit(static_cast<__rlimit_resource>(limit.kind), &own) == 0) {
            limit.hard = std::min<std::uint64_t>(limit.hard, own.rlim_max);
        }
        limit.soft = std::min(limit.soft, limit.hard);
        all.push_back(limit);
    }
    return all;
}

[[nodiscard]] inline std::string limit_text(std::uint64_t value) {
    return value == ResourceLimit::unlimited ? std::string{"unlimited"} : std::to_string(value);
}
[[nodiscard]] inline std::string describe(const ResourceLimit& limit) {
    return "resource limit " + quote(ResourceLimit::name(limit.kind)) + ": soft " + limit_text(limit.soft) + ", hard " +
           limit_text(limit.hard);
}

/// The limits that are above the host's own: only the keeper may set those, and only before init has other ids.
[[nodiscard]] inline std::vector<Raise> raises_of(const std::vector<ResourceLimit>& limits) {
    std::vector<Raise> raises;
    for (const ResourceLimit& limit : limits) {
        rlimit own{};
        if (::getrlimit(static_cast<__rlimit_resource>(limit.kind), &own) != 0 || limit.hard <= own.rlim_max) continue;
        raises.push_back({static_cast<std::uint32_t>(limit.kind), 0, own.rlim_cur, limit.hard});
    }
    return raises;
}

/// Below /proc/sys: "net/ipv4/ip_forward". Where the first separator is a '.', dots and slashes change places, as for
/// sysctl(8).
[[nodiscard]] inline std::string sysctl_path(std::string name) {
    const std::size_t first = name.find_first_of("./");
    if (first == std::string::npos || name[first] == '/') return name;
    for (char& c : name) c = c == '.' ? '/' : c == '/' ? '.' : c;
    return name;
}

inline constexpr std::string_view domain_name = "kernel/domainname";

/// `proc`: a procfs of init's that has been made.
inline void plan_sysctls(PlanBuilder& plan, const ContainerSpec& spec, Slot proc) {
    for (const auto& [name, value] : spec.sysctls) {
        const std::string path = sysctl_path(name);
        Instr instr{.op = Op::write_setting, .slot = proc, .a = plan.text("sys/" + path), .b = plan.text(value)};
        // Its file is for the host's root alone to write to, whoever has the uts namespace.
        if (path == domain_name) instr = {.op = Op::domainname, .a = instr.b, .x = value.size()};
        plan.add(instr, Step::sysctl, "sysctl " + quote(name) + " = " + quote(value));
    }
}

/// Before anything is opened: a number that is free would come to mean a descriptor of this start.
inline void check_descriptors(const ContainerSpec& spec) {
    const auto require_open = [](int fd, const char* field) {
        if (fd < 0 || ::fcntl(fd, F_GETFD) >= 0) return;
        fail(Step::descriptors, std::string{field} + ", descriptor " + std::to_string(fd),
             "it is not open: give -1 for the null device");
    };
    for (std::size_t i = 0; i < spec.descriptors.size(); ++i) {
        if (::fcntl(spec.descriptors[i], F_GETFD) >= 0) continue;
        fail(Step::descriptors,
             "descriptors[" + std::to_string(i) + "], descriptor " + std::to_string(spec.descriptors[i]),
             "it is not open");
    }
    if (spec.console) return;
    require_open(spec.stdio.in, "stdio.in");
    require_open(spec.stdio.out, "stdio.out");
    require_open(spec.stdio.err, "stdio.err");
}

/// Throws where the kernel would not hold the command to the spec's label.
inline void check_security_label(const ContainerSpec& spec) {
    if (spec.security_label.empty()) return;
    const bool apparmor = spec.security_label.starts_with("apparmor:");
    const auto refuse = [&](std::string_view why, std::string_view remedy) {
        throw Error{Step::check_spec, 0,
                    std::string{"security_label: "} + quote(spec.security_label) + ", but " + std::string{why},
                    std::string{"leave it empty, or "} + std::string{remedy}};
    };
    std::string text;
    // The file is there in every kernel that was built with AppArmor; it can be read where that is in use.
    const bool is_used = apparmor ? sys::read_file(AT_FDCWD, "/proc/thread-self/attr/apparmor/current", text)
                                  : sys::read_file(AT_FDCWD, "/proc/filesystems", text) &&
                                        text.find("\tselinuxfs\n") != std::string::npos;
    if (!is_used) {
        refuse(std::string{"this kernel runs without "} + (apparmor ? "AppArmor" : "SELinux"),
               "start the kernel with the module");
    }
    // Without a policy SELinux takes any context and does nothing with it. A context has colons.
    if (!apparmor && sys::read_file(AT_FDCWD, "/proc/thread-self/attr/current", text) &&
        text.find(':') == std::string::npos) {
        refuse("SELinux has no policy", "load one");
    }
}

inline void plan_security_label(PlanBuilder& plan, const ContainerSpec& spec, Slot proc) {
    if (spec.security_label.empty()) return;
    const std::size_t colon = spec.security_label.find(':');
    const std::string module = spec.security_label.substr(0, colon);
    const std::string label = spec.security_label.substr(colon + 1);
    const bool apparmor = module == "apparmor";
    plan.add({.op = Op::write_setting,
              .slot = proc,
              .a = plan.text(apparmor ? "thread-self/attr/apparmor/exec" : "thread-self/attr/exec"),
              .b = plan.text(apparmor ? "exec " + label : label)},
             Step::credentials, "security label " + quote(spec.security_label));
}

inline void plan_filter(PlanBuilder& plan, const ContainerSpec& spec) {
    const std::vector<std::uint64_t> program = filter_program(spec);
    if (program.empty()) return;
    plan.add({.op = Op::filter, .a = plan.array(program), .x = program.size()}, Step::credentials,
             "system call filter");
}

inline void plan_credentials(PlanBuilder& plan, const ContainerSpec& spec, const Identity& identity,
                             bool keeps_groups) {
    plan.add({.op = Op::bounding_set, .x = spec.capabilities.bounding.bits()}, Step::credentials, "bounding set");
    // The kernel wants CAP_SYS_ADMIN or no_new_privs for it. What comes later must pass it: see src/check_seccomp.cpp.
    if (!spec.no_new_privileges) plan_filter(plan, spec);
    const CapabilitySpec& caps = spec.capabilities;
    Ref flags = 0;
    if (keeps_groups) flags |= credentials_keep_groups;
    if ((caps.inheritable.bits() | caps.ambient.bits()) != 0) flags |= credentials_keep_capabilities;
    plan.add({.op = Op::credentials,
              .a = plan.array(identity.groups),
              .b = flags,
              .x = static_cast<std::uint64_t>(identity.uid) << 32 | identity.gid,
              .y = identity.groups.size()},
             Step::credentials, "user " + std::to_string(identity.uid) + " and group " + std::to_string(identity.gid));
    const Capabilities sets{caps.permitted.bits(), caps.effective.bits(), caps.inheritable.bits(), caps.ambient.bits()};
    plan.add({.op = Op::capabilities, .a = plan.array(std::vector{sets})}, Step::credentials, "capabilities");
    if (spec.no_new_privileges) plan.add({.op = Op::no_new_privileges}, Step::credentials, "no new privileges");
}

inline void plan_limits(PlanBuilder& plan, const std::vector<ResourceLimit>& limits) {
    for (const ResourceLimit& limit : limits) {
        plan.add({.op = Op::resource_limit, .other = static_cast<Slot>(limit.kind), .x = limit.soft, .y = limit.hard},
                 Step::credentials, describe(limit));
    }
}

/// What the command starts with.
[[nodiscard]] inline std::vector<std::string> environment_of(const ContainerSpec& spec, const Identity& identity) {
    std::vector<std::string> all;
    const auto given = [&](std::string_view name) {
        return std::any_of(spec.environment.begin(), spec.environment.end(),
                           [&](const auto& variable) { return variable.first == name; });
    };
    const auto add_default = [&](const std::string& name, const std::string& value) {
        if (!given(name)) all.push_back(name + "=" + value);
    };
    add_default("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add_default("TERM", "linux");
    add_default("HOME", identity.home.empty() ? "/" : identity.home);
    add_default("container", "caisson");
    if (!spec.uuid.empty()) add_default("container_uuid", spec.uuid);
    if (!spec.more_consoles.empty()) {
        std::string names;
        for (std::size_t i = 1; i < consoles_of(spec); ++i) names += (i > 1 ? " " : "") + terminal_of_console(i);
        add_default("container_ttys", names);
    }
    for (const auto& [key, value] : spec.environment) all.push_back(key + "=" + value);
    return all;
}

}  // namespace caisson::inline v0::detail
