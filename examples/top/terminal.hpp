// The user's terminal: a page of its own, shown again and again, and given back as it was.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <signal.h>
#include <termios.h>

#include <caisson/fd.hpp>

#include "layout.hpp"

namespace top {

/// Signals come through a descriptor as long as this lives.
class Signals {
public:
    Signals();
    ~Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] std::optional<int> next() const;

private:
    caisson::Fd fd_;
    sigset_t before_{};
};

/// The size of the terminal on standard output; 80 by 24 where it does not know.
[[nodiscard]] Paper paper_of_terminal();

/// Standard output's other page, without cursor; keys come one by one and unseen. Made while `Signals` lives: no signal
/// ends the program in between.
class Screen {
public:
    Screen();
    ~Screen();
    Screen(const Screen&) = delete;
    Screen& operator=(const Screen&) = delete;

    /// Shows the page, unless the one before has not been taken by the terminal yet.
    void show(const Page& page);
    /// Writes what the terminal takes without waiting.
    void flush();
    /// True if `out()` is to be waited for before `flush`.
    [[nodiscard]] bool pending() const noexcept { return !pending_.empty(); }
    [[nodiscard]] int out() const noexcept;

    /// Gives the terminal back.
    void leave() noexcept;
    /// Takes it, also again: who stopped the program may have changed it. In the background, the program is stopped.
    void enter();

private:
    void await_foreground() const;
    void write_soon(std::string_view text) const noexcept;

    caisson::Fd own_out_;  // non-blocking, which the shell's is not to become
    bool has_keys_ = false;
    bool entered_ = false;
    bool page_waits_ = false;
    termios before_{};
    std::string pending_;
};

}  // namespace top
