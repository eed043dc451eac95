// device_program.cpp - device rules as a BPF program, and its way into the kernel. See bpf(2).
#include "device_program.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/device_control.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {
namespace {

// The registers: 1 is the context at first, 0 the result.
constexpr std::uint8_t result = BPF_REG_0;
constexpr std::uint8_t context = BPF_REG_1;
constexpr std::uint8_t type = BPF_REG_2;
constexpr std::uint8_t access = BPF_REG_3;
constexpr std::uint8_t device_major = BPF_REG_4;
constexpr std::uint8_t device_minor = BPF_REG_5;

constexpr bpf_insn instruction(int code, std::uint8_t to, std::uint8_t from, std::size_t offset, std::uint32_t value) {
    bpf_insn made{};
    made.code = static_cast<std::uint8_t>(code);
    made.dst_reg = to & 0xf;
    made.src_reg = from & 0xf;
    made.off = static_cast<std::int16_t>(offset);
    made.imm = static_cast<std::int32_t>(value);
    return made;
}
constexpr bpf_insn load(std::uint8_t to, std::size_t offset) {
    return instruction(BPF_LDX | BPF_MEM | BPF_W, to, context, offset, 0);
}
constexpr bpf_insn with_value(int operation, std::uint8_t to, std::uint32_t value) {
    return instruction(BPF_ALU64 | BPF_K | operation, to, 0, 0, value);
}
/// Puts a program together. The verifier's time is most of what rules cost a start on cgroup v2: what is asked once for
/// many rules makes it shorter.
class Assembler {
public:
    /// Where a jump is, whose end comes later.
    using Place = std::size_t;

    void add(const bpf_insn& made) { program_.push_back(made); }
    [[nodiscard]] Place jump_if(int comparison, std::uint8_t on, std::uint32_t value) {
        add(instruction(BPF_JMP | BPF_K | comparison, on, 0, 0, value));
        return program_.size() - 1;
    }
    /// Lets a jump end at what is added next.
    void land(Place jump) {
        const std::size_t distance = program_.size() - jump - 1;
        if (distance > INT16_MAX) {
            throw Error{Step::cgroup, E2BIG, "a program of device rules", "give fewer device rules"};
        }
        program_[jump].off = static_cast<std::int16_t>(distance);
    }
    void land(const std::vector<Place>& jumps) {
        for (const Place jump : jumps) land(jump);
    }
    [[nodiscard]] std::vector<bpf_insn> take() { return std::move(program_); }

private:
    std::vector<bpf_insn> program_;
};

/// A rule whose type and major number fit. Its jump to the end, as allowed, is added to `allowed`.
void append(Assembler& program, const DeviceRule& rule, std::vector<Assembler::Place>& allowed) {
    std::uint32_t refused = 0;
    if (!rule.access.read) refused |= BPF_DEVCG_ACC_READ;
    if (!rule.access.write) refused |= BPF_DEVCG_ACC_WRITE;
    if (!rule.access.make) refused |= BPF_DEVCG_ACC_MKNOD;
    if (refused == 0 && rule.minor) {
        allowed.push_back(program.jump_if(BPF_JEQ, device_minor, *rule.minor));
        return;
    }
    std::vector<Assembler::Place> misses;
    if (rule.minor) misses.push_back(program.jump_if(BPF_JNE, device_minor, *rule.minor));
    if (refused != 0) misses.push_back(program.jump_if(BPF_JSET, access, refused));
    // Always taken, and yet a condition: the kernel refuses a program in which something cannot be reached.
    allowed.push_back(program.jump_if(BPF_JGE, device_minor, 0));
    program.land(misses);
}

int bpf(bpf_cmd command, bpf_attr& attributes) {
    return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

std::string_view remedy_for_program(int error) {
    switch (error) {
        case EPERM:
            return "this needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the host's first user namespace, and no "
                   "program on a group above that allows no other";
        case ENOSYS:
        case EINVAL: return "this kernel has no CONFIG_CGROUP_BPF";
        case E2BIG: return "these are too many device rules for one program";
        default: return {};
    }
}

}  // namespace

std::vector<bpf_insn> device_program(const std::vector<DeviceRule>& rules) {
    std::vector<DeviceRule> sorted = rules;
    std::stable_sort(sorted.begin(), sorted.end(), [](const DeviceRule& a, const DeviceRule& b) {
        return std::pair{a.type, a.major} < std::pair{b.type, b.major};
    });
    Assembler program;
    std::vector<Assembler::Place> allowed;
    // The kernel gives type and access in one number, 16 bits each.
    program.add(load(type, offsetof(bpf_cgroup_dev_ctx, access_type)));
    program.add(instruction(BPF_ALU64 | BPF_MOV | BPF_X, access, type, 0, 0));
    program.add(with_value(BPF_AND, type, 0xffff));
    program.add(with_value(BPF_RSH, access, 16));
    program.add(load(device_major, offsetof(bpf_cgroup_dev_ctx, major)));
    program.add(load(device_minor, offsetof(bpf_cgroup_dev_ctx, minor)));
    program.add(with_value(BPF_MOV, result, 1));
    for (auto rule = sorted.begin(); rule != sorted.end();) {
        const DeviceRule::Type wanted = rule->type;
        const bool block = wanted == DeviceRule::Type::block;
        const auto other_type = program.jump_if(BPF_JNE, type, block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
        while (rule != sorted.end() && rule->type == wanted) {
            const std::optional<std::uint32_t> number = rule->major;
            std::vector<Assembler::Place> other_major;
            if (number) other_major.push_back(program.jump_if(BPF_JNE, device_major, *number));
            for (; rule != sorted.end() && rule->type == wanted && rule->major == number; ++rule) {
                append(program, *rule, allowed);
            }
            program.land(other_major);
        }
        program.land(other_type);
    }
    program.add(with_value(BPF_MOV, result, 0));
    program.land(allowed);
    program.add(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
    return program.take();
}

namespace {

constexpr std::string_view program_name = "caisson_devices";

Fd load_program(const std::vector<DeviceRule>& rules) {
    const std::vector<bpf_insn> program = device_program(rules);
    bpf_attr load{};
    load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    load.insns = reinterpret_cast<std::uintptr_t>(program.data());
    load.insn_cnt = static_cast<std::uint32_t>(program.size());
    load.license = reinterpret_cast<std::uintptr_t>("MIT");
    program_name.copy(load.prog_name, sizeof load.prog_name - 1);
    // Close-on-exec, as all of bpf(2)'s. A signal that comes meanwhile makes it EAGAIN.
    Fd loaded{bpf(BPF_PROG_LOAD, load)};
    for (int attempt = 1; !loaded && errno == EAGAIN && attempt < 16; ++attempt) loaded.reset(bpf(BPF_PROG_LOAD, load));
    if (!loaded) fail(Step::cgroup, "load a program of device rules", remedy_for_program(errno));
    return loaded;
}

/// `replaced`: a program of the group's, or -1.
void attach_to(int group, const Fd& program, int replaced) {
    bpf_attr attach{};
    attach.target_fd = static_cast<std::uint32_t>(group);
    attach.attach_bpf_fd = static_cast<std::uint32_t>(program.get());
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    if (replaced >= 0) {
        attach.attach_flags |= BPF_F_REPLACE;
        attach.replace_bpf_fd = static_cast<std::uint32_t>(replaced);
    }
    if (bpf(BPF_PROG_ATTACH, attach) != 0) {
        fail(Step::cgroup, "attach a program of device rules", remedy_for_program(errno));
    }
}

/// The library's own program among those of a group; nothing if it has none.
Fd program_of(int group) {
    std::array<std::uint32_t, 64> ids{};  // as many as the kernel lets a group have
    bpf_attr query{};
    query.query.target_fd = static_cast<std::uint32_t>(group);
    query.query.attach_type = BPF_CGROUP_DEVICE;
    query.query.prog_ids = reinterpret_cast<std::uintptr_t>(ids.data());
    query.query.prog_cnt = static_cast<std::uint32_t>(ids.size());
    const std::string what = "look for the program of device rules";
    if (bpf(BPF_PROG_QUERY, query) != 0) {
        if (errno == ENOSYS || errno == EINVAL) return Fd{};  // a kernel that has no such programs
        fail(Step::cgroup, what, remedy_for_program(errno));
    }
    for (std::uint32_t i = 0; i < query.query.prog_cnt; ++i) {
        bpf_attr by_id{};
        by_id.prog_id = ids[i];
        Fd program{bpf(BPF_PROG_GET_FD_BY_ID, by_id)};
        if (!program && errno == ENOENT) continue;  // it is gone meanwhile
        if (!program) fail(Step::cgroup, what, remedy_for_program(errno));
        bpf_prog_info info{};
        bpf_attr ask{};
        ask.info.bpf_fd = static_cast<std::uint32_t>(program.get());
        ask.info.info_len = sizeof info;
        ask.info.info = reinterpret_cast<std::uintptr_t>(&info);
        if (bpf(BPF_OBJ_GET_INFO_BY_FD, ask) != 0) fail(Step::cgroup, what);
        if (program_name.substr(0, sizeof info.name - 1) == info.name) return program;
    }
    return Fd{};
}

}  // namespace

void attach_device_program(int group, const std::vector<DeviceRule>& rules) {
    attach_to(group, load_program(rules), -1);
}

bool replace_device_program(int group, const std::vector<DeviceRule>& rules) {
    const Fd old = program_of(group);
    if (!old) return false;
    attach_to(group, load_program(rules), old.get());
    return true;
}

}  // namespace caisson::inline v0::detail
