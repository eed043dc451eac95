// A helper at its limits: descriptors, memory, what the kernel refuses or does not get done, what it may do, and what
// it is believed.
#include <caisson/helper.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/container_record.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/state_record.hpp>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/injected_call.hpp"
#include "support/rootfs.hpp"
#include "support/suspended.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

rlim_t last_descriptor(pid_t pid) {
    rlim_t last = 0;
    for (rlim_t number = 0; number < 1024; ++number) {
        const std::string name = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(number);
        if (::access(name.c_str(), F_OK) == 0) last = number;
    }
    return last;
}

/// The calling process goes into the control groups of another.
bool join_groups_of(pid_t pid) {
    std::string groups;
    std::string mounts;
    if (!detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/cgroup").c_str(), groups) ||
        !detail::sys::read_file(AT_FDCWD, "/proc/self/mountinfo", mounts, std::size_t{1} << 20)) {
        return false;
    }
    bool joined = false;
    for (const detail::CgroupHierarchy& hierarchy : detail::parse_cgroup_hierarchies(groups, mounts)) {
        if (hierarchy.places.empty() || !hierarchy.places[0].own) continue;
        const std::string group = hierarchy.places[0].mount_point + *hierarchy.places[0].own;
        const std::string file = group + (hierarchy.v2() ? "/cgroup.procs" : "/tasks");
        joined = detail::sys::write_file(AT_FDCWD, file.c_str(), "0") || joined;
    }
    return joined;
}

/// A limit of another process's, until this goes.
struct Limited {
    Limited(pid_t process, __rlimit_resource which, rlim_t soft) : pid{process}, resource{which} {
        REQUIRE(::prlimit(pid, resource, nullptr, &before) == 0);
        const rlimit now{soft, before.rlim_max};
        REQUIRE(::prlimit(pid, resource, &now, nullptr) == 0);
    }
    Limited(const Limited&) = delete;
    ~Limited() { (void)::prlimit(pid, resource, &before, nullptr); }
    pid_t pid;
    __rlimit_resource resource;
    rlimit before{};
};

}  // namespace

TEST_CASE("a container that does not come to rest holds up its own client alone") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    const TestDirectory stuck;
    SilentServer server;
    if (!server.mount(stuck.path())) CAISSON_SKIP("this kernel has no FUSE");
    Helper first = group.start("first", answering);
    const Fd console = first.open_console();
    Helper restless = group.start("restless");
    const pid_t in_kernel = ::fork();
    if (in_kernel == 0) {
        (void)::close(server.fuse.get());
        struct stat st {};
        if (join_groups_of(restless.info().init)) (void)::stat((stuck.path() + "/x").c_str(), &st);
        ::_exit(0);
    }
    REQUIRE(detail::wait_readable(server.fuse.get(), 10'000));
    bool went_on = false;
    std::string refused;
    // What counts is who is first, on a machine that does other things as well.
    for (int attempt = 0; attempt < 10 && !went_on; ++attempt) {
        std::atomic<bool> is_over = false;
        std::thread suspends{[&] {
            refused = message_of([&] { restless.suspend(); });
            is_over = true;
        }};
        std::this_thread::sleep_for(50ms);
        went_on = answers(console, "word") && !is_over;
        suspends.join();
    }
    MESSAGE(refused);
    CHECK(went_on);
    // One question at a time; the next is answered.
    CHECK(restless.info().name == "restless");
    server.fuse.reset();
    CHECK(::umount2(stuck.path().c_str(), MNT_DETACH) == 0);
    (void)::waitpid(in_kernel, nullptr, 0);
    CHECK(restless.kill() == ExitStatus::killed(SIGKILL));
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("a helper without a descriptor left says so, and has one for that also the next time") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    Helper first = group.start("first", answering);
    const Fd console = first.open_console();
    const pid_t pid = first.pid();
    {
        const Limited limited{pid, RLIMIT_NOFILE, last_descriptor(pid) + 1};
        std::vector<Helper> clients;
        int refused = 0;
        while (refused < 3 && clients.size() < 100) {
            auto more = Helper::find("first", group.run);
            REQUIRE(more);
            const std::string why = message_of([&] { (void)more->signal(0); });
            refused += why == "container 'first': helper: Too many open files: it has no descriptor left" ? 1 : 0;
            if (refused > 0) continue;
            CHECK(why == "nothing was thrown");
            clients.push_back(std::move(*more));
        }
        CHECK(refused == 3);
        CHECK(answers(console, "word"));
        for (Helper& client : clients) CHECK(client.signal(0));
    }
    CHECK(Helper::find("first", group.run)->signal(0));
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("a start by who has hardly a descriptor left says so, and leaves nothing") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    Place place;
    place.options.outlive = true;
    const auto start_with_little = [&] {
        // The helper, with the same limit, has those numbers.
        std::vector<Fd> held;
        while (held.size() < 80) held.emplace_back(::fcntl(0, F_DUPFD_CLOEXEC, 3));
        rlimit before{};
        if (::getrlimit(RLIMIT_NOFILE, &before) != 0) return 1;
        for (int room = 1; room < 20; ++room) {
            const rlimit most{static_cast<rlim_t>(held.back().get() + room), before.rlim_max};
            if (::setrlimit(RLIMIT_NOFILE, &most) != 0) return 2;
            std::optional<Helper> helper;
            bool had_room = true;
            try {
                helper.emplace(Helper::start(place.spec("web"), place.options));
            } catch (const Error& e) {
                had_room = e.code().value() != EMFILE;
            }
            if (::setrlimit(RLIMIT_NOFILE, &before) != 0) return 3;
            if (helper) return helper->kill() == ExitStatus::killed(SIGKILL) ? 0 : 4;
            if (had_room) return 5;
            for (int i = 0; i < 5000 && Helper::find("web", place.run); ++i) ::usleep(2000);
            if (Helper::find("web", place.run)) return 6;
        }
        return 7;
    };
    CHECK(in_child(start_with_little) == 0);
    CHECK(place.empty());
}

TEST_CASE("a note whose descriptor a helper had no room for is refused as that") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const Fd client = connect_to(place.run + "/web/sock");
    // The kernel passes the message on without.
    REQUIRE(detail::send_message(client.get(), {.kind = detail::Message::Kind::note}));
    detail::Message answer;
    REQUIRE(detail::wait_readable(client.get(), 10'000));
    REQUIRE(detail::take_message(client.get(), answer, nullptr) == detail::Taken::message);
    REQUIRE(answer.kind == detail::Message::Kind::refused);
    CHECK(std::string{detail::decode<detail::PlainError>(answer.body).error().what()} ==
          "helper: descriptor of a note: Too many open files: end others of its group");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("a container that takes more memory than its group's helper can get ends no other") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    Helper first = group.start("first", answering);
    const Fd console = first.open_console();
    ContainerSpec spec = group.spec("greedy", "read x; head -c 4000000 /dev/zero");
    spec.console->scroll_back = 8 << 20;
    Helper greedy = Helper::start(spec, group.options);
    const Fd its = greedy.open_console();
    const pid_t pid = first.pid();
    std::string status;
    REQUIRE(detail::sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/statm").c_str(), status));
    const unsigned long pages = std::stoul(status);
    if (pages > 1ul << 28) {
        (void)greedy.kill();
        (void)first.kill();
        CAISSON_SKIP("the helper has an address space as of a sanitizer");
    }
    {
        const Limited limited{pid, RLIMIT_AS, 1};
        REQUIRE(::write(its.get(), "\n", 1) == 1);
        std::this_thread::sleep_for(100ms);
        for (int i = 0; i < 3; ++i) CHECK(answers(console, "word"));
    }
    CHECK(first.info().name == "first");
    CHECK(group.start("third").kill() == ExitStatus::killed(SIGKILL));
    // Who reads what is left need not be waited for.
    CHECK(greedy.ask_to_kill());
    std::string rest(1 << 16, '\0');
    while (::read(its.get(), rest.data(), rest.size()) > 0) continue;
    (void)greedy.wait();
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("who comes to a helper that has no time for so many waits for his turn") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    REQUIRE(::kill(helper.pid(), SIGSTOP) == 0);
    std::vector<Fd> waiting;
    do waiting.push_back(try_to_connect(place.run + "/web/sock"));
    while (waiting.back());
    CHECK(errno == EAGAIN);
    CHECK(waiting.size() > 100);
    std::string refused = "not yet";
    std::thread comes{[&] { refused = message_of([&] { CHECK(Helper::find("web", place.run)->signal(0)); }); }};
    std::this_thread::sleep_for(50ms);
    REQUIRE(::kill(helper.pid(), SIGCONT) == 0);
    comes.join();
    CHECK(refused == "nothing was thrown");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("another user is answered nothing, also where he can reach the socket") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const std::string socket = place.run + "/web/sock";
    for (const std::string& path : {place.directory.path(), place.run, place.run + "/web", socket}) {
        REQUIRE(::chmod(path.c_str(), 0777) == 0);
    }
    CHECK(in_child([&] {
              if (::setresuid(65534, 65534, 65534) != 0) return 1;
              const Fd client = try_to_connect(socket);
              if (!client || ::fcntl(client.get(), F_SETFL, 0) != 0) return 2;
              // The helper may have closed it before.
              (void)detail::send_message(client.get(), {.kind = detail::Message::Kind::kill});
              char answer[256];
              return ::recv(client.get(), answer, sizeof answer, 0) <= 0 ? 0 : 3;
          }) == 0);
    CHECK(helper.signal(0));
    CHECK(::chmod(place.run.c_str(), 0700) == 0);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

TEST_CASE("a helper is not believed what its container is, and gives its clients no program") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("web");
    spec.stage_path = place.directory / "stage";
    std::filesystem::copy_file(CAISSON_TEST_STAGE, spec.stage_path);
    Helper helper = Helper::start(spec, place.options);
    REQUIRE(::unlink(spec.stage_path.c_str()) == 0);
    ExecSpec exec;
    exec.command = {"/bin/true"};
    CHECK(helper.exec(exec).wait().success());
    const MountSpec tmpfs{.type = MountSpec::Type::tmpfs, .target = "/mnt"};
    CHECK(message_of([&] { helper.attach(tmpfs); }) == "nothing was thrown");

    const Fd directory = detail::sys::open(place.run + "/web", O_RDONLY | O_DIRECTORY);
    auto record = detail::StateRecord::read(directory.get());
    REQUIRE(record);
    const auto init = record->init;
    record->init = detail::Owner::current();
    record->write(directory.get(), place.run + "/web");
    const std::string refused = "helper of container 'web': Operation not permitted: it gives process " +
                                std::to_string(init->pid) + " as the container's, and '" + place.run +
                                "/web/state' does not";
    CHECK(message_of([&] { (void)helper.exec(exec); }) == refused);
    CHECK(message_of([&] { (void)helper.shutdown(); }) == refused);
    CHECK(message_of([&] { (void)helper.security_report(); }).find(refused) != std::string::npos);
    CHECK(message_of([&] { helper.attach(tmpfs); }).find(refused) != std::string::npos);
    record->init = init;
    record->write(directory.get(), place.run + "/web");
    CHECK(helper.exec(exec).wait().success());
    // As from a pid namespace inside this one, where numbers are other ones, and times are not.
    const auto from_elsewhere = [&](detail::Owner process) {
        process.pid_namespace += 1;
        record->init = process;
        record->write(directory.get(), place.run + "/web");
        detail::ContainerRecord::read(directory.get(), *init)->write(directory.get(), process, place.run + "/web");
        return message_of([&] { (void)helper.exec(exec).wait(); });
    };
    CHECK(from_elsewhere(*init) == "nothing was thrown");
    detail::Owner other = *init;
    other.start_time += 1;
    CHECK(from_elsewhere(other) == refused);
    other = *init;
    other.pid = ::getpid();
    CHECK(from_elsewhere(other) == refused);
    record->init = init;
    record->write(directory.get(), place.run + "/web");

    // What the helper has in its own memory is nobody's business: it may be another's hand that has put it there.
    auto known = detail::ContainerRecord::read(directory.get(), *init);
    REQUIRE(known);
    const detail::ContainerRecord before = *known;
    CHECK(before.defaults.spec.environment != decltype(before.defaults.spec.environment){{"SAYS", "file"}});
    known->defaults.spec.environment = {{"SAYS", "file"}};
    known->hotplug.equipment.mounts.clear();
    known->write(directory.get(), *init, place.run + "/web");
    exec.command = {"/bin/sh", "-c", "test $SAYS = file"};
    CHECK(helper.exec(exec).wait().success());
    CHECK(message_of([&] { helper.detach_mount("/mnt"); }).find("it was not given to the container") !=
          std::string::npos);
    before.write(directory.get(), *init, place.run + "/web");
    CHECK_FALSE(helper.exec(exec).wait().success());
    CHECK(message_of([&] { helper.detach_mount("/mnt"); }) == "nothing was thrown");

    REQUIRE(::unlinkat(directory.get(), detail::ContainerRecord::file_of(*init).c_str(), 0) == 0);
    CHECK(message_of([&] { (void)helper.exec(exec); }).find("its clients believe nothing else") != std::string::npos);
    CHECK(message_of([&] { (void)helper.security_report(); }).find("believe nothing else") != std::string::npos);
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}

#ifdef __x86_64__
TEST_CASE("a client that the kernel does not let a helper watch is told so, and the others go on") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    Helper first = group.start("first");
    CHECK(first.info().name == "first");
    std::optional<Helper> more;
    {
        Injected inside{first.pid()};
        more = Helper::find("first", group.run);
        REQUIRE(more);
        inside.refuse_next(SYS_epoll_ctl, ENOSPC);
    }
    CHECK(message_of([&] { (void)more->info(); }) == "container 'first': watch a descriptor: No space left on device");
    CHECK(first.info().name == "first");
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}
TEST_CASE("what a group's helper has no thread for is refused, and the others go on") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Group group;
    Helper first = group.start("first");
    CHECK(first.info().name == "first");
    const Fd client = connect_to(group.run + "/first/sock");
    {
        Injected inside{first.pid()};
        REQUIRE(detail::send_message(client.get(), {.kind = detail::Message::Kind::suspend}));
        inside.refuse_next(SYS_clone3, EAGAIN);
    }
    detail::Message answer;
    REQUIRE(detail::wait_readable(client.get(), 10'000));
    REQUIRE(detail::take_message(client.get(), answer, nullptr) == detail::Taken::message);
    REQUIRE(answer.kind == detail::Message::Kind::refused);
    CHECK(
        std::string{detail::decode<detail::PlainError>(answer.body).error().what()} ==
        "helper: make a thread: Resource temporarily unavailable: raise 'ulimit -u' and the pids limit of its control "
        "group");
    CHECK(first.info().name == "first");
    CHECK(first.kill() == ExitStatus::killed(SIGKILL));
    CHECK(group.ends());
}

TEST_CASE("a helper that has locked itself down puts a full log's content aside and begins it anew") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    std::string content;
    for (int i = 0; i < 2000; ++i) content += std::to_string(10000 + i) + " line\n";
    place.root.write("/content", content);
    ContainerSpec spec = place.spec("web", "stty raw -echo; cat /content; sleep 1000");
    spec.console->log = place.directory / "log";
    spec.console->log_limit = 10000;
    Helper helper = Helper::start(spec, place.options);
    const auto logged = [&](const char* end) {
        std::string text;
        (void)detail::sys::read_file(AT_FDCWD, (spec.console->log + end).c_str(), text);
        return text;
    };
    for (int i = 0; i < 1000 && helper.console_state().written < content.size(); ++i) std::this_thread::sleep_for(10ms);
    CHECK(bool{logged(".1") == content.substr(10000, 10000)});
    CHECK(bool{logged("") == content.substr(20000)});
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
}

TEST_CASE("a helper that has been taken over can open, run and reach nothing that its container does not need") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    ContainerSpec spec = place.spec("web");
    spec.console->log = place.directory / "log";
    spec.console->log_limit = 4096;
    const std::string beside = place.directory / "beside";
    REQUIRE(Fd{::open(beside.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)});
    Helper helper = Helper::start(spec, place.options);
    const detail::Owner init = *detail::Owner::of(helper.info().init);
    {
        Injected inside{helper.pid()};
        const auto here = static_cast<unsigned long long>(AT_FDCWD);
        const auto open = [&](const std::string& path, unsigned long long flags) {
            return inside.call(SYS_openat, {here, inside.put(path), flags, 0600});
        };
        CHECK(inside.call(SYS_execve, {inside.put("/bin/true")}) == -EPERM);
        CHECK(inside.call(SYS_execveat, {here, inside.put("/bin/true")}) == -EPERM);
        for (const long call : {SYS_fork, SYS_vfork, SYS_clone, SYS_clone3}) CHECK(inside.call(call, {}) == -EPERM);
        for (const int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_PACKET}) {
            CHECK(inside.call(SYS_socket, {static_cast<unsigned long long>(family), SOCK_STREAM}) == -EPERM);
        }
        for (const long call : {SYS_connect, SYS_bind, SYS_mount, SYS_move_mount, SYS_setns, SYS_unshare, SYS_ptrace,
                                SYS_kill, SYS_tgkill, SYS_bpf, SYS_io_uring_setup, SYS_process_vm_writev, SYS_chroot,
                                SYS_mknodat, SYS_symlinkat, SYS_linkat, SYS_init_module, SYS_keyctl, SYS_reboot}) {
            CHECK_MESSAGE(inside.call(call, {}) == -EPERM, "call " << call);
        }
        // Root's files are its own, and may not become anybody's.
        CHECK(inside.call(SYS_fchmodat, {here, inside.put(place.run + "/web"), 0777}) == -EPERM);
        CHECK(inside.call(SYS_chmod, {inside.put(place.run + "/web"), 0777}) == -EPERM);
        CHECK(inside.call(SYS_fchmod, {~0ULL, 0777}) == -EPERM);
        constexpr unsigned long long anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
        const auto none = ~0ULL;
        CHECK(inside.call(SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, anonymous, none}) == -EPERM);
        CHECK(inside.call(SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, anonymous, none}) > 0);
        CHECK(inside.call(SYS_prlimit64, {0, RLIMIT_NOFILE, inside.put("0123456789abcdef")}) == -EPERM);
        CHECK(inside.call(SYS_getpid | 0x40000000, {}) == -EPERM);  // x32's
        CHECK(inside.call(SYS_getpid, {}) == helper.pid());

        CHECK(open("/proc/self/stat", O_RDONLY) >= 0);
        if (::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) > 0) {
            CHECK(open("/etc/shadow", O_RDONLY) == -EACCES);
            CHECK(open("/etc", O_RDONLY | O_DIRECTORY) == -EACCES);
            CHECK(open(place.directory / "made", O_CREAT | O_WRONLY) == -EACCES);
            CHECK(open(beside, O_WRONLY) == -EACCES);
            CHECK(open(spec.console->log + ".1", O_WRONLY) >= 0);
            CHECK(inside.call(SYS_renameat2, {here, inside.put(beside), here, inside.put(spec.console->log), 0}) ==
                  -EACCES);
            CHECK(open(place.run + "/web/made", O_CREAT | O_WRONLY) == -EACCES);
            // What its clients go by.
            const std::string record = place.run + "/web/" + detail::ContainerRecord::file_of(init);
            for (const std::string& file : {record, place.run + "/web/state"}) {
                for (const int flags : {O_WRONLY, O_WRONLY | O_TRUNC, O_RDWR}) {
                    CHECK(open(file, static_cast<unsigned long long>(flags)) == -EACCES);
                }
                CHECK(inside.call(SYS_renameat2,
                                  {here, inside.put(place.run + "/web/owner"), here, inside.put(file), 0}) == -EACCES);
            }
            CHECK(open("/proc/sys/kernel/hostname", O_WRONLY) == -EACCES);
            CHECK(inside.call(SYS_unlinkat, {here, inside.put(place.root / "/bin/sh"), 0}) == -EACCES);
        } else {
            MESSAGE("this kernel has no Landlock: what a helper may open is its user's");
        }
    }
    CHECK(helper.info().name == "web");
    CHECK(helper.kill() == ExitStatus::killed(SIGKILL));
    CHECK(place.empty());
}
#endif
