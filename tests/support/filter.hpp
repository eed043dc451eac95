// support/filter.hpp - what a filter program does to a system call, worked out without a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

namespace caisson_test {

struct Verdict {
    std::uint32_t action = 0;
    bool looked_at_arguments = false;
};

/// Runs the program as the kernel does. Throws what the kernel would not load.
inline Verdict verdict(const std::vector<sock_filter>& program, const seccomp_data& data) {
    Verdict result;
    std::uint32_t a = 0;
    for (std::size_t at = 0; at < program.size(); ++at) {
        const sock_filter& i = program[at];
        const auto jump = [&](bool condition) { at += condition ? i.jt : i.jf; };
        switch (i.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                if (i.k + 4 > sizeof data) throw std::runtime_error{"it loads what is not there"};
                std::memcpy(&a, reinterpret_cast<const char*>(&data) + i.k, 4);
                if (i.k >= offsetof(seccomp_data, args)) result.looked_at_arguments = true;
                break;
            case BPF_ALU | BPF_AND | BPF_K: a &= i.k; break;
            case BPF_JMP | BPF_JA: at += i.k; break;
            case BPF_JMP | BPF_JEQ | BPF_K: jump(a == i.k); break;
            case BPF_JMP | BPF_JGE | BPF_K: jump(a >= i.k); break;
            case BPF_JMP | BPF_JGT | BPF_K: jump(a > i.k); break;
            case BPF_RET | BPF_K: result.action = i.k; return result;
            default: throw std::runtime_error{"an instruction that this does not know"};
        }
    }
    throw std::runtime_error{"the program has no end"};
}
inline std::vector<sock_filter> instructions(const std::vector<std::uint64_t>& bytes) {
    std::vector<sock_filter> program(bytes.size());
    if (!bytes.empty()) std::memcpy(program.data(), bytes.data(), bytes.size() * sizeof(sock_filter));
    return program;
}

}  // namespace caisson_test
