// Labels of AppArmor and SELinux: what a command may do with one, and who can still end it. They run in full where the
// kernel has AppArmor, as on Debian's own: see tests/vm/qemu.sh.
#include <caisson/container.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/probe.hpp>
#include <caisson/sweep.hpp>

#include <cstdlib>
#include <fstream>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

std::string content(const char* file) {
    std::string text;
    return detail::sys::read_file(AT_FDCWD, file, text) ? text : std::string{};
}
bool runs_with_selinux() {
    return content("/proc/filesystems").find("\tselinuxfs\n") != std::string::npos;
}

/// A profile of AppArmor's, loaded as long as the object lives.
class Profile {
public:
    /// Why none can be loaded here; null where one can.
    [[nodiscard]] static const char* missing() {
        if (::geteuid() != 0) return "this needs root";
        if (TestRoot::missing() != nullptr) return TestRoot::missing();
        const std::string own = content("/proc/thread-self/attr/apparmor/current");
        if (own.empty()) return "this kernel runs without AppArmor";
        if (!own.starts_with("unconfined")) return "a profile holds this program";
        if (::access("/sys/kernel/security/apparmor", F_OK) != 0) return "securityfs is not mounted";
        if (::access(parser, X_OK) != 0) return "apparmor_parser is missing: install apparmor";
        return nullptr;
    }
    /// Allows files and capabilities, and what `rules` say.
    explicit Profile(const std::string& rules, const std::string& suffix = "")
        : name_{"caisson-test-" + std::to_string(::getpid()) + suffix} {
        std::ofstream{file()} << "profile " << name_ << " flags=(attach_disconnected) {\n  file,\n  capability,\n"
                              << rules << "}\n";
        REQUIRE(parse("--replace") == 0);
    }
    Profile(const Profile&) = delete;
    Profile& operator=(const Profile&) = delete;
    ~Profile() { CHECK(parse("--remove") == 0); }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

private:
    static constexpr char parser[] = "/usr/sbin/apparmor_parser";
    [[nodiscard]] std::string file() const { return directory_ / "profile"; }
    [[nodiscard]] int parse(const std::string& action) const {
        return std::system((parser + (" --skip-cache --quiet " + action + " ") + file()).c_str());
    }
    TestDirectory directory_;
    std::string name_;
};

ContainerSpec labelled(const TestRoot& root, const std::string& label, const std::string& script) {
    ContainerSpec spec = shell(root, script);
    spec.security_label = "apparmor:" + label;
    return spec;
}
/// What a container has said, up to and with "ready".
std::string said_by(Container& container) {
    std::string said;
    for (char c = 0; said.find("ready") == std::string::npos && ::read(container.console()->fd(), &c, 1) == 1;) {
        if (c != '\r') said += c;
    }
    return said;
}

}  // namespace

TEST_CASE("the command has its profile, which refuses what it denies, and the report tells it") {
    if (const char* reason = Profile::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("secret/key", "key");
    root.write("open", "open\n");
    const Profile profile{"  signal (receive) peer=unconfined,\n  deny /secret/** r,\n"};
    const std::string held = profile.name() + " (enforce)";
    ContainerSpec spec = labelled(root, profile.name(),
                                  "cat /proc/self/attr/current /proc/1/attr/apparmor/current; cat /open /secret/key; "
                                  "echo ready; read line");
    const auto check = [&](const std::string& label_of_init) {
        CAPTURE(spec.init);
        CAPTURE(spec.no_new_privileges);
        CAPTURE(spec.has_user_namespace());
        Container container = Container::start(spec);
        CHECK(said_by(container) ==
              held + "\n" + label_of_init + "\nopen\ncat: can't open '/secret/key': Permission denied\nready");
        CHECK(container.security_report().security_label == held);
        CHECK(container.kill() == ExitStatus::killed(SIGKILL));
    };
    check(held);
    spec.no_new_privileges = false;
    check(held);
    // The library's own init is not the command.
    spec.init = true;
    check("unconfined");
    spec.no_new_privileges = true;
    spec.namespaces = NamespaceKind::mount | NamespaceKind::pid;
    check("unconfined");
}

TEST_CASE("a label that the kernel does not know is refused by name, and nothing is left") {
    if (const char* reason = Profile::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = labelled(root, "caisson-no-such", "true");
    CHECK(outcome(spec) ==
          "container 'test': security label 'apparmor:caisson-no-such' (in the child): No such file or directory: no "
          "such profile is loaded: load it with "
          "apparmor_parser(8)");
    spec.security_label = "apparmor:unconfined";
    CHECK(outcome(spec) == "ok");
    if (runs_with_selinux()) CAISSON_SKIP("this kernel runs with SELinux as well");
    spec.security_label = "selinux:system_u:system_r:container_t:s0";
    CHECK(outcome(spec) ==
          "container 'test': security_label: 'selinux:system_u:system_r:container_t:s0', but this kernel runs without "
          "SELinux: leave it empty, or start the kernel with the module");
}

TEST_CASE("a context that no loaded policy has is refused by name, and nothing is left") {
    if (::geteuid() != 0) CAISSON_SKIP("this needs root");
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    if (!runs_with_selinux()) CAISSON_SKIP("this kernel runs without SELinux");
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root, "true");
    spec.security_label = "selinux:nobody_u:nobody_r:no_such_t:s0";
    if (content("/proc/thread-self/attr/current").find(':') == std::string::npos) {
        CHECK(outcome(spec) ==
              "container 'test': security_label: 'selinux:nobody_u:nobody_r:no_such_t:s0', but SELinux has no policy: "
              "leave it empty, or load one");
    } else {
        CHECK(outcome(spec) ==
              "container 'test': security label 'selinux:nobody_u:nobody_r:no_such_t:s0' (in the child): Invalid "
              "argument: the policy that is loaded has no such context");
    }
    spec.security_label = "apparmor:web";
    if (!content("/proc/thread-self/attr/apparmor/current").empty()) CAISSON_SKIP("this kernel runs with AppArmor");
    CHECK(outcome(spec) ==
          "container 'test': security_label: 'apparmor:web', but this kernel runs without AppArmor: leave it empty, or "
          "start the kernel with the module");
}

TEST_CASE("a command whose profile lets no signal in is ended all the same: by its host, its keeper and by sweep()") {
    if (const char* reason = Profile::missing()) CAISSON_SKIP(reason);
    if (!probe().has(Feature::clone_into_cgroup)) CAISSON_SKIP("there is no cgroup v2 hierarchy");
    const LeavesNothing nothing;
    const TestRoot root;
    const Profile profile{""};
    const ContainerSpec spec = labelled(root, profile.name(), "sleep 1000 & sleep 1000");
    Container container = Container::start(spec);
    try {
        (void)container.signal(SIGTERM);
        FAIL("the signal has arrived");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} ==
              "container 'test': signal 15 to process " + std::to_string(container.init().pid()) +
                  ": Permission denied: a policy keeps it from this process: with AppArmor, its profile needs 'signal "
                  "(receive) peer=unconfined,'");
    }
    CHECK(container.kill() == ExitStatus::killed(SIGKILL));
    CHECK_FALSE(container.signal(SIGKILL));

    Container orphan = Container::start(spec);
    CHECK(Process::open(keeper_of(orphan)).signal(SIGKILL));
    CHECK(orphan.wait() == ExitStatus::killed(SIGKILL));

    const auto start_and_wait = [&](const Host& self) -> std::string {
        const Container mortal = Container::start(spec);
        self.say(std::to_string(mortal.init().pid()) + "\n" + std::to_string(keeper_of(mortal)) + "\n");
        for (;;) ::pause();
    };
    Host host{start_and_wait};
    const Process init = Process::open(std::stoi(host.line()));
    host.kill();
    CHECK(init.ended_within(5000));
    CHECK(groups_vanish(host.pid()));

    // The kernel forgets who is to die with whom where a label comes into force.
    Host other{start_and_wait};
    const Process last = Process::open(std::stoi(other.line()));
    const Process keeper = Process::open(std::stoi(other.line()));
    other.kill(SIGSTOP);
    CHECK(keeper.signal(SIGKILL));
    other.kill();
    (void)other.status();
    CHECK(keeper.ended_within(5000));
    (void)sweep({.run_directory = {}, .links = false});
    CHECK(last.ended_within(5000));
    CHECK(groups_vanish(other.pid()));
}

TEST_CASE("a host that a profile holds gives its containers that one, or another where it may") {
    if (const char* reason = Profile::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    const Profile inner{"  signal (receive),\n"};
    const std::string start = "  mount,\n  umount,\n  pivot_root,\n  signal,\n  ptrace,\n  network,\n";
    const auto started_by_host = [](const Profile& host, const ContainerSpec& spec) {
        return in_host([&] {
            return detail::sys::write_file(AT_FDCWD, "/proc/thread-self/attr/apparmor/current",
                                           "changeprofile " + host.name())
                       ? outcome(spec)
                       : std::string{"no such profile"};
        });
    };
    ContainerSpec spec = shell(root, "grep -q '^caisson-test-.*-host (enforce)' /proc/self/attr/current");
    ContainerSpec other = shell(root, "grep -q '^caisson-test-[0-9]* (enforce)' /proc/self/attr/current");
    other.security_label = "apparmor:" + inner.name();
    {
        const Profile host{start, "-host"};
        CHECK(started_by_host(host, spec) == "ok");
        CHECK(started_by_host(host, other) == "container 'test': security label '" + other.security_label +
                                                  "' (in the child): Permission denied: the policy that holds the "
                                                  "host's program does not let it");
    }
    const Profile host{start + "  change_profile -> " + inner.name() + ",\n", "-host"};
    CHECK(
        started_by_host(host, other) ==
        "container 'test': command '/bin/sh' (in the child): Operation not permitted: where a policy holds the host's "
        "program, no_new_privileges keeps the command from another label: set it to false");
    other.no_new_privileges = false;
    CHECK(started_by_host(host, other) == "ok");
}
