// What follows the end of a controller's container: restarts, their pauses, what is preserved; and how ends are asked
// for.
#include <caisson/controller.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using caisson_test::TestRoot;
using caisson_test::why_not;
using Kind = Event::Kind;

namespace {

ContainerSpec shell(const TestRoot& root, const std::string& script) {
    ContainerSpec spec;
    spec.name = "life";
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c", script};
    spec.console.reset();
    spec.back_off = {.first_pause_ms = 10, .longest_pause_ms = 40, .forget_after_ms = 10000};
    return spec;
}
ContainerSpec with_reboot(const TestRoot& root, const std::string& script) {
    ContainerSpec spec = shell(root, script);
    spec.capabilities = CapabilitySet::application().with({"sys_boot"});
    return spec;
}

/// Events as they come; nothing after half a minute.
std::optional<Event> wait_event(Controller& controller, int milliseconds = 30000) {
    const std::int64_t deadline = detail::deadline_in(milliseconds);
    for (;;) {
        if (auto event = controller.next()) return event;
        const std::int64_t left = deadline - detail::monotonic_ms();
        if (left <= 0) return std::nullopt;
        (void)detail::wait_readable(controller.fd(), left);
    }
}
std::string text_of(const Event& event) {
    switch (event.kind) {
        case Kind::started: return "started " + std::to_string(event.count);
        case Kind::failed: return std::string{"failed: "} + event.error->what();
        case Kind::exited: return (event.preserved ? "preserved: " : "exited: ") + event.status->str();
        case Kind::rebooted: return "rebooted";
        case Kind::powered_off: return "powered off";
        case Kind::restarting:
            return "restarting " + std::to_string(event.count) + " after " + std::to_string(event.pause.count()) +
                   " ms: " + event.status->str();
        case Kind::stuck: return std::string{"stuck: "} + event.error->what();
        case Kind::suspended: return "suspended";
        case Kind::resumed: return "resumed";
        case Kind::out_of_memory: return "out of memory";
        default: return "another";
    }
}
using Texts = std::vector<std::string>;
/// All events until the last one of the container, or until there are `most`.
Texts events(Controller& controller, std::size_t most = 100) {
    Texts all;
    while (all.size() < most) {
        const auto event = wait_event(controller);
        REQUIRE(event);
        all.push_back(text_of(*event));
        CHECK_FALSE((event->preserved && event->is_last()));
        if (event->is_last() || event->preserved) break;
    }
    return all;
}
std::int64_t milliseconds_since(std::int64_t from) {
    return detail::monotonic_ms() - from;
}
/// Waits until a file of the root has this content.
bool comes(const TestRoot& root, const std::string& file, const std::string& content) {
    for (int i = 0; i < 3000; ++i) {
        if (root.read(file) == content) return true;
        (void)::poll(nullptr, 0, 10);
    }
    return false;
}

}  // namespace

TEST_CASE("a container that reboots is started again with the same id, and one that powers off is not") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    const ContainerId id =
        controller.start(with_reboot(root, "if [ -e /again ]; then poweroff -f; fi; touch /again; reboot -f"));
    CHECK(events(controller) == Texts{"started 0", "rebooted", "restarting 1 after 10 ms: asked for a restart",
                                      "started 1", "powered off", "exited: powered off"});
    CHECK_FALSE(controller.signal(id, 0));
    CHECK(controller.size() == 0);
    CHECK_THROWS_WITH_AS((void)controller.status(id), "container 1: No such process: it has ended", Error);
}

TEST_CASE("an end of each kind is followed by what the spec says of it") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const auto told = [&](const std::string& script, EndAction off, EndAction reboot, EndAction crash) {
        ContainerSpec spec = with_reboot(root, script);
        spec.on_poweroff = off;
        spec.on_reboot = reboot;
        spec.on_crash = crash;
        spec.back_off.most = 1;
        Controller controller;
        (void)controller.start(spec);
        return events(controller);
    };
    using enum EndAction;
    CHECK(told("exit 0", restart, destroy, destroy) == Texts{"started 0",
                                                             "restarting 1 after 10 ms: exited with status 0",
                                                             "started 1", "exited: exited with status 0"});
    CHECK(told("exit 3", restart, restart, destroy) == Texts{"started 0", "exited: exited with status 3"});
    CHECK(told("exit 3", destroy, destroy, restart) == Texts{"started 0",
                                                             "restarting 1 after 10 ms: exited with status 3",
                                                             "started 1", "exited: exited with status 3"});
    CHECK(told("reboot -f", destroy, destroy, restart) ==
          Texts{"started 0", "rebooted", "exited: asked for a restart"});
}

TEST_CASE("pauses grow, are forgotten after a long run, and the most restarts in a row end it") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "exit 1");
    spec.on_crash = EndAction::restart;
    spec.back_off.most = 4;
    Controller controller;
    const std::int64_t from = detail::monotonic_ms();
    (void)controller.start(spec);
    const std::string status = " ms: exited with status 1";
    CHECK(events(controller) == Texts{"started 0", "restarting 1 after 10" + status, "started 1",
                                      "restarting 2 after 20" + status, "started 2", "restarting 3 after 40" + status,
                                      "started 3", "restarting 4 after 40" + status, "started 4",
                                      "exited: exited with status 1"});
    CHECK(milliseconds_since(from) >= 10 + 20 + 40 + 40);
    spec.back_off.forget_after_ms = 0;
    spec.back_off.most = 1;
    (void)controller.start(spec);
    CHECK(events(controller, 6).back() == "restarting 3 after 10" + status);
}

TEST_CASE("stopping a container that waits for its restart is its end, with the status that it had") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "exit 5");
    spec.on_crash = EndAction::restart;
    spec.back_off = {.first_pause_ms = 60000, .longest_pause_ms = 60000};
    Controller controller;
    const ContainerId id = controller.start(spec);
    CHECK(events(controller, 2).back() == "restarting 1 after 60000 ms: exited with status 5");
    CHECK(controller.size() == 1);
    CHECK(controller.status(id) == ExitStatus::exited(5));
    CHECK_FALSE(controller.signal(id, SIGTERM));
    CHECK_THROWS_WITH_AS(controller.suspend(id),
                         "container 1: No such process: it has ended, and is about to be started again", Error);
    SUBCASE("by stop") {
        CHECK(controller.stop(id, 0s));
    }
    SUBCASE("by shutdown") {
        CHECK(controller.shutdown(id));
    }
    CHECK(events(controller) == Texts{"exited: exited with status 5"});
    CHECK(controller.size() == 0);
}

TEST_CASE("a container that was stopped, or told to shut down, is not started again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.02; done");
    spec.on_crash = EndAction::restart;
    Controller controller;
    const ContainerId id = controller.start(spec);
    CHECK(comes(root, "/ready", ""));
    bool was_shutdown = false;
    // Until the shell has set its trap, the signal is none to an init.
    SUBCASE("by stop") {
        while (controller.stop(id, 20s)) (void)::poll(nullptr, 0, 20);
    }
    SUBCASE("by shutdown") {
        was_shutdown = true;
        while (controller.shutdown(id)) (void)::poll(nullptr, 0, 20);
    }
    const Texts all = events(controller);
    CHECK(all.back() == "exited: exited with status 7");
    CHECK((all.size() == 3) == was_shutdown);
}

TEST_CASE("a reboot that was asked for starts any command again that ends by its signal, at once and uncounted") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "echo x >> /runs; trap 'exit 7' TERM; while :; do sleep 0.02; done");
    spec.back_off = {.first_pause_ms = 60000, .longest_pause_ms = 60000, .most = 0};
    Controller controller;
    const ContainerId id = controller.start(spec);
    CHECK(events(controller, 1) == Texts{"started 0"});
    std::optional<Event> event;
    while (controller.reboot(id) && !(event = wait_event(controller, 50))) continue;
    if (!event) event = wait_event(controller);
    REQUIRE(event);
    CHECK(text_of(*event) == "rebooted");
    CHECK(events(controller, 2) == Texts{"restarting 1 after 0 ms: exited with status 7", "started 1"});
    CHECK(comes(root, "/runs", "x\nx\n"));
    CHECK(controller.stop(id, 0s));
    CHECK(events(controller) == Texts{"exited: killed by signal 9"});
}

TEST_CASE("what a spec lends for one start is not there for a reboot, and is kept where it restarts by itself") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Fd reader{ends[0]};
    Fd writer{ends[1]};
    ContainerSpec spec = shell(root, "echo run; exit 1");
    spec.stdio.out = writer.get();
    {
        ContainerSpec waits = spec;
        waits.command[2] = "sleep 1000";
        Controller controller;
        const ContainerId id = controller.start(waits);
        CHECK_THROWS_WITH_AS((void)controller.reboot(id),
                             "container 'life': reboot: Bad file descriptor: its stdio and descriptors were lent for "
                             "one start: set on_crash to restart, or start it yourself",
                             Error);
    }
    spec.on_crash = EndAction::restart;
    spec.back_off.most = 2;
    Controller controller;
    (void)controller.start(spec);
    writer.reset();
    CHECK(events(controller).size() == 6);
    std::string all;
    char buffer[64];
    for (ssize_t n = 0; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
        all.append(buffer, static_cast<std::size_t>(n));
    CHECK(all == "run\nrun\nrun\n");
}

TEST_CASE("a preserved container keeps its status, its console's rest and its last usage until it is released") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty raw; echo words; read x; printf last; exit 9");
    spec.console.emplace();
    spec.on_crash = EndAction::preserve;
    Controller controller;
    const ContainerId id = controller.start(spec);
    const Fd user = controller.open_console(id);
    const Usage before = controller.usage(id);
    (void)controller.usage(id, UsagePart::pids);
    REQUIRE(::write(user.get(), "\n", 1) == 1);
    CHECK(events(controller).back() == "preserved: exited with status 9");
    CHECK(controller.size() == 0);
    CHECK(controller.status(id) == ExitStatus::exited(9));
    CHECK(controller.usage(id) == before);
    CHECK_FALSE(controller.stop(id, 0s));
    CHECK_FALSE(controller.reboot(id));
    CHECK_FALSE(wait_event(controller, 100));
    char buffer[64];
    std::string all;
    const Fd late = detail::sys::open(controller.console_path(id), O_RDONLY | O_NOCTTY | O_NONBLOCK);
    for (ssize_t n = 0; (n = ::read(late.get(), buffer, sizeof buffer)) > 0;)
        all.append(buffer, static_cast<std::size_t>(n));
    CHECK(all.ends_with("last"));
    CHECK(controller.release(id));
    CHECK_FALSE(controller.release(id));
    CHECK_THROWS_AS((void)controller.status(id), Error);
}

TEST_CASE("whoever is at a relayed console stays there when the container is started again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec =
        with_reboot(root,
                    "stty raw -echo; if [ -e /again ]; then echo second; read x; echo \"<$x>\"; exit 0; fi; "
                    "touch /again; echo first; reboot -f");
    spec.console.emplace();
    Controller controller;
    const ContainerId id = controller.start(spec);
    const std::string path = controller.console_path(id);
    const Fd user = detail::sys::open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    std::string all;
    bool sent = false;
    for (bool ended = false; !ended;) {
        pollfd p[2]{{controller.fd(), POLLIN, 0}, {user.get(), POLLIN, 0}};
        REQUIRE(::poll(p, 2, 30000) > 0);
        while (const auto event = controller.next()) ended = ended || event->is_last();
        char buffer[256];
        for (ssize_t n = 0; (n = ::read(user.get(), buffer, sizeof buffer)) > 0;)
            all.append(buffer, static_cast<std::size_t>(n));
        if (!std::exchange(sent, sent || all.find("second") != std::string::npos) && sent) {
            CHECK(controller.console_path(id) == path);
            REQUIRE(::write(user.get(), "typed\n", 6) == 6);
        }
    }
    CHECK(all.find("first") < all.find("second"));
    CHECK(all.find("<typed>") != std::string::npos);
}

TEST_CASE("a restart that fails is told with its reason, and is the last event") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "rm /bin/sh; exit 1");
    spec.on_crash = EndAction::restart;
    Controller controller;
    (void)controller.start(spec);
    const Texts all = events(controller);
    CHECK(all.back().starts_with("failed: container 'life': command '/bin/sh' (in the child): No such file"));
    CHECK(controller.size() == 0);
}

TEST_CASE("a handler that throws leaves the loop whole: what comes next is told by the next run, or by the same") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "exit 3");
    (void)controller.start(spec);
    std::string seen;
    const auto handle = [&](const Event& event) {
        seen += text_of(event) + "; ";
        if (event.is_last()) controller.stop();
        throw std::string{"thrown at "} + text_of(event);
    };
    // Of each kind of end that a run has.
    for (const char* wanted : {"thrown at started 0", "thrown at exited: exited with status 3"}) {
        try {
            controller.run(handle);
            FAIL("nothing was thrown");
        } catch (const std::string& thrown) {
            CHECK(thrown == wanted);
        }
    }
    CHECK(seen == "started 0; exited: exited with status 3; ");
    // The stop before is still due.
    controller.run(handle);

    seen.clear();
    spec.on_crash = EndAction::restart;
    spec.back_off.most = 1;
    (void)controller.start(spec);
    int caught = 0;
    controller.run_on(handle, [&](const std::exception_ptr& exception) {
        CHECK_THROWS_AS(std::rethrow_exception(exception), std::string);
        ++caught;
    });
    CHECK(caught == 4);
    CHECK(seen ==
          "started 0; restarting 1 after 10 ms: exited with status 3; started 1; exited: exited with status 3; ");
    CHECK(controller.size() == 0);
}

TEST_CASE("fifty idle containers cost one descriptor's wait, and nobody is woken by them") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "exec sleep 1000");
    std::vector<ContainerId> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(controller.start(spec));
    for (int i = 0; i < 50; ++i) CHECK(wait_event(controller)->kind == Kind::started);
    while (detail::wait_readable(controller.fd(), 300)) CHECK_FALSE(controller.next());
    CHECK_FALSE(detail::wait_readable(controller.fd(), 1000));
    for (const ContainerId id : ids) CHECK(controller.kill(id));
    for (int i = 0; i < 50; ++i) CHECK(text_of(*wait_event(controller)) == "exited: killed by signal 9");
    // Deadlines of who has ended are swallowed.
    while (detail::wait_readable(controller.fd(), 500)) CHECK_FALSE(controller.next());
}

TEST_CASE("a start that another thread gives up leaves nothing behind, whenever that is, or has succeeded") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const ContainerSpec spec = shell(root, "exec sleep 1000");
    int cancelled = 0;
    int started = 0;
    for (int round = 0; round < 60; ++round) {
        Cancellation cancellation;
        std::thread thread{[&, round] {
            std::this_thread::sleep_for(std::chrono::microseconds{round * 100});
            cancellation.request();
        }};
        try {
            Container container = Container::start(spec, {}, &cancellation);
            ++started;
        } catch (const Error& e) {
            CHECK(e.code().value() == ECANCELED);
            CHECK(std::string{e.what()} == "container 'life': start: Operation canceled");
            ++cancelled;
        }
        thread.join();
    }
    CAPTURE(started);
    CHECK(cancelled > 0);
    // The same where it comes in the middle for certain, and in a controller.
    Cancellation cancellation;
    const auto cancel = [&](const Starting&) { cancellation.request(); };
    Controller controller;
    const ContainerId id = controller.start(spec, ConsoleUse::relay, cancel, &cancellation);
    CHECK(events(controller) == Texts{"failed: container 'life': start: Operation canceled"});
    CHECK_FALSE(controller.stop(id, 0s));
    CHECK(cancellation.requested());
    CHECK_THROWS_AS((void)Container::start(spec, {}, &cancellation), Error);
}

TEST_CASE("one whose restart is due and not begun is not started any more once it is stopped") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "exit 3");
    spec.on_crash = EndAction::restart;
    Controller controller;
    std::vector<ContainerId> ids;
    for (int i = 0; i < 2; ++i) {
        spec.name = "life" + std::to_string(i);
        ids.push_back(controller.start(spec));
    }
    for (int restarting = 0; restarting < 2;) {
        const auto event = wait_event(controller);
        REQUIRE(event);
        restarting += event->kind == Kind::restarting ? 1 : 0;
        if (event->count > 1 || (event->kind == Kind::started && event->count == 1)) {
            CAISSON_SKIP("this machine is too slow for both to be due at once");
        }
    }
    (void)::poll(nullptr, 0, 150);
    const auto first = wait_event(controller);
    REQUIRE(first);
    CHECK(first->kind == Kind::started);
    const ContainerId other = first->id == ids[0] ? ids[1] : ids[0];
    CHECK(controller.stop(other, 0s));
    std::optional<Event> event;
    do {
        event = wait_event(controller);
        REQUIRE(event);
    } while (event->id != other);
    CHECK(text_of(*event) == "exited: exited with status 3");
}

TEST_CASE("a raw console that went with the restart does not come again with the end") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "exit 3");
    spec.console.emplace();
    spec.on_crash = EndAction::restart;
    spec.back_off = {.first_pause_ms = 60000, .longest_pause_ms = 60000};
    Controller controller;
    const ContainerId id = controller.start(spec, ConsoleUse::raw);
    CHECK(wait_event(controller)->kind == Kind::started);
    const auto restarting = wait_event(controller);
    REQUIRE(restarting);
    CHECK(restarting->console);
    CHECK(controller.stop(id, 0s));
    const auto end = wait_event(controller);
    REQUIRE(end);
    CHECK(text_of(*end) == "exited: exited with status 3");
    CHECK_FALSE(end->console);
}

TEST_CASE("what cannot be kept open for a restart is refused at once") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const Fd lent = detail::sys::open("/dev/null", O_WRONLY);
    ContainerSpec spec = shell(root, "exit 3");
    spec.stdio.out = lent.get();
    spec.on_crash = EndAction::restart;
    Controller controller;
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit least{1, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &least) == 0);
    (void)controller.start(spec);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(events(controller) == Texts{"failed: container 'life': descriptor " + std::to_string(lent.get()) +
                                      ": Too many open files: raise 'ulimit -n'"});
}
