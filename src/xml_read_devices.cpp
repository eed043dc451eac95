#include "xml_read.hpp"

#include <map>

#include <range/v3/algorithm/all_of.hpp>
#include <range/v3/algorithm/any_of.hpp>

#include "xml_words.hpp"

namespace caisson::inline v0::xml::reading {
namespace {

/// Where each value that must not come twice was seen first.
class Once {
public:
    /// `what` is for the message: "a second `what`: the first is in line 7".
    void note(const Element& at, const std::string& key, std::string_view what) {
        if (key.empty()) return;
        const auto [first, is_new] = lines_.try_emplace(key, at.line());
        if (is_new) return;
        at.fail("a second " + std::string{what} + " " + caisson::detail::quote(key) + ": the first is in line " +
                std::to_string(first->second));
    }

private:
    std::map<std::string, int> lines_;
};

/// See netdevice(7): at most 15 bytes. libvirt has fewer characters than the kernel.
std::string link_name(const Element& e, std::string_view attribute) {
    std::string name = e.needed_attribute(attribute);
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
               c == '-';
    };
    const bool good = !name.empty() && name.size() <= 15 && name != "." && name != ".." && name.front() != '-' &&
                      ranges::all_of(name, allowed);
    if (!good) e.wrong(attribute, name, "1 to 15 letters, digits, '.', '_' and '-', the first no '-'");
    return name;
}

/// The attribute of <source> that says where a file system comes from.
std::string_view source_attribute(Filesystem::Type type) {
    switch (type) {
        case Filesystem::Type::mount:
        case Filesystem::Type::bind: return "dir";
        case Filesystem::Type::block: return "dev";
        case Filesystem::Type::file: return "file";
        case Filesystem::Type::ram: break;
    }
    return "usage";
}

Filesystem filesystem(const Element& e) {
    Filesystem fs;
    fs.type = words::value<Filesystem::Type>(e.attribute("type").value_or("mount"));
    const std::string kind = "<filesystem type='" + std::string{words::name(fs.type)} + "'>";
    const bool ram = fs.type == Filesystem::Type::ram;
    if (const auto driver = e.child("driver"); driver && fs.type != Filesystem::Type::file) {
        driver->fail("<driver> is not for " + kind);
    }
    const Element source = e.needed_child("source");
    const std::string_view wanted = source_attribute(fs.type);
    for (const std::string_view other : {"dir", "dev", "file", "usage", "units"}) {
        if (other == wanted || (ram && other == "units") || !source.attribute(other)) continue;
        source.fail("attribute " + caisson::detail::quote(other) + " of <source> is not for " + kind,
                    source.attribute_line(other));
    }
    if (ram) fs.usage_kib = source.kib("usage", "units");
    else fs.source = source.path(wanted);
    if (fs.source == "/" && (wanted == "dev" || wanted == "file")) {
        source.wrong(wanted, fs.source, wanted == "dev" ? "the path of a block device" : "the path of a file");
    }
    const Element target = e.needed_child("target");
    fs.target = target.path("dir");
    if (ram && fs.target == "/") target.fail("a <filesystem type='ram'> cannot be the root");
    fs.read_only = e.child("readonly").has_value();
    return fs;
}

/// The address in `name`, of the family that the attribute `family` says, if any.
IpAddress address(const Element& e, std::string_view name) {
    const std::string written = e.needed_attribute(name);
    const auto address = IpAddress::parse(written);
    if (!address) e.wrong(name, written, "an IPv4 or IPv6 address");
    const auto family = e.attribute("family");
    if (family && (*family == "ipv6") != address->v6) e.wrong(name, written, "an address of the family " + *family);
    return *address;
}

/// Bits of a netmask; nothing if its ones are not all at the left.
std::optional<std::uint8_t> bits_of_netmask(const IpAddress& mask) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | mask.octets[i];
    std::uint8_t bits = 0;
    while (bits < 32 && (value & (0x80000000u >> bits)) != 0) ++bits;
    return bits == 32 || value << bits == 0 ? std::optional{bits} : std::nullopt;
}

/// What libvirt takes where a document gives no prefix: by the old classes, 64 for IPv6, 0 for "any". Nothing where it
/// has no answer either.
std::optional<std::uint8_t> usual_prefix(const IpAddress& address) {
    if (address == IpAddress{{}, address.v6}) return 0;
    if (address.v6) return 64;
    const std::uint8_t first = address.octets[0];
    if (first < 128) return 8;
    if (first < 192) return 16;
    if (first < 224) return 24;
    return std::nullopt;
}

IpPrefix prefixed(const Element& e, std::uint8_t least) {
    const IpAddress a = address(e, "address");
    const auto netmask = e.attribute("netmask");
    if (e.attribute("prefix")) {
        if (netmask) e.fail(e.tag() + " has both 'prefix' and 'netmask'");
        return {a, static_cast<std::uint8_t>(e.number("prefix", least, a.v6 ? 128 : 32))};
    }
    if (netmask) {
        const auto mask = IpAddress::parse(*netmask);
        const auto bits = mask && !mask->v6 && !a.v6 ? bits_of_netmask(*mask) : std::nullopt;
        if (!bits) e.wrong("netmask", *netmask, "an IPv4 netmask, for an IPv4 address");
        return {a, *bits};
    }
    const auto bits = usual_prefix(a);
    if (!bits || *bits < least) e.fail(e.tag() + " needs the attribute 'prefix'");
    return {a, *bits};
}

RouteSpec route(const Element& e) {
    RouteSpec route;
    route.destination = prefixed(e, 0);
    // The kernel refuses a destination with bits behind its prefix, only when the container starts.
    for (unsigned bit = route.destination.length; bit < route.destination.address.size() * 8; ++bit) {
        if ((route.destination.address.octets[bit / 8] >> (7 - bit % 8) & 1) == 0) continue;
        e.wrong("address", e.needed_attribute("address"),
                "a network's, without bits behind the prefix " + std::to_string(route.destination.length));
    }
    route.gateway = address(e, "gateway");
    if (route.gateway->v6 != route.destination.address.v6) {
        e.wrong("gateway", route.gateway->str(), "of the same family as the address");
    }
    if (e.attribute("metric")) route.metric = static_cast<std::uint32_t>(e.number("metric", 1, 4294967295));
    return route;
}

Interface interface(const Element& e) {
    Interface result;
    NetworkSpec& net = result.network;
    (void)e.needed_attribute("type");
    const Element source = e.needed_child("source");
    // In 2008 a bridge was also written as a network's name.
    const bool old = source.attribute("network").has_value();
    if (old && source.attribute("bridge")) source.fail("<source> has both 'bridge' and 'network'");
    net.bridge = link_name(source, old ? "network" : "bridge");
    if (const auto mac = e.child("mac")) {
        const std::string written = mac->needed_attribute("address");
        net.mac = MacAddress::parse(written);
        if (!net.mac)
            mac->wrong("address", written,
                       "six pairs of hexadecimal digits with ':' between, not a multicast address and not all zeros");
    }
    if (const auto target = e.child("target")) net.host_name = link_name(*target, "dev");
    if (const auto guest = e.child("guest")) net.name = link_name(*guest, "dev");
    if (const auto mtu = e.child("mtu")) {
        (void)mtu->needed_attribute("size");
        net.mtu = static_cast<std::uint32_t>(mtu->number("size", 68, 65535));
    }
    if (const auto port = e.child("port")) net.isolated = port->needed_attribute("isolated") == "yes";
    for (const Element& ip : e.children("ip")) net.addresses.push_back(prefixed(ip, 1));
    for (const Element& r : e.children("route")) net.routes.push_back(route(r));
    if (const auto link = e.child("link")) {
        (void)link->needed_attribute("state");
        result.link_up = true;
    }
    return result;
}

HostDevice host_device(const Element& e) {
    (void)e.needed_attribute("mode");
    HostDevice device;
    device.type = words::value<HostDevice::Type>(e.needed_attribute("type"));
    const bool storage = device.type == HostDevice::Type::storage;
    const Element source = e.needed_child("source");
    if (const auto other = source.child(storage ? "char" : "block")) {
        other->fail(other->tag() + " is not for <hostdev type='" + std::string{words::name(device.type)} + "'>");
    }
    const Element path = source.needed_child(storage ? "block" : "char");
    device.source = path.path("");
    if (device.source == "/") path.wrong("", "/", "the path of a device");
    return device;
}

Disk disk(const Element& e) {
    (void)e.needed_attribute("type");
    Disk disk;
    const Element source = e.needed_child("source");
    disk.source = source.path("dev");
    if (disk.source == "/") source.wrong("dev", "/", "the path of a block device");
    const Element target = e.needed_child("target");
    disk.target = target.needed_attribute("dev");
    const auto word = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    };
    constexpr std::string_view kinds[] = {"fd", "hd", "sd", "vd", "xvd", "ubd"};
    const bool known = ranges::any_of(kinds, [&](std::string_view kind) {
        return disk.target.starts_with(kind) && disk.target.size() > kind.size();
    });
    // 255: see NAME_MAX.
    if (!known || disk.target.size() > 255 || !ranges::all_of(disk.target, word)) {
        target.wrong("dev", disk.target, "'vd', 'sd', 'hd', 'xvd', 'fd' or 'ubd', and letters, digits and '_'");
    }
    disk.read_only = e.child("readonly").has_value();
    return disk;
}

/// There is one, asked for or not.
std::vector<Console> consoles(const Element& devices) {
    constexpr std::uint64_t most = 63;
    std::vector<Console> result;
    Once logs;
    for (const Element& e : devices.children("console")) {
        if (result.size() == most) e.fail("more than 63 <console>: Linux has names for tty1 to tty63");
        const auto target = e.child("target");
        if (target && target->attribute("port")) (void)target->number("port", result.size(), result.size());
        Console& console = result.emplace_back();
        const auto log = e.child("log");
        if (!log) continue;
        console.log = log->path("file");
        console.log_append = log->attribute("append") == "on";
        logs.note(*log, console.log, "<log> with the file");
    }
    if (result.empty()) result.emplace_back();
    return result;
}

}  // namespace

Device device(const Element& root) {
    if (root.name() == "disk") return disk(root);
    if (root.name() == "filesystem") return filesystem(root);
    if (root.name() == "interface") return interface(root);
    return host_device(root);
}

void devices(const Element& e, Domain& domain) {
    if (const auto emulator = e.child("emulator")) domain.emulator = emulator->file_path("");
    Once disks, targets;
    for (const Element& child : e.children("disk")) {
        domain.disks.push_back(disk(child));
        disks.note(child, domain.disks.back().target, "<disk> with the target device");
    }
    for (const Element& child : e.children("filesystem")) {
        domain.filesystems.push_back(filesystem(child));
        targets.note(child.needed_child("target"), domain.filesystems.back().target, "<filesystem> on");
    }
    Once inside, outside, macs;
    for (const Element& child : e.children("interface")) {
        domain.interfaces.push_back(interface(child));
        const NetworkSpec& net = domain.interfaces.back().network;
        inside.note(child, net.name, "<interface> with the guest device");
        outside.note(child, net.host_name, "<interface> with the target device");
        macs.note(child, net.mac ? net.mac->str() : "", "<interface> with the address");
    }
    domain.consoles = consoles(e);
    Once sources;
    for (const Element& child : e.children("hostdev")) {
        domain.host_devices.push_back(host_device(child));
        sources.note(child, domain.host_devices.back().source, "<hostdev> of");
    }
}

}  // namespace caisson::inline v0::xml::reading
