// caisson/detail/descriptor.hpp - what /proc calls an open descriptor.
#pragma once

#include <string>

#include <sys/types.h>
#include <unistd.h>

#include <caisson/error.hpp>

namespace caisson::inline v0::detail {

/// A path that leads to what an open descriptor names, and nowhere else: it has no characters with a meaning, and
/// resolves no path of the user's again.
[[nodiscard]] inline std::string magic_path(int fd) {
    return "/proc/thread-self/fd/" + std::to_string(fd);
}

/// What /proc has as the path of an open descriptor; empty where it has none.
[[nodiscard]] inline std::string path_of(int fd) {
    char link[4096];
    const ssize_t n = ::readlink(magic_path(fd).c_str(), link, sizeof link);
    return n > 0 && link[0] == '/' ? std::string{link, static_cast<std::size_t>(n)} : std::string{};
}
/// For messages: the path of an open descriptor, or its number.
[[nodiscard]] inline std::string name_of(int fd) {
    const std::string path = path_of(fd);
    return path.empty() ? "descriptor " + std::to_string(fd) : quote(path);
}

}  // namespace caisson::inline v0::detail
