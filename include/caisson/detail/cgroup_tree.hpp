// caisson/detail/cgroup_tree.hpp - emptying and removing a group with all that was made below it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Growing pauses up to a deadline, for states that no descriptor announces: v1 has none for "the last task has left".
class Patience {
public:
    explicit Patience(int milliseconds) noexcept : deadline_{now() + milliseconds} {}
    /// Sleeps 1, 2, 4 ... 32 ms; false, at once, when the time is over.
    bool pause() noexcept {
        const std::int64_t left = deadline_ - now();
        if (left <= 0) return false;
        (void)::poll(nullptr, 0, static_cast<int>(left < step_ ? left : step_));
        if (step_ < 32) step_ *= 2;
        return true;
    }

private:
    static std::int64_t now() noexcept {
        timespec t{};
        (void)::clock_gettime(CLOCK_MONOTONIC, &t);
        return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
    }
    std::int64_t deadline_;
    int step_ = 1;
};

/// The names in an open directory: of the directories, or of everything else.
[[nodiscard]] inline std::vector<std::string> names_in(const Fd& directory, bool directories) {
    std::vector<std::string> names;
    Fd own = sys::open_at(directory.get(), ".", O_RDONLY | O_DIRECTORY);  // a directory stream closes its descriptor
    DIR* stream = own ? ::fdopendir(own.get()) : nullptr;
    if (stream == nullptr) return names;
    (void)own.release();
    struct Close {
        DIR* stream;
        ~Close() { (void)::closedir(stream); }
    } close{stream};
    while (const dirent* entry = ::readdir(stream)) {
        const std::string_view name{entry->d_name};
        if ((entry->d_type == DT_DIR) == directories && name != "." && name != "..") names.emplace_back(name);
    }
    return names;
}
/// The names of the groups right below an open group.
[[nodiscard]] inline std::vector<std::string> groups_in(const Fd& directory) {
    return names_in(directory, true);
}

/// Calls `visit(parent descriptor, name)` for every group below the group `name` of `parent`, the deepest first. Holds
/// two descriptors however deep the tree is, since whoever is inside may have made it.
template <class Visit>
void visit_groups_below(int parent, const std::string& name, Visit&& visit) {
    constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    Fd at = sys::open_at(parent, name.c_str(), flags);
    if (!at) return;
    std::vector<std::vector<std::string>> to_do{groups_in(at)};
    for (;;) {
        std::vector<std::string>& here = to_do.back();
        if (!here.empty()) {
            Fd below = sys::open_at(at.get(), here.back().c_str(), flags);
            if (below) {
                at = std::move(below);
                to_do.push_back(groups_in(at));
            } else {
                here.pop_back();
            }
            continue;
        }
        to_do.pop_back();
        if (to_do.empty()) return;
        // Groups cannot be moved to another parent, so as many steps up as down end at the top again.
        Fd up = sys::open_at(at.get(), "..", flags);
        if (!up) return;
        at = std::move(up);
        visit(at.get(), to_do.back().back());
        to_do.back().pop_back();
    }
}

/// The processes right in a group; 0 stands for one that has no number in the caller's pid namespace.
[[nodiscard]] inline std::vector<pid_t> processes_in(int parent, const std::string& name) {
    std::string text;
    std::vector<pid_t> pids;
    if (!sys::read_file(parent, (name + "/cgroup.procs").c_str(), text, std::size_t{64} << 20)) return pids;
    for (std::string_view rest = text; !rest.empty();) {
        if (const auto pid = parse_decimal(take_field(rest, '\n'), INT32_MAX)) pids.push_back(static_cast<pid_t>(*pid));
    }
    return pids;
}

/// The processes in a group and in those below it.
[[nodiscard]] inline std::vector<pid_t> processes_in_tree(int parent, const std::string& name) {
    std::vector<pid_t> all = processes_in(parent, name);
    visit_groups_below(parent, name, [&](int dir, const std::string& child) {
        for (const pid_t pid : processes_in(dir, child)) all.push_back(pid);
    });
    return all;
}

/// Sends SIGKILL to every process right in a group; how many there were.
inline std::size_t kill_processes_in(int parent, const std::string& name) {
    const auto open_pidfd = [](pid_t pid) { return Fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))}; };
    const std::vector<pid_t> listed = processes_in(parent, name);
    constexpr std::size_t batch = 64;
    for (std::size_t first = 0; first < listed.size(); first += batch) {
        std::vector<std::pair<pid_t, Fd>> held;
        for (std::size_t i = first; i < listed.size() && i < first + batch; ++i) {
            if (listed[i] > 0) held.emplace_back(listed[i], open_pidfd(listed[i]));
        }
        // Who is in the group once the pidfd is held is the process of that pidfd, or its number was used again in this
        // same group and the signal goes to nobody.
        std::vector<pid_t> still = processes_in(parent, name);
        std::sort(still.begin(), still.end());
        for (const auto& [pid, pidfd] : held) {
            if (pidfd && std::binary_search(still.begin(), still.end(), pid)) {
                (void)::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
            }
        }
    }
    return listed.size();
}

/// One directory that makes up a control group.
struct CgroupRef {
    int parent;
    const std::string& name;
    const std::string& controllers;  ///< empty: v2

    [[nodiscard]] bool write(const char* file, std::string_view text) const {
        return sys::write_file(parent, (name + "/" + file).c_str(), text);
    }
};

/// Kills everything in a group, given by its directories, and below it; false if something is still there when the time
/// is over.
[[nodiscard]] inline bool kill_group(const std::vector<CgroupRef>& group, Patience& patience) {
    const CgroupRef* freezer = nullptr;
    for (const CgroupRef& ref : group) {
        if (list_has(ref.controllers, "freezer")) freezer = &ref;
    }
    for (;;) {
        std::size_t seen = 0;
        for (const CgroupRef& ref : group) {
            if (!ref.controllers.empty()) continue;
            (void)ref.write("cgroup.kill", "1");
            seen += processes_in_tree(ref.parent, ref.name).size();
        }
        // Frozen, a fork bomb cannot be faster than this loop; the signals count from the thaw on.
        bool frozen = false;
        for (const CgroupRef& ref : group) {
            if (ref.controllers.empty()) continue;
            const auto kill = [&](int dir, const std::string& name) {
                if (!frozen && !processes_in(dir, name).empty()) {
                    frozen = true;
                    if (freezer != nullptr) (void)freezer->write("freezer.state", "FROZEN");
                }
                seen += kill_processes_in(dir, name);
            };
            kill(ref.parent, ref.name);
            visit_groups_below(ref.parent, ref.name, kill);
        }
        if (frozen && freezer != nullptr) {
            // Whoever is inside may have frozen groups of its own.
            visit_groups_below(freezer->parent, freezer->name, [](int dir, const std::string& name) {
                (void)sys::write_file(dir, (name + "/freezer.state").c_str(), "THAWED");
            });
            (void)freezer->write("freezer.state", "THAWED");
        }
        if (seen == 0) return true;
        if (!patience.pause()) return false;
    }
}

/// Removes one directory of a group with those below it, waiting for tasks that are still on their way out; 0 (also if
/// somebody else removed it), or the errno of the refusal.
[[nodiscard]] inline int remove_group(int parent, const std::string& name, Patience& patience) {
    const auto gone = [&] { return ::unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT; };
    for (;;) {
        if (gone()) return 0;
        if (errno != EBUSY) return errno;
        visit_groups_below(parent, name, [](int dir, const std::string& child) {
            (void)::unlinkat(dir, child.c_str(), AT_REMOVEDIR);
        });
        if (gone()) return 0;
        if (errno != EBUSY) return errno;
        if (!patience.pause()) return EBUSY;
    }
}

/// Lets `uid` and `gid` make groups below a v2 group, 16 deep, as far as the keeper looks for them, and move its own
/// processes among them; its limits stay the caller's. Throws `Step::cgroup`. See cgroups(7), "Delegating a hierarchy
/// to a less privileged user".
inline void delegate_group(int parent, const std::string& name, uid_t uid, gid_t gid) {
    for (const char* file : {"", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"}) {
        const std::string path = name + file;
        if (::fchownat(parent, path.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
            fail(Step::cgroup, "owner of " + quote(path), errno == EPERM ? "this needs CAP_CHOWN" : "");
        }
    }
    if (!sys::write_file(parent, (name + "/cgroup.max.depth").c_str(), "16")) {
        fail(Step::cgroup, "depth of the groups below " + quote(name));
    }
}

/// What to do about a refusal of the file or directory `where`; empty where nobody knows.
[[nodiscard]] inline std::string remedy_for(int error, const std::string& where) {
    switch (error) {
        case EROFS: return "remount the hierarchy read-write";
        case EACCES:
        case EPERM: return "the caller may not write to " + quote(where) + ": run as root or have it delegated";
        case ENOENT: return quote(where) + " does not exist: make it first";
        case ENOSPC: return "the kernel has no group left for this hierarchy: remove unused ones";
        case EAGAIN: return "cgroup.max.descendants or cgroup.max.depth of a group above is reached: raise it";
        default: return {};
    }
}

}  // namespace caisson::inline v0::detail
