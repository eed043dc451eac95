// src/launch.cpp - the only code of the library that runs in another process while it shares the host's memory. It
// makes system calls and nothing else: no allocation, no locks, no exceptions, no C library but clone(2)'s wrapper;
// tests/child_symbols.sh holds the list of what it may refer to. Built without sanitizers.
#include <caisson/detail/launch.hpp>

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>

#include "stage/syscall.hpp"

/// clone(2)'s wrapper under the name that the C library exports beside it: the thread sanitizer of a host program puts
/// itself in front of the other one, and takes a child that shares the host's memory for a fork(2)ed copy.
extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);

namespace caisson::inline v0::detail {
namespace {

using stage::call;
using stage::retry;

constexpr std::size_t stack_size = 8192;

struct Launch {
    const LaunchRequest* request = nullptr;
    volatile int errnum = 0;
    const char* volatile call = "";
    volatile pid_t pid = -1;
    int pidfd = -1;
    volatile bool done = false;  // the intermediate got to its end: the new process has executed its program or ended
    int moved[most_launch_descriptors]{};
    alignas(16) char stack[stack_size];
};

[[noreturn]] void leave() {
    for (;;) call(__NR_exit, 127);
}

[[noreturn]] void fail(Launch& launch, const char* name, long result) {
    launch.call = name;
    launch.errnum = static_cast<int>(-result);
    leave();
}

/// The new process: arranges its own copy of the descriptor table, then executes the program.
int program_main(void* argument) {
    auto& launch = *static_cast<Launch*>(argument);
    const LaunchRequest& request = *launch.request;
    const auto count = static_cast<int>(request.descriptor_count);
    // First out of the way of the numbers 0 to `count`, then down to their places.
    const long program = call(__NR_fcntl, request.program, F_DUPFD_CLOEXEC, count + 1);
    if (program < 0) fail(launch, "fcntl", program);
    for (int i = 0; i < count; ++i) {
        const long moved = call(__NR_fcntl, request.descriptors[i], F_DUPFD_CLOEXEC, count + 1);
        if (moved < 0) fail(launch, "fcntl", moved);
        launch.moved[i] = static_cast<int>(moved);
    }
    for (int i = 0; i < count; ++i) {
        const long result = retry(__NR_dup3, launch.moved[i], i, 0);
        if (result < 0) fail(launch, "dup3", result);
    }
    const long placed = retry(__NR_dup3, program, count, O_CLOEXEC);
    if (placed < 0) fail(launch, "dup3", placed);
    const long closed = call(__NR_close_range, count + 1, ~0U, 0);
    if (closed < 0) fail(launch, "close_range", closed);
    fail(launch, "execveat", call(__NR_execveat, count, "", request.argv, request.envp, AT_EMPTY_PATH));
}

/// Makes the new process and ends, which makes that one nobody's child.
int intermediate_main(void* argument) {
    auto& launch = *static_cast<Launch*>(argument);
    alignas(16) char stack[stack_size / 2];
    // clone(2) by its wrapper: the child gets a stack of its own, which C++ cannot arrange.
    const int pid =
        __clone(program_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, argument, &launch.pidfd);
    if (pid < 0) {
        launch.call = "clone";
        launch.errnum = errno;
    } else {
        launch.pid = pid;
    }
    launch.done = true;
    leave();
}

}  // namespace

Launched launch(const LaunchRequest& request, LaunchFailure& failure) noexcept {
    const int saved_errno = errno;
    if (request.descriptor_count > most_launch_descriptors) {
        failure = {EMFILE, "descriptors of one container"};
        return {};
    }
    Launch launch;
    launch.request = &request;

    // A handler of the host must not run in a process that shares its memory.
    const unsigned long all = ~0UL;
    unsigned long before = 0;
    call(__NR_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
    // CLONE_FILES: the pidfd of the new process lands in the host's table, and nothing is copied.
    const int intermediate =
        __clone(intermediate_main, launch.stack + sizeof launch.stack, CLONE_VM | CLONE_VFORK | CLONE_FILES, &launch);
    if (intermediate < 0) {
        launch.call = "clone";
        launch.errnum = errno;
    } else {
        // __WALL: a child without an exit signal. Somebody else may have waited for it; that changes nothing.
        retry(__NR_wait4, intermediate, nullptr, __WALL, nullptr);
    }
    Fd pidfd{launch.pidfd};
    if (intermediate >= 0 && !launch.done) {
        // Somebody killed the intermediate. What it made may still be using this stack.
        if (pidfd) {
            call(__NR_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
            pollfd ended{pidfd.get(), POLLIN, 0};
            retry(__NR_ppoll, &ended, 1, nullptr, nullptr, 8);
        }
        launch.call = "clone (the intermediate process was killed)";
        launch.errnum = EINTR;
    }
    call(__NR_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
    errno = saved_errno;
    if (launch.errnum != 0) {
        failure = {launch.errnum, launch.call};
        return {};
    }
    return {launch.pid, std::move(pidfd)};
}

}  // namespace caisson::inline v0::detail
