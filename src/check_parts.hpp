// src/check_parts.hpp - the parts of `check`, and what they share. Each throws `Step::check_spec`.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::checking {

using detail::quote;

[[noreturn]] inline void refuse(const std::string& field, const std::string& problem, std::string_view remedy = {}) {
    throw Error{Step::check_spec, 0, field + ": " + problem, remedy};
}
inline std::string indexed(const char* list, std::size_t index, const char* member = "") {
    return std::string{list} + "[" + std::to_string(index) + "]" + member;
}
/// Absolute, of bearable length and without `..`, which would be resolved inside the container but misread by people.
void path(const std::string& field, const std::string& path);

/// check_process.cpp: what the command is as a process.
void process(const ContainerSpec& spec);

}  // namespace caisson::inline v0::checking
