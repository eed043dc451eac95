// caissonctl's console on a terminal of the test's own: what passes through, and that the terminal is given back.
#include "support/doctest.hpp"

#include <csignal>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include <caisson/process.hpp>

#include "support/domains.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

const std::string leave = "\x1d";
const std::string connected = "Connected to domain 'web'\r\nEscape character is ^] (Ctrl + ])\r\n";

/// A domain that runs a shell, and whose prompt is "inside> ".
struct Running : Domains {
    Running() {
        const std::string file = describe("web");
        REQUIRE((*this)({"define", file}).status == 0);
        REQUIRE((*this)({"start", "web"}).status == 0);
    }
};

}  // namespace

TEST_CASE("the console carries both ways and Ctrl+] leaves it, with the terminal as it was") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    for (int call = 0; call < 2; ++call) {
        OnTerminal console{ctl.words({"console", "web"})};
        const std::string before = console.modes();
        REQUIRE(console.shows(connected));
        console.type("echo $((40 + 2))-$$\n");
        CHECK(console.shows("\r\n42-"));
        CHECK(console.shows("inside> "));
        CHECK(console.modes() != before);
        console.type(leave);
        CHECK(console.wait() == 0);
        CHECK(console.modes() == before);
    }
    CHECK(ctl({"domstate", "web"}).out == "running\n\n");
}

TEST_CASE("Ctrl+C typed at the console is for the container") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal console{ctl.words({"console", "web"})};
    REQUIRE(console.shows("inside> "));
    console.type("sh -c 'echo wait$((1))ing; exec cat'\n");
    REQUIRE(console.shows("wait1ing"));
    console.type("\x03");
    CHECK(console.shows("inside> "));
    console.type("echo still $((1 + 1))\n");
    CHECK(console.shows("still 2"));
    console.type(leave);
    CHECK(console.wait() == 0);
}

TEST_CASE("the console ends with the container, after its last words") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal console{ctl.words({"console", "web"})};
    const std::string before = console.modes();
    REQUIRE(console.shows("inside> "));
    console.type("echo last $((3 + 4)) words; exit\n");
    CHECK(console.wait() == 0);
    CHECK(console.screen().find("last 7 words\r\n") != std::string::npos);
    CHECK(console.modes() == before);
}

TEST_CASE("a signal that ends the console gives the terminal back first, and the container stays") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
        CAPTURE(signal);
        OnTerminal console{ctl.words({"console", "web"})};
        const std::string before = console.modes();
        REQUIRE(console.shows(connected));
        // What comes through shows that the terminal is joined.
        console.type("echo $((4 * 5))\n");
        REQUIRE(console.shows("\r\n20"));
        ::kill(console.pid(), signal);
        CHECK(console.wait() == 128 + signal);
        CHECK(console.modes() == before);
    }
    {
        OnTerminal console{ctl.words({"console", "web"})};
        const std::string before = console.modes();
        REQUIRE(console.shows(connected));
        console.type("echo $((5 * 6))\n");
        REQUIRE(console.shows("\r\n30"));
        // Two at once, as at the end of a session.
        for (const int signal : {SIGSTOP, SIGTERM, SIGHUP, SIGCONT}) ::kill(console.pid(), signal);
        CHECK(console.wait() > 128);
        CHECK(console.modes() == before);
    }
    {
        OnTerminal console{ctl.words({"console", "web"})};
        REQUIRE(console.shows(connected));
        console.hang_up();
        CHECK(console.wait() == 128 + SIGHUP);
    }
    CHECK(ctl({"domstate", "web"}).out == "running\n\n");
}

TEST_CASE("the container's terminal is as large as the user's, also after that has changed") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal console{ctl.words({"console", "web"}), {33, 111}};
    REQUIRE(console.shows(connected));
    console.type("stty size\n");
    CHECK(console.shows("\r\n33 111\r\n"));
    console.type("echo sized$((1)); until [ \"$(stty size)\" = '44 122' ]; do sleep 0.05; done; echo changed$((2))\n");
    REQUIRE(console.shows("sized1"));
    console.resize({44, 122});
    CHECK(console.shows("changed2"));
    console.type(leave);
    CHECK(console.wait() == 0);
}

TEST_CASE("a console has one user: a second one is told so, or takes it over by --force") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal first{ctl.words({"console", "web"})};
    const std::string before = first.modes();
    REQUIRE(first.shows("inside> "));
    OnTerminal refused{ctl.words({"console", "web"})};
    CHECK(refused.wait() == 1);
    CHECK(refused.screen() == "error: operation failed: Active console session exists for this domain\r\n\r\n");

    OnTerminal second{ctl.words({"console", "web", "--force"})};
    CHECK(first.wait() == 128 + SIGHUP);
    CHECK(first.modes() == before);
    REQUIRE(second.shows(connected));
    second.type("echo $((6 * 7))\n");
    CHECK(second.shows("\r\n42\r\n"));
    second.type(leave);
    CHECK(second.wait() == 0);

    OnTerminal third{ctl.words({"console", "web"})};
    CHECK(third.shows(connected));
    third.type(leave);
    CHECK(third.wait() == 0);

    OnTerminal shared{ctl.words({"console", "web", "--shared"})};
    REQUIRE(shared.shows(connected));
    OnTerminal last{ctl.words({"console", "web", "--force"})};
    CHECK(last.shows(connected));
    CHECK(shared.wait() == 0);
    last.type(leave);
    CHECK(last.wait() == 0);
}

TEST_CASE("who reads a console with a log too slowly is told how much was not shown, also by its end") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    std::string xml = ctl({"dumpxml", "web"}).out;
    xml.insert(xml.find('>', xml.find("<console")) + 1, "<log file='" + ctl.root().path() + "/log'/>");
    REQUIRE(ctl({"define", ctl.write("logged.xml", xml)}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    bool by_end = false;
    SUBCASE("by leaving") {}
    SUBCASE("by the container's end") {
        by_end = true;
    }
    OnTerminal console{ctl.words({"console", "web"})};
    REQUIRE(console.shows("inside> "));
    console.type("head -c 1000000 /dev/zero | tr '\\0' x; echo all$((1)); read go\n");
    // Nobody looks at the terminal meanwhile.
    for (int i = 0; i < 6000 && !has(ctl.root().read("/log"), "all1"); ++i) ::usleep(10'000);
    if (by_end) REQUIRE(ctl({"destroy", "web"}).status == 0);
    else console.type(leave);
    CHECK(console.shows("warning: the console was faster than this terminal: "));
    CHECK(console.shows(" bytes were not shown\r\n"));
    CHECK(console.wait() == 0);
}

TEST_CASE("--force ends a session that was stopped, and gives up where it cannot see whose a session is") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal first{ctl.words({"console", "web"})};
    REQUIRE(first.shows("inside> "));
    REQUIRE(::kill(first.pid(), SIGSTOP) == 0);
    OnTerminal second{ctl.words({"console", "web", "--force"})};
    REQUIRE(second.shows(connected));
    CHECK(first.wait() == 128 + SIGHUP);
    second.type(leave);
    CHECK(second.wait() == 0);

    const std::string xml = ctl({"dumpxml", "web"}).out;
    const std::size_t begin = xml.find("tty='") + 5;
    const caisson::Fd console{
        ::open(xml.substr(begin, xml.find('\'', begin) - begin).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    REQUIRE(console);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    // Of the descriptor, and so nobody's by the kernel's answer.
    REQUIRE(::fcntl(console.get(), F_OFD_SETLK, &lock) == 0);
    OnTerminal third{ctl.words({"console", "web", "--force"})};
    CHECK(third.wait() == 1);
    CHECK(third.screen() ==
          "error: cannot end the active console session\r\nerror: whose it is cannot be seen from here\r\n\r\n");
}

TEST_CASE("a signal ends the console also where nobody reads the terminal") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/floods", "#!/bin/busybox sh\nexec yes\n", 0755);
    REQUIRE(ctl({"create", ctl.describe("web", {}, 50000, "/floods")}).status == 0);
    OnTerminal console{ctl.words({"console", "web"})};
    const std::string before = console.modes();
    REQUIRE(console.shows("y\r\ny\r\n"));
    const auto process = caisson::Process::open(console.pid());
    ::usleep(300'000);  // in which the terminal fills
    ::kill(console.pid(), SIGTERM);
    CHECK(process.ended_within(10'000));
    CHECK(console.modes() == before);
    CHECK(console.wait() == 128 + SIGTERM);
}

TEST_CASE("Ctrl+] leaves also a container that takes nothing of what was typed") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/sleeps", "#!/bin/busybox sh\nexec sleep 1000\n", 0755);
    REQUIRE(ctl({"create", ctl.describe("web", {}, 50000, "/sleeps")}).status == 0);
    OnTerminal console{ctl.words({"console", "web"})};
    const std::string before = console.modes();
    REQUIRE(console.shows(connected));
    // As long as a terminal cooks its input, it throws away what is too much for a line.
    while (console.modes() == before) ::usleep(1000);
    ::alarm(60);  // typing blocks where nobody reads it
    for (int i = 0; i < 400; ++i) console.type(std::string(999, 'x') + "\n");
    console.type(leave);
    ::alarm(0);
    CHECK(console.wait() == 0);
    CHECK(console.modes() == before);
}

TEST_CASE("a container that ends at once is shown to the last byte to who starts it with its console") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/says", "#!/bin/busybox sh\necho last words\n", 0755);
    REQUIRE(ctl({"define", ctl.describe("web", {}, 50000, "/says")}).status == 0);
    for (int i = 0; i < 10; ++i) {
        OnTerminal console{ctl.words({"start", "web", "--console"})};
        CHECK(console.wait() == 0);
        CHECK(console.screen() == "Domain 'web' started\r\n" + connected + "last words\r\n\r\n");
    }
}

TEST_CASE("start and create give the console when they are asked to, and only on a terminal") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web");
    {
        OnTerminal console{ctl.words({"create", file, "--console"})};
        REQUIRE(console.shows("Domain 'web' created from " + file + "\r\n"));
        REQUIRE(console.shows(connected));
        CHECK(console.shows("inside> "));
        console.type("exit\n");
        CHECK(console.wait() == 0);
    }
    REQUIRE(ctl({"define", file}).status == 0);
    const Outcome blind = ctl({"start", "web", "--console"});
    CHECK(blind.status == 1);
    CHECK(blind.out == "Domain 'web' started\n\n");
    CHECK(blind.err == "error: Cannot run interactive console without a controlling TTY\n");
    CHECK(ctl({"domstate", "web"}).out == "running\n\n");
    CHECK(ctl({"console", "web"}).err == "error: Cannot run interactive console without a controlling TTY\n");
}

TEST_CASE("exec runs a command as it is told to, and ends as the command ends") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    const Outcome said = ctl({"exec", "web", "-u", "5:6", "-e", "A=1", "--env", "B=2", "-w", "/tmp", "--", "/bin/sh",
                              "-c", "id -u; id -g; echo $A$B; pwd; echo wrong >&2; exit 42"});
    CHECK(said.status == 42);
    CHECK(said.out == "5\n6\n12\n/tmp\n");
    CHECK(said.err == "wrong\n");
    CHECK(ctl({"exec", "web", "--", "/bin/sh", "-c", "kill -9 $$"}).status == 137);
    check_error(ctl({"exec", "web"}), "error: command requires <command> option: give it behind '--'\n");
    check_error(ctl({"exec", "-t", "web", "--", "/bin/sh"}),
                "error: Cannot run a command on a terminal without one on standard input\n");
    check_error(ctl({"exec", "web", "-e", "A", "--", "/bin/sh"}), "error: Variable 'A' has no '=': give NAME=VALUE\n");
    check_error(ctl({"exec", "web", "--workdir", "/none", "--", "/bin/sh"}),
                "error: Failed to run a command in domain 'web'\nerror: container 'web': working directory '/none' (in "
                "the child): No such file or directory: make the directory in the root\n");
    const Outcome entered = ctl({"lxc-enter-namespace", "web", "--noseclabel", "--", "/bin/sh", "-c",
                                 "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; exit 7"});
    CHECK(entered.status == 7);
    std::string own;
    REQUIRE(caisson::detail::sys::read_file(AT_FDCWD, "/proc/thread-self/status", own));
    CHECK(has(entered.out, own.substr(own.find("CapEff:"), 24)));
    CHECK(has(entered.out, "NoNewPrivs:\t0\nSeccomp:\t0\n"));
    check_error(ctl({"exec", "nobody", "--", "/bin/sh"}), "error: failed to get domain 'nobody'\n");
    const std::string words = ctl.write("words", "from the host\n");
    CHECK(ctl({"cp", words, "web:/tmp/copied"}).status == 0);
    CHECK(ctl({"cp", "web:/tmp/copied", ctl.file("back")}).status == 0);
    CHECK(ctl({"cp", ctl.file("back"), "web:/tmp"}).status == 0);
    CHECK(ctl({"exec", "web", "--", "/bin/cat", "/tmp/back"}).out == "from the host\n");
    check_error(ctl({"cp", words, words}),
                "error: cp copies between the host and a domain: give one of the two as DOMAIN:PATH\n");
    REQUIRE(ctl({"destroy", "web"}).status == 0);
    check_error(ctl({"exec", "web", "--", "/bin/sh"}), "error: The domain is not running\n");
}

TEST_CASE("exec on a terminal gives the command one of the domain's, and Ctrl+] is a character") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Running ctl;
    OnTerminal exec{ctl.words({"exec", "web", "--", "/bin/sh", "-c",
                               "tty; stty -icanon -echo; echo go$((1)); dd bs=1 count=1 | od -c; exit 5"})};
    const std::string before = exec.modes();
    REQUIRE(exec.shows("/dev/pts/"));
    REQUIRE(exec.shows("go1"));
    exec.type(leave);
    CHECK(exec.shows("035"));
    CHECK(exec.wait() == 5);
    CHECK(exec.modes() == before);
}

TEST_CASE("each console of a domain is joined by its name, and by several at a time where they share it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web");
    std::string xml = ctl({"define", file}).status == 0 ? ctl({"dumpxml", "web"}).out : "";
    const std::size_t at = xml.find("    <console");
    REQUIRE(at != std::string::npos);
    const std::string log = ctl.root().path() + "/second-log";
    xml.insert(xml.find("</console>", at) + 11,
               "    <console type='pty'>\n      <log file='" + log + "'/>\n    </console>\n");
    const std::string two = ctl.root().write("/two.xml", xml);
    REQUIRE(ctl({"define", two}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    const std::string live = ctl({"dumpxml", "web"}).out;
    CHECK(live.find("<log file='" + log + "'/>") != std::string::npos);
    CHECK(live.find("<target type='lxc' port='1'/>") != std::string::npos);

    OnTerminal first{ctl.words({"console", "web", "--safe"})};
    REQUIRE(first.shows("inside> "));
    OnTerminal second{ctl.words({"console", "web", "--devname", "console1"})};
    REQUIRE(second.shows(connected));
    first.type("echo to the $((1 + 1))nd > /dev/tty2\n");
    CHECK(second.shows("to the 2nd\r\n"));
    CHECK(ctl.root().read("/second-log") == "to the 2nd\r\n");
    second.type(leave);
    CHECK(second.wait() == 0);

    OnTerminal beside{ctl.words({"console", "web", "--shared"})};
    REQUIRE(beside.shows(connected));
    beside.type("echo $((6 * 7))\n");
    CHECK(beside.shows("\r\n42\r\n"));
    CHECK(first.shows("\r\n42\r\n"));
    for (OnTerminal* const session : {&first, &beside}) {
        session->type(leave);
        CHECK(session->wait() == 0);
    }
    OnTerminal none{ctl.words({"console", "web", "--devname", "console2"})};
    CHECK(none.wait() == 1);
    CHECK(none.screen() == "error: cannot find console device 'console2'\r\n\r\n");
    OnTerminal both{ctl.words({"console", "web", "--shared", "--force"})};
    CHECK(both.wait() == 1);
    CHECK(both.screen() == "error: Options --shared and --force are mutually exclusive\r\n\r\n");
}
