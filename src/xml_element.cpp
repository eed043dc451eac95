#include "xml_element.hpp"

#include <algorithm>
#include <limits>

#include <range/v3/algorithm/any_of.hpp>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/split.hpp>
#include <range/v3/view/transform.hpp>

#include <caisson/address.hpp>

namespace caisson::inline v0::xml {
namespace {

/// Bytes in one of libvirt's units, in either case; nothing if there is no such unit.
std::optional<std::uint64_t> bytes_of_unit(std::string_view unit) {
    std::string lower{unit};
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower == "b" || lower == "byte" || lower == "bytes") return 1;
    const std::size_t power = lower.empty() ? std::string_view::npos : std::string_view{"kmgtpe"}.find(lower.front());
    if (power == std::string_view::npos) return std::nullopt;
    const std::string_view rest = std::string_view{lower}.substr(1);
    if (!rest.empty() && rest != "b" && rest != "ib") return std::nullopt;
    const std::uint64_t base = rest == "b" ? 1000 : 1024;
    std::uint64_t bytes = base;
    for (std::size_t i = 0; i < power; ++i) bytes *= base;
    return bytes;
}

}  // namespace

std::optional<Element> Element::child(std::string_view name) const {
    for (const Element& found : children(name)) return found;
    return std::nullopt;
}

Element Element::needed_child(std::string_view name) const {
    const std::optional<Element> found = child(name);
    if (!found) fail(tag() + " needs the element <" + std::string{name} + ">");
    return *found;
}

std::optional<std::string> Element::attribute(std::string_view name) const {
    for (const auto* a : attributes()) {
        if (a->Name() == name) return a->Value();
    }
    return std::nullopt;
}

int Element::attribute_line(std::string_view name) const {
    for (const auto* a : attributes()) {
        if (a->Name() == name) return a->GetLineNum();
    }
    return line();
}

std::string Element::needed_attribute(std::string_view name) const {
    auto found = attribute(name);
    if (!found) fail(tag() + " needs the attribute " + detail::quote(name));
    return *std::move(found);
}

std::string Element::text() const {
    std::string all;
    for (const auto* node : nodes()) {
        if (node->ToText() != nullptr) all += node->Value();
    }
    return all;
}

void Element::wrong(std::string_view name, std::string_view value, std::string_view must_be) const {
    const std::string what = name.empty() ? tag() : "attribute " + detail::quote(name) + " of " + tag();
    std::size_t length = std::min<std::size_t>(value.size(), 100);
    while (length < value.size() && (static_cast<unsigned char>(value[length]) & 0xc0) == 0x80) --length;
    const std::string shown = detail::quote(value.substr(0, length)) + (length < value.size() ? "..." : "");
    fail(what + " is " + shown + ": it must be " + std::string{must_be}, attribute_line(name));
}

std::uint64_t Element::number(std::string_view name, std::uint64_t least, std::uint64_t most) const {
    const std::string written = value(name);
    const auto number = caisson::detail::parse_decimal(written, most);
    if (!number || *number < least) {
        wrong(name, written, "a decimal number from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return *number;
}

std::string Element::path(std::string_view name) const {
    const std::string written = value(name);
    constexpr std::size_t most = 4095;  // PATH_MAX counts the NUL
    const bool printable = !ranges::any_of(written, [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; });
    if (!written.starts_with('/') || !printable || written.size() > most) {
        wrong(name, written, "an absolute path without control characters, of at most 4095 bytes");
    }
    std::string clean;
    for (auto&& part : written | ranges::views::split('/')) {
        const auto component = part | ranges::to<std::string>();
        if (component == "." || component == "..") wrong(name, written, "a path without '.' and '..'");
        if (!component.empty()) clean.append("/").append(component);
    }
    return clean.empty() ? "/" : clean;
}

std::string Element::file_path(std::string_view name) const {
    std::string file = path(name);
    if (file == "/") wrong(name, value(name), "the path of a program");
    return file;
}

std::uint64_t Element::kib(std::string_view name, std::string_view unit_name) const {
    const std::string unit = attribute(unit_name).value_or("KiB");
    const auto factor = bytes_of_unit(unit);
    if (!factor)
        wrong(unit_name, unit,
              "'bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB' or 'KB', 'MB', 'GB', 'TB', 'PB', 'EB'");
    __extension__ using Wide = unsigned __int128;
    constexpr std::uint64_t most_kib = std::numeric_limits<std::uint64_t>::max() / 1024;
    const std::uint64_t count = number(name, 1, std::numeric_limits<std::uint64_t>::max());
    const Wide kib = (static_cast<Wide>(count) * *factor + 1023) / 1024;
    if (kib > most_kib) {
        wrong(name, value(name), "less than 2^64 bytes, and its unit is " + detail::quote(unit));
    }
    return static_cast<std::uint64_t>(kib);
}

}  // namespace caisson::inline v0::xml
