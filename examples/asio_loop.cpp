// asio_loop - containers in a program that runs on asio: the controller is one descriptor of its io_context.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>

#include <fcntl.h>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

namespace {

/// Waits for the controller again and again, as long as it has containers.
class Containers {
public:
    // asio closes what it was given: a copy of the controller's descriptor, which stands for the same.
    explicit Containers(asio::io_context& context)
        : descriptor_{context, ::fcntl(controller_.fd(), F_DUPFD_CLOEXEC, 0)} {}

    void start(const caisson::ContainerSpec& spec) {
        ids_.push_back(controller_.start(spec));
        if (++running_ == 1) wait();
    }
    void stop_all() {
        for (const caisson::ContainerId id : ids_) controller_.stop(id, std::chrono::seconds{1});
    }
    [[nodiscard]] bool all_well() const { return all_well_; }

private:
    void wait() {
        descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const std::error_code& error) {
            if (error) return;
            while (const auto event = controller_.next()) tell(*event);
            if (running_ > 0) wait();
        });
    }
    void tell(const caisson::Event& event) {
        if (event.is_last()) --running_;
        if (event.kind == caisson::Event::Kind::started) std::printf("%s started\n", event.name.c_str());
        if (event.kind == caisson::Event::Kind::exited) {
            std::printf("%s %s\n", event.name.c_str(), event.status->str().c_str());
        }
        if (event.kind != caisson::Event::Kind::failed) return;
        std::printf("%s failed: %s\n", event.name.c_str(), event.error->what());
        all_well_ = false;
    }

    caisson::Controller controller_;
    asio::posix::stream_descriptor descriptor_;
    std::vector<caisson::ContainerId> ids_;
    int running_ = 0;
    bool all_well_ = true;
};

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        std::fputs(
            "usage: asio_loop [ROOT]\n"
            "Runs three containers on ROOT (default: a busybox of its own) from asio's loop; SIGTERM stops them.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};
    asio::io_context context;
    Containers containers{context};
    asio::signal_set signals{context, SIGTERM, SIGINT};
    signals.async_wait([&](const std::error_code& error, int) {
        if (!error) containers.stop_all();
    });
    for (const int number : {3, 1, 2}) {
        caisson::ContainerSpec spec;
        spec.name = "sleeper" + std::to_string(number);
        spec.root = root.path();
        spec.command = {"/bin/sh", "-c", "sleep 0." + std::to_string(number) + "; exit " + std::to_string(number)};
        spec.console = std::nullopt;
        containers.start(spec);
    }
    asio::steady_timer timer{context, std::chrono::milliseconds{200}};
    timer.async_wait([&](const std::error_code&) {
        std::puts("tick");
        signals.cancel();
    });
    context.run();
    return containers.all_well() ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "asio_loop: %s\n", e.what());
    return 1;
}
