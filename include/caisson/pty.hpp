// caisson/pty.hpp - pseudo-terminal pairs.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include <sys/ioctl.h>
#include <termios.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0 {

/// Size of a terminal in character cells.
struct WindowSize {
    std::uint16_t rows = 24;
    std::uint16_t columns = 80;
    friend bool operator==(const WindowSize&, const WindowSize&) = default;
};

/// Owns the controlling end of a pseudo-terminal, see pty(7); reading, writing and poll(2) go through `fd()`.
///
/// Move-only. Every function throws `Step::terminal`, and `std::logic_error` on an object that holds nothing. Closing
/// it hangs the other end up. One thread at a time.
class Pty {
public:
    /// A pair from the caller's /dev/pts.
    [[nodiscard]] static Pty open(WindowSize size = {}) {
        return make(detail::sys::open("/dev/ptmx", O_RDWR | O_NOCTTY), size, "'/dev/ptmx'");
    }
    /// A pair from another devpts instance, named by a descriptor of its root, for example `Mount::fd()` of a
    /// detached one. The instance's `ptmxmode` must let the caller in.
    [[nodiscard]] static Pty open_in(int devpts, WindowSize size = {}) {
        // Never what somebody in the container has mounted over its ptmx.
        return make(detail::sys::openat2(devpts, "ptmx", O_RDWR | O_NOCTTY, detail::sys::beneath | RESOLVE_NO_XDEV),
                    size, "the container's devpts");
    }

    /// Takes over the controlling end of a pair that was opened elsewhere, as by a process that has sent it.
    [[nodiscard]] static Pty adopt(Fd controller) noexcept { return Pty{std::move(controller)}; }

    [[nodiscard]] int fd() const noexcept { return controller_.get(); }
    /// Opens the other end through the controlling one (TIOCGPTPEER): right even when the caller's /dev/pts is not the
    /// one that the pair came from. It does not become the caller's controlling terminal.
    [[nodiscard]] Fd open_peer() const {
        Fd peer{::ioctl(held(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)};
        if (!peer) detail::fail(Step::terminal, "other end of a pseudo-terminal");
        return peer;
    }
    /// The other end's number: the N of /dev/pts/N in the instance that the pair came from.
    [[nodiscard]] unsigned number() const {
        unsigned n = 0;
        if (::ioctl(held(), TIOCGPTN, &n) != 0) detail::fail(Step::terminal, "number of a pseudo-terminal");
        return n;
    }
    /// "/dev/pts/N", which leads to the other end for who sees that devpts instance there.
    [[nodiscard]] std::string peer_path() const { return "/dev/pts/" + std::to_string(number()); }
    /// Sets the size; the programs on the other end get SIGWINCH.
    void resize(WindowSize size) {
        winsize ws{};
        ws.ws_row = size.rows;
        ws.ws_col = size.columns;
        if (::ioctl(held(), TIOCSWINSZ, &ws) != 0) detail::fail(Step::terminal, "size of a pseudo-terminal");
    }
    [[nodiscard]] WindowSize size() const {
        winsize ws{};
        if (::ioctl(held(), TIOCGWINSZ, &ws) != 0) detail::fail(Step::terminal, "size of a pseudo-terminal");
        return {ws.ws_row, ws.ws_col};
    }
    /// No echo, no line editing, no signals, eight bits: what a relay between two terminals needs.
    void make_raw() {
        termios t{};
        if (::tcgetattr(held(), &t) != 0) detail::fail(Step::terminal, "modes of a pseudo-terminal");
        ::cfmakeraw(&t);
        if (::tcsetattr(held(), TCSANOW, &t) != 0) {
            detail::fail(Step::terminal, "modes of a pseudo-terminal");
        }
    }

private:
    int held() const {
        if (!controller_) throw std::logic_error{"this Pty holds nothing"};
        return controller_.get();
    }
    explicit Pty(Fd controller) noexcept : controller_{std::move(controller)} {}
    static Pty make(Fd controller, WindowSize size, const char* where) {
        if (!controller) {
            const int saved = errno;
            throw Error{Step::terminal, saved, std::string{"open a pseudo-terminal in "} + where,
                        saved == ENOSPC
                            ? "all are in use: raise /proc/sys/kernel/pty/max, or the instance's 'max' option"
                        : saved == EMFILE || saved == ENFILE ? "no descriptor is left: raise 'ulimit -n'"
                        : saved == EACCES ? "the mode of its 'ptmx' (the instance's 'ptmxmode') keeps the caller out"
                        : saved == EXDEV  ? "something is mounted over its 'ptmx'"
                                          : ""};
        }
        Pty pty{std::move(controller)};
        int unlock = 0;
        if (::ioctl(pty.fd(), TIOCSPTLCK, &unlock) != 0) detail::fail(Step::terminal, "unlock a pseudo-terminal");
        pty.resize(size);
        return pty;
    }
    Fd controller_;
};

}  // namespace caisson::inline v0
