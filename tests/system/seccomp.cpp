// Filters as the kernel has them: what it answers inside, and where they come in a start.
#include <caisson/container.hpp>

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/syscall_table.hpp"
#include "support/system_call.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

using Action = SeccompRule::Action;
using Operator = SeccompArgument::Operator;

std::string status_line(const ContainerSpec& base, const char* name) {
    ContainerSpec spec = base;
    spec.command = {"/bin/sh", "-c", std::string{"grep ^"} + name + ": /proc/self/status"};
    std::string line = run(spec);
    return line.substr(line.find('\t') + 1);
}

}  // namespace

TEST_CASE("the kernel answers every system call as the table says, in both profiles") {
#if defined(__x86_64__)
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    const auto table = syscall_table(CAISSON_TEST_TABLE);
    for (const SeccompProfile profile : {SeccompProfile::application, SeccompProfile::system}) {
        ContainerSpec spec = caller(root, profile);
        const auto filtered = calls(spec);
        spec.seccomp.profile = SeccompProfile::none;
        const auto free = calls(spec);
        REQUIRE(filtered.size() == rows_of_table);
        REQUIRE(free.size() == rows_of_table);
        int answered = 0;
        for (const TableRow& row : table) {
            CAPTURE(row.number);
            CAPTURE(row.name);
            const std::string& expected = profile == SeccompProfile::system ? row.system : row.application;
            if (expected == "EPERM") CHECK(filtered.at(row.number) == std::to_string(EPERM));
            if (expected == "ENOSYS") CHECK(filtered.at(row.number) == std::to_string(ENOSYS));
            // What takes long is made, too: sync(2), where others write.
            if (expected == "allow" && filtered.at(row.number) != "signal 14" && free.at(row.number) != "signal 14") {
                CHECK(filtered.at(row.number) == free.at(row.number));
            }
            answered += filtered.at(row.number) != free.at(row.number) ? 1 : 0;
        }
        // The filter is what answers, not the kernel for other reasons.
        CHECK(answered > (profile == SeccompProfile::system ? 10 : 30));
    }
#else
    CAISSON_SKIP("the table is of x86-64");
#endif
}

TEST_CASE("a container has one filter, with privileges that may be gained and without") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool no_new_privileges : {true, false}) {
        for (const std::uint32_t uid : {0u, 1000u}) {
            ContainerSpec spec = shell(root, "");
            spec.no_new_privileges = no_new_privileges;
            spec.uid = spec.gid = uid;
            CHECK(status_line(spec, "Seccomp") == "2\n");
            CHECK(status_line(spec, "Seccomp_filters") == "1\n");
            CHECK(status_line(spec, "NoNewPrivs") == (no_new_privileges ? "1\n" : "0\n"));
            spec.seccomp.profile = SeccompProfile::none;
            CHECK(status_line(spec, "Seccomp") == "0\n");
        }
    }
}

TEST_CASE("the C library makes threads, though its newest way to do so is not there") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.copy(program("make_thread"), "/bin/make_thread");
    ContainerSpec spec = shell(root, "");
    spec.command = {"/bin/make_thread"};
    CHECK(Container::start(spec).wait() == ExitStatus::exited(0));
    // A program that is told otherwise does not look further.
    spec.seccomp.rules = {{"clone3", Action::refuse, EPERM}};
    CHECK_FALSE(Container::start(spec).wait() == ExitStatus::exited(0));
}

TEST_CASE("a first process of the library's own starts a filtered command") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    ContainerSpec spec = caller(root, SeccompProfile::application);
    spec.init = true;
    CHECK(call(spec, "native 272 0") == refused);  // unshare
    CHECK(status_line(spec, "Seccomp") == "2\n");
}

#if defined(__x86_64__)
TEST_CASE("a program of 32 bits runs where the spec says so, by the same rules, and else is killed at its first call") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    ContainerSpec spec = caller(root, SeccompProfile::none);
    if (!runs_i386(spec)) CAISSON_SKIP("this kernel runs no 32-bit programs");
    for (const SeccompProfile profile : {SeccompProfile::application, SeccompProfile::system}) {
        spec = caller(root, profile);
        CHECK(call(spec, "i386 20") == "signal 31");  // getpid
        CHECK(call(spec, "x32 39") == "signal 31");
        spec.personality = Personality::linux32;
        CHECK(call(spec, "i386 20") == "ok");
        CHECK(call(spec, "i386 54 0 0x5412 @") == refused);  // ioctl
        CHECK(call(spec, "i386 359 38 5 0") == refused);     // socket
        CHECK(call(spec, "i386 359 1 1 0") == "ok");
        CHECK(call(spec, "i386 425 1 0") == refused);  // io_uring_setup
        CHECK(call(spec, "x32 39") == "signal 31");
        CHECK(call(spec, "native 39") == "ok");
        spec.personality = Personality::native;
        spec.seccomp.compat = true;
        CHECK(call(spec, "i386 20") == "ok");
    }
}

TEST_CASE("rules refuse, allow and kill, by arguments and whatever the profile says") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    ContainerSpec spec = caller(root, SeccompProfile::application);
    spec.seccomp.rules = {{"getppid", Action::refuse, ENOTTY},
                          {"unshare", Action::allow, 0, {{0, Operator::equal, 0x10000000}}},
                          {"getpgid", Action::kill, 0, {{0, Operator::greater, 1}}},
                          {"setuid"}};
    CHECK(call(spec, "native 110") == std::to_string(ENOTTY));
    CHECK(call(spec, "native 272 0x10000000") == "ok");
    CHECK(call(spec, "native 272 0x20000000") == refused);
    CHECK(call(spec, "native 121 1") == "ok");
    CHECK(call(spec, "native 121 2") == "signal 31");
    // The start has set its ids before.
    CHECK(call(spec, "native 105 0") == refused);
}
#endif

TEST_CASE("a rule that refuses the command's own execve is the reason of a start that fails") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.seccomp.rules = {{"execve", Action::refuse, EACCES, {{0, Operator::not_equal, 0}}}};
    CHECK(
        error_of(spec) ==
        "container 'test': command '/bin/sh' (in the child): Permission denied: a rule of seccomp.rules refuses execve "
        "with these arguments, and the start needs it");
}

TEST_CASE("where privileges may be gained, a rule that hits the start's own calls is named as the reason") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.no_new_privileges = false;
    spec.seccomp.rules = {{"setresuid", Action::refuse, EPERM, {{0, Operator::equal, 0}}}};
    CHECK(
        error_of(spec) ==
        "container 'test': user 0 and group 0 (in the child): Operation not permitted: a rule of seccomp.rules refuses "
        "what the start needs: change it, or set no_new_privileges, with which the filter comes later");
    spec.seccomp.rules.front().action = Action::kill;
    CHECK(error_of(spec) ==
          "container 'test': init died (killed by signal 31) during step credentials: user 0 and group 0: a rule of "
          "seccomp.rules "
          "kills for what the start itself calls");
    spec.no_new_privileges = true;
    CHECK(Container::start(spec).wait() == ExitStatus::exited(0));
}

TEST_CASE("an audit lets calls through and has the kernel's log name them") {
#if defined(__x86_64__)
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const SystemCallRoot root;
    ContainerSpec spec = caller(root, SeccompProfile::application);
    spec.seccomp.audit = true;
    const Fd log{::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    if (!log) CAISSON_SKIP("/dev/kmsg cannot be read");
    (void)::lseek(log.get(), 0, SEEK_END);
    std::string logged;
    char record[8192];
    // A thread of the kernel's own writes it down, ten records in five seconds at most: what tests before have told
    // may have used them up.
    for (int attempt = 0; attempt < 8 && logged.find("syscall=272 ") == std::string::npos; ++attempt) {
        CHECK(call(spec, "native 39") == "ok");
        CHECK(call(spec, "native 272 0x10000000") == "ok");
        pollfd more{log.get(), POLLIN, 0};
        while (logged.find("syscall=272 ") == std::string::npos && ::poll(&more, 1, 1000) > 0) {
            const ssize_t n = ::read(log.get(), record, sizeof record);
            if (n > 0) logged.append(record, static_cast<std::size_t>(n));
            if (n < 0 && errno != EPIPE) break;
        }
    }
    if (logged.find("type=1326") == std::string::npos) {
        CAISSON_SKIP("this kernel tells its log nothing of filters: auditd runs, or it has no audit");
    }
    CHECK(logged.find("syscall=272 ") != std::string::npos);
    CHECK(logged.find("comm=\"system_call\"") != std::string::npos);
    CHECK(logged.find("syscall=39 ") == std::string::npos);
#else
    CAISSON_SKIP("the numbers of the calls are those of x86-64");
#endif
}
