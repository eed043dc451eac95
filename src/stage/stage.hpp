// src/stage/stage.hpp - what the stage's roles share. The stage is one static program without libc: it starts as the
// keeper of one container and its child becomes the container's init; or it sees to a process that visits a container
// that runs. Nothing of the host's memory is in it.
#pragma once

#include <asm/fcntl.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <asm/stat.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include <caisson/detail/plan.hpp>

#include "syscall.hpp"

namespace stage {

namespace plan = caisson::detail;

// Kernel ABI constants whose headers clash with each other or do not exist outside libc.
inline constexpr int at_fdcwd = -100;
inline constexpr int at_empty_path = 0x1000;
inline constexpr int at_symlink_nofollow = 0x100;
inline constexpr int at_removedir = 0x200;
inline constexpr int at_recursive = 0x8000;
inline constexpr s64 enoent = -2, esrch = -3, eacces = -13, eagain = -11, einval = -22, ebusy = -16, eexist = -17,
                     enotempty = -39, enotdir = -20, eloop = -40, eperm = -1, enosys = -38, emfile = -24, epipe = -32,
                     econnreset = -104, estale = -116;

// What is called often: in a copy at each place, the program would need a page more in every keeper.
[[gnu::noinline]] inline void close(s64 fd) {
    call(__NR_close, fd);
}
[[gnu::noinline]] inline s64 prctl(int option, u64 value) {
    return call(__NR_prctl, option, value, 0, 0, 0);
}
[[gnu::noinline]] inline s64 mount_setattr(s64 directory, const char* path, u64 flags, const mount_attr& attr) {
    return call(__NR_mount_setattr, directory, path, flags, &attr, sizeof attr);
}

struct Stage {
    char* base = nullptr;                      // the part of the plan that is being read, mapped privately
    const plan::PlanHeader* header = nullptr;  // the first part's
    const plan::RestHeader* rest = nullptr;    // init: the second part's
    volatile unsigned* progress = nullptr;     // one page shared by keeper and init: the instruction that init is at
    int pidfd = -1;                            // keeper: init's
    int status = -1;                           // init: the status pipe
    int go = -1;  // init: brings the keeper's leave to go on; its hang-up tells that the keeper is dead

    const char* text(plan::Ref ref) const { return base + ref; }
    template <class T>
    const T* array(plan::Ref ref) const {
        return reinterpret_cast<const T*>(base + ref);
    }
};

/// Maps a part of the plan; a negative result is the error.
template <class Header>
s64 map_plan(Stage& stage, int fd, const Header*& header) {
    const s64 size = call(__NR_lseek, fd, 0, 2 /* SEEK_END */);
    if (size < static_cast<s64>(sizeof(Header))) return size < 0 ? size : einval;
    const s64 base = call(__NR_mmap, nullptr, size, 3 /* read, write */, 2 /* MAP_PRIVATE */, fd, 0);
    if (base < 0) return base;
    stage.base = reinterpret_cast<char*>(base);
    header = reinterpret_cast<const Header*>(base);
    return header->magic == plan::plan_magic && header->size == static_cast<u64>(size) ? 0 : einval;
}

inline u64 length(const char* text) {
    u64 n = 0;
    while (text[n] != 0) ++n;
    return n;
}

/// The kernel's struct msghdr with one buffer and room for some descriptors.
struct Message {
    struct Iovec {
        void* base;
        u64 length;
    } iov;
    struct Header {
        void* name;
        int name_length;
        Iovec* iov;
        u64 iov_count;
        void* control;
        u64 control_length;
        unsigned flags;
    } header;
    struct Control {
        u64 length;
        int level;
        int type;
        int fds[plan::most_in_message];
    } control;
};

/// Receives one message of exactly `size` bytes and its descriptors; the result is how many they are. EPIPE where
/// nobody is left to send, EMFILE where this process has no place for them.
s64 receive(int socket, void* body, u64 size, int (&fds)[plan::most_in_message]);

/// Sends one report to the host, with the descriptors that are not negative. The host may be gone: that is no error
/// here.
s64 send_report(const plan::Report& report, int first = -1, int second = -1);

/// Puts a socket to the host whose end here nobody else has in the place of the inherited one. `also` goes with it, if
/// it is not negative.
s64 make_own_channel(int also = -1);

/// The kernel's siginfo as waitid(2) fills it, as far as it is read here.
struct ChildInfo {
    int signo, error, code, pad, pid, uid, status;
    int rest[25];
};

/// The inherited socket to the host, which brings `Go`, in the place of the plan's first part, which has been read.
constexpr int go_slot = plan::plan_slot;

/// Keeper: ends a start that has failed here.
[[noreturn]] void refuse(const Stage& stage, plan::KeeperStep step, s64 error, unsigned index = 0);

/// Writes init's id maps; the result is its user namespace, or -1 where it has none of its own.
int write_maps(const Stage& stage, s64 pid);
/// Waits until the host has had init's id maps written; false where that has failed. Init is not reaped meanwhile, even
/// if it dies: the programs that write them go by its pid.
bool mapped_by_host();

// overlay.cpp: both close the descriptor.
/// Lets a mount be seen through the id map of the user namespace.
s64 map_mount(int mount, int user);
/// Makes a file system that the host has configured. What an overlay does to its layers, it does as who made it, for
/// all of its life: as root of the container, whose ids the layers have, but with the capabilities of the host.
s64 make_as_root_inside(int context, u64 uid, u64 gid);

/// Lets a process join a container that runs and sees to it until its end; never returns.
[[noreturn]] void visit(Stage& stage);

/// Makes init and sees to it until its end; never returns.
[[noreturn]] void keep(Stage& stage);

/// Runs in the child of the keeper; never returns.
[[noreturn]] void init(Stage& stage);

[[noreturn]] inline void end(int code) {
    for (;;) call(__NR_exit_group, code);
}

}  // namespace stage
