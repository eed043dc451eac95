// support/read_now.hpp - what can be read without waiting.
#pragma once

#include <cstddef>
#include <string>

#include <poll.h>
#include <unistd.h>

#include <caisson/fd.hpp>

namespace caisson_test {

/// What is there to be read; nothing more than that.
inline std::string read_now(const caisson::Fd& fd) {
    std::string all;
    char buffer[65536];
    pollfd p{fd.get(), POLLIN, 0};
    while (::poll(&p, 1, 0) > 0) {
        const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
        if (n <= 0) break;
        all.append(buffer, static_cast<std::size_t>(n));
    }
    return all;
}

}  // namespace caisson_test
