// helper/privileges.hpp - how the helper comes to be a process of its own, and what it gives up.
#pragma once

namespace caisson_helper {

/// A process like any other: signals as by default, a session of its own, no directory held.
void become_independent();

/// Keeps what signalling the container and removing its control groups takes. Whatever a question needs beyond that, a
/// client does with its own rights, on the descriptors that it is given.
void lower_privileges();

}  // namespace caisson_helper
