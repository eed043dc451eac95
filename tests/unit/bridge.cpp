#include <caisson/bridge.hpp>

#include <stdexcept>
#include <type_traits>

#include "support/doctest.hpp"

using namespace caisson;

namespace {
std::string refusal(std::string_view name) {
    try {
        detail::check_link_name(name, "bridge");
    } catch (const Error& e) {
        CHECK(e.step() == Step::network);
        return e.what();
    }
    return "";
}
}  // namespace

TEST_CASE("names that the kernel takes for a link are let through") {
    for (const char* name : {"br0", "a", "fifteen-bytes-x", "br0.17", "x_y-z@1", "..."}) CHECK(refusal(name) == "");
}

TEST_CASE("a name that is unfit for a link is refused with the reason, and shown so that a terminal is safe") {
    CHECK(refusal("") == "bridge '': Invalid argument: it needs a name");
    CHECK(refusal("sixteen-bytes-xx") ==
          "bridge 'sixteen-bytes-xx': File name too long: the name of a link has at most 15 bytes");
    CHECK(refusal("..") == "bridge '..': Invalid argument: this name is reserved");
    for (const char* name : {".", "all", "default"}) CHECK(refusal(name).ends_with("this name is reserved"));
    CHECK(refusal("br\x1b[0m")
              .starts_with("bridge 'br\\x1b[0m': Invalid argument: the name of a link is printable ASCII"));
    for (const char* name : {"a/b", "a:b", "a b", "veth%d", "a\nb", "br\xc3\xa9", "a\x7f"}) CHECK(refusal(name) != "");
    CHECK(refusal(std::string_view{"a\0b", 3}) != "");
}

TEST_CASE("a bridge's name is looked at before anything is asked of the kernel") {
    CHECK_THROWS_AS((void)Bridge::create("sixteen-bytes-xx"), Error);
    CHECK_THROWS_AS((void)Bridge::use("a/b"), Error);
}

TEST_CASE("a bridge is moved, never copied") {
    CHECK_FALSE(std::is_copy_constructible_v<Bridge>);
    CHECK_FALSE(std::is_copy_assignable_v<Bridge>);
    CHECK(std::is_nothrow_move_constructible_v<Bridge>);
    CHECK(std::is_nothrow_move_assignable_v<Bridge>);
}
