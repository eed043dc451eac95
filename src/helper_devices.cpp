// helper_devices.cpp - what is attached to a helper's container, by a client of the helper, and detached from it.
#include <string>

#include <caisson/helper.hpp>

#include "helper_change.hpp"

namespace caisson::inline v0 {
namespace {

template <class Do>
detail::Change change(Helper& helper, Do&& act) {
    return detail::HelperChange::make([&helper](auto&& ask) { ask(helper); }, act);
}

}  // namespace

std::string Helper::attach(const NetworkSpec& network) {
    return change(*this, [&](detail::Hotplug& plug) { return plug.attach(network); }).link.name;
}
void Helper::attach(const DeviceSpec& device) {
    (void)change(*this, [&](detail::Hotplug& plug) { return plug.attach(device); });
}
void Helper::attach(const MountSpec& mount) {
    (void)change(*this, [&](detail::Hotplug& plug) { return plug.attach(mount); });
}
void Helper::detach_network(const std::string& name) {
    (void)change(*this, [&](detail::Hotplug& plug) { return plug.detach_network(name); });
}
void Helper::detach_device(const std::string& path) {
    (void)change(*this, [&](detail::Hotplug& plug) { return plug.detach_device(path); });
}
void Helper::detach_mount(const std::string& target) {
    (void)change(*this, [&](detail::Hotplug& plug) { return plug.detach_mount(target); });
}

}  // namespace caisson::inline v0
