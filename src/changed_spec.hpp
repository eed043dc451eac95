// changed_spec.hpp - what a container that runs has been changed to, as a spec that it is started again from.
#pragma once

#include <caisson/detail/equipment.hpp>
#include <caisson/limits.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// Gives the spec what was attached, and takes what was detached out of it, whether it came from the start or later.
void apply(const Change& change, ContainerSpec& spec);
/// As `Container::limit` changes what is in force.
void apply(const LimitSpec& change, LimitSpec& limits);

}  // namespace caisson::inline v0::detail
