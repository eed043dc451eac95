// one_start - starts and stops one container, for the fault injector.
//
//   one_start start ROOT BRIDGE|- user|root    a container like the walk-through's; `user`: in a user namespace
//   one_start start ROOT BRIDGE|- overlay      there, with the built-in init, and ROOT is seen through an overlay in
//   memory one_start start ROOT - ordinary            by an ordinary user, who has no limits to give one_start sweep
//   removes what dead owners left
//
// Exit status: 0 it started and stopped, 3 an Error was thrown, and was told as "STEP|CONTEXT|ERRNO|WHAT", 4 memory was
// exhausted (std::bad_alloc), 5 this process is not as it was before: what differs is told.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include <sys/prctl.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/sweep.hpp>

#include "support/inject.hpp"
#include "support/machine.hpp"
#include "support/ordinary_user.hpp"

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

int once(const caisson::ContainerSpec& spec) {
    int result = 0;
    (void)::prctl(caisson_test::inject_marker, 1, 0, 0, 0);
    try {
        caisson::Container container = caisson::Container::start(spec);
        (void)container.stop(std::chrono::milliseconds{0});
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

}  // namespace

int main(int argc, char** argv) try {
    const std::string verb = argc > 1 ? argv[1] : "";
    if (verb == "sweep") {
        for (const std::string& line : caisson::sweep().removed) std::printf("%s\n", line.c_str());
        return 0;
    }
    if (verb != "start" || argc != 5) return 2;
    const std::string who = argv[4];
    if (who == "ordinary" && !caisson_test::OrdinaryUser::drop()) return 2;
    const caisson::ContainerSpec spec = spec_of(argv[2], argv[3], who);
    const auto before = caisson_test::MachineState::capture({.machine = false, .firewall = false});
    const int result = once(spec);
    const std::string left = difference(before, caisson_test::MachineState::capture(before.look));
    std::printf("%s", left.c_str());
    return left.empty() ? result : 5;
} catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 6;
}
