// src/seccomp/calls.hpp - whether a name is one of a system call.
#pragma once

#include <cstdint>
#include <string>

namespace caisson::inline v0::seccomp {

/// False in a library without libseccomp, where there is nothing to filter with.
extern const bool available;

enum class Known : std::uint8_t {
    no,
    native_only,  ///< newer than libseccomp, which therefore cannot tell its number in 32-bit programs
    foreign,      ///< of other machines, or of 32-bit programs where these are not meant: a rule would do nothing
    yes,
};
[[nodiscard]] Known find_call(const std::string& name, bool compat);

}  // namespace caisson::inline v0::seccomp
