// Many containers in one loop: events, deadlines, consoles.
#include <caisson/controller.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/rootfs.hpp"
#include "support/sanitizer.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using caisson_test::TestRoot;
using caisson_test::why_not;

namespace {

ContainerSpec shell(const TestRoot& root, const std::string& name, const std::string& script) {
    ContainerSpec spec;
    spec.name = name;
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c", script};
    return spec;
}

/// The next event, as an own loop gets it; nothing after a minute.
std::optional<Event> wait_event(Controller& controller, int milliseconds = 60000) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds{milliseconds};
    for (;;) {
        if (auto event = controller.next()) return event;
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) return std::nullopt;
        (void)detail::wait_readable(controller.fd(), left.count());
    }
}
/// The end of a container that `read_until` has come across, for `wait_exit`.
std::optional<ExitStatus> ended_meanwhile;

ExitStatus wait_exit(Controller& controller) {
    if (const auto status = std::exchange(ended_meanwhile, std::nullopt)) return *status;
    for (;;) {
        auto event = wait_event(controller);
        REQUIRE(event);
        if (event->kind == Event::Kind::failed) FAIL(std::string{event->error->what()});
        if (event->kind == Event::Kind::exited) return *event->status;
    }
}
ContainerId started(Controller& controller, const ContainerSpec& spec, ConsoleUse use = ConsoleUse::relay) {
    const ContainerId id = controller.start(spec, use);
    auto event = wait_event(controller);
    REQUIRE(event);
    if (event->kind == Event::Kind::failed) FAIL(std::string{event->error->what()});
    REQUIRE(event->kind == Event::Kind::started);
    CHECK(event->id == id);
    return id;
}
Fd attach(Controller& controller, ContainerId id) {
    return detail::sys::open(controller.console_path(id), O_RDWR | O_NOCTTY | O_NONBLOCK);
}
bool would_block(int fd, short events) {
    pollfd p{fd, events, 0};
    return ::poll(&p, 1, 0) == 0;
}
/// Runs the loop and reads the user's end until `text` has come, or for a minute.
std::string read_until(Controller& controller, const Fd& user, const std::string& text) {
    std::string all;
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (all.find(text) == std::string::npos && std::chrono::steady_clock::now() < deadline) {
        while (const auto event = controller.next()) {
            if (event->kind == Event::Kind::exited) ended_meanwhile = event->status;
        }
        char buffer[4096];
        const ssize_t n = ::read(user.get(), buffer, sizeof buffer);
        if (n > 0) {
            all.append(buffer, static_cast<std::size_t>(n));
            continue;
        }
        pollfd p[2]{{controller.fd(), POLLIN, 0}, {user.get(), POLLIN, 0}};
        (void)::poll(p, 2, 1000);
    }
    return all;
}
bool alive(pid_t pid) {
    return ::kill(pid, 0) == 0;
}

}  // namespace

TEST_CASE("a loop of the caller's gets each container's start and its own exit status") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    CHECK_FALSE(controller.next());
    std::vector<ContainerId> ids;
    for (int i = 0; i < 5; ++i) {
        ids.push_back(controller.start(shell(root, "many" + std::to_string(i), "exit " + std::to_string(i + 10))));
    }
    int running = 0;
    std::vector<int> codes(5, -1);
    for (int events = 0; events < 10; ++events) {
        auto event = wait_event(controller);
        REQUIRE(event);
        const auto index = static_cast<std::size_t>(std::find(ids.begin(), ids.end(), event->id) - ids.begin());
        REQUIRE(index < 5);
        CHECK(event->name == "many" + std::to_string(index));
        if (event->kind == Event::Kind::started) ++running;
        else if (event->kind == Event::Kind::exited) codes[index] = event->status->code().value_or(-2);
    }
    CHECK(running == 5);
    CHECK(codes == std::vector<int>{10, 11, 12, 13, 14});
    CHECK(controller.size() == 0);
    CHECK_FALSE(controller.next());
    CHECK(would_block(controller.fd(), POLLIN));
}

TEST_CASE("a container that cannot start is an event with the whole error") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "bad", "true");
    spec.command = {"/bin/none"};
    const ContainerId id = controller.start(spec);
    auto event = wait_event(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::failed);
    CHECK(event->id == id);
    CHECK(event->name == "bad");
    CHECK(event->error->step() == Step::exec);
    CHECK(event->error->code().value() == ENOENT);
    CHECK(std::string{event->error->what()}.find("container 'bad': command '/bin/none' (in the child)") == 0);
    CHECK(controller.size() == 0);
    CHECK_FALSE(controller.signal(id, SIGTERM));
    CHECK_FALSE(controller.stop(id, 0s));
    CHECK_FALSE(controller.resize(id, {1, 1}));
    CHECK_THROWS_WITH_AS((void)controller.usage(id), "container 1: No such process: it has ended", Error);
    CHECK_THROWS_AS((void)controller.signal(ContainerId{7}, SIGTERM), std::logic_error);
}

TEST_CASE("a thread of the caller's runs the loop, and others use the controller meanwhile") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    std::vector<std::string> seen;
    std::thread thread{[&] {
        controller.run([&](Event event) {
            seen.push_back(event.name + (event.kind == Event::Kind::exited ? " " + event.status->str() : " started"));
            if (event.kind == Event::Kind::exited && event.name == "second") controller.stop();
        });
    }};
    (void)controller.start(shell(root, "first", "exit 1"));
    const ContainerId second =
        controller.start(shell(root, "second", "trap 'exit 3' TERM; while :; do sleep 0.05; done"));
    // Again and again: until the shell has set its trap, the signal is none to an init.
    while (controller.signal(second, SIGTERM)) (void)::poll(nullptr, 0, 10);
    thread.join();
    std::sort(seen.begin(), seen.end());
    REQUIRE(seen.size() >= 3);
    CHECK(std::find(seen.begin(), seen.end(), "second exited with status 3") != seen.end());
    CHECK(std::find(seen.begin(), seen.end(), "first started") != seen.end());
    // One that comes before the next run is not forgotten.
    controller.stop();
    controller.run([](const Event&) {});
}

TEST_CASE("a stop that comes while the loop is about to wait ends it all the same, also from a signal handler in it") {
    static Controller* looping = nullptr;
    Controller controller;
    looping = &controller;
    struct sigaction handled {};
    struct sigaction before {};
    handled.sa_handler = [](int) { looping->stop(); };
    REQUIRE(::sigaction(SIGUSR2, &handled, &before) == 0);
    for (int i = 0; i < 400; ++i) {
        CAPTURE(i);
        std::atomic<bool> entered{false};
        std::atomic<bool> ended{false};
        std::thread thread{[&] {
            entered = true;
            controller.run([](const Event&) {});
            ended = true;
        }};
        while (!entered) std::this_thread::yield();
        const auto from = std::chrono::steady_clock::now();
        while (std::chrono::steady_clock::now() - from < std::chrono::microseconds{i / 2 % 30}) continue;
        // The thread sanitizer keeps a signal to itself until the thread's next call, which may be after the wait.
        const bool by_signal = i % 2 == 1 && !caisson_test::thread_sanitized;
        if (!by_signal) controller.stop();
        else REQUIRE(::pthread_kill(thread.native_handle(), SIGUSR2) == 0);
        for (int wait = 0; wait < 10000 && !ended; ++wait) std::this_thread::sleep_for(1ms);
        const bool in_time = ended;
        // A thread that waits for itself cannot be helped: the destructor of `thread` then ends the program.
        if (!in_time && !by_signal) controller.stop();
        if (in_time || !by_signal) thread.join();
        REQUIRE(in_time);
    }
    REQUIRE(::sigaction(SIGUSR2, &before, nullptr) == 0);
}

TEST_CASE("stopping waits for a container that obeys and kills one that does not") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId good =
        started(controller, shell(root, "good", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"));
    const Fd user = attach(controller, good);
    CHECK(read_until(controller, user, "ready").find("ready") != std::string::npos);
    CHECK(controller.stop(good, 60s));
    CHECK(wait_exit(controller) == ExitStatus::exited(5));
    CHECK_FALSE(controller.stop(good, 60s));

    const ContainerId bad = started(controller, shell(root, "bad", "trap '' TERM; while :; do sleep 1; done"));
    const auto before = std::chrono::steady_clock::now();
    CHECK(controller.stop(bad, 1000h));
    CHECK(controller.stop(bad, 200ms));
    CHECK_FALSE(wait_event(controller, 100));
    CHECK(wait_exit(controller) == ExitStatus::killed(SIGKILL));
    CHECK(std::chrono::steady_clock::now() - before >= 200ms);
}

TEST_CASE("what is typed on the relayed console reaches the container, and its answer comes back") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId id =
        started(controller, shell(root, "echo", "stty -echo; echo go; read x; echo \"<$x>\"; read y"));
    {
        // Output from before anyone came is not lost.
        const Fd user = attach(controller, id);
        CHECK(read_until(controller, user, "go").find("go") != std::string::npos);
    }
    const Fd user = attach(controller, id);
    REQUIRE(::write(user.get(), "hello\n", 6) == 6);
    CHECK(read_until(controller, user, ">").find("<hello>") != std::string::npos);
    CHECK(controller.resize(id, {40, 111}));
    CHECK(controller.signal(id, SIGKILL));
    CHECK(wait_exit(controller) == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a user who leaves, or hangs the terminal up, can come back, and the loop does not spin meanwhile") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId id =
        started(controller, shell(root, "back", "stty -echo raw; while :; do read x; echo \"<$x>\"; done"));
    const std::string path = controller.console_path(id);
    for (int round = 0; round < 3; ++round) {
        const pid_t user = ::fork();
        if (user == 0) {
            (void)::setsid();
            const int fd = ::open(path.c_str(), O_RDWR);  // becomes the controlling terminal, so the end hangs it up
            _exit(fd >= 0 && ::vhangup() == 0 ? 0 : 1);   // SIGHUP comes first
        }
        int status = -1;
        REQUIRE(::waitpid(user, &status, 0) == user);
        CHECK(WTERMSIG(status) == SIGHUP);
        if (round == 1) {
            // What the kernel has no room for is done a moment later.
            rlimit before{};
            REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
            const rlimit none{0, before.rlim_max};
            REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
            CHECK_NOTHROW((void)controller.next());
            REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
            CHECK_FALSE(wait_event(controller, 250));
        }
        while (controller.next()) {
        }
        CHECK_FALSE(wait_event(controller, 50));
        CHECK(would_block(controller.fd(), POLLIN));
        const Fd again = attach(controller, id);
        termios modes{};
        REQUIRE(::tcgetattr(again.get(), &modes) == 0);
        CHECK((modes.c_lflag & (ECHO | ICANON)) == 0);
        REQUIRE(::write(again.get(), "x\n", 2) == 2);
        CHECK(read_until(controller, again, "<x>").find("<x>") != std::string::npos);
    }
}

TEST_CASE("the console's size is the payload's, at first and after a change") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    ContainerSpec spec =
        shell(root, "size", "stty size; trap 'stty size; exit' WINCH; echo set; while :; do sleep 0.05; done");
    spec.console->size = {30, 90};
    const ContainerId id = started(controller, spec);
    const Fd user = attach(controller, id);
    CHECK(read_until(controller, user, "set").find("30 90") != std::string::npos);
    CHECK(controller.resize(id, {50, 132}));
    CHECK(read_until(controller, user, "132").find("50 132") != std::string::npos);
    winsize outer{};
    CHECK(::ioctl(user.get(), TIOCGWINSZ, &outer) == 0);
    CHECK(outer.ws_col == 132);
    CHECK(wait_exit(controller) == ExitStatus::exited(0));
}

TEST_CASE("megabytes of any bytes come through the console whole, also to a reader who pauses") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    constexpr std::size_t size = 10 << 20;
    std::string content(size, '\0');
    std::uint32_t state = 7;
    for (char& c : content) {
        state = state * 1664525 + 1013904223;
        c = static_cast<char>(state >> 24);
    }
    root.write("/content", content);
    Controller controller;
    const ContainerId id = started(controller, shell(root, "bytes", "stty raw; cat /content"));
    const Fd user = attach(controller, id);
    // Nobody reads: the loop comes to rest, with the container blocked.
    for (bool moved = true; moved;) {
        moved = detail::wait_readable(controller.fd(), 300);
        CHECK_FALSE(controller.next());
    }
    std::string all;
    bool exited = false;
    char buffer[65536];
    while (all.size() < size || !exited) {
        pollfd p[2]{{controller.fd(), POLLIN, 0}, {user.get(), POLLIN, 0}};
        REQUIRE(::poll(p, 2, 60000) > 0);
        while (const auto event = controller.next()) exited = exited || event->kind == Event::Kind::exited;
        const ssize_t n = ::read(user.get(), buffer, sizeof buffer);
        if (n > 0) all.append(buffer, static_cast<std::size_t>(n));
        else if (exited && (n == 0 || errno != EAGAIN)) break;  // hung up: no more will come
    }
    CHECK(all.size() == size);
    CHECK(all == content);
}

TEST_CASE("megabytes typed by the user reach a payload that pauses") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    constexpr std::size_t size = 2 << 20;
    std::string content(size, '\0');
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 + i / 251);
    Controller controller;
    const ContainerId id = started(
        controller, shell(root, "typed", "stty -echo raw; echo go; sleep 0.5; head -c 2097152 > /got; echo done"));
    const Fd user = attach(controller, id);
    CHECK(read_until(controller, user, "go").find("go") != std::string::npos);
    std::size_t sent = 0;
    while (sent < size) {
        const ssize_t n = ::write(user.get(), content.data() + sent, size - sent);
        if (n > 0) sent += static_cast<std::size_t>(n);
        while (controller.next()) {
        }
        pollfd p[2]{{controller.fd(), POLLIN, 0}, {user.get(), POLLOUT, 0}};
        REQUIRE(::poll(p, 2, 60000) > 0);
    }
    CHECK(read_until(controller, user, "done").find("done") != std::string::npos);
    CHECK(wait_exit(controller) == ExitStatus::exited(0));
    CHECK(root.read("/got") == content);
}

TEST_CASE("the last bytes before the end always arrive, and before the end is told") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    int whole = 0;
    for (int round = 0; round < 100; ++round) {
        Controller controller;
        const ContainerId id =
            started(controller, shell(root, "last", "stty raw; head -c 9000 /dev/zero; printf last-words"));
        const Fd user = attach(controller, id);
        // The reader comes only after the end: all of it waits in the terminal and the controller.
        std::string all;
        char buffer[4096];
        bool exited = false;
        while (!exited) {
            REQUIRE(detail::wait_readable(controller.fd(), 60000));
            while (const auto event = controller.next()) exited = exited || event->kind == Event::Kind::exited;
        }
        for (ssize_t n = 0; (n = ::read(user.get(), buffer, sizeof buffer)) > 0;)
            all.append(buffer, static_cast<std::size_t>(n));
        whole += all.size() == 9010 && all.ends_with("last-words") ? 1 : 0;
    }
    CHECK(whole == 100);
}

TEST_CASE("a console that nobody reads holds the end back for a bounded time only") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId id = started(controller, shell(root, "unread", "stty raw; trap '' TERM; yes; sleep 1000"));
    const std::string path = controller.console_path(id);
    CHECK(controller.stop(id, 300ms));
    CHECK(wait_exit(controller) == ExitStatus::killed(SIGKILL));
    CHECK(controller.has_unread_console());
    CHECK(::access(path.c_str(), F_OK) == 0);
    while (controller.has_unread_console()) {
        REQUIRE(detail::wait_readable(controller.fd(), 60000));
        CHECK_FALSE(controller.next());
    }
    CHECK(::access(path.c_str(), F_OK) != 0);
}

TEST_CASE("a raw console is the caller's, and its last bytes come with the end") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId id = started(controller, shell(root, "raw", "stty raw; printf words"), ConsoleUse::raw);
    CHECK(controller.console_path(id).empty());
    CHECK_THROWS_AS((void)controller.open_console(id), Error);
    CHECK(controller.console_fd(id) >= 0);
    auto event = wait_event(controller);
    REQUIRE(event);
    REQUIRE(event->kind == Event::Kind::exited);
    REQUIRE(event->console);
    char buffer[64];
    CHECK(std::string(buffer, static_cast<std::size_t>(::read(event->console->fd(), buffer, sizeof buffer))) ==
          "words");
}

TEST_CASE("a container can be adopted, and taken back") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId id =
        controller.adopt(Container::start(shell(root, "moved", "stty -echo; echo one; read x; echo \"<$x>\"; read y")));
    const Fd user = attach(controller, id);
    CHECK(read_until(controller, user, "one").find("one") != std::string::npos);
    CHECK(controller.usage(id).cpu.value_or(0) > 0);
    Container container = controller.take(id);
    CHECK(controller.size() == 0);
    CHECK_THROWS_AS((void)controller.take(id), Error);
    CHECK((::fcntl(container.console()->fd(), F_GETFL) & O_NONBLOCK) == 0);
    REQUIRE(::write(container.console()->fd(), "two\n", 4) == 4);
    std::string all;
    char buffer[512];
    while (all.find('>') == std::string::npos) {
        const ssize_t n = ::read(container.console()->fd(), buffer, sizeof buffer);
        REQUIRE(n > 0);
        all.append(buffer, static_cast<std::size_t>(n));
    }
    CHECK(all.find("<two>") != std::string::npos);
    CHECK_FALSE(controller.next());
    CHECK(container.kill() == ExitStatus::killed(SIGKILL));
    CHECK_FALSE(wait_event(controller, 50));
}

TEST_CASE("of a container that was taken back no event follows, not even of its start") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    const ContainerId first = controller.start(shell(root, "first", "sleep 1000"));
    const ContainerId second = controller.start(shell(root, "second", "sleep 1000"));
    Container container = controller.take(first);
    auto event = controller.next();
    REQUIRE(event);
    CHECK(event->id == second);
    CHECK_FALSE(controller.next());
    CHECK(would_block(controller.fd(), POLLIN));
    CHECK(container.kill() == ExitStatus::killed(SIGKILL));
    Container moved{std::move(container)};
    CHECK_THROWS_AS((void)controller.adopt(std::move(container)), std::logic_error);
}

TEST_CASE("a controller that is destroyed takes its containers along") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    std::vector<pid_t> inits;
    {
        Controller controller;
        for (int i = 0; i < 3; ++i) {
            inits.push_back(
                controller.init_pid(started(controller, shell(root, "gone" + std::to_string(i), "sleep 1000"))));
            CHECK(alive(inits.back()));
        }
        const pid_t copy = ::fork();
        if (copy == 0) {
            controller.~Controller();
            _exit(0);
        }
        int status = -1;
        REQUIRE(::waitpid(copy, &status, 0) == copy);
        for (const pid_t pid : inits) CHECK(alive(pid));
    }
    for (const pid_t pid : inits) CHECK_FALSE(alive(pid));
}
