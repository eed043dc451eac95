// caisson/cancellation.hpp - gives up a start that another thread is in the middle of.
#pragma once

#include <cerrno>
#include <cstdint>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// Given to `Container::start` or `Controller::start`: `request`, from any thread, ends that start, which then throws
/// (or tells by `failed`) ECANCELED and leaves nothing behind; one that has come to its end by then has succeeded. It
/// stays requested, for the starts that it is given to later, too. What a start itself asks of the host's file systems
/// and programs is waited for first.
///
/// Neither copied nor moved: it has to live as long as the starts that it is given to. Throws `Step::event_loop`.
class Cancellation {
public:
    Cancellation() : event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
        if (!event_) detail::fail(Step::event_loop, "descriptor of a cancellation", "raise 'ulimit -n'");
    }
    Cancellation(const Cancellation&) = delete;
    Cancellation& operator=(const Cancellation&) = delete;
    ~Cancellation() = default;

    /// From any thread, also async-signal-safe.
    void request() noexcept {
        const int saved = errno;
        const std::uint64_t one = 1;
        (void)!::write(event_.get(), &one, sizeof one);
        errno = saved;
    }
    [[nodiscard]] bool requested() const noexcept {
        pollfd p{event_.get(), POLLIN, 0};
        return ::poll(&p, 1, 0) > 0;
    }
    /// Readable for poll(2) once it is requested; do not read from it.
    [[nodiscard]] int fd() const noexcept { return event_.get(); }

private:
    Fd event_;
};

}  // namespace caisson::inline v0
