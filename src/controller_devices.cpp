// controller_devices.cpp - what is attached to a controller's containers, and detached from them.
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <caisson/controller.hpp>

namespace caisson::inline v0 {

template <class Do>
detail::Change Controller::change(ContainerId id, const char* what, Do&& act) {
    const std::lock_guard one_at_a_time{changes_};
    std::optional<detail::Hotplug> plug;
    std::string name;
    {
        const std::lock_guard lock{own()};
        Container& container = require(id).container;
        name = container.name();
        plug.emplace(container.hotplug(what));
    }
    try {
        // Without the lock: others go on meanwhile.
        detail::Change change = act(*plug);
        plug->keep(change, [&] { note(id, change); });
        return change;
    } catch (const Error& e) {
        const std::lock_guard lock{own()};
        if (require(id).container.init().ended()) refuse(id, what, e);
        throw e.in("container " + detail::quote(name));
    }
}

detail::HotplugState Controller::hotplug_state(ContainerId id) {
    const std::lock_guard lock{own()};
    return require(id).container.hotplug_state();
}

void Controller::note(ContainerId id, const detail::Change& change, Fd netlink) {
    const std::lock_guard lock{own()};
    Entry& entry = require(id);
    entry.container.note(change, std::move(netlink));
    push({.kind = change.added ? Event::Kind::device_added : Event::Kind::device_removed,
          .id = id,
          .name = entry.container.name(),
          .device = change.what()});
}

std::string Controller::attach(ContainerId id, const NetworkSpec& network) {
    if (const auto helper = call_helper(id)) return helper->attach(network);
    return change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(network); }).link.name;
}
void Controller::attach(ContainerId id, const DeviceSpec& device) {
    if (const auto helper = call_helper(id)) return helper->attach(device);
    (void)change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(device); });
}
void Controller::attach(ContainerId id, const MountSpec& mount) {
    if (const auto helper = call_helper(id)) return helper->attach(mount);
    (void)change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(mount); });
}
void Controller::detach_network(ContainerId id, const std::string& name) {
    if (const auto helper = call_helper(id)) return helper->detach_network(name);
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_network(name); });
}
void Controller::detach_device(ContainerId id, const std::string& path) {
    if (const auto helper = call_helper(id)) return helper->detach_device(path);
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_device(path); });
}
void Controller::detach_mount(ContainerId id, const std::string& target) {
    if (const auto helper = call_helper(id)) return helper->detach_mount(target);
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_mount(target); });
}

}  // namespace caisson::inline v0
