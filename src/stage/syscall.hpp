// src/stage/syscall.hpp - system calls without libc, for x86-64 and aarch64. A negative result is -errno.
#pragma once

#include <asm/unistd.h>

namespace stage {

using s64 = long;
using u64 = unsigned long;

// Most calls need no more than three registers set, which is a third of the program's size.
#if defined(__x86_64__)
inline s64 syscall3(s64 number, s64 a, s64 b, s64 c) {
    s64 result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
inline s64 syscall6(s64 number, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f) {
    s64 result;
    register s64 r10 asm("r10") = d;
    register s64 r8 asm("r8") = e;
    register s64 r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
inline s64 syscall3(s64 number, s64 a, s64 b, s64 c) {
    register s64 x8 asm("x8") = number;
    register s64 x0 asm("x0") = a;
    register s64 x1 asm("x1") = b;
    register s64 x2 asm("x2") = c;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
inline s64 syscall6(s64 number, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f) {
    register s64 x8 asm("x8") = number;
    register s64 x0 asm("x0") = a;
    register s64 x1 asm("x1") = b;
    register s64 x2 asm("x2") = c;
    register s64 x3 asm("x3") = d;
    register s64 x4 asm("x4") = e;
    register s64 x5 asm("x5") = f;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "the stage is written for x86-64 and aarch64"
#endif

template <class T>
s64 word(T* value) {
    return reinterpret_cast<s64>(value);
}
inline s64 word(decltype(nullptr)) {
    return 0;
}
template <class T>
s64 word(T value) {
    return static_cast<s64>(value);
}

template <class A = int, class B = int, class C = int>
s64 call(s64 number, A a = 0, B b = 0, C c = 0) {
    return syscall3(number, word(a), word(b), word(c));
}
template <class A, class B, class C, class D, class E = int, class F = int>
s64 call(s64 number, A a, B b, C c, D d, E e = 0, F f = 0) {
    return syscall6(number, word(a), word(b), word(c), word(d), word(e), word(f));
}

/// Calls again while a signal or a stop interrupts.
template <class... Args>
s64 retry(s64 number, Args... args) {
    s64 result;
    do result = call(number, args...);
    while (result == -4 /* EINTR */);
    return result;
}

}  // namespace stage
