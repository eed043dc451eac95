// src/cgroup_freezer.cpp - control groups that stand still.
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/cgroup_tree.hpp>
#include <caisson/detail/freezer.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

#include "usage_text.hpp"

namespace caisson::inline v0 {
namespace detail {
namespace {

constexpr int freeze_ms = 500;
constexpr int thaw_ms = 20;

/// True where the process waits in the kernel, out of the freezer's reach; also where the caller may not know.
bool moves(pid_t pid) {
    std::string where;
    if (!sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/wchan").c_str(), where)) return false;
    return where != "__refrigerator" && where != "do_freezer_trap" && where != "get_signal";
}

}  // namespace

void Freezer::write(const Fd& parent, const char* file, const char* text, const char* what) const {
    const std::string path = name_ + "/" + file;
    if (sys::write_file(parent.get(), path.c_str(), text)) return;
    const int error = errno;
    const bool gone = error == ENOENT || error == ENODEV;
    throw Error{Step::cgroup, error, what + (" control group " + quote(name_)) + ": write " + quote(file),
                gone ? "the group was removed" : remedy_for(error, path)};
}

std::string Freezer::read(const Fd& parent, const char* file, const char* what) const {
    std::string text;
    if (sys::read_file(parent.get(), (name_ + "/" + file).c_str(), text)) return text;
    const bool gone = errno == ENOENT || errno == ENODEV;
    fail(Step::cgroup, what + (" control group " + quote(name_)) + ": read " + quote(file),
         gone ? "the group was removed" : "");
}

bool Freezer::frozen(const char* what) const {
    if (v2_ && find_number(read(v2_, "cgroup.events", what), "frozen") == 1) return true;
    return v1_ && read(v1_, "freezer.state", what) == "FROZEN\n";
}

bool Freezer::frozen() const {
    return frozen("state of");
}

bool Freezer::frozen_within(int milliseconds) const {
    Patience patience{milliseconds};
    while (!frozen("freeze")) {
        if (!patience.pause()) return false;
        // A v1 group that lost a race against a fork is looked at again.
        if (!v2_) write(v1_, "freezer.state", "FROZEN", "freeze");
    }
    return true;
}

void Freezer::freeze() {
    // On v2, SIGKILL still ends who is frozen.
    if (v2_) write(v2_, "cgroup.freeze", "1", "freeze");
    else write(v1_, "freezer.state", "FROZEN", "freeze");
    if (frozen_within(freeze_ms)) return;
    const std::string who = who_moves();
    thaw();
    throw Error{Step::cgroup, ETIMEDOUT, "freeze control group " + quote(name_), who};
}

void Freezer::thaw() {
    if (v2_) write(v2_, "cgroup.freeze", "0", "thaw");
    if (v1_) write(v1_, "freezer.state", "THAWED", "thaw");
    Patience patience{thaw_ms};
    while (frozen("thaw")) {
        if (patience.pause()) continue;
        throw Error{Step::cgroup, EBUSY, "thaw control group " + quote(name_), "a group above it is frozen: thaw that"};
    }
}

std::string Freezer::who_moves() const {
    std::string text;
    int count = 0;
    for (const pid_t pid : processes_in_tree((v2_ ? v2_ : v1_).get(), name_)) {
        if (pid <= 0 || !moves(pid)) continue;
        if (++count > 8) return text + " and others do not come to rest: they wait in the kernel";
        text += (count == 1 ? "" : ", ") + std::to_string(pid);
    }
    if (count == 0) return "a process does not come to rest: it waits in the kernel";
    return (count == 1 ? "process " : "processes ") + text +
           (count == 1 ? " does not come to rest: it waits in the kernel"
                       : " do not come to rest: they wait in the kernel");
}

void thaw_tree(int parent, const std::string& name) {
    const auto thaw = [](int dir, const std::string& group) {
        (void)sys::write_file(dir, (group + "/freezer.state").c_str(), "THAWED");
    };
    struct stat st {};
    // Nearly always there is none below.
    const bool alone = ::fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 2;
    if (!alone) visit_groups_below(parent, name, thaw);
    thaw(parent, name);
}

}  // namespace detail

detail::Freezer Cgroup::freezer() const {
    Fd v2, v1;
    const auto open = [&](const CgroupDirectory& d) {
        Fd parent = d.parent ? d.parent.duplicate() : detail::sys::open(d.parent_path, O_PATH | O_DIRECTORY);
        if (!parent) detail::fail(Step::cgroup, "control group " + detail::quote(path(d)), "the group was removed");
        return parent;
    };
    for (const CgroupDirectory& d : directories_) {
        if (d.v2()) v2 = open(d);
        else if (detail::list_has(d.controllers, "freezer")) v1 = open(d);
    }
    if (!v2 && !v1) (void)need("freezer", "freezer");
    return {name_, std::move(v2), std::move(v1)};
}

void Cgroup::freeze() {
    freezer().freeze();
}

void Cgroup::thaw() {
    freezer().thaw();
}

bool Cgroup::frozen() const {
    return freezer().frozen();
}

std::vector<pid_t> Cgroup::processes() const {
    // Each hierarchy has the same ones.
    return directories_.empty() ? std::vector<pid_t>{}
                                : detail::processes_in_tree(AT_FDCWD, path(directories_.front()));
}

void Cgroup::thaw_for_kill() const noexcept {
    try {
        for (const CgroupDirectory& d : directories_) {
            if (!detail::list_has(d.controllers, "freezer")) continue;
            if (d.parent) detail::thaw_tree(d.parent.get(), name_);
            else detail::thaw_tree(AT_FDCWD, path(d));
        }
    } catch (...) {  // no memory: who waits for the end comes again
    }
}

Cgroup Cgroup::borrow() const {
    std::vector<std::pair<std::string, std::string>> above;
    for (const CgroupDirectory& d : directories_) above.emplace_back(d.controllers, d.parent_path);
    Cgroup other = reach(name_, std::move(above));
    other.left_out_ = left_out_;
    return other;
}

Cgroup Cgroup::reach(std::string name, std::vector<std::pair<std::string, std::string>> above) {
    Cgroup other;
    other.name_ = std::move(name);
    for (auto& [controllers, parent] : above) {
        other.directories_.push_back({std::move(controllers), std::move(parent), Fd{}, Fd{}, Fd{}});
    }
    return other;
}

}  // namespace caisson::inline v0
