// caisson/detail/path.hpp - the one way from a path of a container to a descriptor.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// What `make_in_root` makes of the last component.
enum class PathKind : std::uint8_t { directory, file };

[[nodiscard]] inline Error path_error(int errnum, std::string_view path, std::string_view remedy = {}) {
    const std::string context = "path " + quote(path) + " in the container";
    if (!remedy.empty()) return {Step::mount, errnum, context, remedy};
    return {Step::mount, errnum, context,
            errnum == ELOOP       ? "a symbolic link in it leads in a circle, to nothing, or out through /proc"
            : errnum == EOVERFLOW ? "the caller's user has no id in this mount: use one that is not id-mapped"
            : errnum == EAGAIN    ? "it is being renamed all the time"
                                  : ""};
}

/// An O_PATH descriptor of what `path` names for a process whose root is the directory `root`: absolute or not, no
/// `..` and no symbolic link leads out of it, and the magic links of procfs are refused (ELOOP). `flags` may add
/// O_NOFOLLOW and O_DIRECTORY. The empty path is the root. Throws `Step::mount`. See openat2(2), RESOLVE_IN_ROOT.
[[nodiscard]] inline Fd resolve_in_root(int root, std::string_view path, int flags = 0) {
    if (path.find('\0') != std::string_view::npos) throw path_error(EINVAL, path, "it holds a NUL byte");
    const std::string text{path.empty() ? "/" : path};
    Fd fd = sys::openat2(root, text.c_str(), static_cast<std::uint64_t>(O_PATH | flags), sys::in_root);
    if (!fd) throw path_error(errno, path);
    return fd;
}

/// As `resolve_in_root`, and makes what is missing of `path`: directories (0755 whatever the umask says), and last a
/// directory or an empty file (0644). Each is made by name in the descriptor of its parent, which need only be
/// searchable, and is never reached through a symbolic link. An existing `path` of the other kind is an error; a device
/// or socket passes as a file. Who runs in the container meanwhile can make this fail, not lead it out.
[[nodiscard]] inline Fd make_in_root(int root, std::string_view path, PathKind kind) {
    const auto check_kind = [&](Fd fd) {
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) throw path_error(errno, path);
        if (S_ISDIR(st.st_mode) == (kind == PathKind::directory)) return fd;
        if (kind == PathKind::directory) throw path_error(ENOTDIR, path, "a directory goes on a directory");
        throw path_error(EISDIR, path, "a file goes on a file");
    };
    if (path.find('\0') != std::string_view::npos) throw path_error(EINVAL, path, "it holds a NUL byte");
    while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);

    // The longest part that is there, links and all, is the kernel's to resolve; the rest has neither links nor "..".
    std::string_view existing = path;
    Fd at;
    for (;;) {
        const std::string text{existing.empty() ? "/" : existing};
        at = sys::openat2(root, text.c_str(), O_PATH, sys::in_root);
        if (at) break;
        if (errno != ENOENT || existing.empty()) throw path_error(errno, path);
        const std::size_t slash = existing.rfind('/');
        existing = existing.substr(0, slash == std::string_view::npos ? 0 : slash);
    }
    std::string_view rest = path.substr(existing.size());
    if (("/" + std::string{rest} + "/").find("/../") != std::string::npos) {
        throw path_error(ENOENT, path, "'..' after a directory that is not there");
    }
    while (!rest.empty()) {
        const std::size_t start = rest.find_first_not_of('/');
        if (start == std::string_view::npos) break;
        rest.remove_prefix(start);
        const std::string name{rest.substr(0, rest.find('/'))};
        rest.remove_prefix(name.size());
        if (name == ".") continue;

        const bool is_last = rest.empty();
        const bool as_file = is_last && kind == PathKind::file;
        const mode_t mode = as_file ? 0644 : 0755;
        Fd made;
        bool is_new = true;
        if (as_file) {
            made = sys::openat2(at.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY, sys::beneath, mode);
            is_new = static_cast<bool>(made);
        } else {
            is_new = ::mkdirat(at.get(), name.c_str(), mode) == 0;
        }
        if (!is_new && errno != EEXIST) throw path_error(errno, path);
        if (is_new) {
            if (!made) made = sys::openat2(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY, sys::beneath);
            // Only what is certainly the thing just made: its owner could have put another in its place.
            struct stat st {};
            if (made && ::fstat(made.get(), &st) == 0 && (st.st_mode & 0777) != mode && st.st_uid == ::geteuid()) {
                if (::fchmod(made.get(), mode | (st.st_mode & S_ISGID)) != 0) throw path_error(errno, path);
            }
        }
        Fd next = sys::openat2(at.get(), name.c_str(), O_PATH, sys::beneath);
        if (!next) throw path_error(errno, path);
        at = std::move(next);
    }
    return check_kind(std::move(at));
}

}  // namespace caisson::inline v0::detail
