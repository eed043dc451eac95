// caisson/spec.hpp - ContainerSpec: everything a container is to be, as plain values. Making one touches nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <caisson/address.hpp>
#include <caisson/capability.hpp>
#include <caisson/console.hpp>
#include <caisson/device.hpp>
#include <caisson/lifecycle.hpp>
#include <caisson/limits.hpp>
#include <caisson/namespace.hpp>
#include <caisson/resource_limit.hpp>
#include <caisson/seccomp.hpp>

namespace caisson::inline v0 {

/// `count` ids from `inside` on, as seen in the container, are those from `outside` on, as seen by the host. See
/// user_namespaces(7).
struct IdMap {
    std::uint32_t inside = 0;
    std::uint32_t outside = 0;
    std::uint32_t count = 1;
    friend bool operator==(const IdMap&, const IdMap&) = default;
};

/// Per-mount options; the defaults are the safe ones.
struct MountOptions {
    bool read_only = false;
    bool no_suid = true;
    bool no_dev = true;
    bool no_exec = false;
    bool recursive = true;  ///< binds only: the mounts below the source come along, and the options hold for them too
    /// The source's path may lead through symbolic links of the host. Without it they are an error, since who may write
    /// to a directory on the way could have the path lead anywhere.
    bool follow_links = false;
    friend bool operator==(const MountOptions&, const MountOptions&) = default;
};

/// A mount that a container is to have.
struct MountSpec {
    enum class Type : std::uint8_t { bind, tmpfs, proc, sysfs, devpts, mqueue, overlay, image, bind_inside };
    Type type = Type::bind;
    /// bind: a path on the host; overlay: the lower directories, the topmost first, with ':' between; image: a block
    /// device of the host, or a file with a file system in it; bind_inside: a path of the container, as it is when the
    /// mounts before this one have been made
    std::string source{};
    std::string target{};  ///< absolute path inside the container; made if it is missing
    /// overlay: the directory that takes the changes, of one container at a time; empty: read-only
    std::string upper{};
    std::string work{};  ///< overlay: an empty directory on the same file system as `upper`
    std::string data{};  ///< file-system options, `key=value` or `key`, with ',' between: "size=64m,mode=1777"
    MountOptions options{};

    /// A host directory or file, seen at `target`.
    [[nodiscard]] static MountSpec bind(std::string source, std::string target, MountOptions options = {}) {
        MountSpec m;
        m.source = std::move(source);
        m.target = std::move(target);
        m.options = options;
        return m;
    }
    /// The file system in a block device of the host or in a file, by its own type: ext4, squashfs, erofs and others
    /// that the kernel has.
    [[nodiscard]] static MountSpec image(std::string source, std::string target, MountOptions options = {}) {
        MountSpec m = bind(std::move(source), std::move(target), options);
        m.type = Type::image;
        return m;
    }
    /// A directory or file of the container, seen at `target` too; without the mounts below it. Links are followed, but
    /// not to its /proc or /sys, which only the source's own text may name: at `target`, nothing of it is masked.
    [[nodiscard]] static MountSpec bind_inside(std::string source, std::string target, MountOptions options = {}) {
        MountSpec m = bind(std::move(source), std::move(target), options);
        m.type = Type::bind_inside;
        return m;
    }
    /// An empty file system in memory that holds at most `bytes`; 0: without a limit.
    [[nodiscard]] static MountSpec tmpfs(std::string target, std::uint64_t bytes, MountOptions options = {}) {
        MountSpec m;
        m.type = Type::tmpfs;
        m.source = "tmpfs";
        m.target = std::move(target);
        m.data = "size=" + std::to_string(bytes) + ",mode=1777";
        m.options = options;
        return m;
    }
    friend bool operator==(const MountSpec&, const MountSpec&) = default;
};
/// The kernel's name of the type: "tmpfs", "proc".
[[nodiscard]] constexpr const char* to_string(MountSpec::Type type) noexcept {
    switch (type) {
        case MountSpec::Type::bind: return "bind";
        case MountSpec::Type::tmpfs: return "tmpfs";
        case MountSpec::Type::proc: return "proc";
        case MountSpec::Type::sysfs: return "sysfs";
        case MountSpec::Type::devpts: return "devpts";
        case MountSpec::Type::mqueue: return "mqueue";
        case MountSpec::Type::overlay: return "overlay";
        case MountSpec::Type::image: return "image";
        case MountSpec::Type::bind_inside: return "bind_inside";
    }
    return "?";
}

/// One network interface of a container: the inner end of a veth pair whose outer end is a port of a host bridge.
struct NetworkSpec {
    std::string bridge{};                ///< a bridge of the host, which must exist when the container starts
    std::string name{};                  ///< inside, at most 15 bytes; empty: eth0, eth1, ... counting the unnamed
    std::string host_name{};             ///< outside, at most 15 bytes; empty: chosen, "veth" and a number
    std::optional<MacAddress> mac{};     ///< of the inner end; nothing: made up, beginning with 52:54:00
    std::vector<IpPrefix> addresses{};   ///< of the inner end
    std::vector<RouteSpec> routes{};     ///< inside
    std::optional<std::uint32_t> mtu{};  ///< bytes, 68 to 65535; nothing: the bridge's
    /// No frame goes between two ports of the bridge that are both isolated; the host and ports that are not are
    /// reached as ever. See bridge(8).
    bool isolated = false;
    friend bool operator==(const NetworkSpec&, const NetworkSpec&) = default;
};

/// A program's standard descriptors where no terminal is wanted. They are borrowed for the length of the start and stay
/// the caller's; -1 means /dev/null.
struct StdioSpec {
    int in = -1;
    int out = -1;
    int err = -1;
    friend bool operator==(const StdioSpec&, const StdioSpec&) = default;
};

/// A root that is seen through an overlay: `ContainerSpec::root` stays as it is, and what is written goes elsewhere.
struct RootOverlay {
    std::vector<std::string> lower{};  ///< directories of the host between the root and what is written, topmost first
    /// Takes what is written, of one container at a time; empty: memory, and it is gone with the container. An ordinary
    /// user's needs Linux 6.6.
    std::string upper{};
    std::string work{};       ///< an empty directory on the same file system as `upper`; only with it
    std::uint64_t bytes = 0;  ///< in memory: how much may be written; 0: half of the machine's memory
    friend bool operator==(const RootOverlay&, const RootOverlay&) = default;
};

/// What uname(2) shows, and how much address space a program is given; see personality(2). None has any of its flags,
/// whatever the host runs with.
enum class Personality : std::uint8_t {
    native,
    linux32,  ///< the 32-bit twin of the machine: i686 on x86-64
};

/// How a container sees its control groups, on /sys/fs/cgroup.
enum class CgroupMount : std::uint8_t {
    none,       ///< not at all
    read_only,  ///< its own group is the topmost
    /// As well, and root inside may make groups below it, as systemd does. Without a user namespace it is root outside,
    /// and may change its limits too.
    read_write,
};

/// Everything a container is to be. Copyable, comparable; the defaults are the safe ones.
struct ContainerSpec {
    std::string name{};  ///< [A-Za-z0-9][A-Za-z0-9_.-]{0,62}
    /// What becomes "/": a directory of the host, a block device, or a file with a file system in it; "/" itself keeps
    /// the host's root.
    std::string root{};
    bool root_read_only = false;
    std::optional<RootOverlay> root_overlay{};
    std::vector<std::string> command{};  ///< argv; the first is an absolute path inside the container
    /// All of the environment but `PATH`, `TERM`, `HOME`, `container` and `container_uuid`, which are given unless
    /// named here; nothing comes from the host.
    std::vector<std::pair<std::string, std::string>> environment{};
    std::string working_directory = "/";
    std::string hostname{};  ///< empty: the name, less the characters that a host name cannot have
    /// New namespaces. `mount`, `pid`, `uts` and `ipc` are always made, `net` where `networks` has entries. Without
    /// networks, a network namespace has `lo` alone; without the namespace, the host's network is the container's.
    NamespaceSet namespaces = NamespaceKind::mount | NamespaceKind::pid | NamespaceKind::uts | NamespaceKind::ipc |
                              NamespaceKind::net | NamespaceKind::user | NamespaceKind::cgroup;
    /// With a user namespace: the maps. Both empty: a free range of 65,536 ids of the container's own, and the root is
    /// seen through an id-mapped mount, so that nothing is chowned. Not both empty where `root` is "/".
    /// These ranges begin at 1879048192 of the host; a map that is given must not have what another container has so.
    ///
    /// Of an ordinary user's containers, root inside is then the user himself, as nothing is id-mapped, and 1, 2, 3 and
    /// so on are the ids that /etc/subuid and /etc/subgid give him, where there are such and newuidmap(1) is installed;
    /// all his containers share them. A map of his own may leave him out: {0, 100000, 65536}, for a root owned so.
    std::vector<IdMap> uid_map{};
    std::vector<IdMap> gid_map{};
    /// With maps of one's own, too, the root and binds are seen through id-mapped mounts: what is root's on disk is
    /// root's inside. Else they are seen with the ids that they have, and belong to nobody unless they were chowned.
    bool id_mapped_mounts = false;
    bool proc = true;  ///< a new procfs on /proc
    bool sys = true;   ///< sysfs on /sys, read-only
    bool dev = true;   ///< a /dev of its own, with a devpts instance of its own
    CgroupMount cgroup_mount = CgroupMount::none;
    std::vector<MountSpec> mounts{};  ///< made in this order, after the above
    /// Paths of the container that show nothing, and paths that cannot be written to; what is not there is skipped.
    /// A masked path below /proc or /sys may be a pattern with '*', see glob(7). They hold against who
    /// cannot unmount: no CAP_SYS_ADMIN, or `seccomp` application.
    std::vector<std::string> masked_paths = default_masked_paths();
    std::vector<std::string> read_only_paths = default_read_only_paths();
    /// The container's console: stdin, stdout, stderr and the controlling terminal of its first process, /dev/console
    /// and /dev/tty1. Nothing: `stdio` instead.
    std::optional<ConsoleSpec> console = ConsoleSpec{};
    /// Terminals beside it: /dev/tty2, /dev/tty3 and so on, which `container_ttys` names by their places below /dev,
    /// for an init that starts a login on each. At most 62.
    std::vector<ConsoleSpec> more_consoles{};
    StdioSpec stdio{};  ///< only where `console` is nothing
    std::vector<NetworkSpec> networks{};
    LimitSpec limits{};
    /// Of each process. Where nothing is said, no core files and 1024 descriptors (524,288 for who asks), or what the
    /// machine gives.
    std::vector<ResourceLimit> resource_limits{};
    std::vector<DeviceSpec> devices{};
    std::vector<DeviceRule> device_rules{};  ///< beside those of `devices`
    /// A control group of its own in every hierarchy of the host; an ordinary user's, where he may make one.
    bool cgroup = true;
    std::string cgroup_parent{};  ///< below each hierarchy's mount point; empty: chosen, see cgroup.hpp
    /// On v2: counts each CPU's time from the start on (`Usage::cpu_each`), which takes one descriptor for each CPU;
    /// else from the first question on. An error where perf_event_open(2) does not allow it.
    bool count_cpus = false;
    CapabilitySpec capabilities{};
    bool no_new_privileges = true;  ///< see prctl(2), PR_SET_NO_NEW_PRIVS
    SeccompSpec seccomp{};
    /// "apparmor:PROFILE" or "selinux:CONTEXT", for the command; an error where the kernel has no such module, or not
    /// this profile or context. Empty: what the host's policy says. A profile should let the host's signals in
    /// ("signal (receive) peer=unconfined,"); one that does not is killed by its v2 control group alone.
    std::string security_label{};
    std::uint32_t uid = 0;  ///< inside, of the first process
    std::uint32_t gid = 0;
    std::vector<std::uint32_t> groups{};  ///< supplementary
    /// A name in the root's own /etc/passwd: gives uid, gid and supplementary groups, in the place of the three above.
    /// Or a number, in the place of `uid` alone. What `mounts` put over those files does not count.
    std::string user{};
    std::string group{};  ///< a name in its /etc/group, or a number: in the place of `gid`, or of the group of `user`
    /// Descriptors of the caller's that become 3, 4, 5 and so on of the command. Borrowed, as `stdio` is.
    std::vector<std::int32_t> descriptors{};
    /// Kernel settings of the container's own namespaces, by sysctl(8)'s names: "net.ipv4.ip_forward".
    std::vector<std::pair<std::string, std::string>> sysctls{};
    std::optional<std::int32_t> oom_score_adj{};  ///< -1000 to 1000, see proc(5); nothing: 0
    Personality personality = Personality::native;
    std::uint32_t umask = 022;
    /// The command is no init: a small one is pid 1, which starts it as its child, reaps whatever is orphaned, hands
    /// signals on, and ends as the command does.
    bool init = false;
    std::string uuid{};  ///< put into `container_uuid`; empty: that variable is left out
    /// An installed stage binary, for kernels or security products that refuse programs without a file
    /// (vm.memfd_noexec=2). Empty: the one that is built into the library. For what a helper's container is given while
    /// it runs, its clients then take the one that was installed with their own library.
    std::string stage_path{};
    /// An ordinary user's containers: the directory of newuidmap(1) and newgidmap(1). Empty: as the library was built.
    std::string id_map_tools{};
    /// What is to follow the container's end, for who runs it by a Controller or a Helper. An end that was asked for
    /// there counts as what was asked for (`stop`: nothing follows), however the container has ended.
    EndAction on_poweroff = EndAction::destroy;
    EndAction on_reboot = EndAction::restart;
    EndAction on_crash = EndAction::destroy;
    BackOff back_off{};
    /// What its init takes to power off and to restart, 1 to 64; nothing: recognised, see ShutdownMode.
    std::optional<std::int32_t> shutdown_signal{};
    std::optional<std::int32_t> reboot_signal{};
    friend bool operator==(const ContainerSpec&, const ContainerSpec&) = default;

    /// For a root with an init such as systemd: more capabilities, privileges that may be gained inside, its control
    /// groups to write to, /run and /tmp in memory, and the system calls that go with them. The rest is as above.
    [[nodiscard]] static ContainerSpec system() {
        ContainerSpec spec;
        spec.command = {"/sbin/init"};
        spec.capabilities = CapabilitySet::system();
        spec.no_new_privileges = false;
        spec.seccomp.profile = SeccompProfile::system;
        spec.cgroup_mount = CgroupMount::read_write;
        spec.mounts = {MountSpec::tmpfs("/run", std::uint64_t{64} << 20),
                       MountSpec::tmpfs("/tmp", std::uint64_t{64} << 20)};
        return spec;
    }
    /// What other containers' programs have no business with: the union of what moby and podman mask.
    [[nodiscard]] static std::vector<std::string> default_masked_paths() {
        return {"/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/sys/firmware",
                "/sys/fs/selinux",
                "/sys/devices/virtual/powercap",
                "/sys/devices/system/cpu/cpu*/thermal_throttle"};
    }
    [[nodiscard]] static std::vector<std::string> default_read_only_paths() {
        return {"/proc/bus", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    }

    /// The namespaces that are really made: `namespaces` with what is always made and what `networks` asks for.
    [[nodiscard]] NamespaceSet effective_namespaces() const noexcept {
        NamespaceSet all = namespaces | NamespaceSet{NamespaceKind::mount} | NamespaceSet{NamespaceKind::pid} |
                           NamespaceSet{NamespaceKind::uts} | NamespaceSet{NamespaceKind::ipc};
        return networks.empty() ? all : all | NamespaceSet{NamespaceKind::net};
    }
    [[nodiscard]] bool has_user_namespace() const noexcept { return namespaces.has(NamespaceKind::user); }
    /// True where the id maps are to be found by the library.
    [[nodiscard]] bool wants_automatic_map() const noexcept {
        return has_user_namespace() && uid_map.empty() && gid_map.empty();
    }
    /// True where it may be started again by itself: an end of its own is followed by that. A command without
    /// CAP_SYS_BOOT cannot reboot.
    [[nodiscard]] bool may_restart() const noexcept {
        constexpr unsigned sys_boot = *CapabilitySet::number("sys_boot");
        return on_poweroff == EndAction::restart || on_crash == EndAction::restart ||
               (on_reboot == EndAction::restart && capabilities.bounding.has(sys_boot));
    }
    [[nodiscard]] EndAction after(EndKind kind) const noexcept {
        return kind == EndKind::poweroff ? on_poweroff : kind == EndKind::reboot ? on_reboot : on_crash;
    }
    /// True where the root and binds are seen through id-mapped mounts.
    [[nodiscard]] bool maps_mounts() const noexcept { return wants_automatic_map() || id_mapped_mounts; }
};

/// True for a name that is safe as a file, cgroup and link tag: `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`.
[[nodiscard]] constexpr bool is_valid_name(std::string_view name) noexcept {
    const auto alnum = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    };
    if (name.empty() || name.size() > 63 || !alnum(name.front())) return false;
    for (const char c : name) {
        if (!alnum(c) && c != '_' && c != '.' && c != '-') return false;
    }
    return true;
}

}  // namespace caisson::inline v0
