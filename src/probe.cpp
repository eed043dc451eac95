// src/probe.cpp - tries what a container may need, without a trace.
#include <caisson/probe.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/capability.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/detail/unprivileged.hpp>
#include <caisson/mount.hpp>
#include <caisson/namespace.hpp>

namespace caisson::inline v0 {
namespace {

/// Available or not, why, and what to do.
struct Finding {
    bool available = false;
    std::string reason{};
    std::string remedy{};
};
Finding yes(std::string reason) {
    return {true, std::move(reason), {}};
}
Finding no(std::string reason, std::string remedy = {}) {
    return {false, std::move(reason), std::move(remedy)};
}
/// For a system call that the kernel or a seccomp filter refused.
Finding refused(std::string_view call, int errnum) {
    std::string reason = std::string{call} + ": " + std::system_category().message(errnum);
    if (errnum == ENOSYS) {
        return no(std::move(reason), "use Linux 5.14 or later; in a sandbox: let its seccomp filter pass this call");
    }
    if (errnum == EPERM || errnum == EACCES) {
        return no(std::move(reason), "run as root; in a sandbox: let its seccomp filter pass this call");
    }
    return no(std::move(reason));
}

std::optional<std::string> text_of(const std::string& path) {
    std::string text;
    if (!detail::sys::read_file(AT_FDCWD, path.c_str(), text)) return std::nullopt;
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(separator), text.size());
        if (end > 0) parts.emplace_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

/// The effective capabilities of the calling thread.
CapabilitySet effective_capabilities() {
    CapabilitySet held;
    const std::string status = text_of("/proc/thread-self/status").value_or("");
    const std::size_t at = status.find("\nCapEff:\t");
    if (at == std::string::npos) return held;
    const std::uint64_t bits = std::strtoull(status.c_str() + at + 9, nullptr, 16);
    for (unsigned i = 0; i < capability_names.size(); ++i) {
        if ((bits >> i & 1) != 0) held.add(i);
    }
    return held;
}

/// The initial user namespace maps every id to itself.
bool in_initial_user_namespace() {
    const auto parts = split(text_of("/proc/thread-self/uid_map").value_or(""), ' ');
    return parts.size() == 3 && parts[0] == "0" && parts[1] == "0" && parts[2] == "4294967295";
}

/// True where the caller's namespace of `kind` belongs to the caller's user namespace, so that its capabilities count
/// there. Unknown (without /proc) is true: the try that follows tells.
bool owns(NamespaceKind kind) {
    try {
        const Namespace mine = Namespace::current(kind);
        const Fd owner{::ioctl(mine.fd(), NS_GET_USERNS)};
        struct stat st {};
        return owner && ::fstat(owner.get(), &st) == 0 && st.st_ino == Namespace::current(NamespaceKind::user).id();
    } catch (const Error&) {
        return true;
    }
}

/// One mounted hierarchy.
struct Hierarchy {
    bool unified = false;
    std::string mount_point{};
    std::vector<std::string> controllers{};
};

std::vector<Hierarchy> hierarchies() {
    std::vector<Hierarchy> found;
    try {
        for (const detail::CgroupHierarchy& h : detail::cgroup_hierarchies()) {
            for (const detail::CgroupPlace& place : h.places) {
                found.push_back({h.v2(), place.mount_point,
                                 h.v2() ? split(text_of(place.mount_point + "/cgroup.controllers").value_or(""), ' ')
                                        : split(h.controllers, ',')});
            }
        }
    } catch (const Error&) {  // /proc does not tell
    }
    return found;
}

/// Where `Cgroup` makes groups below `mount_point`, if that is the caller's to write and has `controller`; else empty.
std::string delegated_group(const std::string& mount_point, std::string_view controller) {
    try {
        for (const detail::CgroupHierarchy& h : detail::cgroup_hierarchies()) {
            for (const detail::CgroupPlace& place : h.places) {
                if (place.mount_point != mount_point || !place.own) continue;
                const std::string path = detail::default_cgroup_parent(place, h.v2());
                if (::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) return {};
                if (controller.empty()) return path;
                const auto there = split(text_of(path + "/cgroup.controllers").value_or(""), ' ');
                return std::find(there.begin(), there.end(), controller) != there.end() ? path : std::string{};
            }
        }
    } catch (const Error&) {  // /proc does not tell
    }
    return {};
}

class Prober {
public:
    ProbeReport run();

private:
    [[nodiscard]] bool holds(std::string_view name) const { return held_.has(*CapabilitySet::number(name)); }
    /// Why a call that needs `capability` over the caller's namespace of `kind` is refused with EPERM.
    [[nodiscard]] Finding denied(std::string_view call, std::string_view capability, NamespaceKind kind) const;

    Finding kernel_has(NamespaceKind kind) const;
    Finding user_namespace() const;
    Finding other_namespace(NamespaceKind kind) const;
    Finding openat2() const;
    Finding mount_api() const;
    Finding mount_attributes() const;
    Finding id_mapped_mounts() const;
    Finding overlay() const;
    Finding pidfd() const;
    Finding clone_into_cgroup() const;
    Finding close_range() const;
    Finding memfd_exec() const;
    Finding seccomp() const;
    Finding bridges() const;
    Finding controller(std::string_view v1, std::string_view v2) const;
    Finding capability(std::string_view name, std::string_view purpose) const;
    Finding id_range() const;
    Finding containers() const;
    template <class Make>
    Finding try_mount(Make&& make) const;

    CapabilitySet held_ = effective_capabilities();
    bool initial_ = in_initial_user_namespace();
    std::vector<Hierarchy> hierarchies_ = hierarchies();
};

Finding Prober::denied(std::string_view call, std::string_view name, NamespaceKind kind) const {
    const std::string capability = name == "net_admin" ? "CAP_NET_ADMIN" : "CAP_SYS_ADMIN";
    if (!holds(name)) return no(capability + " is not held", "run as root, or inside a user namespace");
    const std::string word = to_string(kind);
    if (!owns(kind)) {
        return no(capability + " is held, but the caller's " + word + " namespace belongs to another user namespace",
                  "run in a new " + word + " namespace");
    }
    return refused(call, EPERM);
}

Finding Prober::kernel_has(NamespaceKind kind) const {
    const std::string name = to_string(kind);
    if (::access(("/proc/self/ns/" + name).c_str(), F_OK) != 0) {
        if (::access("/proc/self", F_OK) != 0) return no("/proc is not mounted", "mount proc on /proc");
        return no("this kernel has none");
    }
    const std::string sysctl = "user.max_" + name + "_namespaces";
    if (text_of("/proc/sys/user/max_" + name + "_namespaces") == "0") {
        return no(sysctl + " is 0", "raise " + sysctl + " with sysctl(8)");
    }
    return yes("");
}

Finding Prober::user_namespace() const {
    Finding found = kernel_has(NamespaceKind::user);
    if (!found.available) return found;
    if (holds("sys_admin")) return yes("CAP_SYS_ADMIN is held");
    if (text_of("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
        return no("kernel.unprivileged_userns_clone is 0", "set kernel.unprivileged_userns_clone to 1 with sysctl(8)");
    }
    if (text_of("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
        return no("kernel.apparmor_restrict_unprivileged_userns is 1",
                  "give the program an AppArmor profile with 'userns,', or set that sysctl to 0");
    }
    return yes("without privileges");
}

Finding Prober::other_namespace(NamespaceKind kind) const {
    Finding found = kernel_has(kind);
    if (!found.available) return found;
    if (holds("sys_admin")) return yes("CAP_SYS_ADMIN is held");
    const Finding user = user_namespace();
    if (user.available) return yes("inside a new user namespace");
    return no("CAP_SYS_ADMIN is not held, and a user namespace cannot be had: " + user.reason, user.remedy);
}

Finding Prober::openat2() const {
    if (detail::sys::openat2(AT_FDCWD, "/", O_PATH, detail::sys::in_root)) return yes("opened '/'");
    return refused("openat2", errno);
}

Finding Prober::mount_api() const {
    const Fd tree{::open_tree(AT_FDCWD, "/", OPEN_TREE_CLOEXEC)};
    if (!tree) return refused("open_tree", errno);
    const Fd context{::fsopen("tmpfs", FSOPEN_CLOEXEC)};
    if (context) return yes("opened a file-system context");
    return errno == EPERM ? denied("fsopen", "sys_admin", NamespaceKind::mount) : refused("fsopen", errno);
}

Finding Prober::mount_attributes() const {
    // With nothing to set the kernel does not look at the descriptor.
    mount_attr nothing{};
    if (::mount_setattr(-1, "", AT_EMPTY_PATH, &nothing, sizeof nothing) == 0 || errno == EBADF) return yes("tried");
    return errno == EPERM ? denied("mount_setattr", "sys_admin", NamespaceKind::mount)
                          : refused("mount_setattr", errno);
}

Finding Prober::id_mapped_mounts() const {
    Finding found = mount_attributes();
    if (!found.available) return found;
    if (!initial_) {
        return no("the caller is in a user namespace, and the host's file systems belong to the initial one",
                  "run in the initial user namespace");
    }
    return yes("if the file system can: ext4, xfs and btrfs can, tmpfs from Linux 6.3 on, overlay and proc cannot");
}

template <class Make>
Finding Prober::try_mount(Make&& make) const {
    try {
        (void)make();
        return yes("made one, unattached");
    } catch (const Error& e) {
        if (e.code().value() == EPERM) return denied("fsopen", "sys_admin", NamespaceKind::mount);
        return no(e.code().message(), std::string{e.remedy()});
    }
}

Finding Prober::overlay() const {
    // fsopen would load a module that is missing.
    const std::string known = text_of("/proc/filesystems").value_or("") + "\n";
    if (known.find("\toverlay\n") == std::string::npos) {
        return no("'/proc/filesystems' does not list it", "modprobe overlay");
    }
    const Fd context{::fsopen("overlay", FSOPEN_CLOEXEC)};
    if (context) return yes("opened a file-system context");
    return errno == EPERM ? denied("fsopen", "sys_admin", NamespaceKind::mount) : refused("fsopen", errno);
}

Finding Prober::pidfd() const {
    const Fd fd{static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))};
    if (!fd) return refused("pidfd_open", errno);
    if (::syscall(SYS_pidfd_send_signal, fd.get(), 0, nullptr, 0) != 0) return refused("pidfd_send_signal", errno);
    return yes("opened the caller's own");
}

Finding Prober::clone_into_cgroup() const {
    // Two flags that exclude each other: no kernel makes a process. One that does not know the last member of the
    // structure says E2BIG before it looks at the flags.
    clone_args args{};
    args.flags = CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_FS;
    args.cgroup = 1;
    const long result = ::syscall(SYS_clone3, &args, sizeof args);
    if (result >= 0 || errno != EINVAL) return refused("clone3", result >= 0 ? 0 : errno);
    const bool unified = std::any_of(hierarchies_.begin(), hierarchies_.end(), [](auto& h) { return h.unified; });
    if (!unified) {
        return no("clone3 knows it, but no cgroup2 is mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified");
    }
    return yes("clone3 knows it, and cgroup2 is mounted");
}

Finding Prober::close_range() const {
    constexpr unsigned last = ~0u;  // no descriptor can have this number
    constexpr unsigned cloexec = 1u << 2;
    if (::syscall(SYS_close_range, last, last, cloexec) == 0) return yes("tried on a number that no descriptor has");
    return refused("close_range", errno);
}

Finding Prober::memfd_exec() const {
    constexpr unsigned mfd_exec = 0x10;  // Linux 6.3
    Fd fd{::memfd_create("caisson-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING | mfd_exec)};
    if (!fd && errno == EINVAL) fd = Fd{::memfd_create("caisson-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    if (fd) return yes("made an executable memfd");
    const int saved = errno;
    if (saved == EACCES && text_of("/proc/sys/vm/memfd_noexec") == "2") {
        return no("vm.memfd_noexec is 2", "set ContainerSpec::stage_path to an installed stage, or lower that sysctl");
    }
    return refused("memfd_create", saved);
}

Finding Prober::seccomp() const {
#ifndef CAISSON_HAVE_SECCOMP
    return no("this library was built without libseccomp", "build it with -Dseccomp=enabled");
#else
    for (const std::uint32_t action : {SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_LOG}) {
        if (::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) return refused("seccomp", errno);
    }
    return yes("filters may refuse, kill and log");
#endif
}

Finding Prober::bridges() const {
#ifndef CAISSON_HAVE_MNL
    return no("this library was built without libmnl", "build it with -Dnetwork=enabled");
#else
    const Fd socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
    if (!socket) return refused("netlink socket", errno);
    if (!holds("net_admin") || !owns(NamespaceKind::net)) return denied("netlink", "net_admin", NamespaceKind::net);
    return yes("a netlink socket opens, and CAP_NET_ADMIN is held");
#endif
}

Finding Prober::controller(std::string_view v1, std::string_view v2) const {
    if (hierarchies_.empty()) {
        return no("no cgroup hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup");
    }
    for (const Hierarchy& h : hierarchies_) {
        // Freezing is part of every v2 group, and devices are decided there by a BPF program.
        const bool built_in = h.unified && v2.empty();
        const std::string_view name = h.unified ? v2 : v1;
        if (!built_in && std::find(h.controllers.begin(), h.controllers.end(), name) == h.controllers.end()) continue;
        // A controller that version 1 has is not to be had here.
        if (built_in && std::any_of(hierarchies_.begin(), hierarchies_.end(), [&](const Hierarchy& other) {
                return !other.unified &&
                       std::find(other.controllers.begin(), other.controllers.end(), v1) != other.controllers.end();
            })) {
            continue;
        }
        const std::string where = std::string{h.unified ? "v2" : "v1"} + " at '" + h.mount_point + "'";
        if (::faccessat(AT_FDCWD, h.mount_point.c_str(), W_OK, AT_EACCESS) == 0) return yes(where);
        const std::string delegated = delegated_group(h.mount_point, h.unified ? v2 : std::string_view{});
        if (!delegated.empty()) return yes(where + ", delegated to the caller at " + detail::quote(delegated));
        return no(where + ", which the caller cannot write", "run as root, or have a group delegated");
    }
    return no("no mounted hierarchy has it",
              "boot without cgroup_disable=" + std::string{v1} + ", and mount the hierarchy that has it");
}

Finding Prober::capability(std::string_view name, std::string_view purpose) const {
    if (holds(name)) return yes(initial_ ? "held" : "held, in a user namespace");
    return no("not held: " + std::string{purpose}, "run as root, and let no sandbox take it away");
}

Finding Prober::id_range() const {
    if (holds("sys_admin") && initial_) return yes("one of its own for each container");
    if (holds("sys_admin")) {
        return no("the caller is in a user namespace, which has the ids that it was given",
                  "give uid_map and gid_map out of those");
    }
    const detail::CallersRange range = detail::range_of_caller({});
    if (!range.missing.empty()) return no(range.missing, range.remedy);
    const IdMap& first = range.uids.front();
    return yes(std::to_string(first.count) + " from " + std::to_string(first.outside) + " on, by newuidmap(1)");
}

Finding Prober::containers() const {
    if (detail::is_set_id_program()) {
        return no("the program is setuid or setgid and still its caller's",
                  "set the real ids to the effective ones first");
    }
    if (holds("sys_admin")) return yes("CAP_SYS_ADMIN is held");
    Finding user = user_namespace();
    if (!user.available) return user;
    return yes(id_range().available ? "in a user namespace: root inside is the caller, the others are his range"
                                    : "in a user namespace: root inside is the caller, and there is nobody else");
}

ProbeReport Prober::run() {
    CgroupLayout layout = CgroupLayout::none;
    const auto unified = std::count_if(hierarchies_.begin(), hierarchies_.end(), [](auto& h) { return h.unified; });
    const auto all = static_cast<std::ptrdiff_t>(hierarchies_.size());
    if (all > 0) layout = unified == 0 ? CgroupLayout::v1 : unified == all ? CgroupLayout::v2 : CgroupLayout::hybrid;

    std::vector<ProbeEntry> entries;
    entries.reserve(static_cast<std::size_t>(Feature::containers) + 1);
    const auto add = [&](Feature feature, const char* name, Finding found) {
        entries.push_back({feature, name, found.available, std::move(found.reason), std::move(found.remedy)});
    };
    add(Feature::namespace_user, "user namespaces", user_namespace());
    add(Feature::namespace_mount, "mount namespaces", other_namespace(NamespaceKind::mount));
    add(Feature::namespace_pid, "pid namespaces", other_namespace(NamespaceKind::pid));
    add(Feature::namespace_net, "net namespaces", other_namespace(NamespaceKind::net));
    add(Feature::namespace_ipc, "ipc namespaces", other_namespace(NamespaceKind::ipc));
    add(Feature::namespace_uts, "uts namespaces", other_namespace(NamespaceKind::uts));
    add(Feature::namespace_cgroup, "cgroup namespaces", other_namespace(NamespaceKind::cgroup));
    add(Feature::namespace_time, "time namespaces", other_namespace(NamespaceKind::time));
    add(Feature::openat2, "openat2", openat2());
    add(Feature::mount_api, "mounts by descriptor", mount_api());
    add(Feature::mount_attributes, "mount_setattr", mount_attributes());
    add(Feature::id_mapped_mounts, "id-mapped mounts", id_mapped_mounts());
    add(Feature::tmpfs, "tmpfs", try_mount([] { return Mount::tmpfs(4096); }));
    add(Feature::devpts, "devpts of its own", try_mount([] { return Mount::devpts(); }));
    add(Feature::overlay, "overlay", overlay());
    add(Feature::pidfd, "pidfd", pidfd());
    add(Feature::clone_into_cgroup, "clone into a cgroup", clone_into_cgroup());
    add(Feature::close_range, "close_range", close_range());
    add(Feature::memfd_exec, "programs in memory", memfd_exec());
    add(Feature::seccomp, "seccomp filters", seccomp());
    add(Feature::bridges, "bridges", bridges());
    add(Feature::cgroup_cpu, "cgroup cpu", controller("cpu", "cpu"));
    add(Feature::cgroup_cpuset, "cgroup cpuset", controller("cpuset", "cpuset"));
    add(Feature::cgroup_memory, "cgroup memory", controller("memory", "memory"));
    add(Feature::cgroup_pids, "cgroup pids", controller("pids", "pids"));
    add(Feature::cgroup_io, "cgroup io", controller("blkio", "io"));
    add(Feature::cgroup_devices, "cgroup devices", controller("devices", ""));
    add(Feature::cgroup_freezer, "cgroup freezer", controller("freezer", ""));
    add(Feature::cap_sys_admin, "CAP_SYS_ADMIN", capability("sys_admin", "namespaces and mounts need it"));
    add(Feature::cap_net_admin, "CAP_NET_ADMIN", capability("net_admin", "bridges and links need it"));
    add(Feature::cap_mknod, "CAP_MKNOD",
        capability("mknod", holds("sys_admin") ? "a /dev of its own needs it"
                                               : "an ordinary user's containers have the host's nodes instead"));
    add(Feature::cap_sys_resource, "CAP_SYS_RESOURCE",
        capability("sys_resource", "hard limits and oom_score_adj cannot be bettered"));
    add(Feature::id_range, "ranges of ids", id_range());
    add(Feature::containers, "containers", containers());
    return {std::move(entries), layout};
}

}  // namespace

ProbeReport probe() {
    return Prober{}.run();
}

std::string ProbeReport::str() const {
    std::size_t width = std::string_view{"cgroup layout"}.size();
    for (const ProbeEntry& e : entries_) width = std::max(width, e.name.size());
    const auto padded = [&](const std::string& name) { return name + std::string(width - name.size() + 2, ' '); };
    std::string table = padded("cgroup layout") + to_string(layout_) + "\n";
    for (const ProbeEntry& e : entries_) {
        table += padded(e.name) + (e.available ? "yes  " : "no   ") + e.reason;
        if (!e.remedy.empty()) table += " (" + e.remedy + ")";
        table += '\n';
    }
    return table;
}

}  // namespace caisson::inline v0
