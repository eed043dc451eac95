// support/promises.hpp - deadlines that the library promises, in milliseconds.
#pragma once

namespace caisson_test {

/// For a machine that does much else at the same time.
inline constexpr int slack = 3000;
/// Beyond its grace, stop() takes no longer than this.
inline constexpr int beyond_grace = 500 + slack;
/// Whose helper was killed is dead after this.
inline constexpr int dead_within = 1000 + slack;

}  // namespace caisson_test
