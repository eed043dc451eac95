// xml_words.hpp - the words for enumerators, in both directions.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include <caisson/xml.hpp>

namespace caisson::inline v0::xml::words {

template <class Enum>
struct Names;
template <>
struct Names<Action> {
    static constexpr std::array<std::string_view, 6> list{"destroy",        "restart",          "preserve",
                                                          "rename-restart", "coredump-destroy", "coredump-restart"};
};
template <>
struct Names<Clock> {
    static constexpr std::array<std::string_view, 2> list{"utc", "localtime"};
};
template <>
struct Names<CapabilityPolicy> {
    static constexpr std::array<std::string_view, 3> list{"default", "allow", "deny"};
};
template <>
struct Names<NumaMode> {
    static constexpr std::array<std::string_view, 2> list{"strict", "restrictive"};
};
template <>
struct Names<SecurityLabel::Model> {
    static constexpr std::array<std::string_view, 2> list{"apparmor", "selinux"};
};
template <>
struct Names<Filesystem::Type> {
    static constexpr std::array<std::string_view, 5> list{"mount", "ram", "bind", "block", "file"};
};
template <>
struct Names<HostDevice::Type> {
    static constexpr std::array<std::string_view, 2> list{"storage", "misc"};
};

/// The enumerator with this name, which there must be: schema::check has seen to it.
template <class Enum>
[[nodiscard]] constexpr Enum value(std::string_view name) {
    std::size_t i = 0;
    while (Names<Enum>::list.at(i) != name) ++i;
    return static_cast<Enum>(i);
}

template <class Enum>
[[nodiscard]] constexpr std::string_view name(Enum value) {
    return Names<Enum>::list.at(static_cast<std::size_t>(value));
}

}  // namespace caisson::inline v0::xml::words
