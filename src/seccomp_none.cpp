// src/seccomp_none.cpp - in the place of src/seccomp.cpp in a library without libseccomp.
#include <caisson/detail/filter.hpp>

#include "seccomp/calls.hpp"

namespace caisson::inline v0 {

const bool seccomp::available = false;

seccomp::Known seccomp::find_call(const std::string& /*name*/, bool /*compat*/) {
    return Known::no;
}
// check() has refused what would need one.
std::vector<std::uint64_t> detail::filter_program(const ContainerSpec& /*spec*/) {
    return {};
}

}  // namespace caisson::inline v0
