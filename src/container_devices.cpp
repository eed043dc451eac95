// container_devices.cpp - what is attached to a container of this process, and detached from it.
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
    running_.equipment.prepare();
    std::optional<Cgroup> group;
    if (running_.cgroup) group = running_.cgroup->borrow();
    return {Process{running_.init.pid(), std::move(pidfd)}, running_.equipment, running_.links.all(), std::move(group),
            detail::Owner::current().tag()};
}

std::string Container::attach(const NetworkSpec& network) {
    return change("attach to",
                  [&](detail::Hotplug& plug) {
                      running_.links.prepare_to_add();
                      return plug.attach(network);
                  })
        .link.name;
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
