#include <caisson/address.hpp>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("an address with its prefix is read and written back") {
    for (const char* text : {"10.0.0.1/24", "0.0.0.0/0", "192.168.122.2/32", "fd00::1/64", "::/0"}) {
        const auto prefix = IpPrefix::parse(text);
        REQUIRE(prefix);
        CHECK(prefix->str() == text);
    }
}

TEST_CASE("an address that is not exactly one is refused") {
    for (const char* text : {"", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/+8", "10.0.0.1/08",
                             " 10.0.0.1/8", "10.0.0.1/8 ", "10.0.0/8", "256.0.0.1/8", "fd00::1/129", "fd00::1"}) {
        CAPTURE(text);
        CHECK_FALSE(IpPrefix::parse(text));
    }
    CHECK_FALSE(IpAddress::parse(std::string_view{"10.0.0.1\0x", 10}));
}

TEST_CASE("a MAC address is read in either case and written in lower case") {
    CHECK(MacAddress::parse("00:11:22:AA:bb:Cc")->str() == "00:11:22:aa:bb:cc");
    for (const char* text : {"", "00:11:22:34:34", "00:11:22:34:34:3g", "00-11-22-34-34-34", "01:11:22:34:34:34",
                             "00:00:00:00:00:00", "00:11:22:34:34:341"}) {
        CAPTURE(text);
        CHECK_FALSE(MacAddress::parse(text));
    }
}

TEST_CASE("a decimal number has no sign, no space, no leading zero and does not wrap") {
    CHECK(detail::parse_decimal("18446744073709551615", UINT64_MAX) == UINT64_MAX);
    for (const char* text :
         {"", "-1", "+1", " 1", "1 ", "01", "0x1", "1e3", "18446744073709551616", "99999999999999999999"}) {
        CAPTURE(text);
        CHECK_FALSE(detail::parse_decimal(text, UINT64_MAX));
    }
    CHECK_FALSE(detail::parse_decimal("256", 255));
    CHECK(detail::parse_decimal("0", 255) == 0u);
}
