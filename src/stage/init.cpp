// src/stage/init.cpp - pid 1 of the container from its clone to its execve: runs the plan's instructions.
#include "stage.hpp"

namespace stage {
namespace {

using plan::Instr;
using plan::Op;

constexpr u64 in_root = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

// Not in `Stage`, which is on the keeper's stack too: the keeper never touches this memory and so has none of it.
int received[plan::most_received];
int made[plan::dynamic_slots];

int descriptor(plan::Slot slot) {
    if (slot >= plan::first_received_slot) return received[slot - plan::first_received_slot];
    return slot < plan::first_dynamic_slot ? slot : made[slot - plan::first_dynamic_slot];
}

/// True if the keeper is dead: the pipe has no writer left.
bool keeper_is_dead(const Stage& stage) {
    pollfd hang_up{stage.go, 0, 0};
    const __kernel_timespec at_once{};
    return retry(__NR_ppoll, &hang_up, 1, &at_once, nullptr, 8) > 0;
}

/// Arms the parent-death signal, which every change of ids takes away, also against a keeper that has died meanwhile.
s64 die_with_keeper(const Stage& stage) {
    const s64 result = prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (result == 0 && keeper_is_dead(stage)) end(1);
    return result;
}

/// Waits until the keeper says so.
void wait_for_keeper(const Stage& stage) {
    char byte = 0;
    if (retry(__NR_read, stage.go, &byte, 1) != 1) end(1);
}

/// The one way from a path of the container to a descriptor. The root is "/" of this process, which is the container's.
s64 resolve(const char* path, u64 extra) {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = in_root | extra;
    for (int attempt = 0;; ++attempt) {
        const s64 fd = call(__NR_openat2, at_fdcwd, path, &how, sizeof how);
        if (fd == eagain && attempt < 128) continue;  // a rename raced with ".."
        if (fd != -4 /* EINTR */) return fd;
    }
}

/// Below a file system that this process has placed itself: by its descriptor, and without leaving it, so that nobody
/// who can write to the root can put another directory in its place meanwhile.
s64 resolve_below(int base, const char* path) {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    return retry(__NR_openat2, base, path, &how, sizeof how);
}

/// As `resolve`, but makes what is missing, one component after the other, each relative to the descriptor of its
/// parent and never through a symbolic link in its own place.
s64 resolve_making(char* path, u64 extra, bool directory) {
    s64 fd = resolve(path, extra);
    if (fd != enoent) return fd;
    s64 parent = resolve("/", extra);
    if (parent < 0) return parent;
    char* component = path;
    for (;;) {
        while (*component == '/') ++component;
        char* finish = component;
        while (*finish != 0 && *finish != '/') ++finish;
        char* rest = finish;
        while (*rest == '/') ++rest;
        const bool last = *rest == 0;
        const char saved = *finish;
        *finish = 0;
        fd = resolve(path, extra);
        if (fd == enoent) {
            const s64 created = last && !directory ? call(__NR_mknodat, parent, component, 0100644, 0)
                                                   : call(__NR_mkdirat, parent, component, 0755);
            fd = created < 0 && created != eexist ? created : resolve(path, extra);
        }
        *finish = saved;
        close(parent);
        if (fd < 0 || last) return fd;
        parent = fd;
        component = rest;
    }
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
    for (int i = 0; i < 3; ++i) {
        const s64 result = retry(__NR_dup3, descriptor(plan::standard_slot + i), i, 0);
        if (result < 0) return result;
    }
    return map_plan(stage, descriptor(plan::second_plan_slot), stage.rest);
}

/// A session keyring is inherited through clone and exec, whatever namespaces are new, and who has it has its keys.
s64 session_keyring() {
    const s64 result = call(__NR_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, nullptr);
    // A kernel without keys, or a filter of the host's that refuses the call to the payload as well.
    return result == enosys || result == eperm || result > 0 ? 0 : result;
}

s64 new_filesystem(Stage& stage, const Instr& instr) {
    const s64 context = call(__NR_fsopen, stage.text(instr.a), FSOPEN_CLOEXEC);
    if (context < 0) return context;
    s64 result = 0;
    if (instr.b != 0) {
        const char* option = stage.text(instr.b);
        while (*option != 0 && result == 0) {
            const char* value = option + length(option) + 1;
            result = *value != 0 ? call(__NR_fsconfig, context, FSCONFIG_SET_STRING, option, value, 0)
                                 : call(__NR_fsconfig, context, FSCONFIG_SET_FLAG, option, 0, 0);
            option = value + length(value) + 1;
        }
    }
    if (result == 0) result = call(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (result == 0) result = call(__NR_fsmount, context, FSMOUNT_CLOEXEC, instr.x);
    close(context);
    if (result < 0) return result;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(result);
    return 0;
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

s64 set_attributes(int fd, u64 set, u64 flags) {
    if (fd < 0) return 0;
    mount_attr attr{};
    attr.attr_set = set;
    return mount_setattr(fd, "", at_empty_path | flags, attr);
}

s64 private_mounts() {
    mount_attr attr{};
    attr.propagation = 1 << 18;  // MS_PRIVATE
    return mount_setattr(at_fdcwd, "/", at_recursive, attr);
}

s64 clone_mount(Stage& stage, const Instr& instr) {
    const s64 source =
        instr.a != 0 ? resolve_below(descriptor(instr.other), stage.text(instr.a)) : descriptor(instr.other);
    if (source == enoent && instr.x != 0) {
        made[instr.slot - plan::first_dynamic_slot] = -1;
        return 0;
    }
    if (source < 0) return source;
    const s64 tree = call(__NR_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | at_empty_path);
    if (instr.a != 0) close(source);
    if (tree < 0) return tree;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(tree);
    return 0;
}

s64 enter_root(int tree) {
    // The tree is laid over "/", so that no path string of the host is needed, and the old root goes away before the
    // first path of the container is resolved.
    s64 result = call(__NR_move_mount, tree, "", at_fdcwd, "/", MOVE_MOUNT_F_EMPTY_PATH);
    if (result == 0) result = call(__NR_fchdir, tree);
    if (result == 0) result = call(__NR_pivot_root, ".", ".");
    if (result == 0) result = call(__NR_umount2, ".", 2 /* MNT_DETACH */);
    if (result == 0) result = call(__NR_chdir, "/");
    return result;
}

s64 place(Stage& stage, const Instr& instr) {
    if (descriptor(instr.slot) < 0) return 0;  // an optional source that is not there
    const u64 extra = (instr.x & plan::place_no_symlinks) != 0 ? RESOLVE_NO_SYMLINKS : 0;
    char* path = stage.base + instr.a;
    const s64 target = instr.other != plan::no_slot ? resolve_below(descriptor(instr.other), path)
                       : (instr.x & (plan::place_make_directory | plan::place_make_file)) != 0
                           ? resolve_making(path, extra, (instr.x & plan::place_make_directory) != 0)
                           : resolve(path, extra);
    if (target < 0) return target;
    const s64 result = call(__NR_move_mount, descriptor(instr.slot), "", target, "",
                            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    close(target);
    return result;
}

s64 session(bool terminal) {
    const s64 result = call(__NR_setsid);
    if (result < 0 || !terminal) return result < 0 ? result : 0;
    return call(__NR_ioctl, 0, 0x540E /* TIOCSCTTY */, 0);
}

s64 working_directory(const char* path) {
    const s64 fd = resolve(path, 0);
    if (fd < 0) return fd;
    const s64 result = call(__NR_fchdir, fd);
    close(fd);
    return result;
}

s64 bounding_set(u64 kept) {
    for (u64 capability = 0; capability < 64; ++capability) {
        if ((kept >> capability & 1) != 0) continue;
        const s64 result = prctl(PR_CAPBSET_DROP, capability);
        if (result == einval) return 0;  // past the kernel's last capability
        if (result < 0) return result;
    }
    return 0;
}

s64 credentials(u64 ids) {
    const u64 uid = ids >> 32;
    const u64 gid = ids & 0xffffffff;
    s64 result = call(__NR_setgroups, 0, nullptr);
    if (result == 0) result = call(__NR_setresgid, gid, gid, gid);
    if (result == 0) result = call(__NR_setresuid, uid, uid, uid);
    if (result == 0) result = prctl(PR_SET_DUMPABLE, 0);
    return result;
}

s64 capabilities(u64 wanted) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    const s64 result = call(__NR_capget, &header, data);
    if (result < 0) return result;
    // What a non-root user or an unprivileged parent does not hold cannot be asked for.
    for (int i = 0; i < 2; ++i) {
        data[i].permitted &= static_cast<unsigned>(wanted >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    if (const s64 cleared = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL); cleared < 0) return cleared;
    return call(__NR_capset, &header, data);
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
    s64 result = die_with_keeper(stage);
    if (result < 0) return result;
    // Closed, not close-on-exec: execve(2) resolves the command's path first, and a link in the root that leads through
    // /proc/self/fd would lead to the host by a directory that is still open.
    constexpr int kept = 3;
    if (stage.status != kept) {
        result = retry(__NR_dup3, stage.status, kept, O_CLOEXEC);
        if (result < 0) return result;
        stage.status = kept;
    }
    result = call(__NR_close_range, kept + 1, ~0u, 0);
    if (result < 0) return result;
    const u64 nothing_blocked = 0;
    result = call(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &nothing_blocked, nullptr, sizeof nothing_blocked);
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
        case Op::private_mounts: return private_mounts();
        case Op::new_filesystem: return new_filesystem(stage, instr);
        case Op::set_attributes: return set_attributes(descriptor(instr.slot), instr.x, instr.y);
        case Op::clone_mount: return clone_mount(stage, instr);
        case Op::enter_root: return enter_root(descriptor(instr.slot));
        case Op::place: return place(stage, instr);
        case Op::session: return session(instr.x != 0);
        case Op::working_directory: return working_directory(stage.text(instr.a));
        case Op::bounding_set: return bounding_set(instr.x);
        case Op::credentials: return credentials(instr.x);
        case Op::capabilities: return capabilities(instr.x);
        case Op::no_new_privileges: return prctl(PR_SET_NO_NEW_PRIVS, 1);
        case Op::exec: return exec(stage);
    }
    return einval;
}

/// Runs instructions, the first of which has `number` in the whole plan; a failure is reported and ends this process.
void run_all(Stage& stage, const Instr* instrs, unsigned count, unsigned number) {
    for (unsigned i = 0; i < count; ++i) {
        *stage.progress = number + i;
        const s64 result = run(stage, instrs[i]);
        if (result < 0) {
            const plan::InitFailure failure{number + i, static_cast<int>(-result)};
            retry(__NR_write, stage.status, &failure, sizeof failure);
            end(127);
        }
    }
}

}  // namespace

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
