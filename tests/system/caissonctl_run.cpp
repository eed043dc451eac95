// caissonctl with domains that run: start, create, destroy, shutdown, what is told about them, and failed starts.
#include "support/doctest.hpp"

#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include <caisson/bridge.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>

#include "support/domains.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

const std::string uuid1 = "8369f1ac-7e46-e869-4ca5-759d51478066";

std::string id_of(const Domains& ctl, const std::string& name) {
    std::string text = ctl({"-q", "domid", name}).out;
    if (!text.empty()) text.pop_back();
    return text;
}
/// A text with its numbers as '#' and its blanks as one.
std::string shape(const std::string& text) {
    std::string out;
    for (const char c : text) {
        const char put = c >= '0' && c <= '9' ? '#' : c;
        if ((put != '#' && put != ' ') || out.empty() || out.back() != put) out += put;
    }
    return out;
}
bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace

TEST_CASE("a domain is started, told about, destroyed, and can be started again") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    for (int round = 0; round < 2; ++round) {
        check_said(ctl({"start", "web"}), "Domain 'web' started\n");
        check_error(ctl({"start", "web"}), "error: Domain is already active\n");

        const std::string id = id_of(ctl, "web");
        const auto helper = caisson::Process::open(std::stoi(id));
        CHECK_FALSE(helper.ended());
        const std::string pad(id.size() > 2 ? id.size() - 2 : 0, ' ');
        const std::string rule(id.size() > 2 ? id.size() - 2 : 0, '-');
        const std::string table =
            " Id" + pad + "   Name   State\n" + rule + "----------------------\n " + id + "   web    running\n";
        check_said(ctl({"list"}), table);
        check_said(ctl({"list", "--all"}), table);
        check_said(ctl({"list", "--inactive", "--name"}), "");
        check_said(ctl({"list", "--id"}), id + "\n");
        check_said(ctl({"domstate", id}), "running\n");
        check_said(ctl({"domname", id}), "web\n");
        check_said(ctl({"domuuid", id}), uuid1 + "\n");
        check_said(ctl({"domid", uuid1}), id + "\n");
        CHECK(ctl({"start", id}).err == "error: failed to get domain '" + id + "'\n");

        const Outcome info = ctl({"dominfo", id});
        CHECK(info.status == 0);
        CHECK(has(info.out, "Id:             " + id + "\nName:           web\nUUID:           " + uuid1 +
                                "\nOS Type:        exe\nState:          running\nCPU(s):         1\n"));
        CHECK(has(info.out, "\nMax memory:     50000 KiB\nUsed memory:    "));
        CHECK(has(info.out, " KiB\nPersistent:     yes\nAutostart:      disable\nManaged save:   no\n\n"));

        check_said(ctl({"destroy", "web"}), "Domain 'web' destroyed\n");
        CHECK(helper.ended_within(10'000));
        check_said(ctl({"domstate", "web"}), "shut off\n");
        check_said(ctl({"domid", "web"}), "-\n");
    }
}

TEST_CASE("the description of a running domain has what only a running one has, and is valid") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    const std::string id = id_of(ctl, "web");
    const std::string live = ctl({"-q", "dumpxml", "web"}).out;
    const std::string defined = ctl({"-q", "dumpxml", "--inactive", "web"}).out;
    CHECK(live.starts_with("<domain type='lxc' id='" + id + "'>\n"));
    CHECK(defined.starts_with("<domain type='lxc'>\n"));
    for (const char* part : {"<uuid>8369f1ac-7e46-e869-4ca5-759d51478066</uuid>", "<currentMemory unit='KiB'>50000<",
                             "<vcpu placement='static'>1</vcpu>", "<type arch='", "<clock offset='utc'/>",
                             "<on_poweroff>destroy<", "<on_reboot>restart<", "<on_crash>destroy<"}) {
        CAPTURE(part);
        CHECK(has(live, part));
        CHECK(has(defined, part));
    }
    const std::size_t tty = live.find("<console type='pty' tty='/dev/pts/");
    REQUIRE(tty != std::string::npos);
    const std::size_t path = live.find("/dev/pts/", tty);
    const std::string terminal = live.substr(path, live.find('\'', path) - path);
    CHECK(has(live, "<source path='" + terminal + "'/>"));
    CHECK(exists(terminal));
    CHECK_FALSE(has(defined, "/dev/pts"));

    if (run({"virt-xml-validate", "--version"}).status == 127) CAISSON_SKIP("virt-xml-validate is missing");
    for (const std::string& text : {live, defined}) {
        const Outcome valid = run({"virt-xml-validate", ctl.write("dumped.xml", text), "domain"});
        CHECK(valid.status == 0);
        CHECK(has(valid.out + valid.err, " validates\n"));
    }
}

TEST_CASE("a created domain is transient: it is gone once it is destroyed") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web", uuid1);
    check_said(ctl({"create", file}), "Domain 'web' created from " + file + "\n");
    CHECK(has(ctl({"dominfo", "web"}).out, "\nPersistent:     no\n"));
    check_said(ctl({"list", "--transient", "--name"}), "web\n");
    check_said(ctl({"list", "--persistent", "--name"}), "");
    check_error(ctl({"create", file}), "error: Failed to create domain from " + file +
                                           "\nerror: Requested operation is not valid: domain is already active as "
                                           "'web'\n");
    check_error(ctl({"undefine", "web"}),
                "error: Failed to undefine domain 'web'\nerror: Requested operation is not "
                "valid: cannot undefine transient domain\n");
    const std::string other = ctl.describe("web");
    check_error(ctl({"define", other}), "error: Failed to define domain from " + other +
                                            "\nerror: operation failed: domain 'web' already exists with uuid " +
                                            uuid1 + "\n");
    check_said(ctl({"destroy", uuid1}), "Domain 'web' destroyed\n");
    check_error(ctl({"dominfo", "web"}), "error: failed to get domain 'web'\n");
}

TEST_CASE("a running domain that is undefined goes on as a transient one, and defining it makes it persistent") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web", uuid1);
    REQUIRE(ctl({"define", file}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    REQUIRE(ctl({"undefine", "web"}).status == 0);
    check_said(ctl({"list", "--transient", "--name"}), "web\n");
    CHECK(has(ctl({"dumpxml", "--inactive", "web"}).out, uuid1));
    REQUIRE(ctl({"define", file}).status == 0);
    check_said(ctl({"list", "--persistent", "--name"}), "web\n");
    REQUIRE(ctl({"destroy", "web"}).status == 0);
    check_said(ctl({"list", "--all", "--name"}), "web\n");
}

TEST_CASE("shutdown asks init, which may take it or leave it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/obeys",
                     "#!/bin/busybox sh\ntrap 'exit 0' TERM\necho ready > /ready\nwhile :; do sleep 1; done\n", 0755);
    REQUIRE(ctl({"create", ctl.describe("obeys", {}, 50000, "/obeys")}).status == 0);
    REQUIRE(ctl({"create", ctl.describe("ignores")}).status == 0);
    const std::string id = id_of(ctl, "obeys");
    const auto helper = caisson::Process::open(std::stoi(id));
    while (ctl.root().read("/ready").empty()) REQUIRE_FALSE(helper.ended_within(10));
    check_said(ctl({"shutdown", "obeys"}), "Domain 'obeys' is being shutdown\n");
    check_said(ctl({"shutdown", "ignores"}), "Domain 'ignores' is being shutdown\n");
    CHECK(helper.ended_within(30'000));
    check_said(ctl({"list", "--all", "--name"}), "ignores\n");
}

TEST_CASE("a mode of shutdown that is none, or not a container's, is refused as virsh does") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"create", ctl.describe("web")}).status == 0);
    check_error(ctl({"shutdown", "web", "--mode", "wrong"}),
                "error: Unknown mode wrong value, expecting 'acpi', 'agent', 'initctl', 'signal', or 'paravirt'\n");
    check_error(ctl({"reboot", "web", "--mode", "signal,acpi"}),
                "error: Failed to reboot domain 'web'\nerror: mode 'acpi' is of virtual machines: a container takes "
                "'initctl' and 'signal'\n");
    check_error(ctl({"shutdown", "web", "--mode", "initctl"}),
                "error: Failed to shutdown domain 'web'\nerror: container 'web': request to init: No such device or "
                "address: no init reads '/run/initctl', '/dev/initctl' or '/etc/.initctl' inside: ask by a signal\n");
}

TEST_CASE("a rebooted domain runs on, one that crashes is kept where its document says so, and both are destroyed") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/obeys",
                     "#!/bin/busybox sh\ntrap 'exit 3' TERM\necho run >> /runs\nwhile :; do sleep 0.1; done\n", 0755);
    const std::string file = ctl.describe("web", uuid1, 50000, "/obeys");
    std::string document;
    REQUIRE(caisson::detail::sys::read_file(AT_FDCWD, file.c_str(), document));
    document.insert(document.find("<devices>"), "<on_poweroff>preserve</on_poweroff>");
    ctl.write("kept.xml", document);
    REQUIRE(ctl({"create", ctl.file("kept.xml")}).status == 0);
    const std::string id = id_of(ctl, "web");
    const auto helper = caisson::Process::open(std::stoi(id));
    const auto runs = [&](const std::string& lines) {
        while (ctl.root().read("/runs") != lines) REQUIRE_FALSE(helper.ended_within(10));
    };
    runs("run\n");
    check_said(ctl({"reboot", "web", "--mode", "initctl,signal"}), "Domain 'web' is being rebooted\n");
    runs("run\nrun\n");
    check_said(ctl({"domstate", "web"}), "running\n");
    CHECK(id_of(ctl, "web") == id);
    check_said(ctl({"shutdown", "web", "--mode", "signal"}), "Domain 'web' is being shutdown\n");
    while (!has(ctl({"domstate", "web"}).out, "crashed")) REQUIRE_FALSE(helper.ended_within(10));
    check_said(ctl({"destroy", "web"}), "Domain 'web' destroyed\n");
    CHECK(helper.ended_within(30'000));
}

TEST_CASE("of many starts at once one wins, and the others say that it is active") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    std::vector<std::unique_ptr<Background>> running;
    for (int i = 0; i < 6; ++i) running.push_back(std::make_unique<Background>(ctl.words({"-q", "start", "web"})));
    int won = 0;
    for (const auto& process : running) {
        const Outcome outcome = process->wait();
        if (outcome.status == 0) ++won;
        else CHECK(outcome.out == "error: Domain is already active\n");
    }
    CHECK(won == 1);
    check_said(ctl({"list", "--name"}), "web\n");
}

TEST_CASE("a start that cannot be names the step, the object and the remedy, and leaves nothing running") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/plain", "no program\n", 0644);
    const struct {
        const char* name;
        std::string file;
        const char* error;
    } cases[] = {
        {"noinit", ctl.describe("noinit", {}, 50000, "/no/such/init"), "'/no/such/init'"},
        {"plain", ctl.describe("plain", {}, 50000, "/plain"), "'/plain'"},
        {"nobridge",
         ctl.describe("nobridge", {}, 50000, "/sbin/init",
                      "<interface type='bridge'><source bridge='caissonno0'/></interface>"),
         "'caissonno0'"},
        {"noroot",
         ctl.write("noroot.xml",
                   "<domain type='lxc'><name>noroot</name><memory>50000</memory><os><type>exe</type></os><devices>"
                   "<filesystem><source dir='/no/such/root'/><target dir='/'/></filesystem><console type='pty'/>"
                   "</devices></domain>"),
         "'/no/such/root'"},
    };
    for (const auto& c : cases) {
        CAPTURE(c.name);
        REQUIRE(ctl({"define", c.file}).status == 0);
        const Outcome started = ctl({"start", c.name});
        CHECK(started.status == 1);
        CHECK(started.out == "\n");
        const std::string head = std::string{"error: Failed to start domain '"} + c.name + "'\nerror: ";
        CHECK(started.err.starts_with(head));
        CHECK(has(started.err, c.error));
        MESSAGE(started.err.substr(head.size()));
        check_said(ctl({"domstate", c.name}), "shut off\n");
        REQUIRE(ctl({"undefine", c.name}).status == 0);
        const Outcome created = ctl({"create", c.file});
        CHECK(created.err.starts_with("error: Failed to create domain from " + c.file + "\nerror: "));
        check_said(ctl({"list", "--all", "--name"}), "");
    }
}

TEST_CASE("a suspended domain is paused until it is resumed, and can be destroyed meanwhile") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    const std::string idle = "Requested operation is not valid: domain is not running\n";
    check_error(ctl({"suspend", "web"}), "error: Failed to suspend domain 'web'\nerror: " + idle);
    check_error(ctl({"resume", "web"}), "error: Failed to resume domain 'web'\nerror: " + idle);
    REQUIRE(ctl({"start", "web"}).status == 0);
    check_error(ctl({"resume", "web"}),
                "error: Failed to resume domain 'web'\nerror: Requested operation is not valid: "
                "domain is already running\n");
    for (int again = 0; again < 2; ++again) check_said(ctl({"suspend", "web"}), "Domain 'web' suspended\n");
    check_said(ctl({"domstate", "web"}), "paused\n");
    CHECK(has(ctl({"list"}).out, "   web    paused\n"));
    CHECK(has(ctl({"dominfo", "web"}).out, "\nState:          paused\n"));
    check_said(ctl({"domstats", "--state"}), "Domain: 'web'\n  state.state=3\n  state.reason=1\n");
    check_said(ctl({"domstats", "--list-running"}), "");
    check_said(ctl({"resume", "web"}), "Domain 'web' resumed\n");
    check_said(ctl({"domstate", "web"}), "running\n");
    REQUIRE(ctl({"suspend", "web"}).status == 0);
    check_said(ctl({"destroy", "web"}), "Domain 'web' destroyed\n");
    check_said(ctl({"domstats", "--state", "web"}), "Domain: 'web'\n  state.state=5\n  state.reason=0\n");
}

TEST_CASE("what a domain uses is told in virsh's form") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    const std::string idle = "error: Requested operation is not valid: domain is not running\n";
    check_error(ctl({"cpu-stats", "web"}), "error: Failed to retrieve CPU statistics for domain 'web'\n" + idle);
    check_error(ctl({"dommemstat", "web"}), "error: Failed to get memory statistics for domain web\n" + idle);
    check_error(ctl({"domblkstat", "web"}), "error: Failed to get block stats web \n" + idle);
    check_error(ctl({"domifstat", "web", "eth0"}), "error: Failed to get interface stats web eth0\n" + idle);
    REQUIRE(ctl({"start", "web"}).status == 0);

    const std::string total = "Total:\n\tcpu_time #.# seconds\n\tuser_time #.# seconds\n\tsystem_time #.# seconds\n";
    const Outcome all = ctl({"cpu-stats", "web"});
    std::string cpus;
    for (long i = 0; i < ::sysconf(_SC_NPROCESSORS_CONF); ++i) cpus += "CPU#:\n\tcpu_time #.# seconds\n";
    CHECK(all.status == 0);
    if (all.err.empty()) {
        CHECK(shape(all.out) == cpus + total + "\n");
        const Outcome first = ctl({"cpu-stats", "web", "--start", "0", "--count", "1"});
        CHECK(first.out.starts_with("CPU0:\n\tcpu_time     "));
        CHECK(shape(first.out) == "CPU#:\n\tcpu_time #.# seconds\n\n");
        CHECK(ctl({"cpu-stats", "web", "--count", "0"}).out == "\n");
        CHECK(ctl({"cpu-stats", "web", "--count", "100000"}).out.find(" CPUs available to show\nCPU0:\n") < 20);
        CHECK(ctl({"cpu-stats", "web", "--start", "100000"})
                  .err.starts_with("error: Start CPU 100000 is out of range (min: 0, max: "));
    } else {
        CHECK(all.err.starts_with("warning: no per-CPU stats available"));
        CHECK(shape(all.out) == total + "\n");
        CHECK(ctl({"cpu-stats", "web", "--start", "0"})
                  .err.starts_with("error: Failed to retrieve CPU statistics for domain 'web'\nerror: Operation not "
                                   "supported: no per-CPU"));
    }
    CHECK(shape(ctl({"cpu-stats", "web", "--total"}).out) == total + "\n");
    check_error(ctl({"cpu-stats", "web", "--start", "-1"}), "error: Invalid value for start CPU\n");
    check_error(ctl({"cpu-stats", "web", "--count", "-1"}), "error: Invalid value for number of CPUs to show\n");
    check_error(ctl({"cpu-stats", "web", "--start", "1x"}),
                "error: Numeric value '1x' for <start> option is malformed or out of range\n");

    const Outcome memory = ctl({"dommemstat", "web"});
    CHECK(memory.status == 0);
    CHECK(memory.out.starts_with("actual 50000\nunused "));
    CHECK(has(memory.out, "\navailable 50000\n"));
    CHECK(has(memory.out, "\nrss "));

    CHECK(shape(ctl({"domblkstat", "web"}).out) == " rd_req #\n rd_bytes #\n wr_req #\n wr_bytes #\n\n");
    CHECK(shape(ctl({"domblkstat", "web", "--human"}).out) ==
          "Device: \n number of read operations: #\n number of bytes read: #\n number of write operations: #\n "
          "number of bytes written: #\n\n");
    for (const char* wrong : {"no-such-disk", "/dev/null", "/", "999999:0", "8:0x", "1:1:1"}) {
        check_error(ctl({"domblkstat", "web", wrong}), std::string{"error: Failed to get block stats web "} + wrong +
                                                           "\nerror: invalid argument: invalid path: " + wrong + "\n");
    }
    check_error(ctl({"domifstat", "web", "eth7"}),
                "error: Failed to get interface stats web eth7\nerror: invalid argument: "
                "'eth7' is not a known interface\n");

    const Outcome stats = ctl({"domstats", "web"});
    CHECK(stats.out.starts_with("Domain: 'web'\n  state.state=1\n  state.reason=1\n  cpu.time="));
    CHECK(has(stats.out, "\n  balloon.maximum=50000\n  balloon.current=50000\n"));
    CHECK(has(stats.out, "\n  net.count=0\n"));
    CHECK(shape(ctl({"domstats", "--cpu-total"}).out) == "Domain: 'web'\n cpu.time=#\n cpu.user=#\n cpu.system=#\n\n");
    REQUIRE(ctl({"define", ctl.describe("idle")}).status == 0);
    const std::string two =
        "Domain: 'idle'\n  state.state=5\n  state.reason=0\n\n"
        "Domain: 'web'\n  state.state=1\n  state.reason=1\n";
    check_said(ctl({"domstats", "idle", "web", "--state"}), two);
    check_said(ctl({"domstats", "--list-active", "--list-inactive", "--state", "idle", uuid1}), two);
    check_said(ctl({"domstats", "--list-transient"}), "");
    check_said(ctl({"domstats", "--list-shutoff"}), "Domain: 'idle'\n  state.state=5\n  state.reason=0\n");

    if (run({"virsh", "--version"}).status != 0) CAISSON_SKIP("virsh is missing");
    const auto theirs = [](Words words) {
        words.insert(words.begin(), {"virsh", "-c", "test:///default"});
        return shape(run(words).out);
    };
    CHECK(theirs({"cpu-stats", "test", "--total"}) == total + "\n");
    CHECK(theirs({"domblkstat", "test", "vda"})
              .starts_with("vda rd_req #\nvda rd_bytes #\nvda wr_req #\nvda wr_bytes #\n"));
    CHECK(run({"virsh", "help", "cpu-stats"}).out == ctl({"help", "cpu-stats"}).out);
    CHECK(run({"virsh", "help", "domifstat"}).out == ctl({"help", "domifstat"}).out);
    CHECK(run({"virsh", "help", "domblkstat"}).out == ctl({"help", "domblkstat"}).out);
}

TEST_CASE("an interface's traffic is told by its name outside, inside and by its address, as the domain sees it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const caisson::Namespace network = caisson::Namespace::create(caisson::NamespaceKind::net);
    const auto scope = network.enter_scoped();
    const LeavesNothing nothing;
    std::optional<caisson::Bridge> bridge;
    try {
        bridge = caisson::Bridge::create("br0", {*caisson::IpPrefix::parse("10.9.0.1/24")});
    } catch (const caisson::Error& e) {
        CAISSON_SKIP(e.what());
    }
    Domains ctl;
    ctl.root().write("/pings",
                     "#!/bin/busybox sh\nbusybox ip addr add 10.9.0.2/24 dev eth0\n"
                     "busybox ping -c 1 10.9.0.1 >/dev/null\necho pinged\nexec sleep 1000\n",
                     0755);
    const std::string mac = "52:54:00:11:22:33";
    REQUIRE(ctl({"define", ctl.describe("web", {}, 50000, "/pings",
                                        "<interface type='bridge'><source bridge='br0'/><mac address='" + mac +
                                            "'/><target dev='outer'/></interface>")})
                .status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    {
        OnTerminal console{ctl.words({"console", "web"})};
        REQUIRE(console.shows("pinged"));
        console.type("\x1d");
        CHECK(console.wait() == 0);
    }
    const auto value = [&](const std::string& interface, const std::string& field) {
        const std::string text = ctl({"domifstat", "web", interface}).out;
        const std::size_t at = text.find(interface + " " + field + " ");
        return at == std::string::npos ? -1 : std::atol(text.c_str() + at + interface.size() + field.size() + 2);
    };
    for (const std::string& name : {std::string{"outer"}, std::string{"eth0"}, mac}) {
        CAPTURE(name);
        CHECK(shape(ctl({"domifstat", "web", name}).out).find("_bytes #") != std::string::npos);
        // A ping and its answer are 98 bytes each.
        CHECK(value(name, "rx_bytes") >= 98);
        CHECK(value(name, "tx_bytes") >= 98);
        CHECK(value(name, "rx_errs") == 0);
    }
    const std::string stats = ctl({"domstats", "--interface"}).out;
    CHECK(has(stats, "  net.count=1\n  net.0.name=outer\n  net.0.rx.bytes="));
}

TEST_CASE("relative directories count from where caissonctl is run") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web");
    const auto there = [&](const std::string& words) {
        return run({"sh", "-c", "cd \"$1\" && \"$0\" --state state --run run " + words, CAISSON_EXAMPLES "/caissonctl",
                    ctl.file("")});
    };
    REQUIRE(there("define " + file).status == 0);
    REQUIRE(there("start web").status == 0);
    check_said(there("domstate web"), "running\n");
    check_said(ctl({"domstate", "web"}), "running\n");
}

TEST_CASE("a domain that ends while it is asked about is told about as one that does not run") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    for (int i = 0; i < 10; ++i) {
        REQUIRE(ctl({"start", "web"}).status == 0);
        Background destroy{ctl.words({"destroy", "web"})};
        for (const char* verb : {"dominfo", "dumpxml", "domuuid", "dominfo", "dumpxml"}) {
            const Outcome outcome = ctl({verb, "web"});
            CHECK(outcome.status == 0);
            CHECK(outcome.err == "");
        }
        CHECK(destroy.wait().status == 0);
    }
}

TEST_CASE("when the helper is killed, the domain is shut off and can be started again") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    const auto helper = caisson::Process::open(std::stoi(id_of(ctl, "web")));
    REQUIRE(helper.signal(SIGKILL));
    REQUIRE(helper.ended_within(10'000));
    check_said(ctl({"domstate", "web"}), "shut off\n");
    check_said(ctl({"start", "web"}), "Domain 'web' started\n");
}
