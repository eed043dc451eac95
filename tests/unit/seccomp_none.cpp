// Linked with src/seccomp_none.cpp, which takes the place of the library's own functions in this program.
#include <caisson/check.hpp>

#include <string>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("a library without libseccomp refuses to start what is to be filtered, and never leaves it unfiltered") {
    ContainerSpec spec;
    spec.name = "test";
    spec.root = "/srv/test";
    spec.command = {"/bin/true"};
    const auto refusal = [&]() -> std::string {
        try {
            check(spec);
            return "accepted";
        } catch (const Error& e) {
            return e.what();
        }
    };
    const std::string expected =
        "seccomp: this build of caisson has no system call filters: rebuild it with -Dseccomp=enabled, or set "
        "seccomp.profile to none, and seccomp.rules to nothing";
    CHECK(refusal() == expected);
    spec.seccomp.profile = SeccompProfile::system;
    CHECK(refusal() == expected);
    spec.seccomp.profile = SeccompProfile::none;
    CHECK(refusal() == "accepted");
    spec.seccomp.rules = {{"mount"}};
    CHECK(refusal() == expected);
}
