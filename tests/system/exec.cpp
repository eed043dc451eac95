// Joining a container that runs.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/detail/visit.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/exec.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson_test;
using caisson::Container;
using caisson::Exec;
using caisson::ExecSpec;
using caisson::ExitStatus;
using caisson::NamespaceKind;
using caisson::Step;
using caisson::detail::Op;
using caisson::detail::Visit;

namespace {

constexpr std::int64_t seconds_10 = 10'000;

std::string read_from_start(int fd) {
    char buffer[4096];
    const ssize_t n = ::pread(fd, buffer, sizeof buffer, 0);
    return n < 0 ? "error" : std::string(buffer, static_cast<std::size_t>(n));
}

}  // namespace

TEST_CASE("a visit carries out instructions in a container that runs, and passes descriptors up") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const bool user : {true, false}) {
        CAPTURE(user);
        const TestRoot root;
        caisson::ContainerSpec spec = idle(root);
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        Container container = Container::start(spec);

        Visit visit{container.init(),
                    NamespaceKind::mount | NamespaceKind::user | caisson::NamespaceSet{NamespaceKind::net}};
        visit.enter();
        auto& plan = visit.plan();
        const auto made = plan.dynamic();
        plan.add(
            {.op = Op::new_filesystem, .slot = made, .a = plan.text("tmpfs"), .b = plan.pairs({{"source", "late"}})},
            Step::mount, "mount 'tmpfs' on '/tmp'");
        plan.add({.op = Op::place, .slot = made, .a = plan.text("/tmp")}, Step::mount, "mount 'tmpfs' on '/tmp'");
        const auto mounts = plan.dynamic();
        plan.add({.op = Op::open_file, .slot = mounts, .a = plan.text("/proc/1/mountinfo"), .x = O_RDONLY}, Step::exec,
                 "open the mounts");
        visit.pass_up(mounts, Step::exec, "pass up the mounts");
        const auto socket = plan.dynamic();
        plan.add({.op = Op::open_netlink, .slot = socket}, Step::network, "netlink socket");
        visit.pass_up(socket, Step::exec, "pass up the socket");
        const std::vector<caisson::Fd> passed = visit.run(seconds_10);

        REQUIRE(passed.size() == 2);
        CHECK(read_from_start(passed[0].get()).find(" /tmp rw,relatime - tmpfs late rw") != std::string::npos);
        int domain = 0;
        socklen_t size = sizeof domain;
        CHECK(::getsockopt(passed[1].get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0);
        CHECK(domain == AF_NETLINK);

        Visit back{container.init(), NamespaceKind::mount | NamespaceKind::user};
        back.enter();
        back.plan().add({.op = Op::unmount, .a = back.plan().text("/tmp")}, Step::mount, "unmount '/tmp'");
        back.run(seconds_10);
        CHECK(read_from_start(passed[0].get()).find("late") == std::string::npos);
        (void)container.kill();
    }
}

TEST_CASE("an instruction of a visit that is refused is named") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    Visit visit{container.init(), NamespaceKind::mount | NamespaceKind::user};
    visit.enter();
    visit.plan().add({.op = Op::working_directory, .a = visit.plan().text("/nowhere")}, Step::exec,
                     "working directory '/nowhere'");
    try {
        visit.run(seconds_10);
        FAIL("it was there");
    } catch (const caisson::Error& e) {
        CHECK(std::string{e.what()} == "working directory '/nowhere' (in the child): No such file or directory");
    }
    (void)container.kill();
}

TEST_CASE("a command in a running container ends with its exact status") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    for (const int code : {0, 1, 2, 77, 126, 127, 128, 137, 254, 255}) {
        CHECK(container.exec(sh("exit " + std::to_string(code))).wait() == ExitStatus::exited(code));
    }
    for (const int signal : {SIGHUP, SIGINT, SIGABRT, SIGKILL, SIGSEGV, SIGTERM, SIGRTMIN}) {
        const ExitStatus status = container.exec(sh("kill -" + std::to_string(signal) + " $$")).wait();
        CHECK(status.signal() == signal);
        CHECK(status.request() == ExitStatus::Request::none);
    }
    Exec exec = container.exec(sleep("1000"));
    CHECK(!exec.try_wait());
    CHECK(!exec.wait_for(std::chrono::milliseconds{1}));
    CHECK(exec.signal(SIGTERM));
    CHECK(exec.wait() == ExitStatus::killed(SIGTERM));
    CHECK(exec.wait() == ExitStatus::killed(SIGTERM));
    CHECK(!exec.signal(SIGTERM));
    Exec moved = container.exec(sleep("1000"));
    exec = std::move(moved);
    CHECK_THROWS_AS((void)moved.try_wait(), std::logic_error);
    CHECK(exec.kill() == ExitStatus::killed(SIGKILL));
    (void)container.kill();
}

TEST_CASE("a command is in the container's namespaces and control groups, as its own command is") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const bool user : {true, false}) {
        for (const bool init : {true, false}) {
            CAPTURE(user);
            CAPTURE(init);
            const TestRoot root;
            caisson::ContainerSpec spec = idle(root);
            spec.environment = {{"COLOR", "red"}, {"SIZE", "1"}};
            spec.init = init;
            if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
            Container container = Container::start(spec);
            const std::string same = std::string{"p="} + (init ? "2" : "1") + R"SH(
                for i in mnt pid uts ipc net user cgroup; do
                    test $(readlink /proc/$p/ns/$i) = $(readlink /proc/self/ns/$i) || echo $i
                done
                cmp /proc/$p/cgroup /proc/self/cgroup
                for i in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Uid Gid Groups Seccomp: Umask SigIgn SigBlk; do
                    test "$(grep ^$i /proc/$p/status)" = "$(grep ^$i /proc/self/status)" || grep ^$i /proc/self/status
                done
                ls /proc/self/fd | wc -l; echo $COLOR $SIZE $SHAPE $HOME $(pwd) $(cat /proc/self/oom_score_adj))SH";
            ExecSpec exec = sh(same);
            exec.environment = {{"SIZE", "2"}, {"SHAPE", "round"}};
            CHECK(output_of(container, exec) == "4\nred 2 round / / 0\n");
            (void)container.kill();
        }
    }
}

TEST_CASE("what an ExecSpec says replaces what the container's spec says") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    root.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nmail:x:8:12::/var:/bin/sh\n");
    root.write("/etc/group", "mail:x:12:\npost:x:13:mail\nother:x:14:\n");
    Container container = Container::start(idle(root));
    ExecSpec exec =
        sh("id -u; id -g; id -G; pwd; umask; echo $HOME$COLOR; grep CapEff /proc/self/status; "
           "cat /proc/self/oom_score_adj; ulimit -n; ls -l /proc/self/ns/net | wc -l; grep Seccomp: "
           "/proc/self/status; read line <&3; echo $line");
    const std::string file = root.write("/words", "from a descriptor\n");
    const caisson::Fd words{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
    exec.user = "mail";
    exec.working_directory = "/etc";
    exec.umask = 0;
    exec.inherit_environment = false;
    exec.capabilities = caisson::CapabilitySet{};
    exec.oom_score_adj = 300;
    exec.resource_limits = {{caisson::ResourceLimit::Kind::nofile, 77, 77}};
    exec.seccomp = caisson::SeccompSpec{};
    exec.seccomp->profile = caisson::SeccompProfile::none;
    exec.descriptors = {words.get()};
    CHECK(output_of(container, exec) ==
          "8\n12\n12 13\n/etc\n0000\n/var\nCapEff:\t0000000000000000\n300\n77\n1\nSeccomp:\t0\nfrom a "
          "descriptor\n");
    ExecSpec other = sh("id -u; id -g; id -G");
    other.user = "1000";
    other.group = "other";
    CHECK(output_of(container, other) == "1000\n14\n14\n");
    other.group = "50";
    other.groups = {60, 61};
    CHECK(output_of(container, other) == "1000\n50\n50 60 61\n");

    ExecSpec net = sh("readlink /proc/self/ns/net");
    net.namespaces = net.namespaces.without(NamespaceKind::net);
    CHECK(output_of(container, net) ==
          "net:[" + std::to_string(caisson::Namespace::current(NamespaceKind::net).id()) + "]\n");
    (void)container.kill();
}

TEST_CASE("a command gets a terminal of the container's own") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const bool user : {true, false}) {
        const TestRoot root;
        caisson::ContainerSpec spec = idle(root);
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        Container container = Container::start(spec);
        ExecSpec exec = sh("tty; stty size; stat -c %u $(tty); read line; echo got $line; stty size; exit 3");
        exec.console = caisson::WindowSize{40, 100};
        exec.user = "7";
        Exec running = container.exec(exec);
        REQUIRE(running.console() != nullptr);
        running.console()->resize({41, 101});
        REQUIRE(::write(running.console()->fd(), "a line\n", 7) == 7);
        const std::string text = read_all(running.console()->fd());
        CHECK(text.find("/dev/pts/") != std::string::npos);
        CHECK(text.find("\n7\n") != std::string::npos);
        CHECK(text.find("got a line\n41 101\n") != std::string::npos);
        CHECK(running.wait() == ExitStatus::exited(3));
        (void)container.kill();
    }
}

TEST_CASE("the program that sees to a command is one that nobody can change") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    Exec exec = container.exec(sleep("1000"));
    const std::string program = "/proc/" + std::to_string(status_number(exec.process().pid(), "PPid:")) + "/exe";
    const caisson::Fd stage{::open(program.c_str(), O_RDONLY | O_CLOEXEC)};
    REQUIRE(stage);
    CHECK(::fcntl(stage.get(), F_GET_SEALS) == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
    CHECK(exec.kill() == ExitStatus::killed(SIGKILL));
    (void)container.kill();
}

TEST_CASE("many commands at once, from many threads, each end with their own status") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    // One object is used by one thread at a time; what a start takes of it may be used by all.
    const caisson::detail::ExecTicket ticket = container.exec_ticket();
    std::atomic<int> right = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            std::vector<Exec> all;
            for (int i = 0; i < 4; ++i) {
                all.push_back(ticket.exec(sh("read x; exit " + std::to_string(t * 4 + i))));
            }
            for (int i = 0; i < 4; ++i)
                right += all[static_cast<std::size_t>(i)].wait() == ExitStatus::exited(t * 4 + i);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(right == 32);
    (void)container.kill();
}

TEST_CASE("the end of the container, of the caller and of the object each end the command") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    const auto count = [&] { return output_of(container, sh("pidof sleep | wc -w")); };
    {
        const Exec exec = container.exec(sleep("2000"));
        CHECK(count() == "2\n");
    }
    CHECK(count() == "1\n");

    const caisson::detail::ExecTicket ticket = container.exec_ticket();
    const pid_t host = ::fork();
    if (host == 0) {
        try {
            // The container is the parent's, and its object inert here.
            const Exec exec = ticket.exec(sleep("3000"));
            (void)::kill(::getpid(), SIGKILL);
        } catch (const std::exception& e) {
            (void)std::fprintf(stderr, "%s\n", e.what());
        }
        ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(host, &status, 0) == host);
    CHECK(WIFSIGNALED(status));
    std::string left;
    for (int i = 0; i < 20 && left != "1\n"; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds{i == 0 ? 0 : 50});
        left = count();
    }
    CHECK(left == "1\n");

    Exec last = container.exec(sleep("4000"));
    (void)container.kill();
    CHECK(last.wait() == ExitStatus::killed(SIGKILL));
    CHECK(error_of_exec(container, sh("true")) == "container 'test': start a command: No such process: it has ended");
}

TEST_CASE("nobody joins a container whose end has begun, and is told that it has ended") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    const Exec exec = container.exec(sleep("1000"));
    // The one who can reap a process of the container does not, so that the end lasts.
    const caisson::Process keeper = caisson::Process::open(status_number(exec.process().pid(), "PPid:"));
    CHECK(keeper.signal(SIGSTOP));
    CHECK(container.init().signal(SIGKILL));
    CHECK(exec.process().ended_within(10'000));
    CHECK(!container.init().ended());
    const std::string ended = "No such process: it has ended";
    const auto refusal = [&](auto&& work) -> std::string {
        try {
            work();
        } catch (const caisson::Error& e) {
            return e.what();
        }
        return "it was done";
    };
    const std::string of_exec = refusal([&] { (void)container.exec(sh("true")); });
    const std::string of_copy = refusal([&] { container.copy_in("/etc/passwd", "/tmp"); });
    const std::string of_attach = refusal([&] { container.attach(caisson::MountSpec::tmpfs("/tmp", 1 << 20)); });
    CHECK(keeper.signal(SIGCONT));
    CHECK(of_exec.ends_with(ended));
    CHECK(of_copy.ends_with(ended));
    CHECK(of_attach == "attach to container 'test': " + ended);
    CHECK(container.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a command runs in a container of a helper and of a controller, by whoever asks") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    caisson::ContainerSpec spec = place.spec("helped");
    spec.environment = {{"COLOR", "blue"}};
    caisson::Helper helper = caisson::Helper::start(spec, place.options);
    const std::string own = "cmp /proc/1/cgroup /proc/self/cgroup && test $COLOR = blue && exit 6";
    CHECK(helper.exec(sh(own)).wait() == ExitStatus::exited(6));
    helper.suspend();
    CHECK_THROWS_WITH((void)helper.exec(sh(own)),
                      "container 'helped': start a command: Device or resource busy: it is suspended: resume it first");
    helper.resume();

    caisson::Controller controller;
    const caisson::ContainerId helped = controller.reattach("helped", place.run);
    CHECK(controller.exec(helped, sh(own)).wait() == ExitStatus::exited(6));
    spec.name = "controlled";
    const caisson::ContainerId controlled = controller.start(spec);
    Exec exec = controller.exec(controlled, sh(own));
    CHECK(exec.wait() == ExitStatus::exited(6));
    Exec last = helper.exec(sleep("5000"));
    (void)helper.kill();
    CHECK(last.wait() == ExitStatus::killed(SIGKILL));
    CHECK_THROWS_AS((void)helper.exec(sh(own)), caisson::Error);
}

TEST_CASE("files, links and directories are copied into a running container and out of it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory host;
    const TestDirectory shared;
    caisson::ContainerSpec spec = idle(root);
    spec.mounts = {caisson::MountSpec::bind(shared.path(), "/shared"), caisson::MountSpec::tmpfs("/small", 1 << 20)};
    Container container = Container::start(spec);
    // 5 MiB: more than one call carries.
    const std::string make =
        "mkdir -p tree/empty tree/below && cd tree && yes 0123456789 | head -c 5242880 > big && echo small > "
        "below/small && ln -s /etc/passwd link && chmod 4751 big && chmod 750 below";
    REQUIRE(std::system(("cd " + host.path() + " && " + make).c_str()) == 0);
    container.copy_in(host / "tree", "/tmp");
    const std::string list =
        "cd /tmp/tree && stat -c '%n %a %u %s' big below empty below/small && readlink link && "
        "md5sum big && cat below/small";
    const std::string there = output_of(container, sh(list));
    CHECK(there.starts_with("big 751 0 5242880\nbelow 750 0 "));
    CHECK(there.find("below/small 644 0 6\n/etc/passwd\n") != std::string::npos);
    CHECK(there.ends_with("  big\nsmall\n"));

    container.copy_out("/tmp/tree", host / "back");
    CHECK(std::system(("diff -r " + (host / "tree") + "/below " + (host / "back") + "/below && cmp " +
                       (host / "tree/big") + " " + (host / "back/big") + " && test $(stat -c %a " +
                       (host / "back/big") + ") = 751 && test -L " + (host / "back/link"))
                          .c_str()) == 0);
    // Onto what is there: replaced, not written through.
    container.copy_in(host / "tree/below/small", "/tmp/tree/link");
    CHECK(output_of(container, sh("cat /tmp/tree/link; test -L /tmp/tree/link || echo file")) == "small\nfile\n");
    container.copy_in(host / "tree", "/tmp");

    const auto refusal = [&](auto&& work) -> std::string {
        try {
            work();
        } catch (const caisson::Error& e) {
            CHECK(e.step() == Step::copy);
            return e.what();
        }
        return "it was done";
    };
    CHECK(refusal([&] { container.copy_in(host / "none", "/tmp"); }) ==
          "container 'test': copy '" + (host / "none") + "' of the host: No such file or directory");
    CHECK(refusal([&] { container.copy_out("/dev/null", host.path()); }) ==
          "container 'test': copy '/dev/null' of the container: Invalid argument: it is neither a file, a directory "
          "nor a link");
    CHECK(refusal([&] { container.copy_in(host / "tree/below/small", "/none/file"); }) ==
          "container 'test': copy '/none/' of the container: No such file or directory");
    CHECK(refusal([&] { container.copy_in(host / "tree/below/small", "tmp"); }) ==
          "container 'test': copy: 'tmp' is not absolute: give the full path inside the container");
    CHECK(refusal([&] { container.copy_out("/", host.path()); }) ==
          "container 'test': copy '/' of the container: it has no name: name what is below it");
    // What cannot be replaced stays.
    CHECK(output_of(container, sh("echo kept > /small/big; ls -A /small")) == "big\n");
    CHECK(refusal([&] { container.copy_in(host / "tree/big", "/small"); }) ==
          "container 'test': copy '" + (host / "tree/big") + "' of the host as 'big': No space left on device");
    CHECK(output_of(container, sh("cd /small; ls -A; cat big")) == "big\nkept\n");
    // Before there is no room for it.
    CHECK(output_of(container, sh("cd /small; mkdir -p dir/big")) == "");
    CHECK(refusal([&] { container.copy_in(host / "tree/big", "/small/dir"); }) ==
          "container 'test': copy '" + (host / "tree/big") + "' of the host as 'big': Is a directory");
    // Onto itself.
    REQUIRE(std::system(("echo kept > " + (shared / "file")).c_str()) == 0);
    CHECK(refusal([&] { container.copy_in(shared / "file", "/shared"); }) ==
          "container 'test': copy '" + (shared / "file") +
              "' of the host as 'file': File exists: both are the same file");
    CHECK(refusal([&] { container.copy_out("/shared", shared.path()); }) ==
          "container 'test': copy '/shared' of the container: Invalid argument: it is, or holds, the directory that it "
          "is copied into");
    CHECK(output_of(container, sh("cd /shared; ls; cat file")) == "file\nkept\n");
    (void)container.kill();
}

TEST_CASE("a file that a container has not given whole is not there") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    const TestDirectory host;
    Container container = Container::start(idle(root));
    REQUIRE(container.exec(sh("truncate -s 1G /tmp/big")).wait().success());
    // No more than this is written, however long the end takes.
    struct rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const struct rlimit most { 256 << 20, before.rlim_max };
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &most) == 0);
    const caisson::Process init = container.init().duplicate();
    std::thread end{[&] {
        for (int i = 0; std::filesystem::is_empty(host.path()) && i < 10'000; ++i) ::usleep(1000);
        (void)init.signal(SIGKILL);
    }};
    CHECK_THROWS_AS(container.copy_out("/tmp/big", host.path()), caisson::Error);
    end.join();
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(std::filesystem::is_empty(host.path()));
    (void)container.kill();
}
