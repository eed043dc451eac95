// Whatever a host does with SIGCHLD and wait(2), it gets the true exit status of its containers, and hears of its own
// children alone.
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

// What a handler has seen; a handler reaches nothing but globals.
std::atomic<int> handler_calls{0};
std::atomic<int> reaped{0};
std::atomic<pid_t> last_reaped{0};
std::atomic<int> wake_up{-1};

void note_reaped(pid_t pid) {
    last_reaped = pid;
    ++reaped;
}
void count_and_reap(int) {
    const int saved = errno;
    ++handler_calls;
    for (pid_t pid; (pid = ::waitpid(-1, nullptr, WNOHANG)) > 0;) note_reaped(pid);
    errno = saved;
}
void count_and_wake(int) {
    const int saved = errno;
    ++handler_calls;
    (void)!::write(wake_up, "x", 1);
    errno = saved;
}

bool readable(int fd, int milliseconds) {
    pollfd p{fd, POLLIN, 0};
    int n = 0;
    do n = ::poll(&p, 1, milliseconds);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

/// A child of the host's own that lives until `end`.
struct OwnChild {
    int hold[2]{-1, -1};
    pid_t pid = -1;
    Process handle{};
    OwnChild() {
        REQUIRE(::pipe2(hold, O_CLOEXEC) == 0);
        pid = ::fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            char byte;
            (void)::close(hold[1]);
            (void)!::read(hold[0], &byte, 1);
            ::_exit(42);
        }
        (void)::close(hold[0]);
        handle = Process::open(pid);
    }
    void end() {
        (void)::close(hold[1]);
        CHECK(handle.ended_within(5000));
    }
};

/// One way of a host to deal with SIGCHLD: the disposition, and how it finds its own child that has ended.
struct Style {
    const char* name;
    void (*handler)(int);
    int flags;
    bool block;         // SIGCHLD is blocked and read from a signalfd
    bool handler_runs;  // once for the own child
    bool wait_thread;   // a thread blocks in wait(2) from before the start on
    // True if the host got the end of its own child as this style does.
    std::function<bool(const OwnChild&)> reap;
};

bool noted(const OwnChild& child) {
    for (int i = 0; i < 500 && reaped == 0; ++i) (void)::poll(nullptr, 0, 10);
    return reaped == 1 && last_reaped == child.pid;
}
bool reaped_by_kernel(const OwnChild& child) {
    // Blocks until it has ended; then there is nothing to wait for.
    return ::waitpid(child.pid, nullptr, 0) < 0 && errno == ECHILD;
}

std::vector<Style> styles(int signal_fd, int self_pipe) {
    return {
        {"SIG_DFL", SIG_DFL, 0, false, false, false,
         [](const OwnChild& child) {
             int status = 0;
             return ::waitpid(-1, &status, 0) == child.pid && WEXITSTATUS(status) == 42;
         }},
        {"SIG_IGN", SIG_IGN, 0, false, false, false, reaped_by_kernel},
        {"SA_NOCLDWAIT", SIG_DFL, SA_NOCLDWAIT, false, false, false, reaped_by_kernel},
        {"a handler that reaps all", count_and_reap, SA_RESTART, false, true, false, noted},
        {"a thread in wait", SIG_DFL, 0, false, false, true, noted},
        {"signalfd", SIG_DFL, 0, true, false, false,
         [signal_fd](const OwnChild& child) {
             signalfd_siginfo info{};
             return readable(signal_fd, 5000) && ::read(signal_fd, &info, sizeof info) == sizeof info &&
                    info.ssi_pid == static_cast<unsigned>(child.pid) && ::waitpid(-1, nullptr, WNOHANG) == child.pid;
         }},
        {"a self-pipe", count_and_wake, SA_RESTART | SA_NOCLDSTOP, false, true, false,
         [self_pipe](const OwnChild& child) {
             char byte = 0;
             return readable(self_pipe, 5000) && ::read(self_pipe, &byte, 1) == 1 &&
                    ::waitpid(child.pid, nullptr, WNOHANG) == child.pid;
         }},
    };
}

struct Ending {
    const char* name;
    std::vector<std::string> command;
    bool kill;
    bool limited;
    ExitStatus status;
};

const std::vector<Ending> endings{
    {"exit 0", {"/bin/true"}, false, false, ExitStatus::exited(0)},
    {"exit 7", {"/bin/sh", "-c", "exit 7"}, false, false, ExitStatus::exited(7)},
    {"exit 255", {"/bin/sh", "-c", "exit 255"}, false, false, ExitStatus::exited(255)},
    {"SIGSEGV", {"/bin/crash"}, false, false, ExitStatus::killed(SIGSEGV)},
    {"SIGKILL from outside", {"/bin/sleep", "1000"}, true, false, ExitStatus::killed(SIGKILL)},
    {"out of memory",
     {"/usr/bin/tail", "/dev/zero"},
     false,
     true,
     ExitStatus::killed(SIGKILL).with_out_of_memory(true)},
    {"reboot",
     {"/bin/sh", "-c", "reboot -f"},
     false,
     false,
     ExitStatus::killed(SIGHUP).with(ExitStatus::Request::restart)},
    {"poweroff",
     {"/bin/sh", "-c", "poweroff -f"},
     false,
     false,
     ExitStatus::killed(SIGINT).with(ExitStatus::Request::poweroff)},
};

ExitStatus run(const TestRoot& root, const Ending& ending) {
    ContainerSpec spec;
    spec.name = "sigchld";
    spec.root = root.path();
    spec.command = ending.command;
    spec.console = std::nullopt;
    // Of the programs here, only those two use it.
    spec.capabilities = CapabilitySet::application().with({"sys_boot"});
    if (ending.limited) spec.limits.memory = 32ull << 20;
    Container container = Container::start(spec);
    if (ending.kill) (void)::kill(container.init().pid(), SIGKILL);
    const ExitStatus status = container.wait();
    return status.with_core_dumped(false);
}

/// True if the host got the true status of the container and heard of its own child, once, and of nothing else.
bool holds(const TestRoot& root, const Style& style, const Ending& ending, int signal_fd, int self_pipe) {
    INFO(std::string{style.name}, ", ", std::string{ending.name});
    handler_calls = 0;
    reaped = 0;
    last_reaped = 0;
    struct sigaction action {
    }, before{};
    action.sa_handler = style.handler;
    action.sa_flags = style.flags;
    REQUIRE(::sigaction(SIGCHLD, &action, &before) == 0);
    sigset_t chld, mask;
    (void)::sigemptyset(&chld);
    (void)::sigaddset(&chld, SIGCHLD);
    (void)::pthread_sigmask(style.block ? SIG_BLOCK : SIG_UNBLOCK, &chld, &mask);

    OwnChild child;
    std::thread waiting;
    if (style.wait_thread) {
        waiting = std::thread{[] {
            for (pid_t pid; (pid = ::wait(nullptr)) > 0;) note_reaped(pid);
        }};
    }
    const ExitStatus status = run(root, ending);
    bool good = status == ending.status;
    CHECK_MESSAGE(status == ending.status, status.str());
    // So far the host has heard of nothing: its own child is alive.
    good = good && handler_calls == 0 && reaped == 0 && !child.handle.ended();
    CHECK(handler_calls == 0);
    CHECK(reaped == 0);
    if (style.block) {
        good = good && !readable(signal_fd, 0);
        CHECK_FALSE(readable(signal_fd, 0));
    }
    child.end();
    const bool own = style.reap(child);
    CHECK(own);
    if (waiting.joinable()) waiting.join();
    const int calls = style.handler_runs ? 1 : 0;
    CHECK(handler_calls == calls);
    good = good && own && handler_calls == calls && ::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD;

    (void)::sigaction(SIGCHLD, &before, nullptr);
    (void)::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    char rest[16];
    while (::read(self_pipe, rest, sizeof rest) > 0) {
    }
    return good;
}

}  // namespace

TEST_CASE("every style of SIGCHLD handling gets the true exit status of every way to end, and keeps its own children") {
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    root.copy(program("crash"), "/bin/crash");
    root.copy("/bin/busybox", "/usr/bin/tail");
    int pipe_ends[2];
    REQUIRE(::pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) == 0);
    const Fd self_pipe{pipe_ends[0]};
    const Fd writer{pipe_ends[1]};
    wake_up = writer.get();
    sigset_t chld;
    (void)::sigemptyset(&chld);
    (void)::sigaddset(&chld, SIGCHLD);
    const Fd signal_fd{::signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK)};
    REQUIRE(signal_fd);

    int held = 0, all = 0;
    for (const Style& style : styles(signal_fd.get(), self_pipe.get())) {
        for (const Ending& ending : endings) {
            ++all;
            if (holds(root, style, ending, signal_fd.get(), self_pipe.get())) ++held;
            else std::printf("%s, %s: does not hold\n", style.name, ending.name);
        }
    }
    std::printf("%d of %d\n", held, all);
    CHECK(all == 56);
    CHECK(held == all);
}
