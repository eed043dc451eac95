// caisson/detail/consoles.hpp - the terminals of a spec by number.
#pragma once

#include <cstddef>
#include <string>

#include <caisson/fd.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// `more_consoles` counts only beside `console`.
[[nodiscard]] inline std::size_t consoles_of(const ContainerSpec& spec) noexcept {
    return spec.console ? 1 + spec.more_consoles.size() : 0;
}
[[nodiscard]] inline const ConsoleSpec& console_of(const ContainerSpec& spec, std::size_t number) {
    return number == 0 ? *spec.console : spec.more_consoles[number - 1];
}
/// For messages.
[[nodiscard]] inline std::string name_of_console(std::size_t number) {
    return number == 0 ? "the console" : "console " + std::to_string(number);
}
/// For the beginning of one.
[[nodiscard]] inline std::string title_of_console(std::size_t number) {
    return number == 0 ? "console" : name_of_console(number);
}
/// Below /dev. They are the first of a devpts instance of their own, which the kernel numbers one after the other.
[[nodiscard]] inline std::string terminal_of_console(std::size_t number) {
    return number == 0 ? "console" : "pts/" + std::to_string(number);
}

/// The file that a full log's content goes to, made if it is missing, for who may neither make nor rename one later.
/// None where it is refused.
[[nodiscard]] [[gnu::visibility("default")]] Fd open_old_log(const ConsoleSpec& spec);

}  // namespace caisson::inline v0::detail
