// src/helper_connection.cpp - how a helper is found, also after it has let this program go.
#include "helper_connection.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <caisson/check.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0 {
namespace {

using detail::quote;

const char* if_denied() noexcept {
    return errno == EACCES ? "it is another user's: run as that user, or use a run directory of your own" : "";
}

}  // namespace

namespace detail {

std::string absolute(const std::string& path) {
    if (path.starts_with('/')) return path;
    char here[4096];
    if (::getcwd(here, sizeof here) == nullptr) {
        fail(Step::helper, "working directory, from which " + quote(path) + " counts",
             "give run_directory as an absolute path");
    }
    return here + ("/" + path);
}

std::optional<HelperConnection> connect_to(const std::string& run, const std::string& entry, const std::string& what,
                                           bool waits) {
    const Fd directory = sys::open(run + "/" + entry, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!directory) {
        if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
        fail(Step::helper, "directory " + quote(run + "/" + entry), if_denied());
    }
    Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK), 0)};
    // Of many who come at once, some wait for their turn.
    const timeval patience{10, 0};
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
        fail(Step::helper, "socket");
    }
    // By descriptor: the path may be longer than a socket's address can be.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = "/proc/thread-self/fd/" + std::to_string(directory.get()) + "/sock";
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const auto* const to = reinterpret_cast<const sockaddr*>(&address);
    if (sys::retry([&] { return ::connect(socket.get(), to, sizeof address); }) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED) return std::nullopt;
        fail(Step::helper, what, errno == EAGAIN ? "it does not answer, and has too many clients waiting" : "");
    }
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) fail(Step::helper, "socket");
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) fail(Step::helper, what);
    if (peer.uid != 0 && peer.uid != ::geteuid()) throw Error{Step::helper, EPERM, what, "it is another user's"};
    if (peer.pid == 0) {
        throw Error{Step::helper, ESRCH, what, "it is in a pid namespace that this process does not see into"};
    }
    try {
        return HelperConnection{std::move(socket), Process::open(peer.pid)};
    } catch (const Error& e) {
        if (e.code().value() == ESRCH) return std::nullopt;
        throw;
    }
}

static std::optional<Owner> recorded_owner(const Fd& directory, const std::string& path) {
    if (directory) errno = 0;
    auto owner = directory ? Owner::recorded_in(directory.get(), "owner") : std::nullopt;
    // Who has no room to look must not say that there is none.
    if (!owner && sys::is_shortage(errno)) fail(Step::helper, "file " + quote(path + "/owner"), "raise 'ulimit -n'");
    return owner;
}
static Fd open_place(const std::string& path) {
    return sys::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

std::string owner_of(const std::string& directory) {
    const Fd opened = open_place(directory);
    const auto owner = recorded_owner(opened, directory);
    struct stat st {};
    if (!owner || owner->is_dead() || ::fstat(opened.get(), &st) != 0) return {};
    // A group's helper may have another container of that name by now, in a directory of its own.
    return owner->tag() + "/" + std::to_string(st.st_ino);
}
static bool is_still(const std::string& directory, const std::string& owner) {
    return !owner.empty() && owner_of(directory) == owner;
}

/// Its owner has died without giving it up.
static bool is_orphaned(const std::string& directory) {
    const auto owner = recorded_owner(open_place(directory), directory);
    return owner && owner->is_dead();
}

}  // namespace detail

std::optional<Helper> Helper::find(const std::string& name, const std::string& run_directory) {
    if (!is_valid_name(name)) return std::nullopt;
    auto found = detail::connect_to(run_directory, name, "helper of container " + quote(name));
    if (!found) return std::nullopt;
    Helper helper{name, std::move(found->helper), std::move(found->socket)};
    helper.run_directory_ = detail::absolute(run_directory);
    helper.owner_ = detail::owner_of(helper.run_directory_ + "/" + name);
    return helper;
}

std::vector<std::string> Helper::list(const std::string& run_directory) {
    std::vector<std::string> names;
    Fd directory = detail::sys::open(run_directory, O_RDONLY | O_DIRECTORY);
    if (!directory) {
        if (errno == ENOENT) return names;
        detail::fail(Step::helper, "directory " + quote(run_directory), if_denied());
    }
    DIR* const stream = ::fdopendir(directory.get());
    if (stream == nullptr) detail::fail(Step::helper, "directory " + quote(run_directory));
    (void)directory.release();
    try {
        while (const dirent* entry = ::readdir(stream)) {
            if (is_valid_name(entry->d_name)) names.emplace_back(entry->d_name);
        }
    } catch (...) {
        (void)::closedir(stream);
        throw;
    }
    (void)::closedir(stream);
    std::erase_if(names, [&](const std::string& name) {
        try {
            return !find(name, run_directory);
        } catch (const Error& e) {
            if (detail::sys::is_shortage(e.code().value())) throw;
            return false;  // it is there, and hides none of the others
        }
    });
    std::sort(names.begin(), names.end());
    return names;
}

bool Helper::reconnect() {
    const std::int64_t deadline = detail::monotonic_ms() + answer_ms;
    // The name is the same owner's as before: so it is the same container's.
    while (detail::is_still(run_directory_ + "/" + name_, owner_) && detail::monotonic_ms() < deadline) {
        auto found = detail::connect_to(run_directory_, name_, what());
        if (!found || found->helper.pid() == process_.pid()) {
            (void)::poll(nullptr, 0, 5);
            continue;
        }
        take_connection(std::move(found->socket), std::move(found->helper));
        if (late_ > 0) {
            // What happens from here on is told.
            late_ = 0;
            detail::Message answer;
            (void)detail::wait_readable(fd(), 1000);
            if (detail::take_message(fd(), answer, nullptr) != detail::Taken::message) late_ = 1;
            else if (answer.kind != detail::Message::Kind::done) note(detail::Taken::message, answer);
        }
        ++reconnects_;
        return true;
    }
    return false;
}

void Helper::take_connection(Fd socket, Process helper) {
    socket_ = std::move(socket);
    process_ = std::move(helper);
    let_go_ = false;
    late_ = watches_ && detail::send_message(fd(), {.kind = detail::Message::Kind::watch}) ? 1 : 0;
}

bool Helper::find_again() {
    const std::string place = run_directory_ + "/" + name_;
    if (!detail::is_still(place, owner_)) {
        const bool is_orphaned = detail::is_orphaned(place);
        // A group's process goes on when one of its containers ends.
        if (!is_orphaned && (process_.ended() || !owner_.empty())) {
            throw Error{Step::helper, ESRCH, what(),
                        "it had let this client go, and has ended since: how its container did was not told"};
        }
        if (is_orphaned && process_.ended()) {
            status_ = ExitStatus::killed(SIGKILL);
            return true;
        }
    }
    auto found = detail::connect_to(run_directory_, name_, what(), false);
    if (!found) return false;
    if (!detail::is_still(place, owner_)) {
        throw Error{Step::helper, ESRCH, what(), "it has let this client go, and another runs one of that name"};
    }
    take_connection(std::move(found->socket), std::move(found->helper));
    return true;
}

}  // namespace caisson::inline v0
