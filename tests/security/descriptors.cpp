// Family B: what a container could reach through descriptors, working directories and programs of the host.
#include <caisson/container.hpp>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/seize.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// What a careless host has open, none of it close-on-exec.
struct Foreign {
    std::vector<Fd> all{};
    explicit Foreign(const std::string& directory) {
        while (all.size() < 50) {
            all.emplace_back(::open("/", O_RDONLY | O_DIRECTORY));
            all.emplace_back(::open("/", O_PATH));
            all.emplace_back(::open(directory.c_str(), O_PATH));
            all.emplace_back(::socket(AF_UNIX, SOCK_STREAM, 0));
            all.emplace_back(::memfd_create("foreign", 0));
            int ends[2]{-1, -1};
            REQUIRE(::pipe(ends) == 0);
            all.emplace_back(ends[0]);
            all.emplace_back(ends[1]);
        }
        for (const Fd& fd : all) REQUIRE(fd);
    }
    [[nodiscard]] int last() const { return all.back().get(); }
};

std::string said_until(Container& container, const std::string& word) {
    std::string said;
    for (char c = 0; !contains(said, word) && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    return said;
}

}  // namespace

TEST_CASE("CVE-2024-21626: no descriptor of the host is in the container or its keeper, whatever it left open") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    const Foreign foreign{canary.path()};
    for (const bool user : {true, false}) {
        CHECK(attempt(with_user(shell(root, "ls -1 /proc/1/fd; true"), user)) == "0\n1\n2\n");
        Container container = Container::start(with_user(shell(root, "read line"), user));
        const std::string keeper = keeper_directory(container) + "/fd";
        int seen = 0;
        for (const auto& entry : std::filesystem::directory_iterator{keeper}) {
            const std::string target = link_of(entry.path());
            CAPTURE(target);
            CHECK_FALSE((target == "/" || target == canary.path() || contains(target, "foreign")));
            for (const Fd& fd : foreign.all) {
                CHECK_FALSE(
                    (target.starts_with("socket:") && target == link_of("/proc/self/fd/" + std::to_string(fd.get()))));
            }
            ++seen;
        }
        CHECK(seen > 0);
    }
}

TEST_CASE("CVE-2024-21626: a working directory that leads through a descriptor or a process is refused") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    const Foreign foreign{canary.path()};
    std::vector<std::string> directories{"/proc/1/cwd",     "/proc/self/cwd",        "/proc/1/root",
                                         "/proc/self/root", "/proc/thread-self/cwd", "/proc/self/exe"};
    for (int fd = 0; fd <= foreign.last() + 10; ++fd) {
        directories.push_back("/proc/self/fd/" + std::to_string(fd));
        directories.push_back("/proc/self/fd/" + std::to_string(fd) + "/tmp");
    }
    for (const std::string& directory : directories) {
        ContainerSpec spec = shell(root, "pwd; ls");
        spec.working_directory = directory;
        const std::string text = error_of(spec);
        CAPTURE(text);
        const std::string refusal = "container 'test': working directory '" + directory + "' (in the child): ";
        CHECK((text.starts_with(refusal + "Too many levels of symbolic links") ||
               text.starts_with(refusal + "No such file or directory")));
        // The same by a link of the root's own.
        replace_by_link(root / "/wd", directory);
        spec.working_directory = "/wd";
        CHECK(error_of(spec).starts_with("container 'test': working directory '/wd' (in the child): "));
    }
    for (const char* directory : {"/proc/self/cwd/../..", "/tmp/../../.."}) {
        ContainerSpec spec = shell(root, "true");
        spec.working_directory = directory;
        CHECK(error_of(spec) == "container 'test': working_directory: '" + std::string{directory} +
                                    "' holds '..': write the path without it");
    }
    // The same of a command in a container that runs.
    ContainerSpec running = shell(root, "read line");
    Container container = Container::start(running);
    ExecSpec exec;
    exec.command = {"/bin/true"};
    for (const std::string& directory : directories) {
        exec.working_directory = directory;
        std::string text;
        try {
            (void)container.exec(exec);
        } catch (const Error& e) {
            text = e.what();
        }
        CAPTURE(text);
        const std::string refusal = "container 'test': working directory '" + directory + "' (in the child): ";
        CHECK((text.starts_with(refusal + "Too many levels of symbolic links") ||
               text.starts_with(refusal + "No such file or directory")));
    }
    (void)container.kill();
    // The kernel says "(unreachable)" of one that is not below the root.
    ContainerSpec spec = shell(root, "readlink /proc/self/cwd");
    spec.working_directory = "/tmp";
    CHECK(attempt(spec) == "/tmp\n");
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2024-21626: a command that is a link through a descriptor of the start never leads to the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestRoot host;
    host.write("only-outside", "#!/bin/sh\necho escaped\n", 0755);
    // From 3 on: a directory of the host that is still open leads to all of the host by "..".
    for (int fd = 3; fd < 64; ++fd) {
        CAPTURE(fd);
        replace_by_link(root / "/sbin-init",
                        "/proc/self/fd/" + std::to_string(fd) + "/../../../../../../../.." + host / "only-outside");
        ContainerSpec spec = shell(root, "");
        spec.command = {"/sbin-init"};
        const std::string text = error_of(spec);
        CAPTURE(text);
        CHECK(text.find("container 'test': command '/sbin-init' (in the child): ") == 0);
    }
}

TEST_CASE("CVE-2019-5736: a command that is /proc/self/exe runs nothing that can be written to") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("/by-line", "#!/proc/self/exe\n", 0755);
    replace_by_link(root / "/by-link", "/proc/self/exe");
    for (const std::string command : {"/by-line", "/by-link", "/proc/self/exe", "/proc/1/exe"}) {
        for (const bool user : {true, false}) {
            ContainerSpec spec = with_user(shell(root, ""), user);
            spec.command = {command};
            CAPTURE(command);
            try {
                Container container = Container::start(spec);
                // The stage once more: without a plan, and without its first part once that has been given back.
                const auto status = container.wait_for(std::chrono::seconds{10});
                REQUIRE(status);
                CHECK((status == ExitStatus::exited(1) || status->signal() == SIGSEGV || status->signal() == SIGILL));
            } catch (const Error& e) {
                CHECK(contains(e.what(), "(in the child): "));
            }
        }
    }
}

TEST_CASE("CVE-2019-5736: no program that runs for a container can be opened for writing, from inside or outside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool user : {true, false}) {
        for (const bool init : {true, false}) {
            // Every process that the container sees is its own, and each program that runs is busy.
            ContainerSpec spec = with_user(shell(root,
                                                 "for p in /proc/[0-9]* /proc/self; do "
                                                 "if ( : >> $p/exe ) 2>/dev/null; then echo wrote $p; fi; done; "
                                                 "echo tried; read line"),
                                           user);
            spec.init = init;
            spec.capabilities = CapabilitySet::all();
            Container container = Container::start(spec);
            CHECK(said_until(container, "tried") == "tried");
            // The stage itself: sealed, so that not even root can change what it is.
            const std::string exe = keeper_directory(container) + "/exe";
            CHECK(contains(link_of(exe), "memfd:"));
            const Fd reading{::open(exe.c_str(), O_RDONLY | O_CLOEXEC)};
            REQUIRE(reading);
            constexpr int all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
            // The keeper does that beside the command.
            for (int waited = 0; ::fcntl(reading.get(), F_GET_SEALS) != all && waited < 500; ++waited) ::usleep(10'000);
            CHECK(::fcntl(reading.get(), F_GET_SEALS) == all);
            const int writing = ::open(exe.c_str(), O_WRONLY | O_CLOEXEC);
            const int error = errno;
            CHECK(writing == -1);
            CHECK((error == ETXTBSY || error == EPERM));
        }
    }
}

TEST_CASE("CVE-2019-5736: an installed stage stays as it is, also where root inside is root outside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory directory;
    const std::string stage = directory / "stage";
    std::filesystem::copy_file(CAISSON_TEST_STAGE, stage);
    struct stat before {};
    REQUIRE(::stat(stage.c_str(), &before) == 0);
    for (const bool user : {true, false}) {
        ContainerSpec spec = with_user(
            shell(root,
                  "for p in 1 self; do stat -L -c %s /proc/$p/exe; done; exec 2>&-; chmod 4777 /proc/1/exe && echo "
                  "mode; chown 1:1 /proc/1/exe && echo owner; ( : >> /proc/1/exe ) && echo opened; touch "
                  "/proc/1/exe && echo touched; rm /proc/1/exe && echo removed; ln -f /proc/1/exe /x && echo "
                  "linked; cp /bin/sh /proc/1/exe && echo copied; echo tried"),
            user);
        // The stage is pid 1.
        spec.init = true;
        spec.stage_path = stage;
        spec.capabilities = CapabilitySet::all();
        spec.seccomp.profile = SeccompProfile::none;
        const std::string text = attempt(spec);
        CAPTURE(text);
        CHECK(text.ends_with("tried\n"));
        for (const char* word : {"mode", "owner", "opened", "touched", "removed", "linked", "copied"}) {
            CHECK_FALSE(contains(text, word));
        }
        struct stat after {};
        REQUIRE(::stat(stage.c_str(), &after) == 0);
        CHECK(after.st_ino == before.st_ino);
        CHECK(after.st_mode == before.st_mode);
        CHECK(after.st_uid == before.st_uid);
        CHECK(after.st_size == before.st_size);
        CHECK(after.st_ctim.tv_sec == before.st_ctim.tv_sec);
        CHECK(after.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
        CHECK(after.st_nlink == 1);
        // Seen from the host: there it is, and there it runs.
        if (!user) CHECK(contains(text, std::to_string(before.st_size) + "\n"));
    }
}

TEST_CASE("CVE-2016-9962: who sees the host's processes from a container learns nothing of keepers and inits") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.copy(root / "/bin/busybox", "/bin/other");
    std::filesystem::create_directory(root / "/hostproc");
    // The attacker and those it looks at have the same ids outside.
    const std::vector<IdMap> map{{0, 3000000, 65536}};
    const auto mapped = [&](ContainerSpec spec) {
        spec.uid_map = spec.gid_map = map;
        return spec;
    };
    REQUIRE(::chown((root / "/tmp").c_str(), 3000000, 3000000) == 0);
    ContainerSpec attacker = mapped(
        shell(root,
              "echo ready; while ! [ -e /tmp/stop ]; do for p in /hostproc/[0-9]*; do "
              "e=$(readlink $p/exe) || continue; case $e in */busybox) own=1;; *) echo saw exe $p $e;; esac; done; "
              "for p in /hostproc/[0-9]*; do [ \"$(readlink $p/exe)\" = /bin/busybox ] && continue; "
              "readlink $p/cwd && echo saw cwd $p; ls $p/fd 2>&- | grep . && echo saw fd $p; "
              "cat $p/environ 2>&- | grep -q . && echo saw environ $p; done; done; echo own $own"));
    attacker.name = "attacker";
    attacker.capabilities = CapabilitySet::all();
    attacker.mounts.push_back(MountSpec::bind("/proc", "/hostproc", {.recursive = false}));
    Container looks = Container::start(attacker);
    std::string said;
    for (char c = 0; !contains(said, "ready") && ::read(looks.console()->fd(), &c, 1) == 1;) said += c;
    ContainerSpec victim = mapped(shell(root, ""));
    victim.command = {"/bin/other", "sleep", "0.02"};
    const int times = rounds(20, 500);
    for (int i = 0; i < times; ++i) (void)attempt(victim);
    root.write("/tmp/stop", "");
    said = output(looks);
    CHECK(said == "\nown 1\n");
    CHECK(looks.wait().success());
}

TEST_CASE("CVE-2019-14271: a user is looked up without any file of the C library, the root's or the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/home:/bin/sh\n");
    root.write("/etc/group", "root:x:0:\nalice:x:1001:\naudio:x:29:alice\n");
    root.write("/etc/nsswitch.conf", "passwd: hostile\ngroup: hostile\n");
    std::filesystem::create_directory(root / "/lib");
    const Canary libraries;
    const Canary etc;
    // In a mount namespace of its own, where the host's /etc and the root's /lib are canaries.
    const int result = in_child([&] {
        if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 90;
        if (::mount(libraries.path().c_str(), (root / "/lib").c_str(), nullptr, MS_BIND, nullptr) != 0) return 91;
        if (::mount(etc.path().c_str(), "/etc", nullptr, MS_BIND, nullptr) != 0) return 92;
        ContainerSpec spec = shell(root, "id -u; id -g; id -G");
        spec.user = "alice";
        const std::string text = attempt(spec);
        spec.command = {"/bin/sleep", "1000"};
        spec.console.reset();
        spec.user.clear();
        Container container = Container::start(spec);
        ExecSpec exec;
        exec.command = {"/bin/sh", "-c", "test \"$(id -u) $(id -g) $(id -G)\" = '1000 1001 1001 29'"};
        exec.user = "alice";
        const bool is_alice = container.exec(exec).wait().success();
        (void)container.kill();
        if (text == "1000\n1001\n1001 29\n" && is_alice) return 0;
        std::fprintf(stderr, "%s%d", text.c_str(), is_alice ? 1 : 0);
        return 1;
    });
    CHECK(result == 0);
    CHECK(libraries.touched() == "");
    CHECK(etc.touched() == "");
}

namespace {

/// Waits for whoever joins, and says what it can reach of them until they execute their command. All in one process: a
/// shell that forks would be too late.
constexpr const char* lie_in_wait = R"SH(
    # Only what it is before its command, which has its program a moment before its name, and may have ended by now.
    still() { name=; { read -r name < $p/comm; } 2> /dev/null
        [ "$name" = caisson:visit ] && ! [ $p/exe -ef /bin/busybox ] && echo "LEAK $1"; }
    echo ready
    while true; do
        for p in /proc/[0-9]*; do
            name=; { read -r name < $p/comm; } 2> /dev/null
            [ "$name" = caisson:visit ] || continue
            for fd in $p/fd/*; do [ -e "$fd" ] && still $fd; done
            { true <> $p/exe; } 2> /dev/null && still $p/exe
            # Twice: within execve(2), the command's memory is there a moment before its name.
            { true < $p/mem; } 2> /dev/null && { true < $p/mem; } 2> /dev/null && still $p/mem
            { read -r x < $p/environ; } 2> /dev/null && { read -r x < $p/environ; } 2> /dev/null && still $p/environ
            cd $p/root/ 2> /dev/null && still $p/root
            cd $p/cwd/ 2> /dev/null && still $p/cwd
        done
    done)SH";

std::string told_by(Container& container, ExecSpec spec) {
    int ends[2]{-1, -1};
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd from{ends[0]};
    Fd to{ends[1]};
    spec.stdio.out = spec.stdio.err = to.get();
    Exec exec = container.exec(spec);
    to.reset();
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(from.get(), buffer, sizeof buffer)) > 0;) {
        all.append(buffer, static_cast<std::size_t>(n));
    }
    return exec.wait().success() ? all : all + exec.wait().str();
}

}  // namespace

TEST_CASE("CVE-2016-8649, CVE-2016-9962: who lies in wait for a joining process reaches nothing of it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    for (const bool user : {true, false}) {
        CAPTURE(user);
        ContainerSpec spec = with_user(shell(root, lie_in_wait), user);
        spec.console.reset();
        int ends[2]{-1, -1};
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        const Fd from{ends[0]};
        Fd to{ends[1]};
        spec.stdio.out = to.get();
        Container container = Container::start(spec);
        to.reset();
        char ready[6]{};
        REQUIRE(::read(from.get(), ready, sizeof ready) == 6);
        const Foreign foreign{canary.path()};
        ExecSpec list;
        list.command = {"/bin/ls", "-1", "/proc/self/fd"};
        ExecSpec nothing_to_do;
        nothing_to_do.command = {"/bin/true"};
        CHECK(told_by(container, list) == "0\n1\n2\n3\n");  // the last is the directory's own
        for (int i = 0; i < 100; ++i) CHECK(container.exec(nothing_to_do).wait().success());
        (void)container.kill();
        std::string said(4096, '\0');
        said.resize(static_cast<std::size_t>(::read(from.get(), said.data(), said.size())));
        CHECK(said == "");
    }
}

TEST_CASE("CVE-2016-9962: root inside that seizes a joining process has the command's rights, and no more") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    // Root inside is root outside, and may trace.
    ContainerSpec spec = with_user(ContainerSpec::system(), false);
    spec.name = "test";
    spec.root = root.path();
    spec.command = {"/bin/sleep", "1000"};
    spec.console.reset();
    Container container = Container::start(spec);
    const std::string wanted = rights_of("/proc/" + std::to_string(container.init().pid()));
    REQUIRE(contains(wanted, "Seccomp:\t2\n"));
    int ends[2]{-1, -1};
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd from{ends[0]};
    Fd to{ends[1]};
    const pid_t attacker = ::fork();
    if (attacker == 0) {
        (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::setns(container.init().pidfd(), CLONE_NEWPID | CLONE_NEWNS) != 0) ::_exit(1);
        const pid_t inside = ::fork();
        if (inside == 0) {
            try {
                (void)!::write(to.get(), "ready\n", 6);
                seize_visitors(to.get(), wanted);
            } catch (const std::exception&) {
            }
            ::_exit(1);
        }
        // It ends with the container.
        (void)::waitpid(inside, nullptr, 0);
        ::_exit(0);
    }
    to.reset();
    char ready[6]{};
    REQUIRE(::read(from.get(), ready, sizeof ready) == 6);
    ExecSpec nothing_to_do;
    nothing_to_do.command = {"/bin/true"};
    for (int i = 0; i < 100; ++i) {
        try {
            CHECK(container.exec(nothing_to_do).wait().success());
        } catch (const Error& e) {
            CHECK(std::string{e.what()} == "");
        }
    }
    (void)container.kill();
    int status = 0;
    REQUIRE(::waitpid(attacker, &status, 0) == attacker);
    CHECK(WIFEXITED(status));
    std::string said(4096, '\0');
    said.resize(static_cast<std::size_t>(::read(from.get(), said.data(), said.size())));
    CHECK(said == "");
}

TEST_CASE("CVE-2019-5736: a command in a running container that is /proc/self/exe runs nothing of the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    REQUIRE(::symlink("/proc/self/exe", (root / "/bin/self").c_str()) == 0);
    for (const bool user : {true, false}) {
        Container container = Container::start(with_user(shell(root, "read line"), user));
        ExecSpec self;
        for (const char* path : {"/proc/self/exe", "/bin/self"}) {
            self.command = {path};
            CHECK(container.exec(self).wait() == ExitStatus::exited(1));
        }
        (void)container.kill();
    }
}

TEST_CASE("CVE-2015-1334: a /proc that the container has put another over is not what joining it goes by") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = ContainerSpec::system();
    spec.name = "test";
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c",
                    "mount -t tmpfs none /proc; mkdir -p /proc/self/attr /proc/thread-self/attr/apparmor /proc/1; "
                    "for i in self thread-self 1; do echo untouched > /proc/$i/oom_score_adj; done; "
                    "echo untouched > /proc/self/attr/exec; echo untouched > /proc/thread-self/attr/exec; "
                    "echo ready; exec sleep 1000"};
    Container container = Container::start(spec);
    REQUIRE(contains(said_until(container, "ready"), "ready"));
    ExecSpec exec;
    exec.command = {
        "/bin/sh", "-c",
        "cat /proc/*/oom_score_adj /proc/self/attr/exec; mkdir /tmp/proc; mount -t proc none /tmp/proc; cat "
        "/tmp/proc/self/oom_score_adj"};
    exec.oom_score_adj = 321;
    CHECK(told_by(container, exec) == "untouched\nuntouched\nuntouched\nuntouched\n321\n");
    (void)container.kill();
}
