// one_start - starts and stops one container, or does one thing to one that runs, for the fault injector.
//
//   one_start start ROOT BRIDGE|- user|root    a container like the walk-through's; `user`: in a user namespace
//   one_start start ROOT BRIDGE|- overlay      there, with the built-in init, and ROOT is seen through an overlay in
//                                              memory
//   one_start start ROOT - ordinary            by an ordinary user, who has no limits to give
//   one_start exec|copy|attach ROOT - user|root|ordinary
//                                              in a container that runs: a command of a user by name, with a console; a
//                                              directory in and out; a tmpfs and a device, which only root can give
//   one_start sweep                            removes what dead owners left
//
// Exit status: 0 it was done, 3 an Error was thrown, and was told as "STEP|CONTEXT|ERRNO|WHAT", 4 memory was exhausted
// (std::bad_alloc), 5 this process, or the container, is not as it was before: what differs is told.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <set>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/sweep.hpp>

#include "support/inject.hpp"
#include "support/machine.hpp"
#include "support/ordinary_user.hpp"
#include "support/rootfs.hpp"

namespace {

caisson::ContainerSpec spec_of(const std::string& root, const std::string& bridge, const std::string& kind) {
    using caisson::NamespaceKind;
    caisson::ContainerSpec spec;
    spec.name = "walk";
    spec.root = root;
    spec.command = {"/bin/sleep", "1000"};
    if (kind == "overlay") {
        spec.root_overlay.emplace();
        spec.init = true;
    }
    if (kind == "root") {
        spec.namespaces = NamespaceKind::mount | NamespaceKind::pid | NamespaceKind::uts | NamespaceKind::ipc;
        spec.no_new_privileges = false;
    }
    if (bridge != "-") {
        caisson::NetworkSpec network;
        network.bridge = bridge;
        network.mac = caisson::MacAddress::parse("00:11:22:34:34:34");
        spec.networks.push_back(network);
    }
    if (::geteuid() == 0) spec.limits.memory = 512ull << 20;
    return spec;
}

/// What `work` comes to, which is looked at.
template <class Work>
int looked_at(Work&& work) {
    int result = 0;
    (void)::prctl(caisson_test::inject_marker, 1, 0, 0, 0);
    try {
        work();
    } catch (const caisson::Error& e) {
        (void)::prctl(caisson_test::inject_marker, 0, 0, 0, 0);
        std::printf("%s|%s|%d|%s\n", std::string{to_string(e.step())}.c_str(), std::string{e.context()}.c_str(),
                    e.code().value(), e.what());
        result = 3;
    } catch (const std::bad_alloc&) {
        result = 4;
    }
    (void)::prctl(caisson_test::inject_marker, 0, 0, 0, 0);
    return result;
}

int once(const caisson::ContainerSpec& spec) {
    std::string other;
    const int result = looked_at([&] {
        caisson::Container container = caisson::Container::start(spec);
        const caisson::ExitStatus status = container.stop(std::chrono::milliseconds{0});
        if (status != caisson::ExitStatus::killed(SIGKILL)) other = status.str();
    });
    if (other.empty()) return result;
    std::printf("it was killed, and its status is: %s\n", other.c_str());
    return 5;
}

std::string text_of(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    return text;
}

/// The mounts of a container, and what its /dev holds.
std::string view_of(const caisson::Container& container) {
    const std::string init = "/proc/" + std::to_string(container.init().pid());
    std::set<std::string> nodes;
    std::error_code ended;
    for (const auto& entry : std::filesystem::directory_iterator{init + "/root/dev", ended}) nodes.insert(entry.path());
    std::string view = text_of(init + "/mountinfo");
    for (const std::string& node : nodes) view += node + "\n";
    return view;
}

/// What is wrong with a container that must be as it was, with this view; empty if nothing.
std::string changed(caisson::Container& container, const std::string& view) {
    const bool same = view_of(container) == view;
    // What ends has no view any more a moment before that.
    if (container.init().ended_within(same ? 0 : 1000)) return "the container has ended\n";
    if (!same) return "its mounts or devices are others\n";
    // Who has joined may take a moment to die.
    for (int i = 0; container.cgroup() != nullptr && container.cgroup()->processes().size() > 1; ++i) {
        if (i == 300) return "a process is left in it\n";
        ::usleep(10'000);
    }
    caisson::ExecSpec again;
    again.command = {"/bin/true"};
    return container.exec(again).wait().success() ? "" : "no command runs in it\n";
}

int in_running(const std::string& verb, const caisson::ContainerSpec& spec, std::string& wrong) {
    caisson::Container container = caisson::Container::start(spec);
    const std::string view = view_of(container);
    const caisson_test::TestDirectory work;
    (void)::mkdir((work / "from").c_str(), 0700);
    (void)::symlink("there", (work / "from/link").c_str());
    (void)caisson::Fd{::open((work / "from/file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    bool has_mount = false;
    bool has_device = false;
    const int result = looked_at([&] {
        if (verb == "exec") {
            caisson::ExecSpec exec;
            exec.command = {"/bin/sleep", "1000"};
            exec.user = "root";
            (void)container.exec(exec).kill();
            exec.command = {"/bin/true"};
            exec.console = caisson::WindowSize{};
            caisson::Exec running = container.exec(exec);
            const caisson::ExitStatus status = running.wait();
            // Who sees to it was killed.
            if (status == caisson::ExitStatus::killed(SIGKILL)) {
                throw caisson::Error{caisson::Step::exec, 0, "container 'walk': command: " + status.str()};
            }
            if (!status.success()) wrong = "the command did not succeed\n";
        } else if (verb == "copy") {
            container.copy_in(work / "from", "/tmp/copy");
            container.copy_out("/tmp/copy", work / "back");
        } else {
            container.attach(caisson::MountSpec::tmpfs("/tmp", 1u << 20));
            has_mount = true;
            if (::geteuid() != 0) return;
            container.attach(caisson::DeviceSpec{.source = "/dev/kmsg"});
            has_device = true;
        }
    });
    if (has_mount) container.detach_mount("/tmp");
    if (has_device) container.detach_device("kmsg");
    wrong += changed(container, view);
    // A process of its that nobody but pid 1 is left to reap keeps it from its end for as long as that takes.
    (void)container.kill();
    return result;
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string verb = argc > 1 ? argv[1] : "";
    if (verb == "sweep") {
        for (const std::string& line : caisson::sweep().removed) std::printf("%s\n", line.c_str());
        return 0;
    }
    const bool is_start = verb == "start";
    if ((!is_start && verb != "exec" && verb != "copy" && verb != "attach") || argc != 5) return 2;
    const std::string who = argv[4];
    if (who == "ordinary" && !caisson_test::OrdinaryUser::drop()) return 2;
    const caisson::ContainerSpec spec = spec_of(argv[2], argv[3], who);
    const auto before = caisson_test::MachineState::capture({.machine = false, .firewall = false});
    std::string wrong;
    const int result = is_start ? once(spec) : in_running(verb, spec, wrong);
    const std::string left = wrong + difference(before, caisson_test::MachineState::capture(before.look));
    std::printf("%s", left.c_str());
    return left.empty() ? result : 5;
} catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 6;
}
