// What each function does in each state of what it is called for: it works, or says why not.
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/exec.hpp>
#include <caisson/helper.hpp>
#include <caisson/mount.hpp>

#include <csignal>
#include <string>

#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/states.hpp"

using namespace caisson;
using namespace caisson_test;
using namespace std::chrono_literals;

namespace {

constexpr bool changes = true;
// What is called by its name only, in the tables: an argument that is right.
const LimitSpec some_limits{.pids = 100};
const NetworkSpec some_network{.bridge = "no-such-bridge"};
const DeviceSpec some_device{.source = "/dev/null", .target = "null2"};
const MountSpec some_mount = MountSpec::tmpfs("/tmp", 1 << 20);
const ExecSpec some_command{.command = {"/bin/true"}};

const TestRoot& shared_root() {
    static const TestRoot root;
    return root;
}
/// Ignores SIGTERM, and says when it does.
ContainerSpec stubborn(const std::string& name) {
    ContainerSpec spec = shell(shared_root(), "trap '' TERM; echo; while :; do sleep 1000; done");
    spec.name = name;
    return spec;
}
std::unique_ptr<Container> started() {
    auto container = std::make_unique<Container>(Container::start(stubborn("states")));
    char byte;
    REQUIRE(::read(container->console()->fd(), &byte, 1) == 1);
    return container;
}
std::unique_ptr<Container> ended() {
    auto container = started();
    (void)container->signal(SIGKILL);
    REQUIRE(detail::wait_readable(container->fd(), 20'000));
    return container;
}

}  // namespace

TEST_CASE("every function of a container, in every state, works or says why not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    (void)shared_root();
    const LeavesNothing nothing;
    const std::vector<State<Container>> states{
        {"moved from",
         [] {
             auto container = started();
             const Container other = std::move(*container);
             return container;
         }},
        {"running", started},
        {"suspended",
         [] {
             auto container = started();
             container->suspend();
             return container;
         }},
        {"stopping",
         [] {
             auto container = started();
             (void)container->ask_to_stop();
             return container;
         }},
        {"ended", ended},
        {"waited for",
         [] {
             auto container = ended();
             (void)container->wait();
             return container;
         }},
        {"a copy's", started, true},
    };
    check_states<Container>(
        states, {
                    {"name", "+++++++", [](Container& c) { (void)c.name(); }},
                    {"init", "+++++++", [](Container& c) { (void)c.init(); }},
                    {"fd", "+++++++", [](Container& c) { (void)c.fd(); }},
                    {"console", "+++++++", [](Container& c) { (void)c.console(); }},
                    {"cgroup", "+++++++", [](Container& c) { (void)c.cgroup(); }},
                    {"oom_kills", "+++++++", [](Container& c) { (void)c.oom_kills(); }},
                    {"open_namespace", "L+++EEL", [](Container& c) { (void)c.open_namespace(NamespaceKind::pid); }},
                    {"usage", "L+++EEL", [](Container& c) { (void)c.usage(); }},
                    {"limit", "L+++EEL", [](Container& c) { c.limit(some_limits); }},
                    {"limits", "L+++EEL", [](Container& c) { (void)c.limits(); }},
                    {"security_report", "L+++EEL", [](Container& c) { (void)c.security_report(); }},
                    {"suspended", "L+++EEL", [](Container& c) { (void)c.suspended(); }},
                    {"freezer", "L+++EEL", [](Container& c) { (void)c.freezer("state of"); }},
                    {"stuck", "L+++++L", [](Container& c) { (void)c.stuck(); }},
                    {"exec", "L+E+EEL", [](Container& c) { (void)c.exec(some_command).wait(); }},
                    {"copy_in", "LEEEEEL", [](Container& c) { c.copy_in("/none", "/tmp/none"); }},
                    {"copy_out", "LEEEEEL", [](Container& c) { c.copy_out("/none", "/none/none"); }},
                    {"exec_ticket", "L+++EEL", [](Container& c) { (void)c.exec_ticket(); }},
                    {"attach", "LEEEEEL", [](Container& c) { (void)c.attach(some_network); }},
                    {"attach", "L+++EEL", [](Container& c) { c.attach(some_device); }},
                    {"attach", "L+++EEL", [](Container& c) { c.attach(some_mount); }},
                    {"detach_network", "LEEEEEL", [](Container& c) { c.detach_network("eth7"); }},
                    {"detach_device", "LEEEEEL", [](Container& c) { c.detach_device("none"); }},
                    {"detach_mount", "LEEEEEL", [](Container& c) { c.detach_mount("/none"); }},
                    {"hotplug_state", "+++++++", [](Container& c) { (void)c.hotplug_state(); }},
                    {"hotplug", "L+++EEL", [](Container& c) { (void)c.hotplug("attach to"); }},
                    {"try_wait", "L+++++L", [](Container& c) { (void)c.try_wait(); }},
                    {"wait", "L---++L", [](Container& c) { (void)c.wait(); }},
                    {"wait_for", "L+++++L", [](Container& c) { (void)c.wait_for(1ms); }},
                    {"signal", "L+++++L", [](Container& c) { (void)c.signal(SIGWINCH); }},
                    {"suspend", "L+++EEL", [](Container& c) { c.suspend(); }, changes},
                    {"resume", "L+++EEL", [](Container& c) { c.resume(); }, changes},
                    {"shutdown", "L+++++L", [](Container& c) { (void)c.shutdown(); }, changes},
                    {"reboot", "L+++++L", [](Container& c) { (void)c.reboot(); }, changes},
                    {"ask_to_stop", "L+++++L", [](Container& c) { (void)c.ask_to_stop(); }, changes},
                    {"stop", "L+++++L", [](Container& c) { (void)c.stop(1ms); }, changes},
                    {"kill", "L+++++L", [](Container& c) { (void)c.kill(); }, changes},
                    {"kill_all", "L+++++L", [](Container& c) { (void)c.kill_all(); }, changes},
                    {"lend_to_copy", "+++++++", [](Container& c) { c.lend_to_copy(); }, changes},
                });
}

namespace {

struct ControllerCase {
    Controller controller{};
    ContainerId id{};

    explicit ControllerCase(const ContainerSpec& spec) : id{controller.start(spec)} {}
    Event until(Event::Kind kind) {
        for (;;) {
            while (auto event = controller.next()) {
                if (event->kind == kind) return std::move(*event);
            }
            REQUIRE(detail::wait_readable(controller.fd(), 20'000));
        }
    }
};
bool has_groups(ControllerCase& one) {
    try {
        return (void)one.controller.limits(one.id), true;
    } catch (const Error&) {
        return false;
    }
}
std::unique_ptr<ControllerCase> controlled(EndAction on_crash = EndAction::destroy) {
    ContainerSpec spec = stubborn("controlled");
    spec.on_crash = on_crash;
    auto one = std::make_unique<ControllerCase>(spec);
    (void)one->until(Event::Kind::started);
    return one;
}

}  // namespace

TEST_CASE("every function of a controller, for a container in every state, works or says why not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    (void)shared_root();
    const LeavesNothing nothing;
    const std::vector<State<ControllerCase>> states{
        {"never there",
         [] {
             auto one = controlled();
             one->id = ContainerId{99};
             return one;
         }},
        {"running", [] { return controlled(); }},
        {"suspended",
         [] {
             auto one = controlled();
             one->controller.suspend(one->id);
             return one;
         }},
        {"ended",
         [] {
             auto one = controlled();
             const Process init = Process::open(one->controller.init_pid(one->id));
             (void)one->controller.signal(one->id, SIGKILL);
             REQUIRE(init.ended_within(20'000));
             for (int waited = 0; waited < 20'000 && has_groups(*one); ++waited) ::usleep(1000);
             return one;
         }},
        {"told to have ended",
         [] {
             auto one = controlled();
             (void)one->controller.signal(one->id, SIGKILL);
             (void)one->until(Event::Kind::exited);
             return one;
         }},
        {"preserved",
         [] {
             auto one = controlled(EndAction::preserve);
             (void)one->controller.signal(one->id, SIGKILL);
             (void)one->until(Event::Kind::exited);
             return one;
         }},
        {"taken",
         [] {
             auto one = controlled();
             (void)one->controller.take(one->id);
             return one;
         }},
        {"a copy's", [] { return controlled(); }, true},
    };
    using C = ControllerCase;
    check_states<ControllerCase>(
        states, {
                    {"fd", "++++++++", [](C& c) { (void)c.controller.fd(); }},
                    {"size", "+++++++L", [](C& c) { (void)c.controller.size(); }},
                    {"has_unread_console", "+++++++L", [](C& c) { (void)c.controller.has_unread_console(); }},
                    {"status", "L+++E+EL", [](C& c) { (void)c.controller.status(c.id); }},
                    {"stuck", "L++++++L", [](C& c) { (void)c.controller.stuck(c.id); }},
                    {"suspended", "L++EEEEL", [](C& c) { (void)c.controller.suspended(c.id); }},
                    {"watch_pressure", counted("L++EEEEL"),
                     [](C& c) { c.controller.watch_pressure(c.id, MemoryPressure::low); }},
                    {"usage", "L++EEEEL", [](C& c) { (void)c.controller.usage(c.id); }},
                    {"limit", "L++EEEEL", [](C& c) { c.controller.limit(c.id, some_limits); }},
                    {"limits", "L++EEEEL", [](C& c) { (void)c.controller.limits(c.id); }},
                    {"resize", "L++++++L",
                     [](C& c) {
                         (void)c.controller.resize(c.id, {10, 20});
                     }},
                    {"console_path", "L+++E+EL", [](C& c) { (void)c.controller.console_path(c.id); }},
                    {"open_console", "L+++E+EL", [](C& c) { (void)c.controller.open_console(c.id); }},
                    {"attach_console", "L+++E+EL", [](C& c) { (void)c.controller.attach_console(c.id); }},
                    {"detach_viewers", "L+++E+EL", [](C& c) { c.controller.detach_viewers(c.id); }},
                    {"console_state", "L+++E+EL", [](C& c) { (void)c.controller.console_state(c.id); }},
                    {"console_fd", "L+++EEEL", [](C& c) { (void)c.controller.console_fd(c.id); }},
                    {"init_pid", "L+++EEEL", [](C& c) { (void)c.controller.init_pid(c.id); }},
                    {"attach", "LEEEEEEL", [](C& c) { (void)c.controller.attach(c.id, some_network); }},
                    {"attach", "L++EEEEL", [](C& c) { c.controller.attach(c.id, some_device); }},
                    {"detach_network", "LEEEEEEL", [](C& c) { c.controller.detach_network(c.id, "eth7"); }},
                    {"detach_device", "LEEEEEEL", [](C& c) { c.controller.detach_device(c.id, "none"); }},
                    {"detach_mount", "LEEEEEEL", [](C& c) { c.controller.detach_mount(c.id, "/none"); }},
                    {"hotplug_state", "L+++EEEL", [](C& c) { (void)c.controller.hotplug_state(c.id); }},
                    {"signal", "L++++++L", [](C& c) { (void)c.controller.signal(c.id, SIGWINCH); }},
                    {"reattach", "EEEEEEEL", [](C& c) { (void)c.controller.reattach("no-such", "/no/such"); }},
                    {"adopt", "LLLLLLLL",
                     [](C& c) {
                         Container container = Container::start(stubborn("adopted"));
                         const Container other = std::move(container);
                         (void)c.controller.adopt(std::move(container));
                     }},
                    {"start", "+++++++L", [](C& c) { (void)c.controller.start(ContainerSpec{}); }},
                    {"next", "+++++++L", [](C& c) { (void)c.controller.next(); }},
                    {"run", "+++++++L",
                     [](C& c) {
                         c.controller.stop();
                         c.controller.run([](const Event&) {});
                     }},
                    {"run_on", "+++++++L",
                     [](C& c) {
                         c.controller.stop();
                         c.controller.run_on([](const Event&) {}, [](const std::exception_ptr&) {});
                     }},
                    {"exec", "L+EEEEEL", [](C& c) { (void)c.controller.exec(c.id, some_command).wait(); }},
                    {"exec_ticket", "L++EEEEL", [](C& c) { (void)c.controller.exec_ticket(c.id); }},
                    {"suspend", "L++EEEEL", [](C& c) { c.controller.suspend(c.id); }, changes},
                    {"resume", "L++EEEEL", [](C& c) { c.controller.resume(c.id); }, changes},
                    {"release", "L++++++L", [](C& c) { (void)c.controller.release(c.id); }, changes},
                    {"take", "L+++EEEL", [](C& c) { (void)c.controller.take(c.id); }, changes},
                    {"shutdown", "L++++++L", [](C& c) { (void)c.controller.shutdown(c.id); }, changes},
                    {"reboot", "L++++++L", [](C& c) { (void)c.controller.reboot(c.id); }, changes},
                    {"stop", "L++++++L", [](C& c) { (void)c.controller.stop(c.id, 1ms); }, changes},
                    {"kill", "L++++++L", [](C& c) { (void)c.controller.kill(c.id); }, changes},
                });
}

namespace {

struct HelperCase {
    TestDirectory directory{};
    std::string run = directory / "run";
    Helper helper;

    HelperCase() : helper{Helper::start(spec(), {.run_directory = run})} {}
    HelperCase(const HelperCase&) = delete;
    ~HelperCase() {
        if (helper.fd() >= 0) (void)helper.kill();
    }
    /// Without a console, for whose reader a helper would wait.
    static ContainerSpec spec() {
        ContainerSpec spec = stubborn("helped");
        spec.console.reset();
        return spec;
    }
    /// SIGKILL, and nobody has asked since.
    void end() {
        const Process init = Process::open(helper.info().init);
        (void)init.signal(SIGKILL);
        REQUIRE(init.ended_within(20'000));
        REQUIRE(detail::wait_readable(helper.fd(), 20'000));
    }
};

}  // namespace

TEST_CASE("every function of a helper, in every state, works or says why not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    (void)shared_root();
    const LeavesNothing nothing;
    const auto running = [] { return std::make_unique<HelperCase>(); };
    const std::vector<State<HelperCase>> states{
        {"moved from",
         [] {
             auto one = std::make_unique<HelperCase>();
             (void)Helper{std::move(one->helper)}.kill();
             return one;
         }},
        {"running", running},
        {"suspended",
         [] {
             auto one = std::make_unique<HelperCase>();
             one->helper.suspend();
             return one;
         }},
        {"ended",
         [] {
             auto one = std::make_unique<HelperCase>();
             one->end();
             return one;
         }},
        {"waited for",
         [] {
             auto one = std::make_unique<HelperCase>();
             (void)one->helper.kill();
             return one;
         }},
        {"killed with its container",
         [] {
             auto one = std::make_unique<HelperCase>();
             REQUIRE(::kill(one->helper.pid(), SIGKILL) == 0);
             REQUIRE(detail::wait_readable(one->helper.fd(), 20'000));
             return one;
         }},
        {"a copy's", running, true},
    };
    using H = HelperCase;
    check_states<HelperCase>(
        states, {
                    {"name", "+++++++", [](H& h) { (void)h.helper.name(); }},
                    {"pid", "+++++++", [](H& h) { (void)h.helper.pid(); }},
                    {"fd", "+++++++", [](H& h) { (void)h.helper.fd(); }},
                    {"info", "L++EEE+", [](H& h) { (void)h.helper.info(); }},
                    {"set_note", "L++EEE+", [](H& h) { h.helper.set_note("n"); }},
                    {"suspended", "L++EEE+", [](H& h) { (void)h.helper.suspended(); }},
                    {"usage", "L++EEE+", [](H& h) { (void)h.helper.usage(); }},
                    {"limit", "L++EEE+", [](H& h) { h.helper.limit(some_limits); }},
                    {"limits", "L++EEE+", [](H& h) { (void)h.helper.limits(); }},
                    {"security_report", "L++EEE+", [](H& h) { (void)h.helper.security_report(); }},
                    {"resize", "L++EEE+",
                     [](H& h) {
                         h.helper.resize({10, 20});
                     }},
                    {"open_console", "LEEEEEE", [](H& h) { (void)h.helper.open_console(); }},
                    {"exec", "L+EEEE+", [](H& h) { (void)h.helper.exec(some_command).wait(); }},
                    {"copy_in", "LEEEEEE", [](H& h) { h.helper.copy_in("/none", "/tmp/none"); }},
                    {"copy_out", "LEEEEEE", [](H& h) { h.helper.copy_out("/none", "/none/none"); }},
                    {"exec_ticket", "L++EEE+", [](H& h) { (void)h.helper.exec_ticket(); }},
                    {"attach_console", "LEEEEEE", [](H& h) { (void)h.helper.attach_console(); }},
                    {"console_state", "LEEEEEE", [](H& h) { (void)h.helper.console_state(); }},
                    {"detach_viewers", "LEEEEEE", [](H& h) { h.helper.detach_viewers(); }},
                    {"watch", "L++EEE+", [](H& h) { h.helper.watch(); }},
                    {"watch_pressure", counted("L++EEE+"), [](H& h) { h.helper.watch_pressure(MemoryPressure::low); }},
                    {"next_event", "L++++++", [](H& h) { (void)h.helper.next_event(); }},
                    {"attach", "LEEEEEE", [](H& h) { (void)h.helper.attach(some_network); }},
                    {"attach", "L++EEE+", [](H& h) { h.helper.attach(some_device); }, changes},
                    {"detach_network", "LEEEEEE", [](H& h) { h.helper.detach_network("eth7"); }},
                    {"detach_device", "LEEEEEE", [](H& h) { h.helper.detach_device("none"); }},
                    {"detach_mount", "LEEEEEE", [](H& h) { h.helper.detach_mount("/none"); }},
                    {"signal", "L++++++", [](H& h) { (void)h.helper.signal(SIGWINCH); }},
                    {"try_wait", "L++++++", [](H& h) { (void)h.helper.try_wait(); }},
                    {"wait", "L--+++-", [](H& h) { (void)h.helper.wait(); }},
                    {"suspend", "L++EEE+", [](H& h) { h.helper.suspend(); }, changes},
                    {"resume", "L++EEE+", [](H& h) { h.helper.resume(); }, changes},
                    {"shutdown", "L++EEE+", [](H& h) { (void)h.helper.shutdown(); }, changes},
                    {"reboot", "LEEEEEE", [](H& h) { (void)h.helper.reboot(); }, changes},
                    {"ask_to_stop", "L++++++", [](H& h) { (void)h.helper.ask_to_stop(1ms); }, changes},
                    {"stop", "L++++++", [](H& h) { (void)h.helper.stop(1ms); }, changes},
                    {"ask_to_kill", "L++++++", [](H& h) { (void)h.helper.ask_to_kill(); }, changes},
                    {"kill", "L++++++", [](H& h) { (void)h.helper.kill(); }, changes},
                });
}

namespace {

struct ExecCase {
    Container container = std::move(*started());
    Exec exec;
    ExecCase() : exec{container.exec({.command = {"/bin/sleep", "1000"}})} {}
};

}  // namespace

TEST_CASE("every function of a command in a container, in every state, works or says why not") {
    if (!can_run()) CAISSON_SKIP(why_not());
    (void)shared_root();
    const LeavesNothing nothing;
    const auto running = [] { return std::make_unique<ExecCase>(); };
    const auto killed = [] {
        auto one = std::make_unique<ExecCase>();
        (void)one->exec.signal(SIGKILL);
        REQUIRE(one->exec.process().ended_within(20'000));
        return one;
    };
    const std::vector<State<ExecCase>> states{
        {"moved from",
         [] {
             auto one = std::make_unique<ExecCase>();
             const Exec other = std::move(one->exec);
             return one;
         }},
        {"running", running},
        {"ended", killed},
        {"waited for",
         [=] {
             auto one = killed();
             (void)one->exec.wait();
             return one;
         }},
        {"ended with its container",
         [] {
             auto one = std::make_unique<ExecCase>();
             (void)one->container.kill();
             return one;
         }},
        {"a copy's", running, true},
    };
    using X = ExecCase;
    check_states<ExecCase>(states, {
                                       {"process", "++++++", [](X& x) { (void)x.exec.process(); }},
                                       {"fd", "++++++", [](X& x) { (void)x.exec.fd(); }},
                                       {"console", "++++++", [](X& x) { (void)x.exec.console(); }},
                                       {"try_wait", "L++++L", [](X& x) { (void)x.exec.try_wait(); }},
                                       {"wait", "L-+++L", [](X& x) { (void)x.exec.wait(); }},
                                       {"wait_for", "L++++L", [](X& x) { (void)x.exec.wait_for(1ms); }},
                                       {"signal", "L++++L", [](X& x) { (void)x.exec.signal(SIGWINCH); }},
                                       {"kill", "L++++L", [](X& x) { (void)x.exec.kill(); }, changes},
                                   });
}

TEST_CASE("what a fork(2)ed copy of the process destroys stays, whatever it is") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestDirectory directory;
    const auto lives = [&] {
        // Not the test's own mount namespace, in which nothing of a container's is made.
        if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 10;
        auto mount = std::make_unique<Mount>(Mount::tmpfs(1 << 20));
        mount->attach(directory.path());
        auto cgroup = std::make_unique<Cgroup>(Cgroup::create("copied"));
        auto pty = std::make_unique<Pty>(Pty::open({}));
        auto container = std::make_unique<Container>(Container::start(shell(shared_root(), "sleep 1000")));
        auto command = std::make_unique<Exec>(container->exec({.command = {"/bin/sleep", "1000"}}));
        ContainerSpec other = shell(shared_root(), "sleep 1000");
        auto controller = std::make_unique<Controller>();
        const ContainerId id = controller->start(other);
        const Process init = Process::open(controller->init_pid(id));
        const pid_t copy = ::fork();
        if (copy == 0) {
            controller->stop();
            command.reset();
            container.reset();
            controller.reset();
            pty.reset();
            cgroup.reset();
            mount.reset();
            ::_exit(0);
        }
        int status = -1;
        if (copy < 0 || ::waitpid(copy, &status, 0) != copy || status != 0) return 11;
        struct statfs st {};
        if (::statfs(directory.path().c_str(), &st) != 0 || st.f_type != 0x01021994 /* TMPFS_MAGIC */) return 12;
        if (cgroup->processes().size() != 0) return 13;
        pty->resize({10, 20});
        if (container->try_wait() || command->try_wait() || init.ended()) return 14;
        if (detail::wait_readable(controller->fd(), 0) && !controller->next()) return 15;
        command.reset();
        return container->kill() == ExitStatus::killed(SIGKILL) ? 0 : 16;
    };
    CHECK(in_child(lives) == 0);
}
