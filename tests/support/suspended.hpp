// support/suspended.hpp - containers that count, so that one sees whether they stand still, and what keeps a process
// from it.
#pragma once

#include <caisson/container.hpp>

#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/cgroup.hpp"
#include "support/fuse.hpp"
#include "support/host.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

/// Writes a line a moment to /tmp/count; `at_term` is what it does on SIGTERM.
inline ContainerSpec counting(const TestRoot& root, const std::string& at_term = "exit 7") {
    return shell(root, "trap '" + at_term + "' TERM; while :; do echo x >> /tmp/count; done");
}
inline off_t count(const TestRoot& root) {
    struct stat st {};
    return ::stat((root / "/tmp/count").c_str(), &st) == 0 ? st.st_size : 0;
}
/// True once it counts on; false if that does not come.
inline bool goes_on(const TestRoot& root) {
    const off_t before = count(root);
    for (int waited = 0; waited < 5000; ++waited) {
        if (count(root) > before) return true;
        ::usleep(1000);
    }
    return false;
}
inline bool stands_still(const TestRoot& root) {
    const off_t before = count(root);
    ::usleep(30'000);
    return count(root) == before;
}
inline std::int64_t milliseconds_of(const std::int64_t since) {
    return detail::monotonic_ms() - since;
}
template <class Body>
std::string message_of(Body&& body) {
    try {
        body();
        return "nothing was thrown";
    } catch (const Error& e) {
        return e.what();
    }
}

/// v1: moves init into a group that somebody inside may have made, and freezes that.
inline bool freeze_inside(Container& container) {
    std::string inner = path_for(*container.cgroup(), "freezer.state");
    inner.replace(inner.rfind('/'), std::string::npos, "/in");
    return ::mkdir(inner.c_str(), 0755) == 0 &&
           detail::sys::write_file(AT_FDCWD, (inner + "/tasks").c_str(), std::to_string(container.init().pid())) &&
           detail::sys::write_file(AT_FDCWD, (inner + "/freezer.state").c_str(), "FROZEN");
}

}  // namespace caisson_test
