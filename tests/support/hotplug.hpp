// support/hotplug.hpp - what the system tests of what is attached to containers share.
#pragma once

#include <caisson/device.hpp>
#include <caisson/error.hpp>
#include <caisson/namespace.hpp>
#include <caisson/spec.hpp>

#include <cstdio>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "support/doctest.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

using namespace caisson;

/// The message of what is to be refused.
template <class Act>
std::string refusal(Act&& act, int errnum) {
    try {
        act();
    } catch (const Error& e) {
        CAPTURE(e.what());
        CHECK(e.code().value() == errnum);
        return e.what();
    }
    return "it was not refused";
}

inline bool has_unique_mount_numbers() {
    constexpr unsigned unique_number = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8
    struct statx status {};
    return ::statx(AT_FDCWD, "/", 0, unique_number, &status) == 0 && (status.stx_mask & unique_number) != 0;
}

struct OwnNetwork {
    Namespace net = Namespace::create(NamespaceKind::net);
    Namespace::Scope scope = net.enter_scoped();
};

inline std::string output(const char* command) {
    std::string text;
    FILE* const pipe = ::popen(command, "re");
    REQUIRE(pipe != nullptr);
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
    (void)::pclose(pipe);
    return text;
}
inline std::string links() {
    return output("ip -o link | cut -d: -f2");
}

// The kernel's log: a device that each kernel has and no container, and that root may open for writing without effect.
inline const DeviceSpec log_device{.source = "/dev/kmsg", .target = "log/kernel", .mode = 0666};

/// A node of that device in a directory of the host's, which is there whatever is attached: the right to use it is what
/// comes and goes.
struct LogNode {
    LogNode() {
        const std::string node = directory / "log";
        REQUIRE(::mknod(node.c_str(), S_IFCHR | 0666, makedev(1, 11)) == 0);
        REQUIRE(::chmod(node.c_str(), 0666) == 0);
    }
    TestDirectory directory{};
    /// /nodes/log of a container.
    [[nodiscard]] MountSpec mount() const { return MountSpec::bind(directory.path(), "/nodes", {.no_dev = false}); }
};

}  // namespace caisson_test
