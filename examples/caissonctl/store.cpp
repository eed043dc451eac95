#include "store.hpp"

#include <algorithm>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caissonctl {
namespace {

using caisson::Error;
using caisson::Fd;
using caisson::Step;

constexpr std::string_view suffix = ".xml";
// A name begins with a letter or digit, so no definition can be called like these.
constexpr const char* lock_name = ".lock";
constexpr const char* new_name = ".new";
// No definition either: those end in ".xml".
constexpr const char* autostart_directory = "autostart";
constexpr off_t largest = 1 << 20;

[[noreturn]] void fail(const std::string& object, std::string_view remedy = {}) {
    throw Error{Step::read_xml, errno, object, remedy};
}

bool write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::write(fd, text.data(), text.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

std::string quoted(std::string_view path) {
    return "'" + std::string{path} + "'";
}

}  // namespace

std::string Store::file(std::string_view name) const {
    return std::string{path_}.append("/").append(name).append(suffix);
}

Fd Store::open() const {
    Fd directory{::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    const std::string object = "state directory " + quoted(path_);
    if (!directory) {
        if (errno == ENOENT) return {};
        fail(object, errno == EACCES ? "run as root, or name a directory of your own with --state" : "");
    }
    struct stat st {};
    if (::fstat(directory.get(), &st) != 0) fail(object);
    if (st.st_uid != ::geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        throw Error{Step::read_xml, EPERM, object,
                    "it must be yours, and nobody else's to write: chown it and chmod 0700"};
    }
    return directory;
}

Store::Lock Store::lock() const {
    const std::string object = "state directory " + quoted(path_);
    if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) {
        fail(object, errno == EACCES   ? "run as root, or name a directory of your own with --state"
                     : errno == ENOENT ? "make the directory above it"
                                       : "");
    }
    Fd directory = open();
    if (!directory) throw Error{Step::read_xml, ENOENT, object};
    Fd file{::openat(directory.get(), lock_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (!file) fail("lock " + quoted(path_ + "/" + lock_name));
    while (::flock(file.get(), LOCK_EX) != 0) {
        if (errno != EINTR) fail("lock " + quoted(path_ + "/" + lock_name));
    }
    return {std::move(directory), std::move(file)};
}

std::vector<std::string> Store::names() const {
    Fd directory = open();
    if (!directory) return {};
    const std::unique_ptr<DIR, int (*)(DIR*)> entries{::fdopendir(directory.get()), ::closedir};
    if (!entries) fail("state directory " + quoted(path_));
    (void)directory.release();
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(entries.get())) {
        std::string_view name{entry->d_name};
        if (!name.ends_with(suffix)) continue;
        name.remove_suffix(suffix.size());
        if (caisson::is_valid_name(name)) names.emplace_back(name);
    }
    std::ranges::sort(names);
    return names;
}

bool Store::has(std::string_view name) const {
    if (!caisson::is_valid_name(name)) return false;
    const Fd directory = open();
    struct stat st {};
    if (!directory) return false;
    if (::fstatat(directory.get(), std::string{name}.append(suffix).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
        return true;
    }
    if (errno != ENOENT) fail(quoted(file(name)));
    return false;
}

std::optional<std::string> Store::load(std::string_view name) const {
    if (!caisson::is_valid_name(name)) return std::nullopt;
    const Fd directory = open();
    if (!directory) return std::nullopt;
    const Fd in{::openat(directory.get(), std::string{name}.append(suffix).c_str(),
                         O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
    const std::string object = quoted(file(name));
    if (!in) {
        if (errno == ENOENT) return std::nullopt;
        fail(object);
    }
    struct stat st {};
    if (::fstat(in.get(), &st) != 0) fail(object);
    if (!S_ISREG(st.st_mode) || st.st_size > largest) {
        throw Error{Step::read_xml, EINVAL, object, "a definition is a file of at most 1 MiB"};
    }
    std::string text(static_cast<std::size_t>(st.st_size), '\0');
    std::size_t filled = 0;
    while (filled < text.size()) {
        const ssize_t n = ::read(in.get(), text.data() + filled, text.size() - filled);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(object);
        if (n == 0) break;
        filled += static_cast<std::size_t>(n);
    }
    text.resize(filled);
    return text;
}

void Store::save(const Lock& lock, std::string_view name, std::string_view text) const {
    const std::string target = std::string{name}.append(suffix);
    const std::string object = "write " + quoted(file(name));
    const int directory = lock.directory_.get();
    // Whoever holds the lock is the only one to use this name; what a killed predecessor left is overwritten.
    if (::unlinkat(directory, new_name, 0) != 0 && errno != ENOENT) fail(object);
    const Fd out{::openat(directory, new_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (!out) fail(object);
    if (!write_all(out.get(), text) || ::fsync(out.get()) != 0 ||
        ::renameat(directory, new_name, directory, target.c_str()) != 0) {
        const int reason = errno;
        (void)::unlinkat(directory, new_name, 0);
        errno = reason;
        fail(object);
    }
    if (::fsync(directory) != 0) fail(object);
}

void Store::remove(const Lock& lock, std::string_view name) const {
    const int directory = lock.directory_.get();
    // First: a link that stayed would mark the next definition of this name.
    set_autostart(lock, name, false);
    if (::unlinkat(directory, std::string{name}.append(suffix).c_str(), 0) != 0 || ::fsync(directory) != 0) {
        fail("remove " + quoted(file(name)));
    }
}

void Store::rename(const Lock& lock, std::string_view from, std::string_view to, std::string_view text) const {
    save(lock, to, text);
    set_autostart(lock, to, autostarts(from));
    remove(lock, from);
}

bool Store::autostarts(std::string_view name) const {
    if (!caisson::is_valid_name(name)) return false;
    const Fd directory = open();
    if (!directory) return false;
    const std::string link = std::string{autostart_directory}.append("/").append(name).append(suffix);
    struct stat st {};
    if (::fstatat(directory.get(), link.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno != ENOENT) fail(quoted(path_ + "/" + link));
    return false;
}

void Store::set_autostart(const Lock& lock, std::string_view name, bool on) const {
    const int directory = lock.directory_.get();
    const std::string file = std::string{name}.append(suffix);
    const std::string object = quoted(path_ + "/" + autostart_directory + "/" + file);
    if (on && ::mkdirat(directory, autostart_directory, 0700) != 0 && errno != EEXIST) fail(object);
    const Fd links{::openat(directory, autostart_directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    if (!links) {
        if (!on && errno == ENOENT) return;
        fail(object);
    }
    const int result =
        on ? ::symlinkat(("../" + file).c_str(), links.get(), file.c_str()) : ::unlinkat(links.get(), file.c_str(), 0);
    if (result != 0 && errno != (on ? EEXIST : ENOENT)) fail(object);
    if (result == 0 && ::fsync(links.get()) != 0) fail(object);
}

}  // namespace caissonctl
