#include <caisson/detail/unprivileged.hpp>

#include <string>
#include <vector>

#include <caisson/error.hpp>

#include "support/doctest.hpp"

using namespace caisson;

namespace {
using Maps = std::vector<IdMap>;

std::string refusal(const detail::CallersIds& ids, std::uint32_t uid, std::uint32_t gid,
                    const std::vector<std::uint32_t>& groups) {
    try {
        detail::require_ids(ids, uid, gid, groups);
        return "accepted";
    } catch (const Error& e) {
        return e.what();
    }
}
}  // namespace

TEST_CASE("ranges are those of the user's name and number, and of no other line") {
    const std::string text =
        "alice:100000:65536\nbob:200000:65536\n1000:300000:10\n# alice:1:1\n\nalice\nalice:x:1\nalice:1:\n"
        "alice:5:0\nalice:4294967290:6\n:7:7\nalicex:8:8\nalice:400000:2:more\nalice:4294967290:5";
    CHECK(detail::subordinate_ids(text, "alice", 1000) ==
          Maps{{0, 100000, 65536}, {0, 300000, 10}, {0, 400000, 2}, {0, 4294967290u, 5}});
    CHECK(detail::subordinate_ids(text, "", 1000) == Maps{{0, 300000, 10}});
    CHECK(detail::subordinate_ids(text, "carol", 1001).empty());
    CHECK(detail::subordinate_ids("", "alice", 1000).empty());
    CHECK(detail::subordinate_ids("alice:100000:65536\n1000:100000:65536\n1000:165535:9\nalice:165536:9\n", "alice",
                                  1000) == Maps{{0, 100000, 65536}, {0, 165536, 9}});
}

TEST_CASE("a command's ids are among the mapped ones, and it has groups only where they can be set") {
    const detail::CallersIds range{{{0, 1000, 1}, {1, 100000, 10}}, {{0, 1000, 1}, {1, 100000, 20}}, true, false};
    CHECK(refusal(range, 10, 20, {0, 20}) == "accepted");
    const std::string remedy =
        " is not among the ids that the caller can map: give the caller a range in /etc/subuid and /etc/subgid, and "
        "install newuidmap(1) and newgidmap(1)";
    CHECK(refusal(range, 11, 0, {}) == "uid: 11" + remedy);
    CHECK(refusal(range, 0, 21, {}) == "gid: 21" + remedy);
    CHECK(refusal(range, 0, 0, {5, 4294967294u}) == "groups: 4294967294" + remedy);
    const detail::CallersIds own{{{0, 1000, 1}}, {{0, 1000, 1}}, false, true};
    CHECK(refusal(own, 0, 0, {}) == "accepted");
    CHECK(refusal(own, 0, 0, {0}) ==
          "groups: the kernel denies setgroups(2) where no group but the caller's own is mapped: give the caller a "
          "range in /etc/subgid");
}
