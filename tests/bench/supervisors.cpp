#include "supervisors.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

#include "samples.hpp"

namespace caisson_bench {
namespace {

namespace fs = std::filesystem;

std::string text_of(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    return text;
}
std::string proc(pid_t pid, const char* file) {
    return text_of("/proc/" + std::to_string(pid) + "/" + file);
}

}  // namespace

double cpu_of(pid_t pid) {
    const std::string text = proc(pid, "stat");
    const std::size_t at = text.rfind(')');
    unsigned long user = 0;
    unsigned long system = 0;
    if (at == std::string::npos ||
        std::sscanf(text.c_str() + at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
        return 0;
    }
    return static_cast<double>(user + system) * 1e6 / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

long private_memory_of(pid_t pid) {
    const std::string text = proc(pid, "smaps_rollup");
    long sum = 0;
    for (const char* key : {"Private_Clean:", "Private_Dirty:"}) {
        const std::size_t at = text.find(key);
        if (at != std::string::npos) sum += std::strtol(text.c_str() + at + 14, nullptr, 10);
    }
    return sum;
}

Supervisors::Supervisors(std::string root)
    : root_{std::move(root)}, work_{root_ + "-supervisors"}, null_{::open("/dev/null", O_RDWR | O_CLOEXEC)} {
    fs::create_directories(work_ + "/sockets");
}

Supervisors::~Supervisors() {
    for (const pid_t pid : all_) {
        std::istringstream children{proc(pid, ("task/" + std::to_string(pid) + "/children").c_str())};
        for (pid_t child = 0; children >> child;) (void)::kill(child, SIGKILL);
    }
    for (const pid_t pid : all_) {
        for (int i = 0; i < 200 && ::kill(pid, 0) == 0 && proc(pid, "stat").find(") Z ") == std::string::npos; ++i) {
            rest(10);
        }
    }
    for (const std::string& name : of_crun_) {
        (void)run({"/usr/bin/crun", "--root", work_ + "/state", "--cgroup-manager=cgroupfs", "delete", "-f", name});
    }
    (void)remove_leftovers();
    std::error_code ignored;
    fs::remove_all(work_, ignored);
}

std::string Supervisors::next_name() {
    return "bench-peer-" + std::to_string(++last_);
}

bool Supervisors::run(std::vector<std::string> command) const {
    return runner_.run(Peer{command[0], std::move(command)}, null_.get());
}

std::optional<pid_t> Supervisors::pid_in(const std::string& file) const {
    for (int i = 0; i < 500; ++i) {
        if (const std::string text = text_of(file); !text.empty()) return std::atoi(text.c_str());
        rest(10);
    }
    return std::nullopt;
}

std::optional<pid_t> Supervisors::start_conmon(const std::string& command, const std::string& log,
                                               const std::function<void()>& before) {
    for (const char* program : {"/usr/bin/conmon", "/usr/bin/crun"}) {
        if (::access(program, X_OK) != 0) return std::nullopt;
    }
    const std::string name = next_name();
    const std::string at = work_ + "/" + name;
    fs::create_directories(at);
    write_bundle(root_, at, name, command, true);
    const std::vector<std::string> of_runtime{"--root", work_ + "/state", "--cgroup-manager=cgroupfs"};
    std::vector<std::string> conmon{"/usr/bin/conmon",
                                    "--api-version",
                                    "1",
                                    "-c",
                                    name,
                                    "-u",
                                    name,
                                    "-r",
                                    "/usr/bin/crun",
                                    "-b",
                                    at,
                                    "-p",
                                    at + "/init",
                                    "-P",
                                    at + "/pid",
                                    "--exit-dir",
                                    at,
                                    "--socket-dir-path",
                                    work_ + "/sockets",
                                    "-l",
                                    "k8s-file:" + log,
                                    "-t"};
    std::vector<std::string> start{"/usr/bin/crun"};
    for (const std::string& argument : of_runtime) {
        conmon.insert(conmon.end(), {"--runtime-arg", argument});
        start.push_back(argument);
    }
    start.insert(start.end(), {"start", name});
    of_crun_.push_back(name);
    runner_.enter_v1();
    std::optional<pid_t> pid;
    if (run(conmon)) pid = pid_in(at + "/pid");
    if (pid) {
        all_.push_back(*pid);
        before();
        if (!pid_in(at + "/init") || !run(start)) pid.reset();
    }
    runner_.leave();
    return pid;
}

std::optional<pid_t> Supervisors::start_lxc(const std::string& command) {
    if (::access("/usr/bin/lxc-start", X_OK) != 0) return std::nullopt;
    const std::string name = next_name();
    write_lxc(root_, work_ + "/" + name);
    const std::string file = work_ + "/" + name + "/pid";
    if (!run({"/usr/bin/lxc-start", "-P", work_, "-n", name, "-d", "-p", file, "--", command})) return std::nullopt;
    const std::optional<pid_t> pid = pid_in(file);
    if (pid) all_.push_back(*pid);
    return pid;
}

std::vector<std::string> Supervisors::lxc_execute(const std::string& command) {
    if (::access("/usr/bin/lxc-execute", X_OK) != 0) return {};
    const std::string name = next_name();
    write_lxc(root_, work_ + "/" + name);
    return {"/usr/bin/lxc-execute", "-P", work_, "-n", name, "--", command};
}

}  // namespace caisson_bench
