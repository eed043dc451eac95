#include "console.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/process.hpp>

#include "failure.hpp"

namespace caissonctl {
namespace {

using caisson::Fd;

constexpr char escape = '\x1d';  // Ctrl+]
constexpr std::size_t buffer_limit = 64 * 1024;

/// Signals come through a descriptor as long as this lives.
class Signals {
public:
    Signals() {
        sigset_t set;
        sigemptyset(&set);
        for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT, SIGTSTP, SIGPIPE, SIGTTOU}) {
            sigaddset(&set, s);
        }
        fd_ = Fd{::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
        if (!fd_) throw Failure{"cannot wait for signals", std::strerror(errno)};
        sigprocmask(SIG_BLOCK, &set, &before_);
    }
    ~Signals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] std::optional<int> next() const {
        signalfd_siginfo info{};
        if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return std::nullopt;
        return static_cast<int>(info.ssi_signo);
    }

private:
    Fd fd_;
    sigset_t before_{};
};

/// The terminal of standard input, raw as long as this lives.
class RawTerminal {
public:
    RawTerminal() {
        if (::tcgetattr(STDIN_FILENO, &before_) != 0)
            throw Failure{"unable to get tty attributes", std::strerror(errno)};
        // A job in the background is stopped here instead of taking the terminal.
        sigset_t stop;
        sigemptyset(&stop);
        sigaddset(&stop, SIGTTOU);
        sigprocmask(SIG_UNBLOCK, &stop, nullptr);
        set();
        sigprocmask(SIG_BLOCK, &stop, nullptr);
    }
    ~RawTerminal() { (void)::tcsetattr(STDIN_FILENO, TCSANOW, &before_); }
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

    void set() const {
        termios raw = before_;
        ::cfmakeraw(&raw);
        // TCSANOW: what was typed ahead is for the container.
        if (::tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0) {
            throw Failure{"unable to set tty attributes", std::strerror(errno)};
        }
    }

private:
    termios before_{};
};

/// A descriptor of its own for what `fd` is open on, so that making it non-blocking is not seen by the shell that
/// shares `fd`. Regular files (which have an offset and never block) and what cannot be opened again stay as they are.
Fd reopened(int fd, int flags) {
    struct stat st {};
    if (::fstat(fd, &st) != 0 || (!S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))) return {};
    return Fd{::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
}

/// One direction: what was read from one side and not yet written to the other.
struct Flow {
    int from;
    int to;
    std::string pending{};
    bool open = true;  ///< `from` may still give something

    /// Reads once. False at the end of `from`.
    bool read() {
        std::array<char, 8192> chunk;
        const ssize_t n = ::read(from, chunk.data(), chunk.size());
        if (n > 0) pending.append(chunk.data(), static_cast<std::size_t>(n));
        // EIO: the other end of a terminal has gone.
        else if (n == 0 || (errno != EAGAIN && errno != EINTR)) open = false;
        return open;
    }
    /// Writes once. False if `to` takes no more for ever.
    bool write() {
        if (pending.empty()) return true;
        const ssize_t n = ::write(to, pending.data(), pending.size());
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        pending.erase(0, static_cast<std::size_t>(n));
        return true;
    }
};

void tell_size(const std::function<void(caisson::WindowSize)>& resize) {
    winsize ws{};
    if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row > 0 && ws.ws_col > 0) resize({ws.ws_row, ws.ws_col});
}

}  // namespace

bool has_terminal() {
    return ::isatty(STDIN_FILENO) == 1;
}

void claim_console(const Fd& console, bool force) {
    for (;;) {
        // A lock of the process's, and not of the descriptor's: the kernel then tells whose it is.
        struct flock lock {};
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        if (::fcntl(console.get(), F_SETLK, &lock) == 0) return;
        if (errno != EAGAIN && errno != EACCES) throw Failure{"cannot lock the console", std::strerror(errno)};
        if (!force) throw Failure{"operation failed: Active console session exists for this domain"};
        if (::fcntl(console.get(), F_GETLK, &lock) != 0) throw Failure{"cannot lock the console", std::strerror(errno)};
        if (lock.l_type == F_UNLCK) continue;
        const pid_t pid = lock.l_pid;
        if (pid <= 0) {
            throw Failure{"cannot end the active console session", "whose it is cannot be seen from here"};
        }
        try {
            const auto user = caisson::Process::open(pid);
            // The same owner after the process was pinned: no later process with this pid is meant.
            lock.l_type = F_WRLCK;
            if (::fcntl(console.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid != pid) continue;
            // One that was stopped would never get it.
            if (user.signal(SIGHUP) && user.signal(SIGCONT)) (void)user.ended_within(-1);
        } catch (const caisson::Error& e) {
            if (e.code().value() != ESRCH) throw Failure{"cannot end the active console session", e.what()};
        }
    }
}

int join_console(const Fd& console, const std::function<void(caisson::WindowSize)>& resize, Escape typed_escape,
                 Beside beside) {
    const Fd own_in = reopened(STDIN_FILENO, O_RDONLY);
    const Fd own_out = reopened(STDOUT_FILENO, O_WRONLY);
    (void)::fcntl(console.get(), F_SETFL, ::fcntl(console.get(), F_GETFL) | O_NONBLOCK);
    // In this order: while the terminal is raw, no signal ends the program.
    const Signals signals;
    const RawTerminal terminal;
    tell_size(resize);

    Flow typed{own_in ? own_in.get() : STDIN_FILENO, console.get()};
    Flow shown{console.get(), own_out ? own_out.get() : STDOUT_FILENO};
    // The container's last words are shown before leaving: the loop goes on until they are written.
    while (shown.open || !shown.pending.empty()) {
        std::array<pollfd, 6> p{{
            {signals.fd(), POLLIN, 0},
            // However much the container has not taken: the escape character must be seen.
            {shown.open ? typed.from : -1, POLLIN, 0},
            {shown.open && shown.pending.size() < buffer_limit ? console.get() : -1, POLLIN, 0},
            {shown.open && !typed.pending.empty() ? console.get() : -1, POLLOUT, 0},
            {shown.pending.empty() ? -1 : shown.to, POLLOUT, 0},
            {beside.fd, POLLIN, 0},
        }};
        if (::poll(p.data(), p.size(), -1) < 0 && errno != EINTR) throw Failure{"cannot wait", std::strerror(errno)};
        while (const auto signal = signals.next()) {
            if (*signal == SIGWINCH) tell_size(resize);
            else if (*signal == SIGCONT) terminal.set(), tell_size(resize);
            else if (*signal == SIGINT || *signal == SIGTERM || *signal == SIGHUP || *signal == SIGQUIT) return *signal;
        }
        if (p[1].revents != 0) {
            const std::size_t before = typed.pending.size();
            const bool more = typed.read();
            const std::size_t end =
                typed_escape == Escape::leaves ? typed.pending.find(escape, before) : std::string::npos;
            if (end != std::string::npos) typed.pending.resize(end);
            if (end != std::string::npos || !more) {
                (void)typed.write();
                return 0;
            }
        }
        if (p[3].revents != 0) (void)typed.write();
        if (p[2].revents != 0) (void)shown.read();
        if (p[4].revents != 0 && !shown.write()) return 0;
        if (p[5].revents != 0 && !beside.hear()) beside.fd = -1;
    }
    return 0;
}

void die_of(int signal) {
    (void)::signal(signal, SIG_DFL);
    (void)::raise(signal);
}

}  // namespace caissonctl
