// host-size [MiB]: a start from a host that has touched 10 MiB, and from the same one after it has touched 8 GiB.
#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/mman.h>

#include <caisson/container.hpp>

#include "bench_root.hpp"
#include "samples.hpp"

using namespace caisson_bench;

int main(int argc, char** argv) {
    begin_as_root(300);
    const std::size_t most = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 8192;
    constexpr std::size_t mebibyte = 1u << 20;
    const BenchRoot root;
    const caisson::ContainerSpec spec = root.spec();
    // Small pages, which are what copying a process is slow with.
    void* const memory =
        ::mmap(nullptr, most * mebibyte, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return std::perror("host-size: mmap"), 1;
    (void)::madvise(memory, most * mebibyte, MADV_NOHUGEPAGE);
    const auto touch = [&](std::size_t from, std::size_t to) {
        for (std::size_t at = from * mebibyte; at < to * mebibyte; at += 4096)
            static_cast<volatile char*>(memory)[at] = 1;
    };
    const auto measure = [&](Samples& wall, Samples& used) {
        for (int block = 0; block < 40; ++block) {
            const double before = cpu();
            for (int i = 0; i < 5; ++i) {
                const double begin = now();
                caisson::Container container = caisson::Container::start(spec);
                (void)container.wait();
                if (i > 0) wall.add(now() - begin);
            }
            used.add((cpu() - before) / 5);
        }
    };
    // Grown and shrunk again and again, so that both sizes meet the same machine.
    constexpr std::size_t small_size = 10;
    Samples wall[2];
    Samples used[2];
    touch(0, small_size);
    for (int round = 0; round < 3; ++round) {
        measure(wall[0], used[0]);
        touch(small_size, most);
        measure(wall[1], used[1]);
        (void)::madvise(static_cast<char*>(memory) + small_size * mebibyte, (most - small_size) * mebibyte,
                        MADV_DONTNEED);
    }
    std::printf("%-30s %10s %10s %10s %16s\n", "start to gone, us", "p10", "p50", "p90", "CPU of the host");
    for (const int i : {0, 1}) {
        std::printf("%-30s %10.0f %10.0f %10.0f %16.0f\n",
                    ("host of " + std::to_string(i == 0 ? small_size : most) + " MiB").c_str(), wall[i].percentile(10),
                    wall[i].percentile(50), wall[i].percentile(90), used[i].percentile(50));
    }
    std::printf("%-30s %10.2f %10.2f %10.2f %16.2f\n", "ratio", wall[1].percentile(10) / wall[0].percentile(10),
                wall[1].percentile(50) / wall[0].percentile(50), wall[1].percentile(90) / wall[0].percentile(90),
                used[1].percentile(50) / used[0].percentile(50));
}
