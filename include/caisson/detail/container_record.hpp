// caisson/detail/container_record.hpp - what the clients of a helper need to know of its container, as a file that the
// helper cannot change once it has locked itself down.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include <caisson/detail/archive.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// A directory that the calling process alone has locked. It is unlocked by hand: closing would leave the lock with a
/// copy that fork(2) has made of the process meanwhile.
class LockedDirectory {
public:
    explicit LockedDirectory(Fd locked) noexcept : fd_{std::move(locked)} {}
    LockedDirectory(LockedDirectory&&) noexcept = default;
    LockedDirectory& operator=(LockedDirectory&&) = delete;
    ~LockedDirectory() { unlock(); }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[gnu::visibility("default")]] void unlock() noexcept;

private:
    Fd fd_;
};

/// The file `container.TAG` in a helper's directory RUN/NAME/, where TAG is init's, as in `state`, which is written
/// after it. Clients act on it with rights that the helper has given up; so they believe it and not the helper, and
/// whoever of them attaches something writes that here, under a lock.
struct ContainerRecord {
    ExecDefaults defaults{};
    bool has_command_below = false;  ///< see Running
    HotplugState hotplug{};

    [[nodiscard]] static std::string file_of(const Owner& init) { return StateRecord::container_prefix + init.tag(); }
    /// Nothing where there is none that can be read.
    [[nodiscard]] [[gnu::visibility("default")]] static std::optional<ContainerRecord> read(int directory,
                                                                                            const Owner& init);
    /// In the place of what is there, all or nothing. Throws `Step::helper`, with `path` as the directory's name.
    [[gnu::visibility("default")]] void write(int directory, const Owner& init, const std::string& path) const;
    /// The directory, locked for who writes next. Throws `Step::helper`: EBUSY where somebody else has it.
    [[nodiscard]] [[gnu::visibility("default")]] static LockedDirectory lock(const std::string& path);
    void note(const Change& change);
};

inline void ContainerRecord::note(const Change& change) {
    hotplug.equipment.note(change);
    // One that somebody was about to take may be there still.
    if (change.kind != Change::Kind::network || (!change.added && change.is_half)) return;
    auto& links = hotplug.links;
    // One that was only intended may have no index yet.
    std::erase_if(links, [&](const PluggedLink& link) {
        return link.index == 0 ? link.host_name == change.link.host_name : link.index == change.link.index;
    });
    if (change.added) links.push_back(change.link);
}

template <class A, SameButConst<ExecDefaults> S>
void fields(A& archive, S& s) {
    auto& [spec, deny_setgroups] = s;
    archive(spec, deny_setgroups);
}
template <class A, SameButConst<ContainerRecord> S>
void fields(A& archive, S& s) {
    auto& [defaults, has_command_below, hotplug] = s;
    archive(defaults, has_command_below, hotplug);
}

}  // namespace caisson::inline v0::detail
