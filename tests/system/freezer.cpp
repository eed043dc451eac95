// Control groups and containers that stand still, on v2 and on v1.
#include <caisson/cgroup.hpp>
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>
#include <caisson/sweep.hpp>

#include <chrono>
#include <string>
#include <thread>

#include <sys/stat.h>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/hierarchies.hpp"
#include "support/machine.hpp"
#include "support/promises.hpp"
#include "support/suspended.hpp"

using namespace caisson;
using namespace caisson_test;
using namespace std::chrono_literals;

namespace {

const char* why_no_freezer() {
    if (const char* why = cannot()) return why;
    return freezers().empty() ? "neither cgroup v2 nor v1's freezer is mounted" : TestRoot::missing();
}

}  // namespace

TEST_CASE("a suspended container stands still at once, and goes on when it is resumed") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestRoot root;
        CHECK(in_host_with(freezer, [&]() -> std::string {
                  Container container = Container::start(counting(root));
                  if (!goes_on(root)) return "it does not count";
                  if (container.suspended()) return "suspended from the start";
                  const std::int64_t began = detail::monotonic_ms();
                  container.suspend();
                  if (milliseconds_of(began) > 500) return "it took " + std::to_string(milliseconds_of(began)) + " ms";
                  if (!container.suspended() || !stands_still(root)) return "it does not stand still";
                  container.suspend();
                  if (!stands_still(root)) return "it does not stand still the second time";
                  container.resume();
                  if (container.suspended() || !goes_on(root)) return "it does not go on";
                  container.resume();
                  return container.kill().str();
              }) == "killed by signal 9");
    }
}

TEST_CASE("a suspended container gets SIGTERM and goes on when it is stopped") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestRoot root;
        CHECK(in_host_with(freezer, [&] {
                  Container container = Container::start(counting(root));
                  if (!goes_on(root)) return std::string{"it does not count"};
                  container.suspend();
                  return container.stop(10s).str();
              }) == "exited with status 7");
        CHECK(in_host_with(freezer, [&] {
                  Container container = Container::start(counting(root, "echo"));
                  if (!goes_on(root)) return std::string{"it does not count"};
                  container.suspend();
                  return container.stop(100ms).str();
              }) == "killed by signal 9");
    }
}

TEST_CASE("a suspended container is killed at once, by whatever kills it") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestRoot root;
        CHECK(in_host_with(freezer, [&]() -> std::string {
                  for (int way = 0; way < (freezer == "v1" ? 10 : 5); ++way) {
                      std::optional<Container> container{Container::start(counting(root))};
                      const Process init = Process::open(container->init().pid());
                      if (!goes_on(root)) return "it does not count";
                      // The second round, on v1: in a group that was made inside.
                      if (way < 5) container->suspend();
                      else if (!freeze_inside(*container)) return "no inner group";
                      const std::int64_t began = detail::monotonic_ms();
                      if (way % 5 == 0) (void)container->kill();
                      if (way % 5 == 1) (void)container->signal(SIGKILL);
                      if (way % 5 == 2) container.reset();
                      if (way % 5 == 3) container->cgroup()->kill();
                      if (way % 5 == 4) {
                          (void)Process::open(keeper_of(*container)).signal(SIGKILL);
                          if (container->wait() != ExitStatus::killed(SIGKILL)) return "another status";
                      }
                      if (!init.ended_within(dead_within)) return "it lives on, way " + std::to_string(way);
                      const std::int64_t took = milliseconds_of(began);
                      if (took > 1000) return "way " + std::to_string(way) + ": " + std::to_string(took) + " ms";
                  }
                  return "at once";
              }) == "at once");
    }
}

TEST_CASE("when its owner is killed a suspended container dies within a second, and its groups are gone") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        for (const bool nested : {false, true}) {
            if (nested && freezer == "v2") continue;
            CAPTURE(freezer);
            CAPTURE(nested);
            const TestRoot root;
            const Host host{[&](const Host&) -> std::string {
                if (freezer == "v1" && !hide("")) return "cannot hide v2";
                Container container = Container::start(counting(root));
                if (nested) {
                    if (!freeze_inside(container)) return "no inner group";
                } else {
                    container.suspend();
                }
                (void)root.write("/tmp/init", std::to_string(container.init().pid()));
                (void)::pause();
                return "";
            }};
            std::string told;
            for (int waited = 0; told.empty() && waited < 5000; waited += 10) {
                told = root.read("/tmp/init");
                ::usleep(10'000);
            }
            REQUIRE_FALSE(told.empty());
            const Process init = Process::open(std::stoi(told));
            CHECK(stands_still(root));
            host.kill();
            CHECK(init.ended_within(dead_within));
            CHECK(groups_vanish(host.pid(), dead_within));
        }
    }
}

TEST_CASE("what has ended, has no group or is only a moved-from object is not suspended but an error") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Container container = Container::start(shell(root, "exit 0"));
    (void)container.wait();
    const std::string ended = "container 'test': No such process: it has ended";
    CHECK(message_of([&] { container.suspend(); }) == "suspend " + ended);
    CHECK(message_of([&] { container.resume(); }) == "resume " + ended);
    CHECK(message_of([&] { (void)container.suspended(); }) == "state of " + ended);
    const Container moved = std::move(container);
    CHECK_THROWS_AS(container.suspend(), std::logic_error);  // NOLINT(bugprone-use-after-move)

    ContainerSpec spec = shell(root, "sleep 1000");
    spec.cgroup = false;
    Container bare = Container::start(spec);
    CHECK(message_of([&] { bare.suspend(); }) ==
          "suspend container 'test': No such file or directory: it has no control group");
    CHECK(bare.stop(0ms) == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a group that is thawed leaves those frozen that were frozen inside, and can be killed with them") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        CHECK(in_host_with(freezer, [&]() -> std::string {
                  Cgroup group = Cgroup::create("nest");
                  const bool v2 = freezer == "v2";
                  std::string inner = path_for(group, v2 ? "cgroup.freeze" : "freezer.state");
                  inner = inner.substr(0, inner.rfind('/')) + "/in";
                  if (::mkdir(inner.c_str(), 0755) != 0) return "mkdir";
                  const Pipe in_up, in_down, out_up, out_down;
                  const auto echo = [](const Pipe& down, const Pipe& up) {
                      for (;;) {
                          down.take();
                          up.put();
                      }
                  };
                  const pid_t inside = spawn_in(group, [&] {
                      const Fd fd = detail::sys::open(inner + (v2 ? "/cgroup.procs" : "/tasks"), O_WRONLY);
                      if (!detail::sys::write_all(fd.get(), "0")) return 95;
                      echo(in_down, in_up);
                      return 0;
                  });
                  const pid_t outside = spawn_in(group, [&] {
                      echo(out_down, out_up);
                      return 0;
                  });
                  const auto answers = [](const Pipe& down, const Pipe& up, int milliseconds) {
                      down.put();
                      if (!detail::wait_readable(up.read.get(), milliseconds)) return false;
                      up.take();
                      return true;
                  };
                  if (!answers(in_down, in_up, 5000) || !answers(out_down, out_up, 5000)) return "they do not run";
                  const std::string file = inner + (v2 ? "/cgroup.freeze" : "/freezer.state");
                  if (!detail::sys::write_file(AT_FDCWD, file.c_str(), v2 ? "1" : "FROZEN")) return "no freezer";
                  if (group.frozen()) return "only a part is frozen";
                  group.freeze();
                  if (!group.frozen()) return "not frozen";
                  if (answers(out_down, out_up, 20)) return "it answers";
                  group.thaw();
                  if (group.frozen()) return "not thawed";
                  if (!detail::wait_readable(out_up.read.get(), 5000)) return "it does not answer";
                  if (answers(in_down, in_up, 20)) return "the inner one was thawed";
                  group.freeze();
                  group.kill();
                  if (WTERMSIG(wait_for(inside)) != SIGKILL || WTERMSIG(wait_for(outside)) != SIGKILL) return "alive";
                  group.remove();
                  return "ok";
              }) == "ok");
    }
}

TEST_CASE("a group below a frozen one cannot be thawed, and says what to thaw") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const std::string said = in_host_with(freezer, [&]() -> std::string {
            Cgroup outer = Cgroup::create("outer");
            const bool v2 = freezer == "v2";
            std::string own = path_for(outer, v2 ? "cgroup.freeze" : "freezer.state");
            own = own.substr(mounted(v2 ? "" : "freezer").size());
            own = own.substr(0, own.rfind('/'));
            // The other hierarchies have no such parent.
            for (const std::string controller :
                 {"cpu", "cpuacct", "cpuset", "memory", "devices", "blkio", "pids", "systemd", v2 ? "freezer" : ""}) {
                if (!controller.empty() && mounted(controller) != mounted("") && !hide(controller))
                    return "cannot hide";
            }
            if (!mounted("name=systemd").empty() && !hide("name=systemd")) return "cannot hide";
            if (v2 && !mounted("freezer").empty() && !hide("freezer")) return "cannot hide";
            Cgroup inner = Cgroup::create("inner", own);
            inner.freeze();
            outer.freeze();
            std::string text = message_of([&] { inner.thaw(); });
            outer.thaw();
            if (inner.frozen()) text += " STILL FROZEN";
            const std::size_t at = text.find(inner.name());
            if (at != std::string::npos) text.replace(at, inner.name().size(), "INNER");
            inner.remove();
            return text;
        });
        CHECK(said == "thaw control group 'INNER': Device or resource busy: a group above it is frozen: thaw that");
    }
}

TEST_CASE("a process that waits in the kernel is named as what cannot be frozen, and everything goes on") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    if (::access("/dev/fuse", R_OK | W_OK) != 0) CAISSON_SKIP("there is no /dev/fuse");
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestDirectory directory;
        const std::string said = in_host_with(freezer, [&]() -> std::string {
            if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
                return "no mounts";
            SilentServer server;
            if (!server.mount(directory.path())) return "SKIP";
            Cgroup group = Cgroup::create("stuck");
            const Pipe up;
            const int copy = server.fuse.get();
            const pid_t pid = spawn_in(group, [&] {
                ::close(copy);
                up.put();
                struct stat st {};
                (void)::stat((directory.path() + "/x").c_str(), &st);
                return 0;
            });
            up.take();
            // Its question has come.
            (void)detail::wait_readable(server.fuse.get(), 5000);
            const std::int64_t began = detail::monotonic_ms();
            std::string text = message_of([&] { group.freeze(); });
            if (milliseconds_of(began) > 800) text += " LATE";
            const bool v2 = freezer == "v2";
            const std::string state = read_file(path_for(group, v2 ? "cgroup.freeze" : "freezer.state"));
            if (state != (v2 ? "0\n" : "THAWED\n")) text += " FROZEN";
            group.thaw();
            for (const auto& [name, as] : {std::pair{group.name(), "STUCK"}, {std::to_string(pid) + " ", "PID "}}) {
                const std::size_t at = text.find(name);
                if (at != std::string::npos) text.replace(at, name.size(), as);
            }
            server.fuse.reset();
            if (code_of(pid) != 0) text += " NOT OVER";
            return text;
        });
        if (said == "SKIP") CAISSON_SKIP("no FUSE file system can be mounted");
        CHECK(said ==
              "freeze control group 'STUCK': Connection timed out: process PID does not come to rest: it waits in the "
              "kernel");
    }
}

TEST_CASE("where no freezer is mounted a group says so") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const std::string said = in_host([&]() -> std::string {
        if (!hide("") || !hide("freezer")) return "cannot hide";
        if (mounted("pids").empty()) return "SKIP";
        const Cgroup group = Cgroup::create("warm");
        std::string text = message_of([&] { (void)group.frozen(); });
        const std::size_t at = text.find(group.name());
        if (at != std::string::npos) text.replace(at, group.name().size(), "WARM");
        return text;
    });
    if (said == "SKIP") CAISSON_SKIP("without v2 and the freezer, no cgroup hierarchy is mounted");
    CHECK(said == "freezer for control group 'WARM': cgroup hierarchy 'freezer' is not mounted");
}

TEST_CASE("a group that is gone is neither frozen nor thawed") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    Cgroup group = Cgroup::create("gone");
    group.remove();
    const std::string context = "freezer for control group '" + group.name() + "': there is no group";
    CHECK(message_of([&] { group.freeze(); }) == context);
    CHECK(message_of([&] { group.thaw(); }) == context);
    CHECK(message_of([&] { (void)group.frozen(); }) == context);
}

TEST_CASE("a controller suspends and resumes, and tells each change once") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    const auto event = [&] {
        for (int waited = 0; waited < 5000; ++waited) {
            if (auto next = controller.next()) return std::move(*next);
            (void)detail::wait_readable(controller.fd(), 1);
        }
        return Event{.kind = Event::Kind::failed, .name = "nothing came"};
    };
    const ContainerId id = controller.start(counting(root));
    REQUIRE(event().kind == Event::Kind::started);
    REQUIRE(goes_on(root));
    CHECK_FALSE(controller.suspended(id));
    controller.suspend(id);
    controller.suspend(id);
    CHECK(controller.suspended(id));
    Event told = event();
    CHECK(told.kind == Event::Kind::suspended);
    CHECK(told.id == id);
    CHECK(told.name == "test");
    CHECK(stands_still(root));
    controller.resume(id);
    controller.resume(id);
    CHECK(event().kind == Event::Kind::resumed);
    CHECK(goes_on(root));
    controller.suspend(id);
    CHECK(event().kind == Event::Kind::suspended);
    CHECK(controller.stop(id, 10s));
    CHECK(event().kind == Event::Kind::resumed);
    told = event();
    CHECK(told.kind == Event::Kind::exited);
    CHECK(told.status == ExitStatus::exited(7));
    const std::string ended = "container 1: No such process: it has ended";
    CHECK(message_of([&] { controller.suspend(id); }) == ended);
    CHECK(message_of([&] { controller.resume(id); }) == ended);
    CHECK(message_of([&] { (void)controller.suspended(id); }) == ended);
    CHECK_FALSE(controller.next());

    // The time of a suspended one runs out, too.
    const ContainerId next = controller.start(counting(root, "echo"));
    REQUIRE(event().kind == Event::Kind::started);
    REQUIRE(goes_on(root));
    CHECK(controller.stop(next, 50ms));
    controller.suspend(next);
    CHECK(event().kind == Event::Kind::suspended);
    told = event();
    CHECK(told.kind == Event::Kind::exited);
    CHECK(told.status == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a controller goes on with other containers while one of them does not come to rest") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    if (::access("/dev/fuse", R_OK | W_OK) != 0) CAISSON_SKIP("there is no /dev/fuse");
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory directory;
    const std::string said = in_host([&]() -> std::string {
        if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
            return "no mounts";
        SilentServer server;
        if (!server.mount(directory.path())) return "SKIP";
        Controller controller;
        Container container = Container::start(shell(root, "sleep 1000"));
        const bool v2 = !mounted("").empty();
        std::string group = path_for(*container.cgroup(), v2 ? "cgroup.freeze" : "freezer.state");
        group.replace(group.rfind('/'), std::string::npos, v2 ? "/cgroup.procs" : "/tasks");
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::close(server.fuse.get());
            struct stat st {};
            const bool in = detail::sys::write_file(AT_FDCWD, group.c_str(), "0");
            if (in) (void)::stat((directory.path() + "/x").c_str(), &st);
            ::_exit(in ? 0 : 95);
        }
        (void)detail::wait_readable(server.fuse.get(), 5000);
        const ContainerId stuck = controller.adopt(std::move(container));
        std::string why;
        std::int64_t refused = 0;
        std::thread other{[&] {
            why = message_of([&] { controller.suspend(stuck); });
            refused = detail::monotonic_ms();
        }};
        ::usleep(50'000);
        (void)controller.start(shell(root, "exit 3"));
        std::int64_t exited = 0;
        while (exited == 0 && detail::wait_readable(controller.fd(), 5000)) {
            while (const auto event = controller.next()) {
                if (event->kind == Event::Kind::exited) exited = detail::monotonic_ms();
            }
        }
        other.join();
        (void)::kill(pid, SIGKILL);
        (void)wait_for(pid);
        if (!why.starts_with("suspend container 'test': freeze control group 'caisson.test.")) return why;
        if (controller.suspended(stuck)) return "suspended";
        return exited != 0 && exited < refused ? "ok" : "it waited";
    });
    if (said == "SKIP") CAISSON_SKIP("no FUSE file system can be mounted");
    CHECK(said == "ok");
}

TEST_CASE("a container without a control group cannot be suspended by a controller either") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    ContainerSpec spec = shell(root, "sleep 1000");
    spec.cgroup = false;
    const ContainerId id = controller.start(spec);
    CHECK(message_of([&] { controller.suspend(id); }) ==
          "suspend container 'test': No such file or directory: it has no control group");
    CHECK(controller.stop(id, 0ms));
}

TEST_CASE("a helper suspends and resumes with the few rights that it keeps, and everybody sees it") {
    if (const char* reason = why_no_freezer()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestRoot root;
        const TestDirectory directory;
        CHECK(in_host_with(freezer, [&]() -> std::string {
                  const HelperOptions options{.run_directory = directory / "run"};
                  Helper helper = Helper::start(counting(root), options);
                  if (!goes_on(root)) return "it does not count";
                  if (helper.suspended()) return "suspended from the start";
                  helper.suspend();
                  std::optional<Helper> other = Helper::find("test", options.run_directory);
                  if (!other || !other->info().suspended || !stands_still(root)) return "it does not stand still";
                  other->resume();
                  if (helper.suspended() || !goes_on(root)) return "it does not go on";
                  helper.suspend();
                  if (helper.stop(10s) != ExitStatus::exited(7)) return "not stopped";
                  const std::string why = message_of([&] { other->suspend(); });
                  if (why != "container 'test': No such process: it has ended") return why;
                  if (message_of([&] { (void)other->suspended(); }) != why) return "no error";

                  Helper next = Helper::start(counting(root), options);
                  if (!goes_on(root)) return "the next does not count";
                  next.suspend();
                  if (next.kill() != ExitStatus::killed(SIGKILL)) return "another status";

                  // Killed, it leaves the rest to the keeper.
                  Helper last = Helper::start(counting(root), options);
                  if (!goes_on(root)) return "the last does not count";
                  const Process init = Process::open(last.info().init);
                  last.suspend();
                  if (!stands_still(root)) return "the last does not stand still";
                  (void)::kill(last.pid(), SIGKILL);
                  if (!init.ended_within(dead_within)) return "its container lives on";
                  if (!groups_vanish(last.pid(), dead_within)) return "groups are left";
                  // Its descriptors, and with them the lock on its name, are closed a moment later.
                  (void)last.wait();
                  (void)sweep_only(options.run_directory);
                  return ::rmdir(options.run_directory.c_str()) == 0 ? "ok" : "files are left";
              }) == "ok");
    }
}
