// crash - a program without libc that writes to address 0, which even ends a container's pid 1.
#if defined(__x86_64__)
asm(".globl _start\n_start:\n  xor %eax, %eax\n  mov %eax, (%rax)\n");
#else
asm(".globl _start\n_start:\n  mov x0, #0\n  str w0, [x0]\n");
#endif
