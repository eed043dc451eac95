// caisson/detail/kernel_paths.hpp - paths of the kernel's own trees that a machine has more or fewer of.
#pragma once

#include <string>
#include <vector>

#include <glob.h>

namespace caisson::inline v0::detail {

/// The path itself, or if a '*' is in it those that this kernel has: its /proc and /sys show the same everywhere.
[[nodiscard]] inline std::vector<std::string> kernel_paths(const std::string& path) {
    if (path.find('*') == std::string::npos) return {path};
    struct Found : glob_t {
        Found() noexcept : glob_t{} {}
        Found(const Found&) = delete;
        Found& operator=(const Found&) = delete;
        ~Found() { ::globfree(this); }
    } found;
    std::vector<std::string> paths;
    if (::glob(path.c_str(), 0, nullptr, &found) != 0) return paths;
    for (std::size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
    return paths;
}

}  // namespace caisson::inline v0::detail
