// flood: a static program without libc that makes the terminal on its standard output raw and writes 64 MiB to it.
#include "../../src/stage/syscall.hpp"

namespace {

constexpr unsigned long block = 65536;
constexpr unsigned long total = 64ul << 20;
char bytes[block];

struct Modes {
    unsigned input, output, control, local;
    unsigned char rest[64];
};

}  // namespace

extern "C" [[noreturn, gnu::used]] void _start() {
    Modes modes{};
    if (stage::call(__NR_ioctl, 1, 0x5401 /* TCGETS */, &modes) == 0) {
        modes.input = modes.output = modes.local = 0;
        stage::call(__NR_ioctl, 1, 0x5402 /* TCSETS */, &modes);
    }
    for (unsigned long i = 0; i < block; ++i) bytes[i] = static_cast<char>(i);
    for (unsigned long left = total; left > 0;) {
        const long n = stage::call(__NR_write, 1, bytes, left < block ? left : block);
        if (n <= 0) break;
        left -= static_cast<unsigned long>(n);
    }
    for (;;) stage::call(__NR_exit_group, 0);
}
