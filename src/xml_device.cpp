// xml_device.cpp - a document of one device, and what each device is to a container.
#include <caisson/xml.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "xml_document.hpp"
#include "xml_read.hpp"
#include "xml_schema.hpp"

namespace caisson::inline v0::xml {

Device load_device(const std::string& path) {
    return parse_device(gate::read(path), path);
}

Device parse_device(std::string_view text, std::string_view source) {
    const gate::Document document{text, source};
    schema::check_device(document.root());
    return reading::device(document.root());
}

MountSpec to_spec(const Filesystem& fs) {
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

NetworkSpec to_spec(const Interface& interface) {
    NetworkSpec network = interface.network;
    // libvirt's metric where the document has none; the kernel's differs between IPv4 and IPv6.
    for (RouteSpec& route : network.routes) route.metric = std::max(route.metric, 1u);
    return network;
}

DeviceSpec to_spec(const HostDevice& device) {
    const std::size_t slash = device.source.find('/', 1);
    const bool storage = device.type == HostDevice::Type::storage;
    return {.source = device.source,
            .target = device.source.substr(slash == std::string::npos ? 1 : slash + 1),
            .type = storage ? DeviceSpec::Type::block : DeviceSpec::Type::character,
            .access = {.read = true, .write = true, .make = true},
            .mode = 0700};
}

DeviceSpec to_spec(const Disk& disk) {
    return {.source = disk.source,
            .target = disk.target,
            .type = DeviceSpec::Type::block,
            .access = {.read = true, .write = !disk.read_only, .make = true},
            .mode = 0700};
}

}  // namespace caisson::inline v0::xml
