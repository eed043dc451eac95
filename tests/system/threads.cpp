// Containers and the threads, descriptors and signals of the program that starts them.
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

constexpr int count = 100;

ContainerSpec spec_of(const TestRoot& root, std::vector<std::string> command, int out = -1) {
    ContainerSpec spec;
    spec.name = "threads";
    spec.root = root.path();
    spec.command = std::move(command);
    spec.console = std::nullopt;
    spec.stdio.out = out;
    spec.stdio.err = out;
    return spec;
}

std::string output_of(const TestRoot& root, std::vector<std::string> command) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd reader{ends[0]};
    Fd writer{ends[1]};
    Container container = Container::start(spec_of(root, std::move(command), writer.get()));
    writer.reset();
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(n));
    CHECK(container.wait() == ExitStatus::exited(0));
    return text;
}

/// Starts the containers, each from a thread that ends at once, tells their pids and waits to be killed.
void owner(const TestRoot& root, int report) try {
    std::vector<std::optional<Container>> containers(count);
    for (auto& container : containers) {
        std::thread{[&] { container.emplace(Container::start(spec_of(root, {"/bin/sleep", "1000"}))); }}.join();
    }
    // A parent-death signal of the starting thread would have been sent by now; the end of any init would show here.
    std::vector<pollfd> ends;
    for (const auto& container : containers) ends.push_back({container->init().pidfd(), POLLIN, 0});
    if (::poll(ends.data(), ends.size(), 300) != 0) ::_exit(3);
    for (auto& container : containers) {
        if (container->try_wait()) ::_exit(4);
    }
    std::vector<pid_t> pids;
    for (const auto& container : containers) pids.push_back(container->init().pid());
    if (::write(report, pids.data(), count * sizeof(pid_t)) != count * static_cast<ssize_t>(sizeof(pid_t))) ::_exit(5);
    for (;;) (void)::pause();
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    ::_exit(2);
}

}  // namespace

TEST_CASE("containers outlive the threads that started them, and end with the process") {
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd reader{ends[0]};
    Fd writer{ends[1]};
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        owner(root, writer.get());
        ::_exit(1);
    }
    writer.reset();
    std::vector<pid_t> pids(count);
    std::size_t got = 0;
    auto* bytes = reinterpret_cast<char*>(pids.data());
    for (ssize_t n;
         got < count * sizeof(pid_t) && (n = ::read(reader.get(), bytes + got, count * sizeof(pid_t) - got)) > 0;) {
        got += static_cast<std::size_t>(n);
    }
    std::vector<Process> inits;
    int running = 0;
    if (got == count * sizeof(pid_t)) {
        for (const pid_t pid : pids) {
            inits.push_back(Process::open(pid));
            if (!inits.back().ended()) ++running;
        }
    }
    CHECK(running == count);
    const auto killed = std::chrono::steady_clock::now();
    (void)::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    int ended = 0;
    for (const Process& init : inits) {
        // One second is promised; a machine that is busy with other tests gets more.
        if (init.ended_within(10'000)) ++ended;
    }
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - killed);
    CHECK(ended == count);
    std::printf("%d of %d still ran after their threads, %d of %d ended with the process, after %lld ms\n", running,
                count, ended, count, static_cast<long long>(took.count()));
}

TEST_CASE("a program whose first thread has ended starts containers like any other") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root and busybox");
    const LeavesNothing nothing;
    const TestRoot root;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd reader{ends[0]};
    Fd writer{ends[1]};
    const pid_t child = ::fork();
    if (child == 0) {
        const ContainerSpec spec = spec_of(root, {"/bin/true"});
        std::thread{[&spec, leader = ::gettid(), to = writer.get()] {
            const std::string task = "/proc/" + std::to_string(leader) + "/task/" + std::to_string(leader) + "/stat";
            std::string stat;
            while (detail::sys::read_file(AT_FDCWD, task.c_str(), stat) && stat.find(") Z ") == std::string::npos) {
            }
            std::string how;
            try {
                Container container = Container::start(spec);
                how = container.wait().str();
            } catch (const Error& e) {
                how = e.what();
            }
            (void)!::write(to, how.data(), how.size());
            ::_exit(0);
        }}.detach();
        (void)::syscall(SYS_exit, 0);
    }
    writer.reset();
    std::string text;
    char buffer[512];
    for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(n));
    int how = 0;
    REQUIRE(::waitpid(child, &how, 0) == child);
    CHECK(text == "exited with status 0");
}

TEST_CASE("containers of one name that start and fail at the same time leave each other alone") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root and busybox");
    const LeavesNothing nothing;
    const TestRoot root;
    std::vector<std::string> unexpected(4);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < unexpected.size(); ++i) {
        threads.emplace_back([&root, i, &mine = unexpected[i]] {
            for (int round = 0; round < 40; ++round) {
                const bool fails = i % 2 == 0;
                std::string how;
                try {
                    Container container = Container::start(spec_of(root, {fails ? "/missing" : "/bin/true"}));
                    how = container.wait().str();
                } catch (const Error& e) {
                    how = e.what();
                }
                const std::string_view wanted =
                    fails ? "container 'threads': command '/missing'" : "exited with status 0";
                if (!how.starts_with(wanted)) mine += how + "\n";
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& text : unexpected) CHECK(text == "");
}

TEST_CASE("the command starts with every signal unblocked and at its default, whatever the host did with its own") {
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    struct sigaction before[65]{};
    sigset_t all, mask;
    (void)::sigfillset(&all);
    for (int signal = 1; signal <= 64; ++signal) {
        struct sigaction ignore {};
        ignore.sa_handler = SIG_IGN;
        (void)::sigaction(signal, &ignore, &before[signal]);
    }
    (void)::pthread_sigmask(SIG_SETMASK, &all, &mask);
    const std::string text = output_of(root, {"/bin/grep", "^Sig[BIC]", "/proc/self/status"});
    (void)::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    for (int signal = 1; signal <= 64; ++signal) (void)::sigaction(signal, &before[signal], nullptr);
    CHECK(text == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n");
}
