// doctest as every test uses it: <ostream> first, or std::error_code cannot be compared in a CHECK.
#pragma once

#include <ostream>

#include <doctest/doctest.h>

namespace caisson_test {
/// Counts and prints a skipped test; the caller returns right after it.
void skip(const char* reason);
}  // namespace caisson_test

/// Leaves the test case, telling why it cannot run on this machine.
#define CAISSON_SKIP(reason)        \
    do {                            \
        caisson_test::skip(reason); \
        return;                     \
    } while (false)
