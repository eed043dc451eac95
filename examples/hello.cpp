// hello - a container in ten lines: starts one, waits for its end and tells how it ended.
#include <cstdio>
#include <exception>
#include <optional>
#include <string_view>

#include <caisson/caisson.hpp>

#include "busybox_root.hpp"

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc > 2 || (argc == 2 && std::string_view{argv[1]}.starts_with("-"))) {
        std::fputs(
            "usage: hello [ROOT]\nRuns echo in a container whose root is ROOT (default: a busybox of its own).\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    const BusyboxRoot root{argv[1]};

    caisson::ContainerSpec spec;
    spec.name = "hello";
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c", "echo \"hello from process $$ of $(cat /proc/sys/kernel/hostname)\""};
    spec.console = std::nullopt;
    spec.stdio = {0, 1, 2};
    caisson::Container container = caisson::Container::start(spec);
    const caisson::ExitStatus status = container.wait();
    std::printf("the container %s\n", status.str().c_str());
    return status.success() ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "hello: %s\n", e.what());
    return 1;
}
