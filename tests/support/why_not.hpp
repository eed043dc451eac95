// support/why_not.hpp - why a test of containers cannot be done here.
#pragma once

#include <unistd.h>

#include "support/rootfs.hpp"

namespace caisson_test {

/// A reason to skip; none where containers can be started.
inline const char* why_not() {
    return ::geteuid() != 0 ? "this needs root" : TestRoot::missing();
}

}  // namespace caisson_test
