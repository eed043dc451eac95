// caissonctl's verbs for what a domain is called, what is said about it, whether it starts by itself, and how it is
// told to end.
#include "support/doctest.hpp"

#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <caisson/helper.hpp>
#include <caisson/process.hpp>

#include "support/domains.hpp"
#include "support/fuse.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

const std::string uuid1 = "8369f1ac-7e46-e869-4ca5-759d51478066";

bool exists(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0;
}

/// Of a kind that no helper has.
caisson::Fd listen_on(const std::string& path) {
    caisson::Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(socket.get(), 1) == 0);
    return socket;
}

/// True once the program waits for changes of two directories.
bool watches_directories(pid_t pid) {
    const std::string files = "/proc/" + std::to_string(pid) + "/fdinfo";
    for (int waited = 0; waited < 10'000; ++waited) {
        if (has(run(Words{"grep", "-rs", "^inotify wd:2", files}).out, "wd:2")) return true;
        ::usleep(1000);
    }
    return false;
}

}  // namespace

TEST_CASE("a domain is marked as autostarted by a link, which goes with its definition") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"define", ctl.describe("db")}).status == 0);
    const std::string link = ctl.state() + "/autostart/web.xml";
    check_said(ctl({"autostart", "--disable", "web"}), "Domain 'web' unmarked as autostarted\n");
    for (int twice = 0; twice < 2; ++twice) {
        check_said(ctl({"autostart", uuid1}), "Domain 'web' marked as autostarted\n");
    }
    CHECK(run(Words{"cat", link}).out == run(Words{"cat", ctl.state() + "/web.xml"}).out);
    CHECK(has(ctl({"dominfo", "web"}).out, "Autostart:      enable\n"));
    CHECK(has(ctl({"dominfo", "db"}).out, "Autostart:      disable\n"));
    check_said(ctl({"list", "--all", "--name", "--autostart"}), "web\n");
    check_said(ctl({"list", "--all", "--name", "--no-autostart"}), "db\n");
    check_said(ctl({"list", "--all", "--name", "--no-autostart", "--autostart"}), "db\nweb\n");

    check_said(ctl({"domrename", "web", "www"}), "Domain successfully renamed\n");
    CHECK_FALSE(exists(link));
    check_said(ctl({"list", "--all", "--name", "--autostart"}), "www\n");
    check_said(ctl({"undefine", "www"}), "Domain 'www' has been undefined\n");
    CHECK_FALSE(exists(ctl.state() + "/autostart/www.xml"));
    REQUIRE(ctl({"define", ctl.describe("www")}).status == 0);
    check_said(ctl({"list", "--all", "--name", "--autostart"}), "");
}

TEST_CASE("all domains that are marked are started, and one that cannot be does not keep the others") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    check_said(ctl({"autostart-all"}), "");
    for (const char* name : {"a", "b", "c", "d"}) {
        REQUIRE(ctl({"define", ctl.describe(name, {}, 50000, *name == 'b' ? "/no/such" : "/sbin/init")}).status == 0);
        if (*name != 'd') REQUIRE(ctl({"autostart", name}).status == 0);
    }
    const Outcome first = ctl({"autostart-all"});
    CHECK(first.status == 1);
    CHECK(first.out == "Domain 'a' started\nDomain 'c' started\n\n");
    CHECK(first.err.starts_with("error: Failed to start domain 'b'\nerror: container 'b': "));
    CHECK(first.err.ends_with("\nerror: Failed to autostart 'b'\n"));
    check_said(ctl({"list", "--name"}), "a\nc\n");
    REQUIRE(ctl({"undefine", "b"}).status == 0);
    check_said(ctl({"autostart-all"}), "");
}

TEST_CASE("a domain that runs is undefined and goes on, transient, and has no autostart nor definition to change") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"autostart", "web"}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    check_said(ctl({"list", "--persistent", "--name"}), "web\n");
    check_said(ctl({"undefine", "web"}), "Domain 'web' has been undefined\n");
    check_said(ctl({"domstate", "web", "--reason"}), "running (booted)\n");
    check_said(ctl({"list", "--transient", "--name"}), "web\n");
    check_said(ctl({"list", "--persistent", "--name"}), "");
    CHECK(has(ctl({"dominfo", "web"}).out, "Persistent:     no\nAutostart:      disable\n"));
    check_error(ctl({"undefine", "web"}),
                "error: Failed to undefine domain 'web'\nerror: Requested operation is not "
                "valid: cannot undefine transient domain\n");
    check_error(ctl({"autostart", "web"}),
                "error: Failed to mark domain 'web' as autostarted\nerror: Requested "
                "operation is not valid: cannot set autostart for transient domain\n");
    check_error(ctl({"domrename", "web", "www"}),
                "error: Requested operation is not valid: cannot rename a transient domain\n");
    check_error(ctl({"desc", "web", "--config", "x"}),
                "error: Requested operation is not valid: transient domains do not have any persistent config\n");
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    check_said(ctl({"list", "--persistent", "--name"}), "web\n");
    REQUIRE(ctl({"undefine", "web"}).status == 0);
    REQUIRE(ctl({"destroy", "web"}).status == 0);
    check_said(ctl({"list", "--all", "--name"}), "");
}

TEST_CASE("a domain is renamed when it does not run, and to a name that nobody has") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"define", ctl.describe("db")}).status == 0);
    check_error(ctl({"domrename", "web", "web"}),
                "error: Requested operation is not valid: Can't rename domain to itself\n");
    check_error(ctl({"domrename", "web", "db"}),
                "error: Requested operation is not valid: domain with name 'db' already exists\n");
    check_error(ctl({"domrename", "web", "a/b"}),
                "error: invalid argument: name 'a/b' must be 1 to 63 letters, digits, '.', '_' and '-', the first a "
                "letter or a digit\n");
    REQUIRE(ctl({"start", "db"}).status == 0);
    check_error(ctl({"domrename", "db", "dbs"}),
                "error: Requested operation is not valid: cannot rename active domain\n");
    check_said(ctl({"domrename", uuid1, "www"}), "Domain successfully renamed\n");
    CHECK_FALSE(exists(ctl.state() + "/web.xml"));
    check_said(ctl({"domuuid", "www"}), uuid1 + "\n");
    CHECK(has(ctl({"dumpxml", "www"}).out, "<name>www</name>"));
    check_said(ctl({"list", "--all", "--name"}), "db\nwww\n");
}

TEST_CASE("title, description and metadata are kept of the running domain, of the definition, or of both") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    const std::string updated = "Domain description updated successfully";
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    check_said(ctl({"desc", "web"}), "No description for domain: web");
    check_said(ctl({"desc", "web", "--title"}), "No title for domain: web");
    check_error(ctl({"desc", "web", "--live", "x"}),
                "error: Requested operation is not valid: domain is not running\n");
    check_error(ctl({"desc", "web", "--title", "a\nb"}),
                "error: Failed to set new domain title\nerror: metadata title can't contain newlines\n");
    check_said(ctl({"desc", "web", "the", "old one"}), updated);
    REQUIRE(ctl({"start", "web"}).status == 0);
    check_said(ctl({"desc", "web", "--new-desc", "of now"}), updated);
    check_said(ctl({"desc", "web", "--config"}), "the old one\n");
    check_said(ctl({"desc", "web"}), "of now\n");
    check_said(ctl({"desc", "web", "--live", "--config", "--title", "both"}), "Domain title updated successfully");
    check_said(ctl({"desc", "web", "--title", "--config"}), "both\n");
    CHECK(has(ctl({"list", "--title"}).out, "running   both\n"));
    check_said(ctl({"desc", "web", ""}), updated);
    check_said(ctl({"desc", "web"}), "No description for domain: web");

    const std::string missing = "error: metadata not found: Requested metadata element is not present\n";
    check_error(ctl({"metadata", "web", "urn:x"}), missing);
    check_error(ctl({"metadata", "web", "urn:x", "--set", "<a/>"}),
                "error: namespace key is required when modifying metadata\n");
    CHECK(has(ctl({"metadata", "web", "urn:x", "--set", "<a", "--key", "k"}).err, "error: <metadata>:1: "));
    check_said(ctl({"metadata", "web", "urn:x", "--live", "--config", "--set", "<a><b c='1'/></a>", "--key", "k"}),
               "Metadata modified\n");
    check_said(ctl({"metadata", "web", "urn:x"}), "<a>\n  <b c=\"1\"/>\n</a>\n");
    CHECK(has(ctl({"dumpxml", "web", "--inactive"}).out,
              "  <metadata>\n    <k:a xmlns:k=\"urn:x\">\n      <k:b c=\"1\"/>\n    </k:a>\n  </metadata>\n"));
    check_said(ctl({"metadata", "web", "urn:x", "--remove"}), "Metadata removed\n");
    check_error(ctl({"metadata", "web", "urn:x", "--live"}), missing);
    check_said(ctl({"metadata", "web", "urn:x", "--config"}), "<a>\n  <b c=\"1\"/>\n</a>\n");
    check_error(ctl({"metadata", "web", "urn:x", "--live", "--config"}),
                "error: Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive\n");
}

TEST_CASE("lists are filtered by state, as virsh does") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    for (const char* name : {"a", "b", "c"}) {
        REQUIRE(ctl({"define", ctl.describe(name)}).status == 0);
        if (*name != 'c') REQUIRE(ctl({"start", name}).status == 0);
    }
    check_said(ctl({"suspend", "b"}), "Domain 'b' suspended\n");
    check_said(ctl({"domstate", "b", "--reason"}), "paused (user)\n");
    check_said(ctl({"domstate", "c", "--reason"}), "shut off (unknown)\n");
    check_said(ctl({"list", "--name", "--state-running"}), "a\n");
    check_said(ctl({"list", "--name", "--state-paused"}), "b\n");
    check_said(ctl({"list", "--name", "--state-shutoff"}), "c\n");
    check_said(ctl({"list", "--name", "--state-shutoff", "--state-running"}), "c\n");
    check_said(ctl({"list", "--name", "--all", "--state-shutoff", "--state-running"}), "a\nc\n");
    check_said(ctl({"list", "--name", "--all", "--state-other"}), "");
    check_said(ctl({"list", "--name", "--inactive", "--state-running"}), "");
    CHECK(has(ctl({"list", "--state-paused"}).out, "   b      paused\n"));
}

TEST_CASE("a domain is destroyed gracefully by what it makes of SIGTERM, and with the program that started it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/obeys",
                     "#!/bin/busybox sh\ntrap 'echo last > /last; exit 0' TERM\necho ready > /ready\n"
                     "while :; do sleep 0.1; done\n",
                     0755);
    REQUIRE(ctl({"create", ctl.describe("web", {}, 50000, "/obeys")}).status == 0);
    const auto helper = caisson::Process::open(std::stoi(ctl({"-q", "domid", "web"}).out));
    while (ctl.root().read("/ready").empty()) REQUIRE_FALSE(helper.ended_within(10));
    check_said(ctl({"destroy", "web", "--graceful"}), "Domain 'web' destroyed\n");
    CHECK(ctl.root().read("/last") == "last\n");
    REQUIRE(ctl({"define", ctl.describe("brief")}).status == 0);
    check_said(ctl({"start", "brief", "--autodestroy"}), "Domain 'brief' started\n");
    check_said(ctl({"domstate", "brief"}), "shut off\n");
    // Whatever is to follow an end, and also while it is suspended.
    for (const char* const action : {"restart", "preserve"}) {
        std::string xml = ctl({"dumpxml", "brief"}).out;
        const std::string from = "<init>/sbin/init</init>";
        xml.replace(xml.find(from), from.size(), "<init>/obeys</init>");
        const std::size_t begin = xml.find("<on_poweroff>") + 13;
        xml.replace(begin, xml.find('<', begin) - begin, action);
        const std::string file = ctl.write(action, xml);
        REQUIRE(::unlink((ctl.root().path() + "/ready").c_str()) == 0);
        REQUIRE(ctl({"create", file}).status == 0);
        for (int i = 0; i < 6000 && ctl.root().read("/ready").empty(); ++i) ::usleep(10'000);
        if (ctl({"suspend", "brief"}).status != 0) MESSAGE("nothing can be suspended here");
        check_said(ctl({"destroy", "brief", "--graceful"}), "Domain 'brief' destroyed\n");
        check_said(ctl({"domstate", "brief"}), "shut off\n");
    }
}

TEST_CASE("a domain that does not end when it is destroyed is told with the process that waits in the kernel") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    SilentServer server;
    if (!server.fuse) CAISSON_SKIP("there is no /dev/fuse");
    const Domains ctl;
    auto helper = caisson::Helper::start(user_of(server, ctl.root()), {.run_directory = ctl.file("run")});
    REQUIRE(server.is_asked());
    const Outcome outcome = ctl({"destroy", "test"});
    CHECK(outcome.status == 1);
    CHECK(
        outcome.err.starts_with("error: Failed to destroy domain 'test'\nerror: container 'test': end: Connection "
                                "timed out: process "));
    CHECK(has(outcome.err, " ('stat') waits in the kernel"));
    server.fuse.reset();
    CHECK(helper.wait() == caisson::ExitStatus::killed(SIGKILL));
}

TEST_CASE("a group's domains are all listed, and are not called by the id that they share") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    const Domains ctl;
    std::vector<caisson::Helper> helpers;
    for (const char* const name : {"a", "b"}) {
        caisson::ContainerSpec spec;
        spec.name = name;
        spec.root = ctl.root().path();
        spec.command = {"/bin/sleep", "1000"};
        helpers.push_back(caisson::Helper::start(spec, {.run_directory = ctl.file("run"), .group = "shop"}));
    }
    check_said(ctl({"list", "--name"}), "a\nb\n");
    const std::string id = std::to_string(helpers.front().pid());
    check_error(ctl({"domname", id}), "error: domain id " + id + " is of several domains: name one of them\n");
    // Who has no descriptor left says that, and not that they are silent.
    for (int most = 4, listed = 0; listed == 0; ++most) {
        REQUIRE(most < 64);
        Words limited{"sh", "-c", "ulimit -n " + std::to_string(most) + "; exec \"$@\"", "sh"};
        for (const std::string& word : ctl.words({"list"})) limited.push_back(word);
        const Outcome outcome = run(limited);
        CHECK_FALSE(has(outcome.out, "no answer"));
        listed = has(outcome.out, " a ") && has(outcome.out, " b ") ? 1 : 0;
    }
    for (caisson::Helper& helper : helpers) (void)helper.kill();
}

TEST_CASE("a domain whose helper cannot be asked is listed as such, and hides none of the others") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("off")}).status == 0);
    REQUIRE(ctl({"create", ctl.describe("on")}).status == 0);
    // In another pid namespace, where helpers are that it does not show.
    const auto elsewhere = [&](const Words& words) {
        Words all{"unshare", "--pid", "--fork", "--mount-proc"};
        for (const std::string& word : ctl.words(words)) all.push_back(word);
        return run(all);
    };
    check_said(elsewhere({"list", "--all"}),
               " Id   Name   State\n"
               "------------------------\n"
               " -    on     no answer\n"
               " -    off    shut off\n");
    CHECK(has(elsewhere({"domstate", "on"}).err, "it is in a pid namespace that this process does not see into"));
}

TEST_CASE("virsh's connection is taken where it is libvirt's of containers, and refused where it is another") {
    const LeavesNothing nothing;
    const Domains ctl;
    for (const char* uri : {"lxc:///", "lxc:///system", ""}) check_said(ctl({"-c", uri, "list", "--name"}), "");
    const Outcome other = ctl({"--connect", "qemu:///system", "list"});
    CHECK(other.status == 1);
    CHECK(other.err ==
          "error: failed to connect to the hypervisor\nerror: no connection driver available for "
          "qemu:///system: leave it out, or give lxc:///system\n");
}

TEST_CASE("what happens to domains is told in virsh's words, as it happens") {
    if (::geteuid() != 0 || TestRoot::missing() != nullptr) CAISSON_SKIP("this needs root, and a busybox for roots");
    const LeavesNothing nothing;
    Domains ctl;
    check_said(ctl({"event", "--list"}), "lifecycle\nreboot\nmetadata-change\n");
    const std::string file = ctl.describe("web", uuid1);
    REQUIRE(ctl({"define", file}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    // One that cannot be asked hides none of the others.
    const std::string odd = ctl.file("run") + "/odd";
    REQUIRE(::mkdir(odd.c_str(), 0700) == 0);
    const caisson::Fd stream = listen_on(odd + "/sock");
    Background all{ctl.words({"event", "--all", "--loop", "--timeout", "100"})};
    const auto told = [&](const Words& words, const std::string& line) {
        REQUIRE(ctl(words).status == 0);
        CHECK(all.says(line + "\n"));
    };
    const std::string lifecycle = "event 'lifecycle' for domain 'web': ";
    REQUIRE(watches_directories(all.pid()));
    // What runs is known once anything is told.
    told({"define", file}, lifecycle + "Defined Updated");
    // Whoever sets something of its directory starts nothing.
    REQUIRE(::chmod((ctl.file("run") + "/web").c_str(), 0700) == 0);
    told({"suspend", "web"}, lifecycle + "Suspended Paused");
    told({"resume", "web"}, lifecycle + "Resumed Unpaused");
    told({"desc", "web", "--live", "x"}, "event 'metadata-change' for domain 'web': type description, uri <null>");
    told({"desc", "web", "--config", "--title", "x"},
         "event 'metadata-change' for domain 'web': type title, uri <null>");
    told({"metadata", "web", "urn:x", "--set", "<a/>", "--key", "k"},
         "event 'metadata-change' for domain 'web': type element, uri urn:x");
    told({"destroy", "web"}, lifecycle + "Stopped Destroyed");
    told({"start", "web"}, lifecycle + "Started Booted");
    REQUIRE(ctl({"destroy", "web"}).status == 0);
    told({"domrename", "web", "www"}, "event 'lifecycle' for domain 'www': Defined Renamed");
    CHECK(all.says(lifecycle + "Undefined Renamed\n"));
    told({"undefine", "www"}, "event 'lifecycle' for domain 'www': Undefined Removed");
    REQUIRE(ctl({"define", ctl.describe("db")}).status == 0);
    CHECK(all.says("event 'lifecycle' for domain 'db': Defined Added\n"));
    all.signal_group(SIGINT);
    const Outcome outcome = all.wait();
    CHECK(outcome.status == 0);
    CHECK(has(outcome.out, "event loop interrupted\nevents received: "));
    CHECK_FALSE(has(outcome.out.substr(0, outcome.out.find("Stopped")), "Started"));
    REQUIRE(::unlink((odd + "/sock").c_str()) == 0);
    REQUIRE(::rmdir(odd.c_str()) == 0);

    // A killed helper leaves its directory, and a restart may fail.
    const std::string flaky = "#!/bin/busybox sh\nread go || exit 4\nrm /flaky\nexit 3\n";
    ctl.root().write("/flaky", flaky, 0755);
    std::string xml = run(Words{"cat", ctl.describe("left", {}, 50000, "/flaky")}).out;
    xml.insert(xml.find("<devices>"), "<on_crash>restart</on_crash>");
    REQUIRE(ctl({"define", ctl.write("left.xml", xml)}).status == 0);
    Background more{ctl.words({"event", "--event", "lifecycle", "--domain", "left", "--loop", "--timeout", "100"})};
    REQUIRE(watches_directories(more.pid()));
    std::string told_of_left;
    const auto tells = [&](const std::string& what) {
        told_of_left += "event 'lifecycle' for domain 'left': " + what + "\n";
        CHECK(more.says(told_of_left));
    };
    for (int round = 0; round < 2; ++round) {
        check_said(ctl({"start", "left"}), "Domain 'left' started\n");
        tells("Started Booted");
        REQUIRE(::kill(std::stoi(ctl({"-q", "domid", "left"}).out), SIGKILL) == 0);
        tells("Stopped Destroyed");
    }
    REQUIRE(ctl({"start", "left"}).status == 0);
    tells("Started Booted");
    {
        OnTerminal console{ctl.words({"console", "left"})};
        console.type("\n");
        tells("Stopped Crashed");
        tells("Stopped Failed");
    }
    more.signal_group(SIGINT);
    (void)more.wait();

    Background one{ctl.words({"event", "--event", "metadata-change", "--domain", "db", "--timestamp"})};
    REQUIRE(watches_directories(one.pid()));
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"desc", "web", "x"}).status == 0);
    REQUIRE(ctl({"desc", "db", "x"}).status == 0);
    const Outcome first = one.wait();
    CHECK(first.status == 0);
    REQUIRE(first.out.size() > 30);
    CHECK(first.out.substr(23) ==
          "+0000: event 'metadata-change' for domain 'db': type description, uri <null>\nevents received: 1\n\n");

    const Outcome timed_out = ctl({"event", "--all", "--timeout", "1"});
    CHECK(timed_out.status == 1);
    CHECK(timed_out.out == "event loop timed out\nevents received: 0\n\n");
    CHECK(timed_out.err == "");
}
