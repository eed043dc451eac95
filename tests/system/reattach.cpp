// Containers of helpers in a controller: who comes back finds them as they were.
#include <caisson/controller.hpp>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/helper.hpp>
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

/// The next event, at most ten seconds away.
std::optional<Event> next(Controller& controller) {
    const std::int64_t deadline = detail::deadline_in(10'000);
    while (detail::monotonic_ms() < deadline) {
        if (auto event = controller.next()) return event;
        (void)detail::wait_readable(controller.fd(), deadline - detail::monotonic_ms());
    }
    return std::nullopt;
}

/// Until it has nothing to do, and no event.
void until_rest(Controller& controller) {
    do CHECK_FALSE(controller.next());
    while (detail::wait_readable(controller.fd(), 200));
}

/// Reads until `word` has come.
std::string read_until(const Fd& console, const std::string& word) {
    std::string text;
    char buffer[256];
    while (text.find(word) == std::string::npos && detail::wait_readable(console.get(), 10'000)) {
        const ssize_t n = ::read(console.get(), buffer, sizeof buffer);
        if (n <= 0) break;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
}

/// As a helper says it.
detail::Message event_of_a_helper(const Place& place) {
    Helper helper = Helper::start(place.spec("real"), place.options);
    const Fd client = connect_to(place.run + "/real/sock");
    REQUIRE(detail::send_message(client.get(), {.kind = detail::Message::Kind::watch}));
    detail::Message message;
    do {
        if (message.kind == detail::Message::Kind::done) helper.set_note("another");
        REQUIRE(detail::wait_readable(client.get(), 10'000));
        REQUIRE(detail::take_message(client.get(), message, nullptr) == detail::Taken::message);
    } while (message.kind != detail::Message::Kind::event);
    (void)helper.kill();
    return message;
}

/// In the place of a helper.
Fd listen_at(const std::string& directory) {
    Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = directory + "/sock";
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(std::filesystem::create_directories(directory));
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(socket.get(), 8) == 0);
    return socket;
}

template <class Call>
std::string refusal_of(Call&& call) {
    try {
        call();
    } catch (const Error& e) {
        return e.what();
    }
    return "accepted";
}

}  // namespace

TEST_CASE("a program that is killed and started again finds its container with console, figures and events") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    const pid_t host = ::fork();
    if (host == 0) {
        try {
            Helper helper = Helper::start(
                place.spec("web", "trap 'exit 6' TERM; read a; echo got $a; while :; do read b; sleep 0.05; done"),
                place.options);
            (void)!::write(helper.open_console().get(), "before\n", 7);
            Controller watches;
            (void)watches.reattach("web", place.run);
            (void)::kill(::getpid(), SIGKILL);
        } catch (const std::exception& e) {
            std::fprintf(stderr, "in the child: %s\n", e.what());
        }
        ::_exit(1);
    }
    int status = 0;
    REQUIRE(::waitpid(host, &status, 0) == host);
    REQUIRE(WIFSIGNALED(status));

    Controller controller;
    CHECK(controller.size() == 0);
    const ContainerId id = controller.reattach("web", place.run);
    CHECK(controller.size() == 1);
    // What it wrote while nobody was there has waited.
    CHECK(read_until(controller.open_console(id), "got before").find("got before") != std::string::npos);
    CHECK(controller.console_path(id).starts_with("/dev/pts/"));
    CHECK(Process::open(controller.init_pid(id)).pid() > 0);
    CHECK(controller.signal(id, 0));
    CHECK(controller.resize(id, {30, 90}));
    try {
        CHECK(controller.usage(id, UsagePart::pids).pids >= 1);
        std::vector<ContainerUsage> all(3);
        controller.usage(UsagePart::pids, all);
        REQUIRE(all.size() == 1);
        CHECK(all[0].name == "web");
        CHECK(all[0].id == id);
        CHECK(all[0].missing.empty());
    } catch (const Error& e) {
        MESSAGE("no figures: " << e.what());
    }
    CHECK_FALSE(controller.next());
    CHECK(controller.stop(id, 10s));
    const auto end = next(controller);
    REQUIRE(end);
    CHECK(end->kind == Event::Kind::exited);
    CHECK(end->id == id);
    CHECK(end->name == "web");
    CHECK(end->status == ExitStatus::exited(6));
    CHECK(controller.size() == 0);
    CHECK_FALSE(controller.signal(id, 0));
    CHECK(refusal_of([&] { (void)controller.init_pid(id); }).find("it has ended") != std::string::npos);
    CHECK(place.empty());
}

TEST_CASE("what happens in a helper is told by the controller as of its own containers") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    Controller controller;
    const ContainerId own = controller.start(place.spec("own"));
    CHECK(next(controller)->kind == Event::Kind::started);
    const ContainerId id = controller.reattach("web", place.run);
    CHECK(id != own);
    try {
        helper.suspend();
    } catch (const Error& e) {
        (void)helper.kill();
        CAISSON_SKIP(e.what());
    }
    auto event = next(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::suspended);
    CHECK(event->id == id);
    CHECK(controller.suspended(id));
    CHECK_FALSE(controller.suspended(own));
    controller.resume(id);
    CHECK(next(controller)->kind == Event::Kind::resumed);
    CHECK_FALSE(controller.suspended(id));
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    event = next(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::exited);
    CHECK(event->id == id);
    CHECK(controller.signal(own, SIGKILL));
    CHECK(next(controller)->id == own);
    CHECK(place.empty());
}

TEST_CASE("a restart that fails is the last that is told of a helper's container, and its end is known to who waits") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("web", "read x; rm /bin/sh; exit 3");
    spec.on_crash = EndAction::restart;
    Helper helper = Helper::start(spec, place.options);
    Controller controller;
    (void)controller.reattach("web", place.run);
    REQUIRE(::write(helper.open_console().get(), "\n", 1) == 1);
    CHECK(next(controller)->kind == Event::Kind::restarting);
    const auto last = next(controller);
    REQUIRE(last);
    CHECK(last->kind == Event::Kind::failed);
    CHECK(std::string{last->error->what()}.find("command '/bin/sh' (in the child): No such file") != std::string::npos);
    CHECK(controller.size() == 0);
    CHECK(helper.wait() == ExitStatus::exited(3));
    CHECK_FALSE(detail::wait_readable(controller.fd(), 50));
    CHECK_FALSE(controller.next());
    CHECK(place.empty());
}

TEST_CASE("what a helper cannot be asked for is refused, and so is a name that nobody runs") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Controller controller;
    CHECK(refusal_of([&] { (void)controller.reattach("web", place.run); }) ==
          "container 'web': No such process: no helper in '" + place.run + "' runs it");
    CHECK(controller.size() == 0);
    Helper helper = Helper::start(place.spec("web"), place.options);
    const ContainerId id = controller.reattach("web", place.run);
    const std::string refused =
        "container 'web': Operation not supported: its helper runs it, and cannot be asked for this";
    CHECK(refusal_of([&] { (void)controller.take(id); }) == refused);
    CHECK(refusal_of([&] { (void)controller.console_fd(id); }) == refused);
    CHECK(helper.signal(0));
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(next(controller)->kind == Event::Kind::exited);
    CHECK(place.empty());
}

TEST_CASE("the end of a controller leaves a helper's container alone, and a killed helper is the container's end") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.group = "all";
    Helper helper = Helper::start(place.spec("web"), options);
    Helper other = Helper::start(place.spec("other"), options);
    {
        Controller short_lived;
        (void)short_lived.reattach("web", place.run);
    }
    CHECK(helper.signal(0));
    Controller controller;
    const ContainerId web = controller.reattach("web", place.run);
    const ContainerId second = controller.reattach("other", place.run);
    CHECK(controller.size() == 2);
    REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
    for (int i = 0; i < 2; ++i) {
        const auto event = next(controller);
        REQUIRE(event);
        CHECK(event->kind == Event::Kind::exited);
        CHECK((event->id == web || event->id == second));
        CHECK(event->status == ExitStatus::killed(SIGKILL));
    }
    CHECK(controller.size() == 0);
}

TEST_CASE("a controller that did not listen for long is let go by the helper, and finds it again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    Controller controller;
    const ContainerId id = controller.reattach("web", place.run);
    try {
        for (int i = 0; i < 400; ++i) {
            helper.suspend();
            helper.resume();
        }
    } catch (const Error& e) {
        (void)helper.kill();
        CAISSON_SKIP(e.what());
    }
    // As many events as the socket has room for. Nothing is waited for, also where the helper does not answer.
    REQUIRE(::kill(helper.pid(), SIGSTOP) == 0);
    const std::int64_t from = detail::monotonic_ms();
    int told = 0;
    while (controller.next()) ++told;
    CHECK(detail::monotonic_ms() - from < 5000);
    REQUIRE(::kill(helper.pid(), SIGCONT) == 0);
    // Then the newest ones.
    until_rest(controller);
    CHECK(told > 10);
    CHECK(told < 800);
    CHECK(controller.size() == 1);
    // What happens before the helper has taken the client again is not told.
    std::optional<Event> event;
    for (int i = 0; !event && i < 50; ++i) {
        helper.suspend();
        helper.resume();
        if (detail::wait_readable(controller.fd(), 200)) event = controller.next();
    }
    REQUIRE(event);
    if (event->kind == Event::Kind::suspended) event = next(controller);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::resumed);
    CHECK(controller.stop(id, 0s));
    do event = next(controller);
    while (event && event->kind != Event::Kind::exited);
    CHECK(event);
    CHECK(place.empty());
}

TEST_CASE("a helper that tells without end keeps neither its controller nor the other containers from theirs") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Controller controller;
    const ContainerId other = controller.start(place.spec("other"));
    const detail::Message words = event_of_a_helper(place);
    const Fd listener = listen_at(place.run + "/web");
    const pid_t liar = ::fork();
    REQUIRE(liar >= 0);
    if (liar == 0) {
        // Not for ever: who does not bear it is to fail, and not to hang.
        (void)::alarm(10);
        const Fd client{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        // An answer to nothing would be passed over.
        (void)detail::wait_readable(client.get(), 10'000);
        (void)detail::send_message(client.get(), {.kind = detail::Message::Kind::done});
        while (detail::send_message(client.get(), words)) {
        }
        ::_exit(0);
    }
    const ContainerId id = controller.reattach("web", place.run);
    (void)controller.kill(other);
    bool has_ended = false;
    int told = 0;
    for (int turns = 0; !has_ended && turns < 200'000; ++turns) {
        const auto event = controller.next();
        if (!event) (void)detail::wait_readable(controller.fd(), 1000);
        else if (event->id == id) ++told;
        else has_ended = event->id == other && event->is_last();
    }
    CHECK(has_ended);
    CHECK(told > 0);
    CHECK(::kill(liar, SIGKILL) == 0);
    int status = 0;
    CHECK(::waitpid(liar, &status, 0) == liar);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    std::filesystem::remove_all(place.run);
}

TEST_CASE("a helper serves each console, to viewers, too, and logs what comes out") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("web", "stty -echo; echo first; read x < /dev/tty2; echo got $x; read y");
    const std::string log = place.run + "-log";
    spec.console->log = log;
    spec.more_consoles.resize(2);
    Helper helper = Helper::start(spec, place.options);
    const Fd viewer = helper.attach_console();
    CHECK(read_until(viewer, "first").find("first") != std::string::npos);
    const HelperInfo info = helper.info();
    REQUIRE(info.more_console_paths.size() == 2);
    CHECK(info.more_console_paths[0] != info.more_console_paths[1]);

    Controller controller;
    const ContainerId id = controller.reattach("web", place.run);
    CHECK(controller.console_path(id, 2) == info.more_console_paths[1]);
    CHECK(controller.console_path(id, 3).empty());
    const Fd second = controller.attach_console(id, {.console = 1});
    CHECK(controller.console_state(id, 1).viewers.size() == 2);
    REQUIRE(::write(controller.open_console(id, 1).get(), "typed\n", 6) == 6);
    CHECK(read_until(viewer, "got typed").find("got typed") != std::string::npos);
    CHECK(controller.resize(id, {33, 44}, 1));
    CHECK(helper.console_state(1).size == WindowSize{33, 44});
    helper.detach_viewers(1);
    char c = 0;
    while (::read(second.get(), &c, 1) > 0) continue;
    const auto gone = next(controller);
    CHECK((gone && gone->kind == Event::Kind::console_attached && gone->console_number == 1));
    CHECK(refusal_of([&] { (void)helper.attach_console({.console = 3}); }) ==
          "console 3 of container 'web': Inappropriate ioctl for device: it was started without such a console to "
          "relay");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    std::string logged;
    CHECK(detail::sys::read_file(AT_FDCWD, log.c_str(), logged));
    CHECK(::unlink(log.c_str()) == 0);
    CHECK(logged == "first\r\ngot typed\r\n");
}

TEST_CASE("a container that is to outlive its helper goes on, and so do its clients, with the next one") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.outlive = true;
    options.note = "first";
    Helper helper = Helper::start(
        place.spec("web", "trap 'exit 6' TERM; while :; do read a && echo got $a; sleep 0.02; done"), options);
    const Process init = Process::open(helper.info().init);
    Controller controller;
    const ContainerId id = controller.reattach("web", place.run);
    helper.set_note("second");
    CHECK(next(controller)->kind == Event::Kind::noted);
    while (controller.next()) continue;
    for (int round = 0; round < 3; ++round) {
        const pid_t before = helper.pid();
        REQUIRE(::kill(before, SIGKILL) == 0);
        const HelperInfo info = helper.info();
        CHECK(helper.pid() != before);
        CHECK(info.init == init.pid());
        CHECK(info.note == "second");
        CHECK(sweep_only(place.run).kept.empty());
        const Fd console = helper.open_console();
        CHECK(::write(console.get(), "this\n", 5) == 5);
        CHECK(read_until(console, "got this").find("got this") != std::string::npos);
        CHECK(controller.init_pid(id) == init.pid());
        CHECK_FALSE(controller.next());
    }
    // Those that have come in another's place have given up what the first had, and so has who put them there.
    const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
    for (const pid_t pid : {helper.pid(), detail::Owner::recorded_in(directory.get(), "owner")->pid}) {
        std::string status;
        CHECK(detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/status").c_str(), status));
        CHECK(status.find("CapPrm:\t0000000000000022\n") != std::string::npos);
        CHECK(status.find("CapBnd:\t0000000000000022\n") != std::string::npos);
        CHECK(status.find("NoNewPrivs:\t1\n") != std::string::npos);
        CHECK((status.find("Seccomp:\t2\n") != std::string::npos) == (pid == helper.pid()));
    }
    try {
        CHECK(helper.usage(UsagePart::pids).pids >= 1);
        helper.suspend();
        auto event = next(controller);
        REQUIRE(event);
        CHECK(event->kind == Event::Kind::suspended);
        REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
        CHECK(helper.suspended());
        until_rest(controller);  // it watches the next one
        helper.resume();
        CHECK(next(controller)->kind == Event::Kind::resumed);
    } catch (const Error& e) {
        MESSAGE("no control groups: " << e.what());
    }
    CHECK(helper.stop(10s) == ExitStatus::exited(6));
    const auto end = next(controller);
    REQUIRE(end);
    CHECK(end->kind == Event::Kind::exited);
    CHECK(end->status == ExitStatus::exited(6));
    CHECK(place.empty());
}

TEST_CASE(
    "who asks for an end gets it, whenever the helper dies, and the death of the owner is that of the container") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.outlive = true;
    Helper helper = Helper::start(place.spec("web", "trap '' TERM; while :; do sleep 1; done"), options);
    std::thread killer{[pid = helper.pid()] {
        std::this_thread::sleep_for(50ms);
        (void)::kill(pid, SIGKILL);
    }};
    CHECK(helper.stop(200ms) == ExitStatus::killed(SIGKILL));
    killer.join();
    CHECK(place.empty());

    Helper next = Helper::start(place.spec("web"), options);
    const Process init = Process::open(next.info().init);
    const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
    const auto owner = detail::Owner::recorded_in(directory.get(), "owner");
    REQUIRE(owner);
    CHECK(owner->pid != next.pid());
    REQUIRE(::kill(owner->pid, SIGKILL) == 0);
    CHECK(init.ended_within(dead_within));
    CHECK(next.wait() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("what cannot outlive a helper is refused, and a start that fails is the very error") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    HelperOptions options = place.options;
    options.outlive = true;
    ContainerSpec spec = place.spec("web");
    spec.command = {"/no/such/program"};
    CHECK(error_of(spec, options) == error_of(spec, place.options));
    spec = place.spec("web");
    spec.on_crash = EndAction::restart;
    CHECK(error_of(spec, options) ==
          "container 'web': outlive: what may restart by itself depends on the helper that starts it: set on_poweroff, "
          "on_reboot and on_crash to destroy or preserve");
    options.group = "shop";
    CHECK(error_of(place.spec("web"), options) ==
          "container 'web': outlive: a group's helper is not put in another's place: leave group empty");
    CHECK(Helper::list(place.run).empty());
}
