// support/suspended.hpp - containers that count, so that one sees whether they stand still, and what keeps a process
// from it.
#pragma once

#include <caisson/container.hpp>
#include <caisson/detail/owner.hpp>

#include <cstddef>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/cgroup.hpp"
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
/// A file system that nobody serves once it has begun: who looks into it waits in the kernel until the descriptor is
/// closed. Its source says whose it is, for tests beside this one: see MachineState.
inline Fd mount_unserved(const std::string& directory) {
    Fd fuse = detail::sys::open("/dev/fuse", O_RDWR);
    const std::string options = "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0";
    if (::mount(detail::Owner::current().tag().c_str(), directory.c_str(), "fuse", 0, options.c_str()) != 0) return {};
    alignas(8) char request[8192];
    if (::read(fuse.get(), request, sizeof request) < static_cast<ssize_t>(sizeof(fuse_in_header))) return {};
    struct {
        fuse_out_header header;
        fuse_init_out init;
    } answer{};
    answer.header.len = sizeof answer;
    std::memcpy(&answer.header.unique, request + offsetof(fuse_in_header, unique), sizeof answer.header.unique);
    answer.init.major = FUSE_KERNEL_VERSION;
    answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
    answer.init.max_write = 4096;
    if (::write(fuse.get(), &answer, sizeof answer) != static_cast<ssize_t>(sizeof answer)) return {};
    return fuse;
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
