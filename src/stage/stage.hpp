// src/stage/stage.hpp - what the stage's two roles share. The stage is one static program without libc: it starts as
// the keeper of one container and its child becomes the container's init. Nothing of the host's memory is in it.
#pragma once

#include <asm/fcntl.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <asm/stat.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/time_types.h>

#include <caisson/detail/plan.hpp>

#include "syscall.hpp"

namespace stage {

namespace plan = caisson::detail;

// Kernel ABI constants whose headers clash with each other or do not exist outside libc.
inline constexpr int at_fdcwd = -100;
inline constexpr int at_empty_path = 0x1000;
inline constexpr int at_removedir = 0x200;
inline constexpr s64 enoent = -2, esrch = -3, eacces = -13, eagain = -11, einval = -22, ebusy = -16, eexist = -17,
                     enotempty = -39, enotdir = -20, eloop = -40, eperm = -1, enosys = -38;

struct Stage {
    char* base = nullptr;  // the plan, mapped privately
    const plan::PlanHeader* header = nullptr;
    volatile unsigned* progress = nullptr;  // one page shared by keeper and init: the instruction that init is at
    int status = -1;                        // init: the status pipe
    int go = -1;  // init: readable when it may go on, and at end-of-file when the keeper is dead
    int dynamic[plan::dynamic_slots]{};

    const char* text(plan::Ref ref) const { return base + ref; }
    template <class T>
    const T* array(plan::Ref ref) const {
        return reinterpret_cast<const T*>(base + ref);
    }
    int fd(plan::Slot slot) const {
        return slot < plan::first_dynamic_slot ? slot : dynamic[slot - plan::first_dynamic_slot];
    }
};

inline u64 length(const char* text) {
    u64 n = 0;
    while (text[n] != 0) ++n;
    return n;
}

/// The kernel's struct msghdr with one buffer and at most two descriptors.
struct Message {
    struct Iovec {
        void* base;
        u64 length;
    } iov;
    struct Control {
        u64 length;
        int level;
        int type;
        int fds[2];
    } control;
    struct Header {
        void* name;
        int name_length;
        Iovec* iov;
        u64 iov_count;
        void* control;
        u64 control_length;
        unsigned flags;
    } header;
};

/// Sends one report to the host, with the descriptors that are not negative. The host may be gone: that is no error
/// here.
s64 send_report(const plan::Report& report, int first = -1, int second = -1);

/// Runs in the child of the keeper; never returns.
[[noreturn]] void init(Stage& stage);

[[noreturn]] inline void end(int code) {
    for (;;) call(__NR_exit_group, code);
}

}  // namespace stage
