// Programs that use the library, as forked children of a test: they may be killed, limited, chrooted, stripped of
// rights.
#pragma once

#include <caisson/container.hpp>

#include <cstdint>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/cgroup.hpp"
#include "support/container.hpp"

namespace caisson_test {

/// "ok" where it starts and exits with 0, how it ended where not, what start() throws where it does not start.
inline std::string outcome(const ContainerSpec& spec) {
    try {
        Container container = Container::start(spec);
        const ExitStatus status = container.wait();
        return status.success() ? "ok" : status.str();
    } catch (const Error& e) {
        return e.what();
    }
}

/// A forked child that runs `body`, a function that returns a text, and tells the text. Nothing of doctest may be used
/// in there.
class Host {
public:
    template <class Body>
    explicit Host(Body&& body) {
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(said_.read.release());
            std::string text;
            try {
                text = body(*this);
            } catch (const std::exception& e) {
                text = std::string{"exception: "} + e.what();
            }
            say(text);
            ::_exit(0);
        }
        said_.write.reset();
        process_ = Process::open(pid_);
    }
    Host(const Host&) = delete;
    Host& operator=(const Host&) = delete;
    ~Host() {
        if (reaped_) return;
        kill();
        (void)status();
    }
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    void kill(int signal = SIGKILL) const { (void)process_.signal(signal); }
    /// In the child: adds to what it tells.
    void say(const std::string& text) const { (void)!::write(said_.write.get(), text.data(), text.size()); }
    /// The next line that it tells, or what there is after a minute or at its end.
    [[nodiscard]] std::string line() { return read_until('\n'); }
    /// Everything that it tells to its end; says so if that does not come.
    [[nodiscard]] std::string text(std::int64_t milliseconds = 120'000) {
        std::string all = read_until(0, milliseconds);
        if (!process_.ended_within(10'000)) return all + " (it hangs)";
        const int how = status();
        return WIFSIGNALED(how) ? all + "killed by signal " + std::to_string(WTERMSIG(how)) : all;
    }
    /// As waitpid(2) has it.
    int status() {
        if (!reaped_) how_ = wait_for(pid_);
        reaped_ = true;
        return how_;
    }

private:
    std::string read_until(char end, std::int64_t milliseconds = 60'000) {
        std::string all;
        const std::int64_t deadline = detail::monotonic_ms() + milliseconds;
        char c = 0;
        while (detail::wait_readable(said_.read.get(), std::max<std::int64_t>(0, deadline - detail::monotonic_ms()))) {
            if (::read(said_.read.get(), &c, 1) != 1 || (end != 0 && c == end)) return all;
            all += c;
        }
        return all + " (it says no more)";
    }
    Pipe said_{};
    pid_t pid_ = -1;
    Process process_{};
    bool reaped_ = false;
    int how_ = 0;
};

template <class Body>
std::string in_host(Body&& body) {
    return Host{[&](const Host&) { return body(); }}.text();
}

/// "" or every child that is left; the caller must have none of its own.
inline std::string children_left() {
    std::string left;
    siginfo_t info{};
    while (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) == 0) {
        if (info.si_pid == 0) return left + "a child that runs";
        left += "zombie " + std::to_string(info.si_pid) + " ";
        info = {};
    }
    return left;
}

/// The control groups that the process `owner` has made, in every hierarchy.
inline std::vector<std::string> groups_of(pid_t owner) {
    std::vector<std::string> found;
    const std::string mark = "." + std::to_string(owner) + "-";
    for (const auto& hierarchy : detail::cgroup_hierarchies()) {
        const detail::CgroupParent parent = detail::open_cgroup_parent(hierarchy, "");
        DIR* directory = parent.path.empty() ? nullptr : ::opendir(parent.path.c_str());
        if (directory == nullptr) continue;
        while (const dirent* entry = ::readdir(directory)) {
            const std::string name = entry->d_name;
            if (name.starts_with("caisson.") && name.find(mark) != std::string::npos)
                found.push_back(parent.path + "/" + name);
        }
        ::closedir(directory);
    }
    return found;
}
/// True once there is none; false after `milliseconds`.
inline bool groups_vanish(pid_t owner, int milliseconds = 5000) {
    for (int waited = 0; !groups_of(owner).empty(); waited += 10) {
        if (waited >= milliseconds) return false;
        ::usleep(10'000);
    }
    return true;
}

inline int open_descriptors() {
    int n = 0;
    DIR* directory = ::opendir("/proc/self/fd");
    if (directory == nullptr) return -1;
    while (::readdir(directory) != nullptr) ++n;
    ::closedir(directory);
    return n;
}

}  // namespace caisson_test
