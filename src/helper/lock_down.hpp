// helper/lock_down.hpp - what a helper that has no start to make any more keeps itself from.
#pragma once

#include <vector>

#include <linux/filter.h>

#include <caisson/spec.hpp>

#include "run_directory.hpp"

namespace caisson_helper {

using namespace caisson;

/// For the calling thread, and for good: it opens nothing to write to but its place in the run directory, control
/// groups, terminals and the logs of the spec's consoles, and nothing to read but that, /proc and /sys (landlock(7),
/// where the kernel has it); it makes no process, runs no program, makes no socket but a pair, and maps nothing
/// executable (seccomp(2)). What is refused fails with EACCES or EPERM, and ends nothing. Wants no_new_privs.
void lock_down(const RunDirectory& place, const ContainerSpec& spec);

/// The filter of system calls: those that the loop makes, on all its ways, pass.
[[nodiscard]] std::vector<sock_filter> loop_filter();

}  // namespace caisson_helper
