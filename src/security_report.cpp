// src/security_report.cpp - what holds a process, read from /proc and its control groups.
#include <caisson/security_report.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/kernel_paths.hpp>
#include <caisson/detail/sys.hpp>

#include "limit_words.hpp"
#include "mount_view.hpp"

namespace caisson::inline v0 {
namespace {

using detail::MountLine;
using detail::MountView;
using detail::take_field;

constexpr std::size_t most_text = std::size_t{64} << 20;
constexpr std::uint64_t most_id = std::numeric_limits<std::uint32_t>::max();

/// The next word of a line of columns.
std::string_view take_word(std::string_view& line) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end);
    return word;
}
std::uint32_t number_or(std::string_view text, std::uint32_t otherwise) {
    return static_cast<std::uint32_t>(detail::parse_decimal(text, most_id).value_or(otherwise));
}
/// Of /proc/PID/status: what follows "KEY:". A name of a process cannot hold a line of its own.
std::string_view status_value(std::string_view status, std::string_view key) {
    while (!status.empty()) {
        std::string_view line = take_field(status, '\n');
        if (take_field(line, ':') != key) continue;
        line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
        return line;
    }
    return {};
}
CapabilitySet capabilities(std::string_view status, std::string_view key) {
    std::uint64_t bits = 0;
    for (const char c : status_value(status, key)) {
        if (c >= '0' && c <= '9') bits = bits << 4 | static_cast<std::uint64_t>(c - '0');
        else if (c >= 'a' && c <= 'f') bits = bits << 4 | static_cast<std::uint64_t>(c - 'a' + 10);
    }
    return CapabilitySet{bits};
}
bool is_there(const std::string& path) {
    return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/// Reads one process, by its directory in /proc, which stays its own whoever gets its pid.
class Reader {
public:
    explicit Reader(const Process& process) {
        const std::string path = "/proc/" + std::to_string(process.pid());
        report_.pid = process.pid();
        directory_ = detail::sys::open(path, O_PATH | O_DIRECTORY);
        if (!directory_) fail("directory " + detail::quote(path));
    }
    SecurityReport read() {
        read_status();
        read_namespaces();
        report_.uid_map = id_map("uid_map");
        report_.gid_map = id_map("gid_map");
        read_limits();
        report_.oom_score_adj = signed_number(text("oom_score_adj"));
        read_label();
        const std::string own = mounts_of_caller();
        read_mounts(own);
        read_cgroups(own);
        return std::move(report_);
    }

private:
    [[noreturn]] static void fail(const std::string& what, std::string_view remedy = {}) {
        const bool gone = errno == ENOENT || errno == ESRCH;
        throw Error{Step::report, gone ? ESRCH : errno, what, remedy};
    }
    std::string text(const char* file) const {
        std::string content;
        if (!detail::sys::read_file(directory_.get(), file, content, most_text)) fail(detail::quote(file) + " of it");
        // Who has a report of a part could hide the rest.
        if (content.size() >= most_text) {
            throw Error{Step::report, EFBIG, detail::quote(file) + " of it", "at most 64 MiB are read"};
        }
        return content;
    }
    static std::string mounts_of_caller() {
        std::string own;
        if (!detail::sys::read_file(AT_FDCWD, "/proc/thread-self/mountinfo", own, most_text)) {
            fail("'/proc/thread-self/mountinfo'");
        }
        return own;
    }
    static std::int32_t signed_number(std::string_view line) {
        line = take_field(line, '\n');
        const bool negative = line.starts_with('-');
        if (negative) line.remove_prefix(1);
        const auto value = static_cast<std::int32_t>(detail::parse_decimal(line, 1000).value_or(0));
        return negative ? -value : value;
    }

    void read_status() {
        const std::string status = text("status");
        const auto effective_id = [&](std::string_view key) {
            std::string_view ids = status_value(status, key);
            (void)take_word(ids);
            return number_or(take_word(ids), 0);
        };
        report_.uid = effective_id("Uid");
        report_.gid = effective_id("Gid");
        for (std::string_view ids = status_value(status, "Groups"); !ids.empty();) {
            if (const std::string_view id = take_word(ids); !id.empty()) report_.groups.push_back(number_or(id, 0));
        }
        report_.capabilities.inheritable = capabilities(status, "CapInh");
        report_.capabilities.permitted = capabilities(status, "CapPrm");
        report_.capabilities.effective = capabilities(status, "CapEff");
        report_.capabilities.bounding = capabilities(status, "CapBnd");
        report_.capabilities.ambient = capabilities(status, "CapAmb");
        report_.no_new_privileges = status_value(status, "NoNewPrivs") == "1";
        const std::string_view mode = status_value(status, "Seccomp");
        report_.seccomp = mode == "2"   ? SecurityReport::Seccomp::filter
                          : mode == "1" ? SecurityReport::Seccomp::strict
                                        : SecurityReport::Seccomp::none;
        const std::uint32_t filters = number_or(status_value(status, "Seccomp_filters"), 0);
        const std::uint32_t inherited = filters > 0 ? filters_of(status_value(status, "PPid")) : 0;
        report_.seccomp_filters = filters - std::min(filters, inherited);
    }
    static std::uint32_t filters_of(std::string_view pid) {
        std::string status;
        const std::string path = "/proc/" + std::string{pid} + "/status";
        if (!detail::sys::read_file(AT_FDCWD, path.c_str(), status)) return 0;
        return number_or(status_value(status, "Seccomp_filters"), 0);
    }

    void read_namespaces() {
        for (const NamespaceKind kind : all_namespace_kinds) {
            const std::string link = std::string{"ns/"} + to_string(kind);
            struct stat theirs {};
            struct stat ours {};
            // A kind that this kernel lacks is nobody's own.
            if (::stat(("/proc/thread-self/" + link).c_str(), &ours) != 0) continue;
            if (::fstatat(directory_.get(), link.c_str(), &theirs, 0) != 0) {
                fail(std::string{to_string(kind)} + " namespace of it",
                     errno == EACCES || errno == EPERM
                         ? "this needs ptrace access to the process: its user, or CAP_SYS_PTRACE over it"
                         : "");
            }
            if (theirs.st_ino != ours.st_ino) report_.namespaces = report_.namespaces | NamespaceSet{kind};
        }
    }
    std::vector<IdMap> id_map(const char* file) const {
        std::vector<IdMap> map;
        const std::string content = text(file);
        for (std::string_view rest = content; !rest.empty();) {
            std::string_view line = take_field(rest, '\n');
            IdMap extent;
            extent.inside = number_or(take_word(line), 0);
            extent.outside = number_or(take_word(line), 0);
            extent.count = number_or(take_word(line), 0);
            map.push_back(extent);
        }
        return map;
    }
    void read_limits() {
        // The kernel's titles, in the order of the kinds.
        constexpr std::string_view titles[] = {
            "Max cpu time",       "Max file size",     "Max data size",         "Max stack size",
            "Max core file size", "Max resident set",  "Max processes",         "Max open files",
            "Max locked memory",  "Max address space", "Max file locks",        "Max pending signals",
            "Max msgqueue size",  "Max nice priority", "Max realtime priority", "Max realtime timeout"};
        const std::string content = text("limits");
        for (std::size_t kind = 0; kind < std::size(titles); ++kind) {
            for (std::string_view rest = content; !rest.empty();) {
                std::string_view line = take_field(rest, '\n');
                if (!line.starts_with(titles[kind])) continue;
                line.remove_prefix(titles[kind].size());
                const auto value = [&] {
                    return detail::parse_decimal(take_word(line), UINT64_MAX).value_or(ResourceLimit::unlimited);
                };
                ResourceLimit limit{static_cast<ResourceLimit::Kind>(kind), value(), 0};
                limit.hard = value();
                report_.resource_limits.push_back(limit);
                break;
            }
        }
    }
    void read_label() {
        std::string label;
        // EINVAL: no module has one.
        if (!detail::sys::read_file(directory_.get(), "attr/current", label)) return;
        while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) label.pop_back();
        report_.security_label = std::move(label);
    }

    void read_mounts(const std::string& own) {
        const MountView view{text("mountinfo")};
        for (const MountLine& mount : view.lines()) {
            if (!view.is_visible(mount)) continue;
            if (MountView::is_mask(mount)) report_.masked_paths.push_back(mount.point);
            else if (mount.read_only && mount.point != "/") report_.read_only_paths.push_back(mount.point);
            if (mount.type == "cgroup" || mount.type == "cgroup2") {
                const CgroupMount seen = mount.read_only ? CgroupMount::read_only : CgroupMount::read_write;
                report_.cgroup_mount = std::max(report_.cgroup_mount, seen);
            }
        }
        // What they show is the kernel's, the same in each procfs and sysfs: so what is there is seen in the host's.
        const auto shown = [&](const std::string& path) -> const MountLine* {
            const MountLine* mount = view.at(path);
            if (mount == nullptr || mount->processes_only) return nullptr;
            return mount->type == "proc" || mount->type == "sysfs" || mount->type == "selinuxfs" ? mount : nullptr;
        };
        std::vector<std::string> masked;
        for (const std::string& pattern : ContainerSpec::default_masked_paths()) {
            for (std::string& path : detail::kernel_paths(pattern)) masked.push_back(std::move(path));
        }
        auto read_only = ContainerSpec::default_read_only_paths();
        read_only.emplace_back("/sys");
        for (auto* paths : {&masked, &read_only}) {
            std::erase_if(*paths, [](const std::string& path) { return !is_there(path); });
        }
        for (const std::string& path : masked) {
            if (shown(path) != nullptr) report_.open_paths.push_back(path);
        }
        for (const std::string& path : read_only) {
            if (const MountLine* mount = shown(path); mount != nullptr && !mount->read_only) {
                report_.writable_paths.push_back(path);
            }
        }
        find_elsewhere(view, masked, read_only);
        const MountLine* root = view.at("/");
        const MountLine* dev = view.at("/dev");
        report_.root_read_only = root != nullptr && root->read_only;
        report_.host_devices = dev != nullptr && dev->type == "devtmpfs";
        const MountView host{own};
        const MountLine* ours = host.at("/");
        report_.host_root =
            root != nullptr && ours != nullptr && root->device == ours->device && root->root == ours->root;
        if (report_.namespaces.has(NamespaceKind::mount)) find_host_paths(view, root, host);
    }
    /// What is masked or read-only in /proc and /sys, and seen in a second procfs, or by a bind, as the kernel has it.
    void find_elsewhere(const MountView& view, const std::vector<std::string>& masked,
                        const std::vector<std::string>& read_only) {
        // Those of the spec come first; of who can make more it is told that no mask holds.
        constexpr int most = 100;
        int count = 0;
        for (const MountLine& mount : view.lines()) {
            const std::string_view home = mount.type == "proc" ? "/proc" : mount.type == "sysfs" ? "/sys" : "";
            const std::string from = std::string{home} + (mount.root == "/" ? "" : mount.root);
            if (home.empty() || mount.processes_only || mount.point == from) continue;
            if (!view.is_visible(mount) || ++count > most) continue;
            const auto find = [&](const std::vector<std::string>& paths, std::vector<std::string>& into) {
                for (const std::string& path : paths) {
                    const std::string seen = is_below(path, from)   ? mount.point + path.substr(from.size())
                                             : is_below(from, path) ? mount.point
                                                                    : std::string{};
                    if (!seen.empty() && view.at(seen) == &mount) into.push_back(seen);
                }
            };
            find(masked, report_.open_paths);
            if (!mount.read_only) find(read_only, report_.writable_paths);
        }
    }
    void find_host_paths(const MountView& view, const MountLine* root, const MountView& host) {
        std::set<std::string_view> devices;
        for (const MountLine& mount : host.lines()) devices.insert(mount.device);
        for (const MountLine& mount : view.lines()) {
            if (mount.point == "/" || !devices.contains(mount.device) || !view.is_visible(mount)) continue;
            // Its own, seen once more.
            if (root != nullptr && mount.device == root->device && is_below(mount.root, root->root)) continue;
            // What there is one of for all who share a network or control groups is told with these.
            if (mount.type == "sysfs" || mount.type == "cgroup" || mount.type == "cgroup2") continue;
            // An ordinary user's container has the host's nodes.
            constexpr std::string_view nodes[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                                  "/dev/random", "/dev/urandom", "/dev/tty"};
            if (std::find(std::begin(nodes), std::end(nodes), mount.point) != std::end(nodes)) continue;
            report_.host_paths.push_back(mount.point);
        }
    }
    static bool is_below(std::string_view path, std::string_view above) {
        if (above == "/") return true;
        return path.starts_with(above) && (path.size() == above.size() || path[above.size()] == '/');
    }

    void read_cgroups(const std::string& own) {
        for (const auto& hierarchy : detail::parse_cgroup_hierarchies(text("cgroup"), own)) {
            const auto has = [&](const char* controller) {
                return hierarchy.v2() || detail::list_has(hierarchy.controllers, controller);
            };
            for (const detail::CgroupPlace& place : hierarchy.places) {
                if (!place.own) continue;
                const Fd mount = detail::sys::open(place.mount_point, O_PATH | O_DIRECTORY);
                struct stat st {};
                if (!mount || ::fstat(mount.get(), &st) != 0 || st.st_dev != place.device) continue;
                if (has("memory")) {
                    lower(report_.memory_limit, mount, *place.own,
                          hierarchy.v2() ? "memory.max" : "memory.limit_in_bytes");
                }
                if (has("pids")) lower(report_.pids_limit, mount, *place.own, "pids.max");
                if (hierarchy.v2()) read_device_programs(mount, *place.own);
                else if (has("devices")) read_device_rules(mount, *place.own);
                break;
            }
        }
    }
    /// The lowest limit of a group ("" or "/a/b") and those above it. A group that is gone has none.
    static void lower(std::optional<std::uint64_t>& limit, const Fd& mount, std::string group, const char* file) {
        for (;;) {
            std::string value;
            if (detail::sys::read_file(mount.get(), ("." + group + "/" + file).c_str(), value)) {
                std::string_view line = value;
                const std::uint64_t found = limit_words::value_of(take_field(line, '\n'));
                if (found != LimitSpec::unlimited) limit = std::min(found, limit.value_or(found));
            }
            if (group.empty()) return;
            group.erase(group.rfind('/'));
        }
    }
    void read_device_rules(const Fd& mount, const std::string& group) {
        std::string list;
        if (!detail::sys::read_file(mount.get(), ("." + group + "/devices.list").c_str(), list)) return;
        report_.device_rules.emplace();
        for (std::string_view rest = list; !rest.empty();) {
            if (const auto line = take_field(rest, '\n'); !line.empty()) report_.device_rules->emplace_back(line);
        }
    }
    void read_device_programs(const Fd& mount, const std::string& group) {
        const Fd directory = detail::sys::open_at(mount.get(), ("." + group).c_str(), O_RDONLY | O_DIRECTORY);
        if (!directory) return;
        bpf_attr query;
        std::memset(&query, 0, sizeof query);
        query.query.target_fd = static_cast<std::uint32_t>(directory.get());
        query.query.attach_type = BPF_CGROUP_DEVICE;
        query.query.query_flags = BPF_F_QUERY_EFFECTIVE;
        if (::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) != 0) return;
        report_.device_programs = query.query.prog_cnt;
    }

    Fd directory_;
    SecurityReport report_;
};

}  // namespace

SecurityReport SecurityReport::of_command(const Process& init) {
    if (!init) throw std::logic_error{"this Process holds nothing"};
    const std::string pid = std::to_string(init.pid());
    const std::string what = "command of init, process " + pid;
    const std::string file = "/proc/" + pid + "/task/" + pid + "/children";
    std::string list;
    const bool is_read = detail::sys::read_file(AT_FDCWD, file.c_str(), list, most_text);
    const int saved = errno;
    const auto end = [&]() -> Error { return {Step::report, ESRCH, what, "it has ended"}; };
    if (init.ended()) throw end();
    if (!is_read) {
        throw Error{Step::report, saved, what + ": " + detail::quote(file),
                    saved == ENOENT ? "this kernel has no CONFIG_PROC_CHILDREN" : ""};
    }
    // The oldest is the first; what others of the container have left to init comes behind it.
    std::string_view rest = list;
    const auto pid_of_command = detail::parse_decimal(take_word(rest), std::numeric_limits<pid_t>::max());
    if (!pid_of_command) throw end();
    try {
        SecurityReport report = of(Process::open(static_cast<pid_t>(*pid_of_command)));
        // Init ends as soon as its command does: it has not, so the pid was the command's all the time.
        if (init.ended()) throw end();
        return report;
    } catch (const Error& e) {
        if (init.ended() || e.code().value() == ESRCH) throw end();
        throw e.in(what);
    }
}

SecurityReport SecurityReport::of(const Process& process) {
    if (!process) throw std::logic_error{"this Process holds nothing"};
    const std::string what = "security report of process " + std::to_string(process.pid());
    const auto end = [&]() -> Error { return {Step::report, ESRCH, what, "it has ended"}; };
    try {
        Reader reader{process};
        // It has not ended, so the directory that was opened before is its own and nobody else's.
        if (process.ended()) throw end();
        SecurityReport report = reader.read();
        if (process.ended()) throw end();
        return report;
    } catch (const Error& e) {
        if (process.ended()) throw end();
        throw e.in(what);
    }
}

}  // namespace caisson::inline v0
