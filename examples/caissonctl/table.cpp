#include "table.hpp"

#include <algorithm>
#include <numeric>

namespace caissonctl {
namespace {

void widen(std::vector<std::size_t>& widths, const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
}

std::string line(const std::vector<std::size_t>& widths, const std::vector<std::string>& row) {
    std::string text;
    for (std::size_t i = 0; i < row.size(); ++i) {
        text += ' ' + row[i];
        if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    return text += '\n';
}

}  // namespace

std::string Table::str(bool bare) const {
    std::vector<std::size_t> widths(head_.size());
    if (!bare) widen(widths, head_);
    for (const auto& row : rows_) widen(widths, row);
    std::string text;
    if (!bare) {
        text = line(widths, head_);
        text.append(std::accumulate(widths.begin(), widths.end(), 3 * widths.size()), '-') += '\n';
    }
    for (const auto& row : rows_) text += line(widths, row);
    return text;
}

}  // namespace caissonctl
