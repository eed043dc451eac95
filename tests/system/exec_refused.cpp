// Commands that a container, or what it is like, keeps from starting.
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/exec.hpp"
#include "support/fuse.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson_test;
using caisson::Container;
using caisson::ExecSpec;
using caisson::ExitStatus;
using caisson::NamespaceKind;
using caisson::SeccompRule;
using caisson::Step;

TEST_CASE("a command that cannot start is an error that names it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    root.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    Container container = Container::start(idle(root));
    ExecSpec exec;
    CHECK(error_of_exec(container, exec) ==
          "container 'test': command: it is empty: name the program to run, as seen inside");
    exec.command = {"/bin/nothing"};
    CHECK(error_of_exec(container, exec)
              .starts_with("container 'test': command '/bin/nothing' (in the child): No such file or directory: there "
                           "is no such file in "
                           "root '"));
    exec = sh("true");
    exec.namespaces = exec.namespaces.without(NamespaceKind::user);
    CHECK(error_of_exec(container, exec) ==
          "container 'test': namespaces: 'user' is missing: a program in the container could reach the host by a "
          "command without it");
    exec = sh("true");
    exec.start_timeout = std::chrono::milliseconds{0};
    CHECK(error_of_exec(container, exec) == "container 'test': start_timeout: 0 ms: give more than 0");
    exec = sh("true");
    exec.console = caisson::WindowSize{};
    exec.stdio.in = 0;
    CHECK(error_of_exec(container, exec) == "container 'test': stdio: the command has a console: give one of the two");
    exec = sh("true");
    exec.user = "nobody";
    CHECK(error_of_exec(container, exec) ==
          "container 'test': user 'nobody': it is not in '/etc/passwd' of the container: add it there, or give a "
          "number");
    exec.user = "70000";
    CHECK(
        error_of_exec(container, exec) ==
        "container 'test': user 70000 and group 70000 (in the child): Invalid argument: the container's user namespace "
        "does not have this id");
    REQUIRE(::unlink((root / "/etc/group").c_str()) == 0);
    exec = sh("true");
    exec.group = "none";
    CHECK(error_of_exec(container, exec) ==
          "container 'test': '/etc/group' of the container (in the child): No such file or directory: give the user "
          "and group as numbers");
    exec = sh("true");
    exec.working_directory = "/nowhere";
    CHECK(error_of_exec(container, exec) ==
          "container 'test': working directory '/nowhere' (in the child): No such file or directory: make the "
          "directory in the root");
    exec = sh("true");
    exec.descriptors = {5000};
    CHECK(error_of_exec(container, exec) ==
          "container 'test': descriptors[0], descriptor 5000: Bad file descriptor: it is not open");
    (void)container.kill();
}

TEST_CASE("a command that a limit on processes keeps from starting is an error that names the limit") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    caisson::ContainerSpec spec = idle(root);
    spec.limits.pids = 1;
    Container container = Container::start(spec);
    const std::string text = error_of_exec(container, sh("true"));
    CAPTURE(text);
    CHECK(text.find("Resource temporarily unavailable: ") != std::string::npos);
    CHECK(text.find("limit on processes") != std::string::npos);
    CHECK(text.find("limits.pids") != std::string::npos);
    (void)container.kill();
}

TEST_CASE("a command is not started in a container that is suspended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    container.suspend();
    CHECK(error_of_exec(container, sh("true")) ==
          "container 'test': start a command: Device or resource busy: it is suspended: resume it first");
    // As if it were suspended during the start.
    caisson::detail::ExecTicket ticket = container.exec_ticket();
    ticket.is_suspended = false;
    ExecSpec late = sh("true");
    late.start_timeout = std::chrono::milliseconds{50};
    try {
        (void)ticket.exec(late);
        FAIL("it started");
    } catch (const caisson::Error& e) {
        CHECK(e.code().value() == ETIMEDOUT);
        CHECK(std::string{e.remedy()} ==
              "the container is suspended, or a file system of its own (FUSE) does not answer");
    }
    container.resume();
    CHECK(container.exec(sh("exit 4")).wait() == ExitStatus::exited(4));
    (void)container.kill();
}

namespace {

/// What the library counts visits by that could not be ended.
std::string marks_of(const Container& container) {
    return "/proc/" + std::to_string(container.init().pid()) + "/personality";
}
/// True where the marks from `from` on are set now, as long as the file is open.
bool set_marks(const caisson::Fd& file, off_t from, off_t count) {
    struct flock lock {};
    lock.l_type = F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = from;
    lock.l_len = count;
    return file && ::fcntl(file.get(), F_OFD_SETLK, &lock) == 0;
}

/// Commands that cannot get on are started until one is refused: how many, and the refusal. On a machine that has no
/// time some are ended before they are where nothing can end them.
std::pair<int, std::string> until_refused(const caisson::detail::ExecTicket& ticket, ExecSpec exec) {
    int late = 0;
    for (int i = 0; i < 30; ++i) {
        exec.start_timeout = std::chrono::milliseconds{100 + 20 * i};
        try {
            (void)ticket.exec(exec);
            FAIL("it started");
        } catch (const caisson::Error& e) {
            if (e.code().value() == EBUSY) return {late, e.what()};
            CHECK(e.code().value() == ETIMEDOUT);
            ++late;
        }
    }
    return {late, "none was refused"};
}
constexpr const char* too_many =
    "container 'test': join the container: Device or resource busy: others that were to join it still wait there: "
    "resume it, have its own file systems (FUSE) answer, or end it";

/// The first that does not find too many others there.
std::string once_they_are_gone(Container& container) {
    std::string said = too_many;
    for (int waited = 0; said == too_many && waited < 500; ++waited) {
        if (waited != 0) ::usleep(10'000);
        said = error_of_exec(container, sh("true"));
    }
    return said;
}

}  // namespace

TEST_CASE("who cannot be ended yet keeps others from joining once there are too many, and no longer than that") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    SUBCASE("those that are frozen before they are inside") {
        Container container = Container::start(idle(root));
        std::string freezer;
        for (const caisson::CgroupDirectory& d : container.cgroup()->directories()) {
            if (d.controllers == "freezer")
                freezer = d.parent_path + "/" + container.cgroup()->name() + "/freezer.state";
        }
        const auto set = [&](const char* state) {
            return caisson::detail::sys::write_file(AT_FDCWD, freezer.c_str(), state);
        };
        if (!set("FROZEN")) {
            (void)container.kill();
            CAISSON_SKIP("there is no v1 freezer, and SIGKILL ends who is frozen by v2");
        }
        const caisson::Fd marks = caisson::detail::sys::open(marks_of(container), O_RDONLY);
        REQUIRE(set_marks(marks, 0, 5));
        caisson::detail::ExecTicket ticket = container.exec_ticket();
        ticket.is_suspended = false;
        const auto [late, why] = until_refused(ticket, sh("true"));
        CHECK(late >= 3);
        CHECK(why == too_many);
        REQUIRE(set("THAWED"));
        CHECK(once_they_are_gone(container) == "it started: exited with status 0");
        (void)container.kill();
    }
    SUBCASE("those that wait for a file system of the container's") {
        SilentServer server;
        if (!server.fuse) CAISSON_SKIP("there is no /dev/fuse");
        Container container = Container::start(user_of(server, root));
        REQUIRE(server.is_asked());
        const caisson::Fd marks = caisson::detail::sys::open(marks_of(container), O_RDONLY);
        REQUIRE(set_marks(marks, 3, 5));
        ExecSpec exec = sh("true");
        exec.working_directory = "/mnt/x";
        const auto [late, why] = until_refused(container.exec_ticket(), exec);
        CHECK(late >= 3);
        CHECK(why == too_many);
        CHECK(error_of_exec(container, sh("true")) == too_many);
        server.fuse.reset();
        CHECK(once_they_are_gone(container) == "it started: exited with status 0");
        (void)container.kill();
    }
}

TEST_CASE("a copy that a file system does not answer waits for it once, and counts if it cannot be ended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    const TestDirectory host;
    SilentServer server;
    if (!server.fuse) CAISSON_SKIP("there is no /dev/fuse");
    const std::string at = "/deep/1/2/3/4/5/6";
    Container container = Container::start(user_of(server, root, at));
    REQUIRE(server.is_asked());
    const caisson::Fd marks = caisson::detail::sys::open(marks_of(container), O_RDONLY);
    const caisson::detail::ExecTicket ticket = container.exec_ticket();
    const auto errors_of = [](auto&& work) {
        try {
            work();
        } catch (const caisson::Error& e) {
            return e.code().value();
        }
        return 0;
    };
    int in = 0;
    // Where 'stat' waits: in the kernel, and no signal ends it there.
    std::thread other{[&] { in = errors_of([&] { ticket.copy_in("/etc/passwd", at + "/x/y"); }); }};
    const std::int64_t begin = caisson::detail::monotonic_ms();
    // All that is open on the way is to be closed again.
    const int out = errors_of([&] { ticket.copy_out("/deep", host.path()); });
    CHECK(caisson::detail::monotonic_ms() - begin < 60'000);
    other.join();
    CHECK(in == ETIMEDOUT);
    CHECK(out == ETIMEDOUT);
    struct flock mark {};
    mark.l_type = F_WRLCK;
    mark.l_whence = SEEK_SET;
    mark.l_len = 8;
    REQUIRE(::fcntl(marks.get(), F_OFD_GETLK, &mark) == 0);
    CHECK(mark.l_type != F_UNLCK);
    server.fuse.reset();
    (void)container.kill();
}

TEST_CASE("a tracer that keeps the end of a command to itself does not keep who kills it waiting for ever") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    // As root inside may. Nobody else can reap the one, and the other does not even come to its end.
    caisson::Exec kept = container.exec(sleep("1000"));
    caisson::Exec held = container.exec(sleep("1000"));
    const pid_t kept_pid = kept.process().pid();
    const pid_t held_pid = held.process().pid();
    if (::ptrace(PTRACE_SEIZE, kept_pid, nullptr, nullptr) != 0 ||
        ::ptrace(PTRACE_SEIZE, held_pid, nullptr, PTRACE_O_TRACEEXIT) != 0) {
        CAISSON_SKIP("this machine lets nobody trace");
    }
    ExitStatus other;
    std::thread at_once{[&] { other = held.kill(); }};
    CHECK(kept.kill() == ExitStatus::killed(SIGKILL));
    at_once.join();
    CHECK(other == ExitStatus::killed(SIGKILL));
    CHECK(!held.process().ended());
    for (caisson::Exec* const exec : {&kept, &held}) {
        CHECK(exec->wait() == ExitStatus::killed(SIGKILL));
        CHECK(caisson::detail::wait_readable(exec->fd(), 0));
    }
    CHECK(::waitpid(kept_pid, nullptr, __WALL) == kept_pid);
    CHECK(::waitpid(held_pid, nullptr, __WALL) == held_pid);
    CHECK(::ptrace(PTRACE_DETACH, held_pid, nullptr, nullptr) == 0);
    CHECK(held.process().ended_within(10'000));
    CHECK(container.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("no other user of the host can keep anybody from joining a container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    const std::filesystem::path place = "/proc/" + std::to_string(container.init().pid());
    Pipe told;
    Pipe holds;
    const pid_t other = ::fork();
    if (other == 0) {
        holds.write.reset();
        char end = ::setresuid(65534, 65534, 65534) == 0 ? '1' : '0';
        std::vector<caisson::Fd> files;
        std::error_code ignored;
        for (const auto& entry : std::filesystem::directory_iterator{place, ignored}) {
            if (!entry.is_regular_file(ignored)) continue;
            files.push_back(caisson::detail::sys::open(entry.path(), O_RDONLY | O_NONBLOCK));
            (void)set_marks(files.back(), 0, 8);
        }
        if (files.empty()) end = '0';
        (void)!::write(told.write.get(), &end, 1);
        (void)!::read(holds.read.get(), &end, 1);
        ::_exit(0);
    }
    char locked = '0';
    CHECK(::read(told.read.get(), &locked, 1) == 1);
    CHECK(locked == '1');
    CHECK(error_of_exec(container, sh("true")) == "it started: exited with status 0");
    holds.write.reset();
    REQUIRE(::waitpid(other, nullptr, 0) == other);
    (void)container.kill();
}

TEST_CASE("where root inside is root outside, a command is in all that the container has") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    caisson::ContainerSpec spec = idle(root);
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    Container container = Container::start(spec);
    for (const NamespaceKind kind :
         {NamespaceKind::net, NamespaceKind::ipc, NamespaceKind::uts, NamespaceKind::cgroup}) {
        ExecSpec exec = sh("true");
        exec.namespaces = exec.namespaces.without(kind);
        CHECK(error_of_exec(container, exec) ==
              std::string{"container 'test': namespaces: '"} + to_string(kind) +
                  "' is missing, and root inside is root outside: it could reach the host by such a command: name all "
                  "that the container has, or give it a user namespace");
    }
    ExecSpec exec = sh("true");
    exec.cgroup = false;
    CHECK(
        error_of_exec(container, exec) ==
        "container 'test': cgroup: it is false, and root inside is root outside: it could use any device and resource "
        "of the host by such a command: leave it true, or give the container a user namespace");
    (void)container.kill();

    // What it has not, nobody can ask for.
    spec.namespaces = spec.namespaces.without(NamespaceKind::net);
    spec.cgroup = false;
    container = Container::start(spec);
    exec.namespaces = exec.namespaces.without(NamespaceKind::net);
    CHECK(error_of_exec(container, exec) == "it started: exited with status 0");
    (void)container.kill();

    container = Container::start(idle(root));
    CHECK(error_of_exec(container, exec) == "it started: exited with status 0");
    (void)container.kill();
}

TEST_CASE("a rule that keeps a command in a running container from starting is named") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    caisson::ContainerSpec spec = idle(root);
    // The container's own command makes no process.
    spec.seccomp.rules = {{.call = "acct", .action = SeccompRule::Action::refuse},
                          {.call = "clone", .action = SeccompRule::Action::refuse}};
    Container container = Container::start(spec);
    CHECK(error_of_exec(container, sh("true")) ==
          "container 'test': seccomp.rules[1]: 'clone' is what the start of a command in a running container calls "
          "under the filter: give the command a seccomp without it, or tell by arguments which calls are meant");
    ExecSpec exec = sh("true");
    exec.seccomp = caisson::SeccompSpec{};
    CHECK(error_of_exec(container, exec) == "it started: exited with status 0");
    for (const char* call : {"exit_group", "prctl", "ppoll", "setsid", "ioctl", "prlimit64"}) {
        for (const auto action : {SeccompRule::Action::refuse, SeccompRule::Action::kill}) {
            CAPTURE(call);
            exec.seccomp->rules = {{.call = call, .action = action}};
            exec.console = caisson::WindowSize{};
            exec.resource_limits = {{caisson::ResourceLimit::Kind::nproc, 100, 100}};
            CHECK(
                error_of_exec(container, exec)
                    .starts_with(std::string{"container 'test': seccomp.rules[0]: '"} + call + "' is what the start"));
        }
    }
    exec.console.reset();
    exec.resource_limits.clear();
    exec.seccomp->rules = {{.call = "ioctl", .action = SeccompRule::Action::refuse},
                           {.call = "prlimit64", .action = SeccompRule::Action::refuse}};
    CHECK(error_of_exec(container, exec) == "it started: exited with status 0");

    // By arguments, of which only the kernel knows.
    const caisson::SeccompArgument any{
        .index = 0, .comparison = caisson::SeccompArgument::Operator::not_equal, .value = 1};
    exec.seccomp->rules = {{.call = "clone", .action = SeccompRule::Action::refuse, .errnum = 11, .arguments = {any}}};
    CHECK(error_of_exec(container, exec) ==
          "container 'test': make the command's process (in the child): Resource temporarily unavailable: "
          "seccomp.rules[0] refuses 'clone' with such arguments, and the start of a command calls it under the filter");
    exec.seccomp->rules[0].action = SeccompRule::Action::kill;
    CHECK(error_of_exec(container, exec) ==
          "container 'test': command '/bin/sh': the process in the container died (killed by signal 31): a rule "
          "of seccomp.rules kills for what the start of a command itself calls");
    (void)container.kill();
}

TEST_CASE("a user that is a number has the group of that number, whatever the container's own command has") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    root.write("/etc/passwd", "app:x:7:8::/:/bin/sh\n");
    root.write("/etc/group", "app:x:8:\nmore:x:9:app\n");
    caisson::ContainerSpec spec = idle(root);
    spec.user = spec.group = "app";
    Container container = Container::start(spec);
    ExecSpec exec = sh("id -u; id -g; id -G");
    CHECK(output_of(container, exec) == "7\n8\n8 9\n");
    exec.user = "1001";
    CHECK(output_of(container, exec) == "1001\n1001\n1001\n");
    exec.user = "0";
    CHECK(output_of(container, exec) == "0\n0\n0\n");
    exec.group = "app";
    CHECK(output_of(container, exec) == "0\n8\n8\n");
    (void)container.kill();
}

TEST_CASE("looking a user up opens no device that the container may not open") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    const TestDirectory etc;
    // The kernel's log: who opens it may read it.
    REQUIRE(::mknod((etc / "passwd").c_str(), S_IFCHR | 0666, makedev(1, 11)) == 0);
    caisson::ContainerSpec spec = idle(root);
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    spec.mounts.push_back(caisson::MountSpec::bind(etc.path(), "/etc", {.no_dev = false}));
    Container container = Container::start(spec);
    ExecSpec exec = sh("true");
    exec.user = "app";
    CHECK(error_of_exec(container, exec) ==
          "container 'test': '/etc/passwd' of the container (in the child): Operation not permitted: give the user and "
          "group as numbers");
    (void)container.kill();
}

TEST_CASE("who joins has none of the caller's groups, also where init is in a user namespace that forbids setgroups") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory host;
    constexpr gid_t own_group = 4242;
    REQUIRE(::chown(root.write("/secret", "for the group\n", 0040).c_str(), 5'000'000, own_group) == 0);
    for (const char* command : {"exec sleep 1000", "exec unshare -U -r sleep 1000"}) {
        CAPTURE(std::string{command});
        caisson::ContainerSpec spec = caisson::ContainerSpec::system();
        spec.name = "test";
        spec.root = root.path();
        spec.command = {"/bin/sh", "-c", command};
        spec.uid_map = spec.gid_map = {{0, 3'000'000, 65'536}};
        spec.console.reset();
        Container container = Container::start(spec);
        const std::string status = "/proc/" + std::to_string(container.init().pid()) + "/comm";
        std::string name;
        for (int i = 0; name != "sleep\n" && i < 1000; ++i) {
            ::usleep(10'000);
            name.clear();
            (void)caisson::detail::sys::read_file(AT_FDCWD, status.c_str(), name);
        }
        REQUIRE(name == "sleep\n");
        const caisson::detail::ExecTicket ticket = container.exec_ticket();
        Pipe said;
        const pid_t caller = ::fork();
        if (caller == 0) {
            std::string text = "copied";
            try {
                if (::setgroups(1, &own_group) == 0) ticket.copy_out("/secret", host.path());
            } catch (const caisson::Error& e) {
                text = e.what();
            }
            (void)!::write(said.write.get(), text.data(), text.size());
            ::_exit(0);
        }
        said.write.reset();
        CHECK(read_all(said.read.get()) == "container 'test': copy '/secret' of the container: Permission denied");
        REQUIRE(::waitpid(caller, nullptr, 0) == caller);
        (void)container.kill();
    }
}
