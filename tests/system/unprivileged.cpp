// What an ordinary user starts: a container of his own, with nothing of root's.
#include <caisson/container.hpp>

#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/ordinary_home.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

constexpr unsigned id = OrdinaryUser::id;
constexpr unsigned range = OrdinaryUser::range;

/// The kernel counts a process that has been reaped for some tens of milliseconds more.
bool removed(const std::string& group) {
    for (int waited = 0; ::rmdir(group.c_str()) != 0; waited += 10) {
        if (errno != EBUSY || waited > 5000) return false;
        ::usleep(10'000);
    }
    return true;
}

struct ::stat look(const std::string& path) {
    struct ::stat st {};
    (void)::lstat(path.c_str(), &st);
    return st;
}

}  // namespace

TEST_CASE("an ordinary user with a range of ids is root inside, and the range are the others") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    CHECK(home.run(shell(home.root,
                         "id -u; id -G; cat /proc/self/uid_map /proc/self/setgroups; touch /mine /other; "
                         "chown 33:34 /other")) ==
          "0\n0\n         0      61234          1\n         1 2100000000      65535\nallow\n");
    CHECK(look(home.root / "mine").st_uid == id);
    CHECK(look(home.root / "mine").st_gid == id);
    CHECK(look(home.root / "other").st_uid == range + 32);
    CHECK(look(home.root / "other").st_gid == range + 33);
    ContainerSpec other = shell(home.root, "id -u; id -g; id -G; tty; echo x > /dev/tty; touch /tmp/file");
    other.uid = other.gid = 33;
    CHECK(home.run(other) == "33\n33\n33\n/dev/pts/0\nx\n");
    CHECK(look(home.root / "tmp/file").st_uid == range + 32);
}

TEST_CASE("an ordinary user without a range has his own id alone, and setgroups(2) is denied inside: CVE-2014-8989") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const std::string script =
        "id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; grep Groups /proc/self/status; "
        "/bin/busybox su -s /bin/sh root -c true 2>&1; touch /mine";
    const std::string expected =
        "0\n         0      61234          1\n         0      61234          1\ndeny\nGroups:\t65534 \n"
        "su: can't set groups: Operation not permitted\nexited with status 1";
    ContainerSpec spec = shell(home.root, script + "; exit 1");
    CHECK(home.run(spec, false) == expected);
    CHECK(look(home.root / "mine").st_uid == id);
    // The same by an explicit map, with a range that is not used.
    spec.uid_map = spec.gid_map = {{0, id, 1}};
    CHECK(home.run(spec, true) == expected);
    spec.uid_map.clear();
    spec.gid_map.clear();
    // And where the programs are missing.
    spec.id_map_tools = "/nonexistent";
    CHECK(home.run(spec, true) == expected);

    spec = shell(home.root, "true");
    spec.uid = 33;
    CHECK(home.run(spec, false) ==
          "container 'test': uid: 33 is not among the ids that the caller can map: give the caller a range in "
          "/etc/subuid and /etc/subgid, and install newuidmap(1) and newgidmap(1)");
    spec.uid = 0;
    spec.groups = {0};
    CHECK(
        home.run(spec, false) ==
        "container 'test': groups: the kernel denies setgroups(2) where no group but the caller's own is mapped: give "
        "the caller a range in /etc/subgid");
}

TEST_CASE("an ordinary user runs commands in his running container") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    home.root.write("/etc/passwd", "mail:x:8:12::/:/bin/sh\n");
    for (const bool range_too : {true, false}) {
        CHECK(home.as_user(range_too, [&]() -> std::string {
            ContainerSpec spec = shell(home.root, "");
            spec.command = {"/bin/sleep", "1000"};
            Container container = Container::start(spec);
            ExecSpec exec;
            exec.console = WindowSize{};
            exec.command = {"/bin/sh", "-c", "id -u; cat /proc/self/oom_score_adj; tty; exit 7"};
            if (range_too) exec.user = "mail";
            exec.oom_score_adj = 400;
            Exec running = container.exec(exec);
            std::string all;
            char buffer[4096];
            for (ssize_t n = 0; (n = ::read(running.console()->fd(), buffer, sizeof buffer)) > 0;) {
                all.append(buffer, static_cast<std::size_t>(n));
            }
            std::erase(all, '\r');
            return all + running.wait().str();
        }) == std::string{range_too ? "8" : "0"} + "\n400\n/dev/pts/1\nexited with status 7");
    }
}

TEST_CASE("an explicit map out of the range leaves the caller himself out") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home{range};
    ContainerSpec spec = shell(home.root, "id -u; cat /proc/self/uid_map; touch /mine; stat -c %u /dev/console /dev");
    spec.uid_map = spec.gid_map = {{0, range, 1000}};
    CHECK(home.run(spec) == "0\n         0 2100000000       1000\n0\n0\n");
    CHECK(look(home.root / "mine").st_uid == range);

    spec.uid_map = {{0, 1, 1000}};
    CHECK(home.run(spec) ==
          "container 'test': uid_map by '/usr/bin/newuidmap': it says 'newuidmap: uid range [0-1000) -> [1-1001) not "
          "allowed': see subuid(5) and subgid(5) for the ids that are the caller's");
    spec.uid_map = {{0, range, 1000}};
    spec.id_map_tools = "/nonexistent";
    CHECK(home.run(spec) ==
          "container 'test': uid_map by '/nonexistent/newuidmap': No such file or directory: install it (Debian: "
          "uidmap), name its directory in id_map_tools, or map the caller's own id alone");
}

TEST_CASE("the console is a controlling terminal of the container's own, at /dev/console and in /dev/pts") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const std::string script =
        "tty; stty size; ls -1 /dev/pts; echo here > /dev/tty; echo there > /dev/console; "
        "[ /dev/console -ef /dev/pts/0 ] && echo same; read line; echo got $line; exit 7";
    for (const bool with_range : {false, true}) {
        if (with_range && !OrdinaryUser::has_tools()) continue;
        const std::string text = home.as_user(with_range, [&]() -> std::string {
            ContainerSpec spec = shell(home.root, script);
            spec.console->size = {50, 132};
            Container container = Container::start(spec);
            if (container.console()->size() != WindowSize{50, 132}) return "another size";
            (void)!::write(container.console()->fd(), "hello\n", 6);
            std::string all;
            char c = 0;
            while (::read(container.console()->fd(), &c, 1) == 1) {
                if (c != '\r') all += c;
            }
            return all + container.wait().str();
        });
        CAPTURE(with_range);
        const std::size_t echoed = text.find("hello\n");
        REQUIRE(echoed != std::string::npos);
        CHECK(std::string{text}.erase(echoed, 6) ==
              "/dev/pts/0\n50 132\n0\nptmx\nhere\nthere\nsame\ngot hello\nexited with status 7");
    }
    ContainerSpec bare = shell(home.root, "[ -t 0 ] && echo terminal; ls /dev");
    bare.dev = false;
    CHECK(home.run(bare, false) == "terminal\n");
}

TEST_CASE("without a console the payload has the descriptors that were given, and the null device for the others") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    CHECK(home.as_user(false, [&]() -> std::string {
        const Pipe out;
        ContainerSpec spec = shell(home.root, "cat; readlink /proc/self/fd/2; ls /proc/self/fd; exit 3");
        spec.console.reset();
        spec.stdio.out = out.write.get();
        Container container = Container::start(spec);
        const std::string status = container.wait().str();
        char buffer[256];
        const ssize_t n = ::read(out.read.get(), buffer, sizeof buffer);
        return std::string{buffer, static_cast<std::size_t>(n > 0 ? n : 0)} + status;
    }) == "/dev/null\n0\n1\n2\n3\nexited with status 3");
}

TEST_CASE("/dev has the host's nodes, which work and which root inside cannot change") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const mode_t before = look("/dev/null").st_mode;
    CHECK(home.run(
              shell(home.root,
                    "ls -1 /dev; echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; "
                    "echo x 2>/dev/null >/dev/full || echo full; chmod 600 /dev/null 2>/dev/null || echo kept; "
                    "rm /dev/zero 2>/dev/null || echo busy; readlink /dev/fd; readlink /dev/ptmx; ls /sys/fs/cgroup"),
              false) ==
          "console\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\ntty1\nurandom\nzero\n"
          "3\n3\nfull\nkept\nbusy\n/proc/self/fd\npts/ptmx\n");
    CHECK(look("/dev/null").st_mode == before);
}

TEST_CASE("users by name, masks, limits and a first process are as in any container") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    home.root.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\n");
    home.root.write("etc/group", "root:x:0:\nusers:x:100:\naudio:x:29:alice\n");
    OrdinaryUser::own(home.root.path());
    ContainerSpec spec = shell(home.root,
                               "id -u; id -G; echo $HOME $$; ulimit -n; cat /proc/keys | wc -c; ls /sys/firmware; "
                               "echo x 2>/dev/null >/proc/sysrq-trigger || echo read-only; "
                               "stat -c %u:%g /dev/console; echo x > /dev/shm/file && cat /dev/shm/file; umask");
    spec.user = "alice";
    spec.init = true;
    spec.umask = 027;
    spec.resource_limits = {{ResourceLimit::Kind::nofile, 77, 78}};
    CHECK(home.run(spec) == "1000\n100 29\n/home/alice 2\n77\n0\nread-only\n1000:5\nx\n0027\n");
    CHECK(home.run(spec, false) ==
          "container 'test': uid: 1000 is not among the ids that the caller can map: give the caller a range in "
          "/etc/subuid and /etc/subgid, and install newuidmap(1) and newgidmap(1)");
}

TEST_CASE("binds, memory and overlays of an ordinary user are made inside, with their options") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    home.root.write("var/below/file", "below\n");
    home.root.write("var/upper/x", "x");
    home.root.write("var/work/x", "x");
    std::filesystem::remove(home.root / "var/upper/x");
    std::filesystem::remove(home.root / "var/work/x");
    OrdinaryUser::own(home.root.path());
    ContainerSpec spec =
        shell(home.root,
              "cat /b/file /f; touch /b/new 2>/dev/null || echo read-only; echo y > /w/written; df -m /m | tail -n 1 | "
              "awk '{print $2}'; cat /o/file; echo z > /o/changed; touch /root/x 2>/dev/null || echo root too; echo x "
              "2>/dev/null >/dev/other || echo full");
    spec.mounts = {MountSpec::bind(home.root / "var/below", "/b", {.read_only = true}),
                   MountSpec::bind(home.root / "var/below/file", "/f"),
                   MountSpec::bind(home.root / "var/below", "/w", {.recursive = false}),
                   MountSpec::tmpfs("/m", 1 << 20), MountSpec::bind("/dev/full", "/dev/other", {.no_dev = false})};
    MountSpec overlay;
    overlay.type = MountSpec::Type::overlay;
    overlay.source = home.root / "var/below";
    overlay.upper = home.root / "var/upper";
    overlay.work = home.root / "var/work";
    overlay.target = "/o";
    spec.mounts.push_back(overlay);
    for (const char* point : {"b", "w", "m", "o"}) std::filesystem::create_directory(home.root / point);
    home.root.write("f", "");
    OrdinaryUser::own(home.root.path());
    spec.root_read_only = true;
    CHECK(home.run(spec, false) == "below\nbelow\nread-only\n1\nbelow\nroot too\nfull\n");
    CHECK(home.root.read("var/below/written") == "y\n");
    CHECK(home.root.read("var/upper/changed") == "z\n");
    CHECK(home.root.read("var/below/changed").empty());

    spec = shell(home.root, "true");
    spec.mounts = {MountSpec::bind("/sys", "/m", {.recursive = false})};
    CHECK(
        has(home.run(spec, false),
            "container 'test': bind '/sys' (in the child): Invalid argument: what is mounted below it must come along: "
            "set recursive"));
    std::filesystem::create_directory_symlink("below", home.root / "var/link");
    spec.mounts = {MountSpec::bind(home.root / "var/link", "/m")};
    const std::string link = "'" + (home.root / "var/link") + "'";
    const std::string remedy =
        ": Too many levels of symbolic links: a symbolic link is in it: name what it leads to, or set "
        "options.follow_links";
    CHECK(home.run(spec, false) == "container 'test': bind " + link + " (in the child)" + remedy);
    spec.mounts.front().options.follow_links = true;
    CHECK(home.run(spec, false).empty());
    overlay.source = home.root / "var/link";
    spec.mounts = {overlay};
    CHECK(home.run(spec, false) ==
          "container 'test': layer " + link + " of the overlay on '/o' (in the child)" + remedy);
    spec.mounts = {MountSpec::bind("/nonexistent", "/m")};
    CHECK(home.run(spec, false) ==
          "container 'test': bind '/nonexistent' (in the child): No such file or directory: the source must exist on "
          "the host");
}

TEST_CASE("an ordinary user's root stays as it is below an overlay, whose changes are his") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const Home changes;
    const std::string upper = changes.root / ("var/up:per" + std::string(200, 'x'));
    std::vector<std::string> lower;
    for (int i = 0; i < 11; ++i) lower.push_back(changes.root / ("var/lower" + std::to_string(i)));
    for (const std::string& path : lower) std::filesystem::create_directory(path);
    for (const std::string& path : {upper, changes.root / "var/work"}) std::filesystem::create_directory(path);
    changes.root.write("var/lower10/between", "between\n");
    OrdinaryUser::own(changes.root.path());
    ContainerSpec spec = shell(home.root, "cat /between; echo new > /new; rm /etc/group; ls /etc");
    spec.root_overlay = RootOverlay{lower, upper, changes.root / "var/work"};
    CHECK(home.run(spec, false) == "between\npasswd\n");
    CHECK(read_file(upper + "/new") == "new\n");
    CHECK(look(upper + "/new").st_uid == id);
    CHECK(home.root.read("new").empty());
    CHECK(!home.root.read("etc/group").empty());
    CHECK(home.run(spec, false) == "between\nrm: can't remove '/etc/group': No such file or directory\npasswd\n");
}

TEST_CASE("what an ordinary user's container writes to an overlay in memory is gone with it") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const Home between;
    between.root.write("var/lower/etc/other", "");
    OrdinaryUser::own(between.root.path());
    REQUIRE(::chmod((between.root / "var/lower").c_str(), 01771) == 0);
    // A directory in the place of another is what takes an attribute.
    ContainerSpec spec = shell(home.root,
                               "stat -c '%u:%g %a' /; echo new > /new; rm -r /etc; mkdir /etc; ls /etc; cat "
                               "/new; dd if=/dev/zero of=/big bs=65536 count=64 2>&1 | grep -o 'No space.*'");
    spec.root_overlay = RootOverlay{{between.root / "var/lower"}, {}, {}, 1 << 20};
    const std::string text = home.run(spec, false);
    const Fd file{::memfd_create("test", MFD_CLOEXEC)};
    if (::fsetxattr(file.get(), "user.test", "", 0, 0) != 0) {
        CHECK(text ==
              "container 'test': root_overlay.upper: it is empty, and this kernel keeps in memory no changes "
              "that an ordinary user's container makes to directories: name directories of the caller's as "
              "upper and work, or use Linux 6.6 with CONFIG_TMPFS_XATTR");
        CAISSON_SKIP("memory has no extended attributes for users");
    }
    CHECK(text == "0:0 1771\nnew\nNo space left on device\n");
    CHECK(home.run(spec, false) == text);
    CHECK(home.root.read("new").empty());
    CHECK_FALSE(home.root.read("etc/group").empty());
    spec.root_read_only = true;
    spec.root_overlay->bytes = 0;
    spec.command = {"/bin/sh", "-c", "ls -1 /etc; echo x 2>/dev/null > /new || echo no"};
    CHECK(home.run(spec, false) == "group\nother\npasswd\nno\n");
}

TEST_CASE("an ordinary user's overlay is where the names of users are looked up") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const Home changes;
    for (const char* name : {"var/upper", "var/upper/etc", "var/lower", "var/lower/etc", "var/work"}) {
        std::filesystem::create_directory(changes.root / name);
    }
    changes.root.write("var/upper/etc/passwd", "anna:x:0:0::/of/upper:/bin/sh\n");
    changes.root.write("var/lower/etc/passwd", "anna:x:0:0::/of/lower:/bin/sh\n");
    changes.root.write("var/lower/etc/group", "");
    OrdinaryUser::own(changes.root.path());
    ContainerSpec spec = shell(home.root, "echo $HOME; cat /etc/passwd");
    spec.root_overlay =
        RootOverlay{{changes.root / "var/lower"}, changes.root / "var/upper", changes.root / "var/work"};
    spec.user = "anna";
    CHECK(home.run(spec, false) == "/of/upper\nanna:x:0:0::/of/upper:/bin/sh\n");
    spec.root_overlay->lower = {changes.root / "var/none"};
    CHECK(home.run(spec, false) == "container 'test': root_overlay: directory '" + changes.root / "var/none" +
                                       "': No such file or directory: make the directory");
}

TEST_CASE("an ordinary user's own network namespace has lo, which is up") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    ContainerSpec spec = shell(home.root, "ls /sys/class/net; ip -o link show lo | grep -c 'LOOPBACK,UP'");
    CHECK(home.run(spec, false) == "lo\n1\n");
}

TEST_CASE("a control group that is delegated to the user takes the container, and one that is not is left out") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    std::string top;
    for (const auto& h : detail::cgroup_hierarchies()) {
        if (h.v2() && !h.places.empty()) top = h.places.front().mount_point;
    }
    if (top.empty()) CAISSON_SKIP("no cgroup2 is mounted");
    const LeavesNothing nothing;
    const Home home;
    CHECK(home.as_user(false, [&]() -> std::string {
        Container container = Container::start(shell(home.root, "exec sleep 1000"));
        try {
            (void)container.usage();
        } catch (const Error& e) {
            return e.what();
        }
        return "it has one";
    }) == "usage of container 'test': No such file or directory: it has no control group");

    const std::string delegated = top + "/caisson-test-delegated-" + std::to_string(::getpid());
    const std::string own = delegated + "/own";
    for (const bool beside : {true, false}) {
        // As systemd hands it over: the directory and what moves processes in it.
        REQUIRE(::mkdir(delegated.c_str(), 0755) == 0);
        REQUIRE(::mkdir(own.c_str(), 0755) == 0);
        const std::string handed_over = beside ? delegated : own;
        for (const char* file : {"", "/cgroup.procs", "/cgroup.subtree_control"}) {
            (void)::chown((handed_over + file).c_str(), id, id);
        }
        CAPTURE(beside);
        CHECK(in_host([&]() -> std::string {
                  // This process places itself, before it becomes the user.
                  if (!detail::sys::write_file(AT_FDCWD, (own + "/cgroup.procs").c_str(), "0")) return "cannot join";
                  if (!home.user.become(false)) return "cannot become an ordinary user";
                  std::string text;
                  {
                      ContainerSpec spec = shell(home.root, "mkdir /sys/fs/cgroup/below && echo made; read x");
                      spec.cgroup_mount = CgroupMount::read_write;
                      Container container = Container::start(spec);
                      char made[6]{};
                      for (std::size_t n = 0; n < 6 && ::read(container.console()->fd(), made + n, 1) == 1; ++n) {
                      }
                      if (std::string_view{made, 6} != "made\r\n") return "no group can be made inside";
                      const auto groups = [&] {
                          std::string all;
                          for (const auto& entry : std::filesystem::directory_iterator{handed_over}) {
                              const std::string name = entry.path().filename();
                              if (name.starts_with("caisson.test.")) {
                                  all += read_file(entry.path().string() + "/cgroup.procs");
                              }
                          }
                          return all;
                      };
                      text = groups() == std::to_string(container.init().pid()) + "\n" ? "in it"
                                                                                       : "not in it: " + groups();
                      (void)container.usage();
                      (void)container.kill();
                      text += groups().empty() ? ", gone" : ", still there";
                  }
                  return text;
              }) == "in it, gone");
        CHECK(removed(own));
        CHECK(removed(delegated));
    }
}

TEST_CASE("an ordinary user's container dies with its owner, and with its keeper") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    Host owner{[&](const Host& self) -> std::string {
        if (!home.user.become(OrdinaryUser::has_tools())) return "cannot become an ordinary user";
        Container container = Container::start(shell(home.root, "exec sleep 1000"));
        self.say(std::to_string(container.init().pid()) + "\n");
        (void)container.wait();
        return "it ended";
    }};
    const std::string line = owner.line();
    const Process init = Process::open(std::stoi(line));
    owner.kill();
    CHECK(init.ended_within(5000));

    CHECK(home.as_user(OrdinaryUser::has_tools(), [&]() -> std::string {
        Container container = Container::start(shell(home.root, "exec sleep 1000"));
        ::kill(keeper_of(container), SIGKILL);
        const auto status = container.wait_for(std::chrono::seconds{5});
        return status ? status->str() : "it runs on";
    }) == "killed by signal 9");
}

TEST_CASE("containers of one user at a time have the same ids") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    CHECK(home.as_user(true, [&]() -> std::string {
        std::vector<Container> running;
        for (int i = 0; i < 5; ++i) running.push_back(Container::start(shell(home.root, "exec sleep 1000")));
        std::string text;
        for (Container& container : running) {
            const std::string map = read_file("/proc/" + std::to_string(container.init().pid()) + "/uid_map");
            text += map == "         0      61234          1\n         1 2100000000      65535\n" ? "same " : map;
            (void)container.kill();
        }
        return text;
    }) == "same same same same same ");
}
