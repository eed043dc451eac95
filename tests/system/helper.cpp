// Containers that outlive who started them, and everything that can happen to their helpers.
#include <caisson/helper.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/sweep.hpp>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/promises.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

bool alive(pid_t pid) {
    return ::kill(pid, 0) == 0;
}

}  // namespace

TEST_CASE("a container lives on when its starter has gone, is found by name from another process, and stopped there") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.note = std::string(1 << 20, 'n');
    REQUIRE(in_child([&] {
                (void)Helper::start(place.spec("web", "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"),
                                    options);
                return 0;
            }) == 0);
    CHECK(Helper::list(place.run) == std::vector<std::string>{"web"});
    CHECK_FALSE(Helper::find("other", place.run));
    CHECK_FALSE(Helper::find("../web", place.run));
    auto helper = Helper::find("web", place.run);
    REQUIRE(helper);
    const HelperInfo info = helper->info();
    CHECK(info.name == "web");
    CHECK(info.note == options.note);
    const std::string other(1 << 20, 'o');
    helper->set_note(other);
    CHECK(Helper::find("web", place.run)->info().note == other);
    CHECK_THROWS_WITH_AS(helper->set_note(other + "o"),
                         "note of 1048577 bytes: Argument list too long: at most 1048576 bytes are kept", Error);
    CHECK(helper->info().note == other);
    CHECK(alive(info.init));
    CHECK(helper->pid() != info.init);
    CHECK(alive(helper->pid()));
    CHECK(::getsid(helper->pid()) == helper->pid());
    const Usage usage = helper->usage();
    CHECK(usage.cpu.value_or(0) > 0);
    // Whatever it takes to count by CPU, the helper has taken it before it gave up what it was allowed.
    CHECK(usage.cpu_each.empty() == !usage.cpu_each_missing.empty());
    CHECK(usage.cpu_each_missing.find("CAP_PERFMON") == std::string::npos);
    CHECK_FALSE(helper->usage(UsagePart::memory).cpu);
    CHECK_FALSE(helper->try_wait());

    const Fd console = detail::sys::open(info.console_path, O_RDWR | O_NOCTTY);
    REQUIRE(console);
    char text[16];
    CHECK(::read(console.get(), text, sizeof text) > 0);

    CHECK(helper->stop(60s) == ExitStatus::exited(6));
    CHECK(helper->wait() == ExitStatus::exited(6));
    CHECK_FALSE(helper->signal(SIGTERM));
    CHECK_THROWS_WITH_AS((void)helper->info(), "container 'web': No such process: it has ended", Error);
    CHECK_FALSE(alive(info.init));
    CHECK(place.empty());
}

TEST_CASE("everybody who waits gets the exit status, and the name is free at that moment") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    for (int round = 0; round < 5; ++round) {
        Helper first =
            Helper::start(place.spec("web", "trap 'exit 3' HUP; while :; do sleep 0.05; done"), place.options);
        auto second = Helper::find("web", place.run);
        REQUIRE(second);
        std::thread waiter{[&] { CHECK(second->wait() == ExitStatus::exited(3)); }};
        // The shell may not have set its trap yet; without it the signal is none to an init.
        pollfd p{first.fd(), POLLIN, 0};
        while (::poll(&p, 1, 20) == 0) (void)first.signal(SIGHUP);
        waiter.join();
        CHECK(first.try_wait() == ExitStatus::exited(3));
    }
    CHECK(place.empty());
}

TEST_CASE("a failed start is the very error of the container's start, and leaves nothing") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("bad");
    spec.command = {"/bin/none"};
    std::string inside;
    try {
        (void)Container::start(spec);
    } catch (const Error& e) {
        inside = e.what();
    }
    CHECK(inside.find("command '/bin/none'") != std::string::npos);
    CHECK(error_of(spec, place.options) == inside);
    try {
        (void)Helper::start(spec, place.options);
    } catch (const Error& e) {
        CHECK(e.step() == Step::exec);
        CHECK(e.code().value() == ENOENT);
    }
    spec.command.clear();
    CHECK(error_of(spec, place.options).find("container 'bad': ") == 0);
    CHECK(place.empty());
}

TEST_CASE("a name that is taken is refused, and the first container does not notice") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(error_of(place.spec("web"), place.options) ==
          "container 'web': lock '" + place.run + "/web': File exists: a container 'web' runs already");
    CHECK(helper.info().name == "web");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("of many simultaneous starts of one name exactly one succeeds") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    for (int round = 0; round < 5; ++round) {
        std::vector<std::thread> threads;
        std::vector<int> results(6, -1);
        for (int& result : results) {
            threads.emplace_back([&] {
                try {
                    (void)Helper::start(place.spec("web"), place.options);
                    result = 0;
                } catch (const Error& e) {
                    result = e.code().value();
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        CHECK(std::count(results.begin(), results.end(), 0) == 1);
        CHECK(std::count(results.begin(), results.end(), EEXIST) == 5);
        auto helper = Helper::find("web", place.run);
        REQUIRE(helper);
        CHECK(helper->kill() == ExitStatus::killed(SIGKILL));
    }
    CHECK(place.empty());
}

TEST_CASE("when the helper is killed its container dies within a second, and the name can be used again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const Process init = Process::open(helper.info().init);
    REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
    CHECK(init.ended_within(dead_within));
    CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    CHECK(::access((place.run + "/web/owner").c_str(), F_OK) == 0);
    CHECK_FALSE(Helper::find("web", place.run));
    CHECK(Helper::list(place.run).empty());

    Helper next = Helper::start(place.spec("web"), place.options);
    CHECK(next.info().init != init.pid());
    REQUIRE(::kill(next.pid(), SIGKILL) == 0);
    CHECK(next.wait() == ExitStatus::killed(SIGKILL));
    (void)sweep_only(place.run);
    CHECK(place.empty());
}

TEST_CASE("the helper is nobody's burden: no terminal, no descriptors of the caller, few capabilities") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    int leak[2];
    REQUIRE(::pipe(leak) == 0);  // on purpose without O_CLOEXEC
    const std::vector<char> memory(std::size_t{128} << 20, 'm');
    Helper helper = Helper::start(place.spec("web"), place.options);
    (void)::close(leak[1]);
    pollfd p{leak[0], POLLIN, 0};
    CHECK(::poll(&p, 1, 0) == 1);  // a hang-up: nobody else has the other end
    (void)::close(leak[0]);

    const std::string proc = "/proc/" + std::to_string(helper.pid());
    std::string status;
    REQUIRE(detail::sys::read_file(AT_FDCWD, (proc + "/status").c_str(), status));
    // Nothing of the caller's memory is in it.
    const std::size_t resident = status.find("VmRSS:");
    REQUIRE(resident != std::string::npos);
    CHECK(std::stoul(status.substr(resident + 6)) * 1024 < memory.size());
    CHECK(status.find("CapEff:\t0000000000000022\n") != std::string::npos);
    CHECK(status.find("CapBnd:\t0000000000000022\n") != std::string::npos);
    CHECK(status.find("NoNewPrivs:\t1\n") != std::string::npos);
    CHECK(status.find("Seccomp:\t2\n") != std::string::npos);
    CHECK(status.find("SigBlk:\t0000000000000000\n") != std::string::npos);
    CHECK(status.find("SigIgn:\t0000000000000000\n") != std::string::npos);
    CHECK(status.find("Name:\tcaisson-helper\n") != std::string::npos);
    char link[64]{};
    CHECK(::readlink((proc + "/cwd").c_str(), link, sizeof link - 1) == 1);
    CHECK(::readlink((proc + "/fd/1").c_str(), link, sizeof link - 1) > 0);
    CHECK(std::string{link} == "/dev/null");
    struct stat st {};
    CHECK(::stat((place.run + "/web").c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0700);
    CHECK(::stat((place.run + "/web/sock").c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("a client that a helper has no room for is told that, and not that the container has ended") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    struct Limit {
        rlimit before{};
        ~Limit() { (void)::setrlimit(RLIMIT_NOFILE, &before); }
    } const limit = [] {
        Limit now;
        (void)::getrlimit(RLIMIT_NOFILE, &now.before);
        return now;
    }();
    // Each client has two descriptors.
    if (limit.before.rlim_max < 2048) CAISSON_SKIP("this needs 2048 descriptors");
    rlimit more = limit.before;
    more.rlim_cur = more.rlim_cur > 2048 ? more.rlim_cur : 2048;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &more) == 0);
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    std::vector<Helper> clients;
    while (clients.size() < 515) {
        auto found = Helper::find("web", place.run);
        REQUIRE(found);
        clients.push_back(std::move(*found));
    }
    for (std::size_t i = 0; i < 511; ++i) {
        CAPTURE(i);
        REQUIRE(clients[i].info().name == "web");
    }
    for (std::size_t i = 511; i < clients.size(); ++i) {
        CAPTURE(i);
        REQUIRE(detail::wait_readable(clients[i].fd(), 60000));
        try {
            (void)clients[i].try_wait();
            FAIL("not told");
        } catch (const Error& e) {
            CHECK(std::string{e.what()} ==
                  "container 'web': helper: Resource temporarily unavailable: it has too many clients");
        }
    }
    try {
        (void)clients.back().info();
        FAIL("answered");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} ==
              "helper of container 'web': Connection reset by peer: it has let this client go: find it again");
    }
    clients.clear();
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("an answer that comes too late is not taken for the next question's") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    REQUIRE(::kill(helper.pid(), SIGSTOP) == 0);
    try {
        (void)helper.info();
        FAIL("answered");
    } catch (const Error& e) {
        CHECK(e.code().value() == ETIMEDOUT);
    }
    REQUIRE(::kill(helper.pid(), SIGCONT) == 0);
    CHECK(helper.usage().pids.value_or(1) > 0);
    CHECK(helper.info().name == "web");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("a helper that the caller's pid namespace does not show is named as the reason") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(in_child([&] {
              if (::unshare(CLONE_NEWPID) != 0) return 1;
              return in_child([&] {
                  try {
                      (void)Helper::find("web", place.run);
                      return 2;
                  } catch (const Error& e) {
                      return std::string{e.what()} ==
                                     "helper of container 'web': No such process: it is in a pid "
                                     "namespace that this process does not see into"
                                 ? 0
                                 : 3;
                  }
              });
          }) == 0);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("clients that send rubbish, hang, or read nothing harm nobody") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const std::string socket = place.run + "/web/sock";
    std::vector<Fd> silent;
    for (int i = 0; i < 20; ++i) silent.push_back(connect_to(socket));
    std::string rubbish(100000, 'r');
    for (const std::size_t size : {std::size_t{1}, std::size_t{4}, std::size_t{40}, rubbish.size()}) {
        const Fd client = connect_to(socket);
        REQUIRE(::send(client.get(), rubbish.data(), size, 0) == static_cast<ssize_t>(size));
        REQUIRE(detail::wait_readable(client.get(), 60000));
        detail::Message answer;
        REQUIRE(detail::take_message(client.get(), answer, nullptr) == detail::Taken::message);
        CHECK(answer.kind == detail::Message::Kind::refused);
        CHECK(std::string{detail::decode<detail::PlainError>(answer.body).error().what()} ==
              "message of caisson: its version is another: Bad message: use library and helper of the same build");
        CHECK(detail::wait_readable(client.get(), 60000));
        CHECK(detail::take_message(client.get(), answer, nullptr) == detail::Taken::closed);
    }
    // What looks right but is no question, and notes that are none: nothing, or what could be read for ever.
    const Fd zero = detail::sys::open("/dev/zero", O_RDONLY);
    const Fd too_long = detail::to_memory_file(std::string((1 << 20) + 1, 'n'));
    const std::pair<detail::Message::Kind, int> questions[] = {{detail::Message::Kind::exited, -1},
                                                               {detail::Message::Kind::note, -1},
                                                               {detail::Message::Kind::note, zero.get()},
                                                               {detail::Message::Kind::note, too_long.get()}};
    for (const auto& question : questions) {
        const Fd client = connect_to(socket);
        CHECK(detail::send_message(client.get(), {.kind = question.first}, question.second));
        detail::Message answer;
        REQUIRE(detail::wait_readable(client.get(), 60000));
        CHECK(detail::take_message(client.get(), answer, nullptr) == detail::Taken::message);
        CHECK(answer.kind == detail::Message::Kind::refused);
    }
    CHECK(helper.info().note.empty());
    // Asks for ever and never reads an answer: it is let go, at the latest when its socket is full.
    const Fd greedy = connect_to(socket);
    pollfd p{greedy.get(), POLLOUT, 0};
    for (int i = 0; i < 100000; ++i) {
        if (!detail::send_message(greedy.get(), {.kind = detail::Message::Kind::info}, -1, MSG_DONTWAIT)) {
            if (errno != EAGAIN) break;
            REQUIRE(::poll(&p, 1, 60000) == 1);
        }
    }
    CHECK((errno == EPIPE || errno == ECONNRESET));
    CHECK(helper.info().name == "web");
    CHECK(Helper::find("web", place.run)->kill() == ExitStatus::killed(SIGKILL));
    CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("the console comes by descriptor too, and takes a size") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(
        place.spec("web", "stty -echo; trap 'stty size; exit 0' WINCH; echo go; while :; do sleep 0.05; done"),
        place.options);
    const Fd console = helper.open_console();
    std::string all;
    char buffer[256];
    const auto read_until = [&](const char* text) {
        while (all.find(text) == std::string::npos) {
            const ssize_t n = ::read(console.get(), buffer, sizeof buffer);
            if (n <= 0) break;
            all.append(buffer, static_cast<std::size_t>(n));
        }
        return all.find(text) != std::string::npos;
    };
    CHECK(read_until("go"));
    helper.resize({33, 99});
    CHECK(helper.wait() == ExitStatus::exited(0));
    // Written before the end, read after it.
    CHECK(read_until("33 99"));
    CHECK(place.empty());
}

TEST_CASE("a console that is opened with the start has all that was written, also after the container's end") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.open_console = true;
    for (int i = 0; i < 10; ++i) {
        Helper helper = Helper::start(place.spec("web", "echo last words"), options);
        CHECK(helper.wait().success());
        const Fd console = helper.open_console();
        std::string text;
        char buffer[256];
        for (ssize_t n = 0; (n = ::read(console.get(), buffer, sizeof buffer)) > 0;) {
            text.append(buffer, static_cast<std::size_t>(n));
        }
        CHECK(text == "last words\r\n");
    }
    ContainerSpec plain = place.spec("plain");
    plain.console.reset();
    Helper helper = Helper::start(plain, options);
    CHECK_THROWS_AS((void)helper.open_console(), Error);
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("without a console the standard descriptors are the caller's, and so are those that are passed") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    ContainerSpec spec = place.spec("web", "echo out; echo err >&2; read x || echo eof; echo three >&3");
    spec.console.reset();
    spec.stdio = {-1, ends[1], ends[1]};
    spec.descriptors = {ends[1]};
    Helper helper = Helper::start(spec, place.options);
    (void)::close(ends[1]);
    std::string all;
    char buffer[256];
    for (ssize_t n = 0; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;)
        all.append(buffer, static_cast<std::size_t>(n));
    (void)::close(ends[0]);
    CHECK(all == "out\nerr\neof\nthree\n");
    CHECK(helper.wait() == ExitStatus::exited(0));
    CHECK(place.empty());
    spec.stdio = {};
    // Nor does a number that is free come to mean what the start itself opens.
    const int free = Fd{::open("/dev/null", O_RDONLY | O_CLOEXEC)}.get();
    for (int number = free; number < free + 8; ++number) {
        if (::fcntl(number, F_GETFD) >= 0) continue;
        spec.descriptors = {number};
        CHECK_THROWS_AS((void)Helper::start(spec, place.options), Error);
    }
    spec.descriptors = {9999};
    CHECK(error_of(spec, place.options) ==
          "container 'web': descriptors[0], descriptor 9999: Bad file descriptor: it is not open");
}

TEST_CASE("a helper program that is missing is told with the remedy") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.helper_path = "/dev/null";
    CHECK(error_of(place.spec("web"), options) ==
          "container 'web': start the helper program '/dev/null': execveat: Permission denied: it must be an installed "
          "caisson-helper, an executable file");
    options.helper_path = "/nonexistent/caisson-helper";
    CHECK(
        error_of(place.spec("web"), options) ==
        "container 'web': helper program '/nonexistent/caisson-helper': No such file or directory: set helper_path to "
        "an installed caisson-helper");
    // A program that is none of ours ends without an answer.
    options.helper_path = place.root / "/bin/busybox";
    CHECK(error_of(place.spec("web"), options)
              .find("container 'web': helper program: it ended before it had started the "
                    "container") == 0);
    options = place.options;
    options.note = std::string((1 << 20) + 1, 'n');
    CHECK(error_of(place.spec("web"), options) ==
          "container 'web': note of 1048577 bytes: Argument list too long: at most 1048576 bytes are kept");
}
