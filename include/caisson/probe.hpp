// caisson/probe.hpp - what this kernel and this user can do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace caisson::inline v0 {

/// What a container may ask of the machine.
enum class Feature : std::uint8_t {
    namespace_user,
    namespace_mount,
    namespace_pid,
    namespace_net,
    namespace_ipc,
    namespace_uts,
    namespace_cgroup,
    namespace_time,
    openat2,
    mount_api,
    mount_attributes,
    id_mapped_mounts,
    tmpfs,
    devpts,
    overlay,
    pidfd,
    clone_into_cgroup,
    close_range,
    memfd_exec,
    seccomp,
    bridges,
    cgroup_cpu,
    cgroup_cpuset,
    cgroup_memory,
    cgroup_pids,
    cgroup_io,
    cgroup_devices,
    cgroup_freezer,
    cap_sys_admin,
    cap_net_admin,
    cap_mknod,
    cap_sys_resource,
    id_range,    ///< more ids in a container than the caller's own
    containers,  ///< `Container::start`, and with what
};

/// How the control groups are mounted, see cgroups(7).
enum class CgroupLayout : std::uint8_t {
    none,
    v1,      ///< hierarchies of version 1 only
    hybrid,  ///< both: the controllers are spread over them
    v2,      ///< the unified hierarchy only
};
/// "none", "v1", "hybrid", "v2".
[[nodiscard]] constexpr const char* to_string(CgroupLayout layout) noexcept {
    constexpr const char* names[] = {"none", "v1", "hybrid", "v2"};
    return names[static_cast<std::size_t>(layout)];
}

/// One line of a report.
struct ProbeEntry {
    Feature feature{};
    std::string name{};      ///< for people: "user namespaces"
    bool available = false;  ///< to the caller, as things are
    std::string reason{};    ///< why so
    std::string remedy{};    ///< what would make it available; empty where it is, or where nobody knows
};

/// What `probe` found, for every `Feature` once, in the order of the enumerators.
class ProbeReport {
public:
    ProbeReport(std::vector<ProbeEntry> entries, CgroupLayout layout) noexcept
        : entries_{std::move(entries)}, layout_{layout} {}
    [[nodiscard]] const std::vector<ProbeEntry>& entries() const noexcept { return entries_; }
    [[nodiscard]] const ProbeEntry& operator[](Feature feature) const {
        return entries_.at(static_cast<std::size_t>(feature));
    }
    [[nodiscard]] bool has(Feature feature) const { return (*this)[feature].available; }
    [[nodiscard]] CgroupLayout cgroups() const noexcept { return layout_; }
    /// A table for people, a line for each feature: name, yes or no, reason, remedy.
    [[nodiscard]] [[gnu::visibility("default")]] std::string str() const;

private:
    std::vector<ProbeEntry> entries_;
    CgroupLayout layout_;
};

/// Asks the kernel what the calling thread can do, by trying each thing where that leaves no trace and by what /proc
/// says otherwise; never by the kernel's version. It makes no process, loads no module and changes nothing. Takes about
/// a millisecond. Works for any user; throws only `std::bad_alloc`.
[[nodiscard]] [[gnu::visibility("default")]] ProbeReport probe();

}  // namespace caisson::inline v0
