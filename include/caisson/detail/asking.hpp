// caisson/detail/asking.hpp - asks a container's init to power off or to restart, and tells whether it ends and who
// does not.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include <caisson/lifecycle.hpp>
#include <caisson/process.hpp>

namespace caisson::inline v0::detail {

/// Puts init(8)'s request for runlevel 0, or 6 for a reboot, into the fifo that an init inside reads; false where none
/// does, or it cannot be reached. Never blocks, whatever the container's file systems are.
[[nodiscard]] [[gnu::visibility("default")]] bool ask_by_initctl(const Process& init, EndKind kind);

/// The signal that this init takes for it, see ShutdownMode. `has_command_below`: it hands signals on to its child.
[[nodiscard]] [[gnu::visibility("default")]] int signal_for(const Process& init, bool has_command_below, EndKind kind);

/// True from the moment in which nobody can join the container of this init any more: the kernel ends all that is in it
/// before the process counts as ended.
[[nodiscard]] [[gnu::visibility("default")]] bool is_ending(const Process& init);

/// True where a tracer (ptrace(2)) has a thread of the process stand still. After SIGKILL it does that at the thread's
/// end alone: the process runs nothing any more, and has ended only once the tracer lets it.
[[nodiscard]] [[gnu::visibility("default")]] bool is_held(const Process& process);

/// Of these processes, those that wait in the kernel where no signal reaches them, with name and place: "process 7
/// ('cat') waits in the kernel, in 'fuse_wait'". Where there is none, what `init` does.
[[nodiscard]] [[gnu::visibility("default")]] std::string who_is_stuck(const Process& init,
                                                                      const std::vector<pid_t>& processes);

}  // namespace caisson::inline v0::detail
