// src/exec_spec.hpp - what an ExecSpec makes of the spec of its container.
#pragma once

#include <caisson/exec.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// The command's spec as that of a container of its own.
[[nodiscard]] ContainerSpec merged(const ExecSpec& exec, const ContainerSpec& container);

}  // namespace caisson::inline v0
