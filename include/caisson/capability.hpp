// caisson/capability.hpp - sets of Linux capabilities.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace caisson::inline v0 {

/// The kernel's names without "cap_", in the order of their numbers (0 to 40); see capabilities(7).
inline constexpr std::array<std::string_view, 41> capability_names{"chown",
                                                                   "dac_override",
                                                                   "dac_read_search",
                                                                   "fowner",
                                                                   "fsetid",
                                                                   "kill",
                                                                   "setgid",
                                                                   "setuid",
                                                                   "setpcap",
                                                                   "linux_immutable",
                                                                   "net_bind_service",
                                                                   "net_broadcast",
                                                                   "net_admin",
                                                                   "net_raw",
                                                                   "ipc_lock",
                                                                   "ipc_owner",
                                                                   "sys_module",
                                                                   "sys_rawio",
                                                                   "sys_chroot",
                                                                   "sys_ptrace",
                                                                   "sys_pacct",
                                                                   "sys_admin",
                                                                   "sys_boot",
                                                                   "sys_nice",
                                                                   "sys_resource",
                                                                   "sys_time",
                                                                   "sys_tty_config",
                                                                   "mknod",
                                                                   "lease",
                                                                   "audit_write",
                                                                   "audit_control",
                                                                   "setfcap",
                                                                   "mac_override",
                                                                   "mac_admin",
                                                                   "syslog",
                                                                   "wake_alarm",
                                                                   "block_suspend",
                                                                   "audit_read",
                                                                   "perfmon",
                                                                   "bpf",
                                                                   "checkpoint_restore"};

/// A set of capabilities, by the kernel's numbers.
class CapabilitySet {
public:
    constexpr CapabilitySet() noexcept = default;
    constexpr explicit CapabilitySet(std::uint64_t bits) noexcept : bits_{bits} {}
    /// What an application needs that runs as root inside: eleven, as podman keeps them.
    [[nodiscard]] static constexpr CapabilitySet application() noexcept {
        CapabilitySet set;
        for (const std::string_view name : {"chown", "dac_override", "fsetid", "fowner", "setgid", "setuid", "setfcap",
                                            "setpcap", "net_bind_service", "sys_chroot", "kill"}) {
            set.add(*number(name));
        }
        return set;
    }
    [[nodiscard]] static constexpr CapabilitySet all() noexcept {
        return CapabilitySet{(std::uint64_t{1} << capability_names.size()) - 1};
    }
    /// What libvirt's LXC driver leaves a container by default: all but five.
    [[nodiscard]] static constexpr CapabilitySet libvirt() noexcept {
        CapabilitySet set = all();
        for (const std::string_view name : {"sys_module", "sys_time", "mknod", "audit_control", "mac_admin"}) {
            set.remove(*number(name));
        }
        return set;
    }
    /// The number of the capability with this name, without "cap_"; nothing if there is none.
    [[nodiscard]] static constexpr std::optional<unsigned> number(std::string_view name) noexcept {
        for (unsigned i = 0; i < capability_names.size(); ++i) {
            if (capability_names[i] == name) return i;
        }
        return std::nullopt;
    }
    constexpr void add(unsigned capability) noexcept { bits_ |= std::uint64_t{1} << capability; }
    constexpr void remove(unsigned capability) noexcept { bits_ &= ~(std::uint64_t{1} << capability); }
    [[nodiscard]] constexpr bool has(unsigned capability) const noexcept { return (bits_ >> capability & 1) != 0; }
    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    friend constexpr bool operator==(CapabilitySet, CapabilitySet) noexcept = default;

private:
    std::uint64_t bits_ = 0;
};

}  // namespace caisson::inline v0
