// caisson/detail/device_tree.hpp - a container's /dev, made in the host as two detached mounts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <caisson/detail/consoles.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/mount.hpp>

namespace caisson::inline v0::detail {

/// /dev and /dev/pts before they are placed. Made by the host because inside a user namespace mknod(2) is refused, and
/// a file system mounted there has no working device nodes; a bind of the host's nodes would let root inside change
/// them.
struct DeviceTree {
    Mount devices;
    Mount terminals;

    /// `uid` and `gid` are root's inside, `tty_gid` the group of terminals (5 inside), all as the host numbers them.
    /// `consoles`: for the first an empty file /dev/console that the terminal is to be bound on, and a link for each.
    /// Throws `Step::mount`.
    [[nodiscard]] static DeviceTree make(uid_t uid, gid_t gid, gid_t tty_gid, std::size_t consoles) {
        DeviceTree tree{Mount::tmpfs(65536, {.no_suid = true, .no_dev = false, .no_exec = true}, 0755),
                        Mount::devpts({.gid = tty_gid}, {.no_exec = true})};
        const int dir = tree.devices.fd();
        const auto own = [&](const char* name) {
            if ((uid != 0 || gid != 0) && ::fchownat(dir, name, uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
                fail(Step::mount, std::string{"owner of "} + quote(std::string{"/dev/"} + name),
                     errno == EPERM ? "this needs CAP_CHOWN" : "");
            }
        };
        own("");
        struct Node {
            const char* name;
            unsigned major;
            unsigned minor;
        };
        for (const Node& node : {Node{"null", 1, 3}, Node{"zero", 1, 5}, Node{"full", 1, 7}, Node{"random", 1, 8},
                                 Node{"urandom", 1, 9}, Node{"tty", 5, 0}}) {
            if (::mknodat(dir, node.name, S_IFCHR, ::makedev(node.major, node.minor)) != 0) {
                const int saved = errno;
                throw Error{Step::mount, saved, std::string{"device '/dev/"} + node.name + "'",
                            saved == EPERM    ? "this needs CAP_MKNOD in the host's first user namespace"
                            : saved == EACCES ? "this needs CAP_DAC_OVERRIDE"
                                              : ""};
            }
            // mknod is subject to the caller's umask, which is not the library's to change.
            if (::fchmodat(dir, node.name, 0666, 0) != 0)
                fail(Step::mount, std::string{"mode of '/dev/"} + node.name + "'");
            own(node.name);
        }
        struct Link {
            const char* name;
            const char* target;
        };
        const auto make_link = [&](const Link& link) {
            if (::symlinkat(link.target, dir, link.name) != 0) {
                fail(Step::mount, std::string{"symbolic link '/dev/"} + link.name + "'");
            }
            own(link.name);
        };
        for (const Link& link :
             {Link{"fd", "/proc/self/fd"}, Link{"stdin", "/proc/self/fd/0"}, Link{"stdout", "/proc/self/fd/1"},
              Link{"stderr", "/proc/self/fd/2"}, Link{"ptmx", "pts/ptmx"}}) {
            make_link(link);
        }
        for (std::size_t i = 0; i < consoles; ++i) {
            make_link({("tty" + std::to_string(i + 1)).c_str(), terminal_of_console(i).c_str()});
        }
        for (const char* name : {"pts", "shm", "mqueue"}) {
            if (::mkdirat(dir, name, 0755) != 0) fail(Step::mount, std::string{"directory '/dev/"} + name + "'");
            own(name);
        }
        if (consoles > 0) {
            if (::mknodat(dir, "console", S_IFREG | 0600, 0) != 0) fail(Step::mount, "file '/dev/console'");
            own("console");
        }
        return tree;
    }
};

}  // namespace caisson::inline v0::detail
