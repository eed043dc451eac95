// caisson/address.hpp - network addresses as plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <netinet/in.h>

namespace caisson::inline v0 {

namespace detail {
/// A decimal number from 0 to `most`: digits only, no sign, no space, no leading zero.
[[nodiscard]] constexpr std::optional<std::uint64_t> parse_decimal(std::string_view text, std::uint64_t most) noexcept {
    if (text.empty() || (text.size() > 1 && text.front() == '0')) return std::nullopt;
    std::uint64_t value = 0;
    for (const char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        const auto digit = static_cast<std::uint64_t>(c - '0');
        if (value > (most - digit) / 10) return std::nullopt;
        value = value * 10 + digit;
    }
    return value <= most ? std::optional{value} : std::nullopt;
}
}  // namespace detail

/// A 48-bit Ethernet address.
struct MacAddress {
    std::array<std::uint8_t, 6> octets{};
    /// From "00:11:22:34:34:34"; nothing if the text is anything else, a multicast address or all
    /// zeros, which no link can have.
    [[nodiscard]] static constexpr std::optional<MacAddress> parse(std::string_view text) noexcept {
        if (text.size() != 17) return std::nullopt;
        MacAddress mac;
        const auto nibble = [](char c) -> int {
            if (c >= '0' && c <= '9') return c - '0';
            if (c >= 'a' && c <= 'f') return c - 'a' + 10;
            if (c >= 'A' && c <= 'F') return c - 'A' + 10;
            return -1;
        };
        for (std::size_t i = 0; i < 6; ++i) {
            const int high = nibble(text[3 * i]);
            const int low = nibble(text[3 * i + 1]);
            if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':')) return std::nullopt;
            mac.octets[i] = static_cast<std::uint8_t>(high * 16 + low);
        }
        if ((mac.octets[0] & 1) != 0 || mac == MacAddress{}) return std::nullopt;
        return mac;
    }
    /// "00:11:22:34:34:34", lower case.
    [[nodiscard]] std::string str() const {
        char text[18];
        std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", octets[0], octets[1], octets[2], octets[3],
                      octets[4], octets[5]);
        return text;
    }
    friend bool operator==(const MacAddress&, const MacAddress&) = default;
};

/// An IPv4 or IPv6 address.
struct IpAddress {
    std::array<std::uint8_t, 16> octets{};  ///< the first 4 or all 16, in network order
    bool v6 = false;
    /// From "10.0.0.1" or "fd00::1"; nothing if the text is anything else.
    [[nodiscard]] static std::optional<IpAddress> parse(std::string_view text) {
        const std::string copy{text};
        if (copy.find('\0') != std::string::npos) return std::nullopt;
        IpAddress ip;
        ip.v6 = copy.find(':') != std::string::npos;
        if (::inet_pton(ip.v6 ? AF_INET6 : AF_INET, copy.c_str(), ip.octets.data()) != 1) return std::nullopt;
        return ip;
    }
    [[nodiscard]] std::string str() const {
        char text[INET6_ADDRSTRLEN]{};
        (void)::inet_ntop(v6 ? AF_INET6 : AF_INET, octets.data(), text, sizeof text);
        return text;
    }
    /// Bytes in use: 4 or 16.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return v6 ? 16 : 4; }
    friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// An address with its prefix length, as in "10.0.0.1/24".
struct IpPrefix {
    IpAddress address{};
    std::uint8_t length = 0;  ///< bits, at most 32 or 128
    /// From "10.0.0.1/24" or "fd00::1/64"; nothing if the text is anything else. The length must be there.
    [[nodiscard]] static std::optional<IpPrefix> parse(std::string_view text) {
        const std::size_t slash = text.find('/');
        if (slash == std::string_view::npos) return std::nullopt;
        const auto address = IpAddress::parse(text.substr(0, slash));
        if (!address) return std::nullopt;
        const auto length = detail::parse_decimal(text.substr(slash + 1), address->v6 ? 128 : 32);
        if (!length) return std::nullopt;
        return IpPrefix{*address, static_cast<std::uint8_t>(*length)};
    }
    [[nodiscard]] std::string str() const { return address.str() + "/" + std::to_string(length); }
    friend bool operator==(const IpPrefix&, const IpPrefix&) = default;
};

/// A route: packets for `destination` go to `gateway`.
struct RouteSpec {
    IpPrefix destination{};              ///< 0.0.0.0/0 or ::/0 for the default route
    std::optional<IpAddress> gateway{};  ///< nothing: the destination is on the link
    std::uint32_t metric = 0;            ///< 0: the kernel's choice
    friend bool operator==(const RouteSpec&, const RouteSpec&) = default;
};

}  // namespace caisson::inline v0
