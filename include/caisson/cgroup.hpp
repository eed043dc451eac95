// caisson/cgroup.hpp - a control group in every hierarchy of the host: limits, placement, removal.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <caisson/cgroup_watch.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/cgroup_tree.hpp>
#include <caisson/detail/freezer.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/detail/usage_files.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/limits.hpp>
#include <caisson/spec.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

/// A control group's directory in one hierarchy.
struct CgroupDirectory {
    std::string controllers;  ///< v1: "cpu,cpuacct", "name=systemd"; v2: empty
    std::string parent_path;  ///< host path of the directory in which it is
    Fd parent;                ///< that directory, O_PATH: `unlinkat(parent, name, AT_REMOVEDIR)` removes the group
    Fd tasks;                 ///< v1: open for writing; a single-threaded process that writes "0" places itself
    Fd directory;             ///< v2: O_PATH, for CLONE_INTO_CGROUP of clone3(2)
    [[nodiscard]] bool v2() const noexcept { return controllers.empty(); }
};

/// A control group of the caller's own: one directory in every v1 hierarchy and in the v2 one, as the host has them.
///
/// Nobody is ever placed by pid: a v1 process writes "0" to each `tasks` itself, a v2 process is born inside by
/// CLONE_INTO_CGROUP. The directories are called `caisson.NAME.PID-START-NAMESPACE.NUMBER`, by which `sweep()` knows
/// whose they are; the number is not given again for an hour, so that no object's group is taken for another's. A copy
/// of the object in a forked child owns nothing. Not synchronised: one object belongs to one thread at a time. See
/// cgroups(7). Kernel: clone3(2), cgroup.kill and memory.swap.max; all in 5.14.
class Cgroup {
public:
    /// Holds nothing.
    Cgroup() noexcept = default;
    /// Makes the group below `parent`, or below the default parent where that is empty.
    ///
    /// `parent` is an existing directory below each hierarchy's mount point ("machines/web"). By default the parent is
    /// the caller's own group on v1, and on v2 the group above that, as a group with processes in it may not hand
    /// controllers down, or the caller's own where only that is delegated to the caller. On v2, `io`, `memory` and
    /// `pids` are switched on in the parent's cgroup.subtree_control where it allows that, and stay on. On v1,
    /// cpuset.cpus and cpuset.mems are those of the parent.
    ///
    /// A hierarchy that is not mounted, that shows nothing of the caller's group, or that the caller may not write
    /// (EROFS, EACCES, EPERM) is left out: `limit` refuses what needs it. If all are left out, or on any other
    /// refusal, `Step::cgroup` is thrown, and what was made is removed. `name` must be a valid name (`is_valid_name`)
    /// and `parent` must be without "..": else std::invalid_argument.
    [[nodiscard]] static Cgroup create(const std::string& name, const std::string& parent = {}) {
        Cgroup group = begin(name, parent);
        group.complete();
        return group;
    }
    /// The first half of `create`, for who has other work before the second, `complete`: gives the group its name and
    /// makes its first directory, which is the v2 one where there is one: a process may be born in it. Throws as
    /// `create` does.
    [[nodiscard]] static Cgroup begin(const std::string& name, const std::string& parent = {}) {
        if (!is_valid_name(name))
            throw std::invalid_argument{"control group " + detail::quote(name) + ": not a valid name"};
        if (detail::list_has(parent, "..", '/')) {
            throw std::invalid_argument{"control group parent " + detail::quote(parent) + ": has '..' in it"};
        }
        Cgroup group;
        group.maker_ = ::getpid();
        group.open_parents(name, parent);
        const std::string base = "caisson." + name + "." + detail::Owner::current().tag() + ".";
        for (std::uint32_t number = fresh_number(); group.directories_.empty() && !group.pending_.empty(); ++number) {
            group.name_ = base + std::to_string(number);
            (void)group.make_next();
        }
        if (group.directories_.empty()) group.fail_left_out(name);
        return group;
    }
    /// Makes the directories in the other hierarchies; see `begin`. Does nothing on a complete group.
    void complete() {
        while (!pending_.empty()) {
            if (make_next()) continue;
            throw Error{Step::cgroup, EEXIST, "make control group " + detail::quote(path(pending_.front()))};
        }
    }

    Cgroup(Cgroup&& other) noexcept { swap(other); }
    Cgroup& operator=(Cgroup&& other) noexcept {
        Cgroup old{std::move(other)};
        swap(old);
        return *this;
    }
    Cgroup(const Cgroup&) = delete;
    Cgroup& operator=(const Cgroup&) = delete;
    /// Kills what is still inside and removes the group, silently; takes 4 s at most.
    ~Cgroup() {
        if (directories_.empty() || ::getpid() != maker_) return;
        try {
            if (remove_within(0) == nullptr) return;
            kill_within(2000);
            (void)remove_within(2000);
        } catch (...) {  // no memory: sweep() finds the rest
        }
    }

    [[nodiscard]] explicit operator bool() const noexcept { return !directories_.empty(); }
    /// The directories' name, the same in every hierarchy.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// In the order in which they were made; the last is to be removed first.
    [[nodiscard]] const std::vector<CgroupDirectory>& directories() const noexcept { return directories_; }
    /// The directories in which `name()` is, or will be once the group is complete, in the order of making.
    [[nodiscard]] std::vector<int> parent_fds() const {
        std::vector<int> fds;
        for (const auto* list : {&directories_, &pending_}) {
            for (const CgroupDirectory& d : *list) fds.push_back(d.parent.get());
        }
        return fds;
    }
    /// The v2 directory for CLONE_INTO_CGROUP; -1 where the host has no v2 hierarchy (or after `settle`).
    [[nodiscard]] int into_fd() const noexcept {
        for (const CgroupDirectory& d : directories_) {
            if (d.v2()) return d.directory.get();
        }
        return -1;
    }
    /// One descriptor for each v1 hierarchy, for a process that places itself by writing "0" to each.
    [[nodiscard]] std::vector<int> tasks_fds() const {
        std::vector<int> fds;
        for (const CgroupDirectory& d : directories_) {
            if (d.tasks) fds.push_back(d.tasks.get());
        }
        return fds;
    }
    /// The file with the line `oom_kill N`, open for reading: v1 memory.oom_control, v2 memory.events. Opened by the
    /// first call; stays this object's. -1 where there is none.
    [[nodiscard]] int oom_fd() {
        if (!oom_) {
            if (const CgroupDirectory* d = find("memory")) {
                const char* const file = d->v2() ? "memory.events" : "memory.oom_control";
                oom_ = open_file(*d, file, O_RDONLY);
                if (!oom_) require_descriptor(*d, file);
            }
        }
        return oom_.get();
    }

    /// Sets what `limits` names, in processes that run, too, reads it back and throws `Step::cgroup` if the kernel did
    /// not take it. A limit whose controller is not there is an error that names it; on v2, controllers are switched on
    /// in the parent's cgroup.subtree_control where it allows that.
    [[gnu::visibility("default")]] void limit(const LimitSpec& limits);
    /// What is in force at this moment, read from the files, whoever wrote them: nothing where there is no limit, or
    /// where the value is that of a new group; devices as "MAJOR:MINOR". Throws `Step::cgroup` once the group was
    /// removed.
    [[nodiscard]] [[gnu::visibility("default")]] LimitSpec limits() const;
    /// What the group has used. What is asked for the first time is opened, and stays open, so that a start does not
    /// pay for it and every later call only reads: three descriptors for `UsagePart::cpu | UsagePart::memory`, about
    /// twenty for everything, and where v2 counts the CPUs' time one for each CPU. A part that the host's hierarchies
    /// do not have is nothing. Throws `Step::cgroup` once the group was removed.
    [[nodiscard]] Usage usage(UsageParts parts = UsageParts::all()) {
        Usage usage;
        this->usage(parts, usage);
        return usage;
    }
    /// The same into an object that the caller keeps: once it has been filled, it is filled again without allocating.
    [[gnu::visibility("default")]] void usage(UsageParts parts, Usage& into);
    /// Counts the time on each CPU from here on (`Usage::cpu_each`), where that is not the kernel's to do anyway (v1):
    /// by perf events of the group, a descriptor for each CPU. Otherwise the first question with `UsagePart::cpu` does.
    /// Throws `Step::cgroup` where perf_event_open(2) is not allowed; that takes CAP_PERFMON or a
    /// kernel.perf_event_paranoid of 0.
    [[gnu::visibility("default")]] void count_cpus();

    /// Tells what happens to the group from now on. Throws `Step::cgroup` where the kernel does not tell: of kills
    /// without the controller `memory`, of pressure where it does not count it (PSI) and there is no v1 controller
    /// `memory`, of an empty group where that has no v2 directory.
    [[nodiscard]] [[gnu::visibility("default")]] CgroupWatch watch(const CgroupWatchOptions& options = {});
    /// Its parts. The first is nothing where there is no controller `memory`, or where the caller may not ask.
    [[nodiscard]] [[gnu::visibility("default")]] std::optional<detail::OomNotice> oom_notice();
    [[nodiscard]] [[gnu::visibility("default")]] detail::PressureNotice pressure_notice(MemoryPressure level) const;

    /// Makes every process in the group and below it stand still, and returns once all do: by cgroup.freeze where the
    /// group has a v2 directory, as SIGKILL still ends who is frozen there, else by v1's freezer. Groups that whoever
    /// is inside has frozen stay as they are. Throws `Step::cgroup`: with ETIMEDOUT if a process does not come to rest
    /// within half a second, named in the remedy, and all go on then; without errno where there is no freezer.
    [[gnu::visibility("default")]] void freeze();
    /// Lets them go on, whoever froze the group, on v2 and on v1. Throws `Step::cgroup`, with EBUSY if a group above is
    /// frozen.
    [[gnu::visibility("default")]] void thaw();
    /// True if every process in it stands still; also for a group above that is frozen, and on v2 for all below.
    [[nodiscard]] [[gnu::visibility("default")]] bool frozen() const;
    /// The same three for who may not wait with this object in its hands.
    [[nodiscard]] [[gnu::visibility("default")]] detail::Freezer freezer() const;
    /// v1 delivers SIGKILL only once a process is thawed: thaws the group and those below it, silently. On v2 there is
    /// nothing to do.
    [[gnu::visibility("default")]] void thaw_for_kill() const noexcept;

    /// The same group for who may not keep this object busy: it is reached by its path, and is not that object's to
    /// remove.
    [[nodiscard]] [[gnu::visibility("default")]] Cgroup borrow() const;
    /// As `borrow`, by what another process tells of it: `above` are controllers and path of each parent.
    [[nodiscard]] [[gnu::visibility("default")]] static Cgroup reach(
        std::string name, std::vector<std::pair<std::string, std::string>> above);

    /// Of the group and those below it, as the caller's pid namespace numbers them.
    [[nodiscard]] [[gnu::visibility("default")]] std::vector<pid_t> processes() const;

    /// Kills whom it finds in the group and below it, frozen or not, without waiting.
    void kill_once() { (void)kill_within(0); }
    /// Kills every process in the group and below it at once, without waiting: by the v2 group's cgroup.kill, which no
    /// security module refuses. False where there is none.
    [[nodiscard]] bool kill_by_file() const {
        for (const CgroupDirectory& d : directories_) {
            if (d.v2() && detail::sys::write_file(AT_FDCWD, (path(d) + "/cgroup.kill").c_str(), "1")) return true;
        }
        return false;
    }
    /// Kills every process in the group and below it, frozen or not, and waits until none is left. Throws
    /// `Step::cgroup` if some are still there after two seconds.
    void kill() {
        if (kill_within(2000)) return;
        throw Error{Step::cgroup, ETIMEDOUT, "kill control group " + detail::quote(name_), who_is_left()};
    }
    /// Removes the group and those that were made below it, waiting up to two seconds for processes that are on their
    /// way out. Does nothing if it was removed before, by whomever. Throws `Step::cgroup` and keeps the rest if it
    /// cannot.
    void remove() {
        if (const CgroupDirectory* d = remove_within(2000)) {
            const int error = errno;
            throw Error{Step::cgroup, error, "remove control group " + detail::quote(path(*d)),
                        error == EBUSY ? who_is_left() : ""};
        }
    }
    /// Gives the group up: it stays, and is whoever's removes it. Closes all descriptors.
    void release() noexcept {
        directories_.clear();
        pending_.clear();
        oom_.reset();
        usage_.reset();
    }
    /// Closes the descriptors that only a start needs (`tasks`, `directory`, `parent`). The group is reached by its
    /// path from then on.
    void settle() noexcept {
        for (CgroupDirectory& d : directories_) {
            d.tasks.reset();
            d.directory.reset();
            d.parent.reset();
        }
    }

private:
    class LimitChange;
    class LimitReader;
    void require_there(const char* what) const;
    struct LeftOut {
        std::string controllers;
        std::string path;  ///< empty: not mounted or not visible
        int error;
    };

    void swap(Cgroup& other) noexcept {
        std::swap(name_, other.name_);
        std::swap(directories_, other.directories_);
        std::swap(pending_, other.pending_);
        std::swap(left_out_, other.left_out_);
        std::swap(oom_, other.oom_);
        std::swap(usage_, other.usage_);
        std::swap(maker_, other.maker_);
    }
    /// Comes again after an hour, and no two processes share the rest of the name. A number that is free again at once
    /// would let who still holds a group that the keeper has removed kill and remove the next of that name.
    static std::uint32_t fresh_number() noexcept {
        timespec now{};
        (void)::clock_gettime(CLOCK_MONOTONIC, &now);
        return static_cast<std::uint32_t>(now.tv_sec * 1'000'000 + now.tv_nsec / 1000);
    }
    static bool is_refusal(int error) noexcept { return error == EROFS || error == EACCES || error == EPERM; }
    static std::string_view without_newline(std::string_view text) noexcept { return detail::take_field(text, '\n'); }
    [[nodiscard]] std::string path(const CgroupDirectory& d) const { return d.parent_path + "/" + name_; }

    void open_parents(const std::string& name, const std::string& parent) {
        for (const detail::CgroupHierarchy& h : detail::cgroup_hierarchies()) {
            detail::CgroupParent p = detail::open_cgroup_parent(h, parent);
            if (p.directory) {
                pending_.push_back({std::move(p.controllers), std::move(p.path), std::move(p.directory), Fd{}, Fd{}});
            } else if (p.path.empty() || is_refusal(p.error)) {
                left_out_.push_back({std::move(p.controllers), std::move(p.path), p.error});
            } else {
                throw Error{Step::cgroup, p.error,
                            "control group " + detail::quote(name) + " below " + detail::quote(p.path),
                            detail::remedy_for(p.error, p.path)};
            }
        }
        std::stable_partition(pending_.begin(), pending_.end(), [](const CgroupDirectory& d) { return d.v2(); });
        directories_.reserve(pending_.size());
        left_out_.reserve(left_out_.size() + pending_.size());
    }

    /// Makes `name_` in the first of the pending ones, or leaves it out where that is refused. False if it is there.
    bool make_next() {
        CgroupDirectory& d = pending_.front();
        if (d.v2()) enable_controllers(d, {"io", "memory", "pids"});
        if (::mkdirat(d.parent.get(), name_.c_str(), 0755) == 0) {
            directories_.push_back(std::move(d));
            pending_.erase(pending_.begin());
            prepare(directories_.back());
            return true;
        }
        const int error = errno;
        if (error == EEXIST) return false;
        if (!is_refusal(error)) {
            throw Error{Step::cgroup, error, "make control group " + detail::quote(path(d)),
                        detail::remedy_for(error, d.parent_path)};
        }
        left_out_.push_back({std::move(d.controllers), std::move(d.parent_path), error});
        pending_.erase(pending_.begin());
        return true;
    }

    /// What a new directory needs before a process can be in it, and the descriptor that takes it there.
    void prepare(CgroupDirectory& d) {
        if (d.v2()) {
            d.directory = open_file(d, "", O_PATH | O_DIRECTORY);
            if (!d.directory) detail::fail(Step::cgroup, "open control group " + detail::quote(path(d)));
            return;
        }
        if (detail::list_has(d.controllers, "cpuset")) {
            // A new v1 cpuset has no CPU and no memory node, and joining it is ENOSPC.
            for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
                std::string value;
                if (!detail::sys::read_file(d.parent.get(), file, value) || !write(d, file, value)) {
                    detail::fail(Step::cgroup,
                                 "copy " + detail::quote(file) + " to control group " + detail::quote(path(d)));
                }
            }
        }
        d.tasks = open_file(d, "tasks", O_WRONLY);
        if (!d.tasks) detail::fail(Step::cgroup, "open " + detail::quote(path(d) + "/tasks"));
    }

    /// v2: hands controllers down to the groups of the parent. A refusal is `limit`'s to tell.
    static void enable_controllers(const CgroupDirectory& d, std::initializer_list<const char*> controllers) {
        std::string there;
        std::string enabled;
        const Fd opened = d.parent ? Fd{} : detail::sys::open(d.parent_path, O_PATH | O_DIRECTORY);
        const int dir = d.parent ? d.parent.get() : opened.get();
        if (!detail::sys::read_file(dir, "cgroup.controllers", there)) return;
        if (!detail::sys::read_file(dir, "cgroup.subtree_control", enabled)) return;
        for (const char* controller : controllers) {
            if (!detail::list_has(without_newline(there), controller, ' ')) continue;
            if (detail::list_has(without_newline(enabled), controller, ' ')) continue;
            if (!may_hand_down(dir)) return;
            (void)detail::sys::write_file(dir, "cgroup.subtree_control", std::string{"+"} + controller);
        }
    }
    /// False for a group that has processes of its own, and is not the topmost: by `pids` or `cpu` it would become a
    /// threaded domain, and a group below it could have no process at all. See cgroups(7), "Thread mode".
    static bool may_hand_down(int dir) {
        if (!detail::sys::open_at(dir, "cgroup.type", O_RDONLY)) return true;
        const Fd processes = detail::sys::open_at(dir, "cgroup.procs", O_RDONLY);
        char one = 0;
        return processes && detail::sys::retry([&] { return ::read(processes.get(), &one, 1); }) == 0;
    }

    /// The directory where a controller's files are: its v1 hierarchy's, else the v2 one if it has them.
    [[nodiscard]] const CgroupDirectory* find(const char* controller) const {
        const CgroupDirectory* unified = nullptr;
        for (const CgroupDirectory& d : directories_) {
            if (detail::list_has(d.controllers, controller)) return &d;
            if (d.v2()) unified = &d;
        }
        if (unified == nullptr) return nullptr;
        std::string controllers;
        const Fd fd = open_file(*unified, "cgroup.controllers", O_RDONLY);
        if (!fd) require_descriptor(*unified, "cgroup.controllers");
        if (!fd || !read_all(fd, controllers)) return nullptr;
        return detail::list_has(without_newline(controllers), controller, ' ') ? unified : nullptr;
    }
    /// Throws where the descriptors have run out: what is not there would be told otherwise.
    void require_descriptor(const CgroupDirectory& d, const char* file) const {
        if (errno != EMFILE && errno != ENFILE) return;
        detail::fail(Step::cgroup, "open " + detail::quote(path(d) + "/" + file),
                     "no descriptor is left: raise 'ulimit -n'");
    }
    /// As `find`, but null where the controller is v2's.
    [[nodiscard]] const CgroupDirectory* find_v1(const char* controller) const noexcept {
        for (const CgroupDirectory& d : directories_) {
            if (detail::list_has(d.controllers, controller)) return &d;
        }
        return nullptr;
    }
    const CgroupDirectory& need(const char* controller, const std::string& what) const;

    void open_usage(std::uint32_t sets);
    void require_group() const;
    [[nodiscard]] bool open_counters();
    [[nodiscard]] Fd open_file(const CgroupDirectory& d, const char* file, int flags) const {
        const std::string below = name_ + (*file == '\0' ? "" : "/") + file;
        return d.parent ? detail::sys::open_at(d.parent.get(), below.c_str(), flags)
                        : detail::sys::open(d.parent_path + "/" + below, flags);
    }
    [[nodiscard]] bool write(const CgroupDirectory& d, const char* file, std::string_view text) const {
        const Fd fd = open_file(d, file, O_WRONLY);
        return fd && detail::sys::write_all(fd.get(), text);
    }
    static bool read_all(const Fd& fd, std::string& into) {
        into.clear();
        char buffer[4096];
        for (;;) {
            const auto at = static_cast<off_t>(into.size());
            const ssize_t n = detail::sys::retry([&] { return ::pread(fd.get(), buffer, sizeof buffer, at); });
            if (n <= 0) return n == 0;
            into.append(buffer, static_cast<std::size_t>(n));
        }
    }

    /// Opens again what `settle` closed; false if the parent is gone, and the group with it.
    static bool reopen(CgroupDirectory& d) {
        if (!d.parent) d.parent = detail::sys::open(d.parent_path, O_PATH | O_DIRECTORY);
        return static_cast<bool>(d.parent);
    }
    bool kill_within(int milliseconds) {
        std::vector<detail::CgroupRef> refs;
        for (CgroupDirectory& d : directories_) {
            if (reopen(d)) refs.push_back({d.parent.get(), name_, d.controllers});
        }
        detail::Patience patience{milliseconds};
        return detail::kill_group(refs, patience);
    }
    /// Null when all are gone; else the directory that stays, with the reason in `errno`.
    const CgroupDirectory* remove_within(int milliseconds) {
        detail::Patience patience{milliseconds};
        while (!directories_.empty()) {
            CgroupDirectory& d = directories_.back();
            const int error = reopen(d) ? detail::remove_group(d.parent.get(), name_, patience) : errno;
            if (error != 0 && error != ENOENT) {
                errno = error;
                return &d;
            }
            directories_.pop_back();
        }
        oom_.reset();
        usage_.reset();
        return nullptr;
    }
    [[nodiscard]] std::string who_is_left() const {
        std::vector<pid_t> pids;
        for (const CgroupDirectory& d : directories_) {
            for (const pid_t pid : detail::processes_in_tree(d.parent.get(), name_)) pids.push_back(pid);
        }
        std::sort(pids.begin(), pids.end());
        pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
        if (pids.empty()) return {};
        std::string text = pids.size() == 1 ? "process" : "processes";
        for (std::size_t i = 0; i < pids.size() && i < 8; ++i) text += " " + std::to_string(pids[i]);
        return text + (pids.size() > 8 ? " and others" : "") + (pids.size() == 1 ? " is in it" : " are in it");
    }
    [[noreturn]] void fail_left_out(const std::string& name) const {
        const std::string context = "control group " + detail::quote(name);
        for (const LeftOut& out : left_out_) {
            if (out.path.empty()) continue;
            throw Error{Step::cgroup, out.error, context + " below " + detail::quote(out.path),
                        detail::remedy_for(out.error, out.path)};
        }
        throw Error{
            Step::cgroup, 0, context,
            "no cgroup hierarchy is mounted that shows the caller's group: mount -t cgroup2 cgroup2 /sys/fs/cgroup"};
    }

    std::string name_;
    std::vector<CgroupDirectory> directories_;
    std::vector<CgroupDirectory> pending_;  // in which it is not made yet
    std::vector<LeftOut> left_out_;
    Fd oom_;
    std::optional<detail::UsageFiles> usage_;
    pid_t maker_ = -1;
};

}  // namespace caisson::inline v0
