// support/container.hpp - what system tests of containers share: a shell in a test's root, and what came of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "support/rootfs.hpp"
#include "support/why_not.hpp"

namespace caisson_test {

inline bool can_run() {
    return ::geteuid() == 0 && TestRoot::missing() == nullptr;
}
inline caisson::ContainerSpec shell(const std::string& root, const std::string& script) {
    caisson::ContainerSpec spec;
    spec.name = "test";
    spec.root = root;
    spec.command = {"/bin/sh", "-c", script};
    return spec;
}
inline caisson::ContainerSpec shell(const TestRoot& root, const std::string& script) {
    return shell(root.path(), script);
}

/// A number of /proc/PID/status: "PPid:".
inline pid_t status_number(pid_t pid, const char* key) {
    std::string status;
    if (!caisson::detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/status").c_str(), status)) {
        return -1;
    }
    const std::size_t at = status.find(key);
    return at == std::string::npos ? -1 : std::stoi(status.substr(at + std::string{key}.size()));
}
inline pid_t keeper_of(const caisson::Container& container) {
    return status_number(container.init().pid(), "PPid:");
}

/// Everything that comes out of the console until its end, without carriage returns.
inline std::string output(caisson::Container& container) {
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(container.console()->fd(), buffer, sizeof buffer)) > 0;) {
        all.append(buffer, static_cast<std::size_t>(n));
    }
    all.erase(std::remove(all.begin(), all.end(), '\r'), all.end());
    return all;
}
/// Runs a container to its end; what came out of its console.
inline std::string run(const caisson::ContainerSpec& spec) {
    caisson::Container container = caisson::Container::start(spec);
    std::string text = output(container);
    (void)container.wait();
    return text;
}
/// The message of a start that is to be refused.
inline std::string error_of(const caisson::ContainerSpec& spec) {
    try {
        caisson::Container container = caisson::Container::start(spec);
        return "it started: " + container.wait().str();
    } catch (const caisson::Error& e) {
        return e.what();
    }
}

}  // namespace caisson_test
