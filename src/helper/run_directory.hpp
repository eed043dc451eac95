// helper/run_directory.hpp - the place of one container's helper, RUN/NAME/, which belongs to whom holds the lock on
// its file `owner`.
#pragma once

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <caisson/detail/container_record.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson_helper {

using namespace caisson;

/// Owns RUN/NAME/, or a group's RUN/.NAME/, as long as it lives. The kernel gives the lock up with the process, however
/// that dies.
class RunDirectory {
public:
    /// Throws `Step::helper`; EEXIST if somebody holds it.
    static RunDirectory acquire(const std::string& run, const std::string& name) {
        return acquire(run, name, "a container " + detail::quote(name) + " runs already");
    }
    /// The place of a group's helper, which takes the further starts.
    static RunDirectory acquire_group(const std::string& run, const std::string& group) {
        return acquire(run, "." + group, "the group " + detail::quote(group) + " has a helper already");
    }
    // A moved-from one holds no lock, so it removes nothing.
    RunDirectory(RunDirectory&& other) noexcept = default;
    RunDirectory& operator=(RunDirectory&&) = delete;
    ~RunDirectory() { release(); }

    /// RUN, and the place in it.
    [[nodiscard]] int run() const noexcept { return run_.get(); }
    [[nodiscard]] int directory() const noexcept { return directory_.get(); }

    /// Listens on RUN/NAME/sock, for the owner alone.
    [[nodiscard]] Fd listen() {
        Fd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        const std::string path = "/proc/self/fd/" + std::to_string(directory_.get()) + "/sock";
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        (void)::unlinkat(directory_.get(), "sock", 0);  // of one that this one takes the place of
        if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            ::fchmodat(directory_.get(), "sock", 0600, 0) != 0 || ::listen(socket.get(), 128) != 0) {
            detail::fail(Step::helper, "socket in " + text());
        }
        return socket;
    }
    /// What runs here, for who comes after a crash; and what its clients go by, unless it has ended already. Throws
    /// `Step::helper`; then the record is as it was before.
    void record(pid_t init = -1, std::optional<detail::ContainerRecord> container = {}) {
        detail::StateRecord record = detail::StateRecord::of_helper(name_);
        if (init > 0) record.init = detail::Owner::of(init);
        const std::string path = run_path_ + "/" + name_;
        const std::string before = std::exchange(container_, {});
        if (record.init && container) {
            container_ = detail::ContainerRecord::file_of(*record.init);
            // Who takes a dead loop's place (policy `outlive`) does not know what clients have written since.
            if (!detail::ContainerRecord::read(directory_.get(), *record.init)) {
                container->hotplug.tag = tag_;
                container->write(directory_.get(), *record.init, path);
            }
        }
        record.write(directory_.get(), path);
        if (before != container_) remove_container(before);
    }
    /// Gives the name up: nothing is left of it.
    void release() noexcept {
        if (!lock_) return;
        detail::StateRecord::remove_files(directory_);
        (void)::unlinkat(directory_.get(), "owner", 0);
        // A client may be writing what it has attached.
        for (int attempt = 0; ::unlinkat(run_.get(), name_.c_str(), AT_REMOVEDIR) != 0 && attempt < 10; ++attempt) {
            if (errno != ENOTEMPTY) break;
            remove_container(container_);
        }
        lock_.reset();
    }

private:
    RunDirectory() = default;
    static RunDirectory acquire(const std::string& run, const std::string& name, const std::string& if_held) {
        RunDirectory made;
        made.run_path_ = run;
        made.name_ = name;
        made.if_held_ = if_held;
        if (::mkdir(run.c_str(), 0700) != 0 && errno != EEXIST) {
            detail::fail(Step::helper, "make directory " + detail::quote(run),
                         errno == ENOENT ? "make its parent directory, or set run_directory" : "");
        }
        made.run_ = detail::sys::open(run, O_RDONLY | O_DIRECTORY);
        struct stat st {};
        if (!made.run_ || ::fstat(made.run_.get(), &st) != 0) {
            detail::fail(Step::helper, "directory " + detail::quote(run));
        }
        if (st.st_uid != ::geteuid() || (st.st_mode & 022) != 0) {
            throw Error{Step::helper, EPERM, "directory " + detail::quote(run),
                        "it must belong to user " + std::to_string(::geteuid()) + " and be writable by no other"};
        }
        // Whoever gives a name up removes what it found its lock in; then the next one begins again.
        for (int attempt = 0; attempt < 1000; ++attempt) {
            if (made.try_once()) return made;
        }
        throw Error{Step::helper, EAGAIN, "lock " + made.text(),
                    "another program has its file 'owner' locked, whose writer is dead: end that program"};
    }

    [[nodiscard]] std::string text() const { return detail::quote(run_path_ + "/" + name_); }
    bool try_once() {
        if (::mkdirat(run_.get(), name_.c_str(), 0700) != 0 && errno != EEXIST) {
            detail::fail(Step::helper, "make directory " + text());
        }
        directory_ = detail::sys::open_at(run_.get(), name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (!directory_) return again();
        Fd lock = detail::sys::open_at(directory_.get(), "owner", O_CREAT | O_RDWR | O_NOFOLLOW, 0600);
        if (!lock) return again();
        if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) return again();
            // Who holds the lock on a dead owner's file is about to remove it (`sweep`), or to write its own tag; and
            // one that is not there any more has been removed.
            errno = 0;
            const auto owner = detail::Owner::recorded_in(directory_.get(), "owner");
            if (!owner && detail::sys::is_shortage(errno)) return again();
            if (!owner || owner->is_dead() || !same(lock.get(), directory_.get(), "owner")) {
                (void)::poll(nullptr, 0, 1);
                return false;
            }
            throw Error{Step::helper, EEXIST, "lock " + text(), if_held_};
        }
        // Of a file that is there still, in a directory that is there still.
        if (!same(lock.get(), directory_.get(), "owner") || !same(directory_.get(), run_.get(), name_.c_str())) {
            return false;
        }
        end_what_is_left();
        tag_ = detail::Owner::current().tag();
        lock_ = std::move(lock);
        detail::StateRecord::remove_files(directory_);
        if (::ftruncate(lock_.get(), 0) != 0 || !detail::sys::write_all(lock_.get(), tag_)) {
            detail::fail(Step::helper, "write " + detail::quote(run_path_ + "/" + name_ + "/owner"));
        }
        // Who watches RUN for what begins sees no new directory where a dead owner has left this one.
        (void)::fchmod(directory_.get(), 0700);
        return true;
    }
    /// Without control groups, and with its keeper dead like its helper, a container may still be here.
    void end_what_is_left() const {
        const auto record = detail::StateRecord::read(directory_.get());
        if (!record || record->end_init()) return;
        throw Error{Step::helper, EBUSY, "lock " + text(),
                    "process " + std::to_string(record->init->pid) + ", of a container that ran there, does not end"};
    }
    void remove_container(const std::string& file) const noexcept {
        if (file.empty()) return;
        (void)::unlinkat(directory_.get(), file.c_str(), 0);
        char name[256]{};
        (void)std::snprintf(name, sizeof name, "%s%s", file.c_str(), detail::StateRecord::while_written);
        (void)::unlinkat(directory_.get(), name, 0);
    }
    bool again() const {
        if (errno == ENOENT) return false;
        const int saved = errno;
        // Of an empty one, whoever is about to use it makes it again.
        (void)::unlinkat(run_.get(), name_.c_str(), AT_REMOVEDIR);
        throw Error{Step::helper, saved, "lock " + text()};
    }
    static bool same(int fd, int directory, const char* name) noexcept {
        struct stat a {};
        struct stat b {};
        return ::fstat(fd, &a) == 0 && ::fstatat(directory, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
               a.st_ino == b.st_ino && a.st_dev == b.st_dev;
    }

    std::string run_path_;
    std::string name_;
    std::string if_held_;
    std::string tag_;        // of the owner
    std::string container_;  // the file of the container
    Fd run_;
    Fd directory_;
    Fd lock_;
};

}  // namespace caisson_helper
