// caisson/detail/usage_files.hpp - the files behind Cgroup::usage, kept open.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0::detail {

/// The number after `key` and a space at the start of a line.
[[nodiscard]] inline std::optional<std::uint64_t> find_counter(std::string_view text, std::string_view key) noexcept {
    while (!text.empty()) {
        std::string_view line = take_field(text, '\n');
        if (take_field(line, ' ') == key) return parse_decimal(line, UINT64_MAX);
    }
    return std::nullopt;
}

/// A limit on memory as the kernel writes it; nothing for none.
[[nodiscard]] inline std::optional<std::uint64_t> parse_memory_limit(std::string_view text,
                                                                     std::uint64_t page) noexcept {
    const auto bytes = parse_decimal(take_field(text, '\n'), UINT64_MAX);
    return bytes && *bytes < INT64_MAX / page * page ? bytes : std::nullopt;
}

/// The per-CPU figures of v1's cpuacct.usage_percpu, into `usage`, with their sum.
inline void parse_cpu_each(std::string_view text, Usage& usage) {
    std::uint64_t sum = 0;
    for (std::string_view line = take_field(text, '\n'); !line.empty();) {
        const auto one = parse_decimal(take_field(line, ' '), UINT64_MAX);
        if (!one) continue;
        usage.cpu_each.push_back(*one);
        sum += *one;
    }
    if (!usage.cpu_each.empty()) usage.cpu = sum;
}

/// The files behind `Cgroup::usage`, open for reading.
class UsageFiles {
public:
    enum File : std::size_t { cpu_each, cpu_ticks, cpu_stat, memory, memory_peak, memory_limit, pids, oom, count };

    void set(File file, Fd fd) noexcept { files_[file] = std::move(fd); }
    [[nodiscard]] Usage read() const {
        Usage usage;
        std::string text;
        const auto number = [&](File file) {
            if (!load(file, text)) return std::optional<std::uint64_t>{};
            std::string_view rest = text;
            return parse_decimal(take_field(rest, '\n'), UINT64_MAX);
        };
        if (load(cpu_each, text)) parse_cpu_each(text, usage);
        if (load(cpu_ticks, text)) {
            const std::uint64_t tick = 1'000'000'000 / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
            usage.cpu_user = scaled(find_counter(text, "user"), tick);
            usage.cpu_system = scaled(find_counter(text, "system"), tick);
        }
        if (load(cpu_stat, text)) {
            usage.cpu = scaled(find_counter(text, "usage_usec"), 1000);
            usage.cpu_user = scaled(find_counter(text, "user_usec"), 1000);
            usage.cpu_system = scaled(find_counter(text, "system_usec"), 1000);
        }
        usage.memory = number(memory);
        usage.memory_peak = number(memory_peak);
        if (load(memory_limit, text)) {
            usage.memory_limit = parse_memory_limit(text, static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
        }
        usage.pids = number(pids);
        if (load(oom, text)) usage.oom_kills = find_counter(text, "oom_kill");
        return usage;
    }

private:
    static std::optional<std::uint64_t> scaled(std::optional<std::uint64_t> value, std::uint64_t by) noexcept {
        return value ? std::optional{*value * by} : std::nullopt;
    }
    /// All of a file, from its start; false where it is not there.
    bool load(File file, std::string& into) const {
        into.clear();
        if (!files_[file]) return false;
        char buffer[4096];
        do {
            const ssize_t n = sys::retry(
                [&] { return ::pread(files_[file].get(), buffer, sizeof buffer, static_cast<off_t>(into.size())); });
            if (n < 0) {
                fail(Step::cgroup, "read the usage of a control group", errno == ENODEV ? "the group was removed" : "");
            }
            if (n == 0) break;
            into.append(buffer, static_cast<std::size_t>(n));
        } while (into.back() != '\n');
        return true;
    }

    Fd files_[count];
};

}  // namespace caisson::inline v0::detail
