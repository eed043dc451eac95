// Family H: endless output, objects in the wrong state, and what the environment could say. What parses XML is in
// unit/xml_gate.cpp, what parses passwd(5) in system/command.cpp.
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// Of this process, in KiB, without what is shared with files.
long resident() {
    std::string status;
    REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/self/status", status));
    return std::stol(status.substr(status.find("RssAnon:") + 8));
}

// What is freed stays for a while with the address sanitizer.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr long some_memory = 16 * 1024;
#else
constexpr long some_memory = 1024;
#endif
#else
constexpr long some_memory = 1024;
#endif

/// "" where `f` returns, else what kind of exception it throws.
std::string thrown_by(const std::function<void()>& f) {
    try {
        f();
        return "";
    } catch (const Error&) {
        return "Error";
    } catch (const std::logic_error&) {
        return "logic_error";
    } catch (...) {
        return "something else";
    }
}

}  // namespace

TEST_CASE("CVE-2022-31030, CVE-2022-1708: output without end that nobody reads takes no memory of the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    // Says when it has written as much as there is room for, and goes on.
    const ContainerSpec spec = shell(root, "yes 0123456789abcdef & yes 0123456789abcdef; wait");
    const auto run_for = [&](std::chrono::milliseconds time) {
        const std::int64_t deadline = detail::monotonic_ms() + time.count();
        while (detail::monotonic_ms() < deadline) {
            while (controller.next()) continue;
            (void)detail::wait_readable(controller.fd(), 20);
        }
    };
    for (const ConsoleUse use : {ConsoleUse::relay, ConsoleUse::raw}) {
        std::string buffer(1 << 20, 0);
        const long before = resident();
        const ContainerId id = controller.start(spec, use);
        run_for(std::chrono::milliseconds{300});
        // A reader who takes some and then sleeps.
        std::optional<Fd> user;
        if (use == ConsoleUse::relay) user = controller.open_console(id);
        const int fd = user ? user->get() : controller.console_fd(id);
        for (std::size_t got = 0; got < (std::size_t{8} << 20);) {
            if (use == ConsoleUse::relay) run_for(std::chrono::milliseconds{0});
            while (controller.next()) continue;
            if (!detail::wait_readable(fd, 100)) continue;
            const ssize_t n = ::read(fd, buffer.data(), buffer.size());
            REQUIRE(n > 0);
            got += static_cast<std::size_t>(n);
        }
        run_for(std::chrono::milliseconds{700});
        CHECK(resident() - before < some_memory);
        (void)::kill(controller.init_pid(id), SIGKILL);
        while (controller.size() != 0) run_for(std::chrono::milliseconds{10});
    }
}

TEST_CASE("CVE-2013-6436: each call on a container in each state returns, or throws what it is to throw") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    struct Call {
        const char* name;
        std::function<void(Container&)> make;
        const char* running;
        const char* ended;
        const char* moved_from;
    };
    using std::chrono::milliseconds;
    const std::vector<Call> calls{
        {"name", [](Container& c) { (void)c.name(); }, "", "", ""},
        {"init", [](Container& c) { (void)c.init().pid(); }, "", "", ""},
        {"fd", [](Container& c) { (void)c.fd(); }, "", "", ""},
        {"console", [](Container& c) { (void)c.console(); }, "", "", ""},
        {"open_namespace", [](Container& c) { (void)c.open_namespace(NamespaceKind::pid); }, "", "Error",
         "logic_error"},
        {"usage", [](Container& c) { (void)c.usage(); }, "", "Error", "logic_error"},
        {"signal 0", [](Container& c) { (void)c.signal(0); }, "", "", "logic_error"},
        {"signal of no number", [](Container& c) { (void)c.signal(12345); }, "Error", "", "logic_error"},
        {"try_wait", [](Container& c) { (void)c.try_wait(); }, "", "", "logic_error"},
        {"wait_for", [](Container& c) { (void)c.wait_for(milliseconds{0}); }, "", "", "logic_error"},
        {"stop", [](Container& c) { (void)c.stop(milliseconds{0}); }, "", "", "logic_error"},
        {"kill", [](Container& c) { (void)c.kill(); }, "", "", "logic_error"},
        {"wait", [](Container& c) { (void)c.wait(); }, "", "", "logic_error"},
        {"move", [](Container& c) { const Container other = std::move(c); }, "", "", ""},
    };
    for (const Call& call : calls) {
        CAPTURE(call.name);
        const auto ending = std::string{call.name} == "wait";
        Container running = Container::start(shell(root, ending ? "true" : "sleep 1000"));
        CHECK(thrown_by([&] { call.make(running); }) == call.running);
        Container ended = Container::start(shell(root, "true"));
        (void)ended.wait();
        CHECK(thrown_by([&] { call.make(ended); }) == call.ended);
        // Twice in the same state is the same.
        if (std::string{call.name} != "move") CHECK(thrown_by([&] { call.make(ended); }) == call.ended);
        Container from = Container::start(shell(root, "true"));
        const Container to = std::move(from);
        CHECK(thrown_by([&] { call.make(from); }) == call.moved_from);
        // One whose keeper and init were killed, and nobody has asked yet.
        Container killed = Container::start(shell(root, "sleep 1000"));
        (void)::kill(std::stoi(keeper_directory(killed).substr(6)), SIGKILL);
        (void)killed.init().ended_within(5000);
        const std::string thrown = thrown_by([&] { call.make(killed); });
        CHECK((thrown == "" || thrown == "Error"));
    }
}

TEST_CASE("CVE-2013-6436: each call on a controller about a container that it does not have is refused") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    Controller controller;
    const auto id = static_cast<ContainerId>(12345);
    const std::vector<std::pair<const char*, std::function<void()>>> calls{
        {"console_path", [&] { (void)controller.console_path(id); }},
        {"open_console", [&] { (void)controller.open_console(id); }},
        {"console_fd", [&] { (void)controller.console_fd(id); }},
        {"init_pid", [&] { (void)controller.init_pid(id); }},
        {"usage", [&] { (void)controller.usage(id); }},
    };
    for (const auto& [name, call] : calls) {
        const std::string called = name;
        CAPTURE(called);
        const std::string thrown = thrown_by(call);
        CHECK((thrown == "Error" || thrown == "logic_error"));
    }
    CHECK_FALSE(controller.next().has_value());
}

TEST_CASE("CVE-2013-4400: the host's environment says nothing to the library, and nothing of it comes inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const TestDirectory elsewhere;
    const int result = in_child([&] {
        for (const char* name : {"PATH", "HOME", "TERM", "SHELL", "USER", "TMPDIR", "XDG_RUNTIME_DIR", "LD_PRELOAD",
                                 "LD_LIBRARY_PATH", "LIBVIRT_DEBUG", "CAISSON_DEBUG", "CAISSON_HELPER", "CAISSON_STAGE",
                                 "CAISSON_RUN", "NOTIFY_SOCKET", "container", "container_uuid", "SECRET"}) {
            (void)::setenv(name, elsewhere.path().c_str(), 1);
        }
        const std::string expected =
            "HOME=/\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nTERM=linux\n"
            "container=caisson\n";
        const std::string script = "tr '\\0' '\\n' < /proc/1/environ | sort";
        const std::string text = attempt(shell(place.root, script));
        if (text != expected) {
            std::fprintf(stderr, "%s", text.c_str());
            return 1;
        }
        Helper helper = Helper::start(place.spec("web", "read line; " + script), place.options);
        std::string environment;
        if (!detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(helper.pid()) + "/environ").c_str(),
                                    environment)) {
            return 2;
        }
        (void)helper.kill();
        if (contains(environment, elsewhere.path())) return 3;
        return std::filesystem::is_empty(elsewhere.path()) ? 0 : 4;
    });
    CHECK(result == 0);
    CHECK(place.empty());
}
