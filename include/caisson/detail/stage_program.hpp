// caisson/detail/stage_program.hpp - what the stage is launched from, its program and files in memory, and
// what it tells by its pipe.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/launch.hpp>
#include <caisson/detail/plan.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/mount.hpp>

namespace caisson::inline v0::detail {

inline constexpr unsigned mfd_noexec_seal = 0x08;  // Linux 6.3, as is the next
inline constexpr unsigned mfd_exec = 0x10;
inline constexpr int all_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

/// A file in memory of which nobody can change the size, nor, with `all_seals`, the content. Throws `Step::clone`.
[[nodiscard]] inline Fd sealed_file(const char* name, unsigned flags, const void* data, std::size_t size,
                                    int seals = all_seals) {
    const std::string what = std::string{"the stage's "} + name + " in memory";
    Fd file{static_cast<int>(::syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags))};
    if (!file && errno == EINVAL) {  // flags that the kernel does not know
        file.reset(static_cast<int>(::syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING)));
    }
    if (!file) {
        const int saved = errno;
        throw Error{Step::clone, saved, what,
                    saved == EACCES ? "vm.memfd_noexec forbids it: set stage_path to an installed stage" : ""};
    }
    sys::require_file_size(Step::clone, size, what);
    const auto* from = static_cast<const char*>(data);
    for (std::size_t at = 0; at < size;) {
        const ssize_t n = sys::retry([&] { return ::write(file.get(), from + at, size - at); });
        if (n < 0) fail(Step::clone, what);
        at += static_cast<std::size_t>(n);
    }
    if (::fcntl(file.get(), F_ADD_SEALS, seals) != 0) fail(Step::clone, "seal " + what);
    return file;
}

/// The stage's program, open to be executed.
class StageProgram {
public:
    /// `path`: of an installed one; empty: the library's own, in memory, with these seals. Throws `Step::clone`.
    StageProgram(const std::string& path, int seals) {
        if (path.empty()) {
            const auto image = stage_image();
            file_ = sealed_file("program", mfd_exec, image.data(), image.size(), seals);
            return;
        }
        file_ = sys::open(path, O_PATH);
        if (!file_) fail(Step::clone, "stage " + quote(path));
        // It stays when the container has gone: root inside may be root outside, and must not be able to change its
        // mode or owner through /proc/1/exe. Nothing for a caller who may not mount; there, root inside is that user.
        try {
            read_only_ = Mount::bind(file_.get(), {.read_only = true, .recursive = false});
        } catch (const Error& e) {
            if (e.code().value() != EPERM) throw;
        }
    }
    /// The file itself, and what is to be executed.
    [[nodiscard]] int file() const noexcept { return file_.get(); }
    [[nodiscard]] int fd() const noexcept { return read_only_ ? read_only_->fd() : file_.get(); }

private:
    Fd file_;
    std::optional<Mount> read_only_;
};

/// What came through the status pipe of who runs a plan; neither of the two: it was killed.
struct StageStatus {
    bool is_done = false;  ///< the command was executed, or there was none and all was done
    std::optional<InitFailure> failure{};

    /// Reads the pipe to its end. Throws `step` about `what`.
    [[nodiscard]] static StageStatus read(const Fd& pipe, Step step, const char* what) {
        std::array<char, 16> text{};
        std::size_t size = 0;
        for (;;) {
            const ssize_t n = sys::retry([&] { return ::read(pipe.get(), text.data() + size, text.size() - size); });
            if (n < 0) fail(step, what);
            if (n == 0) break;
            size += static_cast<std::size_t>(n);
        }
        const std::size_t marked = size > 0 && size % 2 == 1 && text[0] == exec_mark ? 1 : 0;
        StageStatus status{.is_done = size == 1 && marked == 1};
        if (size == marked + sizeof(InitFailure)) {
            std::memcpy(&status.failure.emplace(), text.data() + marked, sizeof(InitFailure));
        }
        return status;
    }
};

/// The kernel drops descriptors that come along with a message and have no place in the host's table.
inline void require_received(const Fd& fd, const char* what) {
    if (!fd) throw Error{Step::descriptors, EMFILE, what, "no descriptor is left: raise 'ulimit -n'"};
}

}  // namespace caisson::inline v0::detail
