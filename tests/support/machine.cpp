#include "support/machine.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <optional>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include <dirent.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>
#include <caisson/fd.hpp>

#include "support/rootfs.hpp"
#include "support/sanitizer.hpp"

namespace caisson_test {
namespace {

namespace fs = std::filesystem;
using caisson::detail::Owner;
using Lines = std::vector<std::string>;

/// What could be read: a process may end while its files are.
std::string slurp(const std::string& path) {
    std::string text;
    (void)caisson::detail::sys::read_file(AT_FDCWD, path.c_str(), text);
    return text;
}
Lines lines_of(const std::string& text) {
    Lines lines;
    std::istringstream stream{text};
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}
std::string link_of(const std::string& path) {
    char target[4096];
    const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
    return n < 0 ? std::string{"?"} : std::string(target, static_cast<std::size_t>(n));
}
Lines names_in(const std::string& directory) {
    Lines names;
    std::error_code none;
    for (fs::directory_iterator i{directory, none}, end; !none && i != end; i.increment(none)) {
        names.push_back(i->path().filename());
    }
    return names;
}
bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}
bool is_number(const std::string& name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool strict() {
    const std::string arguments = slurp("/proc/self/cmdline");
    return has(arguments + '\0', std::string_view{"\0--strict\0", 10});
}

// The mark. 2^52 microseconds are 142 years.
constexpr rlim_t mark_base = rlim_t{1} << 52;

std::string mark() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_RTTIME, &limit) != 0) throw std::runtime_error{"getrlimit RLIMIT_RTTIME"};
    // A test program that is run by a test keeps its parent's mark.
    if (limit.rlim_cur < mark_base || limit.rlim_cur >= 2 * mark_base) {
        limit.rlim_cur = mark_base + static_cast<rlim_t>(::getpid());
        if (limit.rlim_cur > limit.rlim_max || ::setrlimit(RLIMIT_RTTIME, &limit) != 0) {
            throw std::runtime_error{"setrlimit RLIMIT_RTTIME: the processes of a test cannot be marked"};
        }
    }
    return "Max realtime timeout      " + std::to_string(limit.rlim_cur) + ' ';
}
bool marked(const std::string& pid, const std::string& mark_text) {
    return has(slurp("/proc/" + pid + "/limits"), mark_text);
}

/// The fields of /proc/PID/stat from the third on.
Lines stat_of(const std::string& pid) {
    const std::string text = slurp("/proc/" + pid + "/stat");
    const std::size_t at = text.rfind(')');
    if (at == std::string::npos) return {};
    std::istringstream words{text.substr(at + 1)};
    return {std::istream_iterator<std::string>{words}, {}};
}

/// Whose things are looked at.
struct View {
    MachineState& state;
    std::string mark_text = mark();
    bool all = strict();
    bool own_mounts = own("mnt");
    bool own_network = own("net");
    std::uint64_t pid_namespace = Owner::current().pid_namespace;

    static bool own(const std::string& kind) {
        // pid 1 itself may have a capability that the caller has not, and then does not let itself be looked at.
        std::string outermost;
        for (std::string pid = std::to_string(::getpid()); pid != "0";) {
            const std::string link = link_of("/proc/" + pid + "/ns/" + kind);
            if (link != "?") outermost = link;
            const Lines stat = stat_of(pid);
            pid = stat.size() > 1 ? stat[1] : "0";
        }
        return outermost != link_of("/proc/thread-self/ns/" + kind);
    }
    /// Notes whose the thing is, by the owner's tag in the line; true if it is somebody else's.
    [[nodiscard]] bool is_foreign(const std::string& line) const {
        if (all) return false;
        static const std::regex tag{"[0-9]+-[0-9]+-[0-9]+"};
        for (std::sregex_iterator i{line.begin(), line.end(), tag}, end; i != end; ++i) {
            const std::optional<Owner> owner = Owner::parse(i->str());
            if (!owner || owner->pid_namespace != pid_namespace) continue;
            if (owner->is_dead()) {
                state.of_the_dead.insert(line);
            } else if (!marked(std::to_string(owner->pid), mark_text)) {
                state.foreign.insert(line);
                return true;
            }
        }
        return false;
    }
    [[nodiscard]] bool counts(bool own_namespace, const std::string& line) const {
        return all || own_namespace || (has(line, "caisson") && !is_foreign(line));
    }
};

Lines mounts(const View& view) {
    Lines result;
    for (const std::string& line : lines_of(slurp("/proc/thread-self/mountinfo"))) {
        // Without the ids of mount, parent and peer groups, which the kernel hands out anew.
        std::istringstream words{line};
        std::string id, parent, device, rest;
        words >> id >> parent >> device;
        std::getline(words, rest);
        static const std::regex group{" (shared|master|propagate_from):[0-9]+"};
        const std::string mount = device + std::regex_replace(rest, group, " $1");
        if (view.counts(view.own_mounts, mount)) result.push_back(mount);
    }
    return result;
}

Lines links(const View& view) {
    Lines result;
    const caisson::Fd socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
    struct {
        nlmsghdr header{};
        ifinfomsg info{};
    } request;
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_GETLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (!socket || ::send(socket.get(), &request, sizeof request, 0) < 0) return {"cannot be listed"};
    alignas(nlmsghdr) char buffer[65536];
    for (;;) {
        const ssize_t n = ::recv(socket.get(), buffer, sizeof buffer, 0);
        if (n <= 0) return {"cannot be listed"};
        auto left = static_cast<unsigned>(n);
        for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(message, left);
             message = NLMSG_NEXT(message, left)) {
            if (message->nlmsg_type == NLMSG_DONE) return result;
            if (message->nlmsg_type != RTM_NEWLINK) return {"cannot be listed"};
            const auto* info = reinterpret_cast<ifinfomsg*>(reinterpret_cast<char*>(message) + NLMSG_HDRLEN);
            std::string name, alias;
            auto size = static_cast<unsigned>(IFLA_PAYLOAD(message));
            for (const auto* a = IFLA_RTA(info); RTA_OK(a, size); a = RTA_NEXT(a, size)) {
                const auto* text = static_cast<const char*>(RTA_DATA(a));
                if (a->rta_type == IFLA_IFNAME) name.assign(text, ::strnlen(text, RTA_PAYLOAD(a)));
                if (a->rta_type == IFLA_IFALIAS) alias.assign(text, ::strnlen(text, RTA_PAYLOAD(a)));
            }
            const std::string text = std::to_string(info->ifi_index) + ' ' + name + ' ' + alias;
            if (view.counts(view.own_network, text)) result.push_back(text);
        }
    }
}

Lines groups(const View& view) {
    Lines result;
    for (const std::string& line : lines_of(slurp("/proc/thread-self/mountinfo"))) {
        if (!has(line, " - cgroup ") && !has(line, " - cgroup2 ")) continue;
        std::istringstream words{line};
        std::string word, point;
        for (int i = 0; i < 5; ++i) words >> (i == 4 ? point : word);
        std::error_code none;
        fs::recursive_directory_iterator i{point, fs::directory_options::skip_permission_denied, none}, end;
        for (; !none && i != end && result.size() < 20000; i.increment(none)) {
            std::error_code gone;
            if (!i->is_directory(gone) || i->is_symlink(gone)) continue;
            static const std::regex unit{"\\.(service|scope|slice|mount|socket|swap)$"};
            const std::string path = i->path();
            if (view.all ? !std::regex_search(path, unit) : view.counts(false, path)) result.push_back(path);
        }
    }
    return result;
}

Lines processes(const View& view) {
    Lines result;
    const std::string self = std::to_string(::getpid());
    for (const std::string& pid : names_in("/proc")) {
        if (!is_number(pid) || pid == self || !marked(pid, view.mark_text)) continue;
        const Lines stat = stat_of(pid);
        // One in state X has been waited for: nothing is left of it but its number, for a moment.
        if (stat.size() < 20 || stat[0] == "X" || (stat[0] == "Z" && (stat[1] == "1" || stat[1] == "0"))) continue;
        std::string command = slurp("/proc/" + pid + "/cmdline");
        std::replace(command.begin(), command.end(), '\0', ' ');
        if (command.empty()) {
            command = slurp("/proc/" + pid + "/comm");
            while (!command.empty() && command.back() == '\n') command.pop_back();
        }
        if (stat[0] == "Z") command = "(a zombie)";
        result.push_back("pid " + pid + ", parent " + stat[1] + ", started at " + stat[19] + ": " + command);
    }
    return result;
}

Lines descriptors() {
    Lines result;
    DIR* directory = ::opendir("/proc/self/fd");
    if (directory == nullptr) throw std::runtime_error{"/proc/self/fd cannot be read"};
    while (const dirent* entry = ::readdir(directory)) {
        const std::string name = entry->d_name;
        if (!is_number(name) || name == std::to_string(::dirfd(directory))) continue;
        result.push_back(name + " -> " + link_of("/proc/self/fd/" + name));
    }
    (void)::closedir(directory);
    return result;
}

Lines threads() {
    Lines result;
    for (const std::string& id : names_in("/proc/self/task")) {
        std::string name = slurp("/proc/self/task/" + id + "/comm");
        while (!name.empty() && name.back() == '\n') name.pop_back();
        result.push_back(id + ' ' + name);
    }
    return result;
}

Lines own_state() {
    Lines result;
    static const std::regex wanted{
        "^(Name|Umask|Uid|Gid|Groups|Sig[A-Z][a-z]+|ShdPnd|Cap[A-Z][a-z]+|NoNewPrivs|Seccomp):"};
    for (const std::string& line : lines_of(slurp("/proc/thread-self/status"))) {
        if (!std::regex_search(line, wanted)) continue;
        if (!line.starts_with("SigCgt:")) {
            result.push_back(line);
            continue;
        }
        // Without signals 32 and 33, for which the C library installs handlers when the first thread is made.
        const unsigned long long caught = std::stoull(line.substr(7), nullptr, 16) & ~(3ull << 31);
        std::ostringstream text;
        text << "SigCgt:\t" << std::hex << caught;
        result.push_back(text.str());
    }
    for (const std::string& kind : names_in("/proc/thread-self/ns")) {
        result.push_back("namespace " + link_of("/proc/thread-self/ns/" + kind) + " as " + kind);
    }
    for (const std::string& line : lines_of(slurp("/proc/thread-self/cgroup"))) result.push_back("in group " + line);
    for (const std::string& line : lines_of(slurp("/proc/self/limits"))) result.push_back(line);
    result.push_back("working directory " + link_of("/proc/thread-self/cwd"));
    result.push_back("root " + link_of("/proc/thread-self/root"));
    int subreaper = 0, death_signal = 0;
    (void)::prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    (void)::prctl(PR_GET_PDEATHSIG, &death_signal);
    result.push_back("child subreaper " + std::to_string(subreaper));
    result.push_back("parent's death signal " + std::to_string(death_signal));
    result.push_back("dumpable " + std::to_string(::prctl(PR_GET_DUMPABLE)));
    result.push_back("timer slack " + std::to_string(::prctl(PR_GET_TIMERSLACK)));
    result.push_back("oom_score_adj " + slurp("/proc/self/oom_score_adj"));
    return result;
}

Lines environment() {
    Lines result;
    for (char** variable = environ; *variable != nullptr; ++variable) result.emplace_back(*variable);
    return result;
}

Lines sockets(const View& view) {
    Lines result;
    for (const std::string& line : lines_of(slurp("/proc/thread-self/net/unix"))) {
        std::istringstream words{line};
        std::string skipped, flags, name;
        words >> skipped >> skipped >> skipped >> flags >> skipped >> skipped >> skipped;
        std::getline(words, name);
        // Listening (__SO_ACCEPTCON) and with a name: the rest belong to descriptors, which are looked at themselves.
        if (flags != "00010000" || name.empty()) continue;
        name.erase(0, 1);
        if (view.counts(view.own_network, name)) result.push_back(name);
    }
    return result;
}

Lines loops(const View& view) {
    Lines result;
    for (const std::string& name : names_in("/sys/block")) {
        std::string file = slurp("/sys/block/" + name + "/loop/backing_file");
        while (!file.empty() && file.back() == '\n') file.pop_back();
        if (file.empty()) continue;
        if (view.all || is_in_test_directory(file)) result.push_back(name + " of " + file);
    }
    return result;
}

Lines firewall(const View& view) {
    Lines result;
    if (::geteuid() != 0 || ::access("/usr/sbin/nft", X_OK) != 0) return result;
    FILE* pipe = ::popen("/usr/sbin/nft -s list ruleset 2> /dev/null", "re");
    if (pipe == nullptr) return result;
    std::string text;
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
    (void)::pclose(pipe);
    for (const std::string& line : lines_of(text)) {
        if (view.counts(view.own_network, line)) result.push_back(line);
    }
    return result;
}

Lines files(const View& view) {
    Lines result;
    const auto walk = [&](const std::string& directory, bool everything) {
        std::error_code none;
        fs::recursive_directory_iterator i{directory, fs::directory_options::skip_permission_denied, none}, end;
        for (; !none && i != end && result.size() < 20000; i.increment(none)) {
            const std::string path = i->path();
            // The registry of id ranges stays for the life of the machine; reservations are locks of living processes.
            if (path == "/run/caisson/id-ranges" || view.is_foreign(path)) continue;
            if (everything || has(path, "caisson")) result.push_back(path);
        }
    };
    walk("/run/caisson", true);
    walk("/dev/shm", view.all);
    return result;
}

}  // namespace

MachineState MachineState::capture(Look look) {
    MachineState state;
    state.look = look;
    if (look.machine) {
        const View view{state};
        state.sections = {{"mounts", mounts(view)},       {"links", links(view)},     {"control groups", groups(view)},
                          {"processes", processes(view)}, {"sockets", sockets(view)}, {"files", files(view)},
                          {"loop devices", loops(view)}};
        if (look.firewall) state.sections["nft rules"] = firewall(view);
    }
    if (look.process) {
        // The thread sanitizer starts a thread of its own when it likes.
        if (!thread_sanitized) state.sections["threads"] = threads();
        state.sections["this process"] = own_state();
        state.sections["environment"] = environment();
        // Last, when everything else has closed its own.
        state.sections["descriptors"] = descriptors();
    }
    for (auto& [name, lines] : state.sections) std::sort(lines.begin(), lines.end());
    return state;
}

std::string difference(const MachineState& before, const MachineState& after) {
    std::string text;
    const auto tell = [&](const MachineState& one, const MachineState& other, char sign, const auto& excused) {
        for (const auto& [name, lines] : one.sections) {
            const auto found = other.sections.find(name);
            const Lines rest = found == other.sections.end() ? Lines{} : found->second;
            Lines only;
            std::set_difference(lines.begin(), lines.end(), rest.begin(), rest.end(), std::back_inserter(only));
            for (const std::string& line : only) {
                if (!excused.contains(line)) text += name + ": " + sign + ' ' + line + '\n';
            }
        }
    };
    tell(after, before, '+', before.foreign);
    tell(before, after, '-', before.of_the_dead);
    return text;
}

std::string lasting_difference(const MachineState& before, int milliseconds) {
    constexpr int step = 20;
    for (int waited = 0;; waited += step) {
        const std::string text = difference(before, MachineState::capture(before.look));
        if (text.empty() || waited >= milliseconds) return text;
        // No descriptor tells when the kernel has taken a network namespace apart.
        (void)::usleep(step * 1000);
    }
}

}  // namespace caisson_test
