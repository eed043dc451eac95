// own_thread - containers in a program without an event loop: the controller runs in a thread of the program's own.
#include <cstdio>
#include <exception>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

namespace {

/// Runs containers one after the other or at the same time; each caller waits for its own.
class Runner {
public:
    Runner() : thread_{[this] { controller_.run([this](const caisson::Event& event) { handle(event); }); }} {}
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;
    ~Runner() {
        controller_.stop();
        thread_.join();
    }

    std::future<caisson::ExitStatus> run(const caisson::ContainerSpec& spec) {
        // The event may come before start() has returned: it then waits for the lock.
        const std::lock_guard lock{mutex_};
        return waiting_[controller_.start(spec)].get_future();
    }

private:
    void handle(const caisson::Event& event) {
        if (!event.error && !event.status) return;
        const std::lock_guard lock{mutex_};
        auto waiting = waiting_.extract(event.id);
        if (event.error) waiting.mapped().set_exception(std::make_exception_ptr(*event.error));
        else waiting.mapped().set_value(*event.status);
    }

    caisson::Controller controller_;
    std::mutex mutex_;
    std::map<caisson::ContainerId, std::promise<caisson::ExitStatus>> waiting_;
    std::thread thread_;
};

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        std::fputs(
            "usage: own_thread [ROOT]\n"
            "Runs two containers on ROOT (default: a busybox of its own), with the controller in a thread.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};
    Runner runner;
    caisson::ContainerSpec spec;
    spec.root = root.path();
    spec.console = std::nullopt;

    spec.name = "first";
    spec.command = {"/bin/sh", "-c", "sleep 0.2; exit 4"};
    auto first = runner.run(spec);
    spec.name = "second";
    spec.command = {"/bin/sh", "-c", "exit 2"};
    auto second = runner.run(spec);

    const caisson::ExitStatus first_status = first.get();
    const caisson::ExitStatus second_status = second.get();
    std::printf("first %s, second %s\n", first_status.str().c_str(), second_status.str().c_str());
    return first_status.code() == 4 && second_status.code() == 2 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "own_thread: %s\n", e.what());
    return 1;
}
