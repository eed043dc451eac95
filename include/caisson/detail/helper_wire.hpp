// caisson/detail/helper_wire.hpp - what a helper and its clients say to each other: one message a datagram, between two
// programs of the same build of the library.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/archive.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/pty.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

inline constexpr std::uint32_t wire_version = 0x43530007;
inline constexpr std::size_t most_wire_message = std::size_t{128} * 1024;
inline constexpr std::size_t most_note = std::size_t{1} << 20;
/// A whole start request or Info: it crosses as a file in memory.
inline constexpr std::size_t most_wire_file = std::size_t{16} << 20;
/// The helper's own descriptors as it begins: after standard input, output and error, which are /dev/null.
inline constexpr int helper_socket = 3, helper_request = 4, helper_stdio = 5;

struct Message {
    // Those from `done` on are the helper's.
    enum class Kind : std::uint8_t {
        info,
        signal,
        stop,
        kill,
        usage,
        resize,
        console,
        process,  ///< `done` brings a pidfd of init
        limit,
        limits,
        suspend,
        resume,
        note,        ///< with a memory file
        watch,       ///< from then on, each `event` is told
        pressure,    ///< see Controller::watch_pressure; `number`: the level
        descriptor,  ///< of a group: passes one on, of those that the next start's request names
        start,       ///< of a group: with a StartRequest as a memory file
        shutdown,
        reboot,
        stuck,
        equipment,  ///< of who attaches something, or detaches it: as `process`
        intent,     ///< the Change that will be made, `is_half`, noted if the client goes away; else as `change`
        change,  ///< the Change that was made, or nothing: then none was; with a netlink socket where it is a network
        viewer,  ///< see Helper::attach_console; `body`: ViewerOptions
        detach,  ///< see Helper::detach_viewers; `number`: which console
        console_state,  ///< `number`: which console
        done,
        refused,
        elsewhere,  ///< of a new helper: the group has another, which is to be asked
        event,      ///< unasked, with a PlainEvent
        exited
    };
    std::uint32_t version = wire_version;
    Kind kind = Kind::info;
    std::int64_t number =
        0;  ///< signal: which; stop: milliseconds of grace; usage: UsageParts; shutdown, reboot:
            ///< ShutdownMode; resize, console: which; done: 1 for yes; of info and process: it is suspended
    WindowSize size{};
    std::string body{};  ///< limit: a LimitSpec; done: a Usage, a LimitSpec, a ConsoleState or a PlainError; refused: a
                         ///< PlainError; exited: a PlainStatus
};
template <class A, SameButConst<Message> S>
void fields(A& archive, S& s) {
    auto& [version, kind, number, size, body] = s;
    archive(version);
    archive.enumerator(kind, Message::Kind::exited);
    archive(number, size, body);
}

/// What a helper is to do; the first thing that it reads.
struct StartRequest {
    std::uint32_t version = wire_version;
    std::string run_directory{};
    std::string group{};
    std::string note{};
    bool open_console = false;
    bool outlive = false;
    ContainerSpec spec{};  ///< descriptors are numbered from `helper_stdio` on, in the order in which they are passed
};
template <class A, SameButConst<StartRequest> S>
void fields(A& archive, S& s) {
    auto& [version, run_directory, group, note, open_console, outlive, spec] = s;
    archive(version, run_directory, group, note, open_console, outlive, spec);
}

/// What a helper tells about itself, as a file in memory that comes along with `done`.
struct Info {
    std::string name{};
    std::int32_t init = -1;
    std::string console_path{};
    std::vector<std::string> more_console_paths{};
    std::string note{};
    std::optional<PlainStatus> preserved{};
};
template <class A, SameButConst<Info> S>
void fields(A& archive, S& s) {
    auto& [name, init, console_path, more_console_paths, note, preserved] = s;
    archive(name, init, console_path, more_console_paths, note, preserved);
}

/// Throws `Step::helper` with EBADMSG unless the bytes begin with this build's version.
inline void require_wire_version(std::string_view bytes) {
    std::uint32_t version = 0;
    if (bytes.size() >= sizeof version) std::memcpy(&version, bytes.data(), sizeof version);
    if (version == wire_version) return;
    throw Error{Step::helper, EBADMSG, "message of caisson: its version is another",
                "use library and helper of the same build"};
}

/// A sealed file in memory. Throws `Step::helper`.
[[nodiscard]] inline Fd to_memory_file(const std::string& bytes) {
    Fd file{static_cast<int>(::syscall(SYS_memfd_create, "caisson-helper", MFD_CLOEXEC | MFD_ALLOW_SEALING))};
    if (!file) fail(Step::helper, "file in memory");
    sys::require_file_size(Step::helper, bytes.size(), "file in memory");
    for (std::size_t at = 0; at < bytes.size();) {
        const ssize_t n = sys::retry([&] { return ::write(file.get(), bytes.data() + at, bytes.size() - at); });
        if (n <= 0) fail(Step::helper, "file in memory");
        at += static_cast<std::size_t>(n);
    }
    if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
        fail(Step::helper, "seal a file in memory");
    }
    return file;
}
/// All of a file, from its start, whoever else reads it. Throws `Step::helper`.
[[nodiscard]] inline std::string read_memory_file(int fd) {
    std::string bytes;
    char buffer[16384];
    for (;;) {
        const ssize_t n =
            sys::retry([&] { return ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(bytes.size())); });
        if (n < 0) fail(Step::helper, "read a file in memory");
        if (n == 0) return bytes;
        bytes.append(buffer, static_cast<std::size_t>(n));
        if (bytes.size() > most_wire_file) throw Error{Step::helper, EMSGSIZE, "read a file in memory"};
    }
}

/// Sends a message, with a descriptor where `pass` is one; false and `errno` otherwise. No SIGPIPE.
[[nodiscard]] inline bool send_message(int socket, const Message& message, int pass = -1, int flags = 0) {
    std::string bytes = encode(message);
    iovec iov{bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
    msghdr header{};
    header.msg_iov = &iov;
    header.msg_iovlen = 1;
    if (pass >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        cmsghdr* const c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(c), &pass, sizeof pass);
    }
    return sys::retry([&] { return ::sendmsg(socket, &header, MSG_NOSIGNAL | flags); }) ==
           static_cast<ssize_t>(bytes.size());
}

enum class Taken : std::uint8_t { message, nothing_yet, closed };
/// Takes a message that is there; never blocks. `passed`: nullptr where no descriptor is wanted, then any is discarded.
/// Throws `Step::helper` with EBADMSG for anything that is none.
[[nodiscard]] inline Taken take_message(int socket, Message& message, Fd* passed) {
    std::string bytes(1, '\0');
    const ssize_t size = sys::last_word(
        [&] { return ::recv(socket, bytes.data(), 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_CMSG_CLOEXEC); });
    if (size < 0 && errno == EAGAIN) return Taken::nothing_yet;
    if (size <= 0) return Taken::closed;
    if (static_cast<std::size_t>(size) > most_wire_message) {
        throw Error{Step::helper, EBADMSG, "message of caisson: it is too long"};
    }
    bytes.resize(static_cast<std::size_t>(size));
    iovec iov{bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr header{};
    header.msg_iov = &iov;
    header.msg_iovlen = 1;
    if (passed != nullptr) {
        header.msg_control = control;
        header.msg_controllen = CMSG_LEN(sizeof(int));  // with its padding there would be room for a second
    }
    // It is there: what may come before it is an error, which leaves the header as it is.
    if (sys::last_word([&] { return ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC); }) != size) {
        return Taken::closed;
    }
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
        passed->reset(fd);
    }
    require_wire_version(bytes);
    message = decode<Message>(bytes);
    return Taken::message;
}

}  // namespace caisson::inline v0::detail
