// threaded_host - eight threads start containers while eight others allocate memory: nothing hangs, nobody is
// disturbed.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

namespace {

constexpr int threads = 8;
constexpr int containers_of_each = 4;

std::atomic<int> succeeded{0};
std::atomic<int> failed{0};

void start_containers(const std::string& root, int thread) {
    for (int i = 0; i < containers_of_each; ++i) {
        try {
            caisson::ContainerSpec spec;
            spec.name = "thread" + std::to_string(thread) + "-" + std::to_string(i);
            spec.root = root;
            spec.command = {"/bin/sh", "-c", "exit 7"};
            spec.console = std::nullopt;
            caisson::Container container = caisson::Container::start(spec);
            container.wait().code() == 7 ? ++succeeded : ++failed;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "threaded_host: %s\n", e.what());
            ++failed;
        }
    }
}

void allocate(const std::atomic<bool>& stop) {
    std::vector<std::unique_ptr<char[]>> blocks(64);
    for (std::size_t i = 0; !stop; ++i) blocks[i % blocks.size()] = std::make_unique<char[]>(16 + i % 4096);
}

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        std::fputs(
            "usage: threaded_host [ROOT]\n"
            "Starts 32 containers on ROOT (default: a busybox of its own) from eight threads, while eight others\n"
            "allocate memory.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};
    std::atomic<bool> stop{false};
    std::vector<std::thread> allocators;
    std::vector<std::thread> starters;
    for (int i = 0; i < threads; ++i) allocators.emplace_back([&stop] { allocate(stop); });
    for (int i = 0; i < threads; ++i) starters.emplace_back([&root, i] { start_containers(root.path(), i); });
    for (std::thread& thread : starters) thread.join();
    stop = true;
    for (std::thread& thread : allocators) thread.join();
    std::printf("%d of %d containers ended as they should\n", succeeded.load(), threads * containers_of_each);
    return failed == 0 ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "threaded_host: %s\n", e.what());
    return 1;
}
