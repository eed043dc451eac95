// src/usage_text.cpp - reads the text of control groups' files, without allocating but for a device or a CPU more.
#include "usage_text.hpp"

#include <limits>
#include <string_view>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>

namespace caisson::inline v0::detail {
namespace {

using Number = std::optional<std::uint64_t>;
constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

/// Calls `f(key, value)` for each line "KEY VALUE".
template <class F>
void for_each_line(std::string_view text, F&& f) {
    while (!text.empty()) {
        std::string_view line = take_field(text, '\n');
        const std::string_view key = take_field(line, ' ');
        f(key, line);
    }
}

/// A product that does not fit is the largest number.
Number scaled(std::string_view value, std::uint64_t by) noexcept {
    const Number number = parse_decimal(value, most);
    if (!number) return std::nullopt;
    return *number > most / by ? most : *number * by;
}

/// "MAJOR:MINOR" to the device's entry, which is made where there is none.
BlockUsage* device_of(std::string_view name, std::vector<BlockUsage>& all) {
    constexpr std::uint64_t largest = std::numeric_limits<std::uint32_t>::max();
    const Number major = parse_decimal(take_field(name, ':'), largest);
    const Number minor = parse_decimal(name, largest);
    if (!major || !minor) return nullptr;
    // The lines of one device are together, and both files of v1 have the devices in the same order: so the last one
    // that was found is a good guess, but not more.
    for (BlockUsage& one : all) {
        if (one.major == *major && one.minor == *minor) return &one;
    }
    all.push_back({static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor), 0, 0, 0, 0});
    return &all.back();
}

/// "1.23" in hundredths.
std::uint32_t hundredths(std::string_view text) noexcept {
    const Number whole = parse_decimal(take_field(text, '.'), 100);
    if (!whole || text.size() != 2) return 0;
    std::uint32_t part = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return 0;
        part = part * 10 + static_cast<std::uint32_t>(c - '0');
    }
    return static_cast<std::uint32_t>(*whole) * 100 + part;
}

}  // namespace

std::optional<std::uint64_t> find_number(std::string_view text, std::string_view key) noexcept {
    Number found;
    for_each_line(text, [&](std::string_view name, std::string_view value) {
        if (name == key) found = parse_decimal(value, most);
    });
    return found;
}

Number parse_number(std::string_view text) noexcept {
    return parse_decimal(take_field(text, '\n'), most);
}

Number parse_memory_limit(std::string_view text, std::uint64_t page) noexcept {
    const Number bytes = parse_number(text);
    constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return bytes && *bytes < largest / page * page ? bytes : std::nullopt;
}

void parse_cpu_each(std::string_view text, Usage& into) {
    std::uint64_t sum = 0;
    for (std::string_view line = take_field(text, '\n'); !line.empty();) {
        const Number one = parse_decimal(take_field(line, ' '), most);
        if (!one) continue;
        into.cpu_each.push_back(*one);
        sum += *one;
    }
    if (!into.cpu_each.empty()) into.cpu = sum;
}

void parse_cpu_ticks(std::string_view text, std::uint64_t tick, Usage& into) noexcept {
    for_each_line(text, [&](std::string_view key, std::string_view value) {
        if (key == "user") into.cpu_user = scaled(value, tick);
        else if (key == "system") into.cpu_system = scaled(value, tick);
    });
}

void parse_cpu_stat(std::string_view text, bool details, Usage& into) noexcept {
    for_each_line(text, [&](std::string_view key, std::string_view value) {
        if (key == "usage_usec") into.cpu = scaled(value, 1000);
        else if (!details) return;
        else if (key == "user_usec") into.cpu_user = scaled(value, 1000);
        else if (key == "system_usec") into.cpu_system = scaled(value, 1000);
        else if (key == "throttled_usec") into.cpu_throttled = scaled(value, 1000);
    });
}

void parse_throttled(std::string_view text, Usage& into) noexcept {
    for_each_line(text, [&](std::string_view key, std::string_view value) {
        if (key == "throttled_time") into.cpu_throttled = scaled(value, 1);
        else if (key == "throttled_usec") into.cpu_throttled = scaled(value, 1000);
    });
}

bool parse_memory_stat(std::string_view text, std::uint64_t page, Usage& into) noexcept {
    bool limited = true;
    // v1 tells the group's own first, and then the total with what is below.
    for_each_line(text, [&](std::string_view key, std::string_view value) {
        if (key == "anon" || key == "total_rss") into.memory_anon = scaled(value, 1);
        else if (key == "file" || key == "total_cache") into.memory_file = scaled(value, 1);
        else if (key == "total_swap") into.swap = scaled(value, 1);
        else if (key == "hierarchical_memory_limit") limited = parse_memory_limit(value, page).has_value();
    });
    return limited;
}

void parse_memory_events(std::string_view text, Usage& into) noexcept {
    for_each_line(text, [&](std::string_view key, std::string_view value) {
        if (key == "oom_kill") into.oom_kills = scaled(value, 1);
        else if (key == "max") into.memory_limit_hits = scaled(value, 1);
    });
}

void parse_block_v1(std::string_view text, std::uint64_t BlockUsage::*read, std::uint64_t BlockUsage::*write,
                    std::vector<BlockUsage>& into) {
    for_each_line(text, [&](std::string_view name, std::string_view rest) {
        const std::string_view what = take_field(rest, ' ');
        const auto member = what == "Read" ? read : what == "Write" ? write : nullptr;
        const Number value = parse_decimal(rest, most);
        if (member == nullptr || !value) return;
        if (BlockUsage* const device = device_of(name, into)) device->*member = *value;
    });
}

void parse_block_v2(std::string_view text, std::vector<BlockUsage>& into) {
    for_each_line(text, [&](std::string_view name, std::string_view rest) {
        BlockUsage* device = nullptr;  // a line without figures is of a device that was never used
        while (!rest.empty()) {
            std::string_view value = take_field(rest, ' ');
            const std::string_view key = take_field(value, '=');
            const auto member = key == "rbytes"   ? &BlockUsage::read_bytes
                                : key == "wbytes" ? &BlockUsage::write_bytes
                                : key == "rios"   ? &BlockUsage::read_operations
                                : key == "wios"   ? &BlockUsage::write_operations
                                                  : nullptr;
            const Number number = parse_decimal(value, most);
            if (member == nullptr || !number) continue;
            if (device == nullptr) device = device_of(name, into);
            if (device == nullptr) return;
            device->*member = *number;
        }
    });
}

std::optional<Pressure> parse_pressure(std::string_view text) noexcept {
    std::optional<Pressure> pressure;
    for_each_line(text, [&](std::string_view key, std::string_view rest) {
        if (key != "some" && key != "full") return;
        const bool some = key == "some";
        if (!pressure) pressure.emplace();
        while (!rest.empty()) {
            std::string_view value = take_field(rest, ' ');
            const std::string_view name = take_field(value, '=');
            if (name == "avg10") (some ? pressure->some_10s : pressure->full_10s) = hundredths(value);
            if (name == "total") (some ? pressure->some : pressure->full) = parse_decimal(value, most).value_or(0);
        }
    });
    return pressure;
}

}  // namespace caisson::inline v0::detail
