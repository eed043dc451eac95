// src/seccomp/generate.cpp - runs at build time: turns the profiles into filter programs, which the library then only
// completes. generate ARCHITECTURE FILE: the machine that the library is for, and what to write.
//
// The names' numbers are libseccomp's. The program is not: the kernel takes longer to load a filter the more
// instructions it has, and a search for the number among the limits of runs that are treated alike has a quarter of
// what a comparison for each call has.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <initializer_list>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include <seccomp.h>

#include <caisson/capability.hpp>

#include "profiles.hpp"
#include "program.hpp"

namespace {

using namespace caisson::seccomp;

/// What is done from a call's number on, up to the next of the list.
struct Run {
    std::uint32_t first;
    Program action;
};
bool same(const Program& a, const Program& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const sock_filter& x, const sock_filter& y) {
        return x.code == y.code && x.jt == y.jt && x.jf == y.jf && x.k == y.k;
    });
}

sock_filter load(std::size_t offset) {
    return {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
}
/// The lower half, which is what the kernel looks at in all that is compared here; it comes first.
sock_filter load_argument(std::size_t index) {
    return load(offsetof(seccomp_data, args) + 8 * index);
}
sock_filter mask(std::uint32_t bits) {
    return {BPF_ALU | BPF_AND | BPF_K, 0, 0, bits};
}
Program decide(std::uint32_t action) {
    return {{BPF_RET | BPF_K, 0, 0, action}};
}
Program sequence(std::initializer_list<Program> parts) {
    Program all;
    for (const Program& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}
std::uint8_t jump(std::size_t distance) {
    if (distance > 255) throw std::runtime_error{"a jump is too long"};
    return static_cast<std::uint8_t>(distance);
}
/// `then` where the accumulator is `value`; otherwise it is jumped over.
Program where(std::uint32_t value, const Program& then) {
    return sequence({{{BPF_JMP | BPF_JEQ | BPF_K, 0, jump(then.size()), value}}, then});
}

/// The search: each step halves the runs that are left.
class Search {
public:
    explicit Search(const std::vector<Run>& runs) : runs_{runs} {}
    Program program() {
        (void)add(0, runs_.size());
        Program all;
        std::vector<std::size_t> action_at;
        std::size_t end = steps_.size();
        for (const Program& action : actions_) {
            action_at.push_back(end);
            end += action.size();
        }
        const auto distance = [&](std::size_t from, Target to) {
            return jump((to.is_action ? action_at[to.index] : to.index) - from - 1);
        };
        for (std::size_t i = 0; i < steps_.size(); ++i) {
            all.push_back({BPF_JMP | BPF_JGE | BPF_K, distance(i, steps_[i].from_there), distance(i, steps_[i].below),
                           steps_[i].number});
        }
        for (const Program& action : actions_) all.insert(all.end(), action.begin(), action.end());
        return all;
    }

private:
    struct Target {
        bool is_action = false;
        std::size_t index = 0;
    };
    struct Step {
        std::uint32_t number = 0;
        Target from_there{};
        Target below{};
    };
    Target add(std::size_t begin, std::size_t end) {
        if (end - begin == 1) {
            for (std::size_t i = 0; i < actions_.size(); ++i) {
                if (same(actions_[i], runs_[begin].action)) return {true, i};
            }
            actions_.push_back(runs_[begin].action);
            return {true, actions_.size() - 1};
        }
        const std::size_t middle = begin + (end - begin) / 2;
        const std::size_t index = steps_.size();
        steps_.push_back({runs_[middle].first});
        const Target below = add(begin, middle);
        const Target from_there = add(middle, end);
        steps_[index].below = below;
        steps_[index].from_there = from_there;
        return {false, index};
    }
    const std::vector<Run>& runs_;
    std::vector<Step> steps_;
    std::vector<Program> actions_;
};

/// What is done to the calls whose arguments matter; nothing for others.
std::map<std::string_view, Program> with_arguments(bool system) {
    const Program allow = decide(SECCOMP_RET_ALLOW);
    const Program deny = decide(refuse(EPERM));
    std::map<std::string_view, Program> all;
    all["ioctl"] = sequence({
        {load_argument(1)},
        where(0x5412 /* TIOCSTI */, deny),
        where(0x541c /* TIOCLINUX */, deny),
        allow,
    });
    // Audit has no namespaces, and programs know that a kernel may not have it.
    const Program netlink = sequence({
        {load_argument(2)},
        where(9 /* NETLINK_AUDIT */, decide(refuse(EAFNOSUPPORT))),
        allow,
    });
    all["socket"] = sequence({
        {load_argument(0)},
        where(38 /* AF_ALG */, deny),
        where(40 /* AF_VSOCK */, deny),
        where(16 /* AF_NETLINK */, netlink),
        allow,
    });
    if (system) return all;
    // So that the C library falls back to clone(2), whose flags can be seen.
    all["clone3"] = decide(refuse(ENOSYS));
    constexpr std::uint32_t namespaces = 0x7e020000;
    all["clone"] = sequence({{load_argument(0), mask(namespaces)}, where(0, allow), deny});
    // Linux and its 32-bit twin, each with and without UNAME26, and the question which it is.
    all["personality"] = sequence({
        {load_argument(0)},
        where(0x0, allow),
        where(0x8, allow),
        where(0x20000, allow),
        where(0x20008, allow),
        where(0xffffffff, allow),
        deny,
    });
    return all;
}

Program action_of(std::string_view call, bool is_system, const std::map<std::string_view, Program>& special) {
    if (const auto found = special.find(call); found != special.end()) return found->second;
    if (in_list(application, call) || (is_system && in_list(caisson::seccomp::system, call))) {
        return decide(SECCOMP_RET_ALLOW);
    }
    for (const auto& [capability, name] : of_capability) {
        if (name == call) return decide(if_capability + *caisson::CapabilitySet::number(capability));
    }
    return decide(refuse(EPERM));
}

/// The name of a number, empty where nobody knows one.
std::string name_of(std::uint32_t architecture, int number) {
    const std::unique_ptr<char, void (*)(void*)> known{::seccomp_syscall_resolve_num_arch(architecture, number),
                                                       std::free};
    if (known != nullptr) return known.get();
    for (const NewCall& call : new_calls) {
        if (call.number == number) return std::string{call.name};
    }
    return {};
}

Program of_architecture(std::uint32_t architecture, bool is_system) {
    const auto special = with_arguments(is_system);
    std::vector<Run> runs;
    const auto add = [&](std::uint32_t first, const Program& action) {
        if (runs.empty() || !same(runs.back().action, action)) runs.push_back({first, action});
    };
    for (int number = 0; number < end_of_calls; ++number) {
        if (architecture == SCMP_ARCH_X86_64 && (number == 335 || number == 336)) {
            // uretprobe and uprobe: the kernel's own way out of a program that the host looks into.
            add(static_cast<std::uint32_t>(number), decide(SECCOMP_RET_ALLOW));
            continue;
        }
        const std::string name = name_of(architecture, number);
        add(static_cast<std::uint32_t>(number),
            name.empty() ? decide(refuse(ENOSYS)) : action_of(name, is_system, special));
    }
    add(end_of_calls, decide(refuse(ENOSYS)));
    if (architecture == SCMP_ARCH_ARM) {
        // What belongs to ARM alone: the cache and thread-local storage.
        add(0xf0001, decide(SECCOMP_RET_ALLOW));
        add(0xf0007, decide(refuse(ENOSYS)));
    }
    // x32 is another architecture under the same name.
    if (architecture == SCMP_ARCH_X86_64) add(0x40000000, decide(kill));
    // No call at all: a tracer puts it there to answer in the kernel's place.
    add(0xffffffff, decide(SECCOMP_RET_ALLOW));
    const Program search = Search{runs}.program();
    const auto size = static_cast<std::uint32_t>(search.size() + 1);
    return sequence({
        {{BPF_JMP | BPF_JEQ | BPF_K, 1, 0, architecture}, {BPF_JMP | BPF_JA, 0, 0, size}},
        {load(offsetof(seccomp_data, nr))},
        search,
    });
}

void write(std::FILE* file, const char* name, bool is_system, std::initializer_list<std::uint32_t> architectures) {
    Program program{load(offsetof(seccomp_data, arch))};
    for (const std::uint32_t one : architectures) program = sequence({program, of_architecture(one, is_system)});
    program = sequence({program, decide(kill)});
    std::fprintf(file, "constexpr sock_filter %s[] = {\n", name);
    for (const sock_filter& i : program) std::fprintf(file, "{%u, %u, %u, %uu},\n", i.code, i.jt, i.jf, i.k);
    std::fprintf(file, "};\n");
}

void check_names() {
    std::vector<std::string_view> all = names(application);
    for (const std::string_view name : names(caisson::seccomp::system)) all.push_back(name);
    for (const auto& [capability, call] : of_capability) {
        if (!caisson::CapabilitySet::number(capability)) throw std::runtime_error{"no such capability"};
        all.push_back(call);
    }
    for (const std::string_view name : all) {
        const std::string call{name};
        if (::seccomp_syscall_resolve_name(call.c_str()) == __NR_SCMP_ERROR && new_call(name) < 0) {
            throw std::runtime_error{"no such call: " + call};
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 3) throw std::runtime_error{"generate ARCHITECTURE FILE"};
        check_names();
        const std::string_view machine = argv[1];
        if (machine != "x86_64" && machine != "aarch64") throw std::runtime_error{"x86_64 or aarch64"};
        const std::uint32_t native = machine == "x86_64" ? SCMP_ARCH_X86_64 : SCMP_ARCH_AARCH64;
        const std::uint32_t compat = machine == "x86_64" ? SCMP_ARCH_X86 : SCMP_ARCH_ARM;
        std::FILE* file = std::fopen(argv[2], "w");
        if (file == nullptr) throw std::runtime_error{std::string{"cannot write "} + argv[2]};
        write(file, "application_native", false, {native});
        write(file, "application_compat", false, {native, compat});
        write(file, "system_native", true, {native});
        write(file, "system_compat", true, {native, compat});
        if (std::fclose(file) != 0) throw std::runtime_error{std::string{"cannot write "} + argv[2]};
        return 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "seccomp profiles: %s\n", e.what());
        return 1;
    }
}
