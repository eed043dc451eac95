// container_devices.cpp - what is attached to a container of this process, and detached from it.
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>

#include <caisson/container.hpp>
#include <caisson/detail/owner.hpp>

namespace caisson::inline v0 {

detail::Hotplug Container::hotplug(const char* what) {
    require_started();
    const std::string outer = what + (" container " + detail::quote(name_));
    if (try_wait()) throw Error{Step::open_namespace, ESRCH, outer, "it has ended"};
    Fd pidfd{::fcntl(running_.init.pidfd(), F_DUPFD_CLOEXEC, 3)};
    if (!pidfd) detail::fail(Step::descriptors, outer, "no descriptor is left: raise 'ulimit -n'");
    try {
        return {Process{running_.init.pid(), std::move(pidfd)}, hotplug_state()};
    } catch (const Error& e) {
        throw e.in(outer);
    }
}

detail::HotplugState Container::hotplug_state() const {
    detail::HotplugState state{.equipment = running_.equipment,
                               .links = running_.links.all(),
                               .network = running_.links.network(),
                               .group = {},
                               .directories = {},
                               .tag = detail::Owner::current().tag()};
    if (!running_.cgroup) return state;
    state.group = running_.cgroup->name();
    for (const CgroupDirectory& d : running_.cgroup->directories()) {
        state.directories.emplace_back(d.controllers, d.parent_path);
    }
    return state;
}

bool Container::note(const detail::Change& change, Fd netlink) {
    running_.equipment.note(change);
    if (!change.added && change.is_half) return false;
    if (change.kind != detail::Change::Kind::network) return true;
    if (!change.added) {
        running_.links.erase(change.link.index);
        return true;
    }
    running_.links.prepare_to_add(std::move(netlink));
    detail::PluggedLink link = change.link;
    if (link.index == 0) {
        // This may be a copy of the owner, whose end ends them.
        const std::optional<detail::Owner> owner = detail::Owner::of(owner_);
        if (owner) link.index = detail::find_plugged(running_.links.netlink(), link.host_name, owner->tag());
    }
    if (link.index == 0) return false;
    running_.links.add(std::move(link));
    return true;
}

std::string Container::attach(const NetworkSpec& network) {
    return change("attach to", [&](detail::Hotplug& plug) { return plug.attach(network); }).link.name;
}
void Container::attach(const DeviceSpec& device) {
    (void)change("attach to", [&](detail::Hotplug& plug) { return plug.attach(device); });
}
void Container::attach(const MountSpec& mount) {
    (void)change("attach to", [&](detail::Hotplug& plug) { return plug.attach(mount); });
}
void Container::detach_network(const std::string& name) {
    (void)change("detach from", [&](detail::Hotplug& plug) { return plug.detach_network(name); });
}
void Container::detach_device(const std::string& path) {
    (void)change("detach from", [&](detail::Hotplug& plug) { return plug.detach_device(path); });
}
void Container::detach_mount(const std::string& target) {
    (void)change("detach from", [&](detail::Hotplug& plug) { return plug.detach_mount(target); });
}

}  // namespace caisson::inline v0
