#include <caisson/probe.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/fd.hpp>

#include "support/doctest.hpp"

using namespace caisson;

namespace {
std::string read(const std::string& path) {
    std::ifstream file{path};
    return {std::istreambuf_iterator<char>{file}, {}};
}
std::ptrdiff_t descriptors() {
    return std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, std::filesystem::directory_iterator{});
}
bool has_capability(unsigned number) {
    const std::string status = read("/proc/self/status");
    return (std::stoull(status.substr(status.find("CapEff:") + 7), nullptr, 16) >> number & 1) != 0;
}
}  // namespace

TEST_CASE("a report has every feature once, in the order of the enumerators, with a name and a reason") {
    const ProbeReport report = probe();
    REQUIRE(report.entries().size() == static_cast<std::size_t>(Feature::containers) + 1);
    for (std::size_t i = 0; i < report.entries().size(); ++i) {
        const ProbeEntry& e = report.entries()[i];
        CAPTURE(e.name);
        CHECK(static_cast<std::size_t>(e.feature) == i);
        CHECK(&report[e.feature] == &e);
        CHECK(report.has(e.feature) == e.available);
        CHECK_FALSE(e.name.empty());
        CHECK_FALSE(e.reason.empty());
        if (e.available) CHECK(e.remedy.empty());
        CHECK(std::count_if(report.entries().begin(), report.entries().end(),
                            [&](const ProbeEntry& other) { return other.name == e.name; }) == 1);
    }
}

TEST_CASE("what needs no privilege is found on every kernel that the library supports") {
    const ProbeReport report = probe();
    CHECK(report.has(Feature::openat2));
    CHECK(report.has(Feature::pidfd));
    CHECK(report.has(Feature::close_range));
    const ProbeEntry& seccomp = report[Feature::seccomp];
    CHECK((seccomp.available || seccomp.reason == "this library was built without libseccomp"));
}

TEST_CASE("capabilities are those of the caller") {
    const ProbeReport report = probe();
    CHECK(report.has(Feature::cap_net_admin) == has_capability(12));
    CHECK(report.has(Feature::cap_sys_admin) == has_capability(21));
    CHECK(report.has(Feature::cap_sys_resource) == has_capability(24));
    CHECK(report.has(Feature::cap_mknod) == has_capability(27));
}

TEST_CASE("what may be mounted is what the kernel lets the caller mount, and the reason tells why not") {
    const ProbeReport report = probe();
    const Fd context{::fsopen("tmpfs", FSOPEN_CLOEXEC)};
    for (const Feature feature : {Feature::mount_api, Feature::mount_attributes, Feature::tmpfs, Feature::devpts}) {
        CAPTURE(report[feature].name);
        CHECK(report.has(feature) == static_cast<bool>(context));
        if (context) continue;
        if (has_capability(21)) {
            CHECK(report[feature].reason ==
                  "CAP_SYS_ADMIN is held, but the caller's mnt namespace belongs to another user namespace");
            CHECK(report[feature].remedy == "run in a new mnt namespace");
        } else {
            CHECK(report[feature].reason == "CAP_SYS_ADMIN is not held");
            CHECK(report[feature].remedy == "run as root, or inside a user namespace");
        }
    }
}

TEST_CASE("the cgroup layout is what is mounted") {
    const std::string mounts = read("/proc/self/mountinfo");
    const bool v1 = mounts.find(" - cgroup ") != std::string::npos;
    const bool v2 = mounts.find(" - cgroup2 ") != std::string::npos;
    CHECK(probe().cgroups() == (v1 && v2 ? CgroupLayout::hybrid
                                : v1     ? CgroupLayout::v1
                                : v2     ? CgroupLayout::v2
                                         : CgroupLayout::none));
    CHECK(std::string{to_string(CgroupLayout::hybrid)} == "hybrid");
}

TEST_CASE("probing changes no mount, no descriptor, no process, no module and no namespace") {
    const std::string mounts = read("/proc/self/mountinfo");
    const std::ptrdiff_t open = descriptors();
    const std::string modules = read("/proc/modules");
    char before[64]{};
    char after[64]{};
    CHECK(::readlink("/proc/self/ns/net", before, sizeof before - 1) > 0);
    (void)probe();
    CHECK(::readlink("/proc/self/ns/net", after, sizeof after - 1) > 0);
    CHECK(std::string{before} == after);
    CHECK(read("/proc/self/mountinfo") == mounts);
    CHECK(descriptors() == open);
    CHECK(read("/proc/modules") == modules);
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("the table has a line for each feature, in columns") {
    const ProbeReport report{{{Feature::openat2, "openat2", true, "opened '/'", ""},
                              {Feature::bridges, "a longer name", false, "not held", "run as root"}},
                             CgroupLayout::v2};
    CHECK(report.str() ==
          "cgroup layout  v2\n"
          "openat2        yes  opened '/'\n"
          "a longer name  no   not held (run as root)\n");
    std::istringstream lines{probe().str()};
    std::string line;
    std::size_t n = 0;
    while (std::getline(lines, line)) ++n;
    CHECK(n == probe().entries().size() + 1);
}
