// src/check_exec.cpp - what makes an ExecSpec impossible.
#include <string>

#include <caisson/check.hpp>
#include <caisson/exec.hpp>

#include "check_parts.hpp"
#include "exec_spec.hpp"

namespace caisson::inline v0 {

using checking::refuse;

namespace {

/// Root inside may take hold of the command by ptrace(2): then it has what the command has.
void check_walls(const ExecSpec& exec, const ContainerSpec& container, bool has_groups) {
    if (container.has_user_namespace()) return;
    for (const NamespaceKind kind : all_namespace_kinds) {
        if (!container.namespaces.has(kind) || exec.namespaces.has(kind)) continue;
        refuse("namespaces", std::string{"'"} + to_string(kind) + "' is missing, and root inside is root outside",
               "it could reach the host by such a command: name all that the container has, or give it a user "
               "namespace");
    }
    if (has_groups && !exec.cgroup) {
        refuse("cgroup", "it is false, and root inside is root outside",
               "it could use any device and resource of the host by such a command: leave it true, or give the "
               "container a user namespace");
    }
}

}  // namespace

void check(const ExecSpec& spec) {
    for (const NamespaceKind kind : {NamespaceKind::mount, NamespaceKind::pid, NamespaceKind::user}) {
        if (spec.namespaces.has(kind)) continue;
        refuse("namespaces", std::string{"'"} + to_string(kind) + "' is missing",
               "a program in the container could reach the host by a command without it");
    }
    if (spec.start_timeout.count() <= 0) {
        refuse("start_timeout", std::to_string(spec.start_timeout.count()) + " ms", "give more than 0");
    }
    const bool has_stdio = spec.stdio != StdioSpec{};
    if (spec.console && has_stdio) refuse("stdio", "the command has a console", "give one of the two");
    // What it shares with a container's own command.
    ContainerSpec any;
    any.name = "exec";
    any.root = "/root";
    check(merged(spec, any));
}

void check_in(const ExecSpec& exec, const ContainerSpec& container, bool has_groups) {
    check_walls(exec, container, has_groups);
    checking::check_seccomp_of_exec(merged(exec, container), exec.console.has_value());
}

}  // namespace caisson::inline v0
