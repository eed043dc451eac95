#include "devices.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "failure.hpp"

namespace caissonctl {
namespace {

namespace xml = caisson::xml;
using caisson::Helper;

[[noreturn]] void refuse(const std::string& why) {
    throw Failure{"operation failed: " + why};
}
[[noreturn]] void refuse_missing(const std::string& what) {
    throw Failure{"device not found: " + what + " not found"};
}

/// What a device is found by again: a word for messages, and what tells it from the others of its kind.
struct Key {
    std::string kind;
    std::string value;
};
Key key_of(const xml::Disk& disk) {
    return {"disk", disk.target};
}
Key key_of(const xml::Filesystem& fs) {
    return {"filesystem on", fs.target};
}
Key key_of(const xml::HostDevice& device) {
    return {"host device", device.source};
}
std::string text_of(const Key& key) {
    return key.kind + " " + quoted(key.value);
}

std::vector<xml::Disk>& all_of(xml::Domain& domain, const xml::Disk&) {
    return domain.disks;
}
std::vector<xml::Filesystem>& all_of(xml::Domain& domain, const xml::Filesystem&) {
    return domain.filesystems;
}
std::vector<xml::HostDevice>& all_of(xml::Domain& domain, const xml::HostDevice&) {
    return domain.host_devices;
}

/// The device of the domain that `wanted` means. Throws `Failure` where there is none.
template <class Device>
auto find(xml::Domain& domain, const Device& wanted) {
    auto& all = all_of(domain, wanted);
    const Key key = key_of(wanted);
    const auto found = std::ranges::find_if(all, [&](const Device& d) { return key_of(d).value == key.value; });
    if (found == all.end()) refuse_missing(text_of(key));
    return found;
}
/// By its MAC address, else by its name on the host or inside, else as the only one on its bridge.
auto find(xml::Domain& domain, const xml::Interface& wanted) {
    const caisson::NetworkSpec& net = wanted.network;
    auto& all = domain.interfaces;
    const auto is_it = [&](const xml::Interface& other) {
        if (net.mac) return other.network.mac == net.mac;
        if (!net.host_name.empty()) return other.network.host_name == net.host_name;
        if (!net.name.empty()) return other.network.name == net.name;
        return other.network.bridge == net.bridge;
    };
    const std::string what = net.mac                  ? "interface with the MAC address " + quoted(net.mac->str())
                             : !net.host_name.empty() ? "interface with the target device " + quoted(net.host_name)
                             : net.name.empty()       ? "interface on bridge " + quoted(net.bridge)
                                                      : "interface with the guest device " + quoted(net.name);
    const auto found = std::ranges::find_if(all, is_it);
    if (found == all.end()) refuse_missing(what);
    if (std::ranges::count_if(all, is_it) > 1) refuse("there is more than one " + what + ": give its <mac>");
    return found;
}

/// What an interface is called inside: those without a name are counted.
std::string name_inside(const xml::Domain& domain, std::size_t index) {
    const auto& all = domain.interfaces;
    if (!all[index].network.name.empty()) return all[index].network.name;
    const auto before = std::count_if(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(index),
                                      [](const xml::Interface& i) { return i.network.name.empty(); });
    return "eth" + std::to_string(before);
}
std::string free_name(const xml::Domain& domain) {
    std::vector<std::string> taken;
    for (std::size_t i = 0; i < domain.interfaces.size(); ++i) taken.push_back(name_inside(domain, i));
    for (std::size_t number = 0;; ++number) {
        std::string name = "eth" + std::to_string(number);
        if (std::ranges::find(taken, name) == taken.end()) return name;
    }
}

template <class Device>
void add(xml::Domain& domain, bool /*live*/, const Device& device) {
    auto& all = all_of(domain, device);
    const Key key = key_of(device);
    if (std::ranges::any_of(all, [&](const Device& d) { return key_of(d).value == key.value; })) {
        refuse(text_of(key) + " already exists");
    }
    all.push_back(device);
}
void add(xml::Domain& domain, bool live, xml::Interface& interface) {
    caisson::NetworkSpec& net = interface.network;
    if (net.mac && std::ranges::any_of(domain.interfaces,
                                       [&](const xml::Interface& other) { return other.network.mac == net.mac; })) {
        refuse("interface with the MAC address " + quoted(net.mac->str()) + " already exists");
    }
    if (!net.host_name.empty() && std::ranges::any_of(domain.interfaces, [&](const xml::Interface& other) {
            return other.network.host_name == net.host_name;
        })) {
        refuse("interface with the target device " + quoted(net.host_name) + " already exists");
    }
    domain.interfaces.push_back(interface);
    // Of those that come later, the count says nothing.
    if (live && net.name.empty()) {
        domain.interfaces.pop_back();
        net.name = free_name(domain);
        domain.interfaces.push_back(interface);
    }
}

/// What `resolve` is to be asked for, where --persistent was given.
Affected affected_by(const Session& session, const Arguments& arguments) {
    if (arguments.has("persistent") && arguments.has("current")) {
        throw Failure{"Options --current and --persistent are mutually exclusive"};
    }
    Affected wanted = affected(arguments);
    if (arguments.has("persistent")) {
        wanted.config = true;
        wanted.live = wanted.live || session.domains.find(arguments.get("domain")).running.has_value();
    }
    return wanted;
}

std::string name_of(const Session& session, const Arguments& arguments) {
    return session.domains.find(arguments.get("domain")).name;
}

void attach_to(Helper& helper, const xml::Device& device) {
    std::visit([&](const auto& d) { (void)helper.attach(xml::to_spec(d)); }, device);
}

void attach(const Session& session, const Arguments& arguments, const xml::Device& device) {
    xml::Device live = device;
    change_documents(
        session, name_of(session, arguments), affected_by(session, arguments),
        [&](xml::Domain& domain, bool is_live) {
            xml::Device config = device;
            std::visit([&](auto& d) { add(domain, is_live, d); }, is_live ? live : config);
        },
        [&](Helper& helper) { attach_to(helper, live); });
}

/// How a device is taken from a running domain.
using Detach = std::function<void(Helper&)>;
template <class Device>
Detach take(xml::Domain& domain, bool /*live*/, const Device& device) {
    auto& all = all_of(domain, device);
    const auto found = find(domain, device);
    const Device taken = *found;
    all.erase(found);
    if constexpr (std::is_same_v<Device, xml::Filesystem>) {
        return [target = taken.target](Helper& helper) { helper.detach_mount(target); };
    } else {
        return [path = xml::to_spec(taken).target](Helper& helper) { helper.detach_device(path); };
    }
}
Detach take(xml::Domain& domain, bool live, const xml::Interface& interface) {
    const auto found = find(domain, interface);
    auto& all = domain.interfaces;
    const auto at = static_cast<std::size_t>(found - all.begin());
    const std::string name = name_inside(domain, at);
    // Those of a running domain keep the names that they have; a definition's are counted anew at the next start.
    for (std::size_t i = all.size(); live && i-- > 0;) all[i].network.name = name_inside(domain, i);
    all.erase(found);
    return [name](Helper& helper) { helper.detach_network(name); };
}

void detach(const Session& session, const Arguments& arguments, const xml::Device& device) {
    Detach from_running;
    change_documents(
        session, name_of(session, arguments), affected_by(session, arguments),
        [&](xml::Domain& domain, bool live) {
            Detach detach = std::visit([&](const auto& d) { return take(domain, live, d); }, device);
            if (live) from_running = std::move(detach);
        },
        [&](Helper& helper) { from_running(helper); });
}

void update(const Session& session, const Arguments& arguments, const xml::Device& device) {
    const auto* const interface = std::get_if<xml::Interface>(&device);
    if (interface == nullptr) {
        throw Failure{"Operation not supported: only the interfaces of a definition can be updated"};
    }
    change_documents(session, name_of(session, arguments), affected_by(session, arguments),
                     [&](xml::Domain& domain, bool is_live) {
                         if (is_live) throw Failure{"Operation not supported: Unable to modify live devices"};
                         *find(domain, *interface) = *interface;
                     });
}

xml::Device read_device(const Arguments& arguments) {
    const std::string file = arguments.get("file");
    return xml::parse_device(read_text(file), file);
}

/// Says how it went, as virsh does.
template <class Work>
int tell(const Session& session, const std::string& failure, const std::string& success, Work&& work) {
    try {
        because(failure, work);
    } catch (const Failure& e) {
        if (!e.reason().empty()) throw;
        throw Failure{failure, e.what()};
    }
    session.say(success + "\n");
    return 0;
}

xml::Disk disk_of(const Arguments& arguments) {
    const std::string mode = arguments.get("mode");
    if (!mode.empty() && mode != "readonly") {
        throw Failure{"No support for " + mode + " in command 'attach-disk'"};
    }
    xml::Disk disk{arguments.get("source"), arguments.get("target"), mode == "readonly"};
    // What a document may say about a disk is said there.
    xml::Domain domain;
    domain.name = "disk";
    domain.memory_kib = domain.current_memory_kib = 1;
    domain.disks = {disk};
    (void)xml::dump(domain);
    return disk;
}

xml::Interface interface_of(const Arguments& arguments, const char* verb) {
    const std::string type = arguments.get("type");
    if (type != "bridge") throw Failure{"No support for " + type + " in command " + quoted(verb)};
    xml::Interface interface;
    const std::string mac = arguments.get("mac");
    if (mac.empty()) return interface;
    interface.network.mac = caisson::MacAddress::parse(mac);
    if (!interface.network.mac) throw Failure{"invalid MAC address " + quoted(mac)};
    return interface;
}

}  // namespace

int attach_device(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to attach device from " + arguments.get("file"), "Device attached successfully",
                [&] { attach(session, arguments, read_device(arguments)); });
}

int detach_device(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to detach device from " + arguments.get("file"), "Device detached successfully",
                [&] { detach(session, arguments, read_device(arguments)); });
}

int update_device(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to update device from " + arguments.get("file"), "Device updated successfully",
                [&] { update(session, arguments, read_device(arguments)); });
}

int attach_disk(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to attach disk", "Disk attached successfully",
                [&] { attach(session, arguments, disk_of(arguments)); });
}

int detach_disk(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to detach disk", "Disk detached successfully", [&] {
        detach(session, arguments, xml::Disk{.source = {}, .target = arguments.get("target"), .read_only = false});
    });
}

int attach_interface(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to attach interface", "Interface attached successfully", [&] {
        xml::Interface interface = interface_of(arguments, "attach-interface");
        interface.network.bridge = arguments.get("source");
        interface.network.host_name = arguments.get("target");
        attach(session, arguments, interface);
    });
}

int detach_interface(const Session& session, const Arguments& arguments) {
    return tell(session, "Failed to detach interface", "Interface detached successfully", [&] {
        xml::Interface interface = interface_of(arguments, "detach-interface");
        if (interface.network.mac) return detach(session, arguments, interface);
        Entry entry = session.domains.find(arguments.get("domain"));
        const xml::Domain domain = session.domains.current(entry);
        if (domain.interfaces.size() != 1) {
            throw Failure{"Domain has " + std::to_string(domain.interfaces.size()) +
                          " interfaces. Please specify which one to detach using --mac"};
        }
        detach(session, arguments, domain.interfaces.front());
    });
}

}  // namespace caissonctl
