// src/check_exec.cpp - what makes an ExecSpec impossible.
#include <string>

#include <caisson/check.hpp>
#include <caisson/exec.hpp>

#include "check_parts.hpp"
#include "exec_spec.hpp"

namespace caisson::inline v0 {

using checking::refuse;

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

}  // namespace caisson::inline v0
