// What the table looks like: values in, lines out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace top {

/// One container. Nothing: not known, or not yet.
struct Row {
    std::string name{};
    bool suspended = false;
    std::optional<double> cpu{};                  ///< in CPUs: 1.5 is one and a half of them
    std::vector<double> each{};                   ///< the share of each CPU, 0 to 1
    std::optional<std::uint64_t> memory{};        ///< bytes
    std::optional<std::uint64_t> memory_limit{};  ///< bytes; nothing also where there is none
    std::optional<double> read{};                 ///< bytes a second, as the other three
    std::optional<double> written{};
    std::optional<double> received{};
    std::optional<double> sent{};
    std::optional<std::uint64_t> pids{};
};

/// All that is to be shown at one moment.
struct View {
    std::string where{};  ///< the directory of what runs
    std::vector<Row> rows{};
    std::vector<std::string> notes{};  ///< what could not be seen
};

struct Paper {
    std::size_t columns = 80;
    std::size_t lines = 24;
    bool utf8 = true;  ///< bars may be drawn with block elements
};

struct Page {
    std::vector<std::string> lines{};
    std::size_t head = 0;  ///< which of them is the table's head; as many as there are: none
};

/// Columns that a terminal takes for a line of a page.
[[nodiscard]] std::size_t width(const std::string& line);

/// The busiest first. No line is wider than the paper and there are no more of them; the columns that matter least are
/// left out where there is no room, and the CPUs' bars take what room there is.
[[nodiscard]] Page lay_out(View view, const Paper& paper);

}  // namespace top
