// src/stage/init.hpp - what the files share that run a plan's instructions, as pid 1 or in a visit. Each instruction is
// one function; a negative result is the error.
#pragma once

#include "stage.hpp"

namespace stage {

using plan::Instr;

// Not in `Stage`, which is on the keeper's stack too: the keeper never touches this memory and so has none of it.
extern int received[plan::most_received];
extern int made[plan::dynamic_slots];

/// What a slot of the plan stands for.
int descriptor(plan::Slot slot);

// init.cpp
/// Arms the parent-death signal, which every change of ids takes away, also against a keeper that has died meanwhile.
s64 die_with_keeper(const Stage& stage);
/// 0, 1 and 2 become copies of the descriptors in `first` and in the slots that are `step` and twice that further on.
s64 standard_descriptors(plan::Slot first, int step);

/// Runs instructions, the first of which has `number` in the whole plan; a failure is reported and ends this process.
void run_all(Stage& stage, const Instr* instrs, unsigned count, unsigned number);
/// Tells the host that instruction `number` was refused, and ends this process.
[[noreturn]] void fail_at(const Stage& stage, unsigned number, s64 error);

// visit.cpp
s64 join(const Instr& instr);
s64 pass_up(const Instr& instr);
s64 standard(const Instr& instr);
s64 become_visible(Stage& stage);
s64 serve(const Instr& instr);
s64 open_netlink(const Instr& instr);
s64 open_devpts(Stage& stage, const Instr& instr);
s64 open_null(Stage& stage, const Instr& instr);
s64 send_file(const Instr& instr);
s64 open_file(Stage& stage, const Instr& instr);
s64 unmount(Stage& stage, const Instr& instr);
s64 remove_name(Stage& stage, const Instr& instr);

// mounts.cpp
/// The one way from a path of the container to a descriptor. The root is "/" of this process, which is the container's.
s64 resolve(const char* path, u64 extra);
bool is_directory(s64 fd);
/// A file below a file system that this process has made, without leaving it.
s64 open_below(int base, const char* path, u64 flags);
s64 open_path(Stage& stage, const Instr& instr);
s64 new_filesystem(Stage& stage, const Instr& instr);
s64 mount_context(const Instr& instr);
s64 set_attributes(int fd, u64 set, u64 flags);
s64 private_mounts();
s64 clone_mount(Stage& stage, const Instr& instr);
s64 make_node(Stage& stage, const Instr& instr);
s64 enter_root(int tree);
s64 place(Stage& stage, const Instr& instr);
s64 mask_begin(Stage& stage, const Instr& instr);
s64 mask(Stage& stage, const Instr& instr);
s64 mask_end(Stage& stage, const Instr& instr);
s64 read_only(Stage& stage, const Instr& instr);

// process.cpp
/// The caller becomes a reaper for its child, which returns.
s64 first_process(Stage& stage);
s64 open_terminal(const Instr& instr);
s64 session(const Instr& instr);
s64 working_directory(const char* path);
s64 write_setting(Stage& stage, const Instr& instr);
s64 resource_limit(const Instr& instr);
s64 bounding_set(u64 kept);
s64 credentials(const Stage& stage, const Instr& instr);
s64 capabilities(const plan::Capabilities& wanted);
s64 descriptors(Stage& stage, const Instr& instr);
s64 filter(const Stage& stage, const Instr& instr);

}  // namespace stage
