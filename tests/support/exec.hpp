// support/exec.hpp - what system tests of commands in running containers share.
#pragma once

#include <algorithm>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

/// A container that does nothing until it is killed.
inline caisson::ContainerSpec idle(const TestRoot& root) {
    caisson::ContainerSpec spec = shell(root, "");
    spec.command = {"/bin/sleep", "1000"};
    return spec;
}

inline caisson::ExecSpec sh(const std::string& script) {
    caisson::ExecSpec spec;
    spec.command = {"/bin/sh", "-c", script};
    return spec;
}

inline caisson::ExecSpec sleep(const std::string& seconds) {
    caisson::ExecSpec spec;
    spec.command = {"/bin/sleep", seconds};
    return spec;
}

struct Pipe {
    Pipe() {
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        read.reset(ends[0]);
        write.reset(ends[1]);
    }
    caisson::Fd read;
    caisson::Fd write;
};

inline std::string read_all(int fd) {
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) > 0;) all.append(buffer, static_cast<std::size_t>(n));
    std::erase(all, '\r');
    return all;
}

/// What the command writes.
inline std::string output_of(caisson::Container& container, caisson::ExecSpec spec) {
    Pipe pipe;
    spec.stdio.out = spec.stdio.err = pipe.write.get();
    caisson::Exec exec = container.exec(spec);
    pipe.write.reset();
    std::string text = read_all(pipe.read.get());
    (void)exec.wait();
    return text;
}

/// The message of a command that is to be refused.
inline std::string error_of_exec(caisson::Container& container, const caisson::ExecSpec& spec) {
    try {
        return "it started: " + container.exec(spec).wait().str();
    } catch (const caisson::Error& e) {
        return e.what();
    }
}

}  // namespace caisson_test
