// support/helper.hpp - what the system tests of helpers share.
#pragma once

#include <cstdio>
#include <exception>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/helper.hpp>
#include <caisson/sweep.hpp>

#include "support/doctest.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

using namespace caisson;

/// A root, a run directory, and options and specs that use them.
struct Place {
    TestRoot root{};
    TestDirectory directory{};
    std::string run = directory / "run";
    HelperOptions options{.run_directory = run};

    [[nodiscard]] ContainerSpec spec(const std::string& name, const std::string& script = "sleep 1000") const {
        ContainerSpec s;
        s.name = name;
        s.root = root.path();
        s.command = {"/bin/sh", "-c", script};
        return s;
    }
    [[nodiscard]] bool empty() const { return Helper::list(run).empty() && ::rmdir(run.c_str()) == 0; }
};

struct Group : Place {
    Group() { options.group = "shop"; }
    /// True once its helper has gone, which is after the last client was told.
    [[nodiscard]] bool ends() const {
        for (int i = 0; i < 2000 && ::access((run + "/.shop").c_str(), F_OK) == 0; ++i) ::usleep(1000);
        return empty();
    }
    [[nodiscard]] Helper start(const std::string& name, const std::string& script = "sleep 1000") const {
        return Helper::start(spec(name, script), options);
    }
};

/// What dead helpers with that run directory left, but for network links: theirs have none.
inline SweepReport sweep_only(const std::string& run) {
    SweepOptions options;
    options.run_directory = run;
    options.links = false;
    return sweep(options);
}

/// What is typed on the console of a container that answers each line.
inline bool answers(const Fd& console, const std::string& word) {
    if (::write(console.get(), (word + "\n").c_str(), word.size() + 1) < 0) return false;
    std::string text;
    char buffer[64];
    while (text.find("got " + word) == std::string::npos && detail::wait_readable(console.get(), 10'000)) {
        const ssize_t n = ::read(console.get(), buffer, sizeof buffer);
        if (n <= 0) return false;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    return text.find("got " + word) != std::string::npos;
}
inline constexpr const char* answering = "while read line; do echo got $line; done";

/// The message of a start that is to be refused.
inline std::string error_of(const ContainerSpec& spec, const HelperOptions& options) {
    try {
        Helper helper = Helper::start(spec, options);
        return "it started: " + helper.kill().str();
    } catch (const Error& e) {
        return e.what();
    }
}

/// Runs `body` in a process of its own; its result.
template <class F>
int in_child(F&& body) {
    const pid_t child = ::fork();
    if (child == 0) {
        int result = 99;
        try {
            result = body();
        } catch (const std::exception& e) {
            std::fprintf(stderr, "in the child: %s\n", e.what());
        }
        ::_exit(result);
    }
    int status = -1;
    (void)::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/// A client of a helper that the library knows nothing of; nothing and `errno` where it would have to wait.
inline Fd try_to_connect(const std::string& socket_path) {
    Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) socket.reset();
    return socket;
}
inline Fd connect_to(const std::string& socket_path) {
    Fd socket = try_to_connect(socket_path);
    REQUIRE(socket);
    REQUIRE(::fcntl(socket.get(), F_SETFL, 0) == 0);
    return socket;
}

}  // namespace caisson_test
