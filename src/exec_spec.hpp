// src/exec_spec.hpp - what an ExecSpec makes of the spec of its container.
#pragma once

#include <caisson/exec.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// The command's spec as that of a container of its own.
[[nodiscard]] ContainerSpec merged(const ExecSpec& exec, const ContainerSpec& container);

/// Throws `Step::check_spec` where the command would open a way out of this container, or could not be started in it.
/// `has_groups`: the container has control groups of its own.
void check_in(const ExecSpec& exec, const ContainerSpec& container, bool has_groups);

}  // namespace caisson::inline v0
