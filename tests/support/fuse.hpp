// support/fuse.hpp - a file system that does not answer.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/fd.hpp>
#include <caisson/spec.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

/// A FUSE file system whose server, this process, answers nothing but the kernel's greeting: who looks into it waits in
/// the kernel until `fuse` is closed.
struct SilentServer {
    caisson::Fd fuse = caisson::detail::sys::open("/dev/fuse", O_RDWR | O_NONBLOCK);

    /// Of the mount, by a process that has the device open as `fd`.
    [[nodiscard]] static std::string options(int fd) {
        return "fd=" + std::to_string(fd) + ",rootmode=40000,user_id=0,group_id=0";
    }
    /// In the caller's mount namespace; false where that cannot be. The mount's source says whose it is, for tests
    /// beside this one: see MachineState.
    [[nodiscard]] bool mount(const std::string& directory) const {
        const std::string tag = caisson::detail::Owner::current().tag();
        return fuse && ::mount(tag.c_str(), directory.c_str(), "fuse", 0, options(fuse.get()).c_str()) == 0 &&
               question() == std::uint32_t{FUSE_INIT};
    }
    /// Waits until it is mounted, and for the first question that stays without an answer.
    [[nodiscard]] bool is_asked() const {
        for (;;) {
            const std::optional<std::uint32_t> opcode = question();
            if (opcode != std::uint32_t{FUSE_INIT}) return opcode.has_value();
        }
    }

private:
    /// The next one, which is answered if it is the greeting.
    [[nodiscard]] std::optional<std::uint32_t> question() const {
        alignas(8) char buffer[65536];
        for (int waited = 0; ::read(fuse.get(), buffer, sizeof buffer) < 0; ++waited) {
            // Before it is mounted there is nothing to wait for.
            if ((errno != EAGAIN && errno != EPERM) || waited == 3000) return {};
            (void)::poll(nullptr, 0, 10);
        }
        fuse_in_header in{};
        std::memcpy(&in, buffer, sizeof in);
        if (in.opcode != FUSE_INIT) return in.opcode;
        struct {
            fuse_out_header header;
            fuse_init_out body;
        } out{};
        out.header.len = sizeof out;
        out.header.unique = in.unique;
        out.body.major = FUSE_KERNEL_VERSION;
        out.body.minor = FUSE_KERNEL_MINOR_VERSION;
        out.body.max_write = 4096;
        if (::write(fuse.get(), &out, sizeof out) != sizeof out) return {};
        return in.opcode;
    }
};

/// A container with the server's file system on `at`, in which 'stat' waits for it for ever.
inline caisson::ContainerSpec user_of(const SilentServer& server, const TestRoot& root,
                                      const std::string& at = "/mnt") {
    using caisson::NamespaceKind;
    caisson::ContainerSpec spec =
        shell(root, "mount -t fuse -o " + SilentServer::options(3) + " none " + at + " || exit 1; stat " + at +
                        "/x 3>&- & exec 3>&-; while :; do sleep 1000; done");
    spec.console.reset();
    REQUIRE(std::filesystem::create_directories(root / at));
    spec.namespaces = NamespaceKind::mount | NamespaceKind::pid | NamespaceKind::cgroup;
    spec.capabilities = caisson::CapabilitySet::application().with({"sys_admin"});
    spec.seccomp.profile = caisson::SeccompProfile::system;
    spec.descriptors = {server.fuse.get()};
    return spec;
}

}  // namespace caisson_test
