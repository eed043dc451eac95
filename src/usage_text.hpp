// src/usage_text.hpp - the text of control groups' files, as values. What is not of the files' form is passed over.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <caisson/usage.hpp>

namespace caisson::inline v0::detail {

/// The number at the start of a file; nothing for "max".
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view text) noexcept;
/// The number of the line "KEY NUMBER".
[[nodiscard]] std::optional<std::uint64_t> find_number(std::string_view text, std::string_view key) noexcept;
/// A limit on memory; nothing for none.
[[nodiscard]] std::optional<std::uint64_t> parse_memory_limit(std::string_view text, std::uint64_t page) noexcept;
/// v1 cpuacct.usage_percpu, into `cpu_each`, and their sum into `cpu`.
void parse_cpu_each(std::string_view text, Usage& into);
/// v1 cpuacct.stat; `tick` is a clock tick's nanoseconds.
void parse_cpu_ticks(std::string_view text, std::uint64_t tick, Usage& into) noexcept;
/// v2 cpu.stat.
void parse_cpu_stat(std::string_view text, bool details, Usage& into) noexcept;
/// The time lost to a quota, of v1 and v2 cpu.stat.
void parse_throttled(std::string_view text, Usage& into) noexcept;
/// v1 and v2 memory.stat. False where it says that no group from this one up has a limit, which v1 does.
bool parse_memory_stat(std::string_view text, std::uint64_t page, Usage& into) noexcept;
/// v1 memory.oom_control, v2 memory.events.
void parse_memory_events(std::string_view text, Usage& into) noexcept;
/// v1 blkio.throttle.io_service_bytes and io_serviced: what each device has read and written is put where these point.
void parse_block_v1(std::string_view text, std::uint64_t BlockUsage::*read, std::uint64_t BlockUsage::*write,
                    std::vector<BlockUsage>& into);
/// v2 io.stat.
void parse_block_v2(std::string_view text, std::vector<BlockUsage>& into);
/// v2 cpu.pressure, memory.pressure, io.pressure.
[[nodiscard]] std::optional<Pressure> parse_pressure(std::string_view text) noexcept;

}  // namespace caisson::inline v0::detail
