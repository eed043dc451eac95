// src/stage/init.cpp - pid 1 of the container from its clone to its execve: runs the plan's instructions.
#include "init.hpp"

namespace stage {

int received[plan::most_received];
int made[plan::dynamic_slots];

int descriptor(plan::Slot slot) {
    if (slot >= plan::first_received_slot) return received[slot - plan::first_received_slot];
    return slot < plan::first_dynamic_slot ? slot : made[slot - plan::first_dynamic_slot];
}

namespace {

using plan::Op;

/// True if the keeper is dead: the pipe has no writer left.
bool keeper_is_dead(const Stage& stage) {
    pollfd hang_up{stage.go, 0, 0};
    const __kernel_timespec at_once{};
    return retry(__NR_ppoll, &hang_up, 1, &at_once, nullptr, 8) > 0;
}

}  // namespace

s64 die_with_keeper(const Stage& stage) {
    const s64 result = prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (result == 0 && keeper_is_dead(stage)) end(1);
    return result;
}

s64 standard_descriptors(plan::Slot first, int step) {
    for (int i = 0; i < 3; ++i) {
        const s64 result = retry(__NR_dup3, descriptor(first + i * step), i, 0);
        if (result < 0) return result;
    }
    return 0;
}

namespace {

/// Waits until the keeper says so.
void wait_for_keeper(const Stage& stage) {
    char byte = 0;
    if (retry(__NR_read, stage.go, &byte, 1) != 1) end(1);
}

s64 become_root(const Stage& stage) {
    // Before this, files cannot be made (EOVERFLOW) and an exec would drop every capability.
    s64 result = call(__NR_setresgid, 0, 0, 0);
    if (result == 0) result = call(__NR_setresuid, 0, 0, 0);
    // A change of ids sets it to what fs.suid_dumpable says.
    if (result == 0) result = prctl(PR_SET_DUMPABLE, 0);
    return result == 0 ? die_with_keeper(stage) : result;
}

/// The host sends the second part when it has made what the descriptors stand for, and the keeper follows when it has
/// written their id maps.
s64 receive_rest(Stage& stage) {
    plan::Rest announced{};
    unsigned count = 0;
    do {
        int fds[plan::most_in_message];
        const s64 n = receive(plan::rest_slot, &announced, sizeof announced, fds);
        if (n == epipe || n == econnreset) end(1);  // the host has given up or is dead
        if (n < 0) return n;
        if (count + static_cast<u64>(n) > plan::most_received) return einval;
        for (s64 i = 0; i < n; ++i) received[count++] = fds[i];
    } while (count < announced.count);
    wait_for_keeper(stage);
    if (const s64 result = standard_descriptors(plan::standard_slot, 1); result < 0) return result;
    return map_plan(stage, descriptor(plan::second_plan_slot), stage.rest);
}

/// A session keyring is inherited through clone and exec, whatever namespaces are new, and who has it has its keys.
s64 session_keyring() {
    const s64 result = call(__NR_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, nullptr);
    // A kernel without keys, or a filter of the host's that refuses the call to the payload as well.
    return result == enosys || result == eperm || result > 0 ? 0 : result;
}

s64 loopback_up() {
    // A request about links reaches the network namespace of any socket, whatever its family; see netdevice(7).
    const s64 socket = call(__NR_socket, 1 /* AF_UNIX */, 2 /* SOCK_DGRAM */ | O_CLOEXEC, 0);
    if (socket < 0) return socket;
    struct {
        char name[16];
        short flags;
        char rest[22];
    } request{{'l', 'o'}, 1 /* IFF_UP */, {}};
    const s64 result = call(__NR_ioctl, socket, 0x8914 /* SIOCSIFFLAGS */, &request);
    close(socket);
    return result;
}

/// argv and envp hold offsets; execve wants pointers.
char** pointers(Stage& stage, plan::Ref ref) {
    auto* slots = reinterpret_cast<u64*>(stage.base + ref);
    for (u64* slot = slots; *slot != 0; ++slot) *slot += reinterpret_cast<u64>(stage.base);
    return reinterpret_cast<char**>(slots);
}

s64 exec(Stage& stage) {
    char** argv = pointers(stage, stage.rest->argv);
    char** envp = pointers(stage, stage.rest->envp);
    const u64 nothing_blocked = 0;
    const s64 result =
        call(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &nothing_blocked, nullptr, sizeof nothing_blocked);
    if (result < 0) return result;
    if (retry(__NR_write, stage.status, &plan::exec_mark, 1) != 1) return -5 /* EIO */;
    return call(__NR_execve, argv[0], argv, envp);
}

s64 run(Stage& stage, const Instr& instr) {
    switch (instr.op) {
        case Op::join_group: {
            const s64 n = retry(__NR_write, descriptor(instr.slot), "0", 1);
            return n < 0 ? n : 0;
        }
        case Op::unshare_cgroup: return call(__NR_unshare, CLONE_NEWCGROUP);
        case Op::loopback_up: return loopback_up();
        case Op::receive_rest: return receive_rest(stage);
        case Op::become_root: return become_root(stage);
        case Op::session_keyring: return session_keyring();
        case Op::hostname: return call(__NR_sethostname, stage.text(instr.a), instr.x);
        case Op::domainname: return call(__NR_setdomainname, stage.text(instr.a), instr.x);
        case Op::private_mounts: return private_mounts();
        case Op::new_filesystem: return new_filesystem(stage, instr);
        case Op::mount_context: return mount_context(instr);
        case Op::set_attributes: return set_attributes(descriptor(instr.slot), instr.x, instr.y);
        case Op::clone_mount: return clone_mount(stage, instr);
        case Op::open_path: return open_path(stage, instr);
        case Op::make_node: return make_node(stage, instr);
        case Op::open_terminal: return open_terminal(instr);
        case Op::enter_root: return enter_root(descriptor(instr.slot));
        case Op::place: return place(stage, instr);
        case Op::mask_begin: return mask_begin(stage, instr);
        case Op::mask: return mask(stage, instr);
        case Op::mask_end: return mask_end(stage, instr);
        case Op::read_only: return read_only(stage, instr);
        case Op::write_setting: return write_setting(stage, instr);
        case Op::personality: {
            const s64 result = call(__NR_personality, instr.x);
            return result < 0 ? result : 0;
        }
        case Op::umask: call(__NR_umask, instr.x); return 0;
        case Op::first_process: return first_process(stage);
        case Op::session: return session(instr);
        case Op::working_directory: return working_directory(stage.text(instr.a));
        case Op::bounding_set: return bounding_set(instr.x);
        case Op::credentials: return credentials(stage, instr);
        case Op::capabilities: return capabilities(*stage.array<plan::Capabilities>(instr.a));
        case Op::no_new_privileges: return prctl(PR_SET_NO_NEW_PRIVS, 1);
        case Op::descriptors: return descriptors(stage, instr);
        case Op::resource_limit: return resource_limit(instr);
        case Op::filter: return filter(stage, instr);
        case Op::exec: return exec(stage);
        case Op::join: return join(instr);
        case Op::standard: return standard(instr);
        case Op::become_visible: return become_visible(stage);
        case Op::open_devpts: return open_devpts(stage, instr);
        case Op::open_null: return open_null(stage, instr);
        case Op::send_file: return send_file(instr);
        case Op::pass_up: return pass_up(instr);
        case Op::serve: return serve(instr);
        case Op::open_netlink: return open_netlink(instr);
        case Op::open_file: return open_file(stage, instr);
        case Op::unmount: return unmount(stage, instr);
        case Op::remove_name: return remove_name(stage, instr);
    }
    return einval;
}

}  // namespace

void fail_at(const Stage& stage, unsigned number, s64 error) {
    const plan::InitFailure failure{number, static_cast<int>(-error)};
    retry(__NR_write, stage.status, &failure, sizeof failure);
    end(127);
}

void run_all(Stage& stage, const Instr* instrs, unsigned count, unsigned number) {
    for (unsigned i = 0; i < count; ++i) {
        *stage.progress = number + i;
        if (const s64 result = run(stage, instrs[i]); result < 0) fail_at(stage, number + i, result);
    }
}

void init(Stage& stage) {
    if (die_with_keeper(stage) < 0) end(1);
    const plan::PlanHeader& header = *stage.header;
    if ((header.flags & plan::plan_send_netlink) != 0) {
        const s64 socket = call(__NR_socket, 16 /* AF_NETLINK */, 3 /* SOCK_RAW */ | O_CLOEXEC, 0);
        plan::Report report{};
        report.kind = plan::Report::Kind::netlink;
        report.value = static_cast<int>(socket < 0 ? -socket : 0);
        // The host waits for it.
        if (send_report(report, static_cast<int>(socket)) < 0) end(1);
        if (socket >= 0) close(socket);
    }
    const auto* instrs = stage.array<Instr>(header.instrs);
    run_all(stage, instrs, header.early_count, 0);
    wait_for_keeper(stage);
    if (prctl(PR_SET_DUMPABLE, 0) < 0) end(1);
    call(__NR_umask, 022);
    // The last of these brings the second part.
    run_all(stage, instrs + header.early_count, header.instr_count - header.early_count, header.early_count);
    run_all(stage, stage.array<Instr>(stage.rest->instrs), stage.rest->instr_count, header.instr_count);
    end(127);
}

}  // namespace stage
