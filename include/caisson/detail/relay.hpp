// caisson/detail/relay.hpp - carries a container's console to a second terminal that a user can attach to.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/pty.hpp>

namespace caisson::inline v0::detail {

/// Bytes that were read from one side and not yet taken by the other: at most 64 KiB, and no memory while it is empty.
class RelayBuffer {
public:
    static constexpr std::size_t capacity = 65536;

    [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
    [[nodiscard]] bool full() const noexcept { return end_ - begin_ == capacity; }

    enum class Got : std::uint8_t { something, nothing, hang_up };
    /// Reads once. `nothing`: there is nothing at this moment.
    Got fill(int from) {
        if (bytes_.empty()) bytes_.resize(capacity);
        if (begin_ > 0 && end_ == capacity) {
            std::char_traits<char>::move(bytes_.data(), bytes_.data() + begin_, end_ - begin_);
            end_ -= begin_;
            begin_ = 0;
        }
        const ssize_t n = sys::retry([&] { return ::read(from, bytes_.data() + end_, capacity - end_); });
        const bool later = n < 0 && errno == EAGAIN;
        if (n > 0) end_ += static_cast<std::size_t>(n);
        free_if_empty();
        return n > 0 ? Got::something : later ? Got::nothing : Got::hang_up;
    }
    /// Writes once; true if some of it was taken.
    bool drain(int to) {
        if (empty()) return false;
        const ssize_t n = sys::retry([&] { return ::write(to, bytes_.data() + begin_, end_ - begin_); });
        if (n <= 0) return false;
        begin_ += static_cast<std::size_t>(n);
        free_if_empty();
        return true;
    }

private:
    void free_if_empty() noexcept {
        if (!empty()) return;
        begin_ = end_ = 0;
        bytes_ = {};
    }
    std::vector<char> bytes_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

/// Forwards bytes, both ways, between the controlling end of a container's terminal (the inner one, which stays its
/// owner's) and a terminal of its own from the host's /dev/pts (the outer one, in raw mode).
///
/// It keeps a descriptor of the outer terminal's other end: so the kernel keeps what is written while no user is there,
/// and never reports a hang-up that a loop would spin on. For the same reason it keeps one of the inner terminal's
/// other end, until the container has ended. Never blocks, never loses a byte, keeps at most 64 KiB each way: who does
/// not read makes the other side wait.
class Relay {
public:
    /// Throws `Step::terminal`.
    explicit Relay(const Pty& inner) : outer_{Pty::open(inner.size())} {
        make_nonblocking(outer_.fd());
        outer_.make_raw();
        outer_peer_ = outer_.open_peer();
        attach(inner);
    }
    /// To the terminal of the next container in the place of one that has ended; whoever is at the outer one stays.
    void attach(const Pty& inner) {
        inner_ = inner.fd();
        inner_flags_ = ::fcntl(inner_, F_GETFL);
        make_nonblocking(inner_);
        inner_peer_ = inner.open_peer();
        inner_open_ = true;
        ended_ = false;
    }
    [[nodiscard]] std::string path() const { return outer_.peer_path(); }
    [[nodiscard]] Fd open_user_end() const { return outer_.open_peer(); }
    [[nodiscard]] int inner() const noexcept { return inner_; }
    [[nodiscard]] int outer() const noexcept { return outer_.fd(); }
    /// Reports EPOLLHUP once a user has hung the outer terminal up.
    [[nodiscard]] int outer_peer() const noexcept { return outer_peer_.get(); }
    void resize(WindowSize size) { outer_.resize(size); }

    /// What epoll(7) is to wait for on each side.
    [[nodiscard]] std::uint32_t inner_events() const noexcept {
        return (inner_open_ && !to_user_.full() ? std::uint32_t{EPOLLIN} : 0u) |
               (to_container_.empty() || ended_ ? 0u : std::uint32_t{EPOLLOUT});
    }
    [[nodiscard]] std::uint32_t outer_events() const noexcept {
        return (to_container_.full() || ended_ ? 0u : std::uint32_t{EPOLLIN}) |
               (to_user_.empty() ? 0u : std::uint32_t{EPOLLOUT});
    }
    /// False once nothing more will come out of the container.
    [[nodiscard]] bool inner_open() const noexcept { return inner_open_; }

    /// Moves what can be moved, a bounded part at a time; true if a byte went to the user.
    bool move() {
        bool forwarded = false;
        // After the end nothing announces what is left inside: all of it is taken, which is some kilobytes.
        for (int turn = 0; turn < (ended_ ? 4096 : 16); ++turn) {
            auto got = RelayBuffer::Got::nothing;
            if (inner_open_ && !to_user_.full()) {
                got = to_user_.fill(inner_);
                // Only an end that the container's last process has closed hangs up.
                if (got == RelayBuffer::Got::hang_up) inner_open_ = false;
            }
            const bool taken = to_user_.drain(outer_.fd());
            forwarded = forwarded || taken;
            if (got != RelayBuffer::Got::something) break;
        }
        if (!ended_) {
            if (!to_container_.full()) (void)to_container_.fill(outer_.fd());
            (void)to_container_.drain(inner_);
        }
        return forwarded;
    }
    /// A user that had the outer terminal as controlling one has left: the kernel has put its modes back, and echo
    /// would give the container its own output as input.
    void restore_outer() {
        outer_peer_ = outer_.open_peer();
        outer_.make_raw();
    }
    /// The container has ended: what it still wrote can be read, and then there is a hang-up.
    void end() noexcept {
        ended_ = true;
        inner_peer_.reset();
    }
    /// True once everything that the container wrote is in the outer terminal.
    [[nodiscard]] bool finished() const noexcept { return !inner_open_ && to_user_.empty(); }
    /// The inner terminal may be closed: no more is read from it.
    void forget_inner() noexcept {
        inner_ = -1;
        inner_open_ = false;
    }
    /// Puts the inner terminal back as it was, for an owner that goes on without this object.
    void release_inner() noexcept {
        if (inner_ >= 0 && inner_flags_ >= 0) (void)::fcntl(inner_, F_SETFL, inner_flags_);
        forget_inner();
    }
    /// Bytes that the user has not read yet; 0 once there is none. Closing the outer terminal would take them away.
    [[nodiscard]] std::size_t unread() const noexcept {
        pollfd p{outer_peer_.get(), POLLIN, 0};
        if (sys::retry([&] { return ::poll(&p, 1, 0); }) <= 0 || (p.revents & POLLHUP) != 0) return 0;
        int n = 0;
        return ::ioctl(outer_peer_.get(), FIONREAD, &n) == 0 && n > 0 ? static_cast<std::size_t>(n) : 0;
    }

private:
    static void make_nonblocking(int fd) {
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
            fail(Step::terminal, "modes of a console");
        }
    }

    int inner_ = -1;
    int inner_flags_ = -1;
    Pty outer_;
    Fd outer_peer_;
    Fd inner_peer_;
    RelayBuffer to_user_;
    RelayBuffer to_container_;
    bool inner_open_ = true;
    bool ended_ = false;
};

}  // namespace caisson::inline v0::detail
