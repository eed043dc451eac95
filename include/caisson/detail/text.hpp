// caisson/detail/text.hpp - the parts of the kernel's lines, and of paths.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace caisson::inline v0::detail {

/// True if the comma-separated `list` has `item`.
[[nodiscard]] inline bool list_has(std::string_view list, std::string_view item, char separator = ',') noexcept {
    while (!list.empty()) {
        const std::size_t end = list.find(separator);
        if (list.substr(0, end) == item) return true;
        if (end == std::string_view::npos) return false;
        list.remove_prefix(end + 1);
    }
    return false;
}

/// The text up to `separator`, which is taken off `rest` together with it.
[[nodiscard]] inline std::string_view take_field(std::string_view& rest, char separator) noexcept {
    const std::size_t end = rest.find(separator);
    const std::string_view field = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return field;
}

/// A path as proc_pid_mountinfo(5) writes it: space, tab, newline and backslash are \ooo.
[[nodiscard]] inline std::string unescape_mount_path(std::string_view text) {
    const auto octal = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    std::string path;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
            path += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            path += text[i];
        }
    }
    return path;
}

/// The components of a path, however it is written: without "//" and ".".
[[nodiscard]] inline std::vector<std::string_view> path_parts(std::string_view path) {
    std::vector<std::string_view> parts;
    while (!path.empty()) {
        const std::string_view part = take_field(path, '/');
        if (!part.empty() && part != ".") parts.push_back(part);
    }
    return parts;
}

}  // namespace caisson::inline v0::detail
