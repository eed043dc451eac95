// src/check_seccomp.cpp - what makes a spec's system call filter impossible.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <range/v3/algorithm/contains.hpp>
#include <range/v3/algorithm/count.hpp>
#include <range/v3/view/enumerate.hpp>

#include <caisson/detail/filter.hpp>
#include <caisson/error.hpp>

#include "check_parts.hpp"
#include "seccomp/calls.hpp"

namespace caisson::inline v0::checking {
namespace {

using detail::quote;
namespace views = ranges::views;

/// What the stage calls once a filter is in force; see src/stage/init.cpp.
constexpr std::string_view of_each_start[] = {"rt_sigprocmask", "write", "execve"};
constexpr std::string_view of_a_start_that_keeps_privileges[] = {"capget",    "capset",    "close_range", "dup3",
                                                                 "fcntl",     "ppoll",     "prctl",       "prlimit64",
                                                                 "setgroups", "setresgid", "setresuid"};
/// The same of a command in a running container, see src/stage/visit.cpp.
constexpr std::string_view of_each_exec[] = {"clone", "exit_group", "prctl", "ppoll", "setsid"};
constexpr std::string_view of_an_exec_with_a_console = "ioctl";
constexpr std::string_view of_an_exec_with_a_limit_of_processes = "prlimit64";

#if defined(__x86_64__)
/// i386 has two calls, socketcall(2) and ipc(2), that stand for these.
constexpr std::string_view of_memory[] = {
    "accept", "accept4", "bind",   "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "msgctl", "msgget",  "msgrcv", "msgsnd",  "recv",        "recvfrom",    "recvmmsg",   "recvmsg",
    "semctl", "semget",  "semop",  "send",    "sendmmsg",    "sendmsg",     "sendto",     "setsockopt",
    "shmat",  "shmctl",  "shmdt",  "shmget",  "shutdown",    "socket",      "socketpair", "semtimedop"};
#else
constexpr std::array<std::string_view, 0> of_memory;
#endif

void check_arguments(const std::string& field, const SeccompRule& rule, bool compat) {
    if (compat && !rule.arguments.empty() && ranges::contains(of_memory, rule.call)) {
        refuse(field + ".arguments", "of 32-bit programs no filter can see those of " + quote(rule.call),
               "leave them out, or do without seccomp.compat and Personality::linux32");
    }
    for (auto&& [j, argument] : views::enumerate(rule.arguments)) {
        const std::string name = field + indexed(".arguments", j);
        if (argument.index > 5) {
            refuse(name + ".index", std::to_string(argument.index) + " is no argument's number", "they are 0 to 5");
        }
        if (ranges::count(rule.arguments, argument.index, &SeccompArgument::index) > 1) {
            refuse(name + ".index", "argument " + std::to_string(argument.index) + " is compared twice",
                   "one comparison of each argument is possible");
        }
        const bool masked = argument.comparison == SeccompArgument::Operator::masked_equal;
        if (!masked && argument.mask != 0) {
            refuse(name + ".mask", std::to_string(argument.mask) + " has no meaning here", "only masked_equal has one");
        }
        if (masked && (argument.value & ~argument.mask) != 0) {
            refuse(name + ".value", std::to_string(argument.value) + " has bits that the mask takes away",
                   "no argument would ever fit");
        }
    }
}

/// Keeps every call of that name from being made.
bool forbids(const SeccompSpec& wanted, const SeccompRule& rule) {
    return rule.action != SeccompRule::Action::allow && rule.arguments.empty() && !wanted.audit;
}

}  // namespace

bool is_called_by_exec(const ContainerSpec& command, bool has_console, std::string_view call) {
    const bool has_limit = ranges::contains(command.resource_limits, ResourceLimit::Kind::nproc, &ResourceLimit::kind);
    return ranges::contains(of_each_exec, call) || (has_console && call == of_an_exec_with_a_console) ||
           (has_limit && call == of_an_exec_with_a_limit_of_processes);
}

void check_seccomp_of_exec(const ContainerSpec& command, bool has_console) {
    for (auto&& [i, rule] : views::enumerate(command.seccomp.rules)) {
        if (!is_called_by_exec(command, has_console, rule.call) || !forbids(command.seccomp, rule)) continue;
        refuse(indexed("seccomp.rules", i),
               quote(rule.call) + " is what the start of a command in a running container calls under the filter",
               "give the command a seccomp without it, or tell by arguments which calls are meant");
    }
}

void check_seccomp(const ContainerSpec& spec) {
    const SeccompSpec& wanted = spec.seccomp;
    if (wanted.profile == SeccompProfile::none && wanted.rules.empty()) return;
    if (!seccomp::available) {
        refuse("seccomp", "this build of caisson has no system call filters",
               "rebuild it with -Dseccomp=enabled, or set seccomp.profile to none, and seccomp.rules to nothing");
    }
    const bool compat = wanted.compat || spec.personality == Personality::linux32;
    for (auto&& [i, rule] : views::enumerate(wanted.rules)) {
        const std::string field = indexed("seccomp.rules", i);
        const seccomp::Known known = seccomp::find_call(rule.call, compat);
        if (rule.call.find('\0') != std::string::npos || known == seccomp::Known::no) {
            refuse(field + ".call", quote(rule.call) + " is no system call that libseccomp knows",
                   "write it as syscalls(2) does");
        }
        if (known == seccomp::Known::foreign) {
            refuse(field + ".call", quote(rule.call) + " is no system call that the container's programs could make",
                   compat ? "leave it out"
                          : "name the one that does the same (umount2, not umount), or set seccomp.compat where 32-bit "
                            "programs are meant");
        }
        if (compat && known == seccomp::Known::native_only) {
            refuse(field + ".call",
                   quote(rule.call) +
                       " is newer than libseccomp, which cannot tell its number in 32-bit "
                       "programs",
                   "build with a newer libseccomp, or without seccomp.compat");
        }
        if (rule.action == SeccompRule::Action::refuse && (rule.errnum < 1 || rule.errnum > 4094)) {
            refuse(field + ".errnum", std::to_string(rule.errnum) + " is no error number", "they are 1 to 4094");
        }
        check_arguments(field, rule, compat);
        const bool is_needed =
            ranges::contains(of_each_start, rule.call) ||
            (!spec.no_new_privileges && ranges::contains(of_a_start_that_keeps_privileges, rule.call));
        if (is_needed && forbids(wanted, rule)) {
            refuse(field, quote(rule.call) + " is what the start itself calls under the filter",
                   spec.no_new_privileges ? "tell by arguments which calls are meant"
                                          : "tell by arguments which calls are meant, or set no_new_privileges");
        }
    }
    if (!wanted.rules.empty()) (void)detail::filter_program(spec);
}

}  // namespace caisson::inline v0::checking
