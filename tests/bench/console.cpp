// console [--rounds N] [--flood GiB]: what a console carries in a second and what that costs, beside forwarders that do
// nothing else, to the same kind of reader, and beside lxc-execute and conmon. With --flood, the memory of a
// controller whose console is flooded while its only viewer sleeps.
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/controller.hpp>

#include "bench_root.hpp"
#include "samples.hpp"
#include "supervisors.hpp"

using namespace caisson_bench;
using caisson::Fd;
using caisson::Pty;

namespace {

constexpr std::size_t total = std::size_t{64} << 20;

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

/// Processor time of this process alone.
double own_cpu() {
    rusage used{};
    (void)::getrusage(RUSAGE_SELF, &used);
    double sum = 0;
    for (const timeval& t : {used.ru_utime, used.ru_stime}) {
        sum += static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
    }
    return sum;
}

struct Result {
    Samples rate;  // MiB a second
    Samples cpu;   // microseconds of the forwarding process for each MiB
};

/// A process that reads until everything has come, and ends.
class Reading {
public:
    explicit Reading(int fd) : pid_{::fork()} {
        if (pid_ < 0) fail("fork");
        if (pid_ == 0) read_all(fd);
        ended_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
        if (!ended_) fail("pidfd_open");
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() {
        int status = 0;
        (void)::kill(pid_, SIGKILL);
        if (::waitpid(pid_, &status, 0) != pid_ || status != 0) fail("the reader has not got everything");
    }
    /// Readable once it has ended.
    [[nodiscard]] int fd() const { return ended_.get(); }

private:
    [[noreturn]] static void read_all(int fd) {
        (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
        static char buffer[65536];
        for (std::size_t got = 0; got < total;) {
            const ssize_t n = ::read(fd, buffer, sizeof buffer);
            if (n <= 0) ::_exit(1);
            got += static_cast<std::size_t>(n);
        }
        ::_exit(0);
    }

    pid_t pid_;
    Fd ended_;
};

void add(Result& result, double wall, double cpu) {
    constexpr double mebibytes = static_cast<double>(total) / (1 << 20);
    result.rate.add(mebibytes / (wall / 1e6));
    result.cpu.add(cpu / mebibytes);
}

enum class Reader { terminal, viewer, none };

/// What a forwarder writes to, and who reads it: a terminal, a socket, or a file that nobody reads.
struct Outer {
    Outer(Reader who, const std::string& log) {
        if (who == Reader::terminal) {
            terminal.emplace(Pty::open());
            terminal->make_raw();
            fd.reset(::fcntl(terminal->fd(), F_DUPFD_CLOEXEC, 0));
            user = terminal->open_peer();
        } else if (who == Reader::viewer) {
            int pair[2];
            if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair");
            fd.reset(pair[0]);
            user.reset(pair[1]);
        } else {
            fd.reset(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
        }
        if (!fd) fail("what a forwarder writes to");
        (void)::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    }
    std::optional<Pty> terminal;
    Fd fd;
    Fd user;
};

/// A terminal, an epoll set and 64 KiB: nothing that could be left out.
void forward(const std::string& flood, Reader who, const std::string& log, Result& result) {
    Pty inner = Pty::open();
    const Outer outer{who, log};
    const Fd terminal = inner.open_peer();
    std::optional<Reading> reader;
    if (outer.user) reader.emplace(outer.user.get());
    const pid_t writer = ::fork();
    if (writer < 0) fail("fork");
    if (writer == 0) {
        (void)::dup2(terminal.get(), 1);
        ::execl(flood.c_str(), flood.c_str(), nullptr);
        ::_exit(1);
    }
    (void)::fcntl(inner.fd(), F_SETFL, ::fcntl(inner.fd(), F_GETFL) | O_NONBLOCK);
    const Fd set{::epoll_create1(EPOLL_CLOEXEC)};
    epoll_event in{EPOLLIN, {.fd = inner.fd()}};
    epoll_event out{0, {.fd = outer.fd.get()}};
    if (::epoll_ctl(set.get(), EPOLL_CTL_ADD, inner.fd(), &in) != 0) fail("epoll");
    // A file is always ready, and epoll(7) takes none.
    if (reader && ::epoll_ctl(set.get(), EPOLL_CTL_ADD, outer.fd.get(), &out) != 0) fail("epoll");
    static char buffer[65536];
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t moved = 0;
    const double before = own_cpu();
    const double from = now();
    while (moved < total) {
        epoll_event ready[2];
        (void)::epoll_wait(set.get(), ready, 2, -1);
        if (begin == end) {
            const ssize_t n = ::read(inner.fd(), buffer, sizeof buffer);
            if (n < 0 && errno != EAGAIN) fail("read");
            begin = 0;
            end = n > 0 ? static_cast<std::size_t>(n) : 0;
        }
        const ssize_t n = begin < end ? ::write(outer.fd.get(), buffer + begin, end - begin) : 0;
        if (n < 0 && errno != EAGAIN) fail("write");
        if (n > 0) {
            begin += static_cast<std::size_t>(n);
            moved += static_cast<std::size_t>(n);
        }
        const std::uint32_t wants_out = begin < end ? std::uint32_t{EPOLLOUT} : 0u;
        if (wants_out == out.events) continue;
        out.events = wants_out;
        in.events = wants_out != 0 ? 0u : std::uint32_t{EPOLLIN};
        (void)::epoll_ctl(set.get(), EPOLL_CTL_MOD, outer.fd.get(), &out);
        (void)::epoll_ctl(set.get(), EPOLL_CTL_MOD, inner.fd(), &in);
    }
    const double cpu = own_cpu() - before;
    if (reader) (void)caisson::detail::wait_readable(reader->fd(), -1);
    add(result, now() - from, cpu);
    (void)::waitpid(writer, nullptr, 0);
}

caisson::ContainerSpec flooding(const BenchRoot& root, const std::string& flood) {
    const std::string inside = root.path() + "/flood";
    if (!std::filesystem::exists(inside)) std::filesystem::copy_file(flood, inside);
    caisson::ContainerSpec spec = root.spec("flood");
    spec.command = {"/flood"};
    spec.console = caisson::ConsoleSpec{};
    return spec;
}

/// A container's flood through a controller, to one reader or to a log alone.
void relay(const caisson::ContainerSpec& spec, Reader who, Result& result) {
    caisson::Controller controller;
    const double from = now();
    const auto id = controller.start(spec);
    std::optional<Reading> reader;
    if (who != Reader::none) {
        const Fd user = who == Reader::viewer ? controller.attach_console(id) : controller.open_console(id);
        reader.emplace(user.get());
    }
    const double before = own_cpu();
    pollfd ready[2]{{controller.fd(), POLLIN, 0}, {reader ? reader->fd() : -1, POLLIN, 0}};
    for (bool over = false; !over;) {
        (void)::poll(ready, 2, -1);
        while (auto event = controller.next()) {
            if (event->error) std::fprintf(stderr, "console: %s\n", event->error->what());
            over = over || (event->is_last() && !reader);
        }
        over = over || ready[1].revents != 0;
    }
    add(result, now() - from, own_cpu() - before);
}

/// A process that is to end by itself within a minute, and that nobody has waited for: what it took, without children.
std::optional<double> cpu_at_end(pid_t pid) {
    const Fd ended{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    const bool has_ended = ended && caisson::detail::wait_readable(ended.get(), 60000);
    if (!has_ended) (void)::kill(pid, SIGKILL);
    const double cpu = cpu_of(pid);
    (void)::waitpid(pid, nullptr, 0);
    if (!has_ended) return std::nullopt;
    return cpu;
}

/// To a terminal of the host, which this process reads.
void lxc_execute(Supervisors& peers, Result& result) {
    std::vector<std::string> command = peers.lxc_execute("/flood");
    if (command.empty()) return;
    std::vector<char*> arguments;
    for (std::string& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    Pty outer = Pty::open();
    outer.make_raw();
    Fd terminal = outer.open_peer();
    const double from = now();
    const pid_t pid = ::fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
        (void)::setsid();
        (void)::ioctl(terminal.get(), TIOCSCTTY, 0);
        for (int fd = 0; fd < 3; ++fd) (void)::dup2(terminal.get(), fd);
        ::execv(arguments[0], arguments.data());
        ::_exit(1);
    }
    terminal.reset();
    static char buffer[65536];
    std::size_t got = 0;
    while (caisson::detail::wait_readable(outer.fd(), 10000)) {
        const ssize_t n = ::read(outer.fd(), buffer, sizeof buffer);
        if (n <= 0) break;
        got += static_cast<std::size_t>(n);
    }
    const double wall = now() - from;
    const auto cpu = cpu_at_end(pid);
    if (cpu && got >= total) add(result, wall, *cpu);
    else std::fprintf(stderr, "console: lxc-execute has brought %zu bytes\n", got);
}

/// To its log.
void conmon(Supervisors& peers, const std::string& log, Result& result) {
    (void)::unlink(log.c_str());
    // It goes into the background, and is this process's to wait for all the same.
    (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
    double from = 0;
    const auto pid = peers.start_conmon("/flood", log, [&] { from = now(); });
    const auto cpu = pid ? cpu_at_end(*pid) : std::nullopt;
    const double wall = now() - from;
    (void)::prctl(PR_SET_CHILD_SUBREAPER, 0);
    std::error_code error;
    const auto got = std::filesystem::file_size(log, error);
    if (cpu && !error && got >= total) add(result, wall, *cpu);
    else if (pid) std::fprintf(stderr, "console: conmon has not logged everything\n");
}

long resident_kib() {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, "/proc/self/statm", text);
    long size = 0;
    long pages = 0;
    (void)std::sscanf(text.c_str(), "%ld %ld", &size, &pages);
    return pages * (::sysconf(_SC_PAGESIZE) / 1024);
}

/// Floods again and again, with a viewer that never reads.
void flood_without_reader(caisson::ContainerSpec spec, double gibibytes) {
    spec.console->when_full = caisson::WhenFull::drop_oldest;
    spec.on_poweroff = caisson::EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    spec.back_off.longest_pause_ms = 10;
    caisson::Controller controller;
    const auto id = controller.start(spec);
    const Fd sleeps = controller.attach_console(id);
    long before = 0;
    long most = 0;
    double longest = 0;
    for (double written = 0; written < gibibytes * (1 << 30);) {
        const double from = now();
        const auto event = controller.next();
        const bool starts = event && event->kind != caisson::Event::Kind::console_lost;
        if (!starts) longest = std::max(longest, now() - from);
        if (event) continue;
        written = static_cast<double>(controller.console_state(id).written);
        if (before == 0 && written > 1 << 24) before = resident_kib();
        most = std::max(most, resident_kib());
        pollfd p{controller.fd(), POLLIN, 0};
        (void)::poll(&p, 1, 1000);
    }
    const auto lost = controller.console_state(id).viewers.back().lost;
    std::printf(
        "%.1f GiB beside a viewer that sleeps: memory %+ld KiB, the longest turn of the loop %.1f ms, %llu bytes "
        "counted as lost\n",
        gibibytes, most - before, longest / 1e3, static_cast<unsigned long long>(lost));
}

/// Each beside the forwarder that writes to the same kind of thing, and beside the one between two terminals.
void print(const std::array<Result, 8>& results) {
    struct Row {
        const char* name;
        std::size_t floor;
    };
    constexpr std::array<Row, 8> rows{{{"a forwarder between two terminals", 0},
                                       {"caisson, to a terminal of the host", 0},
                                       {"lxc-execute, to a terminal of the host", 0},
                                       {"a forwarder to a socket", 3},
                                       {"caisson, to a viewer", 3},
                                       {"a forwarder to a file", 5},
                                       {"caisson, to a log", 5},
                                       {"conmon, to its log", 5}}};
    std::printf("%-40s %8s %8s %10s %11s %8s %10s\n", "64 MiB of a raw terminal, p50", "MiB/s", "x floor", "x terminal",
                "CPU us/MiB", "x floor", "x terminal");
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (results[i].rate.empty()) continue;
        const auto columns = [&](Samples Result::*what, int width) {
            const auto p50 = [&](std::size_t row) { return (results[row].*what).percentile(50); };
            std::printf(" %*.*f %8.2f %10.2f", width, width == 8 ? 1 : 0, p50(i), p50(i) / p50(rows[i].floor),
                        p50(i) / p50(0));
        };
        std::printf("%-40s", rows[i].name);
        columns(&Result::rate, 8);
        columns(&Result::cpu, 11);
        std::printf("\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    int rounds = 7;
    double gibibytes = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (std::strcmp(argv[i], "--rounds") == 0) rounds = std::atoi(argv[i + 1]);
        if (std::strcmp(argv[i], "--flood") == 0) gibibytes = std::atof(argv[i + 1]);
    }
    begin_as_root(60 + (gibibytes > 0 ? static_cast<unsigned>(gibibytes * 120) : static_cast<unsigned>(rounds) * 60));
    const BenchRoot root;
    const std::string flood = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "flood";
    caisson::ContainerSpec spec = flooding(root, flood);
    if (gibibytes > 0) {
        flood_without_reader(spec, gibibytes);
        return 0;
    }
    caisson::ContainerSpec logged = spec;
    logged.console->log = root.path() + "/log";
    logged.console->log_append = false;
    Supervisors peers{root.path()};
    std::array<Result, 8> results;
    // In turns, so that what the machine does meanwhile is the same for all.
    for (int round = 0; round < rounds; ++round) {
        const std::string log = root.path() + "/forwarded.log";
        forward(flood, Reader::terminal, log, results[0]);
        relay(spec, Reader::terminal, results[1]);
        lxc_execute(peers, results[2]);
        forward(flood, Reader::viewer, log, results[3]);
        relay(spec, Reader::viewer, results[4]);
        forward(flood, Reader::none, log, results[5]);
        relay(logged, Reader::none, results[6]);
        conmon(peers, root.path() + "/conmon.log", results[7]);
    }
    print(results);
    return 0;
}
