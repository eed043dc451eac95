// controller_devices.cpp - what is attached to a controller's containers, and detached from them.
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <caisson/controller.hpp>

#include "changed_spec.hpp"
#include "helper_change.hpp"

namespace caisson::inline v0 {

template <class Do>
detail::Change Controller::change(ContainerId id, const char* what, Do&& act) {
    const detail::Turns::Turn turn{changes_, id};
    if (call_helper(id)) {
        return detail::HelperChange::make(
            [&](auto&& ask) {
                const auto helper = call_helper(id);
                if (!helper) {
                    const std::lock_guard lock{own()};
                    (void)require(id);
                }
                ask(*helper);
            },
            act);
    }
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
        plug->keep(change, [&] {
            const std::lock_guard lock{own()};
            // It may have been started again: what was done was done to the one before.
            if (plug->init_ended()) throw Error{Step::open_namespace, ESRCH, what, "it has ended"};
            note_change(require(id), change, Fd{});
        });
        return change;
    } catch (const Error& e) {
        const std::string outer = "container " + detail::quote(name);
        if (!plug->container_ended()) throw e.in(outer);
        throw Error{Step::event_loop, ESRCH, what + (" " + outer), "it has ended"};
    }
}

detail::HotplugState Controller::hotplug_state(ContainerId id) {
    const std::lock_guard lock{own()};
    return require(id).container.hotplug_state();
}

void Controller::note(ContainerId id, const detail::Change& change, Fd netlink) {
    const std::lock_guard lock{own()};
    note_change(require(id), change, std::move(netlink));
}

void Controller::note_change(Entry& entry, const detail::Change& change, Fd netlink) {
    if (!entry.container.note(change, std::move(netlink))) return;
    if (entry.origin) detail::apply(change, entry.origin->spec);
    push({.kind = change.added ? Event::Kind::device_added : Event::Kind::device_removed,
          .id = entry.id,
          .name = entry.container.name(),
          .device = change.what()});
}

std::string Controller::attach(ContainerId id, const NetworkSpec& network) {
    return change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(network); }).link.name;
}
void Controller::attach(ContainerId id, const DeviceSpec& device) {
    (void)change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(device); });
}
void Controller::attach(ContainerId id, const MountSpec& mount) {
    (void)change(id, "attach to", [&](detail::Hotplug& plug) { return plug.attach(mount); });
}
void Controller::detach_network(ContainerId id, const std::string& name) {
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_network(name); });
}
void Controller::detach_device(ContainerId id, const std::string& path) {
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_device(path); });
}
void Controller::detach_mount(ContainerId id, const std::string& target) {
    (void)change(id, "detach from", [&](detail::Hotplug& plug) { return plug.detach_mount(target); });
}

}  // namespace caisson::inline v0
