// caisson/capability.hpp - sets of Linux capabilities.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include <caisson/error.hpp>

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
        return of({"chown", "dac_override", "fsetid", "fowner", "setgid", "setuid", "setfcap", "setpcap",
                   "net_bind_service", "sys_chroot", "kill"});
    }
    [[nodiscard]] static constexpr CapabilitySet all() noexcept {
        return CapabilitySet{(std::uint64_t{1} << capability_names.size()) - 1};
    }
    /// A keep-list: the capabilities with these names, without "cap_". Throws `Step::check_spec` for a name that the
    /// kernel's list does not have.
    [[nodiscard]] static constexpr CapabilitySet of(std::initializer_list<std::string_view> names) {
        return CapabilitySet{}.with(names);
    }
    /// These as well; throws as `of`.
    [[nodiscard]] constexpr CapabilitySet with(std::initializer_list<std::string_view> names) const {
        CapabilitySet set = *this;
        for (const std::string_view name : names) set.add(known(name));
        return set;
    }
    /// A drop-list: all but these; throws as `of`.
    [[nodiscard]] constexpr CapabilitySet without(std::initializer_list<std::string_view> names) const {
        CapabilitySet set = *this;
        for (const std::string_view name : names) set.remove(known(name));
        return set;
    }
    /// What libvirt's LXC driver leaves a container by default: all but five.
    [[nodiscard]] static constexpr CapabilitySet libvirt() noexcept {
        return all().without({"sys_module", "sys_time", "mknod", "audit_control", "mac_admin"});
    }
    /// What an init such as systemd needs in a user namespace of its own: all but what reaches past it.
    [[nodiscard]] static constexpr CapabilitySet system() noexcept {
        return all().without({"sys_module", "sys_time", "sys_rawio", "mac_override", "mac_admin", "syslog",
                              "wake_alarm", "block_suspend", "perfmon", "bpf", "checkpoint_restore"});
    }
    /// The number of the capability with this name, without "cap_"; nothing if there is none.
    [[nodiscard]] static constexpr std::optional<unsigned> number(std::string_view name) noexcept {
        for (unsigned i = 0; i < capability_names.size(); ++i) {
            if (capability_names[i] == name) return i;
        }
        return std::nullopt;
    }
    /// True if every capability of this set is in `other`.
    [[nodiscard]] constexpr bool is_within(CapabilitySet other) const noexcept { return (bits_ & ~other.bits_) == 0; }
    constexpr void add(unsigned capability) noexcept { bits_ |= std::uint64_t{1} << capability; }
    constexpr void remove(unsigned capability) noexcept { bits_ &= ~(std::uint64_t{1} << capability); }
    [[nodiscard]] constexpr bool has(unsigned capability) const noexcept { return (bits_ >> capability & 1) != 0; }
    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    friend constexpr bool operator==(CapabilitySet, CapabilitySet) noexcept = default;

private:
    [[nodiscard]] static constexpr unsigned known(std::string_view name) {
        if (const auto found = number(name)) return *found;
        throw Error{Step::check_spec, 0, "capability " + detail::quote(name) + ": the kernel has none of that name",
                    "write it as capabilities(7) does, in lower case and without 'cap_'"};
    }
    std::uint64_t bits_ = 0;
};

/// The five sets of a process, see capabilities(7). Made from one set, that is the bounding, the permitted and the
/// effective one, and nothing is inheritable or ambient: what root inside has, and an ordinary user has none of.
struct CapabilitySpec {
    CapabilitySet bounding;
    CapabilitySet permitted;
    CapabilitySet effective;
    CapabilitySet inheritable{};
    CapabilitySet ambient{};  ///< what an ordinary user (`uid` other than 0) keeps through execve

    constexpr CapabilitySpec() noexcept : CapabilitySpec{CapabilitySet::application()} {}
    constexpr CapabilitySpec(CapabilitySet kept) noexcept : bounding{kept}, permitted{kept}, effective{kept} {}
    friend constexpr bool operator==(const CapabilitySpec&, const CapabilitySpec&) noexcept = default;
};

}  // namespace caisson::inline v0
