// A static program without libc that forks, and its children fork, as fast as they are let.
#include "../../src/stage/syscall.hpp"

#include <signal.h>
#include <time.h>

extern "C" [[noreturn, gnu::used]] void _start() {
    for (;;) {
        // Refused, it tries again a thousand times a second.
        const timespec pause{0, 1'000'000};
        if (stage::call(__NR_clone, SIGCHLD, 0, 0, 0, 0) < 0) stage::call(__NR_ppoll, nullptr, 0, &pause, nullptr, 8);
    }
}
