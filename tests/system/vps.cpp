// Whole systems in the profile `system`: an init boots, a user logs in on the console, and the machine is switched off.
#include <caisson/container.hpp>
#include <caisson/probe.hpp>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

/// A machine and what a user sees on its console. The other end is held open, as an init opens it only now and then.
class Machine {
public:
    explicit Machine(const ContainerSpec& spec)
        : container_{Container::start(spec)}, held_{container_.console()->open_peer()} {}

    /// True once `text` has come, behind what was waited for before; false after two minutes.
    bool sees(std::string_view text) {
        const std::int64_t deadline = detail::monotonic_ms() + 120'000;
        for (;;) {
            const std::size_t at = seen_.find(text, from_);
            if (at != std::string::npos) {
                from_ = at + text.size();
                return true;
            }
            if (detail::monotonic_ms() > deadline || !read(200)) return false;
        }
    }
    void type(std::string_view text) {
        REQUIRE(::write(container_.console()->fd(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }
    /// How it ended; nothing after a minute.
    std::optional<ExitStatus> end() {
        const std::int64_t deadline = detail::monotonic_ms() + 60'000;
        while (detail::monotonic_ms() < deadline) {
            if (const auto status = container_.try_wait()) return status;
            (void)read(100);
        }
        return std::nullopt;
    }
    [[nodiscard]] const std::string& seen() const noexcept { return seen_; }

private:
    bool read(int milliseconds) {
        pollfd p{container_.console()->fd(), POLLIN, 0};
        if (::poll(&p, 1, milliseconds) <= 0) return !container_.try_wait();
        char buffer[4096];
        const ssize_t n = ::read(p.fd, buffer, sizeof buffer);
        if (n > 0) seen_.append(buffer, static_cast<std::size_t>(n));
        else if (!container_.try_wait()) held_ = container_.console()->open_peer();
        return n > 0 || !container_.try_wait();
    }
    Container container_;
    Fd held_;
    std::string seen_{};
    std::size_t from_ = 0;
};

ContainerSpec system_in(const std::string& root) {
    ContainerSpec spec = ContainerSpec::system();
    spec.name = "machine";
    spec.root = root;
    spec.uuid = "8369f1ac-7e46-e869-4ca5-759d51478066";
    return spec;
}

/// Busybox's init, with a shell that asks for a key on the console.
struct BusyboxSystem : TestRoot {
    BusyboxSystem() {
        write("etc/inittab",
              "::sysinit:/bin/mount -t tmpfs -o size=64k none /var\n::respawn:-/bin/sh\n"
              "::ctrlaltdel:/bin/reboot\n::shutdown:/bin/umount /var\n");
        write("root/.profile", "PS1='ready> '\n");
        REQUIRE(::mkdir((*this / "sbin").c_str(), 0755) == 0);
        REQUIRE(::symlink("../bin/busybox", (*this / "sbin/init").c_str()) == 0);
    }
};

}  // namespace

TEST_CASE("busybox's init boots to a shell on the console, mounts, and switches the machine off") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const BusyboxSystem root;
    ContainerSpec spec = system_in(root.path());
    if (!probe().has(Feature::clone_into_cgroup)) spec.cgroup_mount = CgroupMount::none;
    Machine machine{spec};
    INFO(machine.seen());
    REQUIRE(machine.sees("# "));
    machine.type("echo pid-$$ $(tty) $(grep -c ' /var tmpfs ' /proc/mounts) $container_uuid\n");
    CHECK(machine.sees(" /dev/pts/0 1 8369f1ac-7e46-e869-4ca5-759d51478066"));
    machine.type("hostname other && hostname; mkdir /tmp/d && mount --bind /etc /tmp/d && ls /tmp/d\n");
    CHECK(machine.sees("other"));
    CHECK(machine.sees("inittab"));
    machine.type("poweroff\n");
    const auto status = machine.end();
    REQUIRE(status);
    CHECK(status->request() == ExitStatus::Request::poweroff);
}

TEST_CASE("busybox's init that reboots asks for a restart") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const BusyboxSystem root;
    ContainerSpec spec = system_in(root.path());
    if (!probe().has(Feature::clone_into_cgroup)) spec.cgroup_mount = CgroupMount::none;
    Machine machine{spec};
    REQUIRE(machine.sees("# "));
    machine.type("reboot\n");
    const auto status = machine.end();
    REQUIRE(status);
    CHECK(status->request() == ExitStatus::Request::restart);
}

TEST_CASE("Debian's systemd boots to a login on the console, without a failed unit, and powers off") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const char* const root = std::getenv("CAISSON_DEBIAN_ROOT");
    if (root == nullptr) CAISSON_SKIP("CAISSON_DEBIAN_ROOT names no root: the suite `long` makes one");
    const LeavesNothing nothing;
    ContainerSpec spec = system_in(root);
    spec.root_overlay.emplace();
    Machine machine{spec};
    REQUIRE(machine.sees("login: "));
    machine.type("root\n");
    REQUIRE(machine.sees("# "));
    machine.type("echo state-$(systemctl is-system-running --wait)-; systemctl --failed --no-legend --plain\n");
    CHECK(machine.sees("state-running-"));
    machine.type(
        "systemd-cat -t caisson echo from-the-journal; journalctl --sync; "
        "journalctl -t caisson -o cat | sed s/^/read-/\n");
    CHECK(machine.sees("read-from-the-journal"));
    machine.type("echo virt-$(systemd-detect-virt)-\n");
    CHECK(machine.sees("virt-container-other-"));
    // Units with sandboxes of their own, which take mounts and namespaces.
    machine.type(
        "systemd-run -q --wait -p PrivateTmp=yes -p ProtectSystem=strict -p DynamicUser=yes true; echo run-$?-\n");
    CHECK(machine.sees("run-0-"));
    machine.type("poweroff\n");
    const auto status = machine.end();
    INFO(machine.seen());
    REQUIRE(status);
    CHECK(status->request() == ExitStatus::Request::poweroff);
}

TEST_CASE("groups are made, filled, emptied and removed by a program in a container, too") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const std::string tests = program("system-cgroup");
    for (std::size_t slash = tests.find('/', 1); slash != std::string::npos; slash = tests.find('/', slash + 1)) {
        struct stat directory {};
        REQUIRE(::stat(tests.substr(0, slash).c_str(), &directory) == 0);
        if ((directory.st_mode & S_IXOTH) == 0) CAISSON_SKIP("the build folder is not everybody's to read");
    }
    bool has_v2 = false;
    for (const auto& hierarchy : detail::cgroup_hierarchies()) has_v2 |= hierarchy.v2() && !hierarchy.places.empty();
    if (!has_v2) CAISSON_SKIP("no v2 hierarchy is mounted");
    ContainerSpec spec = ContainerSpec::system();
    spec.name = "outer";
    spec.root = "/";
    spec.mounts.clear();  // the build folder may be below /tmp
    spec.uid_map = spec.gid_map = {{0, 700'000, 65'536}};
    // What a sanitizer needs of the machine, if it is built with one, is not handed down to a container.
    spec.command = {
        "/usr/bin/setarch", "-R", tests, "--no-colors=true",
        "--test-case=*writes 0 to each tasks*,remove takes the groups*,kill ends frozen*,the destructor kills*"};
    const std::string said = run(spec);
    CAPTURE(said);
    CHECK(said.find("4 passed | 0 failed") != std::string::npos);
    CHECK(said.find("skipped:") == std::string::npos);
}
