// Tables as virsh prints them.
#pragma once

#include <string>
#include <vector>

namespace caissonctl {

/// Columns as wide as their widest cell, with one blank before and two behind each; a rule of dashes below the head.
class Table {
public:
    explicit Table(std::vector<std::string> head) : head_{std::move(head)} {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    /// The whole table, each line with its end; without its head and rule if `bare`.
    [[nodiscard]] std::string str(bool bare) const;

private:
    std::vector<std::string> head_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace caissonctl
