// look_around - tells what a program sees of itself and may write to, in sections that begin with "@NAME"; for the
// differential tests. Static: the root it runs in has no libraries.
#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

namespace {

void copy(const char* name) {
    std::printf("@%s\n", name);
    std::FILE* file = std::fopen((std::string{"/proc/self/"} + name).c_str(), "re");
    if (file == nullptr) return;
    char line[4096];
    while (std::fgets(line, sizeof line, file) != nullptr) std::fputs(line, stdout);
    (void)std::fclose(file);
}

std::set<std::string> writable;  // nftw(3) hands nothing on to its function

/// The first directories of a path, as many as still tell one kind of thing from another.
std::string shortened(const std::string& path) {
    const int parts = path.starts_with("/proc/sys/")                                                         ? 3
                      : path.starts_with("/proc/") || path.starts_with("/sys/") || path.starts_with("/dev/") ? 2
                                                                                                             : 1;
    std::size_t end = 0;
    for (int i = 0; i < parts && end != std::string::npos; ++i) end = path.find('/', end + 1);
    return path.substr(0, end);
}

int visit(const char* path, const struct stat*, int type, FTW*) {
    // Of processes; what can be written there is each one's own.
    if (std::strncmp(path, "/proc/", 6) == 0 && path[6] >= '1' && path[6] <= '9') return FTW_SKIP_SUBTREE;
    if (type != FTW_SL && ::faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0) writable.insert(shortened(path));
    return FTW_CONTINUE;
}

std::set<std::string> mount_points() {
    std::set<std::string> points;
    std::FILE* file = std::fopen("/proc/self/mountinfo", "re");
    if (file == nullptr) return points;
    char line[4096];
    while (std::fgets(line, sizeof line, file) != nullptr) {
        char point[4096];
        if (std::sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1) points.insert(point);
    }
    (void)std::fclose(file);
    return points;
}

}  // namespace

int main() {
    for (const char* name : {"status", "limits", "uid_map", "gid_map", "setgroups", "cgroup", "mountinfo"}) copy(name);
    std::puts("@ns");
    for (const char* name : {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}) {
        char target[64]{};
        if (::readlink((std::string{"/proc/self/ns/"} + name).c_str(), target, sizeof target - 1) > 0) {
            std::printf("%s %s\n", name, target);
        }
    }
    std::puts("@writable");
    for (const std::string& point : mount_points()) {
        (void)::nftw(point.c_str(), visit, 16, FTW_PHYS | FTW_MOUNT | FTW_ACTIONRETVAL);
    }
    for (const std::string& path : writable) std::puts(path.c_str());
    std::puts("@end");
    return 0;
}
