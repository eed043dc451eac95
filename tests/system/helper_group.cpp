// Containers of a group, which share one helper, and what a helper tells of its own accord.
#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>
#include <caisson/sweep.hpp>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/promises.hpp"
#include "support/rootfs.hpp"
#include "support/suspended.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

std::string all_of(int fd) {
    std::string text;
    char buffer[256];
    for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
    return text;
}

/// In kB, by the name of a line of /proc/PID/smaps_rollup.
long memory_of(pid_t pid, const std::string& line) {
    std::string text;
    REQUIRE(detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/smaps_rollup").c_str(), text));
    const std::size_t at = text.find(line + ":");
    REQUIRE(at != std::string::npos);
    return std::stol(text.substr(at + line.size() + 1));
}

/// What happens within ten seconds; with the kind `started` for nothing.
Event::Kind next_kind(Helper& helper) {
    for (int i = 0; i < 100; ++i) {
        if (const auto event = helper.next_event()) return event->kind;
        (void)detail::wait_readable(helper.fd(), 100);
    }
    return Event::Kind::started;
}

}  // namespace

TEST_CASE("fifty containers of a group share one process, and each is found by its own name") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    std::vector<Helper> helpers;
    helpers.push_back(group.start("c0"));
    const pid_t shared = helpers.front().pid();
    const long first = memory_of(shared, "Private_Dirty");
    for (int i = 1; i < 50; ++i) {
        helpers.push_back(group.start("c" + std::to_string(i)));
        CHECK(helpers.back().pid() == shared);
    }
    const long all = memory_of(shared, "Private_Dirty");
    MESSAGE("private memory of the helper, kB: " << first << " with one container, " << all << " with fifty");
    CHECK(Helper::list(group.run).size() == 50);
    SweepOptions only;
    only.run_directory = group.run;
    const std::int64_t before = detail::monotonic_ms();
    const SweepReport report = sweep(only);
    MESSAGE("a sweep beside them took " << detail::monotonic_ms() - before << " ms");
    for (const std::string& path : report.removed) CHECK(path.find(group.run) == std::string::npos);
    CHECK(Helper::list(group.run).size() == 50);
    const pid_t seven = helpers[7].info().init;
    auto found = Helper::find("c7", group.run);
    REQUIRE(found);
    CHECK(found->info().init == seven);
    CHECK(found->info().name == "c7");
    CHECK(found->kill() == ExitStatus::killed(SIGKILL));
    CHECK(helpers[7].wait() == ExitStatus::killed(SIGKILL));
    CHECK_FALSE(Helper::find("c7", group.run));
    CHECK(helpers[8].signal(0));
    for (Helper& helper : helpers) (void)helper.signal(SIGKILL);
    for (Helper& helper : helpers) CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("the first starts of a group at the same moment make one helper, and its last end the next one") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    for (int round = 0; round < 5; ++round) {
        std::vector<pid_t> pids(6, -1);
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < pids.size(); ++i) {
            threads.emplace_back([&, i] {
                Helper helper = group.start("c" + std::to_string(i), "read x; read x");
                pids[i] = helper.pid();
                (void)helper.kill();
            });
        }
        for (std::thread& thread : threads) thread.join();
        for (const pid_t pid : pids) CHECK(pid > 0);
    }
    CHECK(Helper::list(group.run).empty());
    CHECK(group.ends());
}

TEST_CASE("a start that waits for ever does not hold up the other containers of its group") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    const TestDirectory stuck;
    SilentServer server;
    if (!server.mount(stuck.path())) CAISSON_SKIP("this kernel has no FUSE");
    Helper first = group.start("first", answering);
    std::string refused;
    std::thread waits{[&] {
        ContainerSpec spec = group.spec("waits");
        spec.root = stuck.path();
        refused = error_of(spec, group.options);
    }};
    std::this_thread::sleep_for(50ms);
    CHECK(refused.empty());
    const Fd console = first.open_console();
    CHECK(answers(console, "word"));
    CHECK(group.start("second").kill() == ExitStatus::killed(SIGKILL));
    CHECK(error_of(group.spec("waits"), group.options).find("'waits' runs already") != std::string::npos);
    server.fuse.reset();
    waits.join();
    CHECK(refused.find("container 'waits': ") == 0);
    CHECK(::umount2(stuck.path().c_str(), MNT_DETACH) == 0);
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("a start that waits for its name holds up none of its group, and fails by itself") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    Helper first = group.start("first", answering);
    const Fd console = first.open_console();
    // As a sweep holds it, that is about to free the name.
    const std::string place = group.run + "/waits";
    REQUIRE(::mkdir(place.c_str(), 0700) == 0);
    detail::Owner dead = detail::Owner::current();
    dead.start_time += 1;
    Fd lock = detail::sys::open(place + "/owner", O_RDWR | O_CREAT, 0600);
    REQUIRE(detail::sys::write_all(lock.get(), dead.tag()));
    REQUIRE(::flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
    std::atomic<bool> is_over = false;
    std::string refused;
    std::thread waits{[&] {
        refused = error_of(group.spec("waits"), group.options);
        is_over = true;
    }};
    std::this_thread::sleep_for(50ms);
    CHECK(answers(console, "word"));
    CHECK_FALSE(is_over);
    waits.join();
    CHECK(refused == "container 'waits': lock '" + place +
                         "': Resource temporarily unavailable: another program has its file 'owner' locked, whose "
                         "writer is dead: end that program");
    lock.reset();
    CHECK(group.start("waits").kill() == ExitStatus::killed(SIGKILL));
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("a later start of a group has its own descriptors, console and note, and the limits of the first starter") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    CHECK(in_child([&] {
              rlimit limit{};
              if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
              limit.rlim_cur = 321;
              if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return 2;
              (void)group.start("first");
              return 0;
          }) == 0);
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    ContainerSpec spec = group.spec("second", "ulimit -n; echo err >&2; echo three >&3; ls /proc/self/fd");
    spec.console.reset();
    spec.stdio = {-1, ends[1], ends[1]};
    spec.descriptors = {ends[1]};
    HelperOptions options = group.options;
    options.note = "of the second";
    Helper second = Helper::start(spec, options);
    (void)::close(ends[1]);
    CHECK(all_of(ends[0]) == "321\nerr\nthree\n0\n1\n2\n3\n4\n");
    (void)::close(ends[0]);
    CHECK(second.wait().success());

    options.open_console = true;
    Helper third = Helper::start(group.spec("third", "echo last words"), options);
    CHECK(third.wait().success());
    CHECK(all_of(third.open_console().get()) == "last words\r\n");
    Helper fourth = Helper::start(group.spec("fourth"), options);
    CHECK(fourth.info().note == "of the second");
    auto first = Helper::find("first", group.run);
    REQUIRE(first);
    CHECK(first->info().note.empty());
    CHECK(first->pid() == fourth.pid());
    (void)fourth.kill();
    (void)first->kill();
    CHECK(group.ends());
}

TEST_CASE("a refused start of a group is the very error, and the others do not notice") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    ContainerSpec wrong = group.spec("wrong");
    wrong.command = {"/no/such/program"};
    const std::string alone = error_of(wrong, group.options);
    CHECK(alone.find("container 'wrong': ") == 0);
    CHECK(group.ends());
    Helper first = group.start("first");
    CHECK(error_of(wrong, group.options) == alone);
    CHECK(error_of(group.spec("first"), group.options) ==
          "container 'first': lock '" + group.run + "/first': File exists: a container 'first' runs already");
    CHECK(first.info().name == "first");
    CHECK(group.start("second").kill() == ExitStatus::killed(SIGKILL));
    HelperOptions options = group.options;
    options.group = "a/b";
    CHECK(
        error_of(group.spec("third"), options) ==
        "container 'third': group: 'a/b' is no valid name: use a letter or digit, then up to 62 letters, digits, '_', "
        "'.' and '-'");
    // Rubbish at the group's door.
    for (int i = 0; i < 3; ++i) {
        const Fd client = connect_to(group.run + "/.shop/sock");
        CHECK(::write(client.get(), "rubbish", 7) == 7);
        char answer[4096];
        CHECK(::read(client.get(), answer, sizeof answer) > 0);
        CHECK(::read(client.get(), answer, sizeof answer) == 0);
    }
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("when a group's helper is killed all its containers die within a second, and a sweep removes its places") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    std::vector<Helper> helpers;
    std::vector<Process> inits;
    for (int i = 0; i < 5; ++i) {
        helpers.push_back(group.start("c" + std::to_string(i)));
        inits.push_back(Process::open(helpers.back().info().init));
    }
    REQUIRE(::kill(helpers[0].pid(), SIGKILL) == 0);
    for (const Process& init : inits) CHECK(init.ended_within(dead_within));
    for (Helper& helper : helpers) CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    Helper next = group.start("c1");
    CHECK(next.pid() != helpers[0].pid());
    REQUIRE(::kill(next.pid(), SIGKILL) == 0);
    (void)next.wait();
    (void)sweep_only(group.run);
    CHECK(group.empty());
}

TEST_CASE("a container that waits for its restart is asked to end, or to restart, by its helper as by a controller") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("web", "read x; exit 3");
    spec.on_crash = EndAction::restart;
    spec.back_off = {.first_pause_ms = 600'000, .longest_pause_ms = 600'000};
    Helper helper = Helper::start(spec, place.options);
    helper.watch();
    REQUIRE(::write(helper.open_console().get(), "\n", 1) == 1);
    REQUIRE(next_kind(helper) == Event::Kind::restarting);
    CHECK(helper.reboot());
    CHECK(helper.shutdown());
    CHECK(helper.wait() == ExitStatus::exited(3));
    CHECK(place.empty());
}

TEST_CASE("a client without room for an answer's descriptor is told so, and goes on once there is some") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(in_child([&] {
              auto client = Helper::find("web", place.run);
              rlimit most{};
              if (!client || ::getrlimit(RLIMIT_NOFILE, &most) != 0) return 1;
              // The lowest number that is free is beyond it.
              most.rlim_cur = static_cast<rlim_t>(Fd{::dup(0)}.get());
              if (::setrlimit(RLIMIT_NOFILE, &most) != 0) return 2;
              try {
                  (void)client->open_console();
                  return 3;
              } catch (const Error& e) {
                  if (std::string{e.what()} !=
                      "helper of container 'web': descriptor of its answer: Too many open files: raise 'ulimit -n'") {
                      return 4;
                  }
              }
              // However far it gets: what it cannot look at is not taken for another's.
              for (int room = 0; room < 12; ++room) {
                  try {
                      ExecSpec exec;
                      exec.command = {"/bin/true"};
                      (void)client->exec(exec).wait();
                  } catch (const Error& e) {
                      if (std::string{e.what()}.find("Too many open files") == std::string::npos) {
                          std::fprintf(stderr, "with %d: %s\n", room, e.what());
                          return 7;
                      }
                  }
                  ++most.rlim_cur;
                  if (::setrlimit(RLIMIT_NOFILE, &most) != 0) return 5;
              }
              return client->open_console() ? 0 : 6;
          }) == 0);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("a controller that has missed the end of a helper's container is told so at once") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    bool in_group = false;
    SUBCASE("of one that has died, and has another in its place") {}
    SUBCASE("of a group's, which goes on") {
        in_group = true;
    }
    const Place place;
    HelperOptions options = place.options;
    options.outlive = !in_group;
    if (in_group) options.group = "shop";
    Helper helper = Helper::start(place.spec("web"), options);
    std::optional<Helper> other;
    if (in_group) other.emplace(Helper::start(place.spec("other"), options));
    Controller controller;
    (void)controller.reattach("web", place.run);
    if (!in_group) REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
    // More than it takes without reading.
    for (int i = 0; in_group && i < 3000; ++i) helper.set_note("x");
    // By the one in its place.
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    const std::int64_t from = detail::monotonic_ms();
    std::optional<Event> event;
    while (detail::monotonic_ms() - from < 20'000) {
        event = controller.next();
        if (event && event->kind != Event::Kind::noted) break;
        if (!event) (void)detail::wait_readable(controller.fd(), 100);
    }
    CHECK(detail::monotonic_ms() - from < 5000);
    REQUIRE(event);
    CHECK(event->kind == Event::Kind::failed);
    CHECK(std::string{event->error->what()} ==
          "helper of container 'web': No such process: it had let this client go, and has ended since: how its "
          "container did was not told");
    if (other) CHECK(other->kill() == ExitStatus::killed(SIGKILL));
    for (int i = 0; i < 2000 && ::access((place.run + "/.shop").c_str(), F_OK) == 0; ++i) ::usleep(1000);
    CHECK(place.empty());
}

TEST_CASE("who watches is told what happens, between the answers, and others are not") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    auto other = Helper::find("web", place.run);
    REQUIRE(other);
    helper.watch();
    CHECK_FALSE(helper.next_event());
    try {
        other->suspend();
    } catch (const Error& e) {
        (void)helper.kill();
        CAISSON_SKIP(e.what());
    }
    CHECK(helper.info().suspended);  // the answer comes behind the event
    CHECK(next_kind(helper) == Event::Kind::suspended);
    other->resume();
    CHECK(next_kind(helper) == Event::Kind::resumed);
    CHECK_FALSE(helper.next_event());
    CHECK_FALSE(other->next_event());
    CHECK(other->kill() == ExitStatus::killed(SIGKILL));
    CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
    CHECK_FALSE(helper.next_event());
    CHECK(place.empty());
}
