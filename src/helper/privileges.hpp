// helper/privileges.hpp - how the helper comes to be a process of its own, and what it gives up.
#pragma once

#include <caisson/resource_limit.hpp>

namespace caisson_helper {

using namespace caisson;

/// A process like any other: signals as by default, a session of its own, no directory held.
void become_independent();

/// Keeps what signalling the container and removing its control groups takes. Whatever a question needs beyond that, a
/// client does with its own rights, on the descriptors that it is given.
void lower_privileges();

/// For many containers: as many descriptors as may be, and little memory for each thread. What the limit was before is
/// what the containers get.
ResourceLimit make_room();

}  // namespace caisson_helper
