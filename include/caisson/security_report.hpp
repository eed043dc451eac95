// caisson/security_report.hpp - what holds a running container, as the kernel tells it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include <caisson/capability.hpp>
#include <caisson/error.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>
#include <caisson/resource_limit.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// What is in force for a container's command, read back from the kernel: never what a spec asked for. A value,
/// copyable and comparable.
///
/// "The host" is the reading process: its namespaces, its numbering of ids and processes. The container is not trusted:
/// nothing of its file systems is opened or walked through.
struct SecurityReport {
    /// /proc/PID/status, "Seccomp".
    enum class Seccomp : std::uint8_t { none, strict, filter };

    pid_t pid = -1;
    NamespaceSet namespaces{};     ///< those that are not the host's
    std::vector<IdMap> uid_map{};  ///< also of the host's user namespace, where it is in that
    std::vector<IdMap> gid_map{};
    std::uint32_t uid = 0;                ///< effective, as the host numbers it
    std::uint32_t gid = 0;                ///< as well
    std::vector<std::uint32_t> groups{};  ///< supplementary, as well
    CapabilitySpec capabilities{CapabilitySet{}};
    bool no_new_privileges = false;
    Seccomp seccomp = Seccomp::none;
    std::uint32_t seccomp_filters = 0;           ///< less those of its parent, which came from the host
    std::vector<std::string> masked_paths{};     ///< by an empty read-only directory or file
    std::vector<std::string> read_only_paths{};  ///< mount points that cannot be written through
    /// Of `ContainerSpec::default_masked_paths()`, shown as the kernel has them, there or by another mount: then with
    /// the path there, "/second/keys".
    std::vector<std::string> open_paths{};
    /// The same of `ContainerSpec::default_read_only_paths()` and /sys, where they can be written to.
    std::vector<std::string> writable_paths{};
    bool root_read_only = false;
    bool host_root = false;     ///< "/" is the same directory of the same file system as the host's
    bool host_devices = false;  ///< /dev is the host's devtmpfs
    /// Mount points, other than "/", that show what the host has mounted too: binds of its files.
    std::vector<std::string> host_paths{};
    CgroupMount cgroup_mount = CgroupMount::none;
    std::vector<ResourceLimit> resource_limits{};  ///< all, in the order of their kinds
    std::optional<std::uint64_t> memory_limit{};   ///< bytes: the lowest of its control group and those above it
    std::optional<std::uint64_t> pids_limit{};     ///< as well
    /// cgroup v1: devices.list of its group, "c 1:3 rwm". Nothing: there is no such hierarchy, or it is not seen.
    std::optional<std::vector<std::string>> device_rules{};
    /// cgroup v2: how many BPF programs decide on its devices. Nothing: the caller may not ask (CAP_NET_ADMIN).
    std::optional<std::uint32_t> device_programs{};
    std::int32_t oom_score_adj = 0;
    std::string security_label{};  ///< empty: the kernel has no module that gives one

    friend bool operator==(const SecurityReport&, const SecurityReport&) = default;

    /// Of a process held by pidfd; its pid must be as /proc of the caller numbers it.
    ///
    /// Throws `Step::report`: ESRCH if it has ended, or ends meanwhile; EACCES without ptrace access to it (its user,
    /// or CAP_SYS_PTRACE over it; see ptrace(2)). Never blocks on the container. Any thread.
    [[nodiscard]] [[gnu::visibility("default")]] static SecurityReport of(const Process& process);

    /// Of the command below an init of `ContainerSpec::init`, which is not held as tightly itself. Throws as `of`.
    [[nodiscard]] [[gnu::visibility("default")]] static SecurityReport of_command(const Process& init);

    /// The capabilities that it has or can get: by execve(2), where new privileges are allowed.
    [[nodiscard]] CapabilitySet reachable_capabilities() const noexcept {
        const CapabilitySpec& c = capabilities;
        return CapabilitySet{c.permitted.bits() | c.inheritable.bits() | (no_new_privileges ? 0 : c.bounding.bits())};
    }
    /// False where masks and read-only paths can be undone from inside: it can get CAP_SYS_ADMIN over its mounts. Only
    /// a filter that refuses mount(2) and umount(2) keeps them then; the kernel does not tell what a filter refuses.
    [[nodiscard]] bool masks_hold() const noexcept {
        return !reachable_capabilities().has(*CapabilitySet::number("sys_admin"));
    }
    /// Every way in which the kernel tells that it is held less tightly than the container of a default
    /// `ContainerSpec`, a sentence each. What a filter refuses is not told: it may be one that only counts
    /// (`SeccompSpec::audit`).
    [[nodiscard]] [[gnu::visibility("default")]] std::vector<std::string> weaker() const;
    /// Every way in which it is held more tightly than that.
    [[nodiscard]] [[gnu::visibility("default")]] std::vector<std::string> stricter() const;
    /// What the default leaves open too, and this one does.
    [[nodiscard]] [[gnu::visibility("default")]] std::vector<std::string> left_open() const;
    /// All of it for people: lines of at most 100 columns, but for words that are longer.
    [[nodiscard]] [[gnu::visibility("default")]] std::string str() const;
};

}  // namespace caisson::inline v0
