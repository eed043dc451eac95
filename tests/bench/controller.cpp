// controller [CONTAINERS]: one controller with that many idle containers: memory, descriptors, wake-ups; the memory of
// conmon and of liblxc's monitor; and how many starts a second two threads make, beside the floor.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>

#include <caisson/controller.hpp>

#include "bench_root.hpp"
#include "floor.hpp"
#include "samples.hpp"
#include "supervisors.hpp"

using namespace caisson_bench;

namespace {

int descriptors() {
    int count = -1;  // the directory's own
    DIR* const stream = ::opendir("/proc/self/fd");
    while (const dirent* entry = ::readdir(stream)) count += entry->d_name[0] != '.' ? 1 : 0;
    ::closedir(stream);
    return count;
}
long waits() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
}

/// All events that are there, until the loop is at rest for half a second.
void settle(caisson::Controller& controller) {
    do {
        while (const auto event = controller.next()) {
            if (event->kind == caisson::Event::Kind::failed) std::printf("%s\n", event->error->what());
        }
    } while (caisson::detail::wait_readable(controller.fd(), 500));
}

void measure(const char* what, caisson::ContainerSpec spec, int count) {
    // What the one before has left free is not this one's.
    (void)::malloc_trim(0);
    const long memory = private_memory_of(::getpid());
    const int fds = descriptors();
    caisson::Controller controller;
    const double begin = now();
    for (int i = 0; i < count; ++i) {
        spec.name = "idle" + std::to_string(i);
        (void)controller.start(spec);
        while (const auto event = controller.next()) {
            if (event->kind != caisson::Event::Kind::failed) continue;
            std::printf("%s\n", event->error->what());
            return;
        }
    }
    const double started = now() - begin;
    settle(controller);
    const double each = static_cast<double>(private_memory_of(::getpid()) - memory) / count;
    const double own_descriptors = static_cast<double>(descriptors() - fds) / count;
    const long before = waits();
    const double used = cpu();
    // Every return of this is a wake-up; the one at the end is its own.
    int woken = 0;
    const double end = now() + 10e6;
    for (double left = 0; (left = end - now()) > 0;) {
        pollfd p{controller.fd(), POLLIN, 0};
        if (::poll(&p, 1, static_cast<int>(left / 1000) + 1) > 0) ++woken;
        while (controller.next()) continue;
    }
    std::printf("%-22s %8zu %10.1f %12.1f %10d %10ld %10.1f %12.2f\n", what, controller.size(), each, own_descriptors,
                woken, waits() - before - 1, (cpu() - used) / 1000, started / 1e6);
}

/// Containers a second, from nothing to gone, that so many threads make, each with a `make()` of its own.
template <class Make>
double rate(int threads, const Make& make) {
    constexpr int each = 150;
    std::vector<std::thread> all;
    const double begin = now();
    for (int i = 0; i < threads; ++i) {
        all.emplace_back([&] {
            const auto one = make();
            for (int n = 0; n < each; ++n) one->run();
        });
    }
    for (std::thread& thread : all) thread.join();
    return threads * each / ((now() - begin) / 1e6);
}

/// What others take beside each container: a process, whose private memory is its own with every container.
void measure_supervisors(const BenchRoot& root, int count) {
    Supervisors peers{root.path()};
    const auto measure_one = [&](const char* what, const auto& start) {
        std::vector<pid_t> all;
        for (int i = 0; i < count; ++i) {
            if (const auto pid = start(i)) all.push_back(*pid);
        }
        rest(500);
        long sum = 0;
        for (const pid_t pid : all) sum += private_memory_of(pid);
        if (!all.empty()) {
            std::printf("%-22s %8zu %10.1f\n", what, all.size(),
                        static_cast<double>(sum) / static_cast<double>(all.size()));
        }
    };
    measure_one("conmon", [&](int i) { return peers.start_conmon("/stay", root.path() + "/log" + std::to_string(i)); });
    measure_one("liblxc's monitor", [&](int) { return peers.start_lxc("/stay"); });
}

struct Controlled {
    caisson::ContainerSpec spec;
    caisson::Controller controller{};
    void run() {
        (void)controller.start(spec);
        for (bool over = false; !over;) {
            (void)caisson::detail::wait_readable(controller.fd(), -1);
            while (const auto event = controller.next()) over = over || event->is_last();
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    begin_as_root(900);
    const int count = argc > 1 ? std::atoi(argv[1]) : 1000;  // 0: none
    const BenchRoot root;
    caisson::ContainerSpec spec = root.spec();
    spec.command = {"/stay"};
    std::filesystem::copy_file(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "stay",
                               root.path() + "/stay");
    rlimit most{};
    ::getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &most);
    std::printf("%-22s %8s %10s %12s %10s %10s %10s %12s\n", "idle for 10 s", "number", "KiB each", "descriptors",
                "wake-ups", "waits", "CPU, ms", "started in s");
    if (count > 0) measure("without console", spec, count);
    spec.console.emplace();
    if (count > 0) measure("with a console", spec, count);
    if (count > 0) measure_supervisors(root, 20);

    const caisson::ContainerSpec stamp = root.spec();
    std::printf("\n%-22s %10s %10s %10s\n", "starts a second", "floor", "caisson", "ratio");
    for (const int threads : {1, 2}) {
        double floor = 0, own = 0;
        // In turns, so that both meet the same machine.
        for (int round = 0; round < 3; ++round) {
            floor += rate(threads, [&] { return std::make_unique<Floor>(root.path()); }) / 3;
            own += rate(threads, [&] { return std::unique_ptr<Controlled>{new Controlled{.spec = stamp}}; }) / 3;
        }
        std::printf("%-22s %10.0f %10.0f %10.2f\n", threads == 1 ? "one thread" : "two threads", floor, own,
                    own / floor);
    }
}
