#include "support/command.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/process.hpp>

namespace caisson_test {
namespace {

using caisson::Fd;
constexpr int patience = 60'000;  // milliseconds

std::vector<char*> pointers(const Words& words) {
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    return argv;
}

/// Starts the program in a child that `prepare` has set up.
template <class F>
pid_t spawn(const Words& words, F&& prepare) {
    const auto argv = pointers(words);
    const pid_t pid = ::fork();
    if (pid < 0) throw std::runtime_error{"fork"};
    if (pid == 0) {
        prepare();
        ::execvp(argv[0], argv.data());
        ::_exit(127);
    }
    return pid;
}

int status_of(int raw) {
    return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
}

int reap(pid_t pid) {
    int status = -1;
    if (!caisson::Process::open(pid).ended_within(patience)) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return -1;
    }
    if (::waitpid(pid, &status, 0) != pid) throw std::runtime_error{"waitpid"};
    return status_of(status);
}

struct Pipe {
    Fd read;
    Fd write;
    Pipe() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error{"pipe"};
        read.reset(ends[0]);
        write.reset(ends[1]);
    }
};

/// False at the end.
bool read_some(int fd, std::string& text) {
    std::array<char, 4096> chunk;
    const ssize_t n = caisson::detail::sys::retry([&] { return ::read(fd, chunk.data(), chunk.size()); });
    if (n > 0) text.append(chunk.data(), static_cast<std::size_t>(n));
    return n > 0;
}

bool readable(int fd) {
    pollfd p{fd, POLLIN, 0};
    return caisson::detail::sys::retry([&] { return ::poll(&p, 1, patience); }) > 0;
}

}  // namespace

Outcome run(const Words& words) {
    Pipe out;
    Pipe err;
    const Fd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    const pid_t pid = spawn(words, [&] {
        ::dup2(null.get(), 0);
        ::dup2(out.write.get(), 1);
        ::dup2(err.write.get(), 2);
    });
    out.write.reset();
    err.write.reset();
    Outcome outcome;
    bool out_open = true;
    bool err_open = true;
    while (out_open || err_open) {
        std::array<pollfd, 2> p{
            {{out_open ? out.read.get() : -1, POLLIN, 0}, {err_open ? err.read.get() : -1, POLLIN, 0}}};
        if (caisson::detail::sys::retry([&] { return ::poll(p.data(), p.size(), patience); }) == 0) {
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
            return outcome;
        }
        if (p[0].revents != 0) out_open = read_some(out.read.get(), outcome.out);
        if (p[1].revents != 0) err_open = read_some(err.read.get(), outcome.err);
    }
    outcome.status = reap(pid);
    return outcome;
}

Background::Background(const Words& words) {
    Pipe out;
    const Fd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    pid_ = spawn(words, [&] {
        ::setpgid(0, 0);
        ::dup2(null.get(), 0);
        ::dup2(out.write.get(), 1);
        ::dup2(out.write.get(), 2);
    });
    (void)::setpgid(pid_, pid_);
    output_ = std::move(out.read);
}
Background::~Background() {
    if (pid_ < 0) return;
    ::kill(-pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}
void Background::signal_group(int number) const {
    ::kill(-pid_, number);
}
bool Background::says(std::string_view text) {
    while (text_.find(text) == std::string::npos) {
        if (!readable(output_.get()) || !read_some(output_.get(), text_)) return false;
    }
    return true;
}
Outcome Background::wait() {
    while (readable(output_.get()) && read_some(output_.get(), text_)) {
    }
    Outcome outcome;
    outcome.status = reap(pid_);
    pid_ = -1;
    outcome.out = text_;
    return outcome;
}

OnTerminal::OnTerminal(const Words& words, caisson::WindowSize size)
    : pty_{caisson::Pty::open(size)}, kept_{pty_.open_peer()} {
    pid_ = spawn(words, [&] {
        ::setsid();
        ::ioctl(kept_.get(), TIOCSCTTY, 0);
        for (int fd = 0; fd < 3; ++fd) ::dup2(kept_.get(), fd);
    });
}
OnTerminal::~OnTerminal() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}
void OnTerminal::type(std::string_view text) const {
    if (!caisson::detail::sys::write_all(pty_.fd(), text)) throw std::runtime_error{"type"};
}
bool OnTerminal::read_more() {
    return readable(pty_.fd()) && read_some(pty_.fd(), screen_);
}
bool OnTerminal::shows(std::string_view text) {
    for (;;) {
        const std::size_t at = screen_.find(text, found_);
        if (at != std::string::npos) {
            found_ = at + text.size();
            return true;
        }
        // The kept end holds the terminal open, so its hang-up is not seen: the program's end is.
        std::array<pollfd, 2> p{{{pty_.fd(), POLLIN, 0}, {-1, POLLIN, 0}}};
        const auto process = caisson::Process::open(pid_);
        p[1].fd = process.pidfd();
        if (caisson::detail::sys::retry([&] { return ::poll(p.data(), p.size(), patience); }) <= 0) return false;
        if (p[0].revents == 0 || !read_some(pty_.fd(), screen_)) return false;
    }
}
std::string OnTerminal::modes() const {
    termios t{};
    if (::tcgetattr(kept_.get(), &t) != 0) throw std::runtime_error{"tcgetattr"};
    std::string text = std::to_string(t.c_iflag) + ":" + std::to_string(t.c_oflag) + ":" + std::to_string(t.c_cflag) +
                       ":" + std::to_string(t.c_lflag);
    for (const cc_t c : t.c_cc) text += ":" + std::to_string(c);
    return text;
}
void OnTerminal::hang_up() {
    kept_.reset();
    pty_ = caisson::Pty::open();
    kept_ = pty_.open_peer();
}
int OnTerminal::wait() {
    if (pid_ < 0) return status_;
    status_ = reap(pid_);
    pid_ = -1;
    for (pollfd p{pty_.fd(), POLLIN, 0}; ::poll(&p, 1, 0) > 0 && read_some(pty_.fd(), screen_);) {
    }
    return status_;
}

}  // namespace caisson_test
