// check_attach.cpp - what makes a network, a mount or a device impossible, also for a container that runs already.
#include <cstddef>
#include <string>
#include <string_view>

#include <range/v3/algorithm/any_of.hpp>
#include <range/v3/view/enumerate.hpp>

#include <caisson/check.hpp>

#include "check_parts.hpp"

namespace caisson::inline v0 {

using detail::quote;
namespace views = ranges::views;

namespace checking {
namespace {

constexpr std::size_t longest_interface = 15;  // IFNAMSIZ with its NUL

void check_interface_name(const std::string& field, const std::string& name) {
    if (name.empty()) return;
    const auto bad = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == '/' || c == ':' || c == '%'; };
    if (name.size() > longest_interface || name == "." || name == ".." || ranges::any_of(name, bad)) {
        refuse(field, quote(name) + " is no name of a network interface",
               "use at most 15 bytes, no space, '/', ':' nor '%'");
    }
}

}  // namespace

void check_network(const std::string& field, const NetworkSpec& network) {
    if (network.bridge.empty()) refuse(field + ".bridge", "it is empty", "name a bridge of the host");
    check_interface_name(field + ".bridge", network.bridge);
    check_interface_name(field + ".name", network.name);
    if (network.name == "lo") refuse(field + ".name", "'lo' is in each network namespace already", "choose another");
    check_interface_name(field + ".host_name", network.host_name);
    if (network.mtu && (*network.mtu < 68 || *network.mtu > 65535)) {
        refuse(field + ".mtu", std::to_string(*network.mtu) + " bytes", "68 to 65535 are possible");
    }
    for (auto&& [i, route] : views::enumerate(network.routes)) {
        if (route.gateway && route.gateway->v6 != route.destination.address.v6) {
            refuse(field + indexed(".routes", i, ".gateway"),
                   route.gateway->str() + " is of another family than " + route.destination.str());
        }
    }
}

}  // namespace checking

namespace detail {

void check_attach(const NetworkSpec& network) {
    checking::check_network("network", network);
}

void check_attach(const MountSpec& mount) {
    using Type = MountSpec::Type;
    checking::check_mount("mount", mount);
    if (mount.type == Type::bind || mount.type == Type::tmpfs || mount.type == Type::image) return;
    checking::refuse("mount.type", std::string{to_string(mount.type)} + " is not for a container that runs",
                     "a bind, a tmpfs and an image are");
}

void check_attach(const DeviceSpec& device, const ContainerSpec& container) {
    checking::check_device("device", device, container);
}

}  // namespace detail

}  // namespace caisson::inline v0
