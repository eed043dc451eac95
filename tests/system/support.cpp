// The tools of the system tests themselves: a checker that sees nothing would pass everything.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson_test;

namespace {
bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}
}  // namespace

TEST_CASE("a test root has a shell that runs in it, and is gone afterwards") {
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    std::string path;
    {
        const TestRoot root;
        path = root.path();
        root.write("etc/deep/er/word", "hello", 0600);
        struct stat st {};
        REQUIRE(::stat((root / "/etc/deep/er/word").c_str(), &st) == 0);
        CHECK((st.st_mode & 07777) == 0600);
        CHECK(root.read("etc/deep/er/word") == "hello");
        CHECK(root.read("etc/none").empty());
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            if (::chroot(path.c_str()) != 0 || ::chdir("/") != 0) ::_exit(99);
            ::execl("/bin/sh", "sh", "-c", "test \"$(cat /etc/deep/er/word)\" = hello && ls / > /tmp/list", nullptr);
            ::_exit(98);
        }
        int status = -1;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == 0);
        CHECK(root.read("tmp/list").starts_with("bin\ndev\n"));
        CHECK(exists(program("system-support")));
    }
    CHECK_FALSE(exists(path));
}

namespace {

/// What the checker says after `act`, which `undo` takes back.
template <class Act, class Undo>
std::string seen(Act act, Undo undo) {
    const MachineState before = MachineState::capture();
    act();
    const std::string text = difference(before, MachineState::capture());
    undo();
    const std::string rest = lasting_difference(before);
    CHECK_MESSAGE(rest.empty(), rest);
    return text;
}
bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Runs `body` in a child with namespaces of its own; doctest's checks do not work there.
template <class Body>
int in_namespaces(Body body) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) ::_exit(90);
        if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(91);
        ::_exit(body());
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

TEST_CASE("the checker sees descriptors, threads, signals, umask, directory and environment of the process") {
    int fd = -1;
    const std::string opened =
        seen([&] { fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC); }, [&] { (void)::close(fd); });
    CHECK(opened == "descriptors: + " + std::to_string(fd) + " -> /dev/null\n");
    int in[2];
    REQUIRE(::pipe2(in, O_CLOEXEC) == 0);
    std::thread other;
    CHECK(has(seen(
                  [&] {
                      other = std::thread{[&] {
                          char c;
                          (void)!::read(in[0], &c, 1);
                      }};
                  },
                  [&] {
                      (void)!::write(in[1], "x", 1);
                      other.join();
                  }),
              "threads: + "));
    (void)::close(in[0]);
    (void)::close(in[1]);
    CHECK(has(seen([] { (void)::signal(SIGUSR2, SIG_IGN); }, [] { (void)::signal(SIGUSR2, SIG_DFL); }),
              "this process: + SigIgn:"));
    sigset_t set;
    (void)::sigemptyset(&set);
    (void)::sigaddset(&set, SIGUSR2);
    CHECK(has(seen([&] { (void)::pthread_sigmask(SIG_BLOCK, &set, nullptr); },
                   [&] { (void)::pthread_sigmask(SIG_UNBLOCK, &set, nullptr); }),
              "this process: + SigBlk:"));
    mode_t mask = 0;
    CHECK(has(seen([&] { mask = ::umask(0123); }, [&] { (void)::umask(mask); }), "this process: + Umask:\t0123"));
    const std::string here = std::filesystem::current_path();
    CHECK(has(seen([] { REQUIRE(::chdir("/proc") == 0); }, [&] { REQUIRE(::chdir(here.c_str()) == 0); }),
              "this process: + working directory /proc"));
    CHECK(has(seen([] { (void)::setenv("CAISSON_TEST", "1", 1); }, [] { (void)::unsetenv("CAISSON_TEST"); }),
              "environment: + CAISSON_TEST=1"));
}

TEST_CASE("the checker sees a process of ours that belongs to pid 1 by now, and no process of somebody else") {
    pid_t orphan = -1;
    const auto leave = [&] {
        int ready[2];
        REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
        const pid_t between = ::fork();
        if (between == 0) {
            const pid_t child = ::fork();
            if (child == 0) {
                (void)::setsid();
                (void)!::write(ready[1], "x", 1);
                (void)::execl("/bin/sleep", "sleep", "1000", nullptr);
                ::_exit(1);
            }
            (void)!::write(ready[1], &child, sizeof child);
            ::_exit(0);
        }
        REQUIRE(::waitpid(between, nullptr, 0) == between);
        char bytes[sizeof orphan + 1];
        (void)::close(ready[1]);
        std::size_t got = 0;
        for (ssize_t n; (n = ::read(ready[0], bytes + got, sizeof bytes - got)) > 0;)
            got += static_cast<std::size_t>(n);
        (void)::close(ready[0]);
        REQUIRE(got == sizeof bytes);
        // The single byte comes first or last.
        const char* at = bytes[0] == 'x' && bytes[sizeof orphan] != 'x' ? bytes + 1 : bytes;
        std::memcpy(&orphan, at, sizeof orphan);
    };
    const std::string text = seen(leave, [&] { (void)::kill(orphan, SIGKILL); });
    CHECK(has(text, "processes: + pid " + std::to_string(orphan)));
    CHECK(std::count(text.begin(), text.end(), '\n') == 1);
}

TEST_CASE("the checker sees mounts, links, listening sockets and nft rules of namespaces of the test's own") {
    if (::geteuid() != 0) CAISSON_SKIP("needs root");
    const int code = in_namespaces([] {
        const MachineState before = MachineState::capture();
        if (::mount("tmpfs", "/mnt", "tmpfs", 0, nullptr) != 0) return 1;
        if (!has(difference(before, MachineState::capture()), " / /mnt rw,relatime - tmpfs tmpfs rw")) return 2;
        if (::umount("/mnt") != 0) return 3;
        if (std::system("ip link add kite type bridge") != 0) return 4;
        if (!has(difference(before, MachineState::capture()), " kite ")) return 5;
        if (std::system("ip link del kite") != 0) return 6;
        const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, "\0kite", 5);
        if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t) + 5) != 0) return 7;
        if (::listen(listener, 1) != 0) return 8;
        if (!has(difference(before, MachineState::capture()), "sockets: + @kite")) return 9;
        (void)::close(listener);
        if (::access("/usr/sbin/nft", X_OK) == 0) {
            if (std::system("/usr/sbin/nft add table ip kite") != 0) return 10;  // user-mode Linux has no rules
            if (!has(difference(before, MachineState::capture()), "nft rules: + table ip kite")) return 11;
            if (std::system("/usr/sbin/nft delete table ip kite") != 0) return 12;
        }
        return lasting_difference(before).empty() ? 0 : 13;
    });
    if (code == 10) CAISSON_SKIP("all but nft rules: this kernel takes none");
    CHECK(code == 0);
}

TEST_CASE("the checker sees a control group and a run-time file that a dead owner left, not those of a living one") {
    if (::geteuid() != 0) CAISSON_SKIP("needs root");
    const std::string parent = "/dev/shm";
    const auto file = [&](const std::string& tag) { return parent + "/caisson." + tag; };
    const auto make = [](const std::string& path) { std::ofstream{path} << "x"; };
    caisson::detail::Owner owner = caisson::detail::Owner::current();
    const std::string ours = owner.tag();
    owner.start_time = 0;
    const std::string first = owner.tag();
    CHECK(
        has(seen([&] { make(file(first)); }, [&] { (void)::unlink(file(first).c_str()); }), "files: + " + file(first)));
    // Ours, by the mark.
    CHECK(has(seen([&] { make(file(ours)); }, [&] { (void)::unlink(file(ours).c_str()); }), "files: + " + file(ours)));
    // Somebody else's: pid 1 lives and has no mark.
    std::ifstream stat{"/proc/1/stat"};
    std::string word, start;
    for (int field = 1; field <= 22 && stat >> word; ++field) start = word;
    const std::string theirs = "1-" + start + "-" + std::to_string(owner.pid_namespace);
    CHECK(seen([&] { make(file(theirs)); }, [&] { (void)::unlink(file(theirs).c_str()); }) == "");

    for (const char* hierarchy : {"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
        const std::string group = std::string{hierarchy} + "/caisson.kite." + first;
        if (::mkdir(group.c_str(), 0755) != 0) continue;
        if (::access((group + "/cgroup.procs").c_str(), F_OK) == 0) {
            (void)::rmdir(group.c_str());
            CHECK(has(seen([&] { (void)::mkdir(group.c_str(), 0755); }, [&] { (void)::rmdir(group.c_str()); }),
                      "control groups: + " + group));
            return;
        }
        (void)::rmdir(group.c_str());
    }
    CAISSON_SKIP("no control group can be made here");
}
