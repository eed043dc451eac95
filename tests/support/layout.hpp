// support/layout.hpp - the 28 roots of an attack: one of seven directories is a link, of one of four kinds, to what
// must not be touched.
#pragma once

#include <string>
#include <utility>

#include "support/attack.hpp"
#include "support/doctest.hpp"
#include "support/rootfs.hpp"
#include "support/shell.hpp"

namespace caisson_test {

inline std::string climbing(const std::string& path) {
    return "../../../../../../../../.." + path;
}

struct Layout {
    TestRoot root{};
    Canary canary{};
    std::string where;
    int kind;
    std::string target;  ///< of the link

    Layout(std::string place, int which) : where{std::move(place)}, kind{which} {
        const std::string targets[] = {canary.path(), climbing(canary.path()), canary / "missing",
                                       where.substr(where.rfind('/') + 1)};
        target = targets[kind];
    }
    /// Makes the link in the root, before a start.
    void place() const { replace_by_link(root / where, target); }
    /// Has a container do it that runs and may: what was there is beside it then, without what was mounted on it.
    void place_inside(Shell& shell) const {
        const std::string done = shell.ask("while umount -l " + where + " 2>/dev/null; do :; done; mv " + where + " " +
                                           where + ".was && ln -s " + target + " " + where);
        CAPTURE(done);
        REQUIRE(shell.ask("readlink " + where) == target + "\n");
    }
};

/// Calls `f` with each of them, with a user namespace and without, and looks whether the host was touched then.
template <class F>
void each_layout(F&& f) {
    for (const std::string where : {"/proc", "/sys", "/dev", "/dev/pts", "/etc", "/run", "/tmp"}) {
        for (int kind = 0; kind < 4; ++kind) {
            for (const bool user : {true, false}) {
                CAPTURE(where);
                CAPTURE(kind);
                CAPTURE(user);
                const Layout layout{where, kind};
                f(layout, user);
                const std::string touched = layout.canary.touched();
                CHECK(touched == "");
            }
        }
    }
}

/// A container whose shell may mount and rename what it likes.
inline ContainerSpec unruly(const TestRoot& root, bool user) {
    ContainerSpec spec = plain(root, user);
    spec.capabilities = CapabilitySet::system();
    spec.seccomp.profile = SeccompProfile::system;
    return spec;
}

}  // namespace caisson_test
