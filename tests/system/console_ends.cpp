// What becomes of a console when its container has ended, and somebody still reads it.
#include <caisson/controller.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include <unistd.h>

#include "support/console_lab.hpp"

using namespace caisson_test;

namespace {

/// Turns until the end is told, and takes a few bytes in each turn.
std::string read_slowly(Lab& lab, const Fd& fd) {
    std::string all;
    char buffer[1024];
    REQUIRE(lab.until([&] {
        pollfd p{fd.get(), POLLIN, 0};
        const ssize_t n = ::poll(&p, 1, 20) > 0 ? ::read(fd.get(), buffer, sizeof buffer) : 0;
        all.append(buffer, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
        return lab.status.has_value();
    }));
    return all;
}

}  // namespace

TEST_CASE("who reads on when a container is stopped does not put off the end, and what it misses is counted") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    ContainerSpec spec = shell(root, "stty raw -echo; printf R; read go; cat /dev/zero");
    spec.console->scroll_back = 1 << 19;
    Lab lab{spec};
    const Fd terminal = lab.controller.open_console(lab.id);
    begin(lab, terminal);
    lab.until_rest();
    const auto before = std::chrono::steady_clock::now();
    CHECK(lab.controller.stop(lab.id, 0ms));
    (void)read_slowly(lab, terminal);
    // All that is kept takes twenty times as long.
    CHECK(std::chrono::steady_clock::now() - before < 5s);
    CHECK(lab.lost(0) > 0);
}

TEST_CASE("who reads on after an end of the container's own gets everything before the end is told") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    const std::string content = "R" + numbered(1, 12000);
    root.write("/content", content.substr(1));
    Lab lab{shell(root, "stty raw -echo; printf R; read go; cat /content")};
    const Fd terminal = lab.controller.open_console(lab.id);
    begin(lab, terminal);
    lab.until_rest();
    const auto before = std::chrono::steady_clock::now();
    std::string seen = read_slowly(lab, terminal);
    CHECK(std::chrono::steady_clock::now() - before > 2s);
    seen += read_now(terminal);
    CHECK(bool{seen == content});
    CHECK(lab.lost(0) == 0);
}

TEST_CASE("a shutdown ends also who was to restart, and whose console is still being read") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root,
                  "trap 'exit 7' TERM; stty raw; head -c 50000 /dev/zero; touch /ready; "
                  "while :; do sleep 0.02; done")};
    const Fd terminal = lab.controller.open_console(lab.id);
    REQUIRE(lab.until([&] { return ::access((root.path() + "/ready").c_str(), F_OK) == 0; }));
    CHECK(lab.controller.reboot(lab.id));
    REQUIRE(lab.until([&] { return lab.controller.status(lab.id).has_value(); }));
    CHECK(lab.controller.reboot(lab.id));
    CHECK(lab.controller.shutdown(lab.id));
    (void)read_slowly(lab, terminal);
    CHECK(lab.status == ExitStatus::exited(7));
    CHECK(lab.count(Event::Kind::restarting) == 0);
}

TEST_CASE("however often a size is set inside, it is told once in a second, and the last one is") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const TestRoot root;
    Lab lab{shell(root, "stty -echo; echo ready; while read x; do stty rows $x; echo; done")};
    const Fd terminal = lab.controller.open_console(lab.id);
    (void)read_until(lab, terminal, "ready");
    const auto before = std::chrono::steady_clock::now();
    std::uint64_t told = 0;
    unsigned last = 0;
    for (unsigned rows = 40; rows < 60; ++rows) {
        const std::string line = std::to_string(rows) + "\n";
        REQUIRE(::write(terminal.get(), line.data(), line.size()) > 0);
        REQUIRE(lab.until([&] {
            (void)read_now(terminal);
            const unsigned now = lab.controller.console_state(lab.id).size.rows;
            if (lab.count(Event::Kind::console_resized) >
                std::exchange(told, lab.count(Event::Kind::console_resized))) {
                last = now;
            }
            return now == rows && (rows < 59 || last == 59);
        }));
    }
    const auto seconds = (std::chrono::steady_clock::now() - before) / 1s;
    CHECK(told <= static_cast<std::uint64_t>(seconds) + 2);
}
