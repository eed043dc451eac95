#include <caisson/process.hpp>

#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/doctest.hpp"

using namespace caisson;

namespace {
/// A child that sleeps until it is killed; the test reaps it.
pid_t sleeper() {
    const pid_t pid = ::fork();
    if (pid == 0) {
        for (;;) ::pause();
    }
    return pid;
}
}  // namespace

TEST_CASE("an exit status holds a code or a signal, never both") {
    CHECK(ExitStatus::exited(0).success());
    CHECK_FALSE(ExitStatus::exited(3).success());
    CHECK(ExitStatus::exited(3).code() == 3);
    CHECK_FALSE(ExitStatus::exited(3).signal());
    CHECK(ExitStatus::killed(9).signal() == 9);
    CHECK_FALSE(ExitStatus::killed(9).code());
    CHECK_FALSE(ExitStatus::killed(0).success());
}

TEST_CASE("an exit status says in words how the process ended") {
    CHECK(ExitStatus::exited(3).str() == "exited with status 3");
    CHECK(ExitStatus::killed(9).with_out_of_memory(true).str() == "killed by signal 9 (out of memory)");
    CHECK(ExitStatus::killed(11).with_core_dumped(true).str() == "killed by signal 11 (core dumped)");
    CHECK(ExitStatus::killed(1).with(ExitStatus::Request::restart).str() == "asked for a restart");
    CHECK(ExitStatus::killed(2).with(ExitStatus::Request::poweroff).str() == "powered off");
}

TEST_CASE("two exit statuses are equal when all of their parts are") {
    CHECK(ExitStatus::exited(1) == ExitStatus::exited(1));
    CHECK_FALSE(ExitStatus::exited(9) == ExitStatus::killed(9));
    CHECK_FALSE(ExitStatus::killed(9) == ExitStatus::killed(9).with_out_of_memory(true));
}

TEST_CASE("a process is opened by pid, with a close-on-exec descriptor") {
    const Process self = Process::self();
    CHECK(self.pid() == ::getpid());
    CHECK((::fcntl(self.pidfd(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_FALSE(self.ended());
    CHECK(self.signal(0));
}

TEST_CASE("opening a process that does not exist names its pid") {
    try {
        (void)Process::open(0x3fffffff);
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(e.step() == Step::signal);
        CHECK(std::string{e.what()} == "process 1073741823: No such process");
    }
}

TEST_CASE("a pidfd that came from elsewhere is a process with its pid") {
    const Process self = Process::self();
    const Process adopted = Process::adopt(Fd{::fcntl(self.pidfd(), F_DUPFD_CLOEXEC, 3)});
    CHECK(adopted.pid() == ::getpid());
    CHECK(adopted.pidfd() != self.pidfd());
    CHECK(adopted.signal(0));

    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    Process gone = Process::open(child);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    for (const int fd : {::fcntl(gone.pidfd(), F_DUPFD_CLOEXEC, 3), ::open("/dev/null", O_RDONLY | O_CLOEXEC)}) {
        try {
            (void)Process::adopt(Fd{fd});
            FAIL("adopted");
        } catch (const Error& e) {
            CHECK(e.step() == Step::signal);
            CHECK(std::string{e.what()} == "process of pidfd " + std::to_string(fd) + ": No such process");
        }
    }
}

TEST_CASE("a moved-from process holds nothing, and a move onto itself changes nothing") {
    Process a = Process::self();
    Process b{std::move(a)};
    CHECK_FALSE(a);
    CHECK(a.pid() == -1);
    Process& same = b;
    b = std::move(same);
    CHECK(b.pid() == ::getpid());
    Process c;
    c = std::move(b);
    CHECK(b.pid() == -1);
    CHECK(c.signal(0));
}

TEST_CASE("a process object that holds nothing has ended and cannot be signalled") {
    const Process none;
    CHECK(none.ended());
    CHECK(none.ended_within(-1));
    CHECK_THROWS_AS((void)none.signal(0), std::logic_error);
}

TEST_CASE("the end of a process is seen before and after it is reaped, and a signal then is no error") {
    const pid_t pid = sleeper();
    const Process child = Process::open(pid);
    CHECK_FALSE(child.ended());
    CHECK(child.signal(SIGKILL));
    CHECK(child.ended_within(-1));
    CHECK(::waitpid(pid, nullptr, 0) == pid);
    CHECK(child.ended());
    CHECK_FALSE(child.signal(SIGKILL));
}

TEST_CASE("a signal number that does not exist is refused with both numbers named") {
    try {
        (void)Process::self().signal(1000);
        FAIL("sent");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "signal 1000 to process " + std::to_string(::getpid()) + ": Invalid argument");
    }
}

TEST_CASE("waiting with a deadline ends although signals keep interrupting it") {
    struct sigaction act {};
    struct sigaction before {};
    act.sa_handler = [](int) {};
    REQUIRE(::sigaction(SIGALRM, &act, &before) == 0);
    itimerval tick{};
    tick.it_interval.tv_usec = 20'000;
    tick.it_value.tv_usec = 20'000;
    REQUIRE(::setitimer(ITIMER_REAL, &tick, nullptr) == 0);
    CHECK_FALSE(Process::self().ended_within(100));
    const itimerval off{};
    CHECK(::setitimer(ITIMER_REAL, &off, nullptr) == 0);
    CHECK(::sigaction(SIGALRM, &before, nullptr) == 0);
}
