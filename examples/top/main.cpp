// top: all containers that helpers run, in a table that is drawn again each second: processor time in all and on each
// CPU, memory, I/O, network. It asks their helpers, as any program may, and never reads /proc.
#include <cerrno>
#include <charconv>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include <poll.h>
#include <unistd.h>

#include "collect.hpp"
#include "layout.hpp"
#include "terminal.hpp"

namespace {

using namespace top;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr const char* usage =
    "usage: top [--run DIR] [--interval SECONDS] [--once]\n"
    "\n"
    "  --run DIR           where running containers are found (default /run/caisson)\n"
    "  --interval SECONDS  how often they are looked at, 0.1 to 3600 (default 1)\n"
    "  --once              print one table after one interval, as without a terminal\n"
    "\n"
    "CPU% is of one CPU: two busy ones are 200. q or Ctrl+C ends it.\n";

struct Options {
    std::string run = caisson::default_run_directory;
    milliseconds interval{1000};
    bool once = false;
    bool help = false;
};

/// Nothing where the words are wrong.
std::optional<Options> parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        std::string_view word{argv[i]};
        const auto value = [&](std::string_view name) -> std::optional<std::string_view> {
            if (word == name && i + 1 < argc) return std::string_view{argv[++i]};
            if (word.starts_with(name) && word.size() > name.size() && word[name.size()] == '=') {
                return word.substr(name.size() + 1);
            }
            return std::nullopt;
        };
        if (const auto run = value("--run"); run && !run->empty()) {
            options.run = *run;
        } else if (const auto text = value("--interval")) {
            double seconds = 0;
            const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
            if (error != std::errc{} || end != text->data() + text->size()) return std::nullopt;
            if (!(seconds >= 0.1 && seconds <= 3600)) return std::nullopt;
            options.interval = milliseconds{static_cast<long>(seconds * 1000)};
        } else if (word == "--once") {
            options.once = true;
        } else if (word == "--help" || word == "-h") {
            options.help = true;
        } else {
            return std::nullopt;
        }
    }
    return options;
}

int print_once(const Options& options) {
    Collector collector{options.run};
    (void)collector.collect();
    std::this_thread::sleep_for(options.interval);
    Paper paper = paper_of_terminal();
    // Not for eyes: nothing is cut off.
    if (::isatty(STDOUT_FILENO) == 0) paper.columns = 500;
    paper.lines = static_cast<std::size_t>(-1);
    for (const std::string& line : lay_out(collector.collect(), paper).lines) std::puts(line.c_str());
    if (std::fflush(stdout) == 0) return 0;
    std::perror("top: write to standard output");
    return 1;
}

/// What the loop is to do about signals: nothing to go on, 0 to draw again, else the one to end by.
std::optional<int> take_signals(const Signals& signals, Screen& screen) {
    std::optional<int> what;
    while (const auto signal = signals.next()) {
        switch (*signal) {
            case SIGTSTP:
                screen.leave();
                ::raise(SIGSTOP);
                [[fallthrough]];
            case SIGCONT: screen.enter(); [[fallthrough]];
            case SIGWINCH: what = 0; break;
            case SIGPIPE: break;
            default: return *signal;
        }
    }
    return what;
}

/// True if the user wants to leave, or has gone.
bool takes_leave() {
    char key = 0;
    const ssize_t n = ::read(STDIN_FILENO, &key, 1);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || key == 'q' || key == 'Q';
}

/// Returns the signal that ended it; 0: the user did.
int watch(const Options& options) {
    Collector collector{options.run};
    View view = collector.collect();
    const Signals signals;
    Screen screen;
    screen.show(lay_out(view, paper_of_terminal()));
    // The first rates come soon.
    auto next = Clock::now() + std::min(options.interval, milliseconds{300});
    const bool has_keys = ::isatty(STDIN_FILENO) == 1;
    for (;;) {
        const auto left = std::chrono::ceil<milliseconds>(next - Clock::now()).count();
        pollfd p[3]{{signals.fd(), POLLIN, 0},
                    {has_keys ? STDIN_FILENO : -1, POLLIN, 0},
                    {screen.pending() ? screen.out() : -1, POLLOUT, 0}};
        if (::poll(p, 3, left < 0 ? 0 : static_cast<int>(left)) < 0 && errno != EINTR) {
            throw std::system_error{errno, std::generic_category(), "cannot wait"};
        }
        const auto signal = take_signals(signals, screen);
        if (signal && *signal != 0) return *signal;
        if (p[1].revents != 0 && takes_leave()) return 0;
        if (p[2].revents != 0) screen.flush();
        const bool due = Clock::now() >= next;
        if (due) {
            view = collector.collect();
            next = Clock::now() + options.interval;
        }
        if (due || signal) screen.show(lay_out(view, paper_of_terminal()));
    }
}

}  // namespace

int main(int argc, char** argv) {
    const auto options = parse(argc, argv);
    if (!options) return std::fputs(usage, stderr), 2;
    if (options->help) return std::fputs(usage, stdout) < 0 ? 1 : 0;
    (void)std::setlocale(LC_CTYPE, "");
    try {
        if (options->once || ::isatty(STDOUT_FILENO) == 0) return print_once(*options);
        if (const int signal = watch(*options); signal != 0) {
            (void)std::signal(signal, SIG_DFL);
            (void)::raise(signal);
        }
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "top: %s\n", e.what());
        return 1;
    }
}
