// What a container shows, and what it lets nobody change: /dev, masked and read-only paths, its control groups.
#include <caisson/container.hpp>
#include <caisson/probe.hpp>

#include <string>

#include <unistd.h>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("/dev has what programs expect, and nothing of the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    CHECK(run(shell(root,
                    "cd /dev; echo *; stat -c '%n %F %a' shm mqueue null; echo x > shm/y && cat shm/y; "
                    "grep -c ' /dev/mqueue .* - mqueue ' /proc/self/mountinfo")) ==
          "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty tty1 urandom zero\n"
          "shm directory 1777\nmqueue directory 1777\nnull character special file 666\nx\n1\n");
}

TEST_CASE("masked paths are empty, whether they are files or directories, and what is not there is skipped") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("secret/key", "key");
    root.write("file", "content");
    ContainerSpec spec =
        shell(root, "ls -A /secret; cat /file; cat /link; echo end; echo x > /file; echo x > /secret/y");
    REQUIRE(::symlink("file", (root / "link").c_str()) == 0);
    spec.masked_paths = {"/secret", "/link", "/nothing/there", "/file/below"};
    CHECK(run(spec) ==
          "end\n/bin/sh: can't create /file: Read-only file system\n"
          "/bin/sh: can't create /secret/y: Read-only file system\n");
    CHECK(root.read("file") == "content");
}

TEST_CASE("a '*' in a masked path stands for all that the kernel has there") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "cd /sys/devices/system/cpu; for d in cpu[0-9]*; do ls -A $d/topology; done; "
                               "ls -d cpu0/topology");
    spec.masked_paths = {"/sys/devices/system/cpu/cpu*/topology"};
    CHECK(run(spec).starts_with("cpu0/topology\n"));
    spec.masked_paths = {"/sys/devices/system/cpu/none*/topology"};
    CHECK_FALSE(run(spec).starts_with("cpu0/topology\n"));
    spec.masked_paths = {"/etc/*"};
    CHECK(error_of(spec) ==
          "container 'test': masked_paths[0]: '/etc/*' holds '*' and is below neither /proc nor /sys: name each path");
}

TEST_CASE("read-only paths hold for what is mounted below them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    root.write("data/old", "old");
    ContainerSpec spec = shell(root, "cat /data/old; echo x > /data/new; echo x > /data/deep/new; echo x > /free");
    spec.mounts = {MountSpec::tmpfs("/data/deep", 65536)};
    spec.read_only_paths = {"/data", "/nothing"};
    CHECK(run(spec) ==
          "old/bin/sh: can't create /data/new: Read-only file system\n"
          "/bin/sh: can't create /data/deep/new: Read-only file system\n");
    CHECK(root.read("free") == "x\n");
}

TEST_CASE("by default the kernel's own settings and secrets are out of reach, in every kind of container") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec =
        shell(root,
              "for f in kcore keys timer_list interrupts; do [ -e /proc/$f ] && head -c 4 /proc/$f; done; "
              "ls -A /proc/acpi /sys/firmware 2> /dev/null | grep -v -e : -e '^$'; "
              "for f in sys/kernel/core_pattern sys/kernel/modprobe sysrq-trigger irq/default_smp_affinity; "
              "do [ -e /proc/$f ] && (echo > /proc/$f) 2> /dev/null && echo $f; done; "
              "umount /proc/keys 2> /dev/null && echo unmounted; "
              "mount -o remount,rw /proc/sys 2> /dev/null && echo remounted; "
              "mount -t proc proc /tmp 2> /dev/null && echo fresh; echo end");
    CHECK(run(spec) == "end\n");
    spec.namespaces = NamespaceKind::mount | NamespaceKind::cgroup;
    CHECK(run(spec) == "end\n");
}

TEST_CASE("who administers a network of his own may change its settings, and nobody else") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward; "
                               "echo x > /proc/sys/kernel/core_pattern");
    spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
    CHECK(run(spec).find("can't create /proc/sys/net/ipv4/ip_forward: Read-only") != std::string::npos);
    spec.capabilities = CapabilitySet::application().with({"net_admin"});
    CHECK(run(spec) == "1\n/bin/sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n");
}

TEST_CASE("control groups are shown from the container's own on, to read or to make groups in") {
    if (!can_run()) CAISSON_SKIP(why_not());
    if (!probe().has(Feature::clone_into_cgroup)) CAISSON_SKIP("there is no cgroup v2 hierarchy");
    const LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec = shell(root,
                               "cd /sys/fs/cgroup; ls -d cgroup.procs; head -n 1 cgroup.procs; mkdir a; "
                               "echo $$ > a/cgroup.procs; head -n 1 a/cgroup.procs; "
                               "for f in *; do (: >> $f) 2> /dev/null && echo $f; done");
    spec.cgroup_mount = CgroupMount::read_only;
    const std::string read_only = run(spec);
    CHECK(read_only.starts_with("cgroup.procs\n1\nmkdir: can't create directory 'a': Read-only file system\n"));
    spec.cgroup_mount = CgroupMount::read_write;
    const std::string delegated = run(spec);
    INFO(delegated);
    CHECK(delegated == "cgroup.procs\n1\n1\ncgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
}
