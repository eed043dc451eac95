// helper/guard.hpp - policy `outlive`: a process that owns the container and does nothing, beside one that serves it.
#pragma once

#include <caisson/detail/helper_wire.hpp>

#include "ward.hpp"

namespace caisson_helper {

/// Starts the container, and a copy of this process with the loop; when that dies, another. What the container needs of
/// its owner, the channel to the keeper, the consoles and the lock on its name, is here as well as there. Returns once
/// the container has ended, in both processes. Throws what the start throws.
void guard(detail::StartRequest request, Client& first);

}  // namespace caisson_helper
