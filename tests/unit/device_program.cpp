// The program that cgroup v2 runs for device rules, run here by a few lines that know its instructions.
#include "../../src/device_program.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <caisson/error.hpp>

#include "support/doctest.hpp"

using namespace caisson;

namespace {

struct Request {
    DeviceRule::Type type{};
    DeviceAccess access{};
    std::uint32_t major = 0;
    std::uint32_t minor = 0;
};

std::uint32_t bits(const DeviceAccess& a) {
    return (a.make ? 1u : 0u) | (a.read ? 2u : 0u) | (a.write ? 4u : 0u);
}

/// What the kernel would return; throws where it would refuse the program.
std::uint64_t run(const std::vector<bpf_insn>& program, const Request& request) {
    const std::uint32_t context[] = {bits(request.access) << 16 | (request.type == DeviceRule::Type::block ? 1u : 2u),
                                     request.major, request.minor};
    std::vector<std::optional<std::uint64_t>> registers(10);
    const auto read = [&](unsigned number) { return registers.at(number).value(); };
    for (std::size_t at = 0; at < program.size(); ++at) {
        const bpf_insn& i = program[at];
        const auto value = static_cast<std::uint64_t>(static_cast<std::int64_t>(i.imm));
        const auto jump = [&](bool condition) {
            if (!condition) return;
            if (i.off < 0) throw std::runtime_error{"a way back"};
            at += static_cast<std::size_t>(i.off);
        };
        switch (i.code) {
            case BPF_LDX | BPF_MEM | BPF_W:
                if (i.src_reg != 1 || i.off % 4 != 0) throw std::runtime_error{"no read of the context"};
                registers.at(i.dst_reg) = context[static_cast<std::size_t>(i.off) / 4];
                break;
            case BPF_ALU64 | BPF_MOV | BPF_X: registers.at(i.dst_reg) = read(i.src_reg); break;
            case BPF_ALU64 | BPF_MOV | BPF_K: registers.at(i.dst_reg) = value; break;
            case BPF_ALU64 | BPF_AND | BPF_K: registers.at(i.dst_reg) = read(i.dst_reg) & value; break;
            case BPF_ALU64 | BPF_RSH | BPF_K: registers.at(i.dst_reg) = read(i.dst_reg) >> value; break;
            case BPF_JMP | BPF_JNE | BPF_K: jump(read(i.dst_reg) != value); break;
            case BPF_JMP | BPF_JEQ | BPF_K: jump(read(i.dst_reg) == value); break;
            case BPF_JMP | BPF_JGE | BPF_K: jump(read(i.dst_reg) >= value); break;
            case BPF_JMP | BPF_JSET | BPF_K: jump((read(i.dst_reg) & value) != 0); break;
            case BPF_JMP | BPF_EXIT: return read(0);
            default: throw std::runtime_error{"an instruction that is not expected"};
        }
    }
    throw std::runtime_error{"it runs past its end"};
}

bool allows(const std::vector<DeviceRule>& rules, const Request& request) {
    return std::any_of(rules.begin(), rules.end(), [&](const DeviceRule& rule) {
        return rule.type == request.type && (!rule.major || *rule.major == request.major) &&
               (!rule.minor || *rule.minor == request.minor) && (bits(request.access) & ~bits(rule.access)) == 0;
    });
}

constexpr auto character = DeviceRule::Type::character;
constexpr auto block = DeviceRule::Type::block;

}  // namespace

TEST_CASE("without rules the program refuses every device") {
    const auto program = detail::device_program({});
    CHECK(run(program, {character, {}, 1, 3}) == 0);
    CHECK(run(program, {block, {}, 8, 0}) == 0);
}

TEST_CASE("a rule holds for its type, its numbers and its access, and for nothing else") {
    const auto program = detail::device_program({{character, 10, 229, {.read = true, .write = true, .make = false}}});
    CHECK(run(program, {character, {true, true, false}, 10, 229}) == 1);
    CHECK(run(program, {character, {true, false, false}, 10, 229}) == 1);
    CHECK(run(program, {character, {false, false, true}, 10, 229}) == 0);
    CHECK(run(program, {character, {true, false, true}, 10, 229}) == 0);
    CHECK(run(program, {block, {true, true, false}, 10, 229}) == 0);
    CHECK(run(program, {character, {true, true, false}, 10, 228}) == 0);
    CHECK(run(program, {character, {true, true, false}, 11, 229}) == 0);
}

TEST_CASE("a number that a rule leaves out is any number, up to the kernel's last") {
    const auto program = detail::device_program({{character, 136, {}, {}}, {block, {}, 1048575, {}}});
    CHECK(run(program, {character, {}, 136, 1048575}) == 1);
    CHECK(run(program, {character, {}, 137, 0}) == 0);
    CHECK(run(program, {block, {}, 4095, 1048575}) == 1);
    CHECK(run(program, {block, {}, 4095, 1048574}) == 0);
}

TEST_CASE("random rules decide as their meaning says") {
    std::mt19937 random{20240229};
    const auto number = [&](std::uint32_t most) {
        return std::uniform_int_distribution<std::uint32_t>{0, most}(random);
    };
    const auto access = [&] {
        const std::uint32_t b = 1 + number(6);
        return DeviceAccess{(b & 2) != 0, (b & 4) != 0, (b & 1) != 0};
    };
    const auto optional = [&] { return number(2) == 0 ? std::nullopt : std::optional{number(3)}; };
    std::size_t allowed = 0;
    for (int round = 0; round < 400; ++round) {
        std::vector<DeviceRule> rules(number(6));
        for (DeviceRule& rule : rules) rule = {number(1) == 0 ? character : block, optional(), optional(), access()};
        const auto program = detail::device_program(rules);
        for (int i = 0; i < 50; ++i) {
            const Request request{number(1) == 0 ? character : block, access(), number(3), number(3)};
            const bool expected = allows(rules, request);
            allowed += expected ? 1 : 0;
            REQUIRE(run(program, request) == (expected ? 1u : 0u));
        }
    }
    CHECK(allowed > 1000);
    CHECK(allowed < 19000);
}

TEST_CASE("rules that a program cannot hold are an error with its remedy") {
    const std::vector<DeviceRule> rules(20000, {character, 1, 1, {true, false, false}});
    try {
        (void)detail::device_program(rules);
        FAIL("it was made");
    } catch (const Error& e) {
        CHECK(e.step() == Step::cgroup);
        CHECK(std::string{e.what()} == "a program of device rules: Argument list too long: give fewer device rules");
    }
}
