// caisson/detail/filter.hpp - the program of a container's system call filter.
#pragma once

#include <cstdint>
#include <vector>

#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// The program as the kernel takes it: one `struct sock_filter` of eight bytes after the other. Empty where there is
/// nothing to filter. Throws `Step::check_spec` where the rules are too many.
[[nodiscard]] [[gnu::visibility("default")]] std::vector<std::uint64_t> filter_program(const ContainerSpec& spec);

}  // namespace caisson::inline v0::detail
