// seize.hpp - takes hold of processes that join a container, as root inside would, and tells what that gives.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

#include "support/helper.hpp"
#include "support/machine.hpp"

namespace caisson_test {

inline std::string link_of(const std::string& path) {
    std::error_code error;
    return std::filesystem::read_symlink(path, error).string();
}

inline std::string text_at(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    return text;
}

/// The lines of /proc/PID/status that tell what a process may do.
inline std::string rights_of(const std::string& process) {
    const std::string status = text_at(process + "/status");
    std::string rights;
    for (const char* key : {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"}) {
        const std::size_t at = status.find(std::string{"\n"} + key);
        if (at != std::string::npos) rights += status.substr(at + 1, status.find('\n', at + 1) - at);
    }
    return rights;
}

/// Seizes whoever joins the container that this process is in, before its command, and tells `to` what it has then.
inline void seize_visitors(int to, const std::string& wanted) {
    const auto say = [&](const std::string& line) { (void)!::write(to, line.data(), line.size()); };
    for (;;) {
        for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
            const pid_t pid = std::atoi(entry.path().filename().c_str());
            const std::string process = entry.path().string();
            if (pid < 2 || text_at(process + "/comm") != "caisson:visit\n") continue;
            if (::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) != 0) continue;
            (void)::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr);
            int status = 0;
            if (::waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) continue;
            if (text_at(process + "/comm") == "caisson:visit\n") {
                if (const std::string rights = rights_of(process); rights != wanted) say("seized with\n" + rights);
                for (int fd = 0; fd < 64; ++fd) {
                    const std::string link = link_of(process + "/fd/" + std::to_string(fd));
                    // The command's are the null device. The others tell of ends, and nobody goes by what is in them.
                    if (!link.empty() && link != "/dev/null" && (fd < 3 || !link.starts_with("pipe:"))) {
                        say("seized with " + std::to_string(fd) + " -> " + link + "\n");
                    }
                }
                if (contains(text_at(process + "/maps"), "rw-s")) say("seized with the stage's page\n");
            }
            (void)::ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
        }
    }
}

}  // namespace caisson_test
