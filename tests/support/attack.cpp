#include "support/attack.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson_test {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& what) {
    throw std::runtime_error{what + ": " + std::system_category().message(errno)};
}

std::string line_of(const fs::path& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) refuse("lstat " + path.string());
    std::string line = path.string();
    for (const auto number :
         {std::uintmax_t{st.st_ino}, std::uintmax_t{st.st_mode}, std::uintmax_t{st.st_uid}, std::uintmax_t{st.st_gid},
          static_cast<std::uintmax_t>(st.st_size), static_cast<std::uintmax_t>(st.st_ctim.tv_sec),
          static_cast<std::uintmax_t>(st.st_ctim.tv_nsec)}) {
        line += " " + std::to_string(number);
    }
    return line;
}

/// A change within one tick of the kernel's clock would not show in a time stamp.
void wait_for_next_tick() {
    timespec first{};
    timespec now{};
    (void)::clock_gettime(CLOCK_REALTIME_COARSE, &first);
    do (void)::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    while (now.tv_sec == first.tv_sec && now.tv_nsec == first.tv_nsec);
}

}  // namespace

Canary::Canary() {
    for (const char* name : {"pts", "shm", "mqueue", "self", "sys", "net", "sub", "a"}) {
        fs::create_directory(*this / name);
        std::ofstream{*this / (std::string{name} + "/file")} << "of the host\n";
    }
    for (const char* name : {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin",
                             "stdout", "stderr", "core", "kcore", "keys", "passwd", "file", "token"}) {
        std::ofstream{*this / name} << "of the host\n";
    }
    for (const auto& entry : fs::recursive_directory_iterator{path()}) {
        fs::permissions(entry.path(), fs::is_directory(entry) ? fs::perms::all : fs::perms{0666});
    }
    fs::permissions(path(), fs::perms::all);
    const char* const fifos[] = {"initctl", ".initctl"};
    for (int i = 0; i < 2; ++i) {
        const std::string fifo = *this / fifos[i];
        if (::mkfifo(fifo.c_str(), 0666) != 0) refuse("mkfifo " + fifo);
        readers_[i].reset(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        if (!readers_[i]) refuse("open " + fifo);
    }
    before_ = look();
    watch_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!watch_) refuse("inotify_init1");
    const auto watch = [&](const std::string& directory) {
        if (::inotify_add_watch(watch_.get(), directory.c_str(), IN_ALL_EVENTS) < 0) refuse("watch " + directory);
    };
    watch(path());
    for (const auto& entry : fs::directory_iterator{path()}) {
        if (fs::is_directory(entry)) watch(entry.path());
    }
    // The iteration above has opened the directory.
    char events[4096];
    while (::read(watch_.get(), events, sizeof events) > 0) continue;
    wait_for_next_tick();
}

std::vector<std::string> Canary::look() const {
    std::vector<std::string> lines{line_of(path())};
    for (const auto& entry : fs::recursive_directory_iterator{path()}) lines.push_back(line_of(entry.path()));
    std::sort(lines.begin(), lines.end());
    return lines;
}

std::string Canary::touched() const {
    std::string text;
    alignas(inotify_event) char events[4096];
    for (ssize_t n = 0; (n = ::read(watch_.get(), events, sizeof events)) > 0;) {
        for (ssize_t at = 0; at < n;) {
            const auto* event = reinterpret_cast<const inotify_event*>(events + at);
            char mask[16];
            (void)std::snprintf(mask, sizeof mask, "%#x", event->mask);
            text += std::string{"event "} + mask + " " + (event->len > 0 ? event->name : ".") + "\n";
            at += static_cast<ssize_t>(sizeof *event + event->len);
        }
    }
    const std::vector<std::string> after = look();
    std::vector<std::string> different;
    std::set_symmetric_difference(before_.begin(), before_.end(), after.begin(), after.end(),
                                  std::back_inserter(different));
    for (const std::string& line : different) text += line + "\n";
    return text;
}

Swapper::Swapper(std::string first, std::string second)
    : thread_{[this, first = std::move(first), second = std::move(second)] {
          while (!stop_) (void)::renameat2(AT_FDCWD, first.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE);
      }} {}
Swapper::~Swapper() {
    stop_ = true;
    thread_.join();
}

int rounds(int few, int many) {
    static const bool all = [] {
        std::ifstream file{"/proc/self/cmdline"};
        for (std::string word; std::getline(file, word, '\0');) {
            if (word == "--long") return true;
        }
        return false;
    }();
    return all ? many : few;
}

void replace_by_link(const std::string& path, const std::string& target) {
    fs::remove_all(path);
    if (::symlink(target.c_str(), path.c_str()) != 0) refuse("symlink " + path);
}

}  // namespace caisson_test
