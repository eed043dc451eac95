#include "console_log.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/consoles.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr const char* end_of_old = ".1";
constexpr int log_flags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY;
constexpr mode_t log_mode = 0600;

/// write(2) beyond it would raise SIGXFSZ, which ends the program.
std::uint64_t largest_file() noexcept {
    rlimit most{};
    return ::getrlimit(RLIMIT_FSIZE, &most) == 0 ? most.rlim_cur : RLIM_INFINITY;
}

/// Why a file is not written to; nullptr where it is.
const char* why_refused(const struct stat& st) noexcept {
    if (!S_ISREG(st.st_mode)) return "it must be a regular file";
    // Whoever may write to the directory could have made them point to something else of the caller's.
    if (st.st_nlink != 1) return "the file has another name, too";
    if (st.st_uid != ::geteuid()) return "the file is another user's";
    return nullptr;
}

Fd directory_of(const std::string& log) {
    const std::size_t slash = log.rfind('/');
    return sys::openat2(AT_FDCWD, slash == 0 ? "/" : log.substr(0, slash).c_str(), O_PATH | O_DIRECTORY,
                        RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}
std::string name_of(const std::string& log) {
    return log.substr(log.rfind('/') + 1);
}

/// None where it is not to be written to.
Fd open_old_one(int directory, const std::string& name) noexcept {
    Fd fd = sys::openat2(directory, name.c_str(), log_flags, sys::beneath, log_mode);
    struct stat st {};
    return fd && ::fstat(fd.get(), &st) == 0 && why_refused(st) == nullptr ? std::move(fd) : Fd{};
}

}  // namespace

Fd open_old_log(const ConsoleSpec& spec) {
    const Fd directory = directory_of(spec.log);
    return directory ? open_old_one(directory.get(), name_of(spec.log) + end_of_old) : Fd{};
}

ConsoleLog::ConsoleLog(const ConsoleSpec& spec) : limit_{spec.log_limit} {
    const std::string what = "log " + quote(spec.log);
    const auto fail_to_open = [&] {
        const int saved = errno;
        throw Error{Step::terminal, saved, what,
                    saved == ELOOP    ? "a symbolic link is on the way: give the path that it leads to"
                    : saved == ENOENT ? "make the directory"
                    : saved == EISDIR ? "name a file in it"
                    : saved == ENXIO  ? "it must be a regular file"
                                      : ""};
    };
    directory_ = directory_of(spec.log);
    if (!directory_) fail_to_open();
    name_ = name_of(spec.log);
    file_ = sys::openat2(directory_.get(), name_.c_str(), log_flags, sys::beneath, log_mode);
    if (!file_) fail_to_open();
    struct stat st {};
    if (::fstat(file_.get(), &st) != 0) fail(Step::terminal, what);
    if (const char* const why = why_refused(st)) throw Error{Step::terminal, 0, what + ": " + why};
    if (!spec.log_append && ::ftruncate(file_.get(), 0) != 0) fail(Step::terminal, what);
    size_ = spec.log_append ? static_cast<std::uint64_t>(st.st_size) : 0;
}

/// What has its name by now, or a new one.
bool ConsoleLog::open_again() noexcept {
    Fd other = sys::openat2(directory_.get(), name_.c_str(), log_flags, sys::beneath, log_mode);
    struct stat st {};
    if (!other || ::fstat(other.get(), &st) != 0) return false;
    if (why_refused(st) != nullptr) {
        errno = EPERM;
        return false;
    }
    file_ = std::move(other);
    size_ = static_cast<std::uint64_t>(st.st_size);
    return true;
}

bool ConsoleLog::begin_anew() noexcept {
    struct stat st {};
    // Somebody else may have emptied it meanwhile.
    if (::fstat(file_.get(), &st) == 0) size_ = static_cast<std::uint64_t>(st.st_size);
    if (size_ < limit_) return true;
    try {
        struct stat named {};
        const bool is_there = ::fstatat(directory_.get(), name_.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0;
        if (!is_there || named.st_ino != st.st_ino || named.st_dev != st.st_dev) {
            // Somebody else has put it aside, and keeps it.
            if (!open_again()) return false;
            if (size_ < limit_) return true;
        }
        const std::string old = name_ + end_of_old;
        if (::renameat(directory_.get(), name_.c_str(), directory_.get(), old.c_str()) == 0) {
            Fd fresh = sys::openat2(directory_.get(), name_.c_str(), log_flags | O_EXCL, sys::beneath, log_mode);
            if (fresh) {
                file_ = std::move(fresh);
                size_ = 0;
                return true;
            }
            (void)::renameat(directory_.get(), old.c_str(), directory_.get(), name_.c_str());
        }
        // A helper has given up what a rename takes.
        copy_to(old);
    } catch (...) {
        // No memory for a name: as where it is refused.
    }
    if (::ftruncate(file_.get(), 0) != 0) return false;
    size_ = 0;
    return true;
}

void ConsoleLog::copy_to(const std::string& old) const noexcept {
    const Fd from = sys::openat2(directory_.get(), name_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY, sys::beneath);
    const Fd to = open_old_one(directory_.get(), old);
    if (!from || !to || ::ftruncate(to.get(), 0) != 0) return;
    std::array<char, 16384> buffer{};
    for (;;) {
        const ssize_t n = sys::retry([&] { return ::read(from.get(), buffer.data(), buffer.size()); });
        if (n <= 0 || !sys::write_all(to.get(), {buffer.data(), static_cast<std::size_t>(n)})) return;
    }
}

void ConsoleLog::write(std::string_view bytes) noexcept {
    while (!bytes.empty()) {
        if (limit_ != 0 && size_ >= limit_ && !begin_anew()) break;
        std::uint64_t part = bytes.size();
        if (limit_ != 0) part = std::min(part, limit_ - size_);
        const std::uint64_t most = largest_file();
        if (most != RLIM_INFINITY) part = std::min(part, most - std::min<std::uint64_t>(most, size_));
        if (part == 0) errno = EFBIG;
        const ssize_t n =
            part == 0 ? -1
                      : sys::retry([&] { return ::write(file_.get(), bytes.data(), static_cast<std::size_t>(part)); });
        if (n <= 0) break;
        size_ += static_cast<std::uint64_t>(n);
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    if (bytes.empty()) return;
    lost_ += bytes.size();
    error_ = errno;
}

}  // namespace caisson::inline v0::detail
