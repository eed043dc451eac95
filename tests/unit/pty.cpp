#include <caisson/pty.hpp>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../../src/console_ring.hpp"
#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("a pseudo-terminal carries bytes both ways, with both ends close-on-exec") {
    Pty pty = Pty::open();
    const Fd peer = pty.open_peer();
    CHECK((::fcntl(pty.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((::fcntl(peer.get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(::isatty(peer.get()) == 1);
    pty.make_raw();
    char got[8]{};
    REQUIRE(::write(peer.get(), "a\nb", 3) == 3);
    CHECK(::read(pty.fd(), got, sizeof got) == 3);
    CHECK(std::string{got} == "a\nb");
    REQUIRE(::write(pty.fd(), "xyz", 3) == 3);
    CHECK(::read(peer.get(), got, sizeof got) == 3);
    CHECK(std::string{got} == "xyz");
}

TEST_CASE("a pseudo-terminal is 24 by 80 unless told otherwise, and can be resized") {
    CHECK(Pty::open().size() == WindowSize{24, 80});
    Pty pty = Pty::open({.rows = 50, .columns = 132});
    CHECK(pty.size() == WindowSize{50, 132});
    pty.resize({.rows = 1, .columns = 65535});
    CHECK(pty.size() == WindowSize{1, 65535});
}

TEST_CASE("the path of the other end carries its number") {
    const Pty pty = Pty::open();
    CHECK(pty.peer_path() == "/dev/pts/" + std::to_string(pty.number()));
}

TEST_CASE("the other end hangs up when the pseudo-terminal goes") {
    Fd peer;
    {
        const Pty pty = Pty::open();
        peer = pty.open_peer();
    }
    pollfd p{peer.get(), POLLIN, 0};
    CHECK(::poll(&p, 1, 0) == 1);
    CHECK((p.revents & POLLHUP) != 0);
}

TEST_CASE("a moved-from pseudo-terminal holds nothing, and using it is refused") {
    Pty a = Pty::open();
    Pty b{std::move(a)};
    CHECK(a.fd() == -1);
    CHECK_THROWS_AS((void)a.size(), std::logic_error);
    CHECK_THROWS_AS(a.resize({}), std::logic_error);
    CHECK_THROWS_AS((void)a.number(), std::logic_error);
    CHECK_THROWS_AS((void)a.peer_path(), std::logic_error);
    CHECK_THROWS_AS((void)a.open_peer(), std::logic_error);
    CHECK_THROWS_AS(a.make_raw(), std::logic_error);
    Pty& same = b;
    b = std::move(same);
    CHECK(b.size() == WindowSize{});
}

TEST_CASE("a process without a free descriptor is told what to raise") {
    // The undefined-behaviour sanitizer needs a descriptor when it looks at a type for the first time.
    CHECK(std::string{Error{Step::terminal, EMFILE, "none"}.what()}.starts_with("none: Too many open files"));
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    std::string text;
    try {
        (void)Pty::open();
    } catch (const Error& e) {
        text = e.what();
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(text ==
          "open a pseudo-terminal in '/dev/ptmx': Too many open files: no descriptor is left: raise 'ulimit -n'");
}

TEST_CASE("a directory that is no devpts is refused") {
    const Fd tmp{::open("/", O_PATH | O_CLOEXEC)};
    try {
        (void)Pty::open_in(tmp.get());
        FAIL("opened");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "open a pseudo-terminal in the container's devpts: No such file or directory");
    }
}

TEST_CASE("what a console has said is kept as told, wherever it begins, and takes no more memory than twice that") {
    detail::Ring ring;
    std::string kept;
    std::string all;
    std::uint32_t state = 1;
    const auto random = [&state](std::uint32_t below) {
        state = state * 1664525 + 1013904223;
        return (state >> 8) % below;
    };
    for (int i = 0; i < 5000; ++i) {
        std::string more(random(3) == 0 ? random(9000) : random(100), '\0');
        for (char& c : more) c = static_cast<char>(random(256));
        ring.append(more);
        kept += more;
        all += more;
        if (random(2) == 0) {
            const std::size_t dropped =
                random(4) == 0 ? kept.size() : random(static_cast<std::uint32_t>(kept.size() + 1));
            ring.drop_before(ring.begin() + dropped);
            kept.erase(0, dropped);
        }
        std::string seen;
        for (std::uint64_t at = ring.begin(); at != ring.end();) {
            const std::string_view part = ring.from(at);
            seen += part;
            at += part.size();
        }
        const bool same = seen == kept && ring.end() == all.size() && ring.size() == kept.size();
        REQUIRE(same);
    }
    ring.drop_before(ring.end());
    CHECK(ring.memory() == 0);
    ring.append("some words");
    CHECK(ring.memory() == 256);
    ring.append(std::string(60000, 'x'));
    ring.drop_before(ring.end() - 4000);
    CHECK(ring.memory() == 4096);
}

TEST_CASE("what comes where nothing is kept lies in one piece") {
    detail::Ring ring;
    for (int i = 0; i < 10; ++i) {
        ring.append(std::string(4095, 'x'));
        CHECK(ring.from(ring.begin()).size() == 4095);
        ring.drop_before(ring.end());
    }
}
