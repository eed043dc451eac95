#include <caisson/detail/filter.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/seccomp.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <caisson/check.hpp>
#include <caisson/spec.hpp>

#include "support/doctest.hpp"
#include "support/filter.hpp"
#include "support/syscall_table.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

#include "seccomp_aarch64.inc"

using Program = std::vector<sock_filter>;
using Operator = SeccompArgument::Operator;
using Action = SeccompRule::Action;

constexpr std::uint32_t allow = SECCOMP_RET_ALLOW;
constexpr std::uint32_t killed = SECCOMP_RET_KILL_PROCESS;
constexpr std::uint32_t refused(int errnum) {
    return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errnum);
}
#if defined(__x86_64__)
constexpr std::uint32_t native = AUDIT_ARCH_X86_64;
constexpr std::uint32_t compat = AUDIT_ARCH_I386;
constexpr int nr_read = 0, nr_ioctl = 16, nr_getpid = 39, nr_socket = 41, nr_clone = 56, nr_personality = 135,
              nr_mount = 165, nr_reboot = 169, nr_bpf = 321;
constexpr int compat_ioctl = 54, compat_mount = 21, compat_socket = 359, compat_socketcall = 102;
#else
constexpr std::uint32_t native = AUDIT_ARCH_AARCH64;
constexpr std::uint32_t compat = AUDIT_ARCH_ARM;
constexpr int nr_read = 63, nr_ioctl = 29, nr_getpid = 172, nr_socket = 198, nr_clone = 220, nr_personality = 92,
              nr_mount = 40, nr_reboot = 142, nr_bpf = 280;
constexpr int compat_ioctl = 54, compat_mount = 21, compat_socket = 281, compat_socketcall = 281;
#endif
constexpr int nr_statmount = 457, nr_open_tree_attr = 467, nr_of_the_future = 999;

Program program(const ContainerSpec& spec) {
    return instructions(detail::filter_program(spec));
}
ContainerSpec with(SeccompProfile profile, std::vector<SeccompRule> rules = {}) {
    ContainerSpec spec = profile == SeccompProfile::system ? ContainerSpec::system() : ContainerSpec{};
    spec.seccomp.profile = profile;
    spec.seccomp.rules = std::move(rules);
    return spec;
}
seccomp_data data(std::uint32_t arch, int nr, std::initializer_list<std::uint64_t> arguments = {}) {
    seccomp_data d{};
    d.nr = nr;
    d.arch = arch;
    std::copy(arguments.begin(), arguments.end(), d.args);
    return d;
}
std::uint32_t of(const Program& program, int nr, std::initializer_list<std::uint64_t> arguments = {}) {
    return verdict(program, data(native, nr, arguments)).action;
}

/// The message of a spec that is to be refused.
std::string refusal(const ContainerSpec& spec) {
    try {
        check(spec);
        return "it is accepted";
    } catch (const Error& e) {
        CHECK(e.step() == Step::check_spec);
        return e.what();
    }
}
ContainerSpec complete(std::vector<SeccompRule> rules) {
    ContainerSpec spec = with(SeccompProfile::application, std::move(rules));
    spec.name = "test";
    spec.root = "/srv/test";
    spec.command = {"/bin/true"};
    return spec;
}

}  // namespace

TEST_CASE("the profiles do to every system call of x86-64 what the table says") {
#if defined(__x86_64__)
    const Program application = program(with(SeccompProfile::application));
    const Program system = program(with(SeccompProfile::system));
    const auto word = [](const Program& program, int number) -> std::string {
        const Verdict found = verdict(program, data(native, number));
        return found.looked_at_arguments         ? "arguments"
               : found.action == allow           ? "allow"
               : found.action == refused(EPERM)  ? "EPERM"
               : found.action == refused(ENOSYS) ? "ENOSYS"
                                                 : std::to_string(found.action);
    };
    for (const TableRow& row : syscall_table(CAISSON_TEST_TABLE)) {
        CAPTURE(row.number);
        CAPTURE(row.name);
        CHECK(word(application, row.number) == row.application);
        CHECK(word(system, row.number) == row.system);
    }
#else
    CAISSON_SKIP("the table is of x86-64");
#endif
}

TEST_CASE("what the kernel cuts to 32 bits is compared in 32 bits") {
    for (const SeccompProfile profile : {SeccompProfile::application, SeccompProfile::system}) {
        const Program filter = program(with(profile));
        for (const std::uint64_t above : {0ULL, 1ULL << 32, 0xffffffffULL << 32}) {
            CAPTURE(above);
            CHECK(of(filter, nr_ioctl, {0, above | 0x5412}) == refused(EPERM));
            CHECK(of(filter, nr_ioctl, {0, above | 0x541c}) == refused(EPERM));
            CHECK(of(filter, nr_ioctl, {0, above | 0x5413}) == allow);
            CHECK(of(filter, nr_socket, {above | 38, 5, 0}) == refused(EPERM));
            CHECK(of(filter, nr_socket, {above | 40, 1, 0}) == refused(EPERM));
            CHECK(of(filter, nr_socket, {above | 16, 3, above | 9}) == refused(EAFNOSUPPORT));
            for (const std::uint64_t family : {1u, 2u, 10u, 16u, 17u, 29u, 37u, 39u, 41u}) {
                CHECK(of(filter, nr_socket, {above | family, 1, 0}) == allow);
            }
        }
    }
}

TEST_CASE("an application gets no namespace by clone, and a clone3 that libc can do without") {
    const Program application = program(with(SeccompProfile::application));
    const Program system = program(with(SeccompProfile::system));
    for (const std::uint64_t flag :
         {0x20000u, 0x2000000u, 0x4000000u, 0x8000000u, 0x10000000u, 0x20000000u, 0x40000000u}) {
        CAPTURE(flag);
        CHECK(of(application, nr_clone, {flag | 17}) == refused(EPERM));
        CHECK(of(system, nr_clone, {flag | 17}) == allow);
    }
    CHECK(of(application, nr_clone, {0x3d0f00}) == allow);  // a thread
    CHECK(of(application, 435) == refused(ENOSYS));
    CHECK(of(system, 435) == allow);
}

TEST_CASE("an application may change its personality to 32 bits and back, and ask for it") {
    const Program application = program(with(SeccompProfile::application));
    for (const std::uint64_t value : {0x0u, 0x8u, 0x20000u, 0x20008u, 0xffffffffu}) {
        CHECK(of(application, nr_personality, {value}) == allow);
    }
    constexpr std::uint64_t addr_no_randomize = 0x40000;
    CHECK(of(application, nr_personality, {addr_no_randomize}) == refused(EPERM));
    CHECK(of(program(with(SeccompProfile::system)), nr_personality, {addr_no_randomize}) == allow);
}

TEST_CASE("calls that the profile has never heard of do not exist") {
    for (const SeccompProfile profile : {SeccompProfile::application, SeccompProfile::system}) {
        const Program filter = program(with(profile));
        CHECK(of(filter, nr_of_the_future) == refused(ENOSYS));
        CHECK(of(filter, 0x3fffffff) == refused(ENOSYS));
        // A tracer answers in the kernel's place.
        CHECK(of(filter, -1) == allow);
    }
}

TEST_CASE("another architecture is no way around, with and without compat") {
    for (const SeccompProfile profile : {SeccompProfile::application, SeccompProfile::system}) {
        ContainerSpec spec = with(profile);
        Program filter = program(spec);
        for (int nr = 0; nr < rows_of_table; ++nr) {
            CHECK(verdict(filter, data(compat, nr)).action == killed);
            CHECK(verdict(filter, data(AUDIT_ARCH_MIPS, nr)).action == killed);
#if defined(__x86_64__)
            CHECK(of(filter, nr | 0x40000000) == killed);
#endif
        }
        spec.seccomp.compat = true;
        const Program both = program(spec);
        spec.seccomp.compat = false;
        spec.personality = Personality::linux32;
        CHECK(detail::filter_program(spec).size() == both.size());
        filter = program(spec);
        CHECK(verdict(filter, data(compat, 3)).action == allow);  // read
        CHECK(verdict(filter, data(compat, compat_ioctl, {0, 0x5412})).action == refused(EPERM));
        CHECK(verdict(filter, data(compat, compat_socket, {38})).action == refused(EPERM));
        CHECK(verdict(filter, data(compat, compat_socket, {2})).action == allow);
        CHECK(verdict(filter, data(compat, compat_socketcall, {1})).action == allow);
        CHECK(verdict(filter, data(compat, nr_of_the_future)).action == refused(ENOSYS));
        CHECK(verdict(filter, data(compat, compat_mount)).action ==
              (profile == SeccompProfile::system ? allow : refused(EPERM)));
        CHECK(of(filter, nr_read) == allow);
        CHECK(verdict(filter, data(AUDIT_ARCH_MIPS, 0)).action == killed);
#if defined(__x86_64__)
        CHECK(of(filter, nr_getpid | 0x40000000) == killed);
#endif
    }
}

TEST_CASE("calls of a capability are allowed where the bounding set has it, and mounts are not among them") {
    ContainerSpec spec = with(SeccompProfile::application);
    CHECK(of(program(spec), nr_reboot) == refused(EPERM));
    CHECK(of(program(spec), nr_bpf) == refused(EPERM));
    spec.capabilities.bounding = spec.capabilities.bounding.with({"sys_boot", "sys_admin"});
    CHECK(of(program(spec), nr_reboot) == allow);
    CHECK(of(program(spec), nr_bpf) == refused(EPERM));
    CHECK(of(program(spec), nr_mount) == refused(EPERM));
    spec.capabilities.bounding = CapabilitySet::all();
    CHECK(of(program(spec), nr_bpf) == allow);
    CHECK(of(program(spec), nr_mount) == refused(EPERM));
}

TEST_CASE("the program for aarch64 refuses what the one for x86-64 does") {
    const auto a = [](const auto& filter, std::uint32_t arch, int nr, std::initializer_list<std::uint64_t> arguments) {
        return verdict({std::begin(filter), std::end(filter)}, data(arch, nr, arguments)).action;
    };
    const auto same = [&](const auto& application, const auto& system) {
        CHECK(a(application, AUDIT_ARCH_AARCH64, 63, {}) == allow);                         // read
        CHECK(a(application, AUDIT_ARCH_AARCH64, 29, {0, 0x100005412}) == refused(EPERM));  // ioctl
        CHECK(a(application, AUDIT_ARCH_AARCH64, 198, {38}) == refused(EPERM));             // socket
        CHECK(a(application, AUDIT_ARCH_AARCH64, 40, {}) == refused(EPERM));                // mount
        CHECK(a(system, AUDIT_ARCH_AARCH64, 40, {}) == allow);
        CHECK(a(application, AUDIT_ARCH_AARCH64, 220, {0x10000011}) == refused(EPERM));  // clone
        CHECK(a(application, AUDIT_ARCH_AARCH64, 435, {}) == refused(ENOSYS));           // clone3
        CHECK(a(system, AUDIT_ARCH_AARCH64, 425, {}) == refused(EPERM));                 // io_uring_setup
        CHECK(a(system, AUDIT_ARCH_AARCH64, nr_of_the_future, {}) == refused(ENOSYS));
    };
    same(application_native, system_native);
    same(application_compat, system_compat);
    CHECK(a(application_compat, AUDIT_ARCH_ARM, 0xf0002, {}) == allow);  // cacheflush
    CHECK(a(application_compat, AUDIT_ARCH_ARM, 21, {}) == refused(EPERM));
    CHECK(a(application_compat, AUDIT_ARCH_ARM, 281, {40}) == refused(EPERM));
}

TEST_CASE("of the rules that fit a call the first decides, and they come before the profile") {
    const Program filter =
        program(with(SeccompProfile::application, {{"mount", Action::allow, 0, {{3, Operator::equal, 7}}},
                                                   {"mount", Action::refuse, EACCES},
                                                   {"read", Action::kill, 0, {{0, Operator::greater, 9}}},
                                                   {"ioctl", Action::allow},
                                                   {"ioctl", Action::refuse, EIO},
                                                   {"statmount", Action::refuse, EBUSY},
                                                   {"open_tree_attr", Action::allow}}));
    CHECK(of(filter, nr_mount, {0, 0, 0, 7}) == allow);
    CHECK(of(filter, nr_mount, {0, 0, 0, 8}) == refused(EACCES));
    CHECK(of(filter, nr_read, {9}) == allow);
    CHECK(of(filter, nr_read, {10}) == killed);
    CHECK(of(filter, nr_ioctl, {0, 0x5412}) == allow);
    CHECK(of(filter, nr_statmount) == refused(EBUSY));
    CHECK(of(filter, nr_open_tree_attr) == allow);
    CHECK(of(filter, nr_getpid) == allow);
    CHECK(of(filter, nr_bpf) == refused(EPERM));
    CHECK(verdict(filter, data(compat, 3)).action == killed);
}

TEST_CASE("rules alone make a filter that allows the rest, and no way around them; without rules there is none") {
    CHECK(detail::filter_program(with(SeccompProfile::none)).empty());
    ContainerSpec spec = with(SeccompProfile::none, {{"mount"}});
    const auto of_both = [&] {
        const Program filter = program(spec);
        CHECK(of(filter, nr_mount) == refused(EPERM));
        CHECK(of(filter, nr_bpf) == allow);
        CHECK(of(filter, nr_of_the_future) == allow);
        CHECK(of(filter, -1) == allow);
        CHECK(verdict(filter, data(AUDIT_ARCH_MIPS, compat_mount)).action == killed);
#if defined(__x86_64__)
        CHECK(of(filter, nr_mount | 0x40000000) == killed);
        CHECK(of(filter, nr_getpid | 0x40000000) == killed);
#endif
        return filter;
    };
    const Program native_only = of_both();
    CHECK(verdict(native_only, data(compat, compat_mount)).action == killed);
    CHECK(verdict(native_only, data(compat, compat_ioctl)).action == killed);
    spec.seccomp.compat = true;
    const Program both = of_both();
    CHECK(verdict(both, data(compat, compat_mount)).action == refused(EPERM));
    CHECK(verdict(both, data(compat, compat_ioctl)).action == allow);
}

TEST_CASE("comparisons are of all 64 bits, and all of a rule must hold") {
    std::mt19937_64 random{20261126};
    // Values near each other, in both halves.
    const auto value = [&] { return (random() % 3) << 32 | (random() % 3); };
    const auto holds = [](const SeccompArgument& a, std::uint64_t given) {
        switch (a.comparison) {
            case Operator::equal: return given == a.value;
            case Operator::not_equal: return given != a.value;
            case Operator::less: return given < a.value;
            case Operator::less_or_equal: return given <= a.value;
            case Operator::greater: return given > a.value;
            case Operator::greater_or_equal: return given >= a.value;
            case Operator::masked_equal: return (given & a.mask) == a.value;
        }
        return false;
    };
    for (int round = 0; round < 200; ++round) {
        SeccompRule rule{"mount", Action::refuse, 1 + static_cast<int>(random() % 4095)};
        const auto count = random() % 3;
        for (std::uint8_t index = 0; index < count; ++index) {
            SeccompArgument argument{static_cast<std::uint8_t>(index * 2), static_cast<Operator>(random() % 7),
                                     value()};
            if (argument.comparison == Operator::masked_equal) {
                argument.mask = value();
                argument.value &= argument.mask;
            }
            rule.arguments.push_back(argument);
        }
        const Program filter = program(with(SeccompProfile::none, {rule}));
        for (int attempt = 0; attempt < 50; ++attempt) {
            const seccomp_data call = data(native, nr_mount, {value(), value(), value(), value(), value(), value()});
            const bool fits = std::all_of(rule.arguments.begin(), rule.arguments.end(),
                                          [&](const SeccompArgument& a) { return holds(a, call.args[a.index]); });
            CHECK(verdict(filter, call).action == (fits ? refused(rule.errnum) : allow));
        }
    }
}

TEST_CASE("an audit refuses nothing and tells of all that would be") {
    ContainerSpec spec = with(SeccompProfile::application, {{"read", Action::kill}, {"getpid", Action::refuse}});
    spec.seccomp.audit = true;
    const Program filter = program(spec);
    for (const sock_filter& i : filter) {
        if (i.code == (BPF_RET | BPF_K)) CHECK((i.k == allow || i.k == SECCOMP_RET_LOG));
    }
    CHECK(of(filter, nr_read) == SECCOMP_RET_LOG);
    CHECK(of(filter, nr_getpid) == SECCOMP_RET_LOG);
    CHECK(of(filter, nr_mount) == SECCOMP_RET_LOG);
    CHECK(verdict(filter, data(compat, 3)).action == SECCOMP_RET_LOG);
    CHECK(of(filter, nr_ioctl) == allow);
}

TEST_CASE("a rule that cannot be is refused with its place, its value and what to do") {
    CHECK(refusal(complete({{"mount"}, {"mont"}})) ==
          "seccomp.rules[1].call: 'mont' is no system call that libseccomp knows: write it as syscalls(2) does");
    CHECK(refusal(complete({{""}})) ==
          "seccomp.rules[0].call: '' is no system call that libseccomp knows: write it as syscalls(2) does");
    CHECK(refusal(complete({{std::string{"mount\0x", 7}}})).find("seccomp.rules[0].call: ") == 0);
    CHECK(refusal(complete({{"mount", Action::refuse, 0}})) ==
          "seccomp.rules[0].errnum: 0 is no error number: they are 1 to 4094");
    CHECK(refusal(complete({{"mount", Action::refuse, 4095}})) ==
          "seccomp.rules[0].errnum: 4095 is no error number: they are 1 to 4094");
    CHECK(refusal(complete({{"mount", Action::refuse, 4094}})) == "it is accepted");
    CHECK(refusal(complete({{"mount", Action::allow, 0}})) == "it is accepted");
    CHECK(refusal(complete({{"mount", Action::refuse, 1, {{6}}}})) ==
          "seccomp.rules[0].arguments[0].index: 6 is no argument's number: they are 0 to 5");
    CHECK(refusal(complete({{"mount", Action::refuse, 1, {{0}, {1}, {0}}}})) ==
          "seccomp.rules[0].arguments[0].index: argument 0 is compared twice: one comparison of each argument "
          "is possible");
    CHECK(refusal(complete({{"mount", Action::refuse, 1, {{0, Operator::less, 1, 2}}}})) ==
          "seccomp.rules[0].arguments[0].mask: 2 has no meaning here: only masked_equal has one");
    CHECK(refusal(complete({{"mount", Action::refuse, 1, {{0, Operator::masked_equal, 5, 4}}}})) ==
          "seccomp.rules[0].arguments[0].value: 5 has bits that the mask takes away: no argument would ever fit");
#if defined(__x86_64__)
    for (const char* call : {"socket", "connect", "semget"}) {
        ContainerSpec both = complete({{call, Action::allow, 0, {{1, Operator::equal, 1}}}, {call}});
        CHECK(refusal(both) == "it is accepted");
        both.personality = Personality::linux32;
        CHECK(refusal(both) == "seccomp.rules[0].arguments: of 32-bit programs no filter can see those of '" +
                                   std::string{call} +
                                   "': leave them out, or do without seccomp.compat and Personality::linux32");
        both.seccomp.rules.erase(both.seccomp.rules.begin());
        CHECK(refusal(both) == "it is accepted");
    }
    for (const char* call : {"umount", "socketcall", "breakpoint"}) {
        CAPTURE(call);
        ContainerSpec foreign = complete({{call}});
        const std::string none = "seccomp.rules[0].call: '" + std::string{call} +
                                 "' is no system call that the container's programs could make: ";
        CHECK(refusal(foreign) == none +
                                      "name the one that does the same (umount2, not umount), or set seccomp.compat "
                                      "where 32-bit programs are meant");
        foreign.seccomp.compat = true;
        const bool is_of_arm = std::string{call} == "breakpoint";
        CHECK(refusal(foreign) == (is_of_arm ? none + "leave it out" : "it is accepted"));
    }
#endif
    ContainerSpec spec = complete({{"statmount"}});
    CHECK(refusal(spec) == "it is accepted");
    spec.seccomp.compat = true;
    const std::string newer = refusal(spec);
    // A libseccomp that knows it makes a rule for both.
    CHECK((newer == "it is accepted" ||
           newer == "seccomp.rules[0].call: 'statmount' is newer than libseccomp, which cannot tell its number in "
                    "32-bit programs: build with a newer libseccomp, or without seccomp.compat"));
    const std::vector<SeccompRule> many(400,
                                        {"mount", Action::refuse, 1, {{0, Operator::less, std::uint64_t{1} << 40}}});
    const std::string text = refusal(complete(many));
    CAPTURE(text);
    CHECK(text.find("seccomp.rules: the filter has ") == 0);
    CHECK(text.find(" instructions: the kernel takes 4096: give fewer rules") != std::string::npos);
}

TEST_CASE("a rule that refuses what the start itself calls is refused, unless it tells which calls by arguments") {
    CHECK(refusal(complete({{"execve"}})) ==
          "seccomp.rules[0]: 'execve' is what the start itself calls under the filter: tell by arguments which calls "
          "are meant");
    CHECK(refusal(complete({{"write", Action::kill}})).find("seccomp.rules[0]: 'write' is what the start") == 0);
    CHECK(refusal(complete({{"execve", Action::allow}})) == "it is accepted");
    CHECK(refusal(complete({{"execve", Action::refuse, 1, {{0}}}})) == "it is accepted");
    CHECK(refusal(complete({{"setresuid"}})) == "it is accepted");
    ContainerSpec spec = complete({{"setresuid"}});
    spec.no_new_privileges = false;
    CHECK(refusal(spec) ==
          "seccomp.rules[0]: 'setresuid' is what the start itself calls under the filter: tell by arguments which "
          "calls are meant, or set no_new_privileges");
    spec.seccomp.audit = true;
    CHECK(refusal(spec) == "it is accepted");
}

TEST_CASE("a kernel that takes no filter is told from a user who may not load one") {
    const auto remedy = [](int errnum) {
        return std::string{detail::remedy_of(ContainerSpec{}, Step::credentials, errnum, "system call filter", false)};
    };
    CHECK(remedy(EACCES) == "without no_new_privileges this needs CAP_SYS_ADMIN: run as root, or set it");
    CHECK(remedy(EINVAL) ==
          "this kernel has no filters (CONFIG_SECCOMP_FILTER): set seccomp.profile to none, and seccomp.rules to "
          "nothing");
    CHECK(remedy(ENOMEM).empty());
}
