// support/console_lab.hpp - a controller with one container whose consoles are looked at.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <unistd.h>

#include <caisson/controller.hpp>

#include "support/doctest.hpp"
#include "support/read_now.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

namespace caisson_test {

using namespace caisson;
using namespace std::chrono_literals;

inline ContainerSpec shell(const TestRoot& root, const std::string& script) {
    ContainerSpec spec;
    spec.name = "console";
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c", script};
    return spec;
}

/// A controller with one container, and everything that was told of it.
struct Lab {
    explicit Lab(const ContainerSpec& spec, ConsoleUse use = ConsoleUse::relay) : id{controller.start(spec, use)} {
        turn();
        for (const Event& event : events) {
            if (event.error) FAIL(event.error->what());
        }
    }
    /// One turn of the loop.
    void turn() {
        while (auto event = controller.next()) {
            if (event->status && event->kind == Event::Kind::exited) status = event->status;
            events.push_back(std::move(*event));
        }
    }
    /// Turns until `done`, for a minute at most.
    template <class Done>
    bool until(Done&& done) {
        const auto deadline = std::chrono::steady_clock::now() + 60s;
        while (std::chrono::steady_clock::now() < deadline) {
            turn();
            if (done()) return true;
            (void)detail::wait_readable(controller.fd(), 20);
        }
        return false;
    }
    bool until_end() {
        return until([&] { return status.has_value(); });
    }
    /// Until the loop has nothing to do: everything that can be moved has been.
    void until_rest() {
        do turn();
        while (detail::wait_readable(controller.fd(), 200));
    }
    [[nodiscard]] std::uint64_t count(Event::Kind kind) const {
        std::uint64_t sum = 0;
        for (const Event& event : events) sum += event.kind == kind ? 1 : 0;
        return sum;
    }
    [[nodiscard]] std::uint64_t lost(std::uint32_t viewer) const {
        std::uint64_t sum = 0;
        for (const Event& event : events) {
            if (event.kind == Event::Kind::console_lost && event.viewer == viewer) sum += event.count;
        }
        return sum;
    }

    Controller controller;
    ContainerId id;
    std::vector<Event> events;
    std::optional<ExitStatus> status;
};

/// Reads until `text` has come.
inline std::string read_until(Lab& lab, const Fd& fd, const std::string& text) {
    std::string all;
    (void)lab.until([&] {
        all += read_now(fd);
        return all.find(text) != std::string::npos;
    });
    return all;
}
inline bool is_at_end(const Fd& fd) {
    char c = 0;
    pollfd p{fd.get(), POLLIN, 0};
    return ::poll(&p, 1, 0) > 0 && ::read(fd.get(), &c, 1) <= 0;
}
/// Lines of eleven bytes that are all different.
inline std::string numbered(int from, int to) {
    std::string all;
    char line[16];
    for (int i = from; i <= to; ++i) {
        std::snprintf(line, sizeof line, "%010d\n", i);
        all += line;
    }
    return all;
}

/// Waits until the terminal inside is raw, then lets the container say all that it has to.
inline void begin(Lab& lab, const Fd& viewer) {
    (void)lab.until([&] {
        pollfd p{viewer.get(), POLLIN, 0};
        return ::poll(&p, 1, 0) > 0;
    });
    REQUIRE(::write(viewer.get(), "\n", 1) == 1);
}

}  // namespace caisson_test
