// src/seccomp/program.hpp - filter programs in pieces: what a piece says where it cannot decide, and the calls that
// libseccomp does not know. For the generator at build time and for the library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>

namespace caisson::inline v0::seccomp {

/// Instructions; jumps go forward only, so a program may be put in front of another.
using Program = std::vector<sock_filter>;

// What a piece says where it cannot decide yet. No filter of this library is for a tracer, so the kernel's action for
// one is free to stand for these, with what is meant in its data; all are gone before a filter is loaded.
inline constexpr std::uint32_t next_piece = SECCOMP_RET_TRACE;
inline constexpr std::uint32_t kill = SECCOMP_RET_TRACE | 1;
inline constexpr std::uint32_t if_capability = SECCOMP_RET_TRACE | 0x100;  ///< and its number
[[nodiscard]] constexpr std::uint32_t refuse(int errnum) noexcept {
    return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errnum);
}

[[nodiscard]] constexpr bool is_return(const sock_filter& instruction) noexcept {
    return instruction.code == (BPF_RET | BPF_K);
}

/// Calls that libseccomp may be too old for; their numbers are the same on every architecture.
struct NewCall {
    std::string_view name;
    int number;
};
inline constexpr NewCall new_calls[] = {{"epoll_pwait2", 441},      {"mount_setattr", 442},
                                        {"quotactl_fd", 443},       {"landlock_create_ruleset", 444},
                                        {"landlock_add_rule", 445}, {"landlock_restrict_self", 446},
                                        {"memfd_secret", 447},      {"process_mrelease", 448},
                                        {"futex_waitv", 449},       {"set_mempolicy_home_node", 450},
                                        {"cachestat", 451},         {"fchmodat2", 452},
                                        {"map_shadow_stack", 453},  {"futex_wake", 454},
                                        {"futex_wait", 455},        {"futex_requeue", 456},
                                        {"statmount", 457},         {"listmount", 458},
                                        {"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460},
                                        {"lsm_list_modules", 461},  {"mseal", 462},
                                        {"setxattrat", 463},        {"getxattrat", 464},
                                        {"listxattrat", 465},       {"removexattrat", 466},
                                        {"open_tree_attr", 467},    {"file_getattr", 468},
                                        {"file_setattr", 469}};
/// The first number that the lists know nothing of.
inline constexpr int end_of_calls = 470;

/// The number of a call in `new_calls`, -1 for none.
[[nodiscard]] constexpr int new_call(std::string_view name) noexcept {
    for (const NewCall& call : new_calls) {
        if (call.name == name) return call.number;
    }
    return -1;
}

}  // namespace caisson::inline v0::seccomp
