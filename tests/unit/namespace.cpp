#include <caisson/namespace.hpp>

#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/doctest.hpp"

using namespace caisson;

static_assert((NamespaceKind::pid | NamespaceKind::net).has(NamespaceKind::net));
static_assert(!(NamespaceKind::pid | NamespaceKind::net).has(NamespaceKind::user));
static_assert((NamespaceKind::pid | NamespaceKind::net).without(NamespaceKind::net) == NamespaceKind::pid);
static_assert((NamespaceKind::mount | NamespaceKind::time).bits() == (CLONE_NEWNS | CLONE_NEWTIME));

TEST_CASE("every kind has the name that /proc gives it, and a current namespace of that kind") {
    for (const NamespaceKind kind : all_namespace_kinds) {
        const std::string path = std::string{"/proc/self/ns/"} + to_string(kind);
        if (::access(path.c_str(), F_OK) != 0) continue;  // kernels without time namespaces
        CAPTURE(path);
        const Namespace here = Namespace::current(kind);
        CHECK(here.kind() == kind);
        CHECK((::fcntl(here.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(here.id() == Namespace::of(::getpid(), kind).id());
        CHECK(here.id() == Namespace::of(Process::self(), kind).id());
        const Namespace opened = Namespace::open(path);
        CHECK(opened.kind() == kind);
        CHECK(opened.id() == here.id());
    }
    CHECK(Namespace::current(NamespaceKind::net).id() != Namespace::current(NamespaceKind::uts).id());
}

TEST_CASE("kinds that need a process of their own are refused as wrong use, with the way out named") {
    for (const NamespaceKind kind :
         {NamespaceKind::pid, NamespaceKind::user, NamespaceKind::time, NamespaceKind::mount}) {
        try {
            (void)Namespace::create(kind);
            FAIL("made");
        } catch (const std::logic_error& e) {
            CHECK(std::string{e.what()} ==
                  std::string{"a new "} + to_string(kind) + " namespace needs a process: start a Container");
        }
    }
}

TEST_CASE("a user namespace cannot be entered for a while") {
    CHECK_THROWS_AS((void)Namespace::current(NamespaceKind::user).enter_scoped(), std::logic_error);
}

TEST_CASE("a plain file is told from a namespace file") {
    try {
        (void)Namespace::open("/dev/null");
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(e.step() == Step::open_namespace);
        CHECK(std::string{e.what()} ==
              "namespace '/dev/null': Invalid argument: this is no namespace file; name one such as /run/netns/NAME or "
              "/proc/PID/ns/net");
    }
}

TEST_CASE("a namespace file that is not there is named") {
    try {
        (void)Namespace::open("/run/netns/there is no such");
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "namespace '/run/netns/there is no such': No such file or directory");
    }
}

TEST_CASE("the namespace of a process that does not exist is an error that names both") {
    try {
        (void)Namespace::of(0x3fffffff, NamespaceKind::net);
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "net namespace of process 1073741823: No such process");
    }
}

TEST_CASE("a process that has ended has no namespaces, even where its pid is taken again") {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(0);
    const Process child = Process::open(pid);
    REQUIRE(child.ended_within(-1));
    const auto error_of = [&] {
        try {
            (void)Namespace::of(child, NamespaceKind::net);
            return std::string{"opened"};
        } catch (const Error& e) {
            return std::string{e.what()};
        }
    };
    const std::string gone = "net namespace of process " + std::to_string(pid) + ": No such process";
    CHECK(error_of() == gone);
    CHECK(::waitpid(pid, nullptr, 0) == pid);
    CHECK(error_of() == gone);
    // The pid of this process, held by the pidfd of one that is gone.
    const Process recycled{::getpid(), Fd{::fcntl(child.pidfd(), F_DUPFD_CLOEXEC, 3)}};
    try {
        (void)Namespace::of(recycled, NamespaceKind::net);
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(e.code().value() == ESRCH);
    }
}

TEST_CASE("a moved-from namespace holds nothing") {
    Namespace a = Namespace::current(NamespaceKind::uts);
    const std::uint64_t id = a.id();
    Namespace b{std::move(a)};
    CHECK(a.fd() == -1);
    CHECK_THROWS_AS((void)a.id(), std::logic_error);
    CHECK_THROWS_AS(a.enter(), std::logic_error);
    CHECK_THROWS_AS((void)a.enter_scoped(), std::logic_error);
    CHECK_THROWS_AS((void)Namespace::of(Process{}, NamespaceKind::net), std::logic_error);
    Namespace& same = b;
    b = std::move(same);
    CHECK(b.id() == id);
}
