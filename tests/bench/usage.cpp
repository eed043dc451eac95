// usage [--containers N] [--domain NAME]: what it costs to ask for the usage of a group with a hundred processes,
// beside other ways to know; of N containers in one call; and how long it takes to destroy one that is a fork bomb.
// NAME is a domain that runs under libvirt's LXC driver.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/bridge.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/controller.hpp>

#include "bench_root.hpp"
#include "peers.hpp"
#include "samples.hpp"

using namespace caisson_bench;
using caisson::Usage;
using caisson::UsagePart;
using caisson::UsageParts;
using namespace std::chrono_literals;

namespace {

constexpr auto quick = UsagePart::cpu | UsagePart::memory;

void print(const std::string& name, const Samples& s) {
    std::printf("%-52s %10.2f %10.2f %10.2f\n", name.c_str(), s.percentile(10), s.percentile(50), s.percentile(90));
}
void measure(const std::string& name, int times, const std::function<void()>& call) {
    call();
    Samples samples;
    for (int i = 0; i < times; ++i) {
        const double begin = now();
        call();
        samples.add(now() - begin);
    }
    print(name, samples);
}

void place(const std::string& from, const BenchRoot& root, const char* name) {
    std::filesystem::copy_file(std::filesystem::read_symlink("/proc/self/exe").parent_path() / name,
                               root.path() + from);
}

/// Processes that sleep in a group.
class Sleepers {
public:
    Sleepers(const caisson::Cgroup& group, int count) {
        const std::vector<int> tasks = group.tasks_fds();
        for (int i = 0; i < count; ++i) {
            struct {
                alignas(8) std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack,
                    stack_size, tls, set_tid, set_tid_size, cgroup;
            } args{};
            args.exit_signal = SIGCHLD;
            if (group.into_fd() >= 0) {
                args.flags = 0x200000000ULL;  // CLONE_INTO_CGROUP
                args.cgroup = static_cast<std::uint64_t>(group.into_fd());
            }
            const auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
            if (pid == 0) {
                for (const int fd : tasks) (void)!::write(fd, "0", 1);
                for (;;) ::pause();
            }
            if (pid > 0) pids_.push_back(pid);
        }
        rest(100);
    }
    Sleepers(const Sleepers&) = delete;
    Sleepers& operator=(const Sleepers&) = delete;
    ~Sleepers() {
        for (const pid_t pid : pids_) (void)::kill(pid, SIGKILL);
        for (const pid_t pid : pids_) (void)::waitpid(pid, nullptr, 0);
    }
    [[nodiscard]] const std::vector<pid_t>& pids() const { return pids_; }

private:
    std::vector<pid_t> pids_;
};

/// The files' paths, of those that this host has.
std::vector<std::string> files_of(const caisson::Cgroup& group) {
    std::vector<std::string> paths;
    for (const auto& d : group.directories()) {
        for (const char* file : {"cpuacct.usage_percpu", "memory.usage_in_bytes", "memory.limit_in_bytes", "cpu.stat",
                                 "memory.current", "memory.max"}) {
            const std::string path = d.parent_path + "/" + group.name() + "/" + file;
            if (::access(path.c_str(), R_OK) == 0) paths.push_back(path);
        }
    }
    return paths;
}

void spawn(const std::vector<std::string>& command) {
    std::vector<char*> argv;
    for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char* envp[] = {path, nullptr};
    pid_t pid = -1;
    (void)::posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), envp);
}

void measure_lxc(const BenchRoot& root, const caisson::Fd& null) {
    const std::string work = root.path() + "-peers";
    const PeerRunner runner;
    for (Peer& peer : installed_peers(root.path(), work)) {
        if (!peer.name.starts_with("lxc-execute")) continue;
        const std::string directory = peer.command[0].substr(0, peer.command[0].rfind('/'));
        const auto other = [&](const char* program, std::vector<std::string> more) {
            Peer one{program,
                     {directory + "/" + program, peer.command[1], peer.command[2], peer.command[3], peer.command[4]}};
            one.command.insert(one.command.end(), more.begin(), more.end());
            return one;
        };
        peer.command.back() = "/stay";
        spawn(peer.command);
        const Peer wait = other("lxc-wait", {"-s", "RUNNING", "-t", "10"});
        const Peer info = other("lxc-info", {"-S", "-H"});
        if (runner.run(wait, null.get())) measure("lxc-info -S", 50, [&] { (void)runner.run(info, null.get()); });
        else std::printf("lxc-info: left out, lxc-execute does not come up\n");
        (void)runner.run(other("lxc-stop", {"-k"}), null.get());
        rest(300);
        (void)remove_leftovers();
        std::filesystem::remove_all(work);
        return;
    }
    std::filesystem::remove_all(work);
    std::printf("lxc-info: left out, lxc-execute is not installed\n");
}

void measure_virsh(const std::string& domain, const caisson::Fd& null) {
    if (domain.empty()) {
        std::printf("virsh cpu-stats: left out, no domain is given by --domain\n");
        return;
    }
    const PeerRunner runner;
    const Peer virsh{"virsh", {"/usr/bin/virsh", "-c", "lxc:///", "cpu-stats", domain}};
    if (!runner.run(virsh, null.get())) {
        std::printf("virsh cpu-stats: left out, it fails for domain %s\n", domain.c_str());
        return;
    }
    measure("virsh cpu-stats", 50, [&] { (void)runner.run(virsh, null.get()); });
}

void one_group(const BenchRoot& root, const std::string& domain) {
    caisson::Cgroup group = caisson::Cgroup::create("bench");
    const Sleepers sleepers{group, 100};
    const caisson::Fd null{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
    std::printf("%-52s %10s %10s %10s\n", "a group with 100 processes, us", "p10", "p50", "p90");
    Usage usage;
    const std::pair<const char*, UsageParts> questions[] = {
        {"usage(cpu | memory)", quick},
        {"usage(all)", UsageParts::all()},
        {"usage(all but pressure)", UsageParts::of_bits(UsageParts::all().bits() & ~32u)},
        {"usage(cpu)", UsagePart::cpu},
        {"usage(cpu | details)", UsagePart::cpu | UsagePart::details},
        {"usage(memory)", UsagePart::memory},
        {"usage(memory | details)", UsagePart::memory | UsagePart::details},
        {"usage(pids)", UsagePart::pids},
        {"usage(block)", UsagePart::block},
        {"usage(pressure)", UsagePart::pressure},
    };
    for (const auto& [name, parts] : questions) {
        measure(name, 20000, [&, p = parts] { group.usage(p, usage); });
    }
    for (const auto& d : group.directories()) {
        if (!d.v2()) continue;
        caisson::detail::CpuCounters counters;
        const std::string path = d.parent_path + "/" + group.name();
        if (!counters.open(caisson::Fd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)})) continue;
        measure("each CPU by perf events (on v2, a part of cpu)", 20000, [&] { (void)counters.read(usage.cpu_each); });
    }
    const std::vector<std::string> files = files_of(group);
    std::string text;
    measure("the same " + std::to_string(files.size()) + " files, opened each time", 5000, [&] {
        for (const std::string& path : files) (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    });
    measure("/proc/PID/stat of 100 processes", 300, [&] {
        for (const pid_t pid : sleepers.pids()) {
            (void)caisson::detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/stat").c_str(), text);
        }
    });
    measure_lxc(root, null);
    measure_virsh(domain, null);
}

void one_network(const BenchRoot& root) {
    try {
        const auto net = caisson::Namespace::create(caisson::NamespaceKind::net);
        const auto scope = net.enter_scoped();
        const auto bridge = caisson::Bridge::create("bench0");
        caisson::ContainerSpec spec = root.spec();
        spec.command = {"/stay"};
        spec.networks = {caisson::NetworkSpec{.bridge = "bench0"}};
        caisson::Container container = caisson::Container::start(spec);
        Usage usage;
        measure("a container's usage(network), one interface", 20000,
                [&] { container.usage(UsagePart::network, usage); });
        measure("a container's usage(all), one interface", 20000, [&] { container.usage(UsageParts::all(), usage); });
    } catch (const caisson::Error& e) {
        std::printf("a container with a network: left out, %s\n", e.what());
    }
}

void many_containers(const BenchRoot& root, int count, const std::string& name, UsageParts parts) {
    caisson::Controller controller;
    caisson::ContainerSpec spec = root.spec();
    spec.command = {"/stay"};
    spec.namespaces = spec.namespaces.without(caisson::NamespaceKind::net);
    for (int i = 0; i < count; ++i) {
        spec.name = "bench" + std::to_string(i);
        (void)controller.start(spec);
        while (const auto event = controller.next()) {
            if (event->kind != caisson::Event::Kind::failed) continue;
            std::printf("only %d containers: %s\n", i, event->error->what());
            i = count;
        }
    }
    std::vector<caisson::ContainerUsage> all;
    controller.usage(parts, all);
    std::size_t missing = 0;
    for (const auto& one : all) missing += one.missing.empty() ? 0u : 1u;
    if (missing > 0) {
        std::printf("%zu of %zu without an answer: %s\n", missing, all.size(), all.back().missing.c_str());
    }
    Samples samples;
    const double cpu_before = cpu();
    for (int i = 0; i < 100; ++i) {
        const double begin = now();
        controller.usage(parts, all);
        samples.add((now() - begin) / static_cast<double>(all.size()));
    }
    print(std::to_string(all.size()) + " containers in one call (" + name + "), us each", samples);
    std::printf("%-52s %10s %10.2f\n", "  of processor time", "",
                (cpu() - cpu_before) / 100 / static_cast<double>(all.size()));
}

void destroy_bombs(const BenchRoot& root) {
    caisson::ContainerSpec spec = root.spec();
    spec.command = {"/bomb"};
    spec.limits.pids = 200;
    Samples samples;
    double longest = 0;
    for (int i = 0; i < 20; ++i) {
        caisson::Container container = caisson::Container::start(spec);
        for (int n = 0; n < 500 && container.usage(UsagePart::pids).pids.value_or(0) < 200; ++n) rest(2);
        rest(20);
        const double begin = now();
        (void)container.kill();
        const double time = (now() - begin) / 1000;
        samples.add(time);
        longest = time > longest ? time : longest;
    }
    std::printf("destroying a fork bomb of 200 tasks, ms: p50 %.1f, p90 %.1f, longest %.1f\n", samples.percentile(50),
                samples.percentile(90), longest);
}

}  // namespace

int main(int argc, char** argv) {
    begin_as_root(600);
    int containers = 1000;
    std::string domain;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view option{argv[i]};
        if (option == "--containers") containers = std::atoi(argv[i + 1]);
        if (option == "--domain") domain = argv[i + 1];
    }
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)::setrlimit(RLIMIT_NOFILE, &files);
    }
    const BenchRoot root;
    place("/stay", root, "stay");
    place("/bomb", root, "bomb");
    one_group(root, domain);
    one_network(root);
    many_containers(root, containers, "cpu | memory", quick);
    // Each takes about twenty descriptors more.
    many_containers(root, containers / 4, "all", UsageParts::all());
    destroy_bombs(root);
}
