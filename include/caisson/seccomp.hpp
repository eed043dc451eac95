// caisson/seccomp.hpp - which system calls a container may make, as plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson::inline v0 {

/// What a container may call if nothing else is said; see seccomp(2).
enum class SeccompProfile : std::uint8_t {
    none,         ///< everything
    application,  ///< what programs need: no mounts, no new namespaces, no keys, no look into the kernel
    system,       ///< what an init such as systemd needs as well: mounts and namespaces
};

/// A comparison of one argument of a system call, all 64 bits of it.
struct SeccompArgument {
    enum class Operator : std::uint8_t {
        equal,
        not_equal,
        less,
        less_or_equal,
        greater,
        greater_or_equal,
        masked_equal
    };
    std::uint8_t index = 0;  ///< 0 to 5
    Operator comparison = Operator::equal;
    std::uint64_t value = 0;
    std::uint64_t mask = 0;  ///< masked_equal: of the argument, before it is compared
    friend bool operator==(const SeccompArgument&, const SeccompArgument&) = default;
};

/// What is to happen to a system call, whatever the profile says of it.
struct SeccompRule {
    enum class Action : std::uint8_t { allow, refuse, kill };
    std::string call{};  ///< the kernel's name: "mount"
    Action action = Action::refuse;
    std::int32_t errnum = 1;                   ///< refuse: what the caller gets, EPERM if nothing is said
    std::vector<SeccompArgument> arguments{};  ///< all must hold; none: every call of this name
    friend bool operator==(const SeccompRule&, const SeccompRule&) = default;
};

/// The filter of a container.
struct SeccompSpec {
    SeccompProfile profile = SeccompProfile::application;
    std::vector<SeccompRule> rules{};  ///< on top of the profile
    /// Nothing is refused; what would be is told to the kernel's log (dmesg(1), auditd(8)) as type 1326.
    bool audit = false;
    friend bool operator==(const SeccompSpec&, const SeccompSpec&) = default;
};

}  // namespace caisson::inline v0
