#include <caisson/xml.hpp>

#include <algorithm>
#include <cstdint>

#include <caisson/detail/id_range.hpp>

#include "xml_document.hpp"
#include "xml_read.hpp"
#include "xml_schema.hpp"
#include "xml_words.hpp"
#include "xml_write.hpp"

namespace caisson::inline v0::xml {
namespace {

/// Of a console, before its log is begun anew: else a container could fill the disk of its host.
constexpr std::uint64_t most_logged = 2 << 20;

/// Domain values that no maker of documents can have meant. Nothing else needs a look here: the reading does it.
[[noreturn]] void refuse(const Domain& domain, std::string_view why) {
    throw Error{Step::check_spec, 0,
                "write the domain " + caisson::detail::quote(domain.name) + " as XML: " + std::string{why}};
}

EndAction end_action(Action action) {
    switch (action) {
        case Action::destroy:
        case Action::coredump_destroy: break;
        case Action::restart:
        case Action::rename_restart:
        case Action::coredump_restart: return EndAction::restart;
        case Action::preserve: return EndAction::preserve;
    }
    return EndAction::destroy;
}

/// libvirt's name for a part of a partition's path: none that a file of the kernel's could have.
std::string group_name(std::string_view part, bool first) {
    constexpr std::string_view fixed[] = {"machine", "system", "user"};
    constexpr std::string_view kernels[] = {"cgroup",  "cpuset",  "cpu",     "cpuacct",    "blkio",
                                            "memory",  "devices", "freezer", "perf_event", "net_prio",
                                            "net_cls", "hugetlb", "pids",    "rdma",       "misc"};
    std::string name{part};
    if (first && std::ranges::find(fixed, part) != std::ranges::end(fixed)) return name;
    if (part.find('.') == std::string_view::npos) name += ".partition";
    const bool taken = name.front() == '_' || name.front() == '.' ||
                       std::ranges::find(kernels, part.substr(0, part.find('.'))) != std::ranges::end(kernels);
    return taken ? "_" + name : name;
}

/// The control group that a partition is; empty: where caisson chooses.
std::string group_of(std::string_view partition) {
    if (partition.empty() || partition == "/machine") return {};
    std::string path;
    for (std::size_t at = 0; at < partition.size();) {
        const std::size_t end = std::min(partition.find('/', at + 1), partition.size());
        path += "/" + group_name(partition.substr(at + 1, end - at - 1), at == 0);
        at = end;
    }
    return path;
}

}  // namespace

Domain load(const std::string& path) {
    return parse(gate::read(path), path);
}

Domain parse(std::string_view text, std::string_view source) {
    const gate::Document document{text, source};
    schema::check(document.root());
    return reading::domain(document.root());
}

std::string dump(const Domain& domain, const std::optional<Live>& live) {
    std::string text;
    std::optional<Domain> read;
    try {
        text = writing::document(domain, live);
        read = parse(text, "<dump>");
    } catch (const XmlError& e) {
        refuse(domain, e.what());
    }
    if (*read != domain) refuse(domain, "it would be read back as another one");
    return text;
}

ContainerSpec to_spec(const Domain& domain) {
    ContainerSpec spec;
    spec.name = domain.name;
    spec.uuid = domain.uuid.str();
    spec.command.push_back(domain.init);
    spec.command.insert(spec.command.end(), domain.init_arguments.begin(), domain.init_arguments.end());
    spec.environment = {{"PATH", "/bin:/sbin"},           {"TERM", "linux"},
                        {"container", "lxc-libvirt"},     {"HOME", "/"},
                        {"container_uuid", spec.uuid},    {"LIBVIRT_LXC_UUID", spec.uuid},
                        {"LIBVIRT_LXC_NAME", domain.name}};
    for (const auto& variable : domain.init_environment) {
        std::erase_if(spec.environment, [&](const auto& given) { return given.first == variable.first; });
        spec.environment.push_back(variable);
    }
    // The number is meant also where the root has a user of that name.
    const auto owner = [](const std::string& text) { return text.starts_with('+') ? text.substr(1) : text; };
    spec.user = owner(domain.init_user);
    spec.group = owner(domain.init_group);
    if (domain.arch != Domain::host_arch()) spec.personality = Personality::linux32;
    if (domain.security_label) {
        spec.security_label =
            std::string{words::name(domain.security_label->model)} + ":" + domain.security_label->label;
    }
    if (!domain.init_directory.empty()) spec.working_directory = domain.init_directory;

    spec.namespaces =
        NamespaceKind::mount | NamespaceKind::pid | NamespaceKind::uts | NamespaceKind::ipc | NamespaceKind::cgroup;
    if (domain.private_network || !domain.interfaces.empty())
        spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
    if (!domain.uid_map.empty()) spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::user};
    spec.uid_map = domain.uid_map;
    spec.gid_map = domain.gid_map;

    // libvirt shows the whole host's; in a cgroup namespace they are the container's own.
    spec.cgroup_mount = CgroupMount::read_write;
    spec.root = "/";
    for (const Filesystem& fs : domain.filesystems) {
        if (fs.target == "/") {
            spec.root = fs.source;
            spec.root_read_only = fs.read_only;
        } else {
            spec.mounts.push_back(to_spec(fs));
        }
    }
    spec.id_mapped_mounts = spec.root != "/" && has_free_id_map(domain);
    for (const Interface& interface : domain.interfaces) spec.networks.push_back(to_spec(interface));
    for (const HostDevice& device : domain.host_devices) spec.devices.push_back(to_spec(device));
    for (const Disk& disk : domain.disks) spec.devices.push_back(to_spec(disk));
    // libvirt lets every container use fuse, of which it makes no node.
    spec.device_rules.push_back({DeviceRule::Type::character, 10, 229, {.read = true, .write = true, .make = true}});
    // And one whose document names the capability make every node; to use it is another matter. In a user namespace the
    // kernel lets nobody.
    if (domain.uid_map.empty() && domain.capabilities_on.has(*CapabilitySet::number("mknod"))) {
        for (const auto type : {DeviceRule::Type::character, DeviceRule::Type::block}) {
            spec.device_rules.push_back({type, {}, {}, {.read = false, .write = false, .make = true}});
        }
    }
    for (std::size_t i = 0; i < domain.consoles.size(); ++i) {
        ConsoleSpec console;
        console.log = domain.consoles[i].log;
        console.log_append = domain.consoles[i].log_append;
        if (!console.log.empty()) console.log_limit = most_logged;
        if (i == 0) spec.console = console;
        else spec.more_consoles.push_back(console);
    }
    spec.limits = domain.limits;
    if (!spec.limits.memory) spec.limits.memory = domain.memory_kib * 1024;
    spec.cgroup_parent = group_of(domain.partition);
    spec.on_poweroff = end_action(domain.on_poweroff);
    spec.on_reboot = end_action(domain.on_reboot);
    spec.on_crash = end_action(domain.on_crash);

    const std::uint64_t kept = domain.capability_policy == CapabilityPolicy::standard ? CapabilitySet::libvirt().bits()
                               : domain.capability_policy == CapabilityPolicy::allow  ? CapabilitySet::all().bits()
                                                                                      : 0;
    spec.capabilities = CapabilitySet{(kept | domain.capabilities_on.bits()) & ~domain.capabilities_off.bits()};
    spec.no_new_privileges = false;
    // libvirt filters nothing: what an init needs stays, and programs of both word sizes run.
    spec.seccomp.profile = SeccompProfile::system;
    spec.seccomp.compat = true;
    // libvirt has no word for this capability and so leaves it, with which root outside could take the program off that
    // holds the rules for devices.
    if (domain.uid_map.empty()) spec.seccomp.rules = {{.call = "bpf"}};
    return spec;
}

bool has_free_id_map(const Domain& domain) {
    return caisson::detail::IdRange::is_written(domain.uid_map) && domain.uid_map == domain.gid_map;
}

std::optional<IdMap> free_id_map(const std::vector<Domain>& others) {
    std::vector<IdMap> taken;
    for (const Domain& domain : others) {
        taken.insert(taken.end(), domain.uid_map.begin(), domain.uid_map.end());
        taken.insert(taken.end(), domain.gid_map.begin(), domain.gid_map.end());
    }
    const auto begin = caisson::detail::IdRange::find_unwritten(taken);
    if (!begin) return std::nullopt;
    return IdMap{0, *begin, caisson::detail::IdRange::size};
}

}  // namespace caisson::inline v0::xml
