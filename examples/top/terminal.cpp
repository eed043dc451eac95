#include "terminal.hpp"

#include <cerrno>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace top {
namespace {

constexpr const char* other_page = "\x1b[?1049h\x1b[?25l";
/// Ends a sequence that was cut off, which would swallow the beginning of the next.
constexpr const char* cancel = "\x18";
constexpr const char* first_page = "\x1b[0m\x1b[?25h\x1b[?1049l";

[[noreturn]] void fail(const char* what) {
    throw std::system_error{errno, std::generic_category(), what};
}

class BlockedSignal {
public:
    explicit BlockedSignal(int signal) noexcept {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, signal);
        sigprocmask(SIG_BLOCK, &set, &before_);
    }
    ~BlockedSignal() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
    BlockedSignal(const BlockedSignal&) = delete;
    BlockedSignal& operator=(const BlockedSignal&) = delete;

private:
    sigset_t before_{};
};

}  // namespace

Signals::Signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT, SIGTSTP, SIGPIPE}) sigaddset(&set, s);
    fd_ = caisson::Fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
    if (!fd_) fail("cannot wait for signals");
    sigprocmask(SIG_BLOCK, &set, &before_);
}
Signals::~Signals() {
    sigprocmask(SIG_SETMASK, &before_, nullptr);
}
std::optional<int> Signals::next() const {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
}

Paper paper_of_terminal() {
    Paper paper;
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        paper.columns = size.ws_col;
        paper.lines = size.ws_row;
    }
    paper.utf8 = std::string_view{::nl_langinfo(CODESET)} == "UTF-8";
    return paper;
}

Screen::Screen()
    : own_out_{::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)},
      has_keys_{::isatty(STDIN_FILENO) == 1} {
    enter();
}
Screen::~Screen() {
    leave();
}

int Screen::out() const noexcept {
    return own_out_ ? own_out_.get() : STDOUT_FILENO;
}

void Screen::enter() {
    if (has_keys_) {
        await_foreground();
        if (!entered_ && ::tcgetattr(STDIN_FILENO, &before_) != 0) fail("cannot read the terminal's modes");
        termios keys = before_;
        keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
        keys.c_cc[VMIN] = 1;
        keys.c_cc[VTIME] = 0;
        if (::tcsetattr(STDIN_FILENO, TCSANOW, &keys) != 0) fail("cannot set the terminal's modes");
    }
    pending_ = pending_.empty() ? other_page : std::string{cancel} + other_page;
    page_waits_ = false;
    entered_ = true;
}

void Screen::leave() noexcept {
    if (!entered_) return;
    entered_ = false;
    if (!pending_.empty()) write_soon(cancel);
    write_soon(first_page);
    pending_.clear();
    if (!has_keys_) return;
    const BlockedSignal unstopped{SIGTTOU};
    (void)::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

void Screen::await_foreground() const {
    const pid_t foreground = ::tcgetpgrp(STDIN_FILENO);
    if (foreground < 0 || foreground == ::getpgrp()) return;
    // The kernel stops who sets the modes from the background; what comes then may end the program, too.
    sigset_t ends;
    sigset_t blocked;
    sigemptyset(&ends);
    for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) sigaddset(&ends, s);
    sigprocmask(SIG_UNBLOCK, &ends, &blocked);
    termios same{};
    if (::tcgetattr(STDIN_FILENO, &same) == 0) (void)::tcsetattr(STDIN_FILENO, TCSANOW, &same);
    sigprocmask(SIG_SETMASK, &blocked, nullptr);
}

void Screen::write_soon(std::string_view rest) const noexcept {
    while (!rest.empty()) {
        const ssize_t n = ::write(out(), rest.data(), rest.size());
        if (n > 0) {
            rest.remove_prefix(static_cast<std::size_t>(n));
        } else if (errno != EINTR) {
            // It may be that nobody reads.
            pollfd p{out(), POLLOUT, 0};
            if (errno != EAGAIN || ::poll(&p, 1, 200) <= 0) return;
        }
    }
}

void Screen::show(const Page& page) {
    if (page_waits_) return;
    for (std::size_t i = 0; i < page.lines.size(); ++i) {
        // Wiped before it is written: behind a full line, the cursor still stands on its last character.
        pending_ += "\x1b[" + std::to_string(i + 1) + ";1H\x1b[K";
        pending_ += i == page.head ? "\x1b[7m" + page.lines[i] + "\x1b[0m" : page.lines[i];
    }
    pending_ += "\x1b[" + std::to_string(page.lines.size() + 1) + ";1H\x1b[J";
    page_waits_ = true;
    flush();
}

void Screen::flush() {
    while (!pending_.empty()) {
        const ssize_t n = ::write(out(), pending_.data(), pending_.size());
        if (n > 0) pending_.erase(0, static_cast<std::size_t>(n));
        else if (errno == EAGAIN) return;
        else if (errno != EINTR) fail("cannot write to the terminal");
    }
    page_waits_ = false;
}

}  // namespace top
