// src/security_words.cpp - what a security report means, in sentences.
#include <caisson/security_report.hpp>

#include <algorithm>
#include <string_view>
#include <utility>

#include <fnmatch.h>

#include <caisson/detail/cgroup_hierarchy.hpp>

namespace caisson::inline v0 {
namespace {

using Sentences = std::vector<std::string>;

constexpr std::size_t columns = 100;
constexpr std::size_t key_width = 16;

/// Below it are the ids of the host's own users and services; what is handed out to containers is above.
constexpr std::uint32_t first_foreign_id = 65536;

std::string joined(const Sentences& words, std::string_view between = ", ") {
    std::string text;
    for (const std::string& word : words) text.append(text.empty() ? "" : between).append(word);
    return text;
}
/// What the container chose, as a terminal may show it.
std::string printable(std::string_view text) {
    const std::string quoted = detail::quote(text);
    return quoted.substr(1, quoted.size() - 2);
}

Sentences names(CapabilitySet set) {
    Sentences all;
    for (unsigned i = 0; i < 64; ++i) {
        if (!set.has(i)) continue;
        // A kernel newer than the list has more.
        all.push_back(i < capability_names.size() ? std::string{capability_names[i]} : std::to_string(i));
    }
    return all;
}
std::string text_of(CapabilitySet set) {
    const CapabilitySet missing{CapabilitySet::all().bits() & ~set.bits()};
    if (set == CapabilitySet{}) return "none";
    if (missing == CapabilitySet{}) return "all";
    const Sentences has = names(set);
    const Sentences lacks = names(missing);
    return has.size() > 2 * lacks.size() ? "all but " + joined(lacks) : joined(has);
}

const char* shared(NamespaceKind kind) {
    switch (kind) {
        case NamespaceKind::user: return "no user namespace: root inside is root outside";
        case NamespaceKind::mount: return "no mount namespace: what it mounts, the host has mounted";
        case NamespaceKind::pid: return "no pid namespace: it sees the host's processes";
        case NamespaceKind::uts: return "no uts namespace: the host name is the host's own";
        case NamespaceKind::ipc: return "no ipc namespace: it shares System V objects and message queues with the host";
        case NamespaceKind::cgroup: return "no cgroup namespace: it sees the names of the host's control groups";
        case NamespaceKind::net: return "no network namespace: addresses, ports and abstract sockets are the host's";
        case NamespaceKind::time: return "no time namespace: the clocks are the host's";
    }
    return "";
}
std::string range(std::uint32_t first, std::uint32_t count) {
    const std::string text = std::to_string(first);
    return count == 1 ? text : text + "-" + std::to_string(std::uint64_t{first} + count - 1);
}
/// Those of a map that belong to the host's own users.
void find_host_ids(const std::vector<IdMap>& map, const char* what, Sentences& out) {
    for (const IdMap& extent : map) {
        if (extent.outside >= first_foreign_id || extent.count == 0) continue;
        const std::uint32_t count = std::min(extent.count, first_foreign_id - extent.outside);
        out.push_back(std::string{what} + " " + range(extent.inside, count) + " inside " +
                      (count == 1 ? "is " : "are ") + range(extent.outside, count) +
                      (extent.outside == 0 ? " outside: root, and others of the host's own"
                                           : " outside: of the host's own users"));
    }
}
std::string inside(std::uint32_t id, const std::vector<IdMap>& map) {
    for (const IdMap& extent : map) {
        if (id < extent.outside || id - extent.outside >= extent.count) continue;
        const std::uint32_t seen = extent.inside + (id - extent.outside);
        return seen == id ? std::to_string(id) : std::to_string(seen) + " (" + std::to_string(id) + " outside)";
    }
    return std::to_string(id) + " outside, no id inside";
}
bool is_root_inside(const SecurityReport& r) {
    const auto first = std::find_if(r.uid_map.begin(), r.uid_map.end(), [](const IdMap& m) { return m.inside == 0; });
    return first != r.uid_map.end() && first->outside == r.uid;
}

/// The numbers of devices.list that every container may use: null zero full random urandom tty ptmx pts.
bool is_usual(std::string_view rule) {
    constexpr std::string_view usual[] = {"c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:2", "c 136:*"};
    const std::size_t access = rule.rfind(' ');
    if (access == std::string_view::npos) return false;
    // A node alone, without the right to open it, is of no use.
    return rule.substr(access + 1) == "m" ||
           std::find(std::begin(usual), std::end(usual), rule.substr(0, access)) != std::end(usual);
}
bool are_devices_limited(const SecurityReport& r) {
    if (r.device_programs.value_or(0) > 0) return true;
    return r.device_rules && std::none_of(r.device_rules->begin(), r.device_rules->end(),
                                          [](const std::string& rule) { return rule.starts_with("a "); });
}
const ResourceLimit* find(const SecurityReport& r, ResourceLimit::Kind kind) {
    for (const ResourceLimit& limit : r.resource_limits) {
        if (limit.kind == kind) return &limit;
    }
    return nullptr;
}
std::string text_of(std::uint64_t limit) {
    return limit == ResourceLimit::unlimited ? "unlimited" : std::to_string(limit);
}

/// Lines of "key: words", broken between words.
class Page {
public:
    void row(std::string_view key, std::string_view words) {
        std::string line{key};
        if (!key.empty()) line += ":";
        line.resize(std::max(line.size() + 1, key_width), ' ');
        fill(std::move(line), words, key_width);
    }
    void heading(std::string_view text) { text_.append("\n").append(text).append(":\n"); }
    void item(std::string_view words) { fill("  - ", words, 4); }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    void fill(std::string line, std::string_view words, std::size_t indent) {
        bool first = true;
        while (!words.empty()) {
            const std::string_view word = detail::take_field(words, ' ');
            if (!first && line.size() + 1 + word.size() > columns) {
                text_ += line + '\n';
                line.assign(indent, ' ');
                first = true;
            }
            if (!first) line += ' ';
            line += word;
            first = false;
        }
        text_ += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    }
    std::string text_;
};

std::string or_none(const Sentences& list) {
    Sentences shown;
    for (const std::string& text : list) shown.push_back(printable(text));
    return shown.empty() ? "none" : joined(shown);
}
std::string with_root(bool is_root_one, Sentences list) {
    if (is_root_one) list.insert(list.begin(), "/");
    return or_none(list);
}
std::string text_of(const std::vector<IdMap>& map, bool is_own) {
    if (!is_own) return "the host's";
    Sentences parts;
    for (const IdMap& m : map) {
        parts.push_back(range(m.inside, m.count) + (m.count == 1 ? " is " : " are ") + range(m.outside, m.count) +
                        " outside");
    }
    return or_none(parts);
}
std::string text_of_filter(const SecurityReport& r) {
    switch (r.seccomp) {
        case SecurityReport::Seccomp::none: return "no filter";
        case SecurityReport::Seccomp::strict: return "strict: read, write and exit alone";
        case SecurityReport::Seccomp::filter: break;
    }
    return "filters of its own: " + std::to_string(r.seccomp_filters);
}
std::string text_of_devices(const SecurityReport& r) {
    std::string text = r.device_rules ? or_none(*r.device_rules) : "";
    if (r.device_programs.value_or(0) > 0) {
        text.append(text.empty() ? "" : "; ").append("a program of its control group decides");
    }
    return text.empty() ? "no rules" : text;
}

}  // namespace

std::vector<std::string> SecurityReport::weaker() const {
    const ContainerSpec usual;
    Sentences out;
    for (const NamespaceKind kind : all_namespace_kinds) {
        if (usual.namespaces.has(kind) && !namespaces.has(kind)) out.emplace_back(shared(kind));
    }
    if (namespaces.has(NamespaceKind::user)) {
        find_host_ids(uid_map, "user", out);
        find_host_ids(gid_map, "group", out);
    }
    const CapabilitySet reachable = reachable_capabilities();
    const CapabilitySet more{reachable.bits() & ~usual.capabilities.bounding.bits()};
    if (more != CapabilitySet{}) out.push_back("more capabilities can be had: " + joined(names(more)));
    if (!masks_hold()) {
        out.emplace_back(seccomp == Seccomp::none
                             ? "capability sys_admin can be had: masks and read-only paths can be undone"
                             : "capability sys_admin can be had: masks and read-only paths can be undone, unless the "
                               "filter refuses mount and umount2");
    }
    if (!no_new_privileges) out.emplace_back("new privileges can be had: set-user-ID programs and file capabilities");
    if (seccomp == Seccomp::none) out.emplace_back("no filter of system calls");
    if (seccomp == Seccomp::filter && seccomp_filters == 0) {
        out.emplace_back("no filter of system calls but the host's own");
    }
    if (!open_paths.empty()) out.push_back("not masked: " + joined(open_paths));
    if (!writable_paths.empty()) out.push_back("not read-only: " + joined(writable_paths));
    if (host_root) out.emplace_back("its root is the host's root");
    if (!host_paths.empty()) out.push_back("files of the host are seen: " + or_none(host_paths));
    if (host_devices) out.emplace_back("/dev is the host's, with a node of every device");
    if (cgroup_mount == CgroupMount::read_only) out.emplace_back("it sees its control groups");
    if (cgroup_mount == CgroupMount::read_write) out.emplace_back("it sees its control groups and may write to them");
    if (!are_devices_limited(*this)) out.emplace_back("no rules for devices: of what it has a node, that it may use");
    if (device_rules && are_devices_limited(*this)) {
        Sentences extra;
        for (const std::string& rule : *device_rules) {
            if (!is_usual(rule)) extra.push_back(rule);
        }
        if (!extra.empty()) out.push_back("more devices may be used: " + joined(extra));
    }
    if (const auto* core = find(*this, ResourceLimit::Kind::core); core != nullptr && core->hard > 0) {
        out.emplace_back("a program that crashes may write a core file");
    }
    if (const auto* files = find(*this, ResourceLimit::Kind::nofile); files != nullptr && files->hard > 524288) {
        out.push_back("a process may have " + text_of(files->hard) + " descriptors, not 524288");
    }
    if (oom_score_adj < 0) {
        out.push_back("oom_score_adj is " + std::to_string(oom_score_adj) +
                      ": where memory is short, the host's programs are killed before it");
    }
    return out;
}

std::vector<std::string> SecurityReport::stricter() const {
    const ContainerSpec usual;
    Sentences out;
    if (namespaces.has(NamespaceKind::time)) out.emplace_back("a time namespace of its own");
    if (!is_root_inside(*this)) out.push_back("its first process is not root, but user " + inside(uid, uid_map));
    const CapabilitySet missing{usual.capabilities.bounding.bits() & ~reachable_capabilities().bits()};
    if (missing != CapabilitySet{}) out.push_back("fewer capabilities: not " + joined(names(missing)));
    if (seccomp == Seccomp::strict) out.emplace_back("read, write and exit are the only system calls");
    const auto beyond = [](const Sentences& list, const Sentences& defaults) {
        Sentences more;
        for (const std::string& path : list) {
            const bool is_default = std::any_of(defaults.begin(), defaults.end(), [&](const std::string& pattern) {
                return ::fnmatch(pattern.c_str(), path.c_str(), FNM_PATHNAME) == 0;
            });
            if (!is_default) more.push_back(printable(path));
        }
        return more;
    };
    auto read_only = ContainerSpec::default_read_only_paths();
    read_only.emplace_back("/sys");
    if (const auto more = beyond(masked_paths, ContainerSpec::default_masked_paths()); !more.empty()) {
        out.push_back("also masked: " + joined(more));
    }
    if (root_read_only) out.emplace_back("its root cannot be written to");
    if (const auto more = beyond(read_only_paths, read_only); !more.empty()) {
        out.push_back("also read-only: " + joined(more));
    }
    if (memory_limit) out.push_back("at most " + std::to_string(*memory_limit) + " bytes of memory");
    if (pids_limit) out.push_back("at most " + std::to_string(*pids_limit) + " processes and threads");
    if (oom_score_adj > 0) {
        out.push_back("oom_score_adj is " + std::to_string(oom_score_adj) + ": it is killed before others");
    }
    // "kernel": SELinux without a policy. A profile of AppArmor's in another mode forbids nothing.
    if (!security_label.empty() && !security_label.starts_with("unconfined") && security_label != "kernel" &&
        !security_label.ends_with(" (complain)") && !security_label.ends_with(" (unconfined)")) {
        out.push_back("held by a policy, as " + printable(security_label));
    }
    return out;
}

std::vector<std::string> SecurityReport::left_open() const {
    Sentences out;
    if (!memory_limit) out.emplace_back("no memory limit: it may take all that the host has");
    if (!pids_limit) out.emplace_back("no limit on processes: it may take all the pids that the host has");
    return out;
}

std::string SecurityReport::str() const {
    Page page;
    page.row("Process", std::to_string(pid) + ", user " + inside(uid, uid_map) + ", group " + inside(gid, gid_map));
    Sentences shown_groups;
    for (const std::uint32_t id : groups) shown_groups.push_back(inside(id, gid_map));
    page.row("Groups", or_none(shown_groups));
    Sentences its_own;
    Sentences the_hosts;
    for (const NamespaceKind kind : all_namespace_kinds) {
        (namespaces.has(kind) ? its_own : the_hosts).emplace_back(to_string(kind));
    }
    page.row("Namespaces", or_none(its_own) + "; of the host: " + or_none(the_hosts));
    const bool own_users = namespaces.has(NamespaceKind::user);
    page.row("User ids", text_of(uid_map, own_users));
    page.row("Group ids", text_of(gid_map, own_users));
    page.row("Capabilities", "");
    const auto set = [&](const char* name, CapabilitySet value) {
        const bool same = value == capabilities.bounding && value != CapabilitySet{};
        page.row(name, same ? "as bounding" : text_of(value));
    };
    page.row("  bounding", text_of(capabilities.bounding));
    set("  permitted", capabilities.permitted);
    set("  effective", capabilities.effective);
    set("  inheritable", capabilities.inheritable);
    set("  ambient", capabilities.ambient);
    page.row("New privileges", no_new_privileges ? "refused" : "possible");
    page.row("System calls", text_of_filter(*this));
    page.row("Masked", or_none(masked_paths));
    page.row("Read-only", with_root(root_read_only, read_only_paths));
    page.row("Of the host", with_root(host_root, host_paths));
    page.row("Masks hold", masks_hold() ? "yes" : "only if the filter refuses mount and umount2");
    page.row("Control groups", cgroup_mount == CgroupMount::none        ? "not seen"
                               : cgroup_mount == CgroupMount::read_only ? "seen"
                                                                        : "seen, to write to");
    page.row("Devices", text_of_devices(*this));
    page.row("Memory", memory_limit ? "at most " + std::to_string(*memory_limit) + " bytes" : "no limit");
    page.row("Processes", pids_limit ? "at most " + std::to_string(*pids_limit) : "no limit");
    Sentences limits;
    for (const ResourceLimit& limit : resource_limits) {
        if (limit.soft == ResourceLimit::unlimited && limit.hard == ResourceLimit::unlimited) continue;
        limits.push_back(std::string{ResourceLimit::name(limit.kind)} + " " + text_of(limit.soft) +
                         (limit.soft == limit.hard ? "" : ":" + text_of(limit.hard)));
    }
    page.row("Each process", or_none(limits));
    page.row("oom_score_adj", std::to_string(oom_score_adj));
    page.row("Label", security_label.empty() ? "none" : printable(security_label));
    const auto list = [&](std::string_view heading, const Sentences& sentences) {
        if (sentences.empty()) return;
        page.heading(heading);
        for (const std::string& sentence : sentences) page.item(sentence);
    };
    list("Weaker than the default", weaker());
    list("Stricter than the default", stricter());
    list("Open, as in the default", left_open());
    return page.take();
}

}  // namespace caisson::inline v0
