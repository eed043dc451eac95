// limit_change.hpp - a change of a control group's limits: planned, made, and put back where one is refused.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/limits.hpp>

#include "limit_words.hpp"

namespace caisson::inline v0 {
namespace limit_words {

inline std::string_view first_line(std::string_view text) {
    return text.substr(0, text.find('\n'));
}

/// One value in one file.
struct Change {
    enum class Kind : std::uint8_t {
        word,    ///< the file is the value
        bytes,   ///< as well; rounded down to a multiple of `unit`
        list,    ///< as well, in whatever order
        weight,  ///< the file's first line, which may begin with "default"
        device,  ///< one of the file's lines
    };
    const CgroupDirectory* directory;
    std::vector<std::string> files;  ///< the first that is there and knows the device
    std::string what;
    Kind kind = Kind::word;
    std::string text;
    const char* (*remedy)(int) = nullptr;
    std::string device{};
    std::string if_none{};  ///< the line of a device that has none
    std::uint64_t value = 0;
    std::uint64_t unit = 1;
    bool may_be_absent = false;
    bool needs_room = false;
};

}  // namespace limit_words

/// A change of limits: everything is looked up first, then written file by file, and put back where one is refused.
class Cgroup::LimitChange {
public:
    LimitChange(const Cgroup& group, const LimitSpec& limits) : group_{group}, limits_{limits} {}
    /// Looks everything up, and switches controllers on.
    void plan();
    void make();

private:
    using Change = limit_words::Change;
    struct Done {
        const Change* change;
        std::string file;
        std::string undo;
    };

    void add(Change change) { changes_.push_back(std::move(change)); }
    [[nodiscard]] std::string of_group(const std::string& what) const {
        return what + " for control group " + detail::quote(group_.name_);
    }
    /// The v1 directory that has the controller, or the v2 one, in which it is switched on if it is not yet.
    [[nodiscard]] const CgroupDirectory& directory(const char* v1, const char* v2, const std::string& what) const {
        const auto is_v1 = [&](const auto& d) { return detail::list_has(d.controllers, v1); };
        if (std::any_of(group_.directories_.begin(), group_.directories_.end(), is_v1) ||
            std::any_of(group_.left_out_.begin(), group_.left_out_.end(), is_v1)) {
            return group_.need(v1, what);
        }
        if (group_.find(v2) == nullptr) {
            for (const CgroupDirectory& d : group_.directories_) {
                if (d.v2()) enable_controllers(d, {v2});
            }
        }
        return group_.need(v2, what);
    }
    [[nodiscard]] bool has(const CgroupDirectory& d, const char* file) const {
        const Fd fd = group_.open_file(d, file, O_PATH);
        if (!fd && errno != ENOENT) unreadable(d, file);
        return static_cast<bool>(fd);
    }
    /// The first line; empty where there is no such file.
    [[nodiscard]] std::string text_of(const CgroupDirectory& d, const char* file) const {
        std::string text;
        const Fd fd = group_.open_file(d, file, O_RDONLY);
        if (fd ? !read_all(fd, text) : errno != ENOENT) unreadable(d, file);
        return std::string{limit_words::first_line(text)};
    }
    [[noreturn]] void unreadable(const CgroupDirectory& d, const char* file) const {
        detail::fail(Step::cgroup, of_group("limits") + ": read " + detail::quote(group_.path(d) + "/" + file));
    }

    void plan_memory();
    void plan_pids();
    void plan_cpu();
    void plan_cpuset();
    void plan_block();
    void plan_rates(const CgroupDirectory& d, const BlockLimit& limit, const limit_words::Disk& disk);
    void plan_huge_pages();
    void apply(const Change& change);
    [[nodiscard]] bool is_effective(const Change& change, std::string& is) const;
    std::string put_back() noexcept;

    const Cgroup& group_;
    const LimitSpec& limits_;
    std::vector<Change> changes_;
    std::vector<Done> done_;
};

}  // namespace caisson::inline v0
