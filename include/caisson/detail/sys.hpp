// caisson/detail/sys.hpp - system calls that glibc does not wrap, and the two wrappers every layer needs.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail::sys {

/// Calls `f` again while it is interrupted by a signal. Never for close(2).
template <class F>
auto retry(F&& f) {
    decltype(f()) result;
    do result = f();
    while (result < 0 && errno == EINTR);
    return result;
}

/// Calls `receive`, which takes a message from a SOCK_SEQPACKET socket, again where it is told of the peer's end in
/// front of what that sent last: by the one ECONNRESET of a peer that closed before it had read everything, and by an
/// end that came between the kernel's look at the queue and its look at the peer. The third one is true.
template <class F>
auto last_word(F&& receive) {
    auto size = retry(receive);
    for (int told = 0; told < 2 && (size == 0 || (size < 0 && errno == ECONNRESET)); ++told) size = retry(receive);
    return size;
}

/// True for the `errno` of who has no descriptor or memory left to look with, and so has seen nothing.
[[nodiscard]] constexpr bool is_shortage(int error) noexcept {
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/// open_how.resolve values in the library's own spelling of intent.
/// Within a container's root: every link is resolved inside it, procfs magic links are refused.
inline constexpr std::uint64_t in_root = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
/// Below a directory, without any symbolic link: for names the library itself made.
inline constexpr std::uint64_t beneath = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

/// openat2(2), close-on-exec; holds nothing and sets `errno` on failure. EAGAIN (a rename raced with `..`) is retried.
[[nodiscard]] inline Fd openat2(int dir, const char* path, std::uint64_t flags, std::uint64_t resolve,
                                mode_t mode = 0) noexcept {
    open_how how{};
    how.flags = flags | O_CLOEXEC;
    how.mode = (flags & O_CREAT) != 0 ? mode : 0;
    how.resolve = resolve;
    for (int attempt = 0;; ++attempt) {
        const auto fd = static_cast<int>(::syscall(SYS_openat2, dir, path, &how, sizeof how));
        if (fd >= 0) return Fd{fd};
        if (errno == EINTR || (errno == EAGAIN && attempt < 128)) continue;
        return Fd{};
    }
}

/// openat(2), close-on-exec; holds nothing and sets `errno` on failure. For the host's own paths.
[[nodiscard]] inline Fd open_at(int dir, const char* path, int flags, mode_t mode = 0) noexcept {
    return Fd{retry([&] { return ::openat(dir, path, flags | O_CLOEXEC, mode); })};
}
[[nodiscard]] inline Fd open(const std::string& path, int flags, mode_t mode = 0) noexcept {
    return open_at(AT_FDCWD, path.c_str(), flags, mode);
}

// glibc 2.36 declares these two without C linkage in <sys/pidfd.h>, which a C++ program cannot link.
[[nodiscard]] inline int pidfd_open(pid_t pid) noexcept {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}
inline int pidfd_send_signal(int pidfd, int signal) noexcept {
    return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

/// Throws EFBIG where the process may not write a file of `size` bytes: write(2) would raise SIGXFSZ, which ends the
/// program.
inline void require_file_size(Step step, std::size_t size, std::string_view what) {
    rlimit most{};
    if (::getrlimit(RLIMIT_FSIZE, &most) != 0 || most.rlim_cur >= size) return;
    throw Error{step, EFBIG, what,
                "the limit on the size of files (RLIMIT_FSIZE) is " + std::to_string(most.rlim_cur) +
                    " bytes: raise 'ulimit -f'"};
}

/// Writes all of `text` in one write(2), as control files want it; false and `errno` otherwise.
[[nodiscard]] inline bool write_all(int fd, std::string_view text) noexcept {
    const ssize_t n = retry([&] { return ::write(fd, text.data(), text.size()); });
    if (n == static_cast<ssize_t>(text.size())) return true;
    if (n >= 0) errno = EIO;
    return false;
}

/// What an eventfd(2) or a timerfd(2) has counted is taken; false if there was nothing.
[[nodiscard]] inline bool take_count(const Fd& counter) noexcept {
    std::uint64_t count = 0;
    return ::read(counter.get(), &count, sizeof count) == static_cast<ssize_t>(sizeof count);
}

/// Writes to an existing control file below `dir`; false and `errno` on failure.
[[nodiscard]] inline bool write_file(int dir, const char* path, std::string_view text) noexcept {
    const Fd fd = open_at(dir, path, O_WRONLY | O_NOCTTY);
    return fd && write_all(fd.get(), text);
}

/// What comes out of `fd`, at most `limit` bytes; false and `errno` on failure.
[[nodiscard]] inline bool read_all(int fd, std::string& into, std::size_t limit) {
    into.clear();
    char buffer[4096];
    while (into.size() < limit) {
        const ssize_t n = retry([&] { return ::read(fd, buffer, sizeof buffer); });
        if (n < 0) return false;
        if (n == 0) break;
        into.append(buffer, static_cast<std::size_t>(n));
    }
    return true;
}

/// The content of a small file (procfs, cgroupfs), at most `limit` bytes; false and `errno` on failure.
[[nodiscard]] inline bool read_file(int dir, const char* path, std::string& into, std::size_t limit = 1u << 20) {
    const Fd fd = open_at(dir, path, O_RDONLY | O_NOCTTY);
    return fd && read_all(fd.get(), into, limit);
}

}  // namespace caisson::inline v0::detail::sys
