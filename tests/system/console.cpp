// A container's terminals in a controller: logs, scroll-back, viewers, and what happens where nobody reads.
#include <caisson/controller.hpp>

#include <array>
#include <cstdio>
#include <optional>
#include <string>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/console_lab.hpp"

using namespace caisson_test;

TEST_CASE("a container has as many terminals as its spec says, each of its own size") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "stty -echo; echo \"ttys=$container_ttys\"; for i in 1 2 3; do stty size < /dev/tty$i; "
                               "echo from-$i > /dev/tty$i; done; test -e /dev/tty4 || echo no fourth; "
                               "read x < /dev/tty2; echo \"<$x>\"; read y");
    spec.console->size = {30, 90};
    spec.more_consoles = {{.size = {31, 91}}, {.size = {32, 92}}};
    Lab lab{spec};
    const Fd first = lab.controller.attach_console(lab.id);
    const Fd second = lab.controller.attach_console(lab.id, {.console = 1});
    const Fd third = lab.controller.open_console(lab.id, 2);
    const std::string said = read_until(lab, first, "no fourth");
    CHECK(said.find("ttys=pts/1 pts/2\r\n30 90\r\nfrom-1\r\n31 91\r\n32 92\r\n") == 0);
    CHECK(read_until(lab, second, "from-2") == "from-2\r\n");
    CHECK(read_until(lab, third, "from-3") == "from-3\r\n");
    REQUIRE(::write(second.get(), "typed\n", 6) == 6);
    CHECK(read_until(lab, first, ">").find("<typed>") != std::string::npos);
    CHECK(lab.controller.console_path(lab.id, 1) != lab.controller.console_path(lab.id, 2));
    CHECK(lab.controller.console_path(lab.id, 3).empty());
    CHECK_THROWS_WITH_AS((void)lab.controller.open_console(lab.id, 3),
                         "console 3 of container 'console': Inappropriate ioctl for device: it was started without "
                         "such a console to relay",
                         Error);
}

TEST_CASE("three viewers see everything, each may type, and a late one sees what is kept first") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty -echo; echo begin; while read x; do echo \"<$x>\"; done");
    spec.console->scroll_back = 100;
    Lab lab{spec};
    const std::array<Fd, 2> viewers{lab.controller.attach_console(lab.id), lab.controller.attach_console(lab.id)};
    const Fd terminal = lab.controller.open_console(lab.id);
    for (const Fd& viewer : viewers) CHECK(read_until(lab, viewer, "begin\r\n") == "begin\r\n");
    CHECK(read_until(lab, terminal, "begin\r\n") == "begin\r\n");
    int number = 0;
    for (const Fd* from : {&viewers[0], &viewers[1], &terminal}) {
        const std::string typed = "line" + std::to_string(++number);
        REQUIRE(::write(from->get(), (typed + "\n").c_str(), typed.size() + 1) == 6);
        for (const Fd* to : {&viewers[0], &viewers[1], &terminal}) {
            CHECK(read_until(lab, *to, ">\r\n") == "<" + typed + ">\r\n");
        }
    }
    const Fd late = lab.controller.attach_console(lab.id, {.read_only = true});
    CHECK(read_now(late) == "begin\r\n<line1>\r\n<line2>\r\n<line3>\r\n");
    REQUIRE(::write(late.get(), "nothing\n", 8) == 8);
    lab.until_rest();
    CHECK(read_now(viewers[0]).empty());
    for (int i = 0; i < 20; ++i) {
        REQUIRE(::write(viewers[0].get(), "more\n", 5) == 5);
        CHECK(read_until(lab, viewers[0], ">\r\n") == "<more>\r\n");
    }
    CHECK(read_now(late).size() == 20 * 8);
    const Fd latest = lab.controller.attach_console(lab.id);
    CHECK(read_now(latest).size() == 100);
    lab.turn();
    CHECK(lab.count(Event::Kind::console_attached) == 4);
    CHECK(lab.count(Event::Kind::console_detached) == 0);
    CHECK(lab.controller.console_state(lab.id).viewers.size() == 5);
}

TEST_CASE("a viewer that goes is told of, and the others stay") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root, "stty -echo; echo ready; while read x; do echo \"<$x>\"; done")};
    std::optional<Fd> dies{lab.controller.attach_console(lab.id)};
    const Fd stays = lab.controller.attach_console(lab.id);
    (void)read_until(lab, stays, "ready\r\n");
    const Fd looks = lab.controller.attach_console(lab.id, {.read_only = true});
    // What was typed before is not lost with it.
    REQUIRE(::write(dies->get(), "last\n", 5) == 5);
    dies.reset();
    CHECK(read_until(lab, stays, ">\r\n") == "<last>\r\n");
    REQUIRE(lab.until([&] { return lab.count(Event::Kind::console_detached) == 1; }));
    CHECK(lab.events.back().viewer == 1);
    // Who only looks has typed nothing, also where it goes at once.
    std::optional<Fd> looked{lab.controller.attach_console(lab.id, {.read_only = true})};
    REQUIRE(::write(looked->get(), "nothing\n", 8) == 8);
    looked.reset();
    REQUIRE(lab.until([&] { return lab.count(Event::Kind::console_detached) == 2; }));
    lab.until_rest();
    CHECK(read_now(stays).empty());
    // Who has nothing more to type still sees what comes.
    REQUIRE(::shutdown(stays.get(), SHUT_WR) == 0);
    lab.until_rest();
    const Fd types = lab.controller.attach_console(lab.id);
    REQUIRE(::write(types.get(), "on\n", 3) == 3);
    CHECK(read_until(lab, stays, "<on>").find("<on>") != std::string::npos);
    CHECK(lab.controller.console_state(lab.id).viewers.back().number == 5);

    lab.controller.detach_viewers(lab.id);
    lab.turn();
    CHECK(lab.count(Event::Kind::console_detached) == 5);
    (void)read_now(looks);
    CHECK(is_at_end(looks));
    const Fd terminal = lab.controller.open_console(lab.id);
    REQUIRE(::write(terminal.get(), "still\n", 6) == 6);
    CHECK(read_until(lab, terminal, "<still>").find("<still>") != std::string::npos);
}

TEST_CASE("a sleeping viewer stops nobody, and is told how much it has missed to the byte") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 200000);
    root.write("/content", content.substr(1));
    Lab lab{shell(root, "stty raw -echo; printf R; read go; cat /content")};
    const Fd sleeps = lab.controller.attach_console(lab.id);
    const Fd reads = lab.controller.attach_console(lab.id);
    std::string all;
    begin(lab, reads);
    CHECK(lab.until([&] {
        all += read_now(reads);
        return all.size() >= content.size();
    }));
    CHECK(bool{all == content});
    std::string seen;
    REQUIRE(lab.until([&] {
        seen += read_now(sleeps);
        return lab.status.has_value();
    }));
    seen += read_now(sleeps);
    CHECK(lab.lost(2) == 0);
    CHECK(lab.lost(1) > 0);
    CHECK(seen.size() + lab.lost(1) == content.size());
    // In one piece from the beginning, and in one to the end.
    CHECK(content.ends_with(seen.substr(seen.size() - 65536)));
    CHECK(content.starts_with(seen.substr(0, 65536)));
}

TEST_CASE("who is to be waited for holds the container back, and misses nothing") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 100000);
    root.write("/content", content.substr(1));
    Lab lab{shell(root, "stty raw -echo; printf R; read go; cat /content")};
    const Fd slow = lab.controller.attach_console(lab.id, {.when_full = WhenFull::wait});
    const Fd fast = lab.controller.attach_console(lab.id);
    begin(lab, fast);
    do lab.until_rest();
    while (!read_now(fast).empty());
    CHECK_FALSE(lab.status);
    std::string mine;
    CHECK(lab.until([&] {
        (void)read_now(fast);
        mine += read_now(slow);
        return mine.size() >= content.size();
    }));
    CHECK(bool{mine == content});
    REQUIRE(lab.until_end());
    CHECK(lab.lost(1) == 0);
}

TEST_CASE("a viewer that never reads holds the end back for a bounded time, and what it missed is counted") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 100000);
    root.write("/content", content.substr(1));
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; cat /content; exec sleep 1000");
    spec.console->when_full = WhenFull::drop_oldest;
    Lab lab{spec};
    const Fd never = lab.controller.attach_console(lab.id);
    begin(lab, never);
    REQUIRE(lab.until([&] { return lab.controller.console_state(lab.id).written == content.size(); }));
    const auto before = std::chrono::steady_clock::now();
    CHECK(lab.controller.stop(lab.id, 0ms));
    REQUIRE(lab.until_end());
    CHECK(std::chrono::steady_clock::now() - before < 5000ms);
    CHECK(read_now(never).size() + lab.lost(1) == content.size());
    CHECK(is_at_end(never));
}

TEST_CASE("a console that drops what is oldest never makes the container wait, and counts to the byte") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 300000);
    root.write("/content", content.substr(1));
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; cat /content");
    spec.console->when_full = WhenFull::drop_oldest;
    Lab lab{spec};
    const Fd terminal = lab.controller.open_console(lab.id);
    begin(lab, terminal);
    REQUIRE(lab.until([&] { return lab.controller.console_state(lab.id).written == content.size(); }));
    const ConsoleState state = lab.controller.console_state(lab.id);
    REQUIRE(state.viewers.size() == 1);
    std::string seen;
    CHECK(lab.until([&] {
        seen += read_now(terminal);
        return lab.status.has_value();
    }));
    seen += read_now(terminal);
    CHECK(lab.lost(0) == state.viewers[0].lost);
    CHECK(seen.size() + lab.lost(0) == content.size());
    CHECK(content.ends_with(seen.substr(seen.size() - 60000)));
}

TEST_CASE("a flood that nobody reads takes no more memory than what is kept") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    // As a sanitizer's allocator keeps what was freed, the limit is a part of the flood; tests/bench has the exact
    // figure.
    constexpr long flood = 32 << 20;
    ContainerSpec spec = shell(
        root, "stty raw -echo; printf R; read go; head -c " + std::to_string(flood) + " /dev/zero; exec sleep 1000");
    for (const WhenFull when_full : {WhenFull::wait, WhenFull::drop_oldest}) {
        spec.console->when_full = when_full;
        Lab lab{spec};
        const Fd sleeps = lab.controller.attach_console(lab.id);
        const auto resident = [] {
            long size = 0;
            long pages = 0;
            std::FILE* const file = std::fopen("/proc/self/statm", "re");
            REQUIRE(std::fscanf(file, "%ld %ld", &size, &pages) == 2);
            std::fclose(file);
            return pages * ::sysconf(_SC_PAGESIZE);
        };
        lab.until_rest();
        const long before = resident();
        begin(lab, sleeps);
        if (when_full == WhenFull::wait) lab.until_rest();
        else REQUIRE(lab.until([&] { return lab.controller.console_state(lab.id).written == flood + 1; }));
        CHECK(resident() - before < flood / 4);
        if (when_full == WhenFull::wait) CHECK(lab.controller.console_state(lab.id).written <= 1 << 20);
        CHECK(lab.controller.stop(lab.id, 0ms));
        REQUIRE(lab.until_end());
    }
}

TEST_CASE("a log has everything that came out, and the container does not wait for a reader") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = numbered(1, 100000);
    root.write("/content", content);
    const std::string path = root.write("/log", "before\n");
    ContainerSpec spec = shell(root, "stty raw -echo; cat /content");
    spec.console->log = path;
    {
        Lab lab{spec};
        REQUIRE(lab.until_end());
    }
    CHECK(bool{root.read("/log") == "before\n" + content});
    spec.console->log_append = false;
    REQUIRE(::unlink(path.c_str()) == 0);
    for (int start = 0; start < 2; ++start) {
        Lab lab{spec};
        REQUIRE(lab.until_end());
        CHECK(bool{root.read("/log") == content});
    }
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);
}

TEST_CASE("a log that is full is put aside and begun anew") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = numbered(1, 2000);
    root.write("/content", content);
    ContainerSpec spec = shell(root, "stty raw -echo; cat /content");
    spec.console->log = root.path() + "/log";
    spec.console->log_limit = 10000;
    Lab lab{spec};
    REQUIRE(lab.until_end());
    CHECK(bool{root.read("/log.1") == content.substr(10000, 10000)});
    CHECK(bool{root.read("/log") == content.substr(20000)});
    CHECK(lab.count(Event::Kind::console_log_failed) == 0);
    struct stat st {};
    REQUIRE(::stat((root.path() + "/log").c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);
}

TEST_CASE("what cannot be written to the log is counted and told, and nobody waits") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 20000);
    root.write("/content", content.substr(1));
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; cat /content");
    spec.console->log = root.path() + "/log";
    Lab lab{spec};
    const Fd viewer = lab.controller.attach_console(lab.id);
    // As a file system that is full, without making one.
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const rlimit small{50000, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    begin(lab, viewer);
    std::string all;
    const bool has_all = lab.until([&] {
        all += read_now(viewer);
        return all.size() == content.size() && lab.controller.size() == 0;
    });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(has_all);
    CHECK(bool{all == content});
    CHECK(bool{root.read("/log") == content.substr(0, 50000)});
    std::uint64_t lost = 0;
    for (const Event& event : lab.events) lost += event.kind == Event::Kind::console_log_failed ? event.count : 0;
    CHECK(lost == content.size() - 50000);
    CHECK(lab.events.back().kind == Event::Kind::exited);
}

TEST_CASE("a log that could lead elsewhere is refused, and nothing is started") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string path = root.path();
    ContainerSpec spec = shell(root, "true");
    const auto error_of = [&](const std::string& log) {
        spec.console->log = log;
        Controller controller;
        (void)controller.start(spec);
        auto event = controller.next();
        REQUIRE(event);
        return event->error ? std::string{event->error->what()} : std::string{"started"};
    };
    const auto message = [](const std::string& log, const std::string& rest) {
        return "container 'console': log '" + log + "': " + rest;
    };
    CHECK(error_of(path + "/none/log") == message(path + "/none/log", "No such file or directory: make the directory"));
    root.write("/real", "");
    REQUIRE(::symlink("real", (path + "/link").c_str()) == 0);
    CHECK(error_of(path + "/link") ==
          message(path + "/link",
                  "Too many levels of symbolic links: a symbolic link is on the way: give the path that "
                  "it leads to"));
    REQUIRE(::mkdir((path + "/dir").c_str(), 0755) == 0);
    REQUIRE(::symlink("dir", (path + "/way").c_str()) == 0);
    CHECK(error_of(path + "/way/log").find("a symbolic link is on the way") != std::string::npos);
    CHECK(error_of(path + "/dir") == message(path + "/dir", "Is a directory: name a file in it"));
    REQUIRE(::link((path + "/real").c_str(), (path + "/second").c_str()) == 0);
    CHECK(error_of(path + "/second") == message(path + "/second", "the file has another name, too"));
    REQUIRE(::mkfifo((path + "/fifo").c_str(), 0600) == 0);
    CHECK(error_of(path + "/fifo") == message(path + "/fifo", "No such device or address: it must be a regular file"));
    root.write("/other", "");
    REQUIRE(::chown((path + "/other").c_str(), 4242, 4242) == 0);
    CHECK(error_of(path + "/other") == message(path + "/other", "the file is another user's"));
    CHECK(error_of(path + "/ok") == "started");
}

TEST_CASE("a size is carried both ways, and a change that is made inside is told") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root, "stty -echo; echo ready; while read x; do $x; done")};
    const Fd terminal = lab.controller.open_console(lab.id);
    (void)read_until(lab, terminal, "ready");
    const auto type = [&](const std::string& line) {
        REQUIRE(::write(terminal.get(), (line + "\n").c_str(), line.size() + 1) > 0);
    };
    type("stty rows 44 cols 99");
    type("echo sized");
    REQUIRE(lab.until([&] { return lab.count(Event::Kind::console_resized) == 1; }));
    CHECK(lab.controller.console_state(lab.id).size == WindowSize{44, 99});
    winsize outer{};
    REQUIRE(::ioctl(terminal.get(), TIOCGWINSZ, &outer) == 0);
    CHECK((outer.ws_row == 44 && outer.ws_col == 99));

    outer.ws_row = 55;
    REQUIRE(::ioctl(terminal.get(), TIOCSWINSZ, &outer) == 0);
    type("stty size");
    type("stty size");
    CHECK(read_until(lab, terminal, "55 99").find("55 99") != std::string::npos);
    CHECK(lab.controller.console_state(lab.id).size == WindowSize{55, 99});
    CHECK(lab.controller.resize(lab.id, {66, 77}));
    type("stty size");
    CHECK(read_until(lab, terminal, "66 77").find("66 77") != std::string::npos);
}

TEST_CASE("viewers, log and terminal go on over a restart") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty -echo; stty size; echo up; read x; exit 1");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    spec.console->log = root.path() + "/log";
    Lab lab{spec};
    const Fd viewer = lab.controller.attach_console(lab.id);
    const std::string path = lab.controller.console_path(lab.id);
    CHECK(read_until(lab, viewer, "up\r\n") == "24 80\r\nup\r\n");
    CHECK(lab.controller.resize(lab.id, {33, 44}));
    REQUIRE(::write(viewer.get(), "\n", 1) == 1);
    CHECK(read_until(lab, viewer, "up\r\n") == "33 44\r\nup\r\n");
    CHECK(lab.controller.console_path(lab.id) == path);
    CHECK(root.read("/log") == "24 80\r\nup\r\n33 44\r\nup\r\n");
    CHECK(lab.count(Event::Kind::console_detached) == 0);
}

TEST_CASE("a terminal that is hung up inside is read on when it is opened again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root,
                  "trap '' HUP; echo one > /dev/console; until echo two; do sleep 0.05; "
                  "exec < /dev/console > /dev/console; done; read x; echo \"<$x>\"; sleep 1000")};
    const Fd viewer = lab.controller.attach_console(lab.id);
    (void)read_until(lab, viewer, "one");
    // As systemd and getty(8) do before they use it.
    const std::string path = "/proc/" + std::to_string(lab.controller.init_pid(lab.id)) + "/root/dev/console";
    const Fd inner{::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    REQUIRE(inner);
    REQUIRE(::ioctl(inner.get(), TIOCVHANGUP) == 0);
    lab.until_rest();
    const Fd again{::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    REQUIRE(again);
    REQUIRE(::write(again.get(), "three\n", 6) == 6);
    CHECK(read_until(lab, viewer, "three").find("three") != std::string::npos);
}

TEST_CASE("a raw console tells when there is something to be read, and not while there is more of it") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty -echo; echo one; read x; echo two > /dev/tty2; read x; echo three");
    spec.more_consoles.resize(1);
    Lab lab{spec, ConsoleUse::told};
    REQUIRE(lab.until([&] { return lab.count(Event::Kind::console_data) == 1; }));
    CHECK(lab.events.back().console_number == 0);
    CHECK_FALSE(detail::wait_readable(lab.controller.fd(), 100));
    REQUIRE(::write(lab.controller.console_fd(lab.id), "\n", 1) == 1);
    REQUIRE(lab.until([&] { return lab.count(Event::Kind::console_data) >= 2; }));
    CHECK(lab.events.back().console_number == 1);
    REQUIRE(::write(lab.controller.console_fd(lab.id), "\n", 1) == 1);
    REQUIRE(lab.until_end());
    REQUIRE(lab.events.back().console);
    REQUIRE(lab.events.back().more_consoles.size() == 1);
    char buffer[64];
    const int second = lab.events.back().more_consoles[0].fd();
    CHECK(std::string(buffer, static_cast<std::size_t>(::read(second, buffer, sizeof buffer))) == "two\r\n");
    const int first = lab.events.back().console->fd();
    std::string all;
    for (ssize_t n = 0; (n = ::read(first, buffer, sizeof buffer)) > 0;)
        all.append(buffer, static_cast<std::size_t>(n));
    CHECK(all == "one\r\nthree\r\n");
}

TEST_CASE("what a viewer typed before it left is typed, however much it is") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root, "stty -echo raw; echo ready; head -c 20000 > /typed")};
    const Fd look = lab.controller.attach_console(lab.id, {.read_only = true});
    CHECK(read_until(lab, look, "ready").find("ready") != std::string::npos);
    {
        const Fd viewer = lab.controller.attach_console(lab.id);
        REQUIRE(::write(viewer.get(), std::string(20000, 'x').c_str(), 20000) == 20000);
    }
    CHECK(lab.until([&] { return lab.status || lab.count(Event::Kind::console_detached) == 1; }));
    REQUIRE(lab.until_end());
    CHECK(root.read("/typed") == std::string(20000, 'x'));
}

TEST_CASE("a log that somebody has put aside is left as it is, and begun anew") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 2000);
    root.write("/content", content.substr(1));
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; cat /content");
    spec.console->log = root.path() + "/log";
    spec.console->log_limit = 10000;
    Lab lab{spec};
    const Fd viewer = lab.controller.attach_console(lab.id);
    begin(lab, viewer);
    REQUIRE(::rename((root / "log").c_str(), (root / "aside").c_str()) == 0);
    REQUIRE(lab.until_end());
    CHECK(bool{root.read("/aside") == content.substr(0, 10000)});
    CHECK(bool{root.read("/log.1") == content.substr(10000, 10000)});
    CHECK(bool{root.read("/log") == content.substr(20000)});
    CHECK(lab.count(Event::Kind::console_log_failed) == 0);
}

TEST_CASE("who asks for a terminal has missed nothing of what went by before") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty raw; head -c 300000 /dev/zero; read x");
    spec.console->when_full = WhenFull::drop_oldest;
    Lab lab{spec};
    REQUIRE(lab.until([&] { return lab.controller.console_state(lab.id).written == 300000; }));
    CHECK_FALSE(lab.controller.console_path(lab.id).empty());
    CHECK(lab.controller.console_state(lab.id).viewers[0].lost == 0);
    lab.turn();
    CHECK(lab.lost(0) == 0);
}
