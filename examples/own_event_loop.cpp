// own_event_loop - containers in a program that has a poll(2) loop of its own: the controller is one more descriptor.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

namespace {

caisson::ContainerSpec sleeper(const std::string& root, int number) {
    caisson::ContainerSpec spec;
    spec.name = "sleeper" + std::to_string(number);
    spec.root = root;
    spec.command = {"/bin/sh", "-c", "sleep 0." + std::to_string(number) + "; exit " + std::to_string(number)};
    spec.console = std::nullopt;
    return spec;
}

void print(const caisson::Event& event) {
    switch (event.kind) {
        case caisson::Event::Kind::started: std::printf("%s started\n", event.name.c_str()); break;
        case caisson::Event::Kind::failed:
            std::printf("%s failed: %s\n", event.name.c_str(), event.error->what());
            break;
        case caisson::Event::Kind::exited:
            std::printf("%s %s\n", event.name.c_str(), event.status->str().c_str());
            break;
        default: break;
    }
}

/// What the program does besides: something every 100 ms.
caisson::Fd ticker() {
    caisson::Fd timer{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)};
    itimerspec each{};
    each.it_value.tv_nsec = each.it_interval.tv_nsec = 100'000'000;
    ::timerfd_settime(timer.get(), 0, &each, nullptr);
    return timer;
}

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        std::fputs(
            "usage: own_event_loop [ROOT]\n"
            "Runs three containers on ROOT (default: a busybox of its own) from a plain poll(2) loop.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};
    const caisson::Fd timer = ticker();
    caisson::Controller controller;
    for (int number : {3, 1, 2}) controller.start(sleeper(root.path(), number));

    int running = 3;
    bool all_well = true;
    while (running > 0) {
        std::array<pollfd, 2> p{{{controller.fd(), POLLIN, 0}, {timer.get(), POLLIN, 0}}};
        if (::poll(p.data(), p.size(), -1) < 0) continue;
        if (p[0].revents != 0) {
            while (const auto event = controller.next()) {
                print(*event);
                if (event->is_last()) --running;
                if (event->kind == caisson::Event::Kind::failed) all_well = false;
            }
        }
        if (p[1].revents != 0) {
            std::uint64_t ticks = 0;
            if (::read(timer.get(), &ticks, sizeof ticks) > 0) std::puts("tick");
        }
    }
    return all_well ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "own_event_loop: %s\n", e.what());
    return 1;
}
