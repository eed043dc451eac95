// caisson/seccomp.hpp - which system calls a container may make, as plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson::inline v0 {

/// What a container may call if nothing else is said; see seccomp(2). What is refused gets EPERM, and ENOSYS where the
/// call is newer than the profile. Both profiles refuse sockets of AF_ALG and AF_VSOCK, input that is pushed into a
/// terminal (TIOCSTI, TIOCLINUX), io_uring, userfaultfd, kexec and open_by_handle_at. Reboot, modules, BPF, perf, the
/// clock, ports, accounting, memory policy and the kernel's log are allowed where the bounding set has the capability
/// that the kernel asks for.
enum class SeccompProfile : std::uint8_t {
    none,         ///< everything that no rule refuses
    application,  ///< what programs need: no mounts, no new namespaces, no keys, whatever capabilities there are
    system,       ///< what an init such as systemd needs as well: mounts, namespaces, keys and quotas
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
    std::uint8_t index = 0;  ///< 0 to 5; one comparison for each
    Operator comparison = Operator::equal;
    std::uint64_t value = 0;
    std::uint64_t mask = 0;  ///< masked_equal: of the argument, before it is compared
    friend bool operator==(const SeccompArgument&, const SeccompArgument&) = default;
};

/// What is to happen to a system call, whatever the profile says of it.
struct SeccompRule {
    enum class Action : std::uint8_t { allow, refuse, kill };
    std::string call{};  ///< the kernel's name, "mount"; an error where no program of the container could call it
    Action action = Action::refuse;
    std::int32_t errnum = 1;                   ///< refuse: what the caller gets, 1 to 4094; EPERM if nothing is said
    std::vector<SeccompArgument> arguments{};  ///< all must hold; none: every call of this name
    friend bool operator==(const SeccompRule&, const SeccompRule&) = default;
};

/// The filter of a container. It holds from the command's execve(2) on, and for all that comes of it.
///
/// The start itself makes a few calls under it: with `no_new_privileges` rt_sigprocmask, write and execve; without,
/// where the kernel asks for a capability to load a filter, also those that set ids, capabilities, limits and
/// descriptors. A rule that always refuses one of these is an error; one that does so by its arguments makes the start
/// fail, or where it kills for execve, the container end at once.
struct SeccompSpec {
    SeccompProfile profile = SeccompProfile::application;
    std::vector<SeccompRule> rules{};  ///< before the profile; of several that fit a call the first decides
    /// Also the calls of 32-bit programs (i386 on x86-64, ARM on aarch64), by the same rules; implied by
    /// Personality::linux32. Else such a program is killed at its first call, as one for x32 always is. Some of theirs
    /// have names of their own, which a rule must say: umount beside umount2, chown32 beside chown. i386 has calls
    /// through which sockets are made and used with arguments in memory, where no filter can tell AF_ALG from others:
    /// a rule about arguments of those is an error.
    bool compat = false;
    /// Nothing is refused; what would be is told to auditd(8) as type 1326, or without one to the kernel's log
    /// (dmesg(1)), which takes ten records in five seconds.
    bool audit = false;
    friend bool operator==(const SeccompSpec&, const SeccompSpec&) = default;
};

}  // namespace caisson::inline v0
