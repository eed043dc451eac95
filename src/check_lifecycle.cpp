// src/check_lifecycle.cpp - what makes the rules for a container's end impossible.
#include <cstdint>
#include <optional>
#include <string>

#include <signal.h>

#include <caisson/lifecycle.hpp>
#include <caisson/spec.hpp>

#include "check_parts.hpp"

namespace caisson::inline v0::checking {
namespace {

constexpr std::uint32_t shortest_pause_ms = 10;
constexpr std::uint32_t longest_pause_ms = 86'400'000;

void check_pause(const char* field, std::uint32_t milliseconds) {
    if (milliseconds >= shortest_pause_ms && milliseconds <= longest_pause_ms) return;
    refuse(field, std::to_string(milliseconds) + " ms", "10 to 86400000 are possible");
}

void check_signal(const char* field, std::optional<std::int32_t> number) {
    if (!number) return;
    if (*number < 1 || *number > 64) refuse(field, std::to_string(*number) + " is no signal", "give 1 to 64");
    if (*number == SIGKILL || *number == SIGSTOP) {
        refuse(field,
               std::to_string(*number) + " is " + (*number == SIGKILL ? "SIGKILL" : "SIGSTOP") +
                   ", which no init is told of",
               "give one that it catches");
    }
}

}  // namespace

void check_lifecycle(const ContainerSpec& spec) {
    check_pause("back_off.first_pause_ms", spec.back_off.first_pause_ms);
    check_pause("back_off.longest_pause_ms", spec.back_off.longest_pause_ms);
    if (spec.back_off.longest_pause_ms < spec.back_off.first_pause_ms) {
        refuse("back_off.longest_pause_ms",
               std::to_string(spec.back_off.longest_pause_ms) + " ms are less than back_off.first_pause_ms, " +
                   std::to_string(spec.back_off.first_pause_ms),
               "give at least that");
    }
    check_signal("shutdown_signal", spec.shutdown_signal);
    check_signal("reboot_signal", spec.reboot_signal);
}

}  // namespace caisson::inline v0::checking
