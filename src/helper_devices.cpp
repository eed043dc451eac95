// helper_devices.cpp - what is attached to a helper's container, by a client of the helper, and detached from it.
#include <string>
#include <utility>

#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0 {

template <class Do>
detail::Change Helper::change(Do&& act) {
    using Question = detail::Message::Kind;
    Fd pidfd;
    const detail::Message told = ask({.kind = Question::equipment}, &pidfd);
    try {
        auto state = detail::decode<detail::HotplugState>(told.body);
        Process init = own_init(std::move(pidfd));
        require_groups({state.group, state.directories}, init);
        state.equipment.stage_path = detail::own_stage(state.equipment.stage_path);
        detail::Hotplug plug{std::move(init), std::move(state)};
        detail::Change change = act(plug);
        plug.keep(change, [&] {
            const bool is_network = change.kind == detail::Change::Kind::network && change.added;
            // The helper may have given up what it takes to open one, and may be in another network namespace.
            const Fd netlink = is_network ? detail::open_netlink() : Fd{};
            (void)ask({.kind = Question::change, .body = detail::encode(change)}, nullptr, netlink.get());
        });
        return change;
    } catch (const Error& e) {
        // Others may go on. If it has ended, that is the reason.
        (void)ask({.kind = Question::change});
        const std::string outer = "container " + detail::quote(name_);
        throw e.context().find(outer) != std::string_view::npos ? e : e.in(outer);
    }
}

std::string Helper::attach(const NetworkSpec& network) {
    return change([&](detail::Hotplug& plug) { return plug.attach(network); }).link.name;
}
void Helper::attach(const DeviceSpec& device) {
    (void)change([&](detail::Hotplug& plug) { return plug.attach(device); });
}
void Helper::attach(const MountSpec& mount) {
    (void)change([&](detail::Hotplug& plug) { return plug.attach(mount); });
}
void Helper::detach_network(const std::string& name) {
    (void)change([&](detail::Hotplug& plug) { return plug.detach_network(name); });
}
void Helper::detach_device(const std::string& path) {
    (void)change([&](detail::Hotplug& plug) { return plug.detach_device(path); });
}
void Helper::detach_mount(const std::string& target) {
    (void)change([&](detail::Hotplug& plug) { return plug.detach_mount(target); });
}

}  // namespace caisson::inline v0
