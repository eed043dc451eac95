// What the system tests of control groups share.
#pragma once

#include <caisson/cgroup.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace caisson_test {

using namespace caisson;

/// A forked child that has placed itself in the group's v1 hierarchies (and, by clone3, in the v2 one) before `run` is
/// called. Ends with what `run` returns.
inline pid_t spawn_in(Cgroup& group, const std::function<int()>& run) {
    const std::vector<int> tasks = group.tasks_fds();
    struct {
        alignas(8) std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size, cgroup;
    } args{};
    args.exit_signal = SIGCHLD;
    if (group.into_fd() >= 0) {
        args.flags = 0x200000000ULL;  // CLONE_INTO_CGROUP
        args.cgroup = static_cast<std::uint64_t>(group.into_fd());
    }
    const auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
    if (pid < 0) throw std::runtime_error{"clone3: " + std::generic_category().message(errno)};
    if (pid != 0) return pid;
    for (const int fd : tasks) {
        if (::write(fd, "0", 1) != 1) ::_exit(99);
    }
    ::_exit(run());
}

inline int wait_for(pid_t pid) {
    int status = -1;
    detail::sys::retry([&] { return ::waitpid(pid, &status, 0); });
    return status;
}
inline int code_of(pid_t pid) {
    const int status = wait_for(pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

inline std::string read_file(const std::string& path) {
    std::string text;
    return detail::sys::read_file(AT_FDCWD, path.c_str(), text) ? text : "cannot read " + path;
}
inline std::string path_of(const CgroupDirectory& d, const Cgroup& group) {
    return d.parent_path + "/" + group.name();
}
inline bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

/// The paths of all the directories of a group.
inline std::vector<std::string> paths_of(const Cgroup& group) {
    std::vector<std::string> paths;
    for (const CgroupDirectory& d : group.directories()) paths.push_back(path_of(d, group));
    return paths;
}
inline bool any_exists(const std::vector<std::string>& paths) {
    return std::any_of(paths.begin(), paths.end(), exists);
}

/// The directory that has `controller`'s files.
inline std::string path_for(const Cgroup& group, const char* file) {
    for (const std::string& path : paths_of(group)) {
        if (exists(path + "/" + file)) return path + "/" + file;
    }
    return {};
}

/// Why this machine cannot make groups; null if it can.
inline const char* cannot() {
    if (::geteuid() != 0) return "needs root";
    for (const auto& h : detail::cgroup_hierarchies()) {
        if (!h.places.empty()) return nullptr;
    }
    return "no cgroup hierarchy is mounted";
}

/// Whether groups get the controller: from a v1 hierarchy, or from the v2 one's parent.
inline bool has_controller(const char* v1, const char* v2) {
    for (const auto& h : detail::cgroup_hierarchies()) {
        if (detail::list_has(h.controllers, v1)) return !h.places.empty();
    }
    for (const auto& h : detail::cgroup_hierarchies()) {
        if (!h.v2() || h.places.empty()) continue;
        std::string there = read_file(detail::open_cgroup_parent(h, {}).path + "/cgroup.controllers");
        if (there.ends_with('\n')) there.pop_back();
        if (detail::list_has(there, v2, ' ')) return true;
    }
    return false;
}
/// Why not; null if they do.
inline const char* lacks(const char* v1, const char* v2) {
    if (const char* why = cannot()) return why;
    static std::string text;
    text = std::string{"groups get no controller '"} + v2 + "' on this machine";
    return has_controller(v1, v2) ? nullptr : text.c_str();
}
/// A child in a group, killed and reaped with this object.
class Inside {
public:
    Inside(Cgroup& group, const std::function<int()>& run) : pid_{spawn_in(group, run)} {
        if (pid_ <= 0) throw std::runtime_error{"clone3"};
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() {
        if (pid_ < 0) return;
        (void)::kill(pid_, SIGKILL);
        (void)wait_for(pid_);
    }
    [[nodiscard]] bool lives() const { return ::waitpid(pid_, nullptr, WNOHANG) == 0; }
    [[nodiscard]] int end() { return wait_for(std::exchange(pid_, -1)); }

private:
    pid_t pid_;
};
template <class Change>
LimitSpec limits_of(Change change) {
    LimitSpec limits;
    change(limits);
    return limits;
}
inline LimitSpec memory_limit(std::optional<std::uint64_t> memory, std::optional<std::uint64_t> both = {}) {
    return limits_of([&](LimitSpec& l) {
        l.memory = memory;
        l.memory_and_swap = both;
    });
}
/// The message of a refusal.
inline std::string refused(Cgroup& group, const LimitSpec& limits) {
    try {
        group.limit(limits);
        return "accepted";
    } catch (const Error& e) {
        return e.what();
    }
}

inline double seconds() {
    timespec now{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}
inline void pause_for(long milliseconds) {
    const timespec pause{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
    (void)::nanosleep(&pause, nullptr);
}

/// A pipe whose ends a child and its parent wait on each other with.
struct Pipe {
    Fd read, write;
    Pipe() {
        int fds[2];
        if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error{"pipe2"};
        read.reset(fds[0]);
        write.reset(fds[1]);
    }
    void put() const {
        if (::write(write.get(), "x", 1) != 1) ::_exit(94);
    }
    void take() const {
        char c;
        if (::read(read.get(), &c, 1) < 0) ::_exit(94);
    }
};

/// A directory of the test's own at the top of each hierarchy, gone with this object.
struct OwnParent {
    std::string name;
    std::vector<std::string> paths;
    explicit OwnParent(const std::string& suffix = {})
        : name{"caisson-test-parent-" + std::to_string(::getpid()) + suffix} {
        for (const auto& h : detail::cgroup_hierarchies()) {
            if (h.places.empty()) continue;
            const std::string top = h.places.front().mount_point;
            paths.push_back(top + "/" + name);
            if (::mkdir(paths.back().c_str(), 0755) != 0) throw std::runtime_error{"mkdir " + paths.back()};
            for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
                if (h.v2() || !exists(top + file)) continue;
                (void)detail::sys::write_file(AT_FDCWD, (paths.back() + file).c_str(), read_file(top + file));
            }
        }
    }
    OwnParent(const OwnParent&) = delete;
    OwnParent& operator=(const OwnParent&) = delete;
    ~OwnParent() {
        for (const std::string& path : paths) (void)::rmdir(path.c_str());
    }
};

}  // namespace caisson_test
