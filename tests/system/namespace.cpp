#include <caisson/namespace.hpp>

#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>

#include <caisson/mount.hpp>

#include "support/doctest.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;

#define SCRATCH(name)   \
    const Scratch name; \
    if (!name) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN")

namespace {
std::string host_name() {
    char name[256]{};
    (void)::gethostname(name, sizeof name - 1);
    return name;
}
/// A child in a mount namespace of its own, with a tmpfs on `place` that holds the file "theirs".
struct Neighbour {
    pid_t pid = -1;
    explicit Neighbour(const std::string& place) {
        int ready[2];
        if (::pipe2(ready, O_CLOEXEC) != 0) return;
        pid = ::fork();
        if (pid == 0) {
            const bool done = ::unshare(CLONE_NEWNS | CLONE_NEWPID) == 0 &&
                              ::mount("x", place.c_str(), "tmpfs", 0, nullptr) == 0 &&
                              caisson_test::write(place + "/theirs", "x");
            (void)!::write(ready[1], done ? "y" : "n", 1);
            for (;;) ::pause();
        }
        char byte = 0;
        (void)!::read(ready[0], &byte, 1);
        ::close(ready[0]);
        ::close(ready[1]);
    }
    ~Neighbour() {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    Neighbour(const Neighbour&) = delete;
    Neighbour& operator=(const Neighbour&) = delete;
};
}  // namespace

TEST_CASE("a new namespace is another one, and the thread is back where it was") {
    SCRATCH(s);
    for (const NamespaceKind kind :
         {NamespaceKind::net, NamespaceKind::uts, NamespaceKind::ipc, NamespaceKind::cgroup}) {
        CAPTURE(to_string(kind));
        const std::uint64_t before = Namespace::current(kind).id();
        const Namespace made = Namespace::create(kind);
        CHECK(made.kind() == kind);
        CHECK(made.id() != before);
        CHECK(Namespace::current(kind).id() == before);
        CHECK((::fcntl(made.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        const Namespace other = Namespace::create(kind);
        CHECK(other.id() != made.id());
    }
    CHECK(s.unchanged());
}

TEST_CASE("a namespace is entered for the length of a block, by one thread alone") {
    SCRATCH(s);
    const Namespace made = Namespace::create(NamespaceKind::uts);
    const std::uint64_t home = Namespace::current(NamespaceKind::uts).id();
    const std::string name = host_name();
    {
        const auto scope = made.enter_scoped();
        CHECK(Namespace::current(NamespaceKind::uts).id() == made.id());
        REQUIRE(::sethostname("inside", 6) == 0);
        std::string seen;
        std::uint64_t id = 0;
        std::thread other{[&] {
            seen = host_name();
            id = Namespace::current(NamespaceKind::uts).id();
        }};
        other.join();
        CHECK(seen == "inside");  // a new thread starts where its maker is
        CHECK(id == made.id());
    }
    CHECK(Namespace::current(NamespaceKind::uts).id() == home);
    CHECK(host_name() == name);
    auto again = made.enter_scoped();
    CHECK(host_name() == "inside");
    again.leave();
    CHECK(host_name() == name);
    CHECK_NOTHROW(again.leave());
}

TEST_CASE("a thread in another namespace leaves the others where they are") {
    SCRATCH(s);
    const Namespace made = Namespace::create(NamespaceKind::net);
    const std::uint64_t home = Namespace::current(NamespaceKind::net).id();
    std::uint64_t in_thread = 0;
    std::thread other{[&] {
        made.enter();
        in_thread = Namespace::current(NamespaceKind::net).id();
    }};
    other.join();
    CHECK(in_thread == made.id());
    CHECK(Namespace::current(NamespaceKind::net).id() == home);
}

TEST_CASE("a namespace that is pinned by a file is opened again, and lives without a process") {
    SCRATCH(s);
    REQUIRE(write(s / "pin", ""));
    std::uint64_t id = 0;
    {
        const Namespace made = Namespace::create(NamespaceKind::net);
        id = made.id();
        const std::string source = "/proc/self/fd/" + std::to_string(made.fd());
        REQUIRE(::mount(source.c_str(), (s / "pin").c_str(), nullptr, MS_BIND, nullptr) == 0);
    }
    {
        const Namespace opened = Namespace::open(s / "pin");
        CHECK(opened.kind() == NamespaceKind::net);
        CHECK(opened.id() == id);
    }
    REQUIRE(::umount2((s / "pin").c_str(), 0) == 0);
}

TEST_CASE("back from another mount namespace, the root and the working directory are what they were") {
    SCRATCH(s);
    const std::string place = s.directory("place");
    const std::string work = s.directory("work");
    const Neighbour neighbour{place};
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(work);
    const Namespace theirs = Namespace::of(neighbour.pid, NamespaceKind::mount);
    const std::uint64_t home = Namespace::current(NamespaceKind::mount).id();
    CHECK(theirs.id() != home);
    CHECK_FALSE(exists(place + "/theirs"));
    {
        const auto scope = theirs.enter_scoped();
        CHECK(exists(place + "/theirs"));
    }
    CHECK(std::filesystem::current_path() == work);
    CHECK_FALSE(exists(place + "/theirs"));
    CHECK(Namespace::current(NamespaceKind::mount).id() == home);
    // A thread that shares them with others is refused.
    std::string text;
    std::thread other{[&] {
        try {
            theirs.enter();
        } catch (const Error& e) {
            text = e.what();
        }
    }};
    other.join();
    CHECK(text ==
          "enter the mnt namespace: Invalid argument: the thread shares its root and working directory with others");
    std::filesystem::current_path(before);
}

TEST_CASE("a pid namespace is entered for the children, and left for them too") {
    SCRATCH(s);
    const auto link = [] { return std::filesystem::read_symlink("/proc/thread-self/ns/pid_for_children").string(); };
    const std::string before = link();
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    // The first child of an unshared pid namespace is its init, and holds it open for as long as it lives.
    const pid_t parent = ::fork();
    if (parent == 0) {
        if (::unshare(CLONE_NEWPID) != 0) ::_exit(1);
        const pid_t init = ::fork();
        if (init == 0) {
            for (;;) ::pause();
        }
        (void)!::write(ready[1], &init, sizeof init);
        for (;;) ::pause();
    }
    pid_t init = -1;
    REQUIRE(::read(ready[0], &init, sizeof init) == sizeof init);
    ::close(ready[0]);
    ::close(ready[1]);
    {
        const Namespace theirs = Namespace::of(init, NamespaceKind::pid);
        const auto scope = theirs.enter_scoped();
        CHECK(link() == "pid:[" + std::to_string(theirs.id()) + "]");
    }
    CHECK(link() == before);
    ::kill(init, SIGKILL);
    ::kill(parent, SIGKILL);
    ::waitpid(parent, nullptr, 0);
}

TEST_CASE("a thread whose children were to be in another pid namespace has them there again") {
    SCRATCH(s);
    const pid_t pid = ::fork();
    if (pid == 0) {
        const auto link = [] {
            return std::filesystem::read_symlink("/proc/thread-self/ns/pid_for_children").string();
        };
        if (::unshare(CLONE_NEWPID) != 0) ::_exit(9);
        const pid_t init = ::fork();
        if (init == 0) {
            for (;;) ::pause();
        }
        const std::string before = link();
        bool moved = false;
        {
            const auto scope = Namespace::current(NamespaceKind::pid).enter_scoped();
            moved = link() != before;
        }
        const bool back = link() == before;
        ::kill(init, SIGKILL);
        ::waitpid(init, nullptr, 0);
        ::_exit(!moved ? 1 : !back ? 2 : 0);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

TEST_CASE("who may not make, enter or look at a namespace is told what is missing") {
    SCRATCH(s);
    const Namespace made = Namespace::create(NamespaceKind::net);
    const pid_t other = ::getpid();
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(9);
        const auto text = [](auto&& f) -> std::string {
            try {
                f();
            } catch (const Error& e) {
                return e.what();
            }
            return "";
        };
        if (text([] { (void)Namespace::create(NamespaceKind::uts); }) !=
            "new uts namespace: Operation not permitted: this needs CAP_SYS_ADMIN") {
            ::_exit(1);
        }
        if (text([&] { made.enter(); }) !=
            "enter the net namespace: Operation not permitted: this needs CAP_SYS_ADMIN over it") {
            ::_exit(2);
        }
        if (text([&] { (void)Namespace::of(other, NamespaceKind::net); }) !=
            "net namespace of process " + std::to_string(other) +
                ": Permission denied: this needs ptrace access to the process: its user, or CAP_SYS_PTRACE over it") {
            ::_exit(3);
        }
        ::_exit(0);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

TEST_CASE("a limit on namespaces is named when it is reached") {
    SCRATCH(s);
    const pid_t pid = ::fork();
    if (pid == 0) {
        // The limits of the host may not be ours to set; those of a user namespace of our own are.
        if (::unshare(CLONE_NEWUSER) != 0) ::_exit(9);
        if (!write("/proc/sys/user/max_net_namespaces", "0")) ::_exit(9);
        std::string text;
        try {
            (void)Namespace::create(NamespaceKind::net);
        } catch (const Error& e) {
            text = e.what();
        }
        ::_exit(text == "new net namespace: No space left on device: the limit user.max_net_namespaces is reached" ? 0
                                                                                                                   : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}
