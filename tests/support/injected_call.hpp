// support/injected_call.hpp - system calls that another process is made to make: what it may, seen from inside.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace caisson_test {

#ifdef __x86_64__
/// A process that stands still where it waits for events, as long as this object lives; then it goes on as if nothing
/// had been but what it was refused. One that has something to do is let do it first.
class Injected {
public:
    explicit Injected(pid_t pid) : pid_{pid} {
        for (int attempts_left = 1000; !stop_waiting(); --attempts_left) {
            (void)::ptrace(PTRACE_DETACH, pid_, nullptr, nullptr);
            if (attempts_left == 0) throw std::runtime_error{"it does not wait for events"};
            (void)::usleep(10'000);
        }
    }
    Injected(const Injected&) = delete;
    ~Injected() {
        if (!went_on_) (void)::ptrace(PTRACE_SETREGS, pid_, nullptr, &before_);
        (void)::ptrace(PTRACE_DETACH, pid_, nullptr, nullptr);
    }
    /// Where `text` is in the process, for the next call alone.
    unsigned long long put(const std::string& text) {
        const unsigned long long at = before_.rsp - 1024;
        for (std::size_t i = 0; i <= text.size(); i += sizeof(long)) {
            long word = 0;
            std::memcpy(&word, text.c_str() + i, std::min(sizeof word, text.size() + 1 - i));
            (void)::ptrace(PTRACE_POKEDATA, pid_, at + i, word);
        }
        return at;
    }
    /// What the call returns: a number, or an error as a negative one.
    long call(long number, std::array<unsigned long long, 6> arguments) {
        user_regs_struct regs = before_;
        regs.rip -= 2;
        regs.rax = static_cast<unsigned long long>(number);
        regs.orig_rax = ~0ULL;  // nothing to be restarted
        regs.rdi = arguments[0];
        regs.rsi = arguments[1];
        regs.rdx = arguments[2];
        regs.r10 = arguments[3];
        regs.r8 = arguments[4];
        regs.r9 = arguments[5];
        int status = 0;
        if (::ptrace(PTRACE_SETREGS, pid_, nullptr, &regs) != 0 ||
            ::ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) != 0 || ::waitpid(pid_, &status, 0) != pid_ ||
            ::ptrace(PTRACE_GETREGS, pid_, nullptr, &regs) != 0) {
            throw std::runtime_error{"it cannot be traced on"};
        }
        return static_cast<long>(regs.rax);
    }
    /// Lets it go on until it makes this system call, which is not made: it fails with `errnum`.
    void refuse_next(long number, int errnum) {
        went_on_ = true;
        user_regs_struct regs{};
        // Each call stops it twice; as it begins, its result is not known.
        do {
            stop_at_call(regs);
        } while (static_cast<long>(regs.orig_rax) != number || static_cast<long>(regs.rax) != -ENOSYS);
        regs.orig_rax = ~0ULL;
        (void)::ptrace(PTRACE_SETREGS, pid_, nullptr, &regs);
        stop_at_call(regs);
        regs.rax = static_cast<unsigned long long>(-static_cast<long long>(errnum));
        (void)::ptrace(PTRACE_SETREGS, pid_, nullptr, &regs);
    }

private:
    /// False if it was about something else.
    bool stop_waiting() {
        int status = 0;
        if (::ptrace(PTRACE_ATTACH, pid_, nullptr, nullptr) != 0 || ::waitpid(pid_, &status, 0) != pid_ ||
            ::ptrace(PTRACE_GETREGS, pid_, nullptr, &before_) != 0) {
            throw std::runtime_error{"it cannot be traced"};
        }
        const long code = ::ptrace(PTRACE_PEEKTEXT, pid_, before_.rip - 2, nullptr);
        const std::array waits{SYS_poll, SYS_ppoll, SYS_epoll_wait, SYS_epoll_pwait};
        const auto call = static_cast<long>(before_.orig_rax);
        // Interrupted, and not at an end by itself: EINTR, or one of those with which the kernel starts it again.
        const auto result = static_cast<long>(before_.rax);
        return (code & 0xffff) == 0x050f && std::find(waits.begin(), waits.end(), call) != waits.end() &&
               (result == -EINTR || (result <= -512 && result >= -516));
    }
    void stop_at_call(user_regs_struct& regs) {
        int status = 0;
        if (::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr) != 0 || ::waitpid(pid_, &status, 0) != pid_ ||
            !WIFSTOPPED(status) || ::ptrace(PTRACE_GETREGS, pid_, nullptr, &regs) != 0) {
            throw std::runtime_error{"it cannot be traced on"};
        }
    }

    pid_t pid_;
    bool went_on_ = false;
    user_regs_struct before_{};
};
#endif

}  // namespace caisson_test
