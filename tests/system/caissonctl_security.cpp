// caissonctl: what holds a domain, and ids of its own for it.
#include "support/doctest.hpp"

#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <unistd.h>

#include "support/domains.hpp"
#include "support/machine.hpp"

using namespace caisson_test;

namespace {

std::string content(const std::string& path) {
    std::ifstream file{path};
    return {std::istreambuf_iterator<char>{file}, {}};
}
/// The first id outside of the map in a definition.
std::string target_of(const Domains& ctl, const std::string& name) {
    const std::string text = content(ctl.state() + "/" + name + ".xml");
    const std::size_t at = text.find("<uid start='0' target='");
    if (at == std::string::npos) return "no map: " + text;
    const std::size_t begin = at + std::string{"<uid start='0' target='"}.size();
    const std::string target = text.substr(begin, text.find('\'', begin) - begin);
    const std::string rest = " start='0' target='" + target + "' count='65536'/>\n";
    return has(text, "<idmap>\n    <uid" + rest + "    <gid" + rest + "  </idmap>\n") ? target : text;
}

}  // namespace

TEST_CASE("what virsh does not have is refused in its manner") {
    const LeavesNothing nothing;
    const Domains ctl;
    const auto error = [&](const Words& words) {
        const Outcome outcome = ctl(words);
        CHECK(outcome.status == 1);
        return outcome.err;
    };
    CHECK(error({"define", "a", "--idmap"}) == "error: expected syntax: --idmap <string>\n");
    CHECK(error({"define", "a", "auto"}) == "error: unexpected data 'auto'\n");
    CHECK(error({"define", "a", "--idmap", "all"}) == "error: Unsupported id map 'all': it must be 'auto'\n");
    CHECK(error({"define", "a", "--idmap="}) == "error: Failed to get option 'idmap': Option argument is empty\n");
    CHECK(error({"create", "a", "--idmap", "auto"}) == "error: command 'create' doesn't support option --idmap\n");
    CHECK(error({"security"}) == "error: command 'security' requires <domain> option\n");
    CHECK(error({"security", "x"}) == "error: failed to get domain 'x'\n");
    const std::string help = ctl({"help", "define"}).out;
    CHECK(has(help, "SYNOPSIS\n    define <file> [--idmap <string>]\n"));
    CHECK(has(help, "    --idmap <string>  'auto': ids of its own for the domain"));
    CHECK(has(ctl({"help", "security"}).out, "    security - what holds a running domain\n"));
}

TEST_CASE("a definition gets ids of its own, and keeps them") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string file = ctl.describe("web", "8369f1ac-7e46-e869-4ca5-759d51478066");
    const Outcome first = ctl({"define", "--idmap", "auto", file});
    CHECK(first.status == 0);
    CHECK(first.err == "");
    const std::string target = target_of(ctl, "web");
    CAPTURE(target);
    const std::string last = std::to_string(std::stoul(target) + 65535);
    const std::string said = "Domain 'web' defined from " + file + "\nUsers and groups 0-65535 inside are " + target +
                             "-" + last + " outside\n\n";
    CHECK(first.out == said);
    // As it was, also in another document.
    CHECK(ctl({"define", file, "--idmap=auto"}).out == said);
    CHECK(ctl({"--quiet", "define", "--idmap", "auto", file}).out == "");
    CHECK(target_of(ctl, "web") == target);
    if (run({"virt-xml-validate", "--version"}).status != 127) {
        CHECK(run({"virt-xml-validate", ctl.state() + "/web.xml", "domain"}).status == 0);
    }
    // A document without a map takes it away.
    CHECK(has(ctl({"define", file}).err, "warning: domain 'web' has no <idmap>: "));
    CHECK_FALSE(has(content(ctl.state() + "/web.xml"), "idmap"));
    // A document with one says so itself.
    const std::string mapped = ctl.describe("web", {}, 50000, "/sbin/init", {},
                                            "<idmap><uid start='0' target='100000' count='65536'/>"
                                            "<gid start='0' target='100000' count='65536'/></idmap>");
    CHECK(ctl({"undefine", "web"}).status == 0);
    CHECK(ctl({"define", mapped}).err == "");
    check_error(ctl({"define", "--idmap", "auto", mapped}),
                "error: Failed to define domain from " + mapped +
                    "\nerror: the document has an <idmap>: take it out, or leave --idmap auto out\n");
}

TEST_CASE("no two definitions have the same ids, however many are made at once") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    std::vector<std::unique_ptr<Background>> running;
    std::vector<std::string> names;
    for (int i = 0; i < 12; ++i) {
        names.push_back("web" + std::to_string(i));
        const std::string file = ctl.describe(names.back());
        running.push_back(std::make_unique<Background>(ctl.words({"define", "--idmap", "auto", file})));
    }
    for (auto& one : running) CHECK(one->wait().status == 0);
    std::set<std::string> targets;
    for (const std::string& name : names) CHECK(targets.insert(target_of(ctl, name)).second);
}

TEST_CASE("where ids cannot be given, the reason is told and nothing is defined") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    const std::string rootless =
        ctl.write("rootless.xml",
                  "<domain type='lxc'><name>rootless</name><memory>1</memory><os><type>exe</type>"
                  "</os></domain>");
    check_error(ctl({"define", "--idmap", "auto", rootless}),
                "error: Failed to define domain from " + rootless +
                    "\nerror: the domain has the host's root, which cannot be id-mapped: add a <filesystem> with "
                    "<target dir='/'/>\n");
    // All are taken by one definition that somebody has written.
    const std::string all = ctl.describe("all", {}, 50000, "/sbin/init", {},
                                         "<idmap><uid start='0' target='2013265920' count='134217728'/>"
                                         "<gid start='0' target='100000' count='65536'/></idmap>");
    REQUIRE(ctl({"define", all}).status == 0);
    const std::string file = ctl.describe("web");
    check_error(
        ctl({"define", "--idmap", "auto", file}),
        "error: no id map is free\nerror: undefine a domain that has one, or write an <idmap> into the document\n");
    REQUIRE(ctl({"undefine", "all"}).status == 0);
    // What a damaged definition has is not known.
    const std::string damaged = ctl.write("state/damaged.xml", "<domain>");
    const Outcome outcome = ctl({"define", "--idmap", "auto", file});
    CHECK(outcome.status == 1);
    CHECK(has(outcome.err, damaged + ":1: "));
    CHECK(::access((ctl.state() + "/web.xml").c_str(), F_OK) != 0);
    CHECK(ctl({"undefine", "damaged"}).status == 0);
}

TEST_CASE("a domain with ids of its own runs with them, its files not chowned, and `security` tells it") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    ctl.root().write("/sbin/marks", "#!/bin/busybox sh\necho mine >/mark && exec sleep 1000\n", 0755);
    const std::string file = ctl.describe("web", {}, 50000, "/sbin/marks");
    REQUIRE(ctl({"define", "--idmap", "auto", file}).status == 0);
    check_error(
        ctl({"security", "web"}),
        "error: Failed to get the security report of domain 'web'\nerror: Requested operation is not valid: domain is "
        "not running\n");
    const Outcome started = ctl({"start", "web"});
    CAPTURE(started.err);
    REQUIRE(started.status == 0);
    const std::string target = target_of(ctl, "web");
    const Outcome report = ctl({"security", "web"});
    CAPTURE(report.out);
    CHECK(report.status == 0);
    CHECK(report.err == "");
    CHECK(report.out.starts_with("Process:        "));
    CHECK(has(report.out, ", user 0 (" + target + " outside), group 0 (" + target + " outside)\n"));
    CHECK(has(report.out, "\nUser ids:       0-65535 are " + target + "-"));
    CHECK(has(report.out, "\nMemory:         at most 51200000 bytes\n"));
    CHECK(has(report.out, "\nWeaker than the default:\n"));
    CHECK(has(report.out, "\n  - new privileges can be had: set-user-ID programs and file capabilities\n"));
    CHECK(has(report.out, "\n  - at most 51200000 bytes of memory\n"));
    CHECK_FALSE(has(report.out, "root inside is root outside"));
    CHECK(report.out.ends_with("\n\n"));
    // It is written to the disk as root's.
    for (int i = 0; i < 500 && ctl.root().read("/mark").empty(); ++i) ::usleep(10'000);
    struct stat st {};
    REQUIRE(::stat((ctl.root() / "/mark").c_str(), &st) == 0);
    CHECK(st.st_uid == 0);

    // The ids stay taken as long as it runs, whatever has become of its definition.
    REQUIRE(ctl({"undefine", "web"}).status == 0);
    for (int i = 0; i < 3; ++i) {
        REQUIRE(ctl({"define", "--idmap", "auto", ctl.describe("other")}).status == 0);
        CHECK(target_of(ctl, "other") != target);
        REQUIRE(ctl({"undefine", "other"}).status == 0);
    }
    CHECK(ctl({"destroy", "web"}).status == 0);
    CHECK(ctl({"security", "web"}).err == "error: failed to get domain 'web'\n");
}

TEST_CASE("a domain without a map is told to be root outside") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (TestRoot::missing() != nullptr) CAISSON_SKIP(TestRoot::missing());
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"create", ctl.describe("web")}).status == 0);
    const Outcome report = ctl({"-q", "security", "web"});
    CAPTURE(report.out);
    CHECK(has(report.out, "\nUser ids:       the host's\n"));
    CHECK(has(report.out, "\nWeaker than the default:\n  - no user namespace: root inside is root outside\n"));
    CHECK(has(report.out, "  - capability sys_admin can be had: masks and read-only paths can be undone"));
    CHECK(has(report.out, "\n  - no network namespace: addresses, ports and abstract sockets are the host's\n"));
}
