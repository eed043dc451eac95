// Who dies when: hosts, keepers and containers that are killed, and what is left of them.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>
#include <caisson/sweep.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

unsigned links() {
    unsigned n = 0;
    struct if_nameindex* all = ::if_nameindex();
    for (const struct if_nameindex* link = all; link != nullptr && link->if_index != 0; ++link) ++n;
    ::if_freenameindex(all);
    return n;
}
/// The kernel takes a network namespace, and the veth pair with it, down in its own time.
bool links_become(unsigned wanted) {
    for (int i = 0; i < 500 && links() != wanted; ++i) ::usleep(10'000);
    return links() == wanted;
}

/// True once the process has ended; false after five seconds.
bool ends(pid_t pid) {
    try {
        return Process::open(pid).ended_within(5000);
    } catch (const Error& e) {
        return e.code().value() == ESRCH;
    }
}
/// What a host tells of a container: "INIT KEEPER\n".
std::string told(const Container& container) {
    return std::to_string(container.init().pid()) + " " + std::to_string(keeper_of(container)) + "\n";
}
struct Pids {
    Process init;
    Process keeper;
    explicit Pids(const std::string& line)
        : init{Process::open(std::stoi(line))}, keeper{Process::open(std::stoi(line.substr(line.find(' '))))} {}
};

}  // namespace

TEST_CASE("however a host dies, its containers die with all that was made for them, and nobody else's do") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const Namespace net = Namespace::create(NamespaceKind::net);
    const Namespace::Scope scope = net.enter_scoped();
    std::optional<Bridge> bridge;
    try {
        bridge.emplace(Bridge::create("br0"));
    } catch (const Error& e) {
        if (e.code().value() != ENOTSUP) throw;  // built without networks
    }
    Container survivor = Container::start(shell(root, "sleep 1000"));
    const unsigned links_before = links();
    for (const int signal : {SIGKILL, SIGSEGV, 0}) {
        CAPTURE(signal);
        Host host{[&](const Host& self) -> std::string {
            const rlimit no_core{0, 0};
            (void)::setrlimit(RLIMIT_CORE, &no_core);
            (void)::signal(SIGSEGV, SIG_DFL);
            std::vector<Container> all;
            for (int i = 0; i < 3; ++i) {
                ContainerSpec spec = shell(root, "sleep 1000 & sleep 1000");
                spec.name = "mortal" + std::to_string(i);
                if (bridge) spec.networks.resize(1);
                if (bridge) spec.networks[0].bridge = "br0";
                all.push_back(Container::start(spec));
                self.say(told(all.back()));
            }
            if (signal == 0) ::_exit(3);
            (void)::kill(::getpid(), signal);
            for (;;) ::pause();
        }};
        // Taken while they die: a handle of one that has gone already holds nothing to wait for.
        for (int i = 0; i < 3; ++i) {
            const std::string line = host.line();
            REQUIRE(std::stoi(line) > 0);
            for (const pid_t pid : {std::stoi(line), std::stoi(line.substr(line.find(' ')))}) CHECK(ends(pid));
        }
        const int how = host.status();
        CHECK((signal == 0 ? WIFEXITED(how) : WIFSIGNALED(how) && WTERMSIG(how) == signal));
        CHECK(groups_vanish(host.pid()));
        CHECK(links_become(links_before));
        CHECK_FALSE(survivor.init().ended());
        CHECK_FALSE(groups_of(::getpid()).empty());
    }
    CHECK(survivor.kill() == ExitStatus::killed(SIGKILL));
    CHECK(groups_vanish(::getpid()));
}

TEST_CASE("a host that has forked is dead when it is dead, whatever its copy holds open") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Host host{[&](const Host& self) -> std::string {
        const Container container = Container::start(shell(root, "sleep 1000"));
        const pid_t copy = ::fork();
        if (copy == 0)
            for (;;) ::pause();
        self.say(std::to_string(copy) + "\n" + told(container));
        for (;;) ::pause();
    }};
    const Process copy = Process::open(std::stoi(host.line()));
    const Pids pids{host.line()};
    host.kill();
    CHECK(pids.init.ended_within(5000));
    CHECK(pids.keeper.ended_within(5000));
    CHECK(groups_vanish(host.pid()));
    CHECK_FALSE(copy.ended());
    CHECK(copy.signal(SIGKILL));
}

TEST_CASE("a host that is killed during a start leaves at most the directory that it made before there was a keeper") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    for (unsigned i = 0; i < 80; ++i) {
        CAPTURE(i);
        Host host{[&](const Host& self) -> std::string {
            self.say("now\n");
            const Container container = Container::start(shell(root, "sleep 1000"));
            for (;;) ::pause();
        }};
        REQUIRE(host.line() == "now");
        ::usleep(i * 40);
        host.kill();
        (void)host.status();
        std::size_t left = 2;
        for (int tries = 0; left > 1 && tries < 200; ++tries) {
            ::usleep(5'000);
            left = groups_of(host.pid()).size();
        }
        CHECK(left <= 1);
        if (left > 0) (void)sweep({.run_directory = {}, .links = false});
        CHECK(groups_vanish(host.pid()));
    }
}

TEST_CASE("when keeper and host are killed at once init dies, and sweep removes the rest and no more") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnParent parent;
    const auto below_parent = [&](const std::string& script) {
        ContainerSpec spec = shell(root, script);
        spec.cgroup_parent = "/" + parent.name;
        return spec;
    };
    Container survivor = Container::start(below_parent("sleep 1000"));
    Host host{[&](const Host& self) -> std::string {
        const Container container = Container::start(below_parent("sleep 1000 & sleep 1000"));
        self.say(told(container));
        for (;;) ::pause();
    }};
    const Pids pids{host.line()};
    // Stopped first, so that neither sees the other's end.
    host.kill(SIGSTOP);
    CHECK(pids.keeper.signal(SIGSTOP));
    host.kill();
    CHECK(pids.keeper.signal(SIGKILL));
    CHECK(pids.init.ended_within(5000));
    (void)host.status();
    SweepOptions options;
    options.cgroup_parents = {parent.name};
    options.run_directory.clear();
    options.links = false;
    const SweepReport report = sweep(options);
    CHECK(report.kept.empty());
    CHECK_FALSE(report.removed.empty());
    const std::string mark = "." + std::to_string(host.pid()) + "-";
    for (const std::string& path : report.removed) CHECK(path.find(mark) != std::string::npos);
    CHECK(sweep(options).removed.empty());
    CHECK_FALSE(survivor.try_wait());
    CHECK(survivor.usage().oom_kills.value_or(0) == 0);
    CHECK(survivor.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("keeper and host may be killed at any moment of a start: no init stays") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const TestRoot root;
    int seen = 0;
    for (int round = 0; round < 30; ++round) {
        CAPTURE(round);
        Host host{[&](const Host&) -> std::string {
            ContainerSpec spec = shell(root, "sleep 1000");
            spec.name = "r" + std::to_string(::getppid() % 100000);
            spec.cgroup = false;
            // Takes long enough for the round's moment to be within.
            for (int i = 0; i < 50; ++i) spec.mounts.push_back(MountSpec::tmpfs("/tmp/" + std::to_string(i), 4096));
            const Container container = Container::start(spec);
            for (;;) ::pause();
        }};
        // Pids go up: the host's helpers have the next ones. Init is the one whose parent has the container's name too.
        const std::string name = "caisson:r" + std::to_string(::getpid() % 100000) + "\n";
        const auto is_ours = [&](pid_t pid) {
            std::string comm;
            return detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/comm").c_str(), comm) &&
                   comm == name;
        };
        Process keeper, init;
        const std::int64_t deadline = detail::monotonic_ms() + 2000;
        while (!init && detail::monotonic_ms() < deadline) {
            for (pid_t pid = host.pid() + 1; pid < host.pid() + 40 && !init; ++pid) {
                const pid_t above = is_ours(pid) ? status_number(pid, "PPid:") : -1;
                if (above <= 1 || !is_ours(above)) continue;
                try {
                    init = Process::open(pid);
                    keeper = Process::open(above);
                } catch (const Error&) {
                    init = {};
                }
            }
        }
        if (!init) continue;
        ++seen;
        ::usleep(static_cast<useconds_t>(round * 70));
        host.kill(SIGSTOP);
        (void)keeper.signal(SIGKILL);
        host.kill();
        CHECK(init.ended_within(5000));
        if (!init.ended()) (void)init.signal(SIGKILL);
    }
    MESSAGE(seen << " of 30 were hit during their start");
    CHECK(seen > 0);
}

TEST_CASE("an init that is killed at any moment makes the start fail with the step, or it has started") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    int died = 0;
    for (int round = 0; round < 60; ++round) {
        CAPTURE(round);
        const std::string name = "k" + std::to_string(::getpid() % 100000);
        Host killer{[&](const Host& self) -> std::string {
            const auto is_ours = [&](pid_t pid) {
                std::string comm;
                return detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/comm").c_str(), comm) &&
                       comm == "caisson:" + name + "\n";
            };
            self.say("ready\n");
            const std::int64_t deadline = detail::monotonic_ms() + 1000;
            while (detail::monotonic_ms() < deadline) {
                for (pid_t pid = ::getpid() + 1; pid < ::getpid() + 40; ++pid) {
                    const pid_t above = is_ours(pid) ? status_number(pid, "PPid:") : -1;
                    if (above <= 1 || !is_ours(above)) continue;
                    const Process init = Process::open(pid);
                    ::usleep(static_cast<useconds_t>(round * 15));
                    (void)init.signal(SIGKILL);
                    return "hit";
                }
            }
            return "missed";
        }};
        REQUIRE(killer.line() == "ready");
        ContainerSpec spec = shell(root, "sleep 1000");
        spec.name = name;
        spec.cgroup = round % 3 == 0;
        if (round % 2 == 0) spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
        for (int i = 0; i < 20; ++i) spec.mounts.push_back(MountSpec::tmpfs("/tmp/" + std::to_string(i), 4096));
        try {
            Container container = Container::start(spec);
            (void)container.kill();
        } catch (const Error& e) {
            ++died;
            const std::string text = e.what();
            CAPTURE(text);
            CHECK(text.find("container '" + name + "': init died (killed by signal 9) during ") == 0);
        }
        (void)killer.text();
    }
    MESSAGE(died << " of 60 died during their start");
    CHECK(died > 0);
}

TEST_CASE("when the keeper is killed, wait returns, also where a copy of the host was forked during the start") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string text = in_host([&]() -> std::string {
        // Forks without a pause, so that some copies hold what a start has open for a moment.
        Pipe stop;
        std::vector<Process> copies;
        std::string wrong;
        for (int i = 0; i < 40 && wrong.empty(); ++i) {
            // Shares the descriptors, as a thread would, and nothing else.
            const auto forker =
                static_cast<pid_t>(::syscall(SYS_clone, CLONE_FILES | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
            if (forker == 0) {
                for (int n = 0; n < 12; ++n) {
                    if (::fork() != 0) {
                        ::usleep(100);
                        continue;
                    }
                    (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
                    char c = 0;
                    ::close(stop.write.get());
                    (void)!::read(stop.read.get(), &c, 1);
                    ::_exit(0);
                }
                while (::wait(nullptr) > 0) continue;
                ::_exit(0);
            }
            copies.push_back(Process::open(forker));
            Container container = Container::start(shell(root, "sleep 1000"));
            (void)::kill(keeper_of(container), SIGKILL);
            if (container.wait_for(10s) != ExitStatus::killed(SIGKILL)) wrong = "wait does not return";
        }
        stop.write.reset();
        for (const Process& copy : copies) (void)copy.signal(SIGKILL);
        while (::wait(nullptr) > 0) continue;
        return wrong;
    });
    CHECK(text == "");
}

TEST_CASE("a host that reaps orphans, as a subreaper or as pid 1, has no zombie left of a container") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const auto body = [&]() -> std::string {
        const pid_t own = ::fork();
        if (own == 0) ::_exit(33);
        for (const int code : {0, 7, 255}) {
            Container container = Container::start(shell(root, "exit " + std::to_string(code)));
            if (container.wait() != ExitStatus::exited(code)) return "another status than " + std::to_string(code);
        }
        { const Container destroyed = Container::start(shell(root, "sleep 1000")); }
        {
            Container container = Container::start(shell(root, "sleep 1000"));
            (void)::kill(keeper_of(container), SIGKILL);
            if (container.wait() != ExitStatus::killed(SIGKILL)) return "another status after the keeper's end";
        }
        {
            Container container = Container::start(shell(root, "sleep 1000"));
            try {
                container.copy_in("/no/such/file", "/tmp");
                return "it found a file";
            } catch (const Error&) {  // nor of who went in for it
            }
            if (!container.exec({.command = {"/bin/true"}}).wait().success()) return "no command runs";
            const Exec lost = container.exec({.command = {"/bin/sleep", "1000"}});
            (void)::kill(status_number(lost.process().pid(), "PPid:"), SIGKILL);
            if (!lost.process().ended_within(10'000)) return "a command goes on without its keeper";
        }
        ContainerSpec spec = shell(root, "true");
        spec.command = {"/no/such/command"};
        if (outcome(spec).find("/no/such/command") == std::string::npos) return "it found a command";
        spec = shell(root, "true");
        spec.mounts.push_back(MountSpec::bind("/proc/sys", "/mnt"));
        if (outcome(spec).find("id map of mount on '/mnt'") == std::string::npos) return outcome(spec);
        // The host's own child is left for the host.
        int status = 0;
        if (::waitpid(own, &status, 0) != own || WEXITSTATUS(status) != 33) return "the host's own child is gone";
        return children_left();
    };
    CHECK(in_host([&] {
              (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
              return body();
          }) == "");
    CHECK(in_host([&]() -> std::string {
              if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) return "";
              if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "no private mounts";
              return Host{[&](const Host&) -> std::string {
                         if (::mount("proc", "/proc", "proc", 0, nullptr) != 0) return "no proc";
                         if (::getpid() != 1) return "not pid 1";
                         return body();
                     }}
                  .text();
          }) == "");
}

TEST_CASE("starts go on while another thread forks copies of the host that stay") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string text = in_host([&]() -> std::string {
        std::atomic<bool> stop{false};
        std::vector<pid_t> copies;
        std::thread forker{[&] {
            while (!stop) {
                const pid_t copy = ::fork();
                if (copy == 0)
                    for (;;) ::pause();
                copies.push_back(copy);
                if (copies.size() > 30) {
                    (void)::kill(copies.front(), SIGKILL);
                    (void)::waitpid(copies.front(), nullptr, 0);
                    copies.erase(copies.begin());
                }
                ::usleep(200);
            }
        }};
        std::string wrong;
        // Emulated, a machine would take minutes for all.
        const std::int64_t enough = detail::monotonic_ms() + 15'000;
        for (int i = 0; i < 300 && wrong.empty() && detail::monotonic_ms() < enough; ++i) {
            ContainerSpec spec = shell(root, "exit 0");
            if (i % 3 == 0) spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
            wrong = outcome(spec);
            if (wrong == "ok") wrong.clear();
        }
        stop = true;
        forker.join();
        for (const pid_t copy : copies) {
            (void)::kill(copy, SIGKILL);
            (void)::waitpid(copy, nullptr, 0);
        }
        return wrong;
    });
    CHECK(text == "");
}

TEST_CASE("a command that ends at once has its exact status, and all that it wrote is read") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    int wrong = 0;
    for (int i = 0; i < 256; ++i) {
        ContainerSpec spec = shell(root, "exit " + std::to_string(i));
        spec.console.reset();
        wrong += Container::start(spec).wait() != ExitStatus::exited(i);
    }
    CHECK(wrong == 0);
    for (int i = 0; i < 80; ++i) {
        Container container = Container::start(shell(root, "printf %3000d 7"));
        CHECK(container.wait().success());
        std::string all;
        char buffer[4096];
        for (ssize_t n = 0; (n = ::read(container.console()->fd(), buffer, sizeof buffer)) > 0;) {
            all.append(buffer, static_cast<std::size_t>(n));
        }
        CHECK(all.size() == 3000);
    }
}

TEST_CASE("a process that got the pid of an ended container's init is not signalled in its place") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const auto recycle = [&root] {
        if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount("proc", "/proc", "proc", 0, nullptr) != 0) {
            return 10;
        }
        Container container = Container::start(shell(root, "sleep 1000"));
        const pid_t pid = container.init().pid();
        const Process handle = Process::open(pid);
        if (::kill(pid, SIGKILL) != 0 || !detail::wait_readable(container.fd(), 20'000)) return 11;
        // Of this pid namespace alone.
        const Fd last = detail::sys::open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
        if (!last || !detail::sys::write_all(last.get(), std::to_string(pid - 1))) return 77;
        const pid_t victim = ::fork();
        if (victim == 0) {
            for (;;) (void)::pause();
        }
        if (victim != pid) return 12;
        if (container.signal(SIGKILL) || handle.signal(SIGKILL) || container.kill_all()) return 13;
        if (container.kill() != ExitStatus::killed(SIGKILL)) return 14;
        const bool alive = ::waitpid(victim, nullptr, WNOHANG) == 0;
        (void)::kill(victim, SIGKILL);
        return alive && ::waitpid(victim, nullptr, 0) == victim ? 0 : 15;
    };
    const int result = in_child([&] { return ::unshare(CLONE_NEWPID | CLONE_NEWNS) == 0 ? in_child(recycle) : 9; });
    if (result == 77) CAISSON_SKIP("ns_last_pid cannot be written here");
    CHECK(result == 0);
}
