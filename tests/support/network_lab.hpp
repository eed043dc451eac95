// support/network_lab.hpp - two network namespaces of a test's own, and a look at them by ip(8), which shares no code
// with the library.
#pragma once

#include <caisson/bridge.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <caisson/detail/owner.hpp>

#include "support/doctest.hpp"

namespace caisson_test {

using namespace caisson;

/// What a command prints, run in the network namespace of the calling thread.
inline std::string output(const std::string& command) {
    std::string text;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "re");
    REQUIRE(pipe != nullptr);
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
    (void)::pclose(pipe);
    return text;
}
inline bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}
inline std::string links() {
    return output("ip -o link | cut -d' ' -f1-2");
}
inline IpPrefix prefix(const char* text) {
    return IpPrefix::parse(text).value();
}
inline IpAddress address(const char* text) {
    return IpAddress::parse(text).value();
}

inline std::string message_of(const std::function<void()>& f, int errnum) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.step() == Step::network);
        CHECK(e.code().value() == errnum);
        return e.what();
    }
    FAIL("nothing was thrown");
    return "";
}

/// The thread is in a network namespace of its own until this dies; `inside` is another one.
struct Lab {
    Namespace host = Namespace::create(NamespaceKind::net);
    Namespace inside = Namespace::create(NamespaceKind::net);
    Namespace::Scope scope = host.enter_scoped();
    std::string in(const std::string& command) const {
        const Namespace::Scope there = inside.enter_scoped();
        return output(command);
    }
    Fd netlink_inside() const {
        const Namespace::Scope there = inside.enter_scoped();
        return detail::open_netlink();
    }
};
inline bool possible() {
    return ::geteuid() == 0;
}

/// Connects from inside to `to`, on which the host listens: true if a connection comes about.
inline bool connects(const Lab& lab, const IpAddress& to) {
    sockaddr_in6 v6{};
    sockaddr_in v4{};
    v6.sin6_family = AF_INET6;
    v4.sin_family = AF_INET;
    v6.sin6_port = v4.sin_port = htons(7777);
    std::memcpy(&v6.sin6_addr, to.octets.data(), 16);
    std::memcpy(&v4.sin_addr, to.octets.data(), 4);
    const auto* at = to.v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);
    const socklen_t size = to.v6 ? sizeof v6 : sizeof v4;
    const Fd listener{::socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    REQUIRE(::bind(listener.get(), at, size) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    const Namespace::Scope there = lab.inside.enter_scoped();
    const Fd client{::socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const timeval limit{5, 0};
    REQUIRE(::setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
    return ::connect(client.get(), at, size) == 0;
}

}  // namespace caisson_test
