// caisson/detail/channel.hpp - the host's end of the socket to a container's keeper.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <caisson/detail/plan.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Milliseconds of CLOCK_MONOTONIC.
[[nodiscard]] inline std::int64_t monotonic_ms() noexcept {
    timespec now{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

/// The moment that is `milliseconds` from now: now for a negative time, a century off for the longest ones.
[[nodiscard]] inline std::int64_t deadline_in(std::int64_t milliseconds) noexcept {
    constexpr std::int64_t longest = std::int64_t{1000} * 86400 * 36500;
    return monotonic_ms() + std::clamp<std::int64_t>(milliseconds, 0, longest);
}

/// True once `fd` has input or a hang-up; false after `milliseconds` (-1: never). Interruptions do not lengthen it.
[[nodiscard]] inline bool wait_readable(int fd, std::int64_t milliseconds) noexcept {
    const std::int64_t deadline = monotonic_ms() + milliseconds;
    pollfd p{fd, POLLIN, 0};
    for (;;) {
        std::int64_t left = -1;
        if (milliseconds >= 0) {
            left = deadline - monotonic_ms();
            if (left < 0) left = 0;
            if (left > 1'000'000) left = 1'000'000;
        }
        const int n = ::poll(&p, 1, static_cast<int>(left));
        if (n > 0) return true;
        if (n < 0 && errno != EINTR) return true;  // the caller's next call on it tells what is wrong
        if (n == 0 && milliseconds >= 0 && monotonic_ms() >= deadline) return false;
    }
}

/// Waits for the hang-up of a pipe, whatever comes in meanwhile.
inline void wait_hang_up(int fd) noexcept {
    pollfd p{fd, 0, 0};
    while (::poll(&p, 1, -1) < 0 && errno == EINTR) {
    }
}

/// A report with the descriptors that came along.
struct Received {
    Report report{};
    Fd fd{};
    Fd second{};
};

class Channel {
public:
    Channel() noexcept = default;
    explicit Channel(Fd socket) noexcept : socket_{std::move(socket)} {}
    /// Both ends; the second is for the stage. Throws `Step::descriptors`.
    [[nodiscard]] static std::pair<Channel, Fd> make() {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
            fail(Step::descriptors, "socket to the keeper");
        }
        return {Channel{Fd{ends[0]}}, Fd{ends[1]}};
    }
    [[nodiscard]] int fd() const noexcept { return socket_.get(); }
    /// Tells the keeper that the host has given up, also where a fork(2)ed copy of the host holds the socket open.
    /// Closes it too: a report that was not taken may hold the other end of the keeper's own socket.
    void hang_up() noexcept {
        shut();
        socket_.reset();
    }
    /// As `hang_up`, but what has come by then can still be taken.
    void shut() noexcept { (void)::shutdown(socket_.get(), SHUT_RDWR); }

    /// As `hang_up`, but what the stage has to say about it still comes.
    void stop_sending() noexcept { (void)::shutdown(socket_.get(), SHUT_WR); }

    enum class State : std::uint8_t { report, nothing_yet, closed };
    /// Takes the next report, without blocking. `closed`: the keeper is dead, and nothing more will come.
    [[nodiscard]] State receive(Received& into) noexcept {
        iovec iov{&into.report, sizeof into.report};
        alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
        msghdr message{};
        message.msg_iov = &iov;
        message.msg_iovlen = 1;
        const ssize_t n = sys::last_word([&] {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            return ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        });
        // It is in the queue still if there was no memory for it.
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOMEM || errno == ENOBUFS)) {
            return State::nothing_yet;
        }
        for (cmsghdr* c = n >= 0 ? CMSG_FIRSTHDR(&message) : nullptr; c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
            int fds[2] = {-1, -1};
            std::memcpy(fds, CMSG_DATA(c), c->cmsg_len >= CMSG_LEN(sizeof fds) ? sizeof fds : sizeof fds[0]);
            into.fd.reset(fds[0]);
            into.second.reset(fds[1]);
        }
        return n == static_cast<ssize_t>(sizeof into.report) ? State::report : State::closed;
    }
    /// As `receive`, but waits for a report or the keeper's death. The death is also seen by `keeper`, a pidfd: a
    /// fork(2)ed copy of the host may hold the other end of the socket open for a while.
    [[nodiscard]] State wait(Received& into, int keeper) noexcept {
        for (;;) {
            pollfd p[2] = {{socket_.get(), POLLIN, 0}, {keeper, POLLIN, 0}};
            if (::poll(p, 2, -1) < 0 && errno != EINTR) return State::closed;
            const bool dead = p[1].revents != 0;
            const State state = receive(into);
            if (state != State::nothing_yet) return state;
            if (dead) return State::closed;
        }
    }
    /// Sends `body` with descriptors, again with each `most_in_message` of them; false and `errno` on failure.
    template <class T>
    [[nodiscard]] bool send_all(const T& body, std::span<const int> fds) noexcept {
        do {
            const std::size_t count = std::min<std::size_t>(most_in_message, fds.size());
            if (!send(body, fds.first(count))) return false;
            fds = fds.subspan(count);
        } while (!fds.empty());
        return true;
    }

private:
    template <class T>
    [[nodiscard]] bool send(T body, std::span<const int> fds) noexcept {
        iovec iov{&body, sizeof body};
        alignas(cmsghdr) char control[CMSG_SPACE(most_in_message * sizeof(int))];
        msghdr message{};
        message.msg_iov = &iov;
        message.msg_iovlen = 1;
        if (!fds.empty()) {
            message.msg_control = control;
            message.msg_controllen = CMSG_SPACE(fds.size_bytes());
            cmsghdr* c = CMSG_FIRSTHDR(&message);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(fds.size_bytes());
            std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
        }
        return sys::retry([&] { return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL); }) >= 0;
    }

    Fd socket_{};
};

}  // namespace caisson::inline v0::detail
