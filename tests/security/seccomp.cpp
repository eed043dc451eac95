// Attacks that a system call filter answers. Each is tried without one first, so that it is the filter that answers.
#include <caisson/container.hpp>

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <caisson/pty.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/system_call.hpp"

using namespace caisson;
using namespace caisson_test;

#if defined(__x86_64__)
namespace {

constexpr SeccompProfile both[] = {SeccompProfile::application, SeccompProfile::system};

/// A payload that the host has given a terminal of its own, and that is root outside with all capabilities.
struct GivenTerminal {
    GivenTerminal() : pty{Pty::open()}, peer{pty.open_peer()} {}
    ContainerSpec spec(const SystemCallRoot& root, SeccompProfile profile) const {
        ContainerSpec made = caller(root, profile);
        made.namespaces = made.namespaces.without(NamespaceKind::user);
        made.capabilities = CapabilitySet::all();
        made.console.reset();
        made.stdio.in = peer.get();
        made.seccomp.compat = true;
        return made;
    }
    /// True if somebody has typed.
    bool has_input() const {
        int bytes = 0;
        termios_raw();
        const bool some = ::ioctl(peer.get(), FIONREAD, &bytes) == 0 && bytes > 0;
        (void)::tcflush(peer.get(), TCIFLUSH);
        return some;
    }
    void termios_raw() const {
        termios modes{};
        REQUIRE(::tcgetattr(peer.get(), &modes) == 0);
        ::cfmakeraw(&modes);
        REQUIRE(::tcsetattr(peer.get(), TCSANOW, &modes) == 0);
    }
    Pty pty;
    Fd peer;
};

std::string run_quietly(ContainerSpec spec, const std::string& arguments) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd out{ends[0]};
    Fd in{ends[1]};
    spec.stdio.out = in.get();
    spec.command = {"/bin/system_call"};
    std::istringstream words{arguments};
    for (std::string word; words >> word;) spec.command.push_back(word);
    Container container = Container::start(spec);
    in.reset();
    std::string text;
    char buffer[256];
    for (ssize_t n = 0; (n = ::read(out.get(), buffer, sizeof buffer)) > 0;) {
        text.append(buffer, static_cast<std::size_t>(n));
    }
    (void)container.wait();
    const std::size_t space = text.find(' ');
    return space == std::string::npos ? text : text.substr(space + 1, text.find('\n') - space - 1);
}

}  // namespace

TEST_CASE("CVE-2017-5226, CVE-2016-10124: a payload cannot type into a terminal of the host's that it was given") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    const GivenTerminal terminal;
    terminal.termios_raw();
    const std::string type = "native 16 0 0x5412 @";  // ioctl TIOCSTI
    if (run_quietly(terminal.spec(root, SeccompProfile::none), type) != "ok" || !terminal.has_input()) {
        CAISSON_SKIP("this kernel refuses TIOCSTI to everybody (dev.tty.legacy_tiocsti is 0)");
    }
    for (const SeccompProfile profile : both) {
        CHECK(run_quietly(terminal.spec(root, profile), type) == refused);
        CHECK(run_quietly(terminal.spec(root, profile), "native 16 0 0x541c @") == refused);  // TIOCLINUX
        ContainerSpec user = terminal.spec(root, profile);
        user.uid = user.gid = 1000;
        CHECK(run_quietly(user, type) == refused);
        CHECK_FALSE(terminal.has_input());
    }
}

TEST_CASE("CVE-2019-7303, CVE-2019-10063: TIOCSTI with bits set above the 32 that the kernel takes is TIOCSTI") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    const GivenTerminal terminal;
    terminal.termios_raw();
    const std::string type = "native 16 0 0x100005412 @";
    const std::string by_i386 = "i386 54 0 0x5412 @";
    if (run_quietly(terminal.spec(root, SeccompProfile::none), type) != "ok" || !terminal.has_input()) {
        CAISSON_SKIP("this kernel refuses TIOCSTI to everybody (dev.tty.legacy_tiocsti is 0)");
    }
    const bool has_i386 = run_quietly(terminal.spec(root, SeccompProfile::none), by_i386) == "ok";
    CHECK(terminal.has_input() == has_i386);
    for (const SeccompProfile profile : both) {
        ContainerSpec spec = terminal.spec(root, profile);
        CHECK(run_quietly(spec, type) == refused);
        if (has_i386) CHECK(run_quietly(spec, by_i386) == refused);
        CHECK(run_quietly(spec, "x32 514 0 0x5412 @") == "signal 31");
        spec.seccomp.compat = false;
        CHECK(run_quietly(spec, type) == refused);
        if (has_i386) CHECK(run_quietly(spec, by_i386) == "signal 31");
        CHECK_FALSE(terminal.has_input());
    }
}

TEST_CASE(
    "CVE-2022-0185, CVE-2024-1086, CVE-2021-22555: an application gets no user namespace, and so no way to the "
    "kernel's code behind one") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    const ContainerSpec open = caller(root, SeccompProfile::none);
    const ContainerSpec spec = caller(root, SeccompProfile::application);
    struct Attempt {
        const char* call;
        const char* without;  ///< what comes of it where there is no filter; nothing: depends on privileges
        int errnum;
    };
    const std::string einval = std::to_string(EINVAL);
    const std::string efault = std::to_string(EFAULT);
    for (const Attempt& attempt : {
             Attempt{"native 272 0x10000000", "ok", EPERM},        // unshare(CLONE_NEWUSER)
             Attempt{"native 272 0x50000000", "ok", EPERM},        // with CLONE_NEWNET
             Attempt{"native 56 0x10000011", "ok", EPERM},         // clone(CLONE_NEWUSER | SIGCHLD)
             Attempt{"native 56 0x50000011", "ok", EPERM},         // with CLONE_NEWNET
             Attempt{"native 56 0xf00000010000011", "ok", EPERM},  // as the kernel takes it
             Attempt{"native 435 0 0", einval.c_str(), ENOSYS},    // clone3: libc falls back
             Attempt{"native 308 0 0", nullptr, EPERM},            // setns
             Attempt{"native 430 @ 0", nullptr, EPERM},            // fsopen
             Attempt{"native 431 0 0 0 0 0", nullptr, EPERM},      // fsconfig
             Attempt{"native 165 0 0 0 0 0", nullptr, EPERM},      // mount
         }) {
        CAPTURE(attempt.call);
        if (attempt.without != nullptr) CHECK(call(open, attempt.call) == attempt.without);
        CHECK(call(spec, attempt.call) == std::to_string(attempt.errnum));
    }
    // A thread is made, as ever.
    CHECK(call(spec, "native 56 0x11") == "ok");
    // Netfilter answers an open socket, and asks for the capability over the network namespace: nobody has it here.
    const std::string netfilter = call(spec, "native 41 16 3 12");
    CAPTURE(netfilter);
    CHECK((netfilter == "ok" || netfilter == std::to_string(EPROTONOSUPPORT)));  // or the kernel has none
    CHECK_FALSE(spec.capabilities.bounding.has(*CapabilitySet::number("net_admin")));
    // With root's own capabilities in the bounding set it is the same.
    ContainerSpec all = spec;
    all.capabilities = CapabilitySet::all();
    CHECK(call(all, "native 272 0x10000000") == refused);
    CHECK(call(all, "native 430 @ 0") == refused);
}

TEST_CASE("CVE-2026-31431: no socket of AF_ALG or AF_VSOCK, however its number is written") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    const ContainerSpec open = caller(root, SeccompProfile::none);
    for (const char* family : {"38", "40", "0x100000026", "0xffffffff00000028"}) {
        const std::string socket = std::string{"native 41 "} + family + " 5 0";
        CAPTURE(socket);
        // The kernel says that it has no such family, or makes one: but never what the filter says.
        CHECK(call(open, socket) != refused);
        for (const SeccompProfile profile : both) CHECK(call(caller(root, profile), socket) == refused);
    }
    for (const SeccompProfile profile : both) {
        ContainerSpec spec = caller(root, profile);
        CHECK(call(spec, "native 41 1 1 0") == "ok");
        CHECK(call(spec, "native 41 2 1 0") == "ok");
        CHECK(call(spec, "native 41 16 3 0") == "ok");
        if (!runs_i386(open)) continue;
        CHECK(call(spec, "i386 102 1 @") == "signal 31");  // socketcall
        spec.seccomp.compat = true;
        CHECK(call(spec, "i386 359 38 5 0") == refused);
    }
}
#endif
