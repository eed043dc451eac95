// support/shell.hpp - a container that a test talks to.
#pragma once

#include <caisson/container.hpp>

#include <optional>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"

namespace caisson_test {

using namespace caisson;

inline ContainerSpec plain(const TestRoot& root, bool user = true) {
    ContainerSpec spec = shell(root, "");
    if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    return spec;
}

/// A container whose shell does what it is asked.
class Shell {
public:
    explicit Shell(const ContainerSpec& given) {
        int in[2];
        int out[2];
        REQUIRE(::pipe2(in, O_CLOEXEC) == 0);
        REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
        const Fd command{in[0]};
        const Fd said{out[1]};
        in_.reset(in[1]);
        out_.reset(out[0]);
        ContainerSpec spec = given;
        spec.command = {"/bin/sh", "-c", loop};
        spec.console.reset();
        spec.stdio = {.in = command.get(), .out = said.get(), .err = said.get()};
        container_.emplace(Container::start(spec));
    }
    /// A command that begins it once more, which is answered as the end of what was asked.
    static std::string again() { return std::string{"sh -c 'echo; echo ==; "} + loop + "'"; }
    Container& operator*() { return *container_; }
    Container* operator->() { return &*container_; }
    /// What a command has printed.
    std::string ask(const std::string& command) {
        const std::string line = command + "\n";
        REQUIRE(::write(in_.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size()));
        std::string said;
        char buffer[4096];
        while (!said.ends_with("\n==\n")) {
            const ssize_t n = ::read(out_.get(), buffer, sizeof buffer);
            REQUIRE(n > 0);
            said.append(buffer, static_cast<std::size_t>(n));
        }
        said.erase(said.size() - 4);
        return said;
    }

private:
    static constexpr const char* loop = "while read -r line; do eval \"$line\" 2>&1; echo; echo ==; done";
    Fd in_;
    Fd out_;
    std::optional<Container> container_;
};

}  // namespace caisson_test
