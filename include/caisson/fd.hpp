// caisson/fd.hpp - owning file descriptor. Depends on nothing else in the library.
#pragma once

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace caisson::inline v0 {

/// Owns one file descriptor and closes it on destruction.
///
/// Move-only. A default-constructed or moved-from `Fd` holds nothing (-1). Every descriptor that the library makes is
/// close-on-exec from its first moment. Not synchronised: one object belongs to one thread at a time.
class Fd {
public:
    Fd() noexcept = default;
    /// Takes ownership of `fd`; a negative value means "nothing".
    explicit Fd(int fd) noexcept : fd_{fd} {}
    Fd(Fd&& other) noexcept : fd_{other.release()} {}
    Fd& operator=(Fd&& other) noexcept {
        reset(other.release());
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    /// The descriptor, still owned by this object; -1 if it holds nothing.
    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    /// Gives the descriptor up to the caller, who must close it.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    /// Closes what is held, keeping `errno`, and takes `fd` instead.
    void reset(int fd = -1) noexcept {
        const int old = std::exchange(fd_, fd);
        if (old < 0) return;
        const int saved = errno;
        // close(2) is never retried: on Linux the descriptor is gone even after EINTR.
        (void)::close(old);
        errno = saved;
    }
    /// A second, close-on-exec descriptor for the same open file, never 0, 1 or 2; holds nothing (and sets `errno`) if
    /// the process has no descriptor left.
    [[nodiscard]] Fd duplicate() const noexcept { return Fd{::fcntl(fd_, F_DUPFD_CLOEXEC, 3)}; }

private:
    int fd_ = -1;
};

}  // namespace caisson::inline v0
