// src/exec_spec.cpp - what an ExecSpec makes of the spec of its container.
#include "exec_spec.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <caisson/detail/user_database.hpp>

namespace caisson::inline v0 {

ContainerSpec merged(const ExecSpec& exec, const ContainerSpec& container) {
    ContainerSpec spec = container;
    spec.command = exec.command;
    if (!exec.inherit_environment) spec.environment.clear();
    for (const auto& variable : exec.environment) {
        const auto same = [&](const auto& other) { return other.first == variable.first; };
        std::erase_if(spec.environment, same);
    }
    spec.environment.insert(spec.environment.end(), exec.environment.begin(), exec.environment.end());
    if (exec.working_directory) spec.working_directory = *exec.working_directory;
    if (!exec.user.empty()) {
        spec.user = exec.user;
        // They are those of another user. A number has no group in /etc/passwd, and root's would be more than was
        // asked.
        spec.group = detail::id_of(exec.user) ? exec.user : std::string{};
        spec.groups.clear();
    }
    if (!exec.group.empty()) spec.group = exec.group;
    if (exec.groups) spec.groups = *exec.groups;
    if (exec.capabilities) spec.capabilities = *exec.capabilities;
    if (exec.seccomp) spec.seccomp = *exec.seccomp;
    if (exec.no_new_privileges) spec.no_new_privileges = *exec.no_new_privileges;
    if (exec.security_label) spec.security_label = *exec.security_label;
    for (const ResourceLimit& limit : exec.resource_limits) {
        std::erase_if(spec.resource_limits, [&](const ResourceLimit& other) { return other.kind == limit.kind; });
    }
    spec.resource_limits.insert(spec.resource_limits.end(), exec.resource_limits.begin(), exec.resource_limits.end());
    if (exec.umask) spec.umask = *exec.umask;
    if (exec.oom_score_adj) spec.oom_score_adj = exec.oom_score_adj;
    spec.console.reset();
    spec.stdio = exec.stdio;
    spec.descriptors = exec.descriptors;
    spec.init = false;
    return spec;
}

}  // namespace caisson::inline v0
