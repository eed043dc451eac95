// What system tests of mounts share: a mount namespace of the test program's own, and a place to work in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/error.hpp>
#include <caisson/mount.hpp>
#include <caisson/namespace.hpp>

namespace caisson_test {

inline std::string content(const std::string& path) {
    std::ifstream file{path};
    return {std::istreambuf_iterator<char>{file}, {}};
}
inline bool write(const std::string& path, const std::string& text) {
    std::ofstream file{path};
    file << text;
    file.close();
    return file.good();
}
inline std::string mounts() {
    return content("/proc/self/mountinfo");
}
inline int descriptors() {
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
        (void)entry;
        ++n;
    }
    return n;
}
inline bool exists(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0;
}
inline std::uint64_t inode(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}
inline std::uint64_t inode(int fd) {
    struct stat st {};
    return ::fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/// Moves the test program into a mount namespace of its own, private to it; false where it may not have one.
inline bool own_mounts() {
    static const bool done =
        ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    return done;
}

/// A tmpfs on a directory of its own in the temporary directory, gone at the end. Makes the check that a test leaves
/// mounts and descriptors as they were: `unchanged()` as its last line.
class Scratch {
public:
    Scratch() {
        char name[] = "/tmp/caisson-test-XXXXXX";
        if (own_mounts() && ::mkdtemp(name) != nullptr) path_ = name;
        ok_ = !path_.empty() && ::mount("scratch", path_.c_str(), "tmpfs", 0, "mode=755") == 0;
        mounts_ = mounts();
        descriptors_ = descriptors();
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        if (ok_) (void)::umount2(path_.c_str(), MNT_DETACH);
        if (!path_.empty()) (void)::rmdir(path_.c_str());
    }
    explicit operator bool() const { return ok_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }
    /// A new directory.
    std::string directory(const std::string& name) const {
        std::string path = *this / name;
        std::filesystem::create_directories(path);
        return path;
    }
    bool unchanged() const { return mounts() == mounts_ && descriptors() == descriptors_; }

private:
    std::string path_;
    bool ok_ = false;
    std::string mounts_;
    int descriptors_ = 0;
};

/// A user namespace in which `count` ids from 0 on are the host's from `outside` on.
inline caisson::Namespace user_namespace(std::uint32_t outside, std::uint32_t count) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) throw std::runtime_error{"pipe"};
    const pid_t pid = ::fork();
    if (pid == 0) {
        const char byte = ::unshare(CLONE_NEWUSER) == 0 ? 'y' : 'n';
        (void)!::write(ready[1], &byte, 1);
        for (;;) ::pause();
    }
    char byte = 0;
    (void)!::read(ready[0], &byte, 1);
    ::close(ready[0]);
    ::close(ready[1]);
    const std::string proc = "/proc/" + std::to_string(pid);
    const std::string map = "0 " + std::to_string(outside) + " " + std::to_string(count);
    const bool mapped =
        byte == 'y' && caisson_test::write(proc + "/uid_map", map) && caisson_test::write(proc + "/gid_map", map);
    caisson::Namespace made = caisson::Namespace::of(pid, caisson::NamespaceKind::user);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (!mapped) throw std::runtime_error{"no user namespace"};
    return made;
}

/// False before Linux 6.3, where a tmpfs cannot be id-mapped.
inline bool tmpfs_can_be_id_mapped() {
    try {
        caisson::Mount m = caisson::Mount::tmpfs(4096);
        m.id_map(user_namespace(100000, 1000));
        return true;
    } catch (const caisson::Error&) {
        return false;
    }
}

}  // namespace caisson_test
