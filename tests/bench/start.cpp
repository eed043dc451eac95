// start [--warm N] [--cold N] [--no-peers]: from nothing to gone, of a program that ends at once: the floor, caisson
// and the peers that are installed, in turns.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "bench_root.hpp"
#include "floor.hpp"
#include "peers.hpp"
#include "samples.hpp"

using namespace caisson_bench;

namespace {

struct Contender {
    std::string name;
    std::function<void()> enter, run, leave;
    Samples warm{}, cold{}, cpu{};
};

void take(Contender& c, Samples& into, int runs, bool drop_first) {
    c.enter();
    for (int i = 0; i < runs; ++i) {
        const double begin = now();
        c.run();
        const double end = now();
        if (i > 0 || !drop_first) into.add(end - begin);
    }
    c.leave();
}

std::string last_line(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.substr(text.rfind('\n') + 1);
}

void print(const std::vector<Contender>& all) {
    std::printf("%-30s %22s %7s %22s %7s %10s %7s\n", "start to gone, us", "warm p50 / p90", "x floor",
                "cold p50 / p90", "x floor", "CPU p50", "x floor");
    for (const Contender& c : all) {
        std::printf("%-30s", c.name.c_str());
        for (const auto& [mine, floor] : {std::pair{&c.warm, &all[0].warm}, std::pair{&c.cold, &all[0].cold}}) {
            std::printf(" %11.0f / %8.0f %7.2f", mine->percentile(50), mine->percentile(90),
                        mine->percentile(50) / floor->percentile(50));
        }
        std::printf(" %10.0f %7.2f\n", c.cpu.percentile(50), c.cpu.percentile(50) / all[0].cpu.percentile(50));
    }
    // Wall clock on a busy machine: the fastest runs are the ones that nobody disturbed.
    std::printf("caisson / floor by percentile: ");
    for (const double p : {1.0, 10.0, 25.0, 50.0, 75.0, 90.0}) {
        std::printf(" p%.0f %.2f/%.2f", p, all[1].warm.percentile(p) / all[0].warm.percentile(p),
                    all[1].cold.percentile(p) / all[0].cold.percentile(p));
    }
    std::printf(" (warm/cold)\n");
}

}  // namespace

int main(int argc, char** argv) try {
    int warm = 40;
    int cold = 60;
    bool with_peers = true;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option{argv[i]};
        if (option == "--no-peers") with_peers = false;
        else if (option == "--warm" && i + 1 < argc) warm = std::atoi(argv[++i]);
        else if (option == "--cold" && i + 1 < argc) cold = std::atoi(argv[++i]);
        else return std::fprintf(stderr, "usage: start [--warm BLOCKS] [--cold RUNS] [--no-peers]\n"), 2;
    }
    begin_as_root(600);
    const BenchRoot root;
    const BenchRoot work;
    Floor floor{root.path()};
    const caisson::ContainerSpec spec = root.spec();
    const auto nothing = [] {};

    std::vector<Contender> all;
    all.push_back({"floor", nothing, [&] { floor.run(); }, nothing});
    all.push_back({"caisson", nothing,
                   [&] {
                       caisson::Container container = caisson::Container::start(spec);
                       if (!container.wait().success()) throw std::runtime_error{"the stamp failed"};
                   },
                   nothing});
    const std::string log = work.path() + "/log";
    PeerRunner runner;
    std::vector<Peer> peers;
    caisson::Fd output;
    if (with_peers) {
        peers = installed_peers(root.path(), work.path());
        for (const Peer& peer : peers) {
            output.reset(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
            runner.enter(peer);
            const bool works = runner.run(peer, output.get());
            runner.leave();
            if (!works) {
                std::printf("%s is left out: %s\n", peer.name.c_str(), last_line(log).c_str());
                continue;
            }
            all.push_back({peer.name, [&] { runner.enter(peer); }, [&] { (void)runner.run(peer, output.get()); },
                           [&] { runner.leave(); }});
        }
    }

    for (int i = 0; i < warm; ++i) {
        for (Contender& c : all) take(c, c.warm, 6, true);
    }
    for (int i = 0; i < cold; ++i) {
        for (Contender& c : all) {
            rest(60);
            take(c, c.cold, 1, false);
        }
    }
    // As a subreaper this process is told what keepers and monitors have used.
    (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < warm; ++i) {
        for (Contender& c : all) {
            const double before = cpu();
            c.enter();
            for (int n = 0; n < 4; ++n) c.run();
            c.leave();
            while (::waitpid(-1, nullptr, 0) > 0) {
            }
            c.cpu.add((cpu() - before) / 4);
        }
    }
    print(all);
    if (const int left = remove_leftovers(); left > 0)
        std::printf("%d control groups that peers left were removed\n", left);
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
