// What an ordinary user cannot have, and what his kernel keeps from him: each with its text.
#include <caisson/container.hpp>

#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/ordinary_home.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("a process with no_new_privs gets its own id alone, or is told why not") {
    if (const char* reason = why_no_range()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    ContainerSpec spec = shell(home.root, "cat /proc/self/uid_map");
    const auto run = [&] {
        return home.as_user(true, [&]() -> std::string {
            if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "prctl";
            return told(spec);
        });
    };
    CHECK(run() == "         0      61234          1\n");
    spec.uid_map = spec.gid_map = {{0, OrdinaryUser::range, 1000}};
    const std::string refused = run();
    CHECK(has(refused, "container 'test': uid_map by '/usr/bin/newuidmap': it says 'newuidmap: "));
    CHECK(has(refused, "': this process has set no_new_privs, with which that program gains no rights"));
}

TEST_CASE("what takes root is refused before anything is made, with what to do instead") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const auto refused = [&](auto&& change) {
        ContainerSpec spec = shell(home.root, "true");
        change(spec);
        return home.run(spec, false);
    };
    CHECK(refused([](ContainerSpec& s) { s.namespaces = NamespaceSet{NamespaceKind::mount}; }) ==
          "container 'test': namespaces: without a user namespace it takes root to start a container: add "
          "NamespaceKind::user, or run as root");
    CHECK(refused([](ContainerSpec& s) { s.networks = {{.bridge = "br0"}}; }) ==
          "container 'test': networks[0].bridge: 'br0': it takes root to use a bridge: leave networks out: "
          "its network then has lo alone; or run as root");
    CHECK(refused([](ContainerSpec& s) { s.devices = {{.source = "/dev/fuse"}}; }) ==
          "container 'test': devices[0].source: '/dev/fuse': it takes root to make a device node: bind the host's node "
          "with mounts, no_dev off");
    CHECK(refused([](ContainerSpec& s) { s.device_rules = {DeviceRule{}}; }) ==
          "container 'test': device_rules[0]: it takes root to allow a device: leave it out: what the caller may open "
          "outside, the container may");
    CHECK(refused([](ContainerSpec& s) { s.mounts = {MountSpec::image("/image", "/m")}; }) ==
          "container 'test': mounts[0].source: '/image': it takes root to mount an image: unpack it into a directory "
          "and bind that");
    CHECK(
        refused([](ContainerSpec& s) { s.id_mapped_mounts = true; }) ==
        "container 'test': id_mapped_mounts: it takes root to map the ids of a mount: leave it out, and let the files "
        "be the caller's or in his range");
    const std::string limits = refused([](ContainerSpec& s) { s.limits.pids = 10; });
    CHECK(has(limits, "container 'test': control group 'test' below '/"));
    const std::string remedy =
        ": start the program where a group is delegated to the caller (systemd-run --user --scope, or a unit with "
        "Delegate=yes), or leave limits, cgroup_parent, cgroup_mount and count_cpus out";
    CHECK(has(limits, remedy));
    CHECK(refused([](ContainerSpec& s) { s.cgroup_mount = CgroupMount::read_write; }) == limits);
    CHECK(refused([](ContainerSpec& s) { s.root += "/bin/busybox"; }) ==
          "container 'test': root '" + home.root.path() +
              "/bin/busybox': Not a directory: it takes root to mount an image: unpack it into a directory and name "
              "that");
    CHECK(refused([&](ContainerSpec& s) {
              s.root_overlay = RootOverlay{std::vector<std::string>(12, "/tmp"), home.root / "var", home.root / "tmp"};
          }) == "container 'test': mount 'overlay' on '/': Argument list too long: 12 lower directories are possible");
    CHECK(refused([](ContainerSpec& s) {
              s.root_overlay = RootOverlay{.lower = {s.root}};
              s.root_read_only = true;
          }) ==
          "container 'test': mount 'overlay' on '/' (in the child): Too many levels of symbolic links: a directory is "
          "given twice, or lies in another one of them; or a symbolic link stands in the target");
    CHECK(refused([](ContainerSpec& s) {
              s.root_overlay = RootOverlay{.lower = {"/nonexistent"}};
              s.root_read_only = true;
          }).ends_with("root_overlay: directory '/nonexistent': No such file or directory: make the directory"));
    CHECK(refused([](ContainerSpec& s) { s.root = "/nonexistent"; }) ==
          "container 'test': root '/nonexistent': No such file or directory: make the directory and put a root file "
          "system into it");
}

TEST_CASE("a kernel that keeps user namespaces from ordinary users is told with the setting that does so") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    // What stands in /proc/sys/kernel is of the test, and a filter refuses the call as such a kernel would.
    const auto refused = [&](const char* setting, const char* value, int call) {
        return in_host([&]() -> std::string {
            if (!home.user.become(false, [&] {
                    return ::mount("settings", "/proc/sys/kernel", "tmpfs", 0, "mode=755") == 0 &&
                           std::ofstream{std::string{"/proc/sys/kernel/"} + setting} << value;
                })) {
                return "cannot become an ordinary user";
            }
            sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1),
                                    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
            const sock_fprog program{4, filter};
            if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, 2, &program, 0, 0) != 0) {
                return "no filter";
            }
            return told(shell(home.root, "true"));
        });
    };
    CHECK(refused("unprivileged_userns_clone", "0\n", SYS_clone3) ==
          "container 'test': make init in new namespaces: Operation not permitted: kernel.unprivileged_userns_clone is "
          "0: set it to 1 with sysctl(8), or run as root");
    CHECK(refused("apparmor_restrict_unprivileged_userns", "1\n", SYS_sethostname) ==
          "container 'test': host name 'test' (in the child): Operation not permitted: "
          "kernel.apparmor_restrict_unprivileged_userns is 1: give the program an AppArmor profile with 'userns,', or "
          "run as root");
    CHECK(refused("other", "1\n", SYS_clone3) ==
          "container 'test': make init in new namespaces: Operation not permitted: making namespaces needs "
          "CAP_SYS_ADMIN: run as root; a user namespace is also refused to a program in a chroot, and by some security "
          "products");
}

TEST_CASE("an ordinary user gives a running container memory, and is told that the rest takes root") {
    if (const char* reason = why_no_user()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const Home home;
    const std::string text = home.as_user(OrdinaryUser::has_tools(), [&]() -> std::string {
        Container container = Container::start(shell(home.root, "sleep 1000"));
        std::string said;
        const auto attempt = [&](auto&& spec) {
            try {
                (void)container.attach(spec);
                said += "attached\n";
            } catch (const Error& e) {
                said += std::string{e.what()} + "\n";
            }
        };
        attempt(MountSpec::tmpfs("/mnt", 1 << 20));
        container.detach_mount("/mnt");
        attempt(MountSpec::bind("/etc", "/mnt"));
        attempt(DeviceSpec{.source = "/dev/null", .target = "other"});
        NetworkSpec network;
        network.bridge = "br0";
        attempt(network);
        (void)container.kill();
        return said;
    });
    CHECK(text ==
          "attached\n"
          "container 'test': mount.source: '/etc': it takes root to attach what the host has: run as root\n"
          "container 'test': device.source: '/dev/null': it takes root to make a device node: run as root\n"
          "container 'test': network.bridge: 'br0': it takes root to use a bridge: run as root\n");
}
