// src/check_consoles.cpp - what makes consoles, and what is to happen with what they say, impossible.
#include <cstddef>
#include <string>
#include <string_view>

#include <caisson/console.hpp>
#include <caisson/detail/consoles.hpp>
#include <caisson/detail/text.hpp>
#include <caisson/error.hpp>
#include <caisson/spec.hpp>

#include "check_parts.hpp"

namespace caisson::inline v0::checking {
namespace {

constexpr std::size_t most_more = 62;  // tty2 to tty63, the last that Linux has a name for
constexpr std::uint32_t most_scroll_back = 16u << 20;
constexpr std::uint64_t least_log = 4096;
constexpr char old_log[] = ".1";  // what a log with a limit is renamed to

std::string field_of(std::size_t number, const char* member) {
    return number == 0 ? std::string{"console"} + member : indexed("more_consoles", number - 1, member);
}

bool is_same(std::string_view log, std::string_view other) {
    return detail::path_parts(log) == detail::path_parts(other);
}

void check_one(const ContainerSpec& spec, std::size_t number) {
    const ConsoleSpec& console = detail::console_of(spec, number);
    if (console.scroll_back > most_scroll_back) {
        refuse(field_of(number, ".scroll_back"), std::to_string(console.scroll_back) + " bytes",
               "at most " + std::to_string(most_scroll_back) + " are possible");
    }
    if (console.log.empty()) {
        if (console.log_limit != 0) refuse(field_of(number, ".log_limit"), "there is no log", "give log, too");
        return;
    }
    check_path(field_of(number, ".log"), console.log);
    if (console.log.ends_with('/') || console.log.ends_with("/.")) {
        refuse(field_of(number, ".log"), detail::quote(console.log) + " is a directory", "name the file in it");
    }
    if (console.log_limit != 0 && console.log_limit < least_log) {
        refuse(field_of(number, ".log_limit"), std::to_string(console.log_limit) + " bytes",
               "give at least " + std::to_string(least_log) + ", or 0 for no limit");
    }
    for (std::size_t i = 0; i < number; ++i) {
        const ConsoleSpec& other = detail::console_of(spec, i);
        if (other.log.empty()) continue;
        const bool is_file = is_same(other.log, console.log);
        const bool is_old = other.log_limit != 0 && is_same(other.log + old_log, console.log);
        const bool has_old = console.log_limit != 0 && is_same(other.log, console.log + old_log);
        if (!is_file && !is_old && !has_old) continue;
        refuse(field_of(number, ".log"),
               detail::quote(console.log + (has_old ? old_log : "")) + " is that of " + field_of(i, ""),
               "give each a file of its own");
    }
}

}  // namespace

void check_consoles(const ContainerSpec& spec) {
    if (spec.console && !(spec.stdio == StdioSpec{})) {
        refuse("stdio", "it is given together with a console", "set console to nothing");
    }
    if (spec.more_consoles.empty()) {
        if (spec.console) check_one(spec, 0);
        return;
    }
    if (!spec.console) refuse("more_consoles", "they are given without a console", "set console, too");
    if (!spec.dev) refuse("more_consoles", "there is no /dev of the container's own", "set dev to true");
    if (spec.more_consoles.size() > most_more) {
        refuse("more_consoles", std::to_string(spec.more_consoles.size()) + " are given",
               "at most " + std::to_string(most_more) + " are possible");
    }
    for (std::size_t i = 0; i < detail::consoles_of(spec); ++i) check_one(spec, i);
}

}  // namespace caisson::inline v0::checking
