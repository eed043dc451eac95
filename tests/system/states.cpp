// What a container's functions do in each of its states, and what a caller may do in between.
#include <caisson/container.hpp>
#include <caisson/controller.hpp>

#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <string>

#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("a hook sees the namespaces, before the command runs") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const ContainerSpec spec = shell(root, "cat /hooked");
    std::string name;
    pid_t init = -1;
    bool other_network = false;
    Container container = Container::start(spec, [&](const Starting& starting) {
        name = starting.name;
        init = starting.init.pid();
        other_network =
            Namespace::of(starting.init, NamespaceKind::net).id() != Namespace::current(NamespaceKind::net).id();
        root.write("/hooked", "in time\n");
    });
    CHECK(output(container) == "in time\n");
    CHECK(name == "test");
    CHECK(init == container.init().pid());
    CHECK(other_network);
    CHECK(container.wait().code() == 0);
}

TEST_CASE("what a hook throws is thrown, and nothing is left of the container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    struct Mine {
        int number;
    };
    const ContainerSpec spec = shell(root, "touch /ran");
    int thrown = 0;
    try {
        (void)Container::start(spec, [](const Starting&) { throw Mine{7}; });
    } catch (const Mine& mine) {
        thrown = mine.number;
    }
    CHECK(thrown == 7);
    const auto refuse = [](const Starting&) { throw Error{Step::network, EBUSY, "bridge of mine"}; };
    CHECK_THROWS_WITH_AS((void)Container::start(spec, refuse), "bridge of mine: Device or resource busy", Error);
    // An init that dies under it is the start's failure.
    const auto kill = [](const Starting& starting) { (void)starting.init.signal(SIGKILL); };
    std::string said;
    try {
        (void)Container::start(spec, kill);
    } catch (const Error& e) {
        said = e.what();
    }
    CHECK(said.starts_with("container 'test': init died (killed by signal 9)"));
    CHECK(::access((root / "/ran").c_str(), F_OK) != 0);
    // And one for a container that cannot begin is not called.
    ContainerSpec wrong = spec;
    wrong.root = "/no/such";
    bool called = false;
    CHECK_THROWS_AS((void)Container::start(wrong, [&](const Starting&) { called = true; }), Error);
    CHECK_FALSE(called);
}

TEST_CASE("a controller calls a hook for a start and for each restart, and tells what it throws") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    int calls = 0;
    const auto count = [&](const Starting&) { ++calls; };
    const auto next = [&](const StartHook& hook) {
        for (;;) {
            if (auto event = controller.next(hook)) return event;
            REQUIRE(detail::wait_readable(controller.fd(), 20'000));
        }
    };
    (void)controller.start(shell(root, "true"), ConsoleUse::relay, [](const Starting&) { throw 1; });
    CHECK(next({})->error->what() ==
          std::string{"container 'test': start: the hook has thrown what is no std::exception"});
    ContainerSpec spec = shell(root, "exit 1");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    (void)controller.start(spec, ConsoleUse::relay, count);
    CHECK(next(count)->kind == Event::Kind::started);
    CHECK(calls == 1);
    CHECK(next(count)->kind == Event::Kind::restarting);
    CHECK(next(count)->kind == Event::Kind::started);
    CHECK(calls == 2);
    CHECK(next(count)->kind == Event::Kind::restarting);
    const auto failed = next([](const Starting&) { throw std::runtime_error{"no address is free"}; });
    CHECK(failed->kind == Event::Kind::failed);
    CHECK(failed->error->what() == std::string{"container 'test': start: no address is free"});
    CHECK(controller.size() == 0);
}
