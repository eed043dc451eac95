// src/unprivileged.cpp - who the caller is where it is not root, which ids are his, and the programs that map them.
#include <caisson/detail/unprivileged.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/launch.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr std::uint32_t most_ids = 65536;
constexpr int tool_patience = 30'000;  // of newuidmap in milliseconds: it may have to ask a directory server

[[noreturn]] void refuse(const std::string& problem, std::string_view remedy) {
    throw Error{Step::check_spec, 0, problem, remedy};
}

std::string text_of(const std::string& path) {
    std::string text;
    return sys::read_file(AT_FDCWD, path.c_str(), text) ? text : std::string{};
}

/// The caller's name by /etc/passwd; empty where it is not there.
std::string own_name() {
    const std::string passwd = text_of("/etc/passwd");
    for (std::string_view rest = passwd; !rest.empty();) {
        std::string_view line = take_field(rest, '\n');
        const std::string_view name = take_field(line, ':');
        (void)take_field(line, ':');  // the password
        if (parse_decimal(take_field(line, ':'), UINT32_MAX) == std::uint64_t{::getuid()}) return std::string{name};
    }
    return {};
}

/// The caller's own id as 0, and the ranges from 1 on.
std::vector<IdMap> with_own(std::uint32_t own, const std::vector<IdMap>& ranges) {
    std::vector<IdMap> map{{0, own, 1}};
    std::uint32_t next = 1;
    for (const IdMap& range : ranges) {
        if (own >= range.outside && own - range.outside < range.count) continue;
        const std::uint32_t count = std::min(range.count, most_ids - next);
        if (count == 0) break;
        map.push_back({next, range.outside, count});
        next += count;
    }
    return map;
}

bool is_own_alone(const std::vector<IdMap>& map, std::uint32_t own) {
    return map.size() == 1 && map.front().outside == own && map.front().count == 1;
}

std::string tool_path(const std::string& directory, const char* name) {
    return (directory.empty() ? std::string{CAISSON_ID_MAP_TOOLS} : directory) + "/" + name;
}

bool has_no_new_privileges() {
    return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

/// Runs newuidmap or newgidmap. It is nobody's child, so what it did is asked of the kernel.
void map_by_tool(pid_t pid, const std::vector<IdMap>& map, const std::string& program, const char* file) {
    const std::string what = std::string{file} + " by " + quote(program);
    const Fd opened = sys::open(program, O_PATH);
    if (!opened) {
        fail(Step::map_ids, what,
             errno == ENOENT
                 ? "install it (Debian: uidmap), name its directory in id_map_tools, or map the caller's own "
                   "id alone"
                 : "");
    }
    const Fd null = sys::open("/dev/null", O_RDWR | O_NOCTTY);
    if (!null) fail(Step::map_ids, "'/dev/null'");
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) fail(Step::map_ids, what);
    const Fd said{ends[0]};
    Fd says{ends[1]};

    std::vector<std::string> words{program, std::to_string(pid)};
    for (const IdMap& m : map) {
        for (const std::uint32_t number : {m.inside, m.outside, m.count}) words.push_back(std::to_string(number));
    }
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    char* const envp[] = {nullptr};
    const int descriptors[] = {null.get(), null.get(), says.get()};
    LaunchFailure failure;
    const Launched tool = launch(
        {.program = opened.get(), .argv = argv.data(), .envp = envp, .descriptors = descriptors, .descriptor_count = 3},
        failure);
    if (!tool.pidfd) throw Error{Step::map_ids, failure.errnum, what + ": " + failure.call};
    says.reset();
    if (!wait_readable(tool.pidfd.get(), tool_patience)) {
        (void)sys::pidfd_send_signal(tool.pidfd.get(), SIGKILL);
        if (wait_readable(tool.pidfd.get(), 1000)) reap_if_ours(tool.pidfd.get());
        throw Error{Step::map_ids, ETIMEDOUT, what, "it has not ended after 30 seconds"};
    }
    reap_if_ours(tool.pidfd.get());

    if (!text_of("/proc/" + std::to_string(pid) + "/" + file).empty()) return;
    std::array<char, 1024> buffer{};
    const ssize_t n = sys::retry([&] { return ::read(said.get(), buffer.data(), buffer.size()); });
    std::string_view message{buffer.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
    message = message.substr(0, message.find('\n'));
    if (message.empty()) throw Error{Step::map_ids, 0, what + ": it has written none, and said nothing"};
    throw Error{Step::map_ids, 0, what + ": it says " + quote(message),
                has_no_new_privileges() ? "this process has set no_new_privs, with which that program gains no rights"
                                        : "see subuid(5) and subgid(5) for the ids that are the caller's"};
}

/// What an ordinary user's overlay marks directories with.
bool memory_has_attributes() {
    const Fd file{::memfd_create("attributes", MFD_CLOEXEC)};
    return file && ::fsetxattr(file.get(), "user.overlay.opaque", "y", 1, 0) == 0;
}

}  // namespace

bool is_set_id_program() noexcept {
    return ::getauxval(AT_SECURE) != 0 && (::getuid() != ::geteuid() || ::getgid() != ::getegid());
}

void refuse_set_id_program() {
    if (!is_set_id_program()) return;
    throw Error{Step::credentials, EPERM, "the program's ids",
                "it is setuid or setgid and still its caller's: set the real ids to the effective ones first, or "
                "start containers from another program"};
}

bool is_ordinary_user() noexcept {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    return ::syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_SYS_ADMIN & 1) == 0;
}

void check_for_ordinary_user(const ContainerSpec& spec) {
    if (!spec.has_user_namespace()) {
        refuse("namespaces: without a user namespace it takes root to start a container",
               "add NamespaceKind::user, or run as root");
    }
    if (!spec.networks.empty()) {
        refuse("networks[0].bridge: " + quote(spec.networks.front().bridge) + ": it takes root to use a bridge",
               "leave networks out: its network then has lo alone; or run as root");
    }
    if (!spec.devices.empty()) {
        refuse("devices[0].source: " + quote(spec.devices.front().source) + ": it takes root to make a device node",
               "bind the host's node with mounts, no_dev off");
    }
    if (!spec.device_rules.empty()) {
        refuse("device_rules[0]: it takes root to allow a device",
               "leave it out: what the caller may open outside, the container may");
    }
    if (spec.id_mapped_mounts) {
        refuse("id_mapped_mounts: it takes root to map the ids of a mount",
               "leave it out, and let the files be the caller's or in his range");
    }
    const bool in_memory = spec.root_overlay && spec.root_overlay->upper.empty() && !spec.root_read_only;
    if (in_memory && !memory_has_attributes()) {
        refuse(
            "root_overlay.upper: it is empty, and this kernel keeps in memory no changes that an ordinary user's "
            "container makes to directories",
            "name directories of the caller's as upper and work, or use Linux 6.6 with CONFIG_TMPFS_XATTR");
    }
    for (std::size_t i = 0; i < spec.mounts.size(); ++i) {
        if (spec.mounts[i].type != MountSpec::Type::image) continue;
        refuse("mounts[" + std::to_string(i) + "].source: " + quote(spec.mounts[i].source) +
                   ": it takes root to mount an image",
               "unpack it into a directory and bind that");
    }
}

std::vector<IdMap> subordinate_ids(const std::string& text, const std::string& name, uid_t id) {
    std::vector<IdMap> found;
    for (std::string_view rest = text; !rest.empty();) {
        std::string_view line = take_field(rest, '\n');
        const std::string_view owner = take_field(line, ':');
        const auto first = parse_decimal(take_field(line, ':'), UINT32_MAX - 1);
        const auto count = parse_decimal(take_field(line, ':'), UINT32_MAX);
        const bool is_his = (!name.empty() && owner == name) || parse_decimal(owner, UINT32_MAX) == std::uint64_t{id};
        if (!is_his || !first || !count || *count == 0 || *count > UINT32_MAX - *first) continue;
        // Given by name and by number, say: the kernel takes no id twice.
        const bool is_known = std::any_of(found.begin(), found.end(), [&](const IdMap& m) {
            return *first<std::uint64_t{m.outside} + m.count&& * first + *count> m.outside;
        });
        if (is_known) continue;
        found.push_back({0, static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(*count)});
    }
    return found;
}

CallersRange range_of_caller(const std::string& tools) {
    CallersRange range;
    const std::string name = own_name();
    range.uids = subordinate_ids(text_of("/etc/subuid"), name, ::getuid());
    range.gids = subordinate_ids(text_of("/etc/subgid"), name, ::getuid());
    const auto miss = [&](std::string what, const char* remedy) {
        range.missing = std::move(what);
        range.remedy = remedy;
        return range;
    };
    for (const auto& [ids, file] : {std::pair{&range.uids, "/etc/subuid"}, std::pair{&range.gids, "/etc/subgid"}}) {
        if (ids->empty())
            return miss(quote(file) + " has no range for the caller", "usermod --add-subuids, --add-subgids");
    }
    for (const char* program : {"newuidmap", "newgidmap"}) {
        const std::string path = tool_path(tools, program);
        if (::access(path.c_str(), X_OK) != 0) return miss(quote(path) + " cannot be executed", "install uidmap");
    }
    if (has_no_new_privileges()) {
        return miss("this process has set no_new_privs, with which newuidmap(1) gains no rights", "start without it");
    }
    return range;
}

CallersIds ids_of_caller(const ContainerSpec& spec) {
    const std::uint32_t uid = ::geteuid();
    const std::uint32_t gid = ::getegid();
    CallersIds ids{spec.uid_map, spec.gid_map};
    if (spec.wants_automatic_map()) {
        ids = {{{0, uid, 1}}, {{0, gid, 1}}};
        const CallersRange range = range_of_caller(spec.id_map_tools);
        if (range.missing.empty()) ids = {with_own(uid, range.uids), with_own(gid, range.gids)};
    }
    ids.by_tools = !is_own_alone(ids.uid_map, uid) || !is_own_alone(ids.gid_map, gid);
    // newgidmap(1) does so, too, unless /etc/subgid gives the caller a group.
    ids.deny_setgroups = is_own_alone(ids.gid_map, gid);
    return ids;
}

void require_ids(const CallersIds& ids, std::uint32_t uid, std::uint32_t gid,
                 const std::vector<std::uint32_t>& groups) {
    const auto require = [&](const std::vector<IdMap>& map, const char* field, std::uint32_t id) {
        for (const IdMap& m : map) {
            if (id >= m.inside && id - m.inside < m.count) return;
        }
        refuse(std::string{field} + ": " + std::to_string(id) + " is not among the ids that the caller can map",
               "give the caller a range in /etc/subuid and /etc/subgid, and install newuidmap(1) and newgidmap(1)");
    };
    require(ids.uid_map, "uid", uid);
    require(ids.gid_map, "gid", gid);
    for (const std::uint32_t group : groups) require(ids.gid_map, "groups", group);
    if (ids.deny_setgroups && !groups.empty()) {
        refuse("groups: the kernel denies setgroups(2) where no group but the caller's own is mapped",
               "give the caller a range in /etc/subgid");
    }
}

void write_id_maps(pid_t pid, const CallersIds& ids, const std::string& tools) {
    map_by_tool(pid, ids.uid_map, tool_path(tools, "newuidmap"), "uid_map");
    map_by_tool(pid, ids.gid_map, tool_path(tools, "newgidmap"), "gid_map");
}

}  // namespace caisson::inline v0::detail
