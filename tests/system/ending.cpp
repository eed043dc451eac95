// How containers are asked to end, and what happens where one cannot.
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/fuse.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/promises.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using caisson_test::can_run;
using caisson_test::keeper_of;
using caisson_test::Place;
using caisson_test::shell;
using caisson_test::SilentServer;
using caisson_test::TestRoot;
using caisson_test::user_of;
using caisson_test::why_not;

namespace {

std::int64_t milliseconds_since(std::int64_t from) {
    return detail::monotonic_ms() - from;
}
bool comes(const TestRoot& root, const std::string& file) {
    for (int i = 0; i < 1000; ++i) {
        if (::access((root / file).c_str(), F_OK) == 0) return true;
        (void)::poll(nullptr, 0, 10);
    }
    return false;
}
template <class F>
std::string error_text(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        return e.what();
    }
    return "no error";
}

/// With the numbers and the kernel's own names taken out.
std::string without_numbers(std::string text) {
    const std::size_t pid = text.find("process ");
    if (pid != std::string::npos) text.replace(pid + 8, text.find(' ', pid + 8) - pid - 8, "PID");
    const std::size_t place = text.find(", in '");
    if (place != std::string::npos) text.resize(place);
    return text;
}
/// True once an event of this kind has come, after any others.
bool next_of(Controller& controller, Event::Kind kind) {
    for (;;) {
        while (const auto event = controller.next()) {
            if (event->kind == kind) return true;
        }
        if (!detail::wait_readable(controller.fd(), 10000)) return false;
    }
}
constexpr const char* stuck_text =
    "container 'test': end: Connection timed out: process PID ('stat') waits in the kernel";

}  // namespace

TEST_CASE("a shutdown is put into the fifo that an init inside reads") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    std::string path;
    SUBCASE("in /run") {
        path = "/run/initctl";
    }
    SUBCASE("in /dev") {
        path = "/dev/initctl";
    }
    SUBCASE("in /etc") {
        path = "/etc/.initctl";
    }
    const auto asked = [&](bool reboot) {
        ContainerSpec spec = shell(root, "mkdir -p /run /etc; rm -f " + path + "; mkfifo " + path + "; exec 4<>" +
                                             path + "; touch /ready; head -c 384 <&4 > /got");
        (void)::unlink((root / "ready").c_str());
        Container container = Container::start(spec);
        REQUIRE(comes(root, "/ready"));
        CHECK((reboot ? container.reboot() : container.shutdown()));
        CHECK(container.wait_for(20s) == ExitStatus::exited(0));
        std::string wanted(384, '\0');
        const std::uint32_t head[3] = {0x03091969, 1, reboot ? std::uint32_t{'6'} : std::uint32_t{'0'}};
        std::memcpy(wanted.data(), head, sizeof head);
        return root.read("/got") == wanted;
    };
    CHECK(asked(false));
    CHECK(asked(true));
}

TEST_CASE("what is no fifo, is the host's own or has no reader gets no request") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "mkdir -p /run; mkfifo /run/initctl; touch /dev/initctl; trap 'exit 4' TERM; "
                               "touch /ready; while :; do sleep 0.02; done");
    Container container = Container::start(spec);
    REQUIRE(comes(root, "/ready"));
    CHECK(error_text([&] { (void)container.shutdown(ShutdownMode::initctl); }) ==
          "container 'test': request to init: No such device or address: no init reads '/run/initctl', '/dev/initctl' "
          "or '/etc/.initctl' inside: ask by a signal");
    // By itself, the signal is next.
    CHECK(container.shutdown());
    CHECK(container.wait_for(20s) == ExitStatus::exited(4));
    CHECK_FALSE(container.shutdown());
    CHECK_FALSE(container.reboot(ShutdownMode::initctl));
}

TEST_CASE("an init gets the signal that it takes for an end, or the one that the spec names") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    const auto told = [&](const std::string& traps, bool reboot, auto change) {
        (void)::unlink((root / "ready").c_str());
        ContainerSpec spec = shell(root, traps + " touch /ready; while :; do sleep 0.02; done");
        spec.console.reset();
        change(spec);
        Container container = Container::start(spec);
        REQUIRE(comes(root, "/ready"));
        CHECK((reboot ? container.reboot() : container.shutdown()));
        const auto status = container.wait_for(20s);
        return status ? status->code().value_or(-1) : -2;
    };
    const auto as_it_is = [](ContainerSpec&) {};
    const std::string all = "trap 'exit 1' TERM; trap 'exit 2' PWR; trap 'exit 3' INT; trap 'exit 4' USR1;";
    CHECK(told("trap 'exit 1' TERM;", false, as_it_is) == 1);
    CHECK(told("trap 'exit 1' TERM;", true, as_it_is) == 1);
    CHECK(told(all, false, as_it_is) == 2);
    CHECK(told(all, true, as_it_is) == 3);
    CHECK(told(all, false, [](ContainerSpec& s) { s.shutdown_signal = SIGUSR1; }) == 4);
    CHECK(told(all, true, [](ContainerSpec& s) { s.reboot_signal = SIGTERM; }) == 1);
    // The library's own init hands on what its command understands.
    CHECK(told("trap 'exit 1' TERM;", false, [](ContainerSpec& s) { s.init = true; }) == 1);
    // A script has its own file's name.
    const auto by_systemd = [&](bool reboot) {
        return told("", reboot, [&](ContainerSpec& s) {
            root.write("/systemd", "#!/bin/sh\ntrap 'exit 5' 38; trap 'exit 6' 39;" + all + s.command[2], 0755);
            s.command = {"/systemd"};
        });
    };
    CHECK(by_systemd(false) == 5);
    CHECK(by_systemd(true) == 6);
}

TEST_CASE("a stop is over half a second after its grace, whatever the payload does") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    std::string script = "trap '' TERM; touch /ready; while :; do sleep 1; done";
    bool suspend = false;
    bool stand_still = false;
    SUBCASE("it ignores SIGTERM") {}
    SUBCASE("it was stopped") {
        stand_still = true;
    }
    SUBCASE("it is suspended") {
        suspend = true;
    }
    SUBCASE("nobody reads its console") {
        script = "trap '' TERM; stty raw; touch /ready; yes";
    }
    for (const bool in_helper : {false, true}) {
        CAPTURE(in_helper);
        (void)::unlink((root / "ready").c_str());
        const Place place;
        std::optional<Container> container;
        std::optional<Helper> helper;
        ContainerSpec spec = shell(root, script);
        if (in_helper) helper = Helper::start(spec, place.options);
        else container = Container::start(spec);
        REQUIRE(comes(root, "/ready"));
        if (stand_still) CHECK((in_helper ? helper->signal(SIGSTOP) : container->signal(SIGSTOP)));
        if (suspend) in_helper ? helper->suspend() : container->suspend();
        const Process process = Process::open(in_helper ? helper->pid() : ::getpid());
        const std::int64_t from = detail::monotonic_ms();
        CHECK((in_helper ? helper->stop(200ms) : container->stop(200ms)) == ExitStatus::killed(SIGKILL));
        CHECK(milliseconds_since(from) >= 200);
        CHECK(milliseconds_since(from) < 200 + caisson_test::beyond_grace);
        if (in_helper) CHECK(process.ended_within(20'000));
    }
}

TEST_CASE("a stop that never kills is taken back by a reboot, and one that does is not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    const auto stubborn = [&] {
        return shell(root,
                     "trap 'trap \"exit 7\" TERM; touch /asked' TERM; touch /ready; while :; do sleep 0.02; done");
    };
    bool kills = false;
    SUBCASE("never") {}
    SUBCASE("in an hour") {
        kills = true;
    }
    Controller controller;
    const ContainerId id = controller.start(stubborn());
    REQUIRE(next_of(controller, Event::Kind::started));
    REQUIRE(comes(root, "/ready"));
    CHECK(controller.stop(id, kills ? std::chrono::milliseconds{1h} : std::chrono::milliseconds::max()));
    REQUIRE(comes(root, "/asked"));
    CHECK(controller.reboot(id));
    REQUIRE(next_of(controller, kills ? Event::Kind::exited : Event::Kind::rebooted));
    if (kills) return;
    CHECK(next_of(controller, Event::Kind::started));
    CHECK(controller.kill(id));
    CHECK(next_of(controller, Event::Kind::exited));
}

TEST_CASE("a process that waits in the kernel for ever is named by who stops its container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    SilentServer server;
    if (!server.fuse) CAISSON_SKIP("there is no /dev/fuse");
    const TestRoot root;
    SUBCASE("of an object") {
        Container container = Container::start(user_of(server, root));
        REQUIRE(server.is_asked());
        const std::int64_t from = detail::monotonic_ms();
        CHECK(without_numbers(error_text([&] { (void)container.stop(100ms); })) == stuck_text);
        CHECK(milliseconds_since(from) < 100 + caisson_test::beyond_grace);
        CHECK_FALSE(container.try_wait());
        server.fuse.reset();
        CHECK(container.wait_for(20s) == ExitStatus::killed(SIGKILL));
    }
    SUBCASE("of a controller") {
        Controller controller;
        const ContainerId id = controller.start(user_of(server, root));
        REQUIRE(server.is_asked());
        CHECK(controller.next()->kind == Event::Kind::started);
        CHECK_FALSE(controller.stuck(id));
        const std::int64_t from = detail::monotonic_ms();
        CHECK(controller.stop(id, 100ms));
        std::optional<Event> event;
        while (!(event = controller.next())) (void)detail::wait_readable(controller.fd(), 10000);
        CHECK(milliseconds_since(from) < 100 + caisson_test::beyond_grace);
        REQUIRE(event->kind == Event::Kind::stuck);
        CHECK_FALSE(event->is_last());
        CHECK(without_numbers(event->error->what()) == stuck_text);
        CHECK(without_numbers(controller.stuck(id)->what()) == stuck_text);
        server.fuse.reset();
        while (!(event = controller.next())) (void)detail::wait_readable(controller.fd(), 10000);
        CHECK(event->kind == Event::Kind::exited);
        CHECK(event->status == ExitStatus::killed(SIGKILL));
    }
    SUBCASE("of a helper") {
        const Place place;
        Helper helper = Helper::start(user_of(server, root), place.options);
        REQUIRE(server.is_asked());
        const std::int64_t from = detail::monotonic_ms();
        CHECK(without_numbers(error_text([&] { (void)helper.stop(100ms); })) == stuck_text);
        CHECK(milliseconds_since(from) < 100 + caisson_test::beyond_grace);
        server.fuse.reset();
        CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    }
}

TEST_CASE("a helper starts its container again where the spec says so, and tells its new init") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("again", "trap 'exit 7' TERM; echo x >> /runs; while :; do sleep 0.02; done");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    Helper helper = Helper::start(spec, place.options);
    helper.watch();
    const pid_t first = helper.info().init;
    CHECK(comes(place.root, "/runs"));
    CHECK(helper.signal(SIGKILL));
    std::string seen;
    for (;;) {
        while (const auto event = helper.next_event()) {
            if (event->kind == Event::Kind::restarting) seen += event->status->str() + ", ";
            if (event->kind == Event::Kind::started) seen += "started " + std::to_string(event->count);
        }
        if (seen.find("started 1") != std::string::npos) break;
        REQUIRE(detail::wait_readable(helper.fd(), 20000));
    }
    CHECK(seen == "killed by signal 9, started 1");
    const pid_t second = helper.info().init;
    CHECK(second != first);
    CHECK(Helper::find("again", place.run)->info().init == second);
    while (place.root.read("/runs") != "x\nx\n") REQUIRE_FALSE(detail::wait_readable(helper.fd(), 10));
    CHECK(helper.stop(20s) == ExitStatus::exited(7));
    CHECK(place.empty());
}

TEST_CASE("a helper without the rights for another start refuses a reboot, and shuts down") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("once", "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.02; done"),
                                  place.options);
    CHECK(comes(place.root, "/ready"));
    CHECK(error_text([&] { (void)helper.reboot(); }) ==
          "container 'once': reboot: Operation not permitted: its helper has given up what a start takes: leave it "
          "CAP_SYS_BOOT, set on_crash to restart, or start it again yourself");
    CHECK(helper.shutdown());
    CHECK(helper.wait() == ExitStatus::exited(7));
}

TEST_CASE("a helper keeps a preserved container, and its name, until somebody ends it") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("kept", "read go; echo words; exit 9");
    spec.on_crash = EndAction::preserve;
    Helper helper = Helper::start(spec, place.options);
    REQUIRE(::write(helper.open_console().get(), "\n", 1) == 1);
    while (!helper.info().preserved) (void)::poll(nullptr, 0, 10);
    CHECK(helper.info().preserved == ExitStatus::exited(9));
    // What the helper itself has asked at the start is no answer of anybody's.
    CHECK(error_text([&] { (void)helper.usage(); }).find("it has ended") != std::string::npos);
    CHECK_FALSE(helper.try_wait());
    Helper other = *Helper::find("kept", place.run);
    char buffer[64];
    const Fd console = other.open_console();
    CHECK(::read(console.get(), buffer, sizeof buffer) >= 5);
    CHECK(other.kill() == ExitStatus::exited(9));
    CHECK(helper.wait() == ExitStatus::exited(9));
    CHECK(place.empty());
}

TEST_CASE("a container whose keeper is killed while one of its processes waits in the kernel holds nobody up") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    SilentServer server;
    if (!server.fuse) CAISSON_SKIP("there is no /dev/fuse");
    const TestRoot root;
    Container started = Container::start(user_of(server, root));
    REQUIRE(server.is_asked());
    const Process keeper = Process::open(keeper_of(started));
    Controller controller;
    const ContainerId id = controller.adopt(std::move(started));
    REQUIRE(keeper.signal(SIGKILL));
    std::optional<Event> event;
    while (!(event = controller.next())) (void)detail::wait_readable(controller.fd(), 10000);
    CHECK(event->kind == Event::Kind::stuck);
    CHECK(without_numbers(event->error->what()) == stuck_text);
    CHECK(controller.stuck(id));
    server.fuse.reset();
    while (!(event = controller.next())) (void)detail::wait_readable(controller.fd(), 10000);
    CHECK(event->kind == Event::Kind::exited);
    CHECK(event->status == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a restart that fails leaves the user of a console what he has not read") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty raw; read go; printf 'the last words'; exit 3");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    Controller controller;
    const ContainerId id = controller.start(spec);
    const Fd user = controller.open_console(id);
    REQUIRE(::write(user.get(), "\n", 1) == 1);
    CHECK(next_of(controller, Event::Kind::restarting));
    REQUIRE(::rename((root / "bin").c_str(), (root / "away").c_str()) == 0);
    CHECK(next_of(controller, Event::Kind::failed));
    CHECK(controller.has_unread_console());
    char buffer[64];
    const ssize_t n = ::read(user.get(), buffer, sizeof buffer);
    CHECK(std::string(buffer, static_cast<std::size_t>(std::max<ssize_t>(n, 0))).ends_with("the last words"));
}

TEST_CASE(
    "who is reading gets what a killed container wrote as long as a kill may take, and a reboot changes nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; yes");
    Controller controller;
    bool kills = false;
    SUBCASE("by who wants it ended for good") {
        kills = true;
    }
    SUBCASE("by somebody else") {
        spec.on_crash = EndAction::restart;
        spec.back_off.first_pause_ms = 10;
    }
    const ContainerId id = controller.start(spec);
    const Fd user = controller.open_console(id);
    CHECK(next_of(controller, Event::Kind::started));
    while (!detail::wait_readable(user.get(), 10)) CHECK_FALSE(controller.next());
    REQUIRE(::write(user.get(), "\n", 1) == 1);
    // Until all is full.
    while (controller.console_state(id).written < 50000 || detail::wait_readable(controller.fd(), 100)) {
        CHECK_FALSE(controller.next());
    }
    const std::uint64_t written = controller.console_state(id).written;
    CHECK((kills ? controller.kill(id) : controller.signal(id, SIGKILL)));
    std::optional<Event> event;
    std::uint64_t read = 0;
    std::uint64_t lost = 0;
    bool asked = kills;
    char buffer[4096];
    const auto take = [&] {
        if (!detail::wait_readable(user.get(), 0)) return false;
        const ssize_t n = ::read(user.get(), buffer, sizeof buffer);
        read += static_cast<std::uint64_t>(std::max<ssize_t>(n, 0));
        return n > 0;
    };
    while (!event) {
        (void)::poll(nullptr, 0, 40);
        (void)take();
        event = controller.next();
        if (event && event->kind == Event::Kind::console_lost) {
            lost += event->count;
            event.reset();
        }
        if (asked || event || !controller.status(id)) continue;
        asked = true;
        CHECK(controller.reboot(id));
    }
    CHECK(asked);
    CHECK(event->kind == (kills ? Event::Kind::exited : Event::Kind::restarting));
    while (take()) {
    }
    // Who wants the end is promised it within half a second.
    CHECK((kills || lost == 0));
    CHECK(read + lost >= written);
}

TEST_CASE("what was suspended when its restart came is told to go on") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "sleep 1000");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    Controller controller;
    const ContainerId id = controller.start(spec);
    CHECK(controller.next()->kind == Event::Kind::started);
    try {
        controller.suspend(id);
    } catch (const Error& e) {
        CAISSON_SKIP(e.what());
    }
    CHECK(controller.next()->kind == Event::Kind::suspended);
    CHECK(controller.signal(id, SIGKILL));
    for (const auto kind : {Event::Kind::resumed, Event::Kind::restarting, Event::Kind::started}) {
        std::optional<Event> event;
        while (!(event = controller.next())) REQUIRE(detail::wait_readable(controller.fd(), 10000));
        CHECK(event->kind == kind);
    }
}
