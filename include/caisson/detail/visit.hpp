// caisson/detail/visit.hpp - a process that joins a container that runs and carries out instructions there, as the
// stage's init does at a start: places a mount, makes a node, opens a file and passes it up, or executes a command.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/types.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>

namespace caisson::inline v0::detail {

/// Where a container's control groups are.
struct GroupPlace {
    std::string name{};                                              ///< of the directory in each
    std::vector<std::pair<std::string, std::string>> hierarchies{};  ///< controllers (none: v2) and parent directory
    [[nodiscard]] static GroupPlace of(const Cgroup& group) {
        GroupPlace place{.name = group.name()};
        for (const CgroupDirectory& d : group.directories()) {
            place.hierarchies.emplace_back(d.controllers, d.parent_path);
        }
        return place;
    }
};

/// A container's control groups, open to be joined.
struct GroupEntrance {
    Fd unified{};                                  ///< the v2 directory that its init is in; nothing if it has none
    std::vector<std::pair<std::string, Fd>> v1{};  ///< controllers and `tasks` file of each v1 hierarchy
    /// Throws `Step::cgroup`, with ENOENT once the group was removed.
    [[nodiscard]] [[gnu::visibility("default")]] static GroupEntrance open(const GroupPlace& group, pid_t init);
};

/// A process that executes a command in a container.
struct Visitor {
    Process process{};
    Channel channel{};              ///< to the stage that sees to it: its exit status comes from there
    Fd keeper{};                    ///< a pidfd of that stage
    Fd console{};                   ///< the controlling end of the terminal that it has opened
    std::optional<Report> ended{};  ///< the report of its end, if that has been taken from the channel
};

/// Collects what a visit does and makes it. The visitor is undumpable, shares no memory with the host and has none of
/// its descriptors but what the instructions of the second part name; nobody in the container sees it before an
/// `Op::become_visible`. It is killed when the container or the calling process ends.
///
/// The plan's first part is done outside the container, the second inside: its root is "/", its umask 022, and where
/// the container has a user namespace, its user is root there. Everything throws, without naming the container: an
/// instruction's error is its note with " (in the child)"; ESRCH: the container has ended; ETIMEDOUT: the instruction
/// took too long, as a file system of the container's may never answer; EBUSY: too many visits that took too long are
/// still there.
class Visit {
public:
    /// A visit to the container of `init`, which must outlive this object, in those of the namespaces that are not the
    /// calling thread's own. `stage_path`: see ContainerSpec.
    [[gnu::visibility("default")]] Visit(const Process& init, NamespaceSet namespaces, std::string stage_path = {});

    /// Ends the first part: where it has to, the visitor is born in the groups (which must outlive this object).
    [[gnu::visibility("default")]] void enter(const GroupEntrance* groups = nullptr);

    /// Borrows descriptors until the visit is over. Before `enter`: of the first part.
    [[nodiscard]] PlanBuilder& plan() noexcept { return plan_; }
    /// Passes a descriptor up to the host; `context` as of an instruction.
    void pass_up(Slot slot, Step step, std::string context) {
        plan_.add({.op = Op::pass_up, .slot = slot}, step, std::move(context));
    }

    /// Does it all and returns what was passed up, in that order, when nothing is left of the visit.
    [[gnu::visibility("default")]] std::vector<Fd> run(std::int64_t milliseconds);
    /// The same, and once it has been launched `talk` is called, which may wait for the visitor and then hangs up. The
    /// time begins anew when it returns. It sets the `bool&` that it is given where the visitor has not answered in
    /// time: if it throws then, that one is not waited for.
    template <class Talk>
    std::vector<Fd> run(std::int64_t milliseconds, Talk talk) {
        return run(
            milliseconds, [](void* object, bool& is_late) { (*static_cast<Talk*>(object))(is_late); }, &talk);
    }
    /// The same where the last instruction is `Op::exec`: returns once the kernel has accepted the command.
    [[nodiscard]] [[gnu::visibility("default")]] Visitor start(const std::vector<std::string>& argv,
                                                               const std::vector<std::string>& envp,
                                                               std::uint32_t passed, std::int64_t milliseconds);

private:
    [[gnu::visibility("default")]] std::vector<Fd> run(std::int64_t milliseconds, void (*talk)(void*, bool&),
                                                       void* object);

    const Process& init_;
    NamespaceSet namespaces_;
    std::string stage_path_;
    Fd marks_;
    PlanBuilder plan_;
    PlanPart first_;
};

}  // namespace caisson::inline v0::detail
