// The demo programs in examples/, run as a user runs them.
#include "support/doctest.hpp"

#include <string>

#include <unistd.h>

#include "support/command.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using caisson_test::LeavesNothing;
using caisson_test::run;
using caisson_test::TestRoot;

namespace {

std::string example(const char* name) {
    return std::string{CAISSON_EXAMPLES "/"} + name;
}

}  // namespace

TEST_CASE("hello runs a command in a root that is named, and in one that it makes") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const auto own = run({example("hello")});
    CHECK(own.status == 0);
    CHECK(own.out == "hello from process 1 of hello\nthe container exited with status 0\n");
    CHECK(own.err == "");
    const TestRoot root;
    const auto named = run({example("hello"), root.path()});
    CHECK(named.status == 0);
    CHECK(named.out == own.out);
}

TEST_CASE("an example tells how it is used, and why it could not do it") {
    const LeavesNothing nothing;
    for (const char* name : {"hello", "threaded_host"}) {
        CAPTURE(name);
        const auto wrong = run({example(name), "--wrong"});
        CHECK(wrong.status == 2);
        CHECK(wrong.err.starts_with(std::string{"usage: "} + name));
    }
    for (const char* name : {"hello", "isolate", "own_event_loop", "own_thread", "threaded_host", "vps"}) {
        CAPTURE(name);
        const auto help = run({example(name), "--help"});
        CHECK(help.status == 0);
        CHECK(help.out.starts_with(std::string{"usage: "} + name));
        CHECK(help.err == "");
    }
    const auto missing = run({example("hello"), "/no/such/root"});
    CHECK(missing.status == 1);
    CHECK(missing.err.find("hello: container 'hello': root '/no/such/root': No such file or directory") == 0);
    CHECK(run({example("isolate"), "true"}).status == 125);
}

TEST_CASE("isolate gives a command a private /tmp, no network and 64 MiB, and passes its exit status on") {
    const LeavesNothing nothing;
    const std::string file = "/tmp/caisson-isolate-" + std::to_string(::getpid());
    const auto private_tmp =
        run({example("isolate"), "--", "sh", "-c", "ls -A /tmp; touch " + file + "; test -f " + file + " && exit 3"});
    CHECK(private_tmp.status == 3);
    CHECK(private_tmp.out == "");
    CHECK(::access(file.c_str(), F_OK) != 0);

    const auto network = run({example("isolate"), "--", "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1"});
    CHECK(network.out.find("lo\n") != std::string::npos);
    CHECK(network.out.find('\n') == network.out.size() - 1);

    const auto greedy = run({example("isolate"), "--", "sh", "-c", "x=a; while :; do x=$x$x; done"});
    CHECK(greedy.status == 128 + 9);
    CHECK(greedy.err == "isolate: sh: killed by signal 9 (out of memory)\n");

    const auto unknown = run({example("isolate"), "--", "no-such-program"});
    CHECK(unknown.status == 125);
    CHECK(unknown.err == "isolate: no-such-program: there is no such program\n");
    CHECK(run({example("isolate"), "--", ""}).err == "isolate: : there is no such program\n");
    CHECK(run({"sh", "-c", "cd /bin && \"$0\" -- ./true", example("isolate")}).status == 0);
    // What an ordinary user lacks is a privilege, and not a line in a map that nobody wrote.
    const auto ordinary =
        run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", example("isolate"), "--", "true"});
    CHECK(ordinary.err.find("uid_map") == std::string::npos);
}

TEST_CASE("threaded_host starts its containers from eight threads beside eight that allocate") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const auto outcome = run({example("threaded_host")});
    CHECK(outcome.status == 0);
    CHECK(outcome.out == "32 of 32 containers ended as they should\n");
    CHECK(outcome.err == "");
}

TEST_CASE("a program's own loop, asio's and GLib's tell of containers between their own ticks") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    std::string name;
    SUBCASE("poll") {
        name = "own_event_loop";
    }
    SUBCASE("asio") {
        name = "asio_loop";
    }
    SUBCASE("GLib") {
        name = "glib_loop";
    }
    if (::access(example(name.c_str()).c_str(), X_OK) != 0) CAISSON_SKIP("it was not built: its library is missing");
    const auto help = run({example(name.c_str()), "--help"});
    CHECK(help.status == 0);
    CHECK(help.out.starts_with("usage: " + name + " "));
    const auto outcome = run({example(name.c_str())});
    CHECK(outcome.status == 0);
    CHECK(outcome.err == "");
    CHECK(outcome.out.find("tick\n") != std::string::npos);
    for (const char* number : {"1", "2", "3"}) {
        const std::string sleeper = std::string{"sleeper"} + number;
        CAPTURE(sleeper);
        const std::size_t started = outcome.out.find(sleeper + " started\n");
        CHECK(started != std::string::npos);
        CHECK(outcome.out.find(sleeper + " exited with status " + number + "\n", started) != std::string::npos);
    }
}

TEST_CASE("own_thread waits for its containers one by one") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const auto outcome = run({example("own_thread")});
    CHECK(outcome.status == 0);
    CHECK(outcome.out == "first exited with status 4, second exited with status 2\n");
    CHECK(outcome.err == "");
}

TEST_CASE("vps carries more than a terminal holds in both directions at once") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("/sbin/init", "#!/bin/sh\nstty raw -echo\n: > /ready\nexec head -c 500000\n", 0755);
    const auto outcome =
        run({"sh", "-c",
             "{ until [ -e \"$1/ready\" ]; do sleep 0.05; done; head -c 500000 /dev/zero | tr '\\0' a; "
             "} | \"$0\" \"$1\"",
             example("vps"), root.path()});
    CHECK(outcome.status == 0);
    CHECK(outcome.err == "");
    CHECK(outcome.out == std::string(500000, 'a') + "vps: the machine exited with status 0\n");
}
