// src/seccomp.cpp - filters: the spec's rules, compiled by libseccomp, before a profile that was compiled at build
// time.
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/filter.hpp>
#include <caisson/fd.hpp>

#include "check_parts.hpp"
#include "seccomp/calls.hpp"
#include "seccomp/program.hpp"

namespace caisson::inline v0 {
namespace {

using namespace seccomp;

#include "seccomp_profiles.inc"

#if defined(__x86_64__)
constexpr std::uint32_t native_architecture = SCMP_ARCH_X86_64;
constexpr std::uint32_t compat_architecture = SCMP_ARCH_X86;
#else
constexpr std::uint32_t native_architecture = SCMP_ARCH_AARCH64;
constexpr std::uint32_t compat_architecture = SCMP_ARCH_ARM;
#endif

void require(int result, std::size_t index) {
    if (result < 0) throw Error{Step::check_spec, -result, checking::indexed("seccomp.rules", index) + ": libseccomp"};
}

/// One rule as a program that leaves to the next piece what the rule is not for.
class Piece {
public:
    Piece() : filter_{::seccomp_init(next_piece)} {
        if (filter_ == nullptr) throw std::bad_alloc{};
    }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;
    ~Piece() { ::seccomp_release(filter_); }

    [[nodiscard]] int make(const SeccompRule& rule, bool compat) noexcept {
        int result = ::seccomp_attr_set(filter_, SCMP_FLTATR_ACT_BADARCH, next_piece);
        int number = ::seccomp_syscall_resolve_name(rule.call.c_str());
        const bool is_new = number == __NR_SCMP_ERROR;
        if (is_new) number = new_call(rule.call);
        if (result == 0 && compat && !is_new) result = ::seccomp_arch_add(filter_, compat_architecture);
        scmp_arg_cmp arguments[6]{};
        unsigned count = 0;
        for (const SeccompArgument& argument : rule.arguments) {
            if (count < 6) arguments[count++] = comparison(argument);
        }
        const std::uint32_t action = rule.action == SeccompRule::Action::allow  ? SECCOMP_RET_ALLOW
                                     : rule.action == SeccompRule::Action::kill ? kill
                                                                                : refuse(rule.errnum);
        return result == 0 ? ::seccomp_rule_add_array(filter_, action, number, count, arguments) : result;
    }
    [[nodiscard]] int compile(Program& program) const {
        const Fd file{::memfd_create("caisson-seccomp", MFD_CLOEXEC)};
        if (!file) return -errno;
        if (const int result = ::seccomp_export_bpf(filter_, file.get()); result < 0) return result;
        struct stat st {};
        if (::fstat(file.get(), &st) != 0) return -errno;
        const auto size = static_cast<std::size_t>(st.st_size);
        program.resize(size / sizeof(sock_filter));
        return ::pread(file.get(), program.data(), size, 0) == st.st_size ? 0 : -EIO;
    }

private:
    [[nodiscard]] static scmp_arg_cmp comparison(const SeccompArgument& a) noexcept {
        using Operator = SeccompArgument::Operator;
        switch (a.comparison) {
            case Operator::equal: return {a.index, SCMP_CMP_EQ, a.value, 0};
            case Operator::not_equal: return {a.index, SCMP_CMP_NE, a.value, 0};
            case Operator::less: return {a.index, SCMP_CMP_LT, a.value, 0};
            case Operator::less_or_equal: return {a.index, SCMP_CMP_LE, a.value, 0};
            case Operator::greater: return {a.index, SCMP_CMP_GT, a.value, 0};
            case Operator::greater_or_equal: return {a.index, SCMP_CMP_GE, a.value, 0};
            case Operator::masked_equal: break;
        }
        return {a.index, SCMP_CMP_MASKED_EQ, a.mask, a.value};
    }

    scmp_filter_ctx filter_;
};

/// Puts `next` behind `program`, which leaves to it what it does not decide.
void append(Program& program, const sock_filter* next, std::size_t size) {
    for (std::size_t i = 0; i < program.size(); ++i) {
        if (!is_return(program[i]) || program[i].k != next_piece) continue;
        program[i] = {BPF_JMP | BPF_JA, 0, 0, static_cast<std::uint32_t>(program.size() - i - 1)};
    }
    program.insert(program.end(), next, next + size);
}
/// Every call of the architectures that the rules hold for: another one's would be a way around them.
Program everything_of(bool compat) {
    constexpr std::uint32_t x32 = 0x40000000;
    constexpr std::uint32_t no_call = 0xffffffff;  // a tracer answers in the kernel's place
    const auto word = [](std::size_t offset) {
        return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
    };
    return {word(offsetof(seccomp_data, arch)),
            {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, native_architecture},
            word(offsetof(seccomp_data, nr)),
            {BPF_JMP | BPF_JEQ | BPF_K, 2, 0, no_call},
            {BPF_JMP | BPF_JGE | BPF_K, 2, 1, x32},
            {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, compat ? compat_architecture : native_architecture},
            {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
            {BPF_RET | BPF_K, 0, 0, kill}};
}
void append_profile(Program& program, SeccompProfile profile, bool compat) {
    const auto add = [&](const auto& native, const auto& both) {
        if (compat) append(program, both, std::size(both));
        else append(program, native, std::size(native));
    };
    switch (profile) {
        case SeccompProfile::none: {
            const Program everything = everything_of(compat);
            return append(program, everything.data(), everything.size());
        }
        case SeccompProfile::application: return add(application_native, application_compat);
        case SeccompProfile::system: return add(system_native, system_compat);
    }
}

/// What is really done where a piece says `action`.
std::uint32_t completed(std::uint32_t action, const ContainerSpec& spec) {
    if (action == kill) action = SECCOMP_RET_KILL_PROCESS;
    if ((action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_TRACE) {
        const bool held = spec.capabilities.bounding.has(action - if_capability);
        action = held ? SECCOMP_RET_ALLOW : refuse(EPERM);
    }
    return spec.seccomp.audit && action != SECCOMP_RET_ALLOW ? SECCOMP_RET_LOG : action;
}

}  // namespace

const bool seccomp::available = true;

seccomp::Known seccomp::find_call(const std::string& name, bool compat) {
    // What an architecture lacks has a negative number there.
    const int number = ::seccomp_syscall_resolve_name(name.c_str());
    if (number != __NR_SCMP_ERROR) {
        const bool is_made =
            number >= 0 || (compat && ::seccomp_syscall_resolve_name_arch(compat_architecture, name.c_str()) >= 0);
        return is_made ? Known::yes : Known::foreign;
    }
    return new_call(name) >= 0 ? Known::native_only : Known::no;
}

std::vector<std::uint64_t> detail::filter_program(const ContainerSpec& spec) {
    const SeccompSpec& wanted = spec.seccomp;
    if (wanted.profile == SeccompProfile::none && wanted.rules.empty()) return {};
    const bool compat = wanted.compat || spec.personality == Personality::linux32;
    Program program;
    for (std::size_t i = 0; i < wanted.rules.size(); ++i) {
        Piece piece;
        Program one;
        require(piece.make(wanted.rules[i], compat), i);
        require(piece.compile(one), i);
        append(program, one.data(), one.size());
    }
    append_profile(program, wanted.profile, compat);
    if (program.size() > BPF_MAXINSNS) {
        checking::refuse("seccomp.rules", "the filter has " + std::to_string(program.size()) + " instructions",
                         "the kernel takes 4096: give fewer rules");
    }
    for (sock_filter& instruction : program) {
        if (is_return(instruction)) instruction.k = completed(instruction.k, spec);
    }
    std::vector<std::uint64_t> bytes(program.size());
    static_assert(sizeof(sock_filter) == sizeof(std::uint64_t));
    std::memcpy(bytes.data(), program.data(), program.size() * sizeof(sock_filter));
    return bytes;
}

}  // namespace caisson::inline v0
