// A static program without libc that stays until it is killed.
#include "../../src/stage/syscall.hpp"

extern "C" [[noreturn, gnu::used]] void _start() {
    for (;;) stage::call(__NR_ppoll, nullptr, 0, nullptr, nullptr, 8);
}
