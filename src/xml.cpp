#include <caisson/xml.hpp>

#include <algorithm>

#include <sys/stat.h>

#include <tinyxml2.h>

#include <caisson/detail/id_range.hpp>
#include <caisson/detail/sys.hpp>

#include "xml_gate.hpp"
#include "xml_read.hpp"
#include "xml_schema.hpp"
#include "xml_words.hpp"
#include "xml_write.hpp"

namespace caisson::inline v0::xml {
namespace {

/// A file's name as it may stand at the front of a message.
std::string printable(std::string_view source) {
    const std::string quoted = caisson::detail::quote(source);
    return quoted.substr(1, quoted.size() - 2);
}

/// Domain values that no maker of documents can have meant. Nothing else needs a look here: the reading does it.
[[noreturn]] void refuse(const Domain& domain, std::string_view why) {
    throw Error{Step::check_spec, 0,
                "write the domain " + caisson::detail::quote(domain.name) + " as XML: " + std::string{why}};
}

MountSpec mount_of(const Filesystem& fs) {
    const MountOptions options{.read_only = fs.read_only,
                               .no_suid = false,
                               .no_dev = false,
                               .no_exec = false,
                               .recursive = false,
                               .follow_links = true};
    switch (fs.type) {
        case Filesystem::Type::mount: break;
        case Filesystem::Type::bind: return MountSpec::bind_inside(fs.source, fs.target, options);
        case Filesystem::Type::ram:
            return MountSpec::tmpfs(fs.target, fs.usage_kib * 1024, {.read_only = fs.read_only});
        case Filesystem::Type::block:
        case Filesystem::Type::file: return MountSpec::image(fs.source, fs.target, options);
    }
    return MountSpec::bind(fs.source, fs.target, options);
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
    const std::string what = "read " + caisson::detail::quote(path);
    // Not to wait for the other end of a FIFO: what is not a regular file is refused after the open, not before it.
    const Fd file = caisson::detail::sys::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file) caisson::detail::fail(Step::read_xml, what);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) caisson::detail::fail(Step::read_xml, what);
    if (!S_ISREG(status.st_mode)) throw Error{Step::read_xml, 0, what + ": not a regular file"};
    std::string text;
    char buffer[8192];
    while (text.size() <= gate::max_bytes) {
        const ssize_t n = caisson::detail::sys::retry([&] { return ::read(file.get(), buffer, sizeof buffer); });
        if (n < 0) caisson::detail::fail(Step::read_xml, what);
        if (n == 0) break;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    return parse(text, path);
}

Domain parse(std::string_view text, std::string_view source) {
    const std::string shown = printable(source);
    gate::check(text, shown);
    tinyxml2::XMLDocument document;
    if (document.Parse(text.data(), text.size()) != tinyxml2::XML_SUCCESS) {
        // Not reached as far as is known: the gate lets pass only well-formed XML.
        throw XmlError{shown, std::max(1, document.ErrorLineNum()), document.ErrorName()};
    }
    const Element root{document.RootElement(), shown};
    schema::check(root);
    return reading::domain(root);
}

std::string dump(const Domain& domain, const std::optional<Live>& live) {
    std::string text = writing::document(domain, live);
    std::optional<Domain> read;
    try {
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
            spec.mounts.push_back(mount_of(fs));
        }
    }
    spec.id_mapped_mounts = spec.root != "/" && has_free_id_map(domain);
    for (const Interface& interface : domain.interfaces) {
        spec.networks.push_back(interface.network);
        // libvirt's metric where the document has none; the kernel's differs between IPv4 and IPv6.
        for (RouteSpec& route : spec.networks.back().routes) route.metric = std::max(route.metric, 1u);
    }
    for (const HostDevice& host : domain.host_devices) {
        const std::size_t slash = host.source.find('/', 1);
        const bool storage = host.type == HostDevice::Type::storage;
        spec.devices.push_back({.source = host.source,
                                .target = host.source.substr(slash == std::string::npos ? 1 : slash + 1),
                                .type = storage ? DeviceSpec::Type::block : DeviceSpec::Type::character,
                                .access = {.read = true, .write = true, .make = true},
                                .mode = 0700});
    }
    // libvirt lets every container use fuse, of which it makes no node.
    spec.device_rules.push_back({DeviceRule::Type::character, 10, 229, {.read = true, .write = true, .make = true}});
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
