// caisson/namespace.hpp - Linux namespaces as owned handles.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/process.hpp>

namespace caisson::inline v0 {

/// One kind of Linux namespace; the values are the kernel's CLONE_NEW* bits, see namespaces(7).
enum class NamespaceKind : std::uint32_t {
    time = 0x00000080,
    mount = 0x00020000,
    cgroup = 0x02000000,
    uts = 0x04000000,
    ipc = 0x08000000,
    user = 0x10000000,
    pid = 0x20000000,
    net = 0x40000000,
};

/// All kinds, in the order in which a process joins them.
inline constexpr std::array<NamespaceKind, 8> all_namespace_kinds{
    NamespaceKind::user, NamespaceKind::ipc,   NamespaceKind::uts,    NamespaceKind::net,
    NamespaceKind::pid,  NamespaceKind::mount, NamespaceKind::cgroup, NamespaceKind::time};

/// The kernel's name in /proc/PID/ns: "mnt", "net".
[[nodiscard]] constexpr const char* to_string(NamespaceKind kind) noexcept {
    switch (kind) {
        case NamespaceKind::time: return "time";
        case NamespaceKind::mount: return "mnt";
        case NamespaceKind::cgroup: return "cgroup";
        case NamespaceKind::uts: return "uts";
        case NamespaceKind::ipc: return "ipc";
        case NamespaceKind::user: return "user";
        case NamespaceKind::pid: return "pid";
        case NamespaceKind::net: return "net";
    }
    return "?";
}

/// A set of kinds: `NamespaceKind::pid | NamespaceKind::net`.
class NamespaceSet {
public:
    constexpr NamespaceSet() noexcept = default;
    constexpr NamespaceSet(NamespaceKind kind) noexcept : bits_{static_cast<std::uint32_t>(kind)} {}
    [[nodiscard]] constexpr bool has(NamespaceKind kind) const noexcept {
        return (bits_ & static_cast<std::uint32_t>(kind)) != 0;
    }
    [[nodiscard]] constexpr NamespaceSet without(NamespaceKind kind) const noexcept {
        NamespaceSet copy = *this;
        copy.bits_ &= ~static_cast<std::uint32_t>(kind);
        return copy;
    }
    [[nodiscard]] constexpr std::uint32_t bits() const noexcept { return bits_; }
    friend constexpr NamespaceSet operator|(NamespaceSet a, NamespaceSet b) noexcept {
        a.bits_ |= b.bits_;
        return a;
    }
    friend constexpr bool operator==(NamespaceSet, NamespaceSet) noexcept = default;

private:
    std::uint32_t bits_ = 0;
};
[[nodiscard]] constexpr NamespaceSet operator|(NamespaceKind a, NamespaceKind b) noexcept {
    return NamespaceSet{a} | NamespaceSet{b};
}

/// A reference to one namespace. The kernel keeps the namespace while this object lives.
///
/// Move-only; every function throws `Step::open_namespace`, and `std::logic_error` on an object that holds nothing.
/// `enter` acts on the calling thread alone.
class Namespace {
public:
    class Scope;

    /// The namespace of `kind` that the calling thread is in.
    [[nodiscard]] static Namespace current(NamespaceKind kind) {
        return from_proc("/proc/thread-self/ns/", kind, "this thread");
    }
    /// The namespace of `kind` that process `pid` is in; ESRCH if there is no such process, or it has ended. Needs
    /// ptrace access to it, see ptrace(2).
    [[nodiscard]] static Namespace of(pid_t pid, NamespaceKind kind) {
        const std::string number = std::to_string(pid);
        return from_proc("/proc/" + number + "/ns/", kind, "process " + number);
    }
    /// As above for a process held by pidfd: never the namespace of another process that got the same pid.
    [[nodiscard]] static Namespace of(const Process& process, NamespaceKind kind) {
        if (!process) throw std::logic_error{"this Process holds nothing"};
        Namespace found = of(process.pid(), kind);
        if (process.ended()) {
            throw Error{Step::open_namespace, ESRCH,
                        std::string{to_string(kind)} + " namespace of process " + std::to_string(process.pid())};
        }
        return found;
    }
    /// A namespace pinned by a file such as /run/netns/NAME; its kind is asked of the kernel.
    [[nodiscard]] static Namespace open(const std::string& path) {
        const std::string context = "namespace " + detail::quote(path);
        Fd fd = detail::sys::open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
        if (!fd) detail::fail(Step::open_namespace, context);
        const int kind = ::ioctl(fd.get(), NS_GET_NSTYPE);
        if (kind < 0) {
            throw Error{Step::open_namespace, EINVAL, context,
                        "this is no namespace file; name one such as /run/netns/NAME or /proc/PID/ns/net"};
        }
        return Namespace{std::move(fd), static_cast<NamespaceKind>(kind)};
    }
    /// A new, empty namespace with no process in it: `net`, `uts`, `ipc` or `cgroup`. The others need a process of
    /// their own (unsharing `mount` would also cut the thread's working directory off from the other threads'), so ask
    /// a `Container` for those: `std::logic_error`. The calling thread is in the new namespace for the length of two
    /// system calls and then back; other threads never are. Needs CAP_SYS_ADMIN.
    [[nodiscard]] static Namespace create(NamespaceKind kind);

    [[nodiscard]] NamespaceKind kind() const noexcept { return kind_; }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    /// Equal for two handles of the same namespace, and for no other that exists at the same time (inode on nsfs).
    [[nodiscard]] std::uint64_t id() const {
        struct stat st {};
        if (::fstat(held(), &st) != 0) detail::fail(Step::open_namespace, "identity of a namespace");
        return st.st_ino;
    }
    /// Moves the calling thread, and no other, into this namespace, for good. A `mount` namespace refuses a thread that
    /// shares its root and working directory with others, a `user` or `time` namespace every process with threads; a
    /// `pid` or `time` namespace is where the thread's next children will be. See setns(2).
    void enter() const {
        if (::setns(held(), static_cast<int>(kind_)) == 0) return;
        const bool mount = kind_ == NamespaceKind::mount;
        detail::fail(Step::open_namespace, std::string{"enter the "} + to_string(kind_) + " namespace",
                     errno == EPERM             ? "this needs CAP_SYS_ADMIN over it"
                     : errno == EINVAL && mount ? "the thread shares its root and working directory with others"
                     : errno == EUSERS || (errno == EINVAL && kind_ == NamespaceKind::user)
                         ? "a process with threads cannot, nor can one that is in it"
                         : "");
    }
    /// As `enter`, until the returned object dies; then the thread goes back, with its root and working directory. A
    /// `user` namespace has no way back: `std::logic_error`.
    [[nodiscard]] Scope enter_scoped() const;

private:
    Namespace(Fd fd, NamespaceKind kind) noexcept : fd_{std::move(fd)}, kind_{kind} {}
    int held() const {
        if (!fd_) throw std::logic_error{"this Namespace holds nothing"};
        return fd_.get();
    }
    static Namespace from_proc(const std::string& directory, NamespaceKind kind, const std::string& whose,
                               const char* suffix = "") {
        Fd fd = detail::sys::open(directory + to_string(kind) + suffix, O_RDONLY);
        if (!fd) {
            const int saved = errno;
            struct stat st {};
            const bool kernel_lacks_it =
                saved == ENOENT && ::stat((std::string{"/proc/self/ns/"} + to_string(kind)).c_str(), &st) != 0;
            // A process that is gone has no directory there, and one that has ended has no namespaces in it.
            const bool ended = saved == ENOENT && !kernel_lacks_it;
            throw Error{Step::open_namespace, ended ? ESRCH : saved,
                        std::string{to_string(kind)} + " namespace of " + whose,
                        kernel_lacks_it ? "this kernel has no such kind of namespace, or /proc is not mounted"
                        : saved == EACCES || saved == EPERM
                            ? "this needs ptrace access to the process: its user, or CAP_SYS_PTRACE over it"
                            : ""};
        }
        return Namespace{std::move(fd), kind};
    }
    Fd fd_;
    NamespaceKind kind_;
};

/// Puts the thread that made it back where it was. Not movable: it belongs to one thread and one block.
class Namespace::Scope {
public:
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    /// Goes back. The kernel refuses only where the caller took its own rights away in between; `leave` says so.
    ~Scope() {
        if (back_.fd() < 0) return;
        const int saved = errno;
        if (::setns(back_.fd(), static_cast<int>(back_.kind())) == 0) (void)restore_paths();
        errno = saved;
    }
    /// Goes back now, and throws `Step::open_namespace` if the kernel refuses. Later calls do nothing.
    void leave() {
        if (back_.fd() < 0) return;
        back_.enter();
        back_.fd_.reset();
        if (!restore_paths()) detail::fail(Step::open_namespace, "go back to the root and working directory");
    }

private:
    friend class Namespace;
    Scope(Namespace back, Fd root, Fd directory) noexcept
        : back_{std::move(back)}, root_{std::move(root)}, directory_{std::move(directory)} {}
    /// setns(2) puts a thread that joins a mount namespace into the root directory of that namespace.
    bool restore_paths() const noexcept {
        if (!root_) return true;
        return ::fchdir(root_.get()) == 0 && ::chroot(".") == 0 && ::fchdir(directory_.get()) == 0;
    }
    Namespace back_;
    Fd root_;
    Fd directory_;
};

inline Namespace::Scope Namespace::enter_scoped() const {
    (void)held();
    if (kind_ == NamespaceKind::user) throw std::logic_error{"a thread cannot come back from a user namespace"};
    const bool for_children = kind_ == NamespaceKind::pid || kind_ == NamespaceKind::time;
    Namespace back = from_proc("/proc/thread-self/ns/", kind_, "this thread", for_children ? "_for_children" : "");
    Fd root;
    Fd directory;
    if (kind_ == NamespaceKind::mount) {
        root = detail::sys::open("/", O_PATH | O_DIRECTORY);
        directory = detail::sys::open(".", O_PATH | O_DIRECTORY);
        if (!root || !directory) detail::fail(Step::open_namespace, "root and working directory of this thread");
    }
    enter();
    return Scope{std::move(back), std::move(root), std::move(directory)};
}

inline Namespace Namespace::create(NamespaceKind kind) {
    if (kind == NamespaceKind::pid || kind == NamespaceKind::user || kind == NamespaceKind::time ||
        kind == NamespaceKind::mount) {
        throw std::logic_error{std::string{"a new "} + to_string(kind) +
                               " namespace needs a process: start a Container"};
    }
    Namespace back = current(kind);
    if (::unshare(static_cast<int>(kind)) != 0) {
        const int saved = errno;
        throw Error{Step::open_namespace, saved, std::string{"new "} + to_string(kind) + " namespace",
                    saved == EPERM    ? "this needs CAP_SYS_ADMIN"
                    : saved == ENOSPC ? std::string{"the limit user.max_"} + to_string(kind) + "_namespaces is reached"
                    : saved == EINVAL ? "this kernel has no such kind of namespace"
                                      : ""};
    }
    Scope home{std::move(back), Fd{}, Fd{}};
    Namespace made = current(kind);
    home.leave();
    return made;
}

}  // namespace caisson::inline v0
