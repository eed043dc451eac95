#include <caisson/probe.hpp>

#include <string>

#include "support/doctest.hpp"
#include "support/machine.hpp"
#include "support/ordinary_user.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {
/// The exit status of a child that becomes what `become` makes of it, and then asks `check` of its own report.
template <class Become, class Check>
int in_child(Become&& become, Check&& check) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(!become() ? 99 : check(probe()) ? 0 : 1);
    int status = -1;
    (void)::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
bool nobody() {
    return ::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0;
}
}  // namespace

TEST_CASE("root finds namespaces, mounts and terminals available") {
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const caisson_test::LeavesNothing nothing;
    const ProbeReport report = probe();
    for (const Feature feature : {Feature::namespace_mount, Feature::namespace_pid, Feature::namespace_net,
                                  Feature::mount_api, Feature::mount_attributes, Feature::tmpfs, Feature::devpts}) {
        CAPTURE(report[feature].name);
        CAPTURE(report[feature].reason);
        CHECK(report.has(feature));
    }
}

TEST_CASE("a user without privileges is told so for each thing that needs them") {
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const caisson_test::LeavesNothing nothing;
    CHECK(in_child(nobody, [](const ProbeReport& r) {
              return !r.has(Feature::mount_api) && r[Feature::mount_api].reason == "CAP_SYS_ADMIN is not held" &&
                     !r.has(Feature::tmpfs) && !r.has(Feature::cap_sys_admin) && r.has(Feature::openat2) &&
                     r.has(Feature::pidfd) && r.has(Feature::seccomp) && !r[Feature::cap_net_admin].remedy.empty();
          }) == 0);
}

TEST_CASE("an ordinary user is told that he can start containers, and with which ids") {
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    if (const char* reason = OrdinaryUser::cannot()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const OrdinaryUser user;
    const auto has = [](const ProbeReport& r, Feature feature, std::string_view reason, std::string_view remedy) {
        return r[feature].reason == reason && r[feature].remedy == remedy && r.has(feature) == remedy.empty();
    };
    CHECK(in_child([&] { return user.become(false); },
                   [&](const ProbeReport& r) {
                       return has(r, Feature::id_range, "'/etc/subuid' has no range for the caller",
                                  "usermod --add-subuids, --add-subgids") &&
                              has(r, Feature::containers,
                                  "in a user namespace: root inside is the caller, and there is nobody else", "");
                   }) == 0);
    if (!OrdinaryUser::has_tools()) CAISSON_SKIP("newuidmap is missing: install uidmap");
    CHECK(in_child([&] { return user.become(true); },
                   [&](const ProbeReport& r) {
                       return has(r, Feature::id_range, "65536 from 2100000000 on, by newuidmap(1)", "") &&
                              has(r, Feature::containers,
                                  "in a user namespace: root inside is the caller, the others are his range", "");
                   }) == 0);
    CHECK(in_child([] { return true; },
                   [&](const ProbeReport& r) {
                       return has(r, Feature::id_range, "one of its own for each container", "") &&
                              has(r, Feature::containers, "CAP_SYS_ADMIN is held", "");
                   }) == 0);
}

TEST_CASE("the root of a user namespace is told whose mount namespace it is in") {
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const caisson_test::LeavesNothing nothing;
    const auto user = [] { return ::unshare(CLONE_NEWUSER) == 0; };
    const auto user_and_mounts = [] { return ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0; };
    CHECK(in_child(user, [](const ProbeReport& r) {
              return r.has(Feature::cap_sys_admin) && !r.has(Feature::mount_api) && !r.has(Feature::id_range) &&
                     r[Feature::mount_api].remedy == "run in a new mnt namespace" && !r.has(Feature::id_mapped_mounts);
          }) == 0);
    CHECK(in_child(user_and_mounts, [](const ProbeReport& r) {
              return r.has(Feature::mount_api) && !r.has(Feature::id_mapped_mounts) && !r.has(Feature::bridges);
          }) == 0);
}

TEST_CASE("a limit of 0 namespaces is named with the way to raise it") {
    if (!own_mounts()) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN");
    const caisson_test::LeavesNothing nothing;
    const auto none = [] {
        return ::unshare(CLONE_NEWUSER) == 0 && caisson_test::write("/proc/sys/user/max_net_namespaces", "0") &&
               caisson_test::write("/proc/sys/user/max_user_namespaces", "0");
    };
    CHECK(in_child(none, [](const ProbeReport& r) {
              return !r.has(Feature::namespace_net) &&
                     r[Feature::namespace_net].reason == "user.max_net_namespaces is 0" &&
                     r[Feature::namespace_net].remedy == "raise user.max_net_namespaces with sysctl(8)" &&
                     !r.has(Feature::namespace_user) && r.has(Feature::namespace_uts);
          }) == 0);
}
