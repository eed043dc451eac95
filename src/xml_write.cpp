#include "xml_write.hpp"

#include <algorithm>
#include <initializer_list>

#include <range/v3/action/sort.hpp>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/iota.hpp>
#include <range/v3/view/transform.hpp>

#include "xml_metadata.hpp"
#include "xml_words.hpp"

namespace caisson::inline v0::xml::writing {
namespace {

/// An attribute's value with its quotes: those that need less escaping, so that a tag never becomes longer than that
/// which it was read from.
std::string quoted(std::string_view value) {
    const bool single = std::count(value.begin(), value.end(), '\'') <= std::count(value.begin(), value.end(), '"');
    const char quote = single ? '\'' : '"';
    std::string out{quote};
    for (const char c : value) {
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '\t': out += "&#x9;"; break;
            case '\n': out += "&#xA;"; break;
            case '\r': out += "&#xD;"; break;
            default:
                if (c == quote) {
                    out += single ? "&apos;" : "&quot;";
                } else {
                    out += c;
                }
        }
    }
    return out += quote;
}

struct Attribute {
    std::string_view name;
    std::string value;
};

class Writer {
public:
    void open(std::string_view name, std::initializer_list<Attribute> attributes = {}) {
        start(name, attributes);
        text_ += ">\n";
        ++depth_;
    }
    void close(std::string_view name) {
        --depth_;
        indent();
        text_.append("</").append(name).append(">\n");
    }
    void empty(std::string_view name, std::initializer_list<Attribute> attributes = {}) {
        start(name, attributes);
        text_ += "/>\n";
    }
    void leaf(std::string_view name, std::string_view text, std::initializer_list<Attribute> attributes = {}) {
        start(name, attributes);
        text_.append(">").append(escaped_text(text)).append("</").append(name).append(">\n");
    }
    void metadata(const Metadata& kept) {
        indent();
        text_.append(metadata::print(kept, depth_)).append("\n");
    }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    void indent() { text_.append(2 * depth_, ' '); }
    void start(std::string_view name, std::initializer_list<Attribute> attributes) {
        indent();
        text_.append("<").append(name);
        for (const Attribute& a : attributes) {
            // An attribute without a value is one that is not there.
            if (!a.value.empty()) text_.append(" ").append(a.name).append("=").append(quoted(a.value));
        }
    }

    std::string text_{};
    std::size_t depth_ = 0;
};

/// Rounded up: what is no whole number of KiB is then seen to be read back as another one.
std::string kib(std::uint64_t bytes) {
    return std::to_string(bytes / 1024 + (bytes % 1024 != 0 ? 1 : 0));
}

void write_block(Writer& out, const LimitSpec& limits) {
    if (!limits.block_weight && limits.block.empty()) return;
    const auto number = [&](std::string_view name, const auto& value) {
        if (value) out.leaf(name, std::to_string(*value));
    };
    out.open("blkiotune");
    number("weight", limits.block_weight);
    for (const BlockLimit& device : limits.block) {
        out.open("device");
        out.leaf("path", device.device);
        number("weight", device.weight);
        number("read_iops_sec", device.read_operations);
        number("write_iops_sec", device.write_operations);
        number("read_bytes_sec", device.read_bytes);
        number("write_bytes_sec", device.write_bytes);
        out.close("device");
    }
    out.close("blkiotune");
}

void write_memory(Writer& out, const LimitSpec& limits) {
    if (!limits.memory && !limits.memory_soft && !limits.memory_and_swap) return;
    const auto limit = [&](std::string_view name, const std::optional<std::uint64_t>& bytes) {
        if (bytes) out.leaf(name, kib(*bytes), {{"unit", "KiB"}});
    };
    out.open("memtune");
    limit("hard_limit", limits.memory);
    limit("soft_limit", limits.memory_soft);
    limit("swap_hard_limit", limits.memory_and_swap);
    out.close("memtune");
}

void write_cpu(Writer& out, const LimitSpec& limits) {
    if (!limits.cpu_shares && !limits.cpu_period && !limits.cpu_quota) return;
    out.open("cputune");
    if (limits.cpu_shares) out.leaf("shares", std::to_string(*limits.cpu_shares));
    if (limits.cpu_period) out.leaf("period", std::to_string(*limits.cpu_period));
    if (limits.cpu_quota) {
        out.leaf("quota", *limits.cpu_quota == LimitSpec::unlimited ? "-1" : std::to_string(*limits.cpu_quota));
    }
    out.close("cputune");
}

/// All that stands between <currentMemory> and <os>.
void write_limits(Writer& out, const Domain& domain) {
    const LimitSpec& limits = domain.limits;
    write_block(out, limits);
    write_memory(out, limits);
    out.leaf("vcpu", std::to_string(domain.vcpus), {{"placement", "static"}, {"cpuset", limits.cpus}});
    write_cpu(out, limits);
    if (!limits.memory_nodes.empty()) {
        out.open("numatune");
        out.empty("memory", {{"mode", std::string{words::name(domain.numa_mode)}}, {"nodeset", limits.memory_nodes}});
        out.close("numatune");
    }
    if (!domain.partition.empty()) {
        out.open("resource");
        out.leaf("partition", domain.partition);
        out.close("resource");
    }
}

void write_os(Writer& out, const Domain& domain) {
    out.open("os");
    out.leaf("type", "exe", {{"arch", domain.arch}});
    out.leaf("init", domain.init);
    for (const std::string& argument : domain.init_arguments) out.leaf("initarg", argument);
    for (const auto& [name, value] : domain.init_environment) out.leaf("initenv", value, {{"name", name}});
    if (!domain.init_directory.empty()) out.leaf("initdir", domain.init_directory);
    if (!domain.init_user.empty()) out.leaf("inituser", domain.init_user);
    if (!domain.init_group.empty()) out.leaf("initgroup", domain.init_group);
    out.close("os");
}

void write_idmap(Writer& out, const Domain& domain) {
    if (domain.uid_map.empty() && domain.gid_map.empty()) return;
    const auto extent = [&](std::string_view name, const IdMap& map) {
        out.empty(name, {{"start", std::to_string(map.inside)},
                         {"target", std::to_string(map.outside)},
                         {"count", std::to_string(map.count)}});
    };
    out.open("idmap");
    for (const IdMap& map : domain.uid_map) extent("uid", map);
    for (const IdMap& map : domain.gid_map) extent("gid", map);
    out.close("idmap");
}

void write_capabilities(Writer& out, const Domain& domain) {
    const CapabilitySet both{domain.capabilities_on.bits() | domain.capabilities_off.bits()};
    if (domain.capability_policy == CapabilityPolicy::standard && both == CapabilitySet{}) return;
    const std::string policy{words::name(domain.capability_policy)};
    if (both == CapabilitySet{}) return out.empty("capabilities", {{"policy", policy}});
    // libvirt writes them by name.
    const auto names = ranges::views::iota(0u, static_cast<unsigned>(capability_names.size())) |
                       ranges::views::filter([&](unsigned i) { return both.has(i); }) |
                       ranges::views::transform([](unsigned i) { return capability_names[i]; }) |
                       ranges::to<std::vector>() | ranges::actions::sort;
    out.open("capabilities", {{"policy", policy}});
    for (const std::string_view name : names) {
        const bool on = domain.capabilities_on.has(*CapabilitySet::number(name));
        out.empty(name, {{"state", on ? "on" : "off"}});
    }
    out.close("capabilities");
}

void write_features(Writer& out, const Domain& domain) {
    const bool of_machines = domain.acpi || domain.apic || domain.pae;
    if (!of_machines && !domain.private_network && domain.capability_policy == CapabilityPolicy::standard &&
        domain.capabilities_on == CapabilitySet{} && domain.capabilities_off == CapabilitySet{}) {
        return;
    }
    out.open("features");
    if (domain.acpi) out.empty("acpi");
    if (domain.apic) out.empty("apic");
    if (domain.pae) out.empty("pae");
    if (domain.private_network) out.empty("privnet");
    write_capabilities(out, domain);
    out.close("features");
}

void write_disk(Writer& out, const Disk& disk) {
    out.open("disk", {{"type", "block"}, {"device", "disk"}});
    out.empty("driver", {{"type", "raw"}});
    out.empty("source", {{"dev", disk.source}});
    out.empty("target", {{"dev", disk.target}});
    if (disk.read_only) out.empty("readonly");
    out.close("disk");
}

void write_filesystem(Writer& out, const Filesystem& fs) {
    out.open("filesystem", {{"type", std::string{words::name(fs.type)}}, {"accessmode", "passthrough"}});
    switch (fs.type) {
        case Filesystem::Type::mount:
        case Filesystem::Type::bind: out.empty("source", {{"dir", fs.source}}); break;
        case Filesystem::Type::ram:
            out.empty("source", {{"usage", std::to_string(fs.usage_kib)}, {"units", "KiB"}});
            break;
        case Filesystem::Type::block: out.empty("source", {{"dev", fs.source}}); break;
        case Filesystem::Type::file:
            out.empty("driver", {{"type", "loop"}, {"format", "raw"}});
            out.empty("source", {{"file", fs.source}});
            break;
    }
    out.empty("target", {{"dir", fs.target}});
    if (fs.read_only) out.empty("readonly");
    out.close("filesystem");
}

std::string family(const IpAddress& address) {
    return address.v6 ? "ipv6" : "ipv4";
}

void write_interface(Writer& out, const Interface& interface) {
    const NetworkSpec& net = interface.network;
    out.open("interface", {{"type", "bridge"}});
    if (net.mac) out.empty("mac", {{"address", net.mac->str()}});
    out.empty("source", {{"bridge", net.bridge}});
    if (net.isolated) out.empty("port", {{"isolated", "yes"}});
    for (const IpPrefix& ip : net.addresses) {
        out.empty(
            "ip",
            {{"address", ip.address.str()}, {"family", family(ip.address)}, {"prefix", std::to_string(ip.length)}});
    }
    for (const RouteSpec& route : net.routes) {
        const IpPrefix& to = route.destination;
        const bool any = to == IpPrefix{{{}, to.address.v6}, 0};
        out.empty("route", {{"family", family(to.address)},
                            {"address", to.address.str()},
                            {"prefix", any ? "" : std::to_string(to.length)},
                            {"gateway", route.gateway ? route.gateway->str() : ""},
                            {"metric", route.metric != 0 ? std::to_string(route.metric) : ""}});
    }
    if (!net.host_name.empty()) out.empty("target", {{"dev", net.host_name}});
    if (!net.name.empty()) out.empty("guest", {{"dev", net.name}});
    if (interface.link_up) out.empty("link", {{"state", "up"}});
    if (net.mtu) out.empty("mtu", {{"size", std::to_string(*net.mtu)}});
    out.close("interface");
}

void write_console(Writer& out, const Console& console, std::size_t port, const std::optional<Live>& live) {
    const std::string path = live && port < live->console_paths.size() ? live->console_paths[port] : "";
    // As libvirt writes it: of the first one alone, as it was before there were others.
    out.open("console", {{"type", "pty"}, {"tty", port == 0 ? path : ""}});
    if (!path.empty()) out.empty("source", {{"path", path}});
    if (!console.log.empty()) out.empty("log", {{"file", console.log}, {"append", console.log_append ? "on" : ""}});
    out.empty("target", {{"type", "lxc"}, {"port", std::to_string(port)}});
    out.close("console");
}

void write_host_device(Writer& out, const HostDevice& device) {
    out.open("hostdev", {{"mode", "capabilities"}, {"type", std::string{words::name(device.type)}}});
    out.open("source");
    out.leaf(device.type == HostDevice::Type::storage ? "block" : "char", device.source);
    out.close("source");
    out.close("hostdev");
}

}  // namespace

std::string escaped_text(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        const bool edge = i == 0 || i + 1 == text.size();
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '>': out += "&gt;"; break;
            case '\r': out += "&#xD;"; break;
            case ' ': out += edge ? "&#x20;" : " "; break;
            case '\t': out += edge ? "&#x9;" : "\t"; break;
            case '\n': out += edge ? "&#xA;" : "\n"; break;
            default: out += c;
        }
    }
    return out;
}

std::string document(const Domain& domain, const std::optional<Live>& live) {
    Writer out;
    out.open("domain", {{"type", "lxc"}, {"id", live ? std::to_string(live->id) : ""}});
    out.leaf("name", domain.name);
    out.leaf("uuid", domain.uuid.str());
    if (!domain.title.empty()) out.leaf("title", domain.title);
    if (!domain.description.empty()) out.leaf("description", domain.description);
    if (!domain.metadata.empty()) {
        out.open("metadata");
        for (const Metadata& kept : domain.metadata) out.metadata(kept);
        out.close("metadata");
    }
    out.leaf("memory", std::to_string(domain.memory_kib), {{"unit", "KiB"}});
    out.leaf("currentMemory", std::to_string(domain.current_memory_kib), {{"unit", "KiB"}});
    write_limits(out, domain);
    write_os(out, domain);
    write_idmap(out, domain);
    write_features(out, domain);
    out.empty("clock", {{"offset", std::string{words::name(domain.clock)}}});
    out.leaf("on_poweroff", words::name(domain.on_poweroff));
    out.leaf("on_reboot", words::name(domain.on_reboot));
    out.leaf("on_crash", words::name(domain.on_crash));
    out.open("devices");
    if (!domain.emulator.empty()) out.leaf("emulator", domain.emulator);
    for (const Disk& disk : domain.disks) write_disk(out, disk);
    for (const Filesystem& fs : domain.filesystems) write_filesystem(out, fs);
    for (const Interface& interface : domain.interfaces) write_interface(out, interface);
    for (std::size_t i = 0; i < domain.consoles.size(); ++i) write_console(out, domain.consoles[i], i, live);
    for (const HostDevice& device : domain.host_devices) write_host_device(out, device);
    out.close("devices");
    if (domain.security_label) {
        const std::string model{words::name(domain.security_label->model)};
        out.open("seclabel", {{"type", "static"}, {"model", model}, {"relabel", "no"}});
        out.leaf("label", domain.security_label->label);
        out.close("seclabel");
    }
    out.close("domain");
    return out.take();
}

}  // namespace caisson::inline v0::xml::writing
