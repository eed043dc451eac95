// Family C: what can be written through procfs, sysfs and the kernel's knobs, by the start and by the container.
#include <caisson/container.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

std::string content(const std::string& path) {
    std::string text;
    return detail::sys::read_file(AT_FDCWD, path.c_str(), text) ? text : "cannot read it";
}

/// The host's settings, but those that change by themselves.
std::map<std::string, std::string> settings() {
    namespace fs = std::filesystem;
    const std::set<std::string> restless{"random",      "ns_last_pid",  "sched_domain", "file-nr",     "inode-nr",
                                         "inode-state", "dentry-state", "nr",           "dirty_bytes", "cad_pid"};
    std::map<std::string, std::string> all;
    for (const char* top : {"/proc/sys/kernel", "/proc/sys/fs", "/proc/sys/vm", "/proc/sys/user"}) {
        for (auto it = fs::recursive_directory_iterator{top}; it != fs::recursive_directory_iterator{}; ++it) {
            if (restless.contains(it->path().filename().string())) {
                it.disable_recursion_pending();
                continue;
            }
            std::ifstream file{it->path()};
            std::string text;
            if (it->is_regular_file() && std::getline(file, text, '\0')) all[it->path().string()] = text;
        }
    }
    return all;
}

std::vector<std::string> agents() {
    std::vector<std::string> found;
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        if (hierarchy.v2() || hierarchy.places.empty()) continue;
        const std::string top = hierarchy.places.front().mount_point;
        found.push_back(top + ": " + content(top + "/release_agent") + content(top + "/notify_on_release"));
    }
    return found;
}

std::string lines(const std::vector<std::string>& all) {
    std::string text;
    for (const std::string& line : all) text += line + "\n";
    return text;
}

/// What the namespace of that kind of a running container has for a setting.
std::string setting_in(const Container& container, NamespaceKind kind, const std::string& path) {
    const Namespace there = container.open_namespace(kind);
    const Namespace::Scope scope = there.enter_scoped();
    return content(path);
}

}  // namespace

TEST_CASE("CVE-2025-52881, CVE-2019-16884: what is mounted over a setting is not what the start writes to") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    for (const bool whole : {false, true}) {
        ContainerSpec spec = shell(root, "echo re\"\"ady; read line");
        spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
        spec.sysctls = {{"kernel.shmmax", "65536"}, {"net.ipv4.ip_forward", "1"}};
        spec.oom_score_adj = 500;
        if (whole) {
            spec.mounts.push_back(MountSpec::bind(canary.path(), "/proc"));
            // Those of the start that are to protect /proc find the canary.
            spec.masked_paths = spec.read_only_paths = {};
        } else {
            for (const char* path : {"/proc/sys/kernel/shmmax", "/proc/sys/net/ipv4/ip_forward",
                                     "/proc/self/oom_score_adj", "/proc/sys/kernel/hostname"}) {
                spec.mounts.push_back(MountSpec::bind(canary / "file", path));
            }
        }
        Container container = Container::start(spec);
        std::string said;
        for (char c = 0; !contains(said, "ready") && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
        CHECK(setting_in(container, NamespaceKind::ipc, "/proc/sys/kernel/shmmax") == "65536\n");
        CHECK(setting_in(container, NamespaceKind::net, "/proc/sys/net/ipv4/ip_forward") == "1\n");
        CHECK(content("/proc/" + std::to_string(container.init().pid()) + "/oom_score_adj") == "500\n");
    }
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2025-52881: a /proc that is swapped for a tree of files gets no setting, nor does the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string before = content("/proc/sys/kernel/core_pattern");
    for (const char* file : {"/fake/sys/kernel/shmmax", "/fake/self/attr/exec", "/fake/self/oom_score_adj",
                             "/fake/sys/kernel/core_pattern", "/fake/sysrq-trigger"}) {
        (void)root.write(file, "fake\n", 0666);
    }
    replace_by_link(root / "/proc2", "/fake");
    ContainerSpec spec = shell(root, "cat /proc/sys/kernel/shmmax");
    spec.sysctls = {{"kernel.shmmax", "65536"}};
    int set = 0;
    int refused = 0;
    {
        const Swapper attacker{root / "/proc", root / "/proc2"};
        const int times = rounds(40, 500);
        for (int i = 0; i < times; ++i) {
            const std::string text = attempt(spec);
            CAPTURE(text);
            // Once it has started, what the name leads to is the attacker's to say.
            const bool started = text == "65536\n" || text == "fake\n";
            CHECK((started || text.starts_with("container 'test': mount 'proc' on '/proc' (in the child): ")));
            ++(started ? set : refused);
        }
    }
    CHECK(set > 0);
    CHECK(refused > 0);
    CHECK(root.read("/fake/sys/kernel/shmmax") == "fake\n");
    CHECK(root.read("/fake/self/attr/exec") == "fake\n");
    CHECK(content("/proc/sys/kernel/core_pattern") == before);
}

TEST_CASE("CVE-2022-0492: no way leads from a container to a program that the kernel runs for control groups") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    const std::string before = lines(agents());
    root.write("/agent", "#!/bin/sh\necho ran > " + canary.path() + "/file\n", 0755);
    const std::string agent = root / "/agent";
    root.write("/attack",
               "mkdir -p /tmp/c\n"
               "for o in rdma pids memory devices cpu freezer cpuset blkio none,name=systemd none,name=x; do\n"
               "  mount -t cgroup -o $o none /tmp/c && echo mounted $o || continue\n"
               "  find /tmp/c -name release_agent | while read f; do echo " +
                   agent +
                   " > $f && echo wrote $f; done\n"
                   "  mkdir /tmp/c/x && echo 1 > /tmp/c/x/notify_on_release\n"
                   "  umount /tmp/c\n"
                   "done 2>/dev/null\n"
                   "mount -t cgroup2 none /tmp/c 2>/dev/null && echo mounted v2 && umount /tmp/c\n"
                   "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release); do\n"
                   "  ( echo 1 > $f ) 2>/dev/null && echo wrote $f\ndone\n");
    root.copy(program("payload"), "/payload");
    for (const bool user : {true, false}) {
        ContainerSpec spec = with_user(shell(root, "sh /attack; /payload agents " + agent), user);
        CHECK(attempt(spec) == "no namespaces\n");
        // Without the filter there are namespaces, and still nothing to write to.
        spec.seccomp.profile = SeccompProfile::none;
        CHECK(attempt(spec) == "tried\n");
    }
    // Even who may mount finds his own part of each hierarchy alone, where there is no such file.
    ContainerSpec mighty = shell(root, "sh /attack;  echo done");
    mighty.capabilities = CapabilitySet::all();
    mighty.seccomp.profile = SeccompProfile::none;
    const std::string text = attempt(mighty);
    CAPTURE(text);
    CHECK(contains(text, "done\n"));
    CHECK_FALSE(contains(text, "wrote"));
    CHECK(lines(agents()) == before);
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2022-0811: settings that are not a container's own, and values that hide others, are refused") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const auto before = settings();
    // A name that means a setting of the machine comes with the value that it has, so that a library that takes it does
    // no harm.
    const std::vector<std::string> machine{
        "kernel.core_pattern",   "kernel/core_pattern",  "kernel.pid_max",        "kernel.randomize_va_space",
        "kernel.panic",          "vm.overcommit_memory", "vm.swappiness",         "fs.suid_dumpable",
        "fs.protected_symlinks", "fs.file-max",          "debug.exception-trace", "abi.vsyscall32",
        "dev.tty.legacy_tiocsti"};
    const std::vector<std::pair<std::string, std::string>> hostile{
        {"kernel.hostname", "x"},  // has a field of its own
        {"kernel.shm_rmid_forced+kernel.core_pattern", "0"},
        {"kernel.shm_rmid_forced=1+kernel.core_pattern", "0"},
        {"kernel.shm_rmid_forced", "0\nkernel.core_pattern=x"},
        {"kernel.shm_rmid_forced", ""},
        {"kernel.shm_rmid_forced", std::string{"0\0x", 3}},
        {"kernel.shmmax/../core_pattern", "core"},
        {"kernel.shmmax...core_pattern", "core"},
        {"kernel.shm*", "1"},
        {"kernel.shm", "1"},
        {"kernel.shmmax ", "1"},
        {" kernel.shmmax", "1"},
        {"kernel.shmmax\n", "1"},
        {std::string{"kernel.shmmax\0x", 15}, "1"},
        {"kernel..shmmax", "1"},
        {".kernel.shmmax", "1"},
        {"/kernel/shmmax", "1"},
        {"kernel", "1"},
        {"../../1/oom_score_adj", "0"},
        {"net", "1"},
        {"net.", "1"},
        {"net.ipv4.ip_forward", content("/proc/sys/net/ipv4/ip_forward").substr(0, 1)},  // there is no such namespace
        {"fs.mqueue", "1"},
        {"fs.binfmt_misc.register", ":"},
        {"", "1"},
        {".", "1"},
        {"..", "1"},
    };
    CHECK(machine.size() + hostile.size() >= 40);
    for (const bool user : {true, false}) {
        const auto refused = [&](const std::string& name, const std::string& value) {
            ContainerSpec spec = with_user(shell(root, "true"), user);
            spec.namespaces = spec.namespaces.without(NamespaceKind::net);
            spec.sysctls = {{name, value}};
            const std::string text = error_of(spec);
            CAPTURE(text);
            CHECK(text.starts_with("container 'test': sysctl"));
            return text;
        };
        for (const auto& [name, value] : hostile) (void)refused(name, value);
        for (const std::string& name : machine) {
            std::string path = "/proc/sys/" + name;
            std::replace(path.begin() + 10, path.end(), '.', '/');
            std::string value = content(path);
            while (value.ends_with('\n')) value.pop_back();
            CHECK(contains(refused(name, value), "sysctls[0]: " + detail::quote(name) + " is the whole machine's"));
        }
    }
    CHECK(settings() == before);
}

TEST_CASE(
    "CVE-2026-23953: arguments and variables with any bytes reach the command as they are, and nothing else does") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::vector<std::string> values{"a\nlxc.hook.pre-start = /bin/sh\n",
                                          "]]>",
                                          "<!-- x -->",
                                          "</initenv><init>/bin/sh</init>",
                                          "&lt;&#10;",
                                          "a=b=c",
                                          "\"quoted\" 'twice'",
                                          "$(id)`id`",
                                          "%s%n",
                                          "\x1b]0;x\x07",
                                          "\xff\xfe\x80",
                                          "",
                                          " ",
                                          "\\n\\0",
                                          "\r\n"};
    ContainerSpec spec = shell(root, "echo re\"\"ady; read line");
    std::string arguments;
    for (const std::string& word : spec.command) arguments += word + '\0';
    std::string variables;
    for (std::size_t i = 0; i < values.size(); ++i) {
        spec.command.push_back(values[i]);
        arguments += values[i] + '\0';
        std::string name = "V" + std::to_string(i);
        if (i % 2 == 0) name += "\n.<>&\"' x";
        spec.environment.emplace_back(name, values[i]);
        variables += name + "=" + values[i] + '\0';
    }
    spec.environment.emplace_back("PATH", "/bin");
    variables += std::string{"PATH=/bin"} + '\0';
    Container container = Container::start(spec);
    std::string said;
    for (char c = 0; !contains(said, "ready") && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    const std::string proc = "/proc/" + std::to_string(container.init().pid());
    CHECK(content(proc + "/cmdline") == arguments);
    const std::string environment = content(proc + "/environ");
    std::string ours;
    for (const char* first : {"TERM=linux", "HOME=/", "container=caisson"}) ours += first + std::string(1, '\0');
    CHECK(environment == ours + variables);
    for (const char* name : {"a\nb", "a b", "]]>", "a=b", "a\x1b[0m", "-a", "a/b"}) {
        ContainerSpec bad = shell(root, "true");
        bad.hostname = name;
        CHECK(contains(error_of(bad), "hostname: " + detail::quote(name) + " is no host name"));
    }
    for (const std::string& text : {std::string{"a\0b", 3}, std::string{"\0", 1}}) {
        ContainerSpec bad = shell(root, "true");
        bad.command.push_back(text);
        CHECK(contains(error_of(bad), "command[3]: it holds a NUL byte"));
        bad = shell(root, "true");
        bad.environment = {{"A", text}};
        CHECK(contains(error_of(bad), "environment[0]: it holds a NUL byte"));
    }
}

TEST_CASE("GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p: masked paths show nothing, and read-only ones take nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    std::string masked;
    for (const std::string& path : ContainerSpec::default_masked_paths()) masked += " " + path;
    std::string read_only;
    for (const std::string& path : ContainerSpec::default_read_only_paths()) read_only += " " + path;
    for (const bool user : {true, false}) {
        for (const bool net : {true, false}) {
            ContainerSpec spec = with_user(
                shell(root,
                      "for p in" + masked +
                          "; do [ -e $p ] || continue; [ -d $p ] && ls -A $p || cat $p; n=$((n+1)); "
                          "( : >> $p ) 2>&- && echo wrote $p; ( : > $p/x ) 2>&- && echo made in $p; done; for p in" +
                          read_only +
                          "; do [ -e $p ] || continue; find $p -type f | while read f; do ( : >> $f ) 2>&- && echo "
                          "wrote $f; done; done; [ $n -gt 3 ] && echo looked"),
                user);
            if (!net) spec.namespaces = spec.namespaces.without(NamespaceKind::net);
            CHECK(attempt(spec) == "looked\n");
        }
    }
}

TEST_CASE("masks and read-only paths cannot be taken away from inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::string script =
        "umount /proc/kcore && echo unmounted; umount -l /proc/keys && echo unmounted; umount /proc/sys && echo "
        "unmounted; "
        "umount -l /proc && echo unmounted; mount -o remount,rw,bind /proc/sys && echo remounted; "
        "mount -t proc proc /mnt && echo mounted; mount --bind /proc /mnt && echo bound; "
        "mount -t sysfs sysfs /mnt && echo mounted; "
        "unshare -Urmpf sh -c 'mount -t proc proc /mnt && echo mounted; umount /proc/kcore && echo unmounted'; echo "
        "tried";
    std::filesystem::create_directory(root / "/mnt");
    for (const bool user : {true, false}) {
        const std::string text = attempt(with_user(shell(root, "exec 2>/dev/null; " + script), user));
        CHECK(text == "tried\n");
    }
}

TEST_CASE("what of /proc, /sys and /dev can be written to is on a list that somebody has looked at") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.copy(program("payload"), "/payload");
    std::set<std::string> allowed;
    std::ifstream list{CAISSON_TEST_WRITABLE};
    for (std::string line; std::getline(list, line);) {
        if (!line.empty() && line[0] != '#') allowed.insert(line);
    }
    REQUIRE(allowed.size() > 10);
    for (const bool user : {true, false}) {
        ContainerSpec spec = with_user(shell(root, ""), user);
        spec.command = {"/payload", "writable"};
        std::istringstream found{attempt(spec)};
        std::string more;
        int seen = 0;
        for (std::string path; std::getline(found, path); ++seen) {
            const bool own = path.starts_with("/proc/self/") && (contains(path, "/fd/") || contains(path, "/task/"));
            if (!own && !allowed.contains(path)) more += path + "\n";
        }
        CAPTURE(user);
        CHECK(more == "");
        CHECK(seen > 10);
    }
}
