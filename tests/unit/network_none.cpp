// Linked with src/network_none.cpp, which takes the place of the library's own functions in this program.
#include <caisson/bridge.hpp>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("a library without networks says so and how to get them") {
    const char* const text =
        "this build of caisson has no networks: Operation not supported: rebuild it with -Dnetwork=enabled";
    CHECK_THROWS_WITH_AS((void)Bridge::create("br0"), text, Error);
    CHECK_THROWS_WITH_AS((void)Bridge::use("br0"), text, Error);
    CHECK_THROWS_WITH_AS(detail::check_network({NetworkSpec{}}), text, Error);
    CHECK_THROWS_WITH_AS((void)detail::plug_container(-1, {}, 0, -1, -1), text, Error);
    CHECK_NOTHROW(detail::check_network({}));
    std::vector<NetworkUsage> usage;
    CHECK_NOTHROW(detail::read_network_usage(-1, {}, usage));
    CHECK(usage.empty());
    CHECK(detail::sweep_links().empty());
}
