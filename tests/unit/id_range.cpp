// Which maps concern the ranges of ids, and which of those are written down. Reserving them needs root: see
// tests/system/id_range.cpp.
#include <caisson/detail/id_range.hpp>

#include <vector>

#include "support/doctest.hpp"

using caisson::IdMap;
using caisson::detail::IdRange;

TEST_CASE("a map concerns the ranges if a part of it begins among them") {
    CHECK_FALSE(IdRange::concerns({}));
    CHECK_FALSE(IdRange::concerns({{0, 100000, 65536}}));
    CHECK(IdRange::concerns({{0, 100000, 65536}, {65536, 0x70000000, 1}}));
    CHECK(IdRange::concerns({{0, 0xfffdffff, 1}}));
    CHECK_FALSE(IdRange::concerns({{0, 0xfffe0000, 1}}));
    // All of the host's ids: no container's own.
    CHECK_FALSE(IdRange::concerns({{0, 0, 0xffffffff}}));
    CHECK_FALSE(IdRange::concerns({{0, 0x6fffffff, 65536}}));
}

TEST_CASE("a written map is one whole range of those that automatic maps never take") {
    CHECK(IdRange::is_written({{0, 0x78000000, 65536}}));
    CHECK(IdRange::is_written({{0, 0x7fff0000, 65536}}));
    CHECK_FALSE(IdRange::is_written({{0, 0x80000000, 65536}}));
    CHECK_FALSE(IdRange::is_written({{0, 0x70000000, 65536}}));
    CHECK_FALSE(IdRange::is_written({{0, 0x78000001, 65536}}));
    CHECK_FALSE(IdRange::is_written({{0, 0x78000000, 65535}}));
    CHECK_FALSE(IdRange::is_written({{1, 0x78000000, 65536}}));
    CHECK_FALSE(IdRange::is_written({{0, 0x78000000, 65536}, {65536, 0x78010000, 65536}}));
    CHECK_FALSE(IdRange::is_written({}));
}
