// The same root and program under caisson and under other programs for containers: what the kernel tells inside is
// compared, and each difference has its reason in differences.txt.
#include <caisson/container.hpp>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/command.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// "mount /proc" -> "proc rw,nosuid": what can be compared, without numbers that differ from start to start.
using Facts = std::map<std::string, std::string>;

/// The words of `text` with single spaces between.
std::string squeezed(const std::string& text) {
    std::istringstream in{text};
    std::string all;
    for (std::string word; in >> word;) all += (all.empty() ? "" : " ") + word;
    return all;
}

void add_status(Facts& facts, const std::string& line) {
    static const std::set<std::string> wanted{"Umask",
                                              "Uid",
                                              "Gid",
                                              "Groups",
                                              "SigBlk",
                                              "SigIgn",
                                              "SigCgt",
                                              "CapInh",
                                              "CapPrm",
                                              "CapEff",
                                              "CapBnd",
                                              "CapAmb",
                                              "Seccomp",
                                              "Threads",
                                              "NSpid",
                                              "NSsid",
                                              "NSpgid",
                                              "Pid",
                                              "NoNewPrivs",
                                              "Speculation_Store_Bypass",
                                              "SpeculationIndirectBranch"};
    const std::size_t colon = line.find(':');
    if (wanted.contains(line.substr(0, colon)))
        facts["status " + line.substr(0, colon)] = squeezed(line.substr(colon + 1));
}
void add_limit(Facts& facts, const std::string& line) {
    if (line.starts_with("Limit ") || line.size() < 26) return;
    // Which line it is ends at a fixed column; the unit is the same for all.
    std::istringstream in{line.substr(26)};
    std::string soft, hard;
    in >> soft >> hard;
    facts["limit " + squeezed(line.substr(0, 26))] = soft + " " + hard;
}
void add_id_map(Facts& facts, const std::string& section, const std::string& line) {
    std::istringstream in{line};
    std::string inside, outside, count;
    in >> inside >> outside >> count;
    facts[section + " " + inside] = (inside == outside ? "the same " : "others ") + count;
}
void add_group(Facts& facts, const std::string& line) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    const std::string controllers = line.substr(first + 1, second - first - 1);
    facts["cgroup " + (controllers.empty() ? "v2" : controllers)] =
        line.substr(second + 1) == "/" ? "/" : "below the host's";
}
void add_mount(Facts& facts, const std::string& line) {
    std::istringstream in{line};
    std::string id, parent, device, root, point, options, word, shared;
    in >> id >> parent >> device >> root >> point >> options;
    while (in >> word && word != "-") shared += " " + word.substr(0, word.find(':'));
    std::string type;
    in >> type;
    // The root's file system is the machine's.
    facts["mount " + point] = (point == "/" ? "" : type + " ") + options + shared;
}

Facts parse(const std::string& text) {
    Facts facts;
    std::istringstream in{text};
    std::string section;
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with('@')) {
            section = line.substr(1);
        } else if (section == "status") {
            add_status(facts, line);
        } else if (section == "limits") {
            add_limit(facts, line);
        } else if (section == "uid_map" || section == "gid_map") {
            add_id_map(facts, section, line);
        } else if (section == "setgroups") {
            facts["setgroups"] = line;
        } else if (section == "cgroup") {
            add_group(facts, line);
        } else if (section == "mountinfo") {
            add_mount(facts, line);
        } else if (section == "ns") {
            const std::string name = line.substr(0, line.find(' '));
            char host[64]{};
            (void)!::readlink(("/proc/self/ns/" + name).c_str(), host, sizeof host - 1);
            facts["namespace " + name] = line.substr(name.size() + 1) == host ? "the host's" : "its own";
        } else if (section == "writable") {
            facts["writable " + line] = "yes";
        }
    }
    // Where the program ended before its last line, what is missing would look as if it were not there.
    if (section != "end") facts.clear();
    return facts;
}

/// A line of differences.txt: PEER | FACT | CAISSON'S | PEER'S | REASON, the first four as patterns of the shell.
struct Explained {
    std::string peer, fact, ours, theirs, reason;
    bool used = false;
};

std::vector<Explained> explanations() {
    std::vector<Explained> all;
    std::ifstream file{CAISSON_TEST_DIFFERENCES};
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line.starts_with('#')) continue;
        std::istringstream in{line};
        Explained e;
        for (std::string* field : {&e.peer, &e.fact, &e.ours, &e.theirs, &e.reason}) {
            std::getline(in, *field, '|');
            *field = squeezed(*field);
        }
        CAPTURE(line);
        REQUIRE_FALSE(e.reason.empty());
        all.push_back(e);
    }
    REQUIRE_FALSE(all.empty());
    return all;
}

/// Each difference that has no reason, as a line for differences.txt that lacks only that.
std::string unexplained(const std::string& peer, const Facts& ours, const Facts& theirs) {
    std::vector<Explained> known = explanations();
    std::set<std::string> names;
    for (const Facts* facts : {&ours, &theirs}) {
        for (const auto& [name, value] : *facts) names.insert(name);
    }
    std::string missing;
    for (const std::string& name : names) {
        const auto value = [&](const Facts& facts) {
            const auto found = facts.find(name);
            return found == facts.end() ? std::string{"-"} : found->second;
        };
        const std::string a = value(ours);
        const std::string b = value(theirs);
        if (a == b) continue;
        const auto fits = [](const std::string& pattern, const std::string& text) {
            return ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
        };
        const auto reason = std::find_if(known.begin(), known.end(), [&](const Explained& e) {
            return fits(e.peer, peer) && fits(e.fact, name) && fits(e.ours, a) && fits(e.theirs, b);
        });
        if (reason == known.end()) missing += peer + " | " + name + " | " + a + " | " + b + " | \n";
        else reason->used = true;
    }
    for (const Explained& e : known) {
        if (!e.used && ::fnmatch(e.peer.c_str(), peer.c_str(), 0) == 0 && e.peer != "*") {
            MESSAGE("no such difference on this machine: ", e.peer, " | ", e.fact, " | ", e.ours, " | ", e.theirs);
        }
    }
    return missing;
}

/// A root with busybox, and the program that looks around in it.
class LookedAt {
public:
    LookedAt() { root_.copy(program("look_around"), "/look_around"); }
    [[nodiscard]] const std::string& root() const noexcept { return root_.path(); }
    [[nodiscard]] Facts under_caisson() const {
        const Fd output{::memfd_create("output", MFD_CLOEXEC)};
        ContainerSpec spec = shell(root_, "");
        spec.command = {"/look_around"};
        spec.console.reset();
        spec.stdio.out = output.get();
        Container container = Container::start(spec);
        CHECK(container.wait().success());
        std::string text(1 << 20, '\0');
        text.resize(static_cast<std::size_t>(::pread(output.get(), text.data(), text.size(), 0)));
        return parse(text);
    }
    void compare_with(const std::string& peer, const Words& command) const {
        const Outcome outcome = caisson_test::run(command);
        CAPTURE(outcome.err);
        const Facts theirs = parse(outcome.out);
        REQUIRE_FALSE(theirs.empty());
        const Facts ours = under_caisson();
        REQUIRE_FALSE(ours.empty());
        CHECK(unexplained(peer, ours, theirs) == "");
    }

private:
    TestRoot root_;
};

bool installed(const char* path) {
    return ::access(path, X_OK) == 0;
}

/// Of all the groups and directories that a peer makes for a container.
std::string name_of_test() {
    return "caisson-test-" + std::to_string(::getpid());
}

}  // namespace

TEST_CASE("each difference to what bubblewrap gives has its reason") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!installed("/usr/bin/bwrap")) CAISSON_SKIP("bubblewrap is not installed");
    const LeavesNothing nothing;
    const LookedAt looked;
    looked.compare_with("bwrap", {"/usr/bin/bwrap", "--unshare-all", "--bind", looked.root(), "/", "--proc", "/proc",
                                  "--dev", "/dev", "--uid", "0", "--gid", "0", "/look_around"});
}

TEST_CASE("each difference to what crun gives has its reason") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!installed("/usr/bin/crun")) CAISSON_SKIP("crun is not installed");
    const LeavesNothing nothing;
    const LookedAt looked;
    const TestDirectory work;
    // crun's own defaults, but for the root and the command.
    REQUIRE(
        caisson_test::run(Words{"/bin/sh", "-c", "cd " + work.path() + " && mkdir v1 && /usr/bin/crun spec"}).status ==
        0);
    std::ostringstream config;
    config << std::ifstream{work / "config.json"}.rdbuf();
    std::string text = config.str();
    const auto replace = [&](const std::string& from, const std::string& to) {
        const std::size_t at = text.find(from);
        CAPTURE(from);
        REQUIRE(at != std::string::npos);
        text.replace(at, from.size(), to);
    };
    replace("\"terminal\": true", "\"terminal\": false");
    replace("\"readonly\": true", "\"readonly\": false");
    replace("\"path\": \"rootfs\"", "\"path\": \"" + looked.root() + "\"");
    replace("\"sh\"", "\"/look_around\"");
    std::ofstream{work / "config.json"} << text;
    // It refuses a machine with both versions of control groups: in a mount namespace of its own it sees the first.
    const std::string view =
        "if [ -e /sys/fs/cgroup/memory/tasks ]; then mount -t tmpfs none v1 && for t in /sys/fs/cgroup/*/tasks; do "
        "d=${t%/tasks}; mkdir v1/${d##*/}; mount --bind $d v1/${d##*/}; done; mount --rbind v1 /sys/fs/cgroup; fi; ";
    looked.compare_with(
        "crun", {"/usr/bin/unshare", "-m", "/bin/sh", "-c",
                 "cd " + work.path() + "; " + view + "exec /usr/bin/crun --root state --cgroup-manager=cgroupfs run " +
                     name_of_test()});
}

TEST_CASE("each difference to what LXC gives has its reason") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!installed("/usr/bin/lxc-execute")) CAISSON_SKIP("lxc is not installed");
    const LeavesNothing nothing;
    const LookedAt looked;
    const TestDirectory work;
    REQUIRE(caisson_test::run(Words{"/bin/mkdir", work / name_of_test()}).status == 0);
    // What the templates of its distribution put into each container; but no profile, which may not be loaded.
    std::ofstream{work / name_of_test() + "/config"} << "lxc.uts.name = test\nlxc.rootfs.path = dir:" << looked.root()
                                                     << "\nlxc.mount.auto = proc:mixed sys:mixed cgroup:mixed\n"
                                                        "lxc.cap.drop = mac_admin mac_override sys_time sys_module "
                                                        "sys_rawio\nlxc.autodev = 1\nlxc.net.0.type = empty\n"
                                                        "lxc.apparmor.profile = unconfined\n";
    looked.compare_with("lxc", {"/usr/bin/lxc-execute", "-P", work.path(), "-n", name_of_test(), "--", "/look_around"});
}
