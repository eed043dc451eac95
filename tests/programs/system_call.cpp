// system_call - a static program without libc that makes system calls and tells what came of them:
//
//     system_call ABI NUMBER [ARGUMENT...]   one call; ABI: native, i386 or x32; '@': the address of a byte, 'X'
//     system_call                            every number from 0 to 479, with all bits of all arguments set
//
// A line for each: the number, and `ok`, the errno, or the signal that it ended by ("signal 31"). Each call is made by
// a child of its own, which is ended if it takes longer than a second ("signal 14").
#include "../../src/stage/syscall.hpp"

namespace {

using stage::call;
using stage::s64;
using stage::syscall6;
using stage::u64;

char byte[] = "X";

u64 length(const char* text) {
    u64 n = 0;
    while (text[n] != 0) ++n;
    return n;
}
bool same(const char* a, const char* b) {
    while (*a != 0 && *a == *b) {
        ++a;
        ++b;
    }
    return *a == *b;
}
u64 number(const char* text) {
    if (*text == '@') return reinterpret_cast<u64>(byte);
    const bool hexadecimal = text[0] == '0' && text[1] == 'x';
    u64 value = 0;
    for (text += hexadecimal ? 2 : 0; *text != 0; ++text) {
        const auto digit = static_cast<u64>(*text <= '9' ? *text - '0' : *text - 'a' + 10);
        value = value * (hexadecimal ? 16 : 10) + digit;
    }
    return value;
}
void tell(const char* text) {
    call(__NR_write, 1, text, length(text));
}
void tell(u64 value) {
    char digits[24];
    char* at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = static_cast<char>('0' + value % 10);
        value /= 10;
    } while (value > 0);
    tell(at);
}
[[noreturn]] void end(int code) {
    for (;;) call(__NR_exit_group, code);
}

s64 make(const char* abi, u64 nr, const u64* a) {
    const auto arg = [&](int i) { return static_cast<s64>(a[i]); };
#if defined(__x86_64__)
    if (same(abi, "i386")) {
        int result;
        asm volatile("int $0x80"
                     : "=a"(result)
                     : "a"(static_cast<int>(nr)), "b"(arg(0)), "c"(arg(1)), "d"(arg(2)), "S"(arg(3)), "D"(arg(4))
                     : "r8", "r9", "r10", "r11", "memory");
        return result;
    }
    if (same(abi, "x32")) nr |= 0x40000000;
#endif
    return syscall6(static_cast<s64>(nr), arg(0), arg(1), arg(2), arg(3), arg(4), arg(5));
}

/// In a child, so that whatever the call does hits nobody else.
void attempt(const char* abi, u64 nr, const u64* arguments) {
    int ends[2];
    if (call(__NR_pipe2, ends, 0) < 0) end(3);
    constexpr s64 sigchld = 17;
    const s64 child = call(__NR_clone, sigchld, 0, 0, 0, 0);
    if (child == 0) {
        const s64 self = call(__NR_getpid);
        const u64 a_second[]{0, 0, 1, 0};
        call(__NR_setitimer, 0, a_second, nullptr);
        const s64 result = make(abi, nr, arguments);
        // A fork comes back twice.
        if (call(__NR_getpid) == self) call(__NR_write, ends[1], &result, sizeof result);
        end(0);
    }
    call(__NR_close, ends[1]);
    s64 result = 0;
    int status = 0;
    call(__NR_wait4, child, &status, 0, nullptr);
    const bool told = call(__NR_read, ends[0], &result, sizeof result) == sizeof result;
    call(__NR_close, ends[0]);
    tell(nr);
    if ((status & 0x7f) != 0) {
        tell(" signal ");
        tell(static_cast<u64>(status & 0x7f));
    } else if (!told || result >= 0 || result < -4095) {
        tell(" ok");
    } else {
        tell(" ");
        tell(static_cast<u64>(-result));
    }
    tell("\n");
}

}  // namespace

extern "C" [[noreturn, gnu::used]] void run(const u64* stack) {
    const u64 count = stack[0];
    const auto* const* words = reinterpret_cast<const char* const*>(stack + 1);
    if (count == 1) {
        const u64 all[]{~0ul, ~0ul, ~0ul, ~0ul, ~0ul, ~0ul};
        for (u64 nr = 0; nr < 480; ++nr) attempt("native", nr, all);
        end(0);
    }
    if (count < 3 || count > 9) end(2);
    u64 arguments[6]{};
    for (u64 i = 3; i < count; ++i) arguments[i - 3] = number(words[i]);
    attempt(words[1], number(words[2]), arguments);
    end(0);
}

#if defined(__x86_64__)
asm(".globl _start\n_start:\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call run\n");
#else
asm(".globl _start\n_start:\n  mov x0, sp\n  bl run\n");
#endif
