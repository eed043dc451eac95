// src/stage/main.cpp - the stage's first steps, before it is a keeper or sees to a visit.
#include "stage.hpp"

namespace stage {
namespace {

/// To the top of the mount namespace, by joining the one that this process is in. From a chroot(2) of the host, no user
/// namespace could be made, and pivot_root(2) would leave the mounts above it within the container's reach.
s64 leave_chroot() {
    const s64 self = call(__NR_pidfd_open, call(__NR_getpid), 0);
    if (self < 0) return self;
    const s64 result = call(__NR_setns, self, CLONE_NEWNS);
    close(self);
    return result;
}

/// Every signal the default disposition: one that the host ignores passes through exec and would be ignored by the
/// payload; an ignored SIGCHLD would take init's exit status away from this process.
void reset_signals() {
    struct {
        u64 handler, flags, restorer, mask;
    } action{};
    for (int signal = 1; signal <= 64; ++signal) {
        if (signal != SIGKILL && signal != SIGSTOP) call(__NR_rt_sigaction, signal, &action, nullptr, 8);
    }
}

[[noreturn]] void main() {
    reset_signals();
    // A session of its own: the host's terminal does not hang it up, and ps(1) shows it by itself.
    call(__NR_setsid);
    Stage stage;
    if (const s64 result = map_plan(stage, plan::plan_slot, stage.header); result < 0) {
        refuse(stage, plan::KeeperStep::read_plan, result);
    }
    if (stage.header->name != 0) prctl(PR_SET_NAME, reinterpret_cast<u64>(stage.text(stage.header->name)));
    // An ordinary user may not, and in a chroot gets no user namespace anyway.
    const bool own_root =
        (stage.header->flags & (plan::plan_own_root | plan::plan_unprivileged)) == plan::plan_own_root;
    // The host's working directory must neither be kept busy nor be what init resolves the container's paths from.
    if (const s64 result = own_root ? leave_chroot() : call(__NR_chdir, "/"); result < 0) {
        refuse(stage, plan::KeeperStep::prepare, result);
    }
    if ((stage.header->flags & plan::plan_visit) != 0) visit(stage);
    keep(stage);
}

}  // namespace
}  // namespace stage

extern "C" [[noreturn, gnu::used]] void caisson_stage_start() {
    stage::main();
}

#if defined(__x86_64__)
asm(".globl _start\n_start:\n  xor %ebp, %ebp\n  and $-16, %rsp\n  call caisson_stage_start\n");
#else
asm(".globl _start\n_start:\n  mov x29, #0\n  mov x30, #0\n  b caisson_stage_start\n");
#endif
