// support/syscall_table.hpp - reads tests/security/syscalls.txt.
#pragma once

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace caisson_test {

struct TableRow {
    int number = -1;
    std::string name{};
    std::string application{};
    std::string system{};
};
inline constexpr int rows_of_table = 480;

/// Each number once and in order, or it throws.
inline std::vector<TableRow> syscall_table(const std::string& file) {
    std::ifstream in{file};
    std::vector<TableRow> rows;
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line.front() == '#') continue;
        std::istringstream words{line};
        TableRow row;
        words >> row.number >> row.name >> row.application >> row.system;
        if (!words || row.number != static_cast<int>(rows.size())) throw std::runtime_error{file + ": " + line};
        rows.push_back(row);
    }
    if (rows.size() != rows_of_table) throw std::runtime_error{file + ": it has not 480 calls"};
    return rows;
}

}  // namespace caisson_test
