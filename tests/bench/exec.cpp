// exec [--runs N] [--no-peers]: a program that ends at once, in a container that runs, until its status is known: the
// floor, caisson and the peers that are installed, in turns.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "bench_root.hpp"
#include "peers.hpp"
#include "samples.hpp"

using namespace caisson_bench;

namespace {

/// What it costs whoever does it: setns(2), clone(2), execve(2) and the two waits. No groups, no filter, no
/// capabilities, no descriptors; the host's memory is in reach from inside.
class Floor {
public:
    explicit Floor(const caisson::Process& init) : init_{init.pidfd()} {}
    void run() {
        if (!is_well(::clone(join, outer_ + sizeof outer_, CLONE_VM | CLONE_VFORK | SIGCHLD, this))) {
            throw std::runtime_error{"the floor's program failed"};
        }
    }

private:
    static bool is_well(pid_t child) {
        int status = -1;
        return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
    }
    static int join(void* self) {
        auto& floor = *static_cast<Floor*>(self);
        constexpr int all =
            CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;
        if (::setns(floor.init_, all) != 0) return 1;
        return is_well(::clone(execute, floor.inner_ + sizeof floor.inner_, CLONE_VM | CLONE_VFORK | SIGCHLD, self))
                   ? 0
                   : 1;
    }
    static int execute(void*) {
        char name[] = "/stamp";
        char* argv[] = {name, nullptr};
        char* envp[] = {nullptr};
        ::execve(name, argv, envp);
        return 1;
    }
    int init_;
    alignas(16) char outer_[16384]{};
    alignas(16) char inner_[16384]{};
};

struct Contender {
    std::string name;
    std::function<void()> enter, run, leave;
    Samples warm{};
};

/// Ends the containers of others when this process does, however that is: a child waits for its end.
class Ending {
public:
    Ending(const std::vector<Visitor>& visitors, PeerRunner& runner, int output,
           const std::vector<std::string>& directories) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error{"no pipe"};
        const caisson::Fd other{ends[0]};
        alive_.reset(ends[1]);
        pid_ = ::fork();
        if (pid_ < 0) throw std::runtime_error{"no process"};
        if (pid_ > 0) return;
        for (const int number : {SIGINT, SIGTERM, SIGHUP}) (void)::signal(number, SIG_IGN);
        alive_.reset();
        (void)caisson::detail::wait_readable(other.get(), -1);
        for (const Visitor& visitor : visitors) {
            if (visitor.end.command.empty()) continue;
            runner.enter(visitor.end);
            (void)runner.run(visitor.end, output);
            runner.leave();
        }
        std::error_code ignored;
        for (const std::string& directory : directories) std::filesystem::remove_all(directory, ignored);
        ::_exit(0);
    }
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;
    ~Ending() {
        alive_.reset();
        (void)::waitpid(pid_, nullptr, 0);
    }

private:
    caisson::Fd alive_;
    pid_t pid_ = -1;
};

void take(Contender& c, int runs) {
    c.enter();
    for (int i = 0; i < runs; ++i) {
        const double begin = now();
        c.run();
        const double end = now();
        if (i > 0) c.warm.add(end - begin);
    }
    c.leave();
}

}  // namespace

int main(int argc, char** argv) try {
    int blocks = 60;
    bool with_peers = true;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option{argv[i]};
        if (option == "--no-peers") with_peers = false;
        else if (option == "--runs" && i + 1 < argc) blocks = std::atoi(argv[++i]);
        else return std::fprintf(stderr, "usage: exec [--runs BLOCKS] [--no-peers]\n"), 2;
    }
    begin_as_root(300);
    const BenchRoot root;
    const BenchRoot work;
    std::filesystem::copy_file(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "stay",
                               root.path() + "/stay");
    caisson::ContainerSpec spec = root.spec();
    spec.command = {"/stay"};
    caisson::Container container = caisson::Container::start(spec);
    Floor floor{container.init()};
    caisson::ExecSpec stamp;
    stamp.command = {"/stamp"};
    const auto nothing = [] {};

    std::vector<Contender> all;
    all.push_back({"floor (no groups, no filter)", nothing, [&] { floor.run(); }, nothing});
    all.push_back({"caisson", nothing,
                   [&] {
                       if (!container.exec(stamp).wait().success()) throw std::runtime_error{"the stamp failed"};
                   },
                   nothing});
    PeerRunner runner;
    const caisson::Fd output{::open((work.path() + "/log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    const std::vector<Visitor> visitors =
        with_peers ? installed_visitors(root.path(), work.path(), container.init().pid()) : std::vector<Visitor>{};
    std::optional<Ending> ending{std::in_place, visitors, runner, output.get(), std::vector{root.path(), work.path()}};
    const auto once = [&](const Peer& peer) {
        if (peer.command.empty()) return true;
        runner.enter(peer);
        const bool works = runner.run(peer, output.get());
        runner.leave();
        return works;
    };
    for (const Visitor& visitor : visitors) {
        if (!once(visitor.begin) || !once(visitor.command)) {
            std::printf("%s is left out: it does not work here\n", visitor.command.name.c_str());
            continue;
        }
        const Peer& peer = visitor.command;
        all.push_back({peer.name, [&] { runner.enter(peer); }, [&] { (void)runner.run(peer, output.get()); },
                       [&] { runner.leave(); }});
    }

    for (int i = 0; i < blocks; ++i) {
        for (Contender& c : all) take(c, 6);
    }
    (void)container.kill();
    ending.reset();

    std::printf("%-32s %10s %8s %10s %8s\n", "command to its status, us", "p10", "x floor", "p50", "x floor");
    for (const Contender& c : all) {
        std::printf("%-32s", c.name.c_str());
        for (const double p : {10.0, 50.0}) {
            std::printf(" %10.0f %8.2f", c.warm.percentile(p), c.warm.percentile(p) / all[0].warm.percentile(p));
        }
        std::printf("\n");
    }
    if (const int left = remove_leftovers(); left > 0)
        std::printf("%d control groups that peers left were removed\n", left);
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
}
