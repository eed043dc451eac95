// vps - a whole system in a container: a root file system with an init such as systemd, on this terminal.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <caisson/caisson.hpp>

namespace {

constexpr char escape = '\x1d';              // Ctrl+]
constexpr std::size_t most_typed = 1 << 20;  // waiting for the container to take it

/// The terminal of standard input, if it is one: raw as long as this lives.
class RawTerminal {
public:
    RawTerminal() : is_terminal_{::tcgetattr(STDIN_FILENO, &before_) == 0} {
        if (!is_terminal_) return;
        termios raw = before_;
        ::cfmakeraw(&raw);
        (void)::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal() {
        if (is_terminal_) (void)::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    }

private:
    termios before_{};
    bool is_terminal_;
};

caisson::WindowSize window_size() {
    winsize ws{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) != 0 || ws.ws_row == 0 || ws.ws_col == 0) return {};
    return {ws.ws_row, ws.ws_col};
}

void write_all(int fd, const char* data, ssize_t size) {
    while (size > 0) {
        const ssize_t n = ::write(fd, data, static_cast<std::size_t>(size));
        if (n < 0 && errno != EINTR) return;
        if (n > 0) data += n, size -= n;
    }
}

/// Carries bytes between this terminal and the container's console until the container ends.
caisson::ExitStatus attend(caisson::Container& machine) {
    const int console = machine.console()->fd();
    // Who waits for the console to take something does not take what comes out of it, and both could wait for ever.
    (void)::fcntl(console, F_SETFL, ::fcntl(console, F_GETFL) | O_NONBLOCK);
    // An init opens the console only now and then: held open here, it does not hang up in between.
    caisson::Fd held = machine.console()->open_peer();
    std::string typed;
    bool typing = true;
    bool asked = false;
    char buffer[4096];
    for (;;) {
        const bool takes = typing && typed.size() < most_typed;
        const short events = typed.empty() ? POLLIN : POLLIN | POLLOUT;
        pollfd p[]{{takes ? STDIN_FILENO : -1, POLLIN, 0}, {console, events, 0}, {held ? machine.fd() : -1, POLLIN, 0}};
        if (::poll(p, 3, -1) < 0 && errno != EINTR) throw std::system_error{errno, std::system_category(), "poll"};
        if (p[0].revents != 0) {
            const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
            typing = n > 0;
            if (n > 0 && std::memchr(buffer, escape, static_cast<std::size_t>(n)) != nullptr) {
                if (asked) return machine.kill();
                asked = true;
                // To systemd: halt the system.
                (void)machine.signal(SIGRTMIN + 3);
            } else if (n > 0) {
                typed.append(buffer, static_cast<std::size_t>(n));
            }
        }
        if ((p[1].revents & POLLOUT) != 0) {
            const ssize_t n = ::write(console, typed.data(), typed.size());
            if (n > 0) typed.erase(0, static_cast<std::size_t>(n));
        }
        if ((p[1].revents & ~POLLOUT) != 0) {
            const ssize_t n = ::read(console, buffer, sizeof buffer);
            write_all(STDOUT_FILENO, buffer, n);
            if (n > 0 || (n < 0 && errno == EAGAIN)) continue;
            if (!held) return machine.wait();
            held = machine.console()->open_peer();
        }
        // What it still wrote can be read, and then there is a hang-up.
        if (p[2].revents != 0) held.reset();
    }
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string_view first = argc > 1 ? argv[1] : "";
    const bool help = argc == 2 && first == "--help";
    const bool throw_away = argc == 3 && first == "--throw-away";
    if (!throw_away && (argc != 2 || first.starts_with("-"))) {
        std::fputs(
            "usage: vps [--throw-away] ROOT\n"
            "Starts /sbin/init of ROOT, a directory or an image file, as a machine of its own with this terminal as\n"
            "its console. With --throw-away, what it writes is kept in memory and gone with it. Ctrl+] asks it to\n"
            "halt, a second one ends it at once.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    caisson::ContainerSpec spec = caisson::ContainerSpec::system();
    spec.name = "vps";
    spec.root = argv[argc - 1];
    if (throw_away) spec.root_overlay.emplace();
    std::optional<caisson::ExitStatus> status;
    {
        const RawTerminal raw;
        do {
            spec.console->size = window_size();
            auto machine = caisson::Container::start(spec);
            status = attend(machine);
        } while (status->request() == caisson::ExitStatus::Request::restart);
    }
    std::printf("vps: the machine %s\n", status->str().c_str());
    return status->request() == caisson::ExitStatus::Request::poweroff || status->success() ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "vps: %s\n", error.what());
    return 1;
}
