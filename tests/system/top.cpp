// examples/top: the table as a pure function of what it shows, and the program at a terminal of the test's own.
#include "support/doctest.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/command.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/why_not.hpp"
#include "top/layout.hpp"

using namespace caisson_test;
using top::Page;
using top::Row;
using top::View;

namespace {

using Lines = std::vector<std::string>;

Row row(std::string name, double cpu, std::vector<double> each) {
    Row r;
    r.name = std::move(name);
    r.cpu = cpu;
    r.each = std::move(each);
    r.memory = 12 << 20;
    r.pids = 7;
    return r;
}
View two() {
    View view{.where = "/run/caisson"};
    view.rows = {row("idle", 0, {0, 0}), row("web", 1.25, {1, 0.25})};
    view.rows[1].memory_limit = 64 << 20;
    view.rows[1].read = 1.5e6;
    view.rows[1].written = 999;
    view.rows[1].received = 0;
    view.rows[1].sent = 123456789;
    return view;
}
Lines lines_of(const View& view, std::size_t columns, std::size_t lines = 24, bool utf8 = true) {
    return top::lay_out(view, {columns, lines, utf8}).lines;
}

/// A container that ends with the test, however that ends.
struct Running {
    Helper helper;
    Running(const Place& place, const ContainerSpec& spec) : helper{Helper::start(spec, place.options)} {}
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() { (void)helper.kill(); }
};

/// The program at a terminal.
struct AtTerminal {
    const Place& place;
    OnTerminal terminal;
    std::string before;

    explicit AtTerminal(const Place& where, const char* interval = "3600", WindowSize size = {24, 80})
        : place{where},
          terminal{{"env", "LC_ALL=C.UTF-8", CAISSON_EXAMPLES "/top", "--run", where.run, "--interval", interval},
                   size},
          before{terminal.modes()} {}
    /// Waits for the next page and returns its lines.
    Lines page() {
        REQUIRE(terminal.shows("\x1b[1;1H\x1b[K"));
        REQUIRE(terminal.shows("\x1b[J"));
        const std::string& all = terminal.screen();
        const std::size_t begin = all.rfind("\x1b[1;1H");
        Lines lines;
        for (std::size_t at = begin; at < all.rfind("\x1b[J"); ++at) {
            if (all[at] != '\x1b') {
                lines.back() += all[at];
                continue;
            }
            at = all.find_first_of("HKJm", at);
            if (all[at] == 'H') lines.emplace_back();
        }
        lines.pop_back();  // what is wiped behind the page
        return lines;
    }
    /// Pages until one is as wanted.
    template <class F>
    Lines page_with(F&& wanted) {
        for (int i = 0; i < 100; ++i) {
            Lines lines = page();
            if (wanted(lines)) return lines;
        }
        return {};
    }
    void check_given_back() const {
        CHECK(terminal.modes() == before);
        const std::string& all = terminal.screen();
        CHECK(all.find("\x1b[?1049h\x1b[?25l") != std::string::npos);
        CHECK(all.rfind("\x1b[?25h\x1b[?1049l") > all.rfind("\x1b[J"));
    }
};

const Lines* find_row(const Lines& lines, const std::string& name, std::string& found) {
    for (const std::string& line : lines) {
        if (line.starts_with(name + " ")) return found = line, &lines;
    }
    return nullptr;
}
bool has_row(const Lines& lines, const std::string& name) {
    std::string line;
    return find_row(lines, name, line) != nullptr;
}

}  // namespace

TEST_CASE("at 80 columns every figure of a container is in its line, the busiest first") {
    CHECK(lines_of(two(), 80) ==
          Lines{"2 containers: CPU 125.0%, memory 24.0M  (/run/caisson)",
                "NAME   CPU% CPUS                  MEMORY LIMIT READ/s WRITE/s  RX/s  TX/s  PIDS",
                "web   125.0 ██████████ ██▌·······  12.0M 64.0M   1.4M     999     0  118M     7",
                "idle    0.0 ·········· ··········  12.0M     -      -       -     -     -     7"});
}

TEST_CASE("where there is less room, what matters least goes first, then names are cut") {
    CHECK(lines_of(two(), 40) ==
          Lines{"2 containers: CPU 125.0%, memory 24.0M", "NAME   CPU% CPUS      MEMORY LIMIT  PIDS",
                "web   125.0 ████ █···  12.0M 64.0M     7", "idle    0.0 ···· ····  12.0M     -     7"});
    CHECK(lines_of(two(), 60)[2] == "web   125.0 ██████ █▌····  12.0M 64.0M   1.4M     999     7");
    View view = two();
    view.rows[0].name = "a-name-that-is-too-long";
    CHECK(lines_of(view, 28).back() == "a-name-~    0.0  12.0M     7");
    CHECK(lines_of(view, 12).back() == "a-na~    0.0");
    CHECK(lines_of(view, 2).back() == "a~");
}

TEST_CASE("without UTF-8 the bars are of ASCII") {
    CHECK(lines_of(two(), 40, 24, false)[2] == "web   125.0 |||| |...  12.0M 64.0M     7");
    View view = two();
    view.rows[1].each = {1, 0.5, 0.1, 0, 0, 0, 0, 0};
    CHECK(lines_of(view, 40, 24, false)[2] == "web   125.0 841_____  12.0M 64.0M     7");
}

TEST_CASE("many CPUs are one character each, and several share one where even that is too wide") {
    View view;
    std::vector<double> each(64, 0.0);
    std::fill(each.begin(), each.begin() + 8, 1.0);
    view.rows = {row("web", 8, each)};
    const std::string wide = lines_of(view, 200)[2];
    std::string all;
    for (int i = 0; i < 64; ++i) all += i < 8 ? "█" : "·";
    CHECK(wide.find(" " + all + " ") != std::string::npos);
    const std::string narrow = lines_of(view, 80)[2];
    CHECK(narrow.starts_with("web   800.0 ███··················· "));
    CHECK(top::width(narrow) == 80);
}

TEST_CASE("no line is wider than the terminal and no page higher, whatever is shown") {
    for (const std::size_t cpus : {0U, 2U, 7U, 64U, 1000U}) {
        for (const std::size_t name : {1U, 63U}) {
            View view{.where = std::string(100, 'd')};
            for (int i = 0; i < 12; ++i) {
                Row r = row(std::string(name, 'n'), i * 1e6, std::vector<double>(cpus, i / 20.0));
                r.memory = r.memory_limit = r.pids = UINT64_MAX;
                r.read = r.written = r.received = r.sent = 1e30;
                r.suspended = i == 3;
                view.rows.push_back(r);
            }
            view.notes = {std::string(300, 'x')};
            for (std::size_t columns = 1; columns <= 250; columns += columns < 90 ? 3 : 37) {
                for (const std::size_t lines : {1U, 8U, 24U}) {
                    const Lines page = lines_of(view, columns, lines);
                    REQUIRE(page.size() <= lines);
                    const auto widest = std::ranges::max(page, {}, top::width);
                    CAPTURE(columns);
                    REQUIRE(top::width(widest) <= columns);
                }
            }
        }
    }
}

TEST_CASE("what has no room on the page is counted, and notes stay in sight") {
    View view{.where = "/run/caisson"};
    for (int i = 0; i < 9; ++i) view.rows.push_back(row("c" + std::to_string(i), i, {}));
    view.notes = {"1 container of another user left out"};
    const Lines page = lines_of(view, 80, 8);
    REQUIRE(page.size() == 8);
    CHECK(page[2].starts_with("c8 "));
    CHECK(page[5].starts_with("c5 "));
    CHECK(page[6] == "... and 5 more");
    CHECK(page[7] == view.notes[0]);
    // Where there is hardly room, containers come before notes.
    CHECK(lines_of(view, 80, 3).back() == "... and 9 more");
    CHECK(lines_of({.where = "/run/caisson"}, 80) == Lines{"no container runs in /run/caisson"});
}

TEST_CASE("sizes have a unit that keeps them short, and unknown figures are dashes") {
    const auto memory = [](std::uint64_t bytes) {
        View view;
        view.rows = {row("web", 0, {})};
        view.rows[0].memory = bytes;
        std::string line = lines_of(view, 80)[2];
        line.erase(0, line.find("0.0") + 3);
        line.erase(0, line.find_first_not_of(' '));
        return line.substr(0, line.find(' '));
    };
    CHECK(memory(0) == "0");
    CHECK(memory(999) == "999");
    CHECK(memory(1000) == "1.0K");
    CHECK(memory(102300) == "99.9K");
    CHECK(memory(102400) == "100K");
    CHECK(memory(1023 << 10) == "1.0M");
    CHECK(memory(UINT64_MAX) == "16.0E");
    View view;
    view.rows.push_back({.name = "new"});
    view.rows.push_back({.name = "still", .suspended = true});
    CHECK(lines_of(view, 80)[2].starts_with("new        -      -     -      -       -     -     -     -"));
    CHECK(lines_of(view, 80)[3].starts_with("still paused"));
}

TEST_CASE("top shows busy containers at a terminal, leaves at 'q', and gives the terminal back as it was") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("busy1", "while :; do :; done");
    spec.limits.memory = 64 << 20;
    const Running one{place, spec};
    const Running other{place, place.spec("busy2", "while :; do :; done")};
    {
        AtTerminal top{place, "0.2"};
        std::string first;
        std::string second;
        const Lines page = top.page_with([&](const Lines& lines) {
            return find_row(lines, "busy1", first) && find_row(lines, "busy2", second) &&
                   std::atof(first.c_str() + 6) > 0 && std::atof(second.c_str() + 6) > 0;
        });
        REQUIRE(page.size() >= 4);
        // Only why there are no bars may follow.
        CHECK((page.size() == 4 || page[4].starts_with("no CPUs one by one: ")));
        CHECK(page[0].starts_with("2 containers: CPU "));
        CHECK(page[1].starts_with("NAME    CPU% "));
        for (const std::string& line : page) CHECK(top::width(line) <= 80);
        CHECK(first.find(" 64.0M ") != std::string::npos);
        CHECK(top.terminal.modes() != top.before);
        top.terminal.type("xq");
        CHECK(top.terminal.wait() == 0);
        top.check_given_back();
    }
}

TEST_CASE("a signal that ends top gives the terminal back first") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
        CAPTURE(signal);
        AtTerminal top{place};
        (void)top.page();
        // Ctrl+C is typed, as a person would.
        if (signal == SIGINT) top.terminal.type("\x03");
        else ::kill(top.terminal.pid(), signal);
        CHECK(top.terminal.wait() == 128 + signal);
        top.check_given_back();
    }
}

TEST_CASE("top is stopped by Ctrl+Z with the terminal as it was, and takes it again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    AtTerminal top{place};
    (void)top.page();
    top.terminal.type("\x1a");
    CHECK(top.terminal.shows("\x1b[?1049l"));
    // What continues it before it has stopped would be lost.
    int status = 0;
    for (int i = 0; i < 10'000 && ::waitpid(top.terminal.pid(), &status, WUNTRACED | WNOHANG) == 0; ++i) ::usleep(1000);
    REQUIRE(WIFSTOPPED(status));
    CHECK(top.terminal.modes() == top.before);
    ::kill(top.terminal.pid(), SIGCONT);
    CHECK(top.terminal.shows("\x1b[?1049h"));
    CHECK(top.page() == Lines{"no container runs in " + place.run});
    CHECK(top.terminal.modes() != top.before);
    top.terminal.type("q");
    CHECK(top.terminal.wait() == 0);
    top.check_given_back();
}

TEST_CASE("top draws again as soon as the terminal has another size") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const Running web{place, place.spec("web")};
    {
        AtTerminal top{place};
        (void)top.page();
        const Lines wide = top.page();
        CHECK(wide[1].find("WRITE/s") != std::string::npos);
        top.terminal.resize({3, 40});
        const Lines narrow = top.page();
        CHECK(narrow.size() <= 3);
        CHECK(narrow[1].find("WRITE/s") == std::string::npos);
        CHECK(has_row(narrow, "web"));
        for (const std::string& line : narrow) CHECK(top::width(line) <= 40);
        top.terminal.type("q");
        CHECK(top.terminal.wait() == 0);
    }
}

TEST_CASE("containers come, are suspended and go while top runs, and one may come again") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    AtTerminal top{place, "0.1"};
    CHECK(top.page() == Lines{"no container runs in " + place.run});
    for (int round = 0; round < 2; ++round) {
        Running web{place, place.spec("web")};
        CHECK(has_row(top.page_with([](const Lines& lines) { return has_row(lines, "web"); }), "web"));
        if (round == 0) {
            web.helper.suspend();
            CHECK_FALSE(top.page_with([](const Lines& lines) {
                               return lines.size() > 2 && lines[2].starts_with("web  paused");
                           })
                            .empty());
        }
        (void)web.helper.kill();
        CHECK_FALSE(top.page_with([](const Lines& lines) { return lines.size() == 1; }).empty());
    }
    top.terminal.type("q");
    CHECK(top.terminal.wait() == 0);
    top.check_given_back();
}

TEST_CASE("when the run directory cannot be read any more, top gives the terminal back and says why") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    AtTerminal top{place, "0.1"};
    (void)top.page();
    std::ofstream{place.run} << "no directory";
    CHECK(top.terminal.wait() == 1);
    top.check_given_back();
    CHECK(top.terminal.screen().ends_with("\x1b[?1049ltop: directory '" + place.run + "': Not a directory\r\n"));
}

TEST_CASE("without a terminal, and with --once, top prints one table, and wrong use is told") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const std::string program = CAISSON_EXAMPLES "/top";
    const std::string name(63, 'n');
    const Running web{place, place.spec(name)};
    for (const Words& more : {Words{}, Words{"--once"}}) {
        Words words{program, "--run=" + place.run, "--interval=0.1"};
        words.insert(words.end(), more.begin(), more.end());
        const Outcome outcome = run(words);
        CHECK(outcome.status == 0);
        CHECK(outcome.out.starts_with("1 container: CPU "));
        CHECK(outcome.out.find("\n" + name + " ") != std::string::npos);
        CHECK(outcome.out.find('\x1b') == std::string::npos);
        CHECK(outcome.err == "");
    }
    {
        OnTerminal once{{program, "--run", place.run, "--interval", "0.1", "--once"}, {24, 80}};
        CHECK(once.wait() == 0);
        CHECK(once.screen().find('\x1b') == std::string::npos);
        CHECK(once.screen().find("\r\nnnn") != std::string::npos);
    }
    for (const Words& wrong : {Words{"x"}, Words{"--interval", "0"}, Words{"--interval", "1s"}, Words{"--run"}}) {
        Words words{program};
        words.insert(words.end(), wrong.begin(), wrong.end());
        const Outcome outcome = run(words);
        CHECK(outcome.status == 2);
        CHECK(outcome.err.starts_with("usage: top "));
    }
    CHECK(run({program, "--help"}).out.starts_with("usage: top "));

    const auto as_nobody = [&] {
        return run({"setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", program, "--run", place.run,
                    "--interval", "0.1"});
    };
    REQUIRE(::chmod(place.directory.path().c_str(), 0755) == 0);
    const Outcome closed = as_nobody();
    if (closed.status == 126 || closed.status == 127) CAISSON_SKIP("no other user can run a program here");
    CHECK(closed.status == 1);
    CHECK(closed.err == "top: directory '" + place.run +
                            "': Permission denied: it is another user's: run as that user, or name another --run\n");
    REQUIRE(::chmod(place.run.c_str(), 0755) == 0);
    CHECK(as_nobody().out == "no container runs in " + place.run + "\n1 container of another user left out\n");
}
