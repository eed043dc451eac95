// hammer [STARTS]: eight threads start containers while eight others hold the locks that a forked child would wait for
// in vain. To be run with MALLOC_ARENA_MAX=1: one lock for all allocations.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <net/if.h>
#include <poll.h>

#include <caisson/container.hpp>

#include "bench_root.hpp"
#include "samples.hpp"

using namespace caisson_bench;

namespace {

struct Counts {
    long descriptors = 0, resident = 0, groups = 0, mounts = 0, links = 0;
};

long lines_of(const char* path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path, text);
    long n = 0;
    for (const char c : text) n += c == '\n' ? 1 : 0;
    return n;
}

Counts count(const std::string& name) {
    Counts counts;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"})
        counts.descriptors += entry.exists() ? 1 : 0;
    std::string statm;
    (void)caisson::detail::sys::read_file(AT_FDCWD, "/proc/self/statm", statm);
    counts.resident = std::strtol(statm.c_str() + statm.find(' '), nullptr, 10) * 4;
    // Others may use this machine: only this program's groups.
    for (const auto& hierarchy : caisson::detail::cgroup_hierarchies()) {
        const auto parent = caisson::detail::open_cgroup_parent(hierarchy, "");
        if (!parent.directory) continue;
        for (const std::string& group : caisson::detail::groups_in(parent.directory)) {
            counts.groups += group.starts_with("caisson." + name) ? 1 : 0;
        }
    }
    counts.mounts = lines_of("/proc/self/mountinfo");
    if (struct if_nameindex* all = ::if_nameindex()) {
        for (const struct if_nameindex* i = all; i->if_index != 0; ++i) ++counts.links;
        ::if_freenameindex(all);
    }
    return counts;
}

template <class Work>
void until(const std::atomic<bool>& stop, Work&& work) {
    while (!stop.load(std::memory_order_relaxed)) work();
}

void hammer(int kind, const std::atomic<bool>& stop) {
    switch (kind % 4) {
        case 0: until(stop, [] { (void)std::make_unique<std::string>(std::size_t{200}, 'x'); }); break;
        case 1: until(stop, [kind] { ::setenv(("HAMMER" + std::to_string(kind)).c_str(), "x", 1); }); break;
        case 2: {
            std::FILE* const null = std::fopen("/dev/null", "we");
            until(stop, [null] { (void)std::fprintf(null, "%d %s\n", 1, "x"), (void)std::fflush(nullptr); });
            (void)std::fclose(null);
            break;
        }
        default:
            until(stop, [] {
                if (void* const library = ::dlopen("libm.so.6", RTLD_NOW)) ::dlclose(library);
            });
    }
}

void print(const char* when, const Counts& c) {
    std::printf("%-10s %12ld %12ld %12ld %12ld %12ld\n", when, c.descriptors, c.resident, c.groups, c.mounts, c.links);
}

}  // namespace

int main(int argc, char** argv) {
    begin_as_root(600);
    const int starts = argc > 1 ? std::atoi(argv[1]) : 5000;
    const BenchRoot root;
    const std::string name = "hammer" + std::to_string(::getpid());
    {
        caisson::Container warm_up = caisson::Container::start(root.spec(name));
        (void)warm_up.wait();
    }
    const Counts before = count(name);
    std::atomic<bool> stop{false};
    std::atomic<int> next{0};
    std::atomic<int> bad{0};
    std::vector<std::thread> hammers;
    for (int i = 0; i < 8; ++i) hammers.emplace_back(hammer, i, std::cref(stop));
    const double begin = now();
    std::vector<std::thread> starters;
    for (int i = 0; i < 8; ++i) {
        starters.emplace_back([&, i] {
            const caisson::ContainerSpec spec = root.spec(name + "-" + std::to_string(i));
            while (next++ < starts) {
                try {
                    caisson::Container container = caisson::Container::start(spec);
                    // Longer than anything takes: a hang is counted, not waited for.
                    const auto status = container.wait_for(std::chrono::seconds{60});
                    if (!status || !status->success()) ++bad;
                } catch (const caisson::Error& e) {
                    if (bad++ == 0) std::fprintf(stderr, "%s\n", e.what());
                }
            }
        });
    }
    for (std::thread& t : starters) t.join();
    const double seconds = (now() - begin) / 1e6;
    stop = true;
    for (std::thread& t : hammers) t.join();
    const Counts after = count(name);
    std::printf("%d starts, %d bad, %.1f s: %.0f starts a second beside 8 busy threads\n", starts, bad.load(), seconds,
                starts / seconds);
    std::printf("%-10s %12s %12s %12s %12s %12s\n", "", "descriptors", "RSS, KiB", "groups", "mounts", "links");
    print("before", before);
    print("after", after);
    return bad == 0 ? 0 : 1;
}
