// What a root file system or a payload could try during and right after a start.
#include <caisson/container.hpp>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("the keys of the host's session are not the payload's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    constexpr long join_session_keyring = 1;
    constexpr long set_permissions = 5;
    constexpr int session_keyring = -3;
    constexpr unsigned who_has_it_may_all = 0x3f000000;
    // In a child: a session keyring cannot be left again.
    const TestRoot root;
    const pid_t child = ::fork();
    if (child == 0) {
        if (::syscall(SYS_keyctl, join_session_keyring, nullptr) < 0) ::_exit(2);
        const long key = ::syscall(SYS_add_key, "user", "caisson-secret", "x", 1, session_keyring);
        if (key < 0 || ::syscall(SYS_keyctl, set_permissions, key, who_has_it_may_all) < 0) ::_exit(2);
        int result = 0;
        try {
            ContainerSpec spec = shell(root, "cat /proc/keys");
            spec.namespaces = spec.namespaces.without(NamespaceKind::user);
            const std::string text = run(spec);
            if (text.find("No such file") != std::string::npos) result = 2;
            else if (text.find("caisson-secret") != std::string::npos) result = 1;
        } catch (const Error&) {
            result = 3;
        }
        ::_exit(result);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WEXITSTATUS(status) == 2) CAISSON_SKIP("this kernel has no keys, or does not list them");
    CHECK(status == 0);
}

TEST_CASE("standard input is the container's own null device, not the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    int out[2];
    REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
    const Fd from{out[0]};
    Fd to{out[1]};
    // Root inside is root outside here, and could change the owner and mode of what it has open.
    ContainerSpec spec = shell(root, "stat -L -c '%t:%T %d:%i' /proc/self/fd/0");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.console.reset();
    spec.stdio.out = to.get();
    Container container = Container::start(spec);
    to.reset();
    CHECK(container.wait().success());
    char buffer[128];
    const ssize_t n = ::read(from.get(), buffer, sizeof buffer);
    REQUIRE(n > 0);
    const std::string text{buffer, static_cast<std::size_t>(n)};
    struct stat st {};
    REQUIRE(::stat("/dev/null", &st) == 0);
    CAPTURE(text);
    CHECK(text.find("1:3 ") == 0);
    CHECK(text.find(std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino) + "\n") == std::string::npos);
}

TEST_CASE("a refused start leaves no zombie in a host that is a subreaper") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    ContainerSpec spec = shell(root, "true");
    // A procfs cannot be id-mapped.
    spec.mounts.push_back(MountSpec::bind("/proc", "/mnt", {.recursive = false}));
    const std::string text = error_of(spec);
    CAPTURE(text);
    CHECK(text.find("id map of mount on '/mnt'") != std::string::npos);
    const pid_t left = ::waitpid(-1, nullptr, 0);
    const int error = errno;
    CHECK(left == -1);
    CHECK(error == ECHILD);
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0);
}

TEST_CASE("a keeper that is killed leaves no zombie in a host that is a subreaper") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    {
        Container container = Container::start(shell(root, "sleep 1000"));
        REQUIRE(Process::open(keeper_of(container)).signal(SIGKILL));
        CHECK(container.wait() == ExitStatus::killed(SIGKILL));
    }
    const pid_t left = ::waitpid(-1, nullptr, 0);
    const int error = errno;
    CHECK(left == -1);
    CHECK(error == ECHILD);
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0);
}

TEST_CASE("a host that is a subreaper waits for no tracer that keeps the end of a command to itself") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    bool traces = false;
    {
        Container container = Container::start(shell(root, "sleep 1000"));
        Exec exec = container.exec({.command = {"/bin/sleep", "1000"}});
        const pid_t command = exec.process().pid();
        // As root inside may.
        Host tracer{[&](const Host& self) -> std::string {
            self.say(::ptrace(PTRACE_SEIZE, command, nullptr, nullptr) == 0 ? "it traces\n" : "it may not\n");
            (void)::sleep(20);
            return "";
        }};
        traces = tracer.line() == "it traces";
        CHECK(Process::open(status_number(command, "PPid:")).signal(SIGKILL));
        CHECK(exec.process().ended_within(10'000));
        CHECK(exec.try_wait() == ExitStatus::killed(SIGKILL));
        CHECK_FALSE(Process::open(tracer.pid()).ended());
        // It is the host's to reap from now on.
        tracer.kill();
        (void)tracer.status();
    }
    const pid_t left = ::waitpid(-1, nullptr, 0);
    const int error = errno;
    CHECK(left == -1);
    CHECK(error == ECHILD);
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0);
    if (!traces) CAISSON_SKIP("this machine lets nobody trace");
}

TEST_CASE("a host that executes another program has given its containers up, and they end") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd from{ends[0]};
    Fd to{ends[1]};
    const pid_t host = ::fork();
    if (host == 0) {
        try {
            const Container container = Container::start(shell(root, "sleep 1000"));
            const pid_t pid = container.init().pid();
            if (::write(to.get(), &pid, sizeof pid) == sizeof pid)
                (void)::execl("/bin/sleep", "sleep", "1000", nullptr);
        } catch (const Error&) {
        }
        ::_exit(1);
    }
    to.reset();
    pid_t pid = -1;
    REQUIRE(::read(from.get(), &pid, sizeof pid) == static_cast<ssize_t>(sizeof pid));
    bool ended = ::kill(pid, 0) != 0;
    if (!ended) {
        try {
            ended = Process::open(pid).ended_within(10'000);
        } catch (const Error&) {
            ended = true;
        }
    }
    CHECK(ended);
    CHECK(::kill(host, SIGKILL) == 0);
    CHECK(::waitpid(host, nullptr, 0) == host);
}

TEST_CASE("a devpts among the mounts has terminals that can be opened") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "exec 3<>/pts/ptmx && echo opened");
    MountSpec devpts;
    devpts.type = MountSpec::Type::devpts;
    devpts.target = "/pts";
    devpts.data = "ptmxmode=666";
    spec.mounts.push_back(devpts);
    CHECK(run(spec) == "opened\n");
}

TEST_CASE("a sysfs that shows nothing of the container's own is refused with the reason") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.namespaces = spec.namespaces.without(NamespaceKind::net);
    MountSpec second;
    second.type = MountSpec::Type::sysfs;
    second.target = "/second";
    spec.mounts = {second};
    CHECK(error_of(spec) ==
          "container 'test': mount 'sysfs' on '/second' (in the child): Operation not permitted: a sysfs shows a "
          "network namespace, which must be the container's own: add NamespaceKind::net to namespaces");
    spec.mounts = {MountSpec::tmpfs("/bin/sh/below", 4096)};
    CHECK(error_of(spec).ends_with("Not a directory: a part of the path is no directory"));
    spec.mounts = {MountSpec::tmpfs("/" + std::string(256, 'x'), 4096)};
    CHECK(error_of(spec).ends_with("File name too long: a name has at most 255 bytes, and a path 4095"));
}

TEST_CASE("a working directory that is not there is not taken for a missing command") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.working_directory = "/nowhere";
    CHECK(error_of(spec) ==
          "container 'test': working directory '/nowhere' (in the child): No such file or directory: make "
          "the directory in the root");
    spec.working_directory = "/bin/sh";
    CHECK(error_of(spec) ==
          "container 'test': working directory '/bin/sh' (in the child): Not a directory: name a directory");
    spec.working_directory = "/proc/self/fd/0";
    CHECK(error_of(spec) ==
          "container 'test': working directory '/proc/self/fd/0' (in the child): Too many levels of "
          "symbolic links: a link in it leads in a circle, or through /proc");
}

TEST_CASE("a standard descriptor that is not open is named") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.console.reset();
    spec.stdio.err = 4000;
    CHECK(error_of(spec) ==
          "container 'test': stdio.err, descriptor 4000: Bad file descriptor: it is not open: give -1 for the null "
          "device");
}

TEST_CASE("a standard descriptor that is not open never comes to be one that the start opens itself") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.console.reset();
    // The lowest free numbers are the ones that the start gets.
    std::vector<int> free;
    for (int i = 0; i < 12; ++i) free.push_back(::dup(0));
    for (const int fd : free) (void)::close(fd);
    for (const int fd : free) {
        CAPTURE(fd);
        spec.stdio.in = fd;
        const std::string text = error_of(spec);
        CAPTURE(text);
        CHECK(text.find("stdio.in, descriptor " + std::to_string(fd) + ": Bad file descriptor") != std::string::npos);
    }
}

TEST_CASE("without a user namespace the host's knobs and tables in /proc are read-only, whatever the root does") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "for p in sys sys/kernel irq bus fs; do test -e /proc/$p || continue; "
                               "mount | grep -q \"on /proc/${p%%/*} .*(ro,\" || echo writable $p; done; echo checked");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    CHECK(run(spec) == "checked\n");
}

TEST_CASE("a host that the out-of-memory killer spares does not hand that down") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    std::string before;
    REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/self/oom_score_adj", before));
    if (!detail::sys::write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-500")) {
        CAISSON_SKIP("the score cannot be lowered without CAP_SYS_RESOURCE");
    }
    CHECK(run(shell(root, "cat /proc/self/oom_score_adj")) == "0\n");
    CHECK(detail::sys::write_file(AT_FDCWD, "/proc/self/oom_score_adj", before));
}

TEST_CASE("the keeper keeps three capabilities while the container runs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "sleep 1000"));
    const std::string keeper = "/proc/" + std::to_string(keeper_of(container));
    std::string status;
    REQUIRE(detail::sys::read_file(AT_FDCWD, (keeper + "/status").c_str(), status));
    CHECK(status.find("CapEff:\t0000000000000026") != std::string::npos);
    CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
}
