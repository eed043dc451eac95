// caissonctl's verbs: what they print, how they exit and what they leave, compared with virsh.
#include "support/doctest.hpp"

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/domains.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

const std::string uuid1 = "8369f1ac-7e46-e869-4ca5-759d51478066";
const std::string uuid2 = "0d0cd1a2-93c0-4a6f-9dd0-6a7a1b2c3d4e";

/// The inode of a file; 0 if it is not there.
struct stat status_of(const std::string& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) st.st_ino = 0;
    return st;
}

}  // namespace

TEST_CASE("wrong use and unknown domains are told in virsh's own words and exit status") {
    const LeavesNothing nothing;
    const Domains ctl;
    const struct {
        Words words;
        std::string error;
        bool verb_ran;
    } cases[] = {
        {{"frob"}, "unknown command: 'frob'", false},
        {{"DESTROY", "x"}, "unknown command: 'DESTROY'", false},
        {{"define"}, "command 'define' requires <file> option", false},
        {{"start"}, "command 'start' requires <domain> option", false},
        {{"define", "a", "b"}, "unexpected data 'b'", false},
        {{"list", "--", "x"}, "unexpected data 'x'", false},
        {{"list", "-x"}, "unexpected data '-x'", false},
        {{"list", ""}, "unexpected data ''", false},
        {{"start", "--bogus", "x"}, "command 'start' doesn't support option --bogus", false},
        {{"list", "--all=3"}, "invalid '=' after option --all", false},
        {{"list", "--all", "--all"}, "option --all already seen", false},
        {{"start", "x", "--domain", "y"}, "option --domain already seen", false},
        {{"dominfo", "--domain"}, "expected syntax: --domain <string>", false},
        {{"define", "--file"}, "expected syntax: --file <string>", false},
        {{"dominfo", ""}, "Failed to get option 'domain': Option argument is empty", true},
        {{"define", ""}, "Failed to get option 'file': Option argument is empty", true},
        {{"define", "no-such-file"}, "Failed to open file 'no-such-file': No such file or directory", true},
        {{"create", "no-such-file"}, "Failed to open file 'no-such-file': No such file or directory", true},
        {{"define", "/tmp"}, "Failed to read file '/tmp': Is a directory", true},
        {{"undefine", "x"}, "failed to get domain 'x'", true},
        {{"start", "x"}, "failed to get domain 'x'", true},
        {{"destroy", "x"}, "failed to get domain 'x'", true},
        {{"shutdown", "x"}, "failed to get domain 'x'", true},
        {{"console", "x"}, "failed to get domain 'x'", true},
        {{"dominfo", "x"}, "failed to get domain 'x'", true},
        {{"domstate", "x"}, "failed to get domain 'x'", true},
        {{"domid", "x"}, "failed to get domain 'x'", true},
        {{"domname", "x"}, "failed to get domain 'x'", true},
        {{"domuuid", "x"}, "failed to get domain 'x'", true},
        {{"dumpxml", "x"}, "failed to get domain 'x'", true},
        {{"dumpxml", "--inactive", uuid1}, "failed to get domain '" + uuid1 + "'", true},
        {{"domstate", "4000000"}, "failed to get domain '4000000'", true},
        {{"cpu-stats"}, "command 'cpu-stats' requires <domain> option", false},
        {{"cpu-stats", "x", "--start"}, "expected syntax: --start <number>", false},
        {{"cpu-stats", "x", "0", "1", "2"}, "unexpected data '2'", false},
        {{"domifstat", "x"}, "command 'domifstat' requires <interface> option", false},
        {{"domstats", "--vcpu=1"}, "invalid '=' after option --vcpu", false},
        {{"domstats", ""}, "failed to get domain ''", true},
        {{"domstats", "--state", "x", "y"}, "failed to get domain 'x'", true},
        {{"cpu-stats", "x"}, "failed to get domain 'x'", true},
        {{"domblkstat", "x"}, "failed to get domain 'x'", true},
        {{"domifstat", "x", "eth0"}, "failed to get domain 'x'", true},
        {{"dommemstat", "x"}, "failed to get domain 'x'", true},
        {{"resume", "x"}, "failed to get domain 'x'", true},
        {{"suspend", "x"}, "failed to get domain 'x'", true},
        {{"start", "../x"}, "failed to get domain '../x'", true},
        {{"autostart", "x"}, "failed to get domain 'x'", true},
        {{"desc", "x"}, "failed to get domain 'x'", true},
        {{"desc", "x", "--live", "--current"}, "Options --current and --live are mutually exclusive", true},
        {{"domrename", "x"}, "command 'domrename' requires <new-name> option", false},
        {{"domrename", "x", "y"}, "failed to get domain 'x'", true},
        {{"metadata", "x"}, "command 'metadata' requires <uri> option", false},
        {{"metadata", "x", "y"}, "failed to get domain 'x'", true},
        {{"metadata", "x", "u", "--config", "--current"},
         "Options --current and --config are mutually exclusive",
         true},
        {{"metadata", "x", "u", "--set", "<a/>", "--remove"},
         "Options --remove and --set are mutually exclusive",
         true},
        {{"-c"}, "option '-c'/'--connect' requires an argument", false},
        {{"event"}, "one of --list, --all, or --event <type> is required", true},
        {{"event", "--all", "--event", "lifecycle"}, "Options --all and --event are mutually exclusive", true},
        {{"event", "--all", "--list"}, "Options --list and --all are mutually exclusive", true},
        {{"event", "--event", "bogus"}, "unknown event type bogus", true},
        {{"event", "--all", "--timeout", "0"},
         "Numeric value '0' for <timeout> option is malformed or out of range",
         true},
        {{"event", "x", "--all"}, "failed to get domain 'x'", true},
        {{"list", "--name", "--table"}, "Options --table and --name are mutually exclusive", true},
        {{"list", "--id", "--uuid", "--table"}, "Options --table and --uuid are mutually exclusive", true},
        {{"--", "list", "x"}, "unexpected data 'x'", false},
        {{"-qq", "frob"}, "unknown command: 'frob'", false},
        {{"-"}, "unknown command: '-'", false},
        {{"-qx", "list"}, "unsupported option '-x'. See --help.", false},
        {{"--frob", "list"}, "unsupported option '--frob'. See --help.", false},
        {{"help", "frob"}, "command or command group 'frob' doesn't exist", true},
    };
    const bool virsh = run({"virsh", "--version"}).status == 0;
    for (const auto& c : cases) {
        CAPTURE(c.error);
        const Outcome ours = ctl(c.words);
        CHECK(ours.status == 1);
        CHECK(ours.out == (c.verb_ran ? "\n" : ""));
        CHECK(ours.err == "error: " + c.error + "\n");
        if (!virsh) continue;
        Words words{"virsh", "-c", "test:///default"};
        words.insert(words.end(), c.words.begin(), c.words.end());
        const Outcome theirs = run(words);
        CHECK(ours.status == theirs.status);
        CHECK(ours.out == theirs.out);
        CHECK(ours.err == theirs.err);
    }
    CHECK(status_of(ctl.state()).st_ino == 0);
}

TEST_CASE("the options before the verb are checked, and what needs no domain works without any") {
    const LeavesNothing nothing;
    const Domains ctl;
    CHECK(run({CAISSON_EXAMPLES "/caissonctl", "--bogus", "list"}).err ==
          "error: unsupported option '--bogus'. See --help.\n");
    CHECK(run({CAISSON_EXAMPLES "/caissonctl", "--state"}).err == "error: option '--state' requires an argument\n");
    CHECK(run({CAISSON_EXAMPLES "/caissonctl"}).status == 1);
    const Outcome version = run({CAISSON_EXAMPLES "/caissonctl", "--version"});
    CHECK(version.status == 0);
    CHECK(version.out == CAISSON_VERSION "\n");
    CHECK(has(run({CAISSON_EXAMPLES "/caissonctl", "--help"}).out, "--state DIR"));
    check_said(ctl({"help", "dominfo"}),
               "  NAME\n    dominfo - domain information\n\n  SYNOPSIS\n    dominfo <domain>\n\n  DESCRIPTION\n    "
               "Returns basic information about the domain.\n\n  OPTIONS\n    [--domain] <string>  domain name, id or "
               "uuid\n\n");
    CHECK(ctl({"list", "--help"}).status == 0);
    check_said(ctl({"list"}), " Id   Name   State\n--------------------\n");
    CHECK(ctl({"--quiet", "list"}).out == "");
    CHECK("Grouped commands:\n\n" + ctl({"help", "domain"}).out == ctl({"help"}).out);
    for (const char* verb : {"blkiotune", "autostart", "autostart-all", "console",  "create",  "desc",    "domrename",
                             "metadata",  "define",    "destroy",       "domid",    "dominfo", "domname", "domstate",
                             "domuuid",   "dumpxml",   "help",          "list",     "memtune", "reboot",  "schedinfo",
                             "security",  "setmaxmem", "setmem",        "shutdown", "start",   "undefine"}) {
        CHECK(has(ctl({"help"}).out, std::string{"\n    "} + verb + " "));
        CHECK(ctl({"help", verb}).status == 0);
    }
}

TEST_CASE("a domain is defined, told about and forgotten") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web", uuid1);
    const Outcome defined = ctl({"define", file});
    CHECK(defined.status == 0);
    CHECK(defined.out == "Domain 'web' defined from " + file + "\n\n");
    CHECK(defined.err ==
          "warning: domain 'web' has no <idmap>: root inside is root outside; 'define --idmap auto' gives "
          "it ids of its own\n");
    CHECK((status_of(ctl.state()).st_mode & 07777) == 0700);
    CHECK((status_of(ctl.state() + "/web.xml").st_mode & 07777) == 0600);

    const std::string table = " Id   Name   State\n-----------------------\n -    web    shut off\n";
    check_said(ctl({"list", "--inactive"}), table);
    check_said(ctl({"list", "--all"}), table);
    check_said(ctl({"list"}), " Id   Name   State\n--------------------\n");
    CHECK(ctl({"-q", "list", "--all"}).out == " -   web   shut off\n");
    check_said(ctl({"list", "--all", "--uuid", "--name"}), uuid1 + " web\n");
    check_said(ctl({"list", "--all", "--id"}), "");
    check_said(ctl({"list", "--all", "--transient", "--name"}), "");
    check_said(ctl({"dominfo", "web"}),
               "Id:             -\nName:           web\nUUID:           " + uuid1 +
                   "\nOS Type:        exe\nState:          shut off\nCPU(s):         1\nMax memory:     50000 KiB\n"
                   "Used memory:    50000 KiB\nPersistent:     yes\nAutostart:      disable\nManaged save:   no\n");
    check_said(ctl({"domstate", uuid1}), "shut off\n");
    check_said(ctl({"domid", "web"}), "-\n");
    check_said(ctl({"domname", uuid1}), "web\n");
    check_said(ctl({"domuuid", "web"}), uuid1 + "\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "<memory unit='KiB'>50000</memory>"));

    check_error(
        ctl({"destroy", "web"}),
        "error: Failed to destroy domain 'web'\nerror: Requested operation is not valid: domain is not running\n");
    check_error(
        ctl({"shutdown", "web"}),
        "error: Failed to shutdown domain 'web'\nerror: Requested operation is not valid: domain is not running\n");
    check_error(ctl({"console", "web"}), "error: The domain is not running\n");

    check_said(ctl({"undefine", "web"}), "Domain 'web' has been undefined\n");
    check_said(ctl({"list", "--all"}), " Id   Name   State\n--------------------\n");
}

TEST_CASE("the tables of several domains are virsh's") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    for (const char* name : {"web", "Database", "averyveryverylongname"}) {
        REQUIRE(ctl({"define", ctl.describe(name)}).status == 0);
    }
    check_said(ctl({"list", "--all"}),
               " Id   Name                    State\n----------------------------------------\n"
               " -    averyveryverylongname   shut off\n -    Database                shut off\n"
               " -    web                     shut off\n");
}

TEST_CASE("a definition is replaced by one with the same uuid, and by no other") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    REQUIRE(ctl({"define", ctl.describe("web", uuid1, 60000)}).status == 0);
    CHECK(has(ctl({"dumpxml", "web"}).out, "60000"));

    std::string file = ctl.describe("web", uuid2);
    const std::string taken = "error: operation failed: domain 'web' already exists with uuid " + uuid1 + "\n";
    check_error(ctl({"define", file}), "error: Failed to define domain from " + file + "\n" + taken);
    check_error(ctl({"create", file}), "error: Failed to create domain from " + file + "\n" + taken);
    file = ctl.describe("web");
    check_error(ctl({"define", file}), "error: Failed to define domain from " + file + "\n" + taken);
    file = ctl.describe("other", uuid1);
    check_error(ctl({"define", file}), "error: Failed to define domain from " + file +
                                           "\nerror: operation failed: domain 'web' is already defined with uuid " +
                                           uuid1 + "\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "60000"));
}

TEST_CASE("a uuid is made up at the first define and kept") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    const std::string uuid = ctl({"domuuid", "web"}).out;
    CHECK(uuid.size() == 36 + 2);
    CHECK(ctl({"domuuid", "web"}).out == uuid);
    CHECK(has(ctl({"dominfo", "web"}).out, "UUID:           " + uuid.substr(0, 37)));
}

TEST_CASE("a definition that was put under another name is not taken for it") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    REQUIRE(run({"cp", ctl.state() + "/web.xml", ctl.state() + "/copy.xml"}).status == 0);
    const std::string error = "error: " + ctl.state() +
                              "/copy.xml: it defines the domain 'web'\nerror: a definition's file has the domain's "
                              "name: remove it, and define the document\n";
    check_error(ctl({"start", "copy"}), error);
    check_error(ctl({"dumpxml", "copy"}), error);
    CHECK(has(ctl({"domstate", "web"}).out, "shut off"));
    CHECK(ctl({"undefine", "copy"}).status == 0);
    CHECK(ctl({"domuuid", "web"}).status == 0);
}

TEST_CASE("a document that cannot be taken is named with its line, and nothing is written") {
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.write("bad.xml", "<domain type='lxc'>\n<name>../etc</name>\n</domain>\n");
    const Outcome outcome = ctl({"define", file});
    CHECK(outcome.status == 1);
    CHECK(outcome.err.starts_with("error: Failed to define domain from " + file + "\nerror: " + file + ":2: "));
    CHECK(status_of(ctl.state()).st_ino == 0);

    const Outcome pipe = run({"sh", "-c", "echo '<domain' | \"$0\" --state \"$1\" define /dev/stdin",
                              CAISSON_EXAMPLES "/caissonctl", ctl.state()});
    CHECK(has(pipe.err, "error: /dev/stdin:1: "));
}

TEST_CASE("a state directory that cannot be trusted or made is refused with a remedy") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web");
    REQUIRE(::mkdir(ctl.state().c_str(), 0777) == 0);
    REQUIRE(::chmod(ctl.state().c_str(), 0777) == 0);
    CHECK(
        has(ctl({"define", file}).err, "error: state directory '" + ctl.state() +
                                           "': Operation not permitted: it must be yours, and nobody else's to write"));
    REQUIRE(::rmdir(ctl.state().c_str()) == 0);
    const Outcome outcome = run({CAISSON_EXAMPLES "/caissonctl", "--state", ctl.state() + "/a/b", "define", file});
    CHECK(has(outcome.err, "No such file or directory: make the directory above it"));
}

TEST_CASE("a file among the definitions that is none is told about, and does not stand in anybody's way") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", uuid1)}).status == 0);
    const std::string text = ctl({"-q", "dumpxml", "web"}).out;
    (void)ctl.write("state/copied.xml", text);
    (void)ctl.write("state/broken.xml", "<domain");
    REQUIRE(::symlink("/etc/passwd", (ctl.state() + "/link.xml").c_str()) == 0);
    REQUIRE(::mkfifo((ctl.state() + "/pipe.xml").c_str(), 0600) == 0);
    REQUIRE(::mkdir((ctl.state() + "/folder.xml").c_str(), 0700) == 0);

    check_said(ctl({"-q", "list", "--all", "--name"}), "broken\ncopied\nfolder\nlink\npipe\nweb");
    check_said(ctl({"domname", uuid1}), "web\n");
    CHECK(has(ctl({"dumpxml", "broken"}).err, ctl.state() + "/broken.xml:1: "));
    for (const char* name : {"folder", "link", "pipe"}) {
        CAPTURE(name);
        CHECK(has(ctl({"dumpxml", name}).err, ctl.state() + "/" + name + ".xml'"));
    }
    const std::string file = ctl.describe("folder");
    check_error(ctl({"define", file}), "error: Failed to define domain from " + file + "\nerror: write '" +
                                           ctl.state() + "/folder.xml': Is a directory\n");
    CHECK(status_of(ctl.state() + "/.new").st_ino == 0);
    for (const char* name : {"broken", "copied", "link", "pipe", "web"}) {
        check_said(ctl({"undefine", name}), std::string{"Domain '"} + name + "' has been undefined\n");
    }
    CHECK(has(ctl({"undefine", "folder"}).err, "folder.xml': Is a directory"));
}

TEST_CASE("of many definitions at once with one name, one wins and the others are told so") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web");
    std::vector<std::unique_ptr<Background>> running;
    for (int i = 0; i < 8; ++i) running.push_back(std::make_unique<Background>(ctl.words({"define", file})));
    int won = 0;
    for (const auto& process : running) {
        const Outcome outcome = process->wait();
        if (outcome.status == 0) ++won;
        else CHECK(has(outcome.out, "error: operation failed: domain 'web' already exists with uuid "));
    }
    CHECK(won == 1);
    running.clear();
    for (int i = 0; i < 8; ++i) {
        const std::string other = ctl.describe("web" + std::to_string(i));
        running.push_back(std::make_unique<Background>(ctl.words({"define", other})));
    }
    for (const auto& process : running) CHECK(process->wait().status == 0);
    CHECK(ctl({"-q", "list", "--all", "--name"}).out == "web\nweb0\nweb1\nweb2\nweb3\nweb4\nweb5\nweb6\nweb7\n");
}

TEST_CASE("a define that is killed at any of its system calls leaves the old definition or the new one") {
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string old_file = ctl.describe("web", uuid1, 50000);
    REQUIRE(ctl({"define", old_file}).status == 0);
    const std::string old_text = ctl({"dumpxml", "web"}).out;
    const std::string new_file = ctl.describe("web", uuid1, 60000);
    std::string new_text = old_text;
    for (std::size_t at = 0; (at = new_text.find("50000", at)) != std::string::npos;) new_text.replace(at, 5, "60000");

    bool ended = false;
    int olds = 0;
    int news = 0;
    int calls = 0;
    for (; !ended; ++calls) {
        const Words words = ctl.words({"-q", "define", new_file});
        const pid_t pid = ::fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            std::vector<char*> argv;
            for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
            argv.push_back(nullptr);
            (void)::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
            ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            ::execv(argv[0], argv.data());
            ::_exit(127);
        }
        int status = 0;
        REQUIRE(::waitpid(pid, &status, 0) == pid);
        // Two stops, at the entry and the exit, for each call that is let through.
        for (int stop = 0; stop < 2 * calls && !ended; ++stop) {
            if (::ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr) != 0 && errno == EIO) CAISSON_SKIP("no ptrace here");
            REQUIRE(::waitpid(pid, &status, 0) == pid);
            ended = WIFEXITED(status);
        }
        if (!ended) {
            ::kill(pid, SIGKILL);
            while (::waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status)) {
            }
        }
        const std::string text = ctl({"dumpxml", "web"}).out;
        REQUIRE((text == old_text || text == new_text));
        text == old_text ? ++olds : ++news;
        REQUIRE(ctl({"-q", "list", "--all", "--name"}).out == "web\n");
        REQUIRE(ctl({"define", old_file}).status == 0);
    }
    MESSAGE("killed at " << calls - 1 << " system calls: " << olds << " times the old one, " << news << " the new one");
    CHECK(olds > 10);
    CHECK(news > 0);
}
