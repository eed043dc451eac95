// caisson/detail/launch.hpp - starts a program from a process with threads, at a cost that does not depend on its size,
// as a process that is not its child.
#pragma once

#include <cstddef>
#include <span>

#include <sys/types.h>

#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// What to start.
struct LaunchRequest {
    int program = -1;             ///< descriptor of the executable
    char* const* argv = nullptr;  ///< nullptr ends
    char* const* envp = nullptr;
    const int* descriptors = nullptr;  ///< the new program's descriptor i is a copy of descriptors[i]; it gets no other
    std::size_t descriptor_count = 0;
};
inline constexpr std::size_t most_launch_descriptors = 512;

/// Why it did not start.
struct LaunchFailure {
    int errnum = 0;
    const char* call = "";  ///< the system call that was refused
};

/// The process that was started; `pidfd` holds nothing if none was.
struct Launched {
    pid_t pid = -1;
    Fd pidfd{};
};

/// Starts the program; throws nothing and allocates nothing.
///
/// The new process is not a child of the calling one: an intermediate that never executes a program, made with
/// exit_signal 0, makes it and ends, so that the host sees no SIGCHLD and no `waitpid(-1)` of its own can take anything
/// away. It becomes a child of pid 1 or of the nearest subreaper, see EMBEDDING.md. Both share the host's memory only
/// until execve(2), with the calling thread suspended, as in vfork(2); all signals are blocked meanwhile and the new
/// program starts with all of them blocked. Safe from any thread.
[[gnu::visibility("default")]] Launched launch(const LaunchRequest& request, LaunchFailure& failure) noexcept;

/// The stage's program image.
[[nodiscard]] [[gnu::visibility("default")]] std::span<const unsigned char> stage_image() noexcept;

}  // namespace caisson::inline v0::detail
