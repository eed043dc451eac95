// The run directory, in which helpers are found.
#include <caisson/helper.hpp>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include <sys/file.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/sweep.hpp>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/promises.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

SweepReport sweep_of(const std::string& run) {
    SweepOptions options;
    options.run_directory = run;
    return sweep(options);
}

/// The helper program, started as `Helper::start` does, and killed at its `call`-th system call; true once it has
/// started the container before.
bool start_and_kill_at(const Place& place, long call) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    const Fd ours{ends[0]};
    const Fd program = detail::open_helper_program("");
    const Fd request = detail::to_memory_file(
        detail::encode(detail::StartRequest{.run_directory = place.run, .spec = place.spec("killed")}));
    const pid_t helper = ::fork();
    if (helper == 0) {
        const Fd end{::fcntl(ends[1], F_DUPFD_CLOEXEC, 20)};
        const Fd file{::fcntl(request.get(), F_DUPFD_CLOEXEC, 20)};
        const Fd binary{::fcntl(program.get(), F_DUPFD_CLOEXEC, 20)};
        (void)::dup2(end.get(), detail::helper_socket);
        (void)::dup2(file.get(), detail::helper_request);
        std::string title = "caisson-helper";
        char* const argv[] = {title.data(), title.data(), nullptr};
        char* const envp[] = {nullptr};
        (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        (void)::fexecve(binary.get(), argv, envp);
        ::_exit(99);
    }
    (void)::close(ends[1]);
    int status = 0;
    bool has_started = false;
    for (long stops = -1; ::waitpid(helper, &status, 0) == helper && WIFSTOPPED(status); ++stops) {
        char answer[4096];
        if (::recv(ours.get(), answer, sizeof answer, MSG_DONTWAIT) > 0) has_started = true;
        // Each call stops it twice.
        if (has_started || stops >= 2 * call) (void)::kill(helper, SIGKILL);
        (void)::ptrace(PTRACE_SYSCALL, helper, nullptr, nullptr);
    }
    CHECK(WIFSIGNALED(status));
    return has_started;
}

}  // namespace

TEST_CASE("a name that a sweep is about to free is waited for") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::mkdir((place.run + "/web").c_str(), 0700) == 0);
    detail::Owner dead = detail::Owner::current();
    dead.start_time += 1;
    Fd lock = detail::sys::open(place.run + "/web/owner", O_RDWR | O_CREAT, 0600);
    REQUIRE(lock);
    REQUIRE(detail::sys::write_all(lock.get(), dead.tag()));
    REQUIRE(::flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
    std::thread sweeper{[&] {
        std::this_thread::sleep_for(100ms);
        (void)::unlink((place.run + "/web/owner").c_str());
        std::this_thread::sleep_for(100ms);
        (void)::rmdir((place.run + "/web").c_str());
        lock.reset();
    }};
    CHECK(error_of(place.spec("web"), place.options) == "it started: killed by signal 9");
    sweeper.join();
    CHECK(place.empty());
}

TEST_CASE("a relative run directory is the caller's, for who starts as for who looks") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    CHECK(in_child([&] {
              if (::chdir((place.directory / "").c_str()) != 0) return 1;
              Helper helper = Helper::start(place.spec("web"), {.run_directory = "run"});
              if (!Helper::find("web", "run")) return 2;
              (void)helper.kill();
              return 0;
          }) == 0);
    CHECK(place.empty());
    HelperOptions options = place.options;
    options.run_directory.clear();
    CHECK(error_of(place.spec("web"), options) ==
          "container 'web': run_directory: '' is no path: name a directory, such as /run/caisson");
}

TEST_CASE("another user's run directory is refused with a remedy") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(in_child([&] {
              if (::setresuid(65534, 65534, 65534) != 0) return 1;
              const auto is_told = [](auto&& call) {
                  try {
                      call();
                  } catch (const Error& e) {
                      return std::strstr(e.what(), "Permission denied: it is another user's") != nullptr;
                  }
                  return false;
              };
              if (!is_told([&] { (void)Helper::list(place.run); })) return 2;
              return is_told([&] { (void)Helper::find("web", place.run); }) ? 0 : 3;
          }) == 0);
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("a limit on the size of files is told, and does not end the program") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    CHECK(in_child([&] {
              rlimit most{};
              if (::getrlimit(RLIMIT_FSIZE, &most) != 0) return 1;
              most.rlim_cur = 0;
              if (::setrlimit(RLIMIT_FSIZE, &most) != 0) return 2;
              return error_of(place.spec("web"), place.options) ==
                             "container 'web': file in memory: File too large: the limit on the size of files "
                             "(RLIMIT_FSIZE) is 0 bytes: raise 'ulimit -f'"
                         ? 0
                         : 3;
          }) == 0);
    CHECK(Helper::list(place.run).empty());
}

TEST_CASE("a run directory that others may write to, or that cannot be made, is refused") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::chmod(place.run.c_str(), 0777) == 0);
    CHECK(error_of(place.spec("web"), place.options) ==
          "container 'web': directory '" + place.run +
              "': Operation not permitted: it must belong to user 0 and be writable by no other");
    REQUIRE(::rmdir(place.run.c_str()) == 0);
    HelperOptions options = place.options;
    options.run_directory += "/a/b";
    CHECK(error_of(place.spec("web"), options) == "container 'web': make directory '" + options.run_directory +
                                                      "': No such file or directory: make its parent directory, or set "
                                                      "run_directory");
    CHECK(Helper::list(options.run_directory).empty());
    CHECK_FALSE(Helper::find("web", options.run_directory));
}

TEST_CASE("what a helper runs is recorded for its owner alone, and goes with it") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const std::string file = place.run + "/web/state";
    struct stat st {};
    REQUIRE(::stat(file.c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);
    const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
    const auto record = detail::StateRecord::read(directory.get());
    REQUIRE(record);
    CHECK(record->name == "web");
    CHECK(record->helper.pid == helper.pid());
    REQUIRE(record->init);
    CHECK(record->init->pid == helper.info().init);
    CHECK_FALSE(record->init->is_dead());
    (void)helper.kill();
    CHECK(record->init->is_dead());
    CHECK(place.empty());
}

TEST_CASE("a run directory without room refuses a start, and is left as it was") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::mount(detail::Owner::current().tag().c_str(), place.run.c_str(), "tmpfs", 0, "size=32k,mode=700") == 0);
    const std::string fill = place.run + "/fill";
    int refused = 0;
    bool started = false;
    for (off_t pages = 8; pages >= 0 && !started; --pages) {
        const Fd file{::open(fill.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
        REQUIRE(::ftruncate(file.get(), 0) == 0);
        REQUIRE((pages == 0 || ::posix_fallocate(file.get(), 0, pages * 4096) == 0));
        const std::string error = error_of(place.spec("web"), place.options);
        started = error == "it started: killed by signal 9";
        if (started) break;
        ++refused;
        const std::string reason = ": No space left on device";
        const bool of_owner = error == "container 'web': write '" + place.run + "/web/owner'" + reason;
        const std::string remedy = reason + ": make room there, or set run_directory";
        const bool of_record =
            error == "container 'web': write '" + place.run + "/web/state'" + remedy ||
            (error.starts_with("container 'web': write '" + place.run + "/web/container.") && error.ends_with(remedy));
        CHECK_MESSAGE((of_owner || of_record), error);
        CHECK(::access((place.run + "/web").c_str(), F_OK) != 0);
    }
    CHECK(started);
    CHECK(refused >= 3);
    CHECK(::umount2(place.run.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("a run directory with room for a name alone refuses a start, and is left as it was") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    const std::string tag = detail::Owner::current().tag();
    REQUIRE(::mount(tag.c_str(), place.run.c_str(), "tmpfs", 0, "nr_inodes=2,mode=700") == 0);
    CHECK(error_of(place.spec("web"), place.options) ==
          "container 'web': lock '" + place.run + "/web': No space left on device");
    CHECK(::access((place.run + "/web").c_str(), F_OK) != 0);
    CHECK(::umount2(place.run.c_str(), MNT_DETACH) == 0);
}

TEST_CASE(
    "a run directory that is full when a container restarts is told to who needs the record, until there is room") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    const std::string tag = detail::Owner::current().tag();
    REQUIRE(::mount(tag.c_str(), place.run.c_str(), "tmpfs", 0, "size=128k,mode=700") == 0);
    ContainerSpec spec =
        place.spec("web", "trap 'exit 7' TERM; echo x >> /runs; while [ ! -e /crash ]; do sleep 0.02; done; exit 3");
    spec.on_crash = EndAction::restart;
    spec.back_off = {.first_pause_ms = 600'000, .longest_pause_ms = 600'000};
    Helper helper = Helper::start(spec, place.options);
    helper.watch();
    const std::string full = place.run + "/fill";
    const auto fill = [&] {
        const Fd file{::open(full.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
        for (char page[4096]{}; ::write(file.get(), page, sizeof page) > 0;) continue;
    };
    const auto wait_for = [&](Event::Kind kind) {
        for (bool came = false; !came;) {
            REQUIRE(detail::wait_readable(helper.fd(), 10'000));
            while (const auto event = helper.next_event()) came = came || event->kind == kind;
        }
    };
    std::string runs;
    const auto reboot = [&] {
        runs += "x\n";
        for (int i = 0; i < 5000 && place.root.read("/runs") != runs; ++i) ::usleep(2000);
        const pid_t before = helper.info().init;
        CHECK(helper.reboot());
        wait_for(Event::Kind::started);
        CHECK(helper.info().init != before);
    };
    fill();
    reboot();
    ExecSpec exec;
    exec.command = {"/bin/true"};
    CHECK_THROWS_WITH_AS((void)helper.exec(exec),
                         doctest::Contains("No space left on device: make room there, or set run_directory"), Error);
    // That needs none, nor does it of one that waits for its restart.
    reboot();
    REQUIRE(::unlink(full.c_str()) == 0);
    CHECK(helper.exec(exec).wait() == ExitStatus::exited(0));
    fill();
    reboot();
    place.root.write("/crash", "");
    wait_for(Event::Kind::restarting);
    CHECK_THROWS_WITH_AS((void)helper.exec(exec), doctest::Contains("it has ended, and is about to be started again"),
                         Error);
    CHECK(helper.shutdown());
    CHECK(helper.wait() == ExitStatus::exited(3));
    CHECK(::umount2(place.run.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("a container without control groups that has outlived keeper and helper is ended by its record") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    bool by_sweep = true;
    SUBCASE("in a sweep") {}
    SUBCASE("by who starts one of its name") {
        by_sweep = false;
    }
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::mkdir((place.run + "/web").c_str(), 0700) == 0);
    const pid_t left = ::fork();
    if (left == 0) {
        (void)::poll(nullptr, 0, 60'000);
        ::_exit(0);
    }
    const Process process = Process::open(left);
    detail::StateRecord record = detail::StateRecord::of_helper("web");
    record.init = detail::Owner::of(left);
    const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
    const auto write = [&](const detail::Owner& helper) {
        record.helper = helper;
        record.write(directory.get(), place.run);
        const Fd owner = detail::sys::open(place.run + "/web/owner", O_CREAT | O_TRUNC | O_WRONLY, 0600);
        REQUIRE(detail::sys::write_all(owner.get(), helper.tag()));
    };
    write(detail::Owner::current());
    CHECK(sweep_of(place.run).kept.empty());
    CHECK_FALSE(process.ended());
    detail::Owner dead = detail::Owner::current();
    dead.start_time += 1;
    write(dead);
    if (by_sweep) CHECK(sweep_of(place.run).kept.empty());
    else CHECK(error_of(place.spec("web"), place.options) == "it started: killed by signal 9");
    int status = 0;
    CHECK(process.ended());
    (void)process.signal(SIGKILL);
    CHECK(::waitpid(left, &status, 0) == left);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("wherever a helper is killed in its start, nothing is left after a sweep") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    const LeavesNothing nothing;
    // Others at each run of the test.
    long call = 1 + ::getpid() % 31;
    for (; !start_and_kill_at(place, call); call += 31) {
        CHECK(sweep_of(place.run).kept.empty());
        const bool is_gone = ::rmdir(place.run.c_str()) == 0 || errno == ENOENT;
        CHECK_MESSAGE(is_gone, "killed at call " << call);
    }
    MESSAGE("a start takes the helper about " << call << " calls");
    (void)sweep_of(place.run);
    CHECK(place.empty());
}

TEST_CASE("whoever sees to a container is killed at whatever moment, it goes on or is gone, as was promised") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    const LeavesNothing nothing;
    enum class Victim { helper, keeper, owner };
    const auto round = [&](HelperOptions options, Victim victim, int number) {
        options.run_directory = place.run;
        Helper helper = Helper::start(place.spec("web"), options);
        const Process init = Process::open(helper.info().init);
        const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
        const auto owner = detail::Owner::recorded_in(directory.get(), "owner");
        REQUIRE(owner);
        const pid_t pid = victim == Victim::helper   ? helper.pid()
                          : victim == Victim::keeper ? status_number(init.pid(), "PPid:")
                                                     : owner->pid;
        REQUIRE(pid > 1);
        std::atomic<bool> is_over = false;
        std::thread busy{[&] {
            ExecSpec exec;
            exec.command = {"/bin/true"};
            const MountSpec mount{.type = MountSpec::Type::tmpfs, .target = "/mnt"};
            // Whatever is under way fails or not; what it leaves is looked at below.
            while (!is_over) {
                try {
                    auto client = Helper::find("web", place.run);
                    if (!client) {
                        ::usleep(1000);
                        continue;
                    }
                    client->attach(mount);
                    (void)client->exec(exec).wait();
                    client->detach_mount("/mnt");
                    if (!options.group.empty()) (void)Helper::start(place.spec("other"), options).kill();
                } catch (const Error&) {
                }
            }
        }};
        std::this_thread::sleep_for(std::chrono::microseconds{(number * 1733 + ::getpid() * 311) % 20'000});
        REQUIRE(::kill(pid, SIGKILL) == 0);
        const bool goes_on = options.outlive && victim == Victim::helper;
        if (goes_on) {
            CHECK(helper.info().init == init.pid());
            is_over = true;
            busy.join();
            CHECK_FALSE(init.ended());
            CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
        } else {
            CHECK(init.ended_within(dead_within));
            CHECK(helper.wait() == ExitStatus::killed(SIGKILL));
            is_over = true;
            busy.join();
        }
        // A helper that has just been killed may be about to be one no more.
        for (int i = 0; i < 100 && !Helper::list(place.run).empty(); ++i) std::this_thread::sleep_for(10ms);
        CHECK(sweep_of(place.run).kept.empty());
        for (int i = 0; i < 1000 && ::rmdir(place.run.c_str()) != 0 && errno == ENOTEMPTY; ++i) {
            std::this_thread::sleep_for(1ms);
        }
        CHECK(::access(place.run.c_str(), F_OK) != 0);
    };
    int number = 0;
    for (int again = 0; again < 3; ++again) {
        for (const Victim victim : {Victim::helper, Victim::keeper, Victim::owner}) {
            HelperOptions group;
            group.group = "shop";
            HelperOptions outlive;
            outlive.outlive = true;
            CAPTURE(number);
            // Of the first two, the helper is the owner.
            if (victim != Victim::owner) round({}, victim, ++number);
            if (victim != Victim::owner) round(group, victim, ++number);
            round(outlive, victim, ++number);
        }
    }
}
