// examples/quickstart.sh: the walk-through from end to end, and what Ctrl+C leaves of it: nothing.
#include "support/doctest.hpp"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <iterator>
#include <string>

#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "support/command.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson_test;

namespace {

/// Network devices are made in a network namespace of this program's own.
bool own_network() {
    static const bool done = ::unshare(CLONE_NEWNET) == 0;
    return done;
}

/// One run, in a temporary directory of its own that must be empty at the end.
struct Quickstart {
    TestDirectory directory;

    Words words() const {
        return {"env", "TMPDIR=" + directory.path(), CAISSON_QUICKSTART, "--no-build", "--build", CAISSON_BUILD};
    }
    void check_clean() const {
        CHECK(std::filesystem::is_empty(directory.path()));
        struct Names {
            struct if_nameindex* list = ::if_nameindex();
            ~Names() { ::if_freenameindex(list); }
        } const names;
        for (const struct if_nameindex* i = names.list; i != nullptr && i->if_name != nullptr; ++i) {
            const std::string name{i->if_name};
            CHECK_FALSE(name.starts_with("br"));
            CHECK_FALSE(name.starts_with("veth"));
        }
    }
};

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the quickstart tells how it is used") {
    const LeavesNothing nothing;
    const Outcome help = run({CAISSON_QUICKSTART, "--help"});
    CHECK(help.status == 0);
    CHECK(help.out.starts_with("usage: examples/quickstart.sh "));
    CHECK(run({CAISSON_QUICKSTART, "--wrong"}).status == 2);
}

TEST_CASE("the quickstart walks through a container's life without a terminal, and leaves nothing") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    if (!own_network()) CAISSON_SKIP("a network namespace cannot be made here");
    const LeavesNothing nothing;
    const Quickstart quickstart;
    const Outcome outcome = run(quickstart.words());
    CHECK(outcome.status == 0);
    CHECK(outcome.err ==
          "warning: domain 'mycontainer' has no <idmap>: root inside is root outside; 'define --idmap auto' "
          "gives it ids of its own\n");
    for (const char* part :
         {"+ ip link add br0 ",
          "+ caissonctl define mycontainer.xml\nDomain 'mycontainer' defined from mycontainer.xml\n",
          " -    mycontainer   shut off\n", "+ caissonctl start mycontainer\nDomain 'mycontainer' started\n",
          "   mycontainer   running\n", "Max memory:     500000 KiB\n", "Connected to domain 'mycontainer'",
          "this shell is a child of process 1", "<source bridge='br0'/>", "<console type='pty' tty='/dev/pts/",
          "Domain 'mycontainer' destroyed\n", "Domain 'mycontainer' has been undefined\n",
          "# done: nothing of it is left\n"}) {
        CAPTURE(part);
        CHECK(has(outcome.out, part));
    }
    quickstart.check_clean();
}

TEST_CASE("at a terminal the console is the user's, who may end the container there") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    if (!own_network()) CAISSON_SKIP("a network namespace cannot be made here");
    const LeavesNothing nothing;
    const Quickstart quickstart;
    {
        OnTerminal terminal{quickstart.words()};
        const std::string before = terminal.modes();
        REQUIRE(terminal.shows("Escape character is ^]"));
        REQUIRE(terminal.shows("/ # "));
        terminal.type("echo $((5 * 5))\n");
        CHECK(terminal.shows("\r\n25\r\n"));
        terminal.type("\x1d");
        CHECK(terminal.wait() == 0);
        CHECK(has(terminal.screen(), "# done: nothing of it is left"));
        CHECK(terminal.modes() == before);
    }
    quickstart.check_clean();
    {
        OnTerminal terminal{quickstart.words()};
        REQUIRE(terminal.shows("/ # "));
        terminal.type("exit\n");
        CHECK(terminal.shows("here it is again"));
        CHECK(terminal.wait() == 0);
        CHECK(has(terminal.screen(), "# done: nothing of it is left"));
    }
    quickstart.check_clean();
}

TEST_CASE("Ctrl+C at any point of the quickstart leaves nothing") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    if (!own_network()) CAISSON_SKIP("a network namespace cannot be made here");
    const LeavesNothing nothing;
    struct Interruption {
        const char* point;
        int signal = SIGINT;
    };
    // The ones that matter most come first: where a run takes seconds, as under an emulated kernel, time is up early.
    const Interruption interruptions[] = {{"+ caissonctl start"},
                                          {"' started"},
                                          {"+ ip link add"},
                                          {"' started", SIGTERM},
                                          {"' started", SIGHUP},
                                          {"Connected to domain"},
                                          {"+ caissonctl destroy"},
                                          {"+ caissonctl define"},
                                          {"# everything below"},
                                          {"+ ip link set"},
                                          {"+ mkdir"},
                                          {"' destroyed"},
                                          {"+ caissonctl undefine"},
                                          {"+ ip link delete"},
                                          {"+ caissonctl console"},
                                          {"+ cp "},
                                          {"+ chmod"},
                                          {"+ cat > mycontainer.xml"},
                                          {"+ caissonctl list --inactive"},
                                          {"+ caissonctl dominfo"},
                                          {"+ caissonctl dumpxml"}};
    const auto time_is_up = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    std::size_t done = 0;
    for (const Interruption& interruption : interruptions) {
        if (std::chrono::steady_clock::now() > time_is_up) break;
        const char* const point = interruption.point;
        const int signal = interruption.signal;
        CAPTURE(point);
        CAPTURE(signal);
        const Quickstart quickstart;
        Background running{quickstart.words()};
        REQUIRE(running.says(point));
        running.signal_group(signal);
        const Outcome outcome = running.wait();
        CHECK((outcome.status == 128 + signal || (signal == SIGINT && has(outcome.out, "# done"))));
        quickstart.check_clean();
        ++done;
    }
    if (done < std::size(interruptions)) MESSAGE("time for " << done << " of " << std::size(interruptions));
}
