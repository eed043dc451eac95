#include "layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>

namespace top {
namespace {

constexpr std::size_t least_name = 8;
constexpr std::size_t least_bar = 5;  // of a line, with the blank behind it
constexpr std::size_t widest_bar = 20;
constexpr std::string_view title_of_bars = "CPUS";
constexpr int rank_of_bars = 2;

/// Nothing to a whole block, in eighths, from left to right and from below; dots show how far a bar would go.
constexpr std::array horizontal{"·", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
constexpr std::array vertical{"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

std::string text(const char* format, double value) {
    std::array<char, 32> buffer;
    std::snprintf(buffer.data(), buffer.size(), format, value);
    return buffer.data();
}

/// At most five columns: "0", "999", "9.8K", "64.0M".
std::string bytes(double value) {
    constexpr std::string_view units = " KMGTPE";
    std::size_t unit = 0;
    // As it will be rounded: no "1000K".
    for (; value >= 999.5 && unit + 1 < units.size(); ++unit) value /= 1024;
    if (unit == 0) return text("%.0f", value);
    return text(value < 99.95 ? "%.1f" : "%.0f", value) + units[unit];
}

std::string percent(double share) {
    const double value = share * 100;
    return text(value < 999.95 ? "%.1f" : "%.0f", std::min(value, 999999.0));
}

/// A column of numbers, right-aligned.
struct Column {
    std::string_view title;
    std::size_t width;
    int rank;  ///< those of the highest rank go first where there is no room
    std::string (*cell)(const Row&);
};

template <auto Member>
std::string bytes_cell(const Row& row) {
    return row.*Member ? bytes(static_cast<double>(*(row.*Member))) : "-";
}
std::string cpu_cell(const Row& row) {
    if (row.suspended) return "paused";
    return row.cpu ? percent(*row.cpu) : "-";
}
std::string pids_cell(const Row& row) {
    return row.pids ? std::to_string(*row.pids) : "-";
}

constexpr std::array columns{Column{"CPU%", 6, 0, cpu_cell},
                             Column{"MEMORY", 6, 1, bytes_cell<&Row::memory>},
                             Column{"LIMIT", 5, 3, bytes_cell<&Row::memory_limit>},
                             Column{"READ/s", 6, 4, bytes_cell<&Row::read>},
                             Column{"WRITE/s", 7, 4, bytes_cell<&Row::written>},
                             Column{"RX/s", 5, 5, bytes_cell<&Row::received>},
                             Column{"TX/s", 5, 5, bytes_cell<&Row::sent>},
                             Column{"PIDS", 5, 2, pids_cell}};

/// Cuts a text of one-byte characters to `width`, with a sign that there was more, and fills it up.
std::string fitted(std::string word, std::size_t width) {
    if (word.size() > width) {
        word.resize(width);
        if (width > 1) word.back() = '~';
    }
    word.resize(width, ' ');
    return word;
}
std::string right(std::string word, std::size_t width) {
    if (word.size() < width) word.insert(0, width - word.size(), ' ');
    return word;
}

/// How the room is shared out.
struct Plan {
    std::size_t name = 0;
    std::size_t bar = 0;   ///< columns of one bar; 1: a character that fills from below; 0: none
    std::size_t bars = 0;  ///< a bar stands for several CPUs where there are fewer than these
    int rank = 0;          ///< the columns up to this one are shown

    [[nodiscard]] std::size_t core_columns() const {
        return bar == 0 ? 0 : std::max(bar * bars - (bar > 1 ? 1 : 0), title_of_bars.size());
    }
};

Plan plan_for(const View& view, std::size_t width) {
    std::size_t longest = 4;
    std::size_t cpus = 0;
    for (const Row& row : view.rows) {
        longest = std::max(longest, row.name.size());
        cpus = std::max(cpus, row.each.size());
    }
    const auto needed = [](int rank) {
        std::size_t sum = 0;
        for (const Column& column : columns) sum += column.rank <= rank ? column.width + 1 : 0;
        return sum;
    };
    Plan plan;
    for (plan.rank = 5; plan.rank >= 0; --plan.rank) {
        const std::size_t least = std::min(longest, plan.rank > 0 ? least_name : least_name / 2);
        const std::size_t bars = cpus > 0 && plan.rank > rank_of_bars ? title_of_bars.size() + 1 : 0;
        if (needed(plan.rank) + least + bars <= width) break;
    }
    const std::size_t fixed = needed(plan.rank);
    std::size_t room = width > fixed ? width - fixed : 0;
    plan.name = std::min(longest, room);
    if (cpus == 0 || room < std::min(longest, least_name) + 1 + title_of_bars.size()) return plan;
    // Names that are too long leave the bars half: as lines where that is enough for all, else as one character each.
    const bool lines = cpus * least_bar - 1 <= room / 2;
    const std::size_t least = lines ? cpus * least_bar - 1 : std::min(cpus, room / 2);
    plan.name = std::min(longest, room - 1 - std::max(least, title_of_bars.size()));
    room -= plan.name + 1;
    const std::size_t bar = std::min((room + 1) / cpus, widest_bar);
    plan.bar = bar >= least_bar ? bar : 1;
    plan.bars = std::min(cpus, room);
    return plan;
}

std::string bar_of(double share, std::size_t width, bool utf8) {
    share = std::clamp(share, 0.0, 1.0);
    if (width == 1) {
        const auto eighths = static_cast<std::size_t>(std::lround(share * 8));
        if (utf8) return vertical[eighths];
        return std::string(1, "_12345678"[eighths]);
    }
    std::string drawn;
    const auto eighths = static_cast<std::size_t>(std::lround(share * 8 * static_cast<double>(width)));
    for (std::size_t i = 0; i < width; ++i) {
        const std::size_t here = std::min<std::size_t>(eighths > i * 8 ? eighths - i * 8 : 0, 8);
        drawn += utf8 ? horizontal[here] : here >= 4 ? "|" : ".";
    }
    return drawn;
}

/// All CPUs of a row: next to each other, several to one bar where there are too many.
std::string bars_of(const Row& row, const Plan& plan, bool utf8) {
    if (row.each.empty()) return fitted("-", plan.core_columns());
    std::string drawn;
    for (std::size_t i = 0; i < plan.bars; ++i) {
        const std::size_t begin = i * row.each.size() / plan.bars;
        const std::size_t end = std::max((i + 1) * row.each.size() / plan.bars, begin + 1);
        double sum = 0;
        for (std::size_t cpu = begin; cpu < end && cpu < row.each.size(); ++cpu) sum += row.each[cpu];
        if (i > 0 && plan.bar > 1) drawn += ' ';
        drawn += bar_of(sum / static_cast<double>(end - begin), plan.bar > 1 ? plan.bar - 1 : 1, utf8);
    }
    const std::size_t all = plan.core_columns();
    return drawn.append(all - std::min(all, width(drawn)), ' ');
}

std::string line_of(const Row* row, const Plan& plan, bool utf8) {
    std::string line = fitted(row == nullptr ? "NAME" : row->name, plan.name);
    for (const Column& column : columns) {
        if (column.rank > plan.rank) continue;
        line += ' ' + right(row == nullptr ? std::string{column.title} : column.cell(*row), column.width);
        // The bars stand beside the sum of them.
        if (&column != columns.begin() || plan.bar == 0) continue;
        line += ' ' +
                (row == nullptr ? fitted(std::string{title_of_bars}, plan.core_columns()) : bars_of(*row, plan, utf8));
    }
    return line;
}

std::string summary(const View& view, std::size_t columns_there) {
    if (view.rows.empty()) return "no container runs in " + view.where;
    double cpu = 0;
    double memory = 0;
    for (const Row& row : view.rows) {
        cpu += row.cpu.value_or(0);
        memory += static_cast<double>(row.memory.value_or(0));
    }
    const std::string sum = std::to_string(view.rows.size()) + (view.rows.size() == 1 ? " container" : " containers") +
                            ": CPU " + percent(cpu) + "%, memory " + bytes(memory);
    const std::string where = "  (" + view.where + ")";
    return sum.size() + where.size() <= columns_there ? sum + where : sum;
}

/// Cuts a line of any characters.
void cut(std::string& line, std::size_t most) {
    std::size_t at = 0;
    for (std::size_t seen = 0; at < line.size(); ++at) {
        if ((static_cast<unsigned char>(line[at]) & 0xc0) != 0x80 && seen++ == most) break;
    }
    line.resize(at);
}

}  // namespace

std::size_t width(const std::string& line) {
    return static_cast<std::size_t>(
        std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Page lay_out(View view, const Paper& paper) {
    std::ranges::sort(view.rows, [](const Row& a, const Row& b) {
        const double left = a.cpu.value_or(-1);
        const double right = b.cpu.value_or(-1);
        return left != right ? left > right : a.name < b.name;
    });
    view.notes.resize(std::min(view.notes.size(), paper.lines / 4));
    Page page;
    page.lines.push_back(summary(view, paper.columns));
    page.head = page.lines.size();
    if (!view.rows.empty()) {
        const Plan plan = plan_for(view, paper.columns);
        page.lines.push_back(line_of(nullptr, plan, paper.utf8));
        const std::size_t taken = page.lines.size() + view.notes.size();
        const std::size_t room = paper.lines > taken ? paper.lines - taken : 0;
        const bool all = view.rows.size() <= room;
        const std::size_t shown = all ? view.rows.size() : room > 1 ? room - 1 : 0;
        for (std::size_t i = 0; i < shown; ++i) page.lines.push_back(line_of(&view.rows[i], plan, paper.utf8));
        if (!all) page.lines.push_back("... and " + std::to_string(view.rows.size() - shown) + " more");
    }
    page.lines.insert(page.lines.end(), view.notes.begin(), view.notes.end());
    if (page.lines.size() > paper.lines) page.lines.resize(paper.lines);
    page.head = std::min(page.head, page.lines.size());
    for (std::string& line : page.lines) cut(line, paper.columns);
    return page;
}

}  // namespace top
