#include <caisson/pty.hpp>

#include <string>
#include <vector>

#include <sys/sysmacros.h>

#include <caisson/mount.hpp>

#include "support/doctest.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;

#define SCRATCH(name)   \
    const Scratch name; \
    if (!name) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN")

namespace {
template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.step() == Step::terminal);
        return e.what();
    }
    return "nothing was thrown";
}
}  // namespace

TEST_CASE("a devpts of its own counts from 0, and no other instance shows its terminals") {
    SCRATCH(s);
    {
        const Mount devpts = Mount::devpts();
        const Mount other = Mount::devpts();
        const Pty pty = Pty::open_in(devpts.fd(), {.rows = 3, .columns = 4});
        CHECK(pty.number() == 0);
        CHECK(pty.peer_path() == "/dev/pts/0");
        CHECK(pty.size() == WindowSize{3, 4});
        CHECK(Pty::open_in(devpts.fd()).number() == 1);
        CHECK(Pty::open_in(other.fd()).number() == 0);
        CHECK(::faccessat(devpts.fd(), "0", F_OK, 0) == 0);
        CHECK(::faccessat(other.fd(), "0", F_OK, 0) != 0);
        // The other end, without any path to it.
        const Fd peer = pty.open_peer();
        struct stat by_descriptor {};
        struct stat by_name {};
        REQUIRE(::fstat(peer.get(), &by_descriptor) == 0);
        REQUIRE(::fstatat(devpts.fd(), "0", &by_name, 0) == 0);
        CHECK(major(by_descriptor.st_rdev) == 136);
        CHECK(by_descriptor.st_ino == by_name.st_ino);
        CHECK(by_descriptor.st_dev == by_name.st_dev);
    }
    CHECK(s.unchanged());
}

TEST_CASE("the terminals of a devpts have the owner and the modes that were asked for") {
    SCRATCH(s);
    const Mount devpts = Mount::devpts({.uid = 1234, .gid = 5, .mode = 0600, .ptmx_mode = 0640});
    const Pty pty = Pty::open_in(devpts.fd());
    struct stat st {};
    REQUIRE(::fstatat(devpts.fd(), "0", &st, 0) == 0);
    CHECK(st.st_uid == 1234);
    CHECK(st.st_gid == 5);
    CHECK((st.st_mode & 07777) == 0600);
    REQUIRE(::fstatat(devpts.fd(), "ptmx", &st, 0) == 0);
    CHECK((st.st_mode & 07777) == 0640);
}

TEST_CASE("a devpts that is full says so, and has room again when one is closed") {
    SCRATCH(s);
    const Mount devpts = Mount::devpts({.max = 2});
    std::vector<Pty> open;
    open.push_back(Pty::open_in(devpts.fd()));
    open.push_back(Pty::open_in(devpts.fd()));
    CHECK(error_of([&] { (void)Pty::open_in(devpts.fd()); }) ==
          "open a pseudo-terminal in the container's devpts: No space left on device: all are in use: raise "
          "/proc/sys/kernel/pty/max, or the instance's 'max' option");
    open.pop_back();
    CHECK_NOTHROW((void)Pty::open_in(devpts.fd()));
}

TEST_CASE("what somebody has mounted over a devpts' ptmx is not opened") {
    SCRATCH(s);
    Mount devpts = Mount::devpts();
    const std::string place = s.directory("pts");
    devpts.attach(place);
    REQUIRE(write(s / "trap", ""));
    Mount trap = Mount::bind(s / "trap");
    trap.attach(place + "/ptmx");
    CHECK(error_of([&] { (void)Pty::open_in(devpts.fd()); }) ==
          "open a pseudo-terminal in the container's devpts: Invalid cross-device link: something is mounted over its "
          "'ptmx'");
}

TEST_CASE("a ptmx that the caller may not open is told by its mode") {
    SCRATCH(s);
    const Mount devpts = Mount::devpts({.ptmx_mode = 0});
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(9);
        std::string text;
        try {
            (void)Pty::open_in(devpts.fd());
        } catch (const Error& e) {
            text = e.what();
        }
        const std::string expected =
            "open a pseudo-terminal in the container's devpts: Permission denied: the mode of its 'ptmx' (the "
            "instance's 'ptmxmode') keeps the caller out";
        ::_exit(text == expected ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}
