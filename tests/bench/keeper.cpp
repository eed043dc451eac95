// keeper [STAGE]: the memory of the process that stays for each container, with one and with twenty up.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/stat.h>

#include <caisson/container.hpp>

#include "bench_root.hpp"

using namespace caisson_bench;

namespace {

std::string text_of(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    return text;
}

/// The number behind "KEY" in a file of /proc; 0 without it.
long field(const std::string& text, const std::string& key) {
    const std::size_t at = text.find("\n" + key);
    return at == std::string::npos ? 0 : std::strtol(text.c_str() + at + 1 + key.size(), nullptr, 10);
}

struct Memory {
    long private_memory = 0, pss = 0, rss = 0, threads = 0;
    friend bool operator==(const Memory&, const Memory&) = default;
};

/// Of all keepers of this program's containers together.
Memory memory_of(const std::vector<caisson::Container>& up) {
    Memory sum;
    for (const caisson::Container& container : up) {
        const std::string proc = "/proc/";
        const std::string init = text_of(proc + std::to_string(container.init().pid()) + "/status");
        const std::string keeper = proc + std::to_string(field(init, "PPid:"));
        const std::string smaps = text_of(keeper + "/smaps_rollup");
        sum.private_memory += field(smaps, "Private_Clean:") + field(smaps, "Private_Dirty:");
        sum.pss += field(smaps, "Pss:");
        sum.rss += field(smaps, "Rss:");
        sum.threads += field(text_of(keeper + "/status"), "Threads:");
    }
    return sum;
}

void measure(const std::vector<caisson::Container>& up) {
    // The keeper gives memory back once its container runs, and nothing announces that it has: wait for two seconds
    // without a change.
    Memory last = memory_of(up);
    for (int same = 0; same < 20;) {
        (void)::poll(nullptr, 0, 100);
        const Memory next = memory_of(up);
        same = next == last ? same + 1 : 0;
        last = next;
    }
    const auto n = static_cast<double>(up.size());
    std::printf("%-30zu %10.1f %10.1f %10.1f %10.0f\n", up.size(), static_cast<double>(last.private_memory) / n,
                static_cast<double>(last.pss) / n, static_cast<double>(last.rss) / n,
                static_cast<double>(last.threads) / n);
}

}  // namespace

int main(int argc, char** argv) {
    begin_as_root(120);
    const BenchRoot root;
    caisson::ContainerSpec spec = root.spec();
    // Waits for a signal that never comes.
    spec.command = {"/stay"};
    std::filesystem::copy_file(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "stay",
                               root.path() + "/stay");
    std::printf("%-30s %10s %10s %10s %10s\n", "KiB each, containers up:", "private", "Pss", "RSS", "threads");
    std::vector<caisson::Container> up;
    for (const int size : {1, 20}) {
        while (static_cast<int>(up.size()) < size) up.push_back(caisson::Container::start(spec));
        measure(up);
    }
    if (argc > 1) {
        struct stat st {};
        if (::stat(argv[1], &st) == 0)
            std::printf("the stage's program has %lld bytes\n", static_cast<long long>(st.st_size));
    }
}
