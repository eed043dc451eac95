// caisson/detail/hotplug.hpp - what is given to a container that runs, or taken from it. Implemented in
// src/hotplug.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <caisson/cgroup.hpp>
#include <caisson/detail/asking.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/device.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/process.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

class MountView;

/// What there is to know of a container, for a `Hotplug` in whatever process.
struct HotplugState {
    Equipment equipment{};
    std::vector<PluggedLink> links{};
    std::uint64_t network = 0;  ///< the host's network namespace that they are in, see `network_of`
    std::string group{};        ///< name of its control groups; empty: it has none
    std::vector<std::pair<std::string, std::string>> directories{};  ///< of the groups above: controllers and path
    std::string tag{};                                               ///< of the links' owner, see Owner
};
template <class A, SameButConst<HotplugState> S>
void fields(A& archive, S& s) {
    auto& [equipment, links, network, group, directories, tag] = s;
    archive(equipment, links, network, group, directories, tag);
}

/// Works on a container from outside, in the calling process, with nothing of its owner's in its hands: who keeps the
/// records notes the result. One at a time for each container, since rules for devices are replaced as a whole.
///
/// All or nothing. Throws without the container's name: `Step::check_spec`, what a start throws for the same thing, and
/// ESRCH once the container has ended. A container that is suspended gets what it is given; who waits for a file system
/// of its own meanwhile gets ETIMEDOUT after some seconds.
class Hotplug {
public:
    Hotplug(Process init, HotplugState state)
        : init_{std::move(init)},
          equipment_{std::move(state.equipment)},
          links_{std::move(state.links)},
          network_{state.network},
          tag_{std::move(state.tag)} {
        if (!state.group.empty()) group_ = Cgroup::reach(std::move(state.group), std::move(state.directories));
    }

    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const NetworkSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const DeviceSpec& spec);
    [[nodiscard]] [[gnu::visibility("default")]] Change attach(const MountSpec& spec);
    /// By the name inside; by the path of the node, absolute or below /dev; by the target. ENOENT where the container
    /// has been given no such thing, EBUSY where a mount lies below or over one that it was given later.
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_network(const std::string& name);
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_device(const std::string& path);
    [[nodiscard]] [[gnu::visibility("default")]] Change detach_mount(const std::string& target);
    /// Calls `tell` with what is about to be given, before it is, so that it is known of if this process dies half-way;
    /// the index of a network's link is 0 then, and a name that is lost to somebody else brings a second call. As well
    /// with a device that is about to be taken. If that throws, nothing is done. `tell` is borrowed.
    template <class Tell>
    void tell_before(const Tell& tell) noexcept {
        teller_ = &tell;
        tell_ = [](const void* teller, const Change& change) { (*static_cast<const Tell*>(teller))(change); };
    }
    /// Then whatever was done goes with it, also where its successor has been started by now. May take 100 ms.
    [[nodiscard]] bool container_ended() const { return is_ending(init_); }
    /// As `container_ended`, once nothing is left of it; at once.
    [[nodiscard]] bool init_ended() const noexcept { return init_.ended(); }
    /// Calls `note`, and takes back what `attach` has given where that throws. Then throws what a container has kept of
    /// what it was to lose, and can no longer use.
    template <class Note>
    void keep(const Change& change, Note&& note) {
        try {
            note();
        } catch (...) {
            if (change.added) undo(change);
            throw;
        }
        if (left_) throw Error{*left_};
    }

private:
    [[gnu::visibility("default")]] void undo(const Change& change) noexcept;
    void require_running() const;
    void announce(Change change) const {
        change.is_half = true;
        if (tell_ != nullptr) tell_(teller_, change);
    }
    /// Of the network namespace that the container's links are in.
    [[nodiscard]] Fd open_network(const std::string& what) const;
    [[nodiscard]] Change unplug(std::vector<PluggedLink>::const_iterator link);
    void take_back(const GivenMount& mount) const noexcept;
    /// One that came while the container ran.
    void unmount(const GivenMount& mount, std::int64_t milliseconds) const;
    /// Unmounts what is not where it was put, but where the container has it by now. What it has taken out is gone.
    void unmount_moved(const GivenMount& mount) const;
    /// True where what lies at `point` has the number by which mountinfo listed the mount, and is another.
    [[nodiscard]] bool is_anothers_number(const std::string& point, const GivenMount& mount) const;
    /// Throws ESTALE where init's mountinfo may leave it out though it is mounted.
    void require_listed(const MountView& seen, const GivenMount& mount) const;
    /// Throws EBUSY where a mount of the start's hides, or carries, what is masked or read-only.
    void require_unguarded(const std::string& path, const std::string& target) const;
    /// One that init made at the start.
    void unmount_first(const std::string& target) const;
    void unmount(const std::string& target, std::uint64_t id, unsigned mask, std::int64_t milliseconds) const;
    /// Init's mountinfo.
    [[nodiscard]] std::string mounts_seen() const;
    /// What lies at `target` by now, of the container's; none where nothing does.
    [[nodiscard]] Fd open_target(const std::string& target) const;
    /// Detached.
    [[nodiscard]] Fd make_mount(const MountSpec& spec) const;
    [[nodiscard]] Fd open_dev() const;
    /// What a process that joins the container's namespaces `kind` does there, as `add` puts it into a Visit; what it
    /// passes up.
    template <class Add>
    std::vector<Fd> visit(NamespaceKind kind, std::int64_t milliseconds, Add&& add) const;
    /// False where the container is held to none.
    [[nodiscard]] bool change_rules(const Equipment& before, const Equipment& after) const;

    Process init_;
    Equipment equipment_;
    std::vector<PluggedLink> links_;
    std::uint64_t network_;
    std::optional<Cgroup> group_;
    std::string tag_;
    std::optional<Error> left_;
    const void* teller_ = nullptr;
    void (*tell_)(const void*, const Change&) = nullptr;
};

}  // namespace caisson::inline v0::detail
