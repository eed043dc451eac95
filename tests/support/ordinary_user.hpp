// support/ordinary_user.hpp - an ordinary user for a test: a number that nobody has, known in a mount namespace of the
// test's own alone.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

#include "support/rootfs.hpp"

namespace caisson_test {

/// For forked children of a test: `become()` puts the calling process into a mount namespace of its own, in which
/// /etc/passwd, /etc/subuid and /etc/subgid know the user, and makes it that user's.
class OrdinaryUser {
public:
    static constexpr unsigned id = 61234;
    static constexpr unsigned range = 2100000000;  ///< the first of his 65,536 subordinate ids

    static bool has_tools() {
        return ::access("/usr/bin/newuidmap", X_OK) == 0 && ::access("/usr/bin/newgidmap", X_OK) == 0;
    }
    /// Why this kernel gives an ordinary user nothing; null if it may.
    static const char* cannot() {
        if (content("/proc/sys/kernel/unprivileged_userns_clone") == "0\n") {
            return "kernel.unprivileged_userns_clone is 0";
        }
        if (content("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1\n") {
            return "kernel.apparmor_restrict_unprivileged_userns is 1";
        }
        return content("/proc/sys/user/max_user_namespaces") == "0\n" ? "user.max_user_namespaces is 0" : nullptr;
    }

    OrdinaryUser() {
        const std::string number = std::to_string(id);
        const std::string user = "caisson-test:x:" + number + ":" + number + "::/:/bin/sh\n";
        const std::string ids = "caisson-test:" + std::to_string(range) + ":65536\n";
        ok_ = write(files_ / "passwd", content("/etc/passwd") + user) && write(files_ / "ids", ids) &&
              write(files_ / "none", "");
    }
    /// Everything below `path` becomes his, or of root inside where a container has his range alone.
    static void own(const std::string& path, unsigned owner = id) {
        (void)::lchown(path.c_str(), owner, owner);
        for (const auto& entry : std::filesystem::recursive_directory_iterator{path}) {
            (void)::lchown(entry.path().c_str(), owner, owner);
        }
    }
    /// False where the machine refuses; so are the two halves of it. `prepare` is called in between, still as root.
    [[nodiscard]] bool become(bool with_range = true) const {
        return become(with_range, [] { return true; });
    }
    template <class Prepare>
    [[nodiscard]] bool become(bool with_range, Prepare&& prepare) const {
        return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               make_known(with_range) && prepare() && drop();
    }
    /// In the mount namespace of the caller, which is the test's own.
    [[nodiscard]] bool make_known(bool with_range) const {
        const std::string ids = files_ / (with_range ? "ids" : "none");
        return ok_ && put(files_ / "passwd", "/etc/passwd") && put(ids, "/etc/subuid") && put(ids, "/etc/subgid");
    }
    [[nodiscard]] static bool drop() {
        constexpr gid_t another = id + 1;
        if (::setgroups(1, &another) != 0 || ::setresgid(id, id, id) != 0 || ::setresuid(id, id, id) != 0) return false;
        // As after a login: a change of ids takes it away.
        return ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
    }

private:
    static std::string content(const char* path) {
        std::string text;
        (void)caisson::detail::sys::read_file(AT_FDCWD, path, text);
        return text;
    }
    static bool write(const std::string& path, const std::string& text) {
        std::ofstream file{path};
        file << text;
        file.close();
        return file.good();
    }
    static bool put(const std::string& file, const char* place) {
        return ::mount(file.c_str(), place, nullptr, MS_BIND, nullptr) == 0;
    }
    TestDirectory files_;
    bool ok_ = false;
};

}  // namespace caisson_test
