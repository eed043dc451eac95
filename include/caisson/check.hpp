// caisson/check.hpp - whether a ContainerSpec can work at all, as far as the spec itself tells.
#pragma once

#include <string>

#include <caisson/error.hpp>
#include <caisson/limits.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// Throws `Error` with `Step::check_spec`, naming the field, the value and the remedy, if `spec` cannot work.
///
/// Looks at the spec only, never at the system: what the machine lacks is found when the container starts. Safe from
/// any thread. `Container::start` calls it.
[[gnu::visibility("default")]] void check(const ContainerSpec& spec);

/// Throws as `check` does if `limits` cannot be set in a container that runs, and also if they name a CPU, a memory
/// node, a block device or a size of huge pages that this machine does not have. `Container::limit` calls it.
[[gnu::visibility("default")]] void check_limit_change(const LimitSpec& limits);

/// Throws as `check` does if `maps` is no valid list for the named field ("uid_map"): empty, more than 340 lines,
/// ranges that wrap or overlap inside or outside, or nothing for root (inside id 0). See user_namespaces(7).
[[gnu::visibility("default")]] void check_id_maps(const std::vector<IdMap>& maps, const std::string& field);

namespace detail {
/// Throws as `check` does if `limits` name what this machine does not have.
[[gnu::visibility("default")]] void check_machine_has(const LimitSpec& limits);
/// Throw `Step::check_spec` for what no container that runs can be given: "network.bridge: it is empty". `container`:
/// its id maps, and whether it has a control group, as far as the device depends on it.
[[gnu::visibility("default")]] void check_attach(const NetworkSpec& network);
[[gnu::visibility("default")]] void check_attach(const MountSpec& mount);
[[gnu::visibility("default")]] void check_attach(const DeviceSpec& device, const ContainerSpec& container);
}  // namespace detail

}  // namespace caisson::inline v0
