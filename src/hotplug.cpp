// hotplug.cpp - what a running container is given, and what is taken from it: by a visit where it takes a process
// inside, and from outside where that is enough.
#include <caisson/detail/hotplug.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/check.hpp>
#include <caisson/detail/device_control.hpp>
#include <caisson/detail/device_node.hpp>
#include <caisson/detail/fscontext.hpp>
#include <caisson/detail/id_range.hpp>
#include <caisson/detail/plan_mounts.hpp>
#include <caisson/detail/unprivileged.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/mount.hpp>
#include <caisson/namespace.hpp>

#include "mount_number.hpp"
#include "mount_view.hpp"

namespace caisson::inline v0::detail {
namespace {

constexpr std::int64_t patience = 10'000;                   // milliseconds of a visit
constexpr std::size_t most_mounts = std::size_t{64} << 20;  // bytes of a mountinfo

[[noreturn]] void refuse(const std::string& what, std::string_view remedy) {
    throw Error{Step::check_spec, 0, what, remedy};
}

Error not_given(Step step, const std::string& what) {
    return {step, ENOENT, what, "it was not given to the container, or is gone already"};
}

/// What the container's own paths can come to. Anything else says nothing of where a mount is.
bool is_of_path(const Error& e) {
    const int error = e.code().value();
    return error == ESTALE || error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES ||
           error == EINVAL;
}

/// What it may use, or, where a device was not wholly taken, perhaps may.
DeviceControl control_of(const Equipment& equipment, bool perhaps) {
    DeviceControl control;
    for (const GivenDevice& device : equipment.devices) {
        if (perhaps || !device.leaving) control.allow(device.rule);
    }
    for (const DeviceRule& rule : equipment.rules) control.allow(rule);
    return control;
}

std::string what_of(const MountSpec& spec) {
    const bool inside = spec.type == MountSpec::Type::tmpfs;
    return "mount " + quote(inside ? to_string(spec.type) : spec.source) + " on " + quote(spec.target);
}

DeviceNode node_of(const GivenDevice& device) {
    const bool block = device.rule.type == DeviceRule::Type::block;
    return {device.path, block ? mode_t{S_IFBLK} : mode_t{S_IFCHR},
            ::makedev(device.rule.major.value_or(0), device.rule.minor.value_or(0))};
}

}  // namespace

void Hotplug::require_running() const {
    if (init_.ended()) throw Error{Step::open_namespace, ESRCH, "join the container", "it has ended"};
}

template <class Add>
std::vector<Fd> Hotplug::visit(NamespaceKind kind, std::int64_t milliseconds, Add&& add) const {
    Visit visit{init_, NamespaceKind::user | kind, equipment_.stage_path};
    visit.enter();
    add(visit);
    return visit.run(milliseconds);
}

Change Hotplug::attach(const NetworkSpec& spec) {
    check_attach(spec);
    if (is_ordinary_user()) {
        refuse("network.bridge: " + quote(spec.bridge) + ": it takes root to use a bridge", "run as root");
    }
    if (!equipment_.own_network) {
        refuse("network.bridge: " + quote(spec.bridge) + ": the container has the host's own network",
               "start it with a network namespace");
    }
    require_running();
    const Fd outside = open_network("network.bridge: " + quote(spec.bridge));
    links_.reserve(links_.size() + 1);
    const std::vector<Fd> passed = visit(NamespaceKind::net, patience, [](Visit& there) {
        const Slot slot = there.plan().dynamic();
        there.plan().add({.op = Op::open_netlink, .slot = slot}, Step::network, "netlink socket");
        there.pass_up(slot, Step::network, "pass up the netlink socket");
    });
    const int inside = passed.at(0).get();
    const Fd net{::ioctl(inside, SIOCGSKNS)};
    if (!net) fail(Step::network, "network namespace of the netlink socket");
    Change change{.kind = Change::Kind::network, .network_spec = spec};
    // Not that of one that the container has renamed or removed either: no start could give both.
    change.network_spec.name = free_name(spec, inside, links_);
    const auto tell = [&](const std::string& host_name) {
        change.link = {0, change.network_spec.name, host_name, true};
        announce(change);
    };
    change.link = plug_running(outside.get(), change.network_spec, net.get(), inside, tag_, NameTeller::of(tell));
    links_.push_back(change.link);
    return change;
}

Change Hotplug::detach_network(const std::string& name) {
    const auto found =
        std::find_if(links_.rbegin(), links_.rend(), [&](const PluggedLink& link) { return link.name == name; });
    if (found == links_.rend()) throw not_given(Step::network, "interface " + quote(name));
    require_running();
    return unplug(std::prev(found.base()));
}

Change Hotplug::unplug(std::vector<PluggedLink>::const_iterator link) {
    Change change{.kind = Change::Kind::network, .added = false, .link = *link};
    const std::string what = "interface " + quote(link->name);
    try {
        const Fd network = open_network(what);
        // Who was attaching it died before the index was known.
        if (change.link.index == 0) change.link.index = find_plugged(network.get(), link->host_name, tag_);
        if (change.link.index != 0) delete_link(network.get(), change.link.index);
    } catch (const Error& e) {
        // Somebody has removed it already: it is gone, as is wanted.
        if (e.code().value() != ENODEV) throw e.context().starts_with(what) ? e : e.in(what);
    }
    links_.erase(link);
    return change;
}

Fd Hotplug::open_network(const std::string& what) const {
    Fd socket = open_netlink();
    if (network_ == 0 || network_of(socket.get()) == network_) return socket;
    throw Error{Step::network, EXDEV, what,
                "the container's interfaces are in another network namespace of the host's: call from that one"};
}

Fd Hotplug::open_dev() const {
    try {
        return std::move(visit(NamespaceKind::mount, patience, [&](Visit& there) {
                             PlanBuilder& plan = there.plan();
                             const Slot slot = plan.dynamic();
                             plan.add({.op = Op::open_path,
                                       .slot = slot,
                                       .a = plan.text("/dev"),
                                       .x = clone_no_symlinks,
                                       // There, where the deadline holds, and not here: who asks a file system of the
                                       // container's for its number may wait for ever. By its number: it may be a
                                       // directory of the host's disk, too.
                                       .y = equipment_.dev_number},
                                      Step::mount, "directory '/dev'");
                             there.pass_up(slot, Step::mount, "pass up the directory '/dev'");
                         }).at(0));
    } catch (const Error& e) {
        if (e.code().value() != ESTALE) throw;
        throw e.with_remedy("the container has put something else in its place");
    }
}

bool Hotplug::change_rules(const Equipment& before, const Equipment& after) const {
    return group_ && control_of(after, false).change(*group_, control_of(before, true));
}

Change Hotplug::attach(const DeviceSpec& spec) {
    ContainerSpec container;
    container.cgroup = equipment_.own_group;
    container.uid_map = equipment_.uid_map;
    container.gid_map = equipment_.gid_map;
    if (equipment_.uid_map.empty()) container.namespaces = container.namespaces.without(NamespaceKind::user);
    check_attach(spec, container);
    const DeviceNode node = DeviceNode::find(spec, "device");
    if (is_ordinary_user()) {
        refuse("device.source: " + quote(spec.source) + ": it takes root to make a device node", "run as root");
    }
    if (equipment_.dev_number == 0) {
        refuse("device.target: there is no /dev of the container's own", "start it with dev");
    }
    require_running();
    const GivenDevice given{node.path, node.rule(spec.access)};
    for (const GivenDevice& device : equipment_.devices) {
        const bool is_free =
            device.path != node.path && !is_below(device.path, node.path) && !is_below(node.path, device.path);
        if (is_free) continue;
        // Also where its node is gone: no start could give both.
        throw Error{Step::mount, EEXIST, "device " + quote("/dev/" + node.path),
                    "the container was given " + quote("/dev/" + device.path) +
                        ": choose another target, or detach that one first"};
    }
    Equipment after = equipment_;
    after.devices.push_back(given);
    const Fd dev = open_dev();
    const Change change{.kind = Change::Kind::device, .device = given, .device_spec = spec};
    announce(change);
    // The node first: what has failed before the right is given leaves none.
    node.make(dev.get(), outside(equipment_.uid_map, spec.uid), outside(equipment_.gid_map, spec.gid),
              outside(equipment_.uid_map, 0), outside(equipment_.gid_map, 0));
    try {
        (void)change_rules(equipment_, after);
    } catch (const Error& e) {
        const int error = node.remove(dev.get());
        if (error == 0 || error == ENOENT) throw;
        throw e.in("device " + quote("/dev/" + node.path) + ", whose node is left");
    }
    equipment_ = std::move(after);
    return change;
}

Change Hotplug::detach_device(const std::string& path) {
    const std::string below = path.starts_with("/dev/") ? path.substr(5) : path;
    Equipment after = equipment_;
    const auto found = std::find_if(after.devices.rbegin(), after.devices.rend(),
                                    [&](const GivenDevice& device) { return device.path == below; });
    if (found == after.devices.rend()) throw not_given(Step::mount, "device " + quote("/dev/" + below));
    require_running();
    Change change{.kind = Change::Kind::device, .added = false, .device = *found};
    after.devices.erase(std::next(found).base());
    announce(change);
    // The right first: nothing that the container does keeps it.
    const bool is_held = change_rules(equipment_, after);
    const std::string what = "device " + quote("/dev/" + below);
    try {
        const int error = node_of(change.device).remove(open_dev().get());
        if (error != 0 && !(is_held && error == ENOENT)) {
            throw Error{Step::mount, error, "remove its node", "the container has moved or replaced it"};
        }
    } catch (const Error& e) {
        if (!is_held) throw e.in(what + ", which no device rules take away");
        left_ = e.in(what + " is detached, but its node is left");
    }
    equipment_ = std::move(after);
    return change;
}

Fd Hotplug::make_mount(const MountSpec& spec) const {
    if (spec.type != MountSpec::Type::tmpfs) {
        Mount made = Mount::make(spec);
        if (!equipment_.maps_mounts) return made.release();
        const Namespace users = Namespace::of(init_, NamespaceKind::user);
        const Fd outer{::ioctl(users.fd(), NS_GET_PARENT)};
        struct stat status {};
        if (!outer || ::fstat(outer.get(), &status) != 0 || status.st_ino != equipment_.outer_user) {
            // Whose maps would be its own choice.
            throw Error{
                Step::map_ids, ESTALE, what_of(spec),
                "init has gone on to a user namespace that it has made: attach a tmpfs, or start with the mount"};
        }
        made.id_map(users);
        return made.release();
    }
    // Who makes it owns it.
    return std::move(visit(NamespaceKind::mount, patience, [&](Visit& there) {
                         PlanBuilder& plan = there.plan();
                         const Slot slot = plan.dynamic();
                         plan.add({.op = Op::new_filesystem,
                                   .slot = slot,
                                   .a = plan.text(to_string(spec.type)),
                                   .b = plan.pairs(plan_options(spec.data)),
                                   .x = Mount::attributes(spec.options)},
                                  Step::mount, what_of(spec));
                         there.pass_up(slot, Step::mount, "pass up the mount on " + quote(spec.target));
                     }).at(0));
}

Change Hotplug::attach(const MountSpec& spec) {
    check_attach(spec);
    const bool inside = spec.type == MountSpec::Type::tmpfs;
    if (!inside && is_ordinary_user()) {
        refuse("mount.source: " + quote(spec.source) + ": it takes root to attach what the host has", "run as root");
    }
    require_running();
    const Fd made = make_mount(spec);
    const GivenMount given{spec.target, MountNumber::of(made.get()).id, MountNumber::of(made.get(), STATX_MNT_ID).id,
                           Namespace::of(init_, NamespaceKind::mount).id()};
    const Change change{.kind = Change::Kind::mount, .mount = given, .mount_spec = spec};
    equipment_.mounts.reserve(equipment_.mounts.size() + 1);
    announce(change);
    try {
        (void)visit(NamespaceKind::mount, patience, [&](Visit& there) {
            there.plan().add({.op = Op::place,
                              .slot = there.plan().inherit(made.get()),
                              .a = there.plan().text(spec.target),
                              .x = place_make_same_kind},
                             Step::mount, what_of(spec));
        });
    } catch (const Error& e) {
        take_back(change.mount);
        if (inside || e.code().value() != EINVAL) throw;
        throw e.with_remedy("a directory goes on a directory, and a file on a file");
    }
    equipment_.mounts.push_back(change.mount);
    return change;
}

void Hotplug::take_back(const GivenMount& mount) const noexcept {
    try {
        // It may be there all the same, if only the answer was missing. Not for long: this may be a second wait for the
        // same file system.
        unmount(mount, patience / 10);
    } catch (...) {
        // It is not there.
    }
}

void Hotplug::unmount(const GivenMount& mount, std::int64_t milliseconds) const {
    unmount(mount.target, mount.id, MountNumber::mask_of_kernel(), milliseconds);
}

void Hotplug::unmount(const std::string& target, std::uint64_t id, unsigned mask, std::int64_t milliseconds) const {
    (void)visit(NamespaceKind::mount, milliseconds, [&](Visit& there) {
        there.plan().add({.op = Op::unmount, .a = there.plan().text(target), .x = id, .y = mask}, Step::mount,
                         "unmount " + quote(target));
    });
}

Fd Hotplug::open_target(const std::string& target) const {
    try {
        return std::move(visit(NamespaceKind::mount, patience, [&](Visit& there) {
                             const Slot slot = there.plan().dynamic();
                             there.plan().add({.op = Op::open_path, .slot = slot, .a = there.plan().text(target)},
                                              Step::mount, "look at " + quote(target));
                             there.pass_up(slot, Step::mount, "pass up " + quote(target));
                         }).at(0));
    } catch (const Error& e) {
        if (e.code().value() != ENOENT) throw;
        return Fd{};
    }
}

std::string Hotplug::mounts_seen() const {
    const std::string file = "/proc/" + std::to_string(init_.pid()) + "/mountinfo";
    std::string text;
    if (!sys::read_file(AT_FDCWD, file.c_str(), text, most_mounts)) fail(Step::mount, "read " + quote(file));
    if (text.size() < most_mounts) return text;
    throw Error{Step::mount, E2BIG, "read " + quote(file),
                "the container has made more mounts than can be looked through: end it to be sure"};
}

void Hotplug::require_unguarded(const std::string& path, const std::string& target) const {
    if (!equipment_.guards(path)) return;
    throw Error{Step::mount, EBUSY, "unmount " + quote(target),
                "what is masked or read-only might lie bare: start without it"};
}

void Hotplug::unmount_first(const std::string& target) const {
    // Whether it is gone, nobody knows: it has no number on record.
    const Error missing{Step::mount, ESTALE, "unmount " + quote(target),
                        "the container has moved it, or taken it out: end the container to be sure of it"};
    const Fd there = open_target(target);
    if (!there) throw Error{missing};
    const Place place = place_of(there);
    const MountView view{mounts_seen()};
    const auto is_there = [&](const MountLine& line) { return line.point == place.path; };
    const auto& lines = view.lines();
    const auto on_top = std::ranges::find_if(lines, [&](const MountLine& line) { return line.id == place.mount; });
    if (on_top == lines.end() || !is_there(*on_top)) throw Error{missing};
    // Links may have led there.
    require_unguarded(place.path, target);
    const auto parts = path_parts(target);
    const auto given =
        std::ranges::count_if(equipment_.mounts, [&](const GivenMount& m) { return path_parts(m.target) == parts; });
    if (std::ranges::count_if(lines, is_there) > given) {
        throw Error{Step::mount, EBUSY, "unmount " + quote(target), "something else lies on it by now"};
    }
    try {
        unmount(target, place.mount, STATX_MNT_ID, patience);
    } catch (const Error& e) {
        if (e.code().value() != EINVAL) throw;
        throw e.with_remedy("init has gone on to namespaces that it has made, where nobody can take it");
    }
}

void Hotplug::unmount_moved(const GivenMount& mount) const {
    // Who renames a directory above it all the time may win once or twice.
    for (int attempts_left = 7;; --attempts_left) {
        const MountView view{mounts_seen()};
        const auto is_it = [&](const MountLine& line) { return line.id == mount.listed; };
        const auto found = std::find_if(view.lines().begin(), view.lines().end(), is_it);
        if (found == view.lines().end()) return require_listed(view, mount);
        try {
            return unmount(found->point, mount.id, MountNumber::mask_of_kernel(), patience);
        } catch (const Error& e) {
            if (!is_of_path(e)) throw;
            if (!view.is_visible(*found)) throw e.with_remedy("something else is mounted there by now");
            if (is_anothers_number(found->point, mount)) return require_listed(view, mount);
            if (attempts_left > 0) continue;
            throw e.with_remedy(
                "the container keeps moving it, or keeps the way to it: end the container to be sure of it");
        }
    }
}

bool Hotplug::is_anothers_number(const std::string& point, const GivenMount& mount) const {
    try {
        return is_another(open_target(point), mount);
    } catch (const Error& e) {
        if (!is_of_path(e)) throw;
        return false;
    }
}

void Hotplug::require_listed(const MountView& seen, const GivenMount& mount) const {
    const Fd root = Namespace::of(init_, NamespaceKind::mount).id() == mount.space ? open_target("/") : Fd{};
    const auto id = root ? place_of(root).mount : 0;
    const auto is_root = [&](const MountLine& line) { return line.id == id && line.point == "/"; };
    if (std::ranges::any_of(seen.lines(), is_root)) return;
    throw Error{Step::mount, ESTALE, "unmount " + quote(mount.target),
                "init has gone on to namespaces or to a root that it has made, where nobody can look for it"};
}

Change Hotplug::detach_mount(const std::string& target) {
    auto& mounts = equipment_.mounts;
    const auto parts = path_parts(target);
    const auto found = std::find_if(mounts.rbegin(), mounts.rend(),
                                    [&](const GivenMount& mount) { return path_parts(mount.target) == parts; });
    if (found == mounts.rend()) throw not_given(Step::mount, "mount on " + quote(target));
    require_running();
    for (auto later = found.base(); later != mounts.end(); ++later) {
        const bool lies_below = is_below(later->target, target);
        if (!lies_below && !is_below(target, later->target)) continue;
        throw Error{
            Step::mount, EBUSY, "unmount " + quote(target),
            quote(later->target) + " was mounted " + (lies_below ? "below" : "over") + " it: detach that first"};
    }
    if (found->id == 0) require_unguarded(target, target);
    Change change{.kind = Change::Kind::mount, .added = false, .mount = *found};
    // Where the kernel has given its number again, to one that came later, it has gone.
    const auto is_its_number = [&](const GivenMount& mount) { return mount.id != 0 && mount.id == found->id; };
    const bool has_gone = std::any_of(found.base(), mounts.end(), is_its_number);
    try {
        if (change.mount.id == 0) unmount_first(target);
        else if (!has_gone) unmount(change.mount, patience);
    } catch (const Error& e) {
        if (change.mount.id == 0 || !is_of_path(e)) throw;
        unmount_moved(change.mount);
    }
    mounts.erase(std::next(found).base());
    return change;
}

void Hotplug::undo(const Change& change) noexcept {
    tell_ = nullptr;
    try {
        switch (change.kind) {
            case Change::Kind::network: {
                const auto is_it = [&](const PluggedLink& link) { return link.index == change.link.index; };
                const auto found = std::find_if(links_.begin(), links_.end(), is_it);
                if (found != links_.end()) (void)unplug(found);
                break;
            }
            case Change::Kind::device: (void)detach_device(change.device.path); break;
            case Change::Kind::mount: (void)detach_mount(change.mount.target); break;
        }
    } catch (...) {
        // The container has ended, or its own doing keeps it: it goes with the container.
    }
}

}  // namespace caisson::inline v0::detail
