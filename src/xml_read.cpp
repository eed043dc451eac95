#include "xml_read.hpp"

#include <algorithm>
#include <limits>
#include <map>

#include <range/v3/action/sort.hpp>
#include <range/v3/algorithm/all_of.hpp>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/sliding.hpp>
#include <range/v3/view/transform.hpp>

#include <caisson/detail/id_range.hpp>

#include "xml_metadata.hpp"
#include "xml_words.hpp"

namespace caisson::inline v0::xml::reading {
namespace {

constexpr std::uint64_t most_id = std::numeric_limits<std::uint32_t>::max();

std::string optional_text(const Element& parent, std::string_view name) {
    const auto e = parent.child(name);
    return e ? e->text() : std::string{};
}

/// Text that init gets as an argument, or in a variable of `name_bytes` with the '='.
std::string string_for_init(const Element& e, std::size_t name_bytes = 0) {
    constexpr std::size_t longest = 131071;  // execve(2): 32 pages with the NUL
    std::string text = e.text();
    if (text.empty()) e.fail(e.tag() + " is empty");
    const std::size_t bytes = name_bytes + text.size();
    if (bytes > longest) e.fail(e.tag() + " has " + std::to_string(bytes) + " bytes: 131071 are possible");
    return text;
}

template <class Enum>
void read_word(const Element& parent, std::string_view name, Enum& into) {
    if (const auto e = parent.child(name)) into = words::value<Enum>(e->text());
}

std::string read_name(const Element& root) {
    const Element e = root.needed_child("name");
    std::string name = e.text();
    if (!is_valid_name(name)) {
        e.wrong("", name, "1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit");
    }
    return name;
}

Uuid read_uuid(const Element& root) {
    const auto e = root.child("uuid");
    if (!e) return Uuid::generate();
    const auto uuid = Uuid::parse(e->text());
    if (!uuid) e->wrong("", e->text(), "32 hexadecimal digits, in groups of 8, 4, 4, 4 and 12 with '-' between");
    return *uuid;
}

std::string read_title(const Element& root) {
    std::string title = optional_text(root, "title");
    if (title.find('\n') != std::string::npos) root.needed_child("title").fail("<title> has more than one line");
    return title;
}

std::pair<std::string, std::string> read_variable(const Element& e) {
    const std::string name = e.needed_attribute("name");
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    const bool good = !name.empty() && letter(name.front()) &&
                      ranges::all_of(name, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
    if (!good) e.wrong("name", name, "letters, digits and '_', the first no digit");
    return {name, string_for_init(e, name.size() + 1)};
}

/// Whom init runs as: a name of the root's own, or a number; '+' says that it is a number.
std::string read_owner(const Element& e) {
    std::string text = e.text();
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    const std::string number = text.starts_with('+') ? text.substr(1) : text;
    const bool is_number = number != "4294967295" && caisson::detail::parse_decimal(number, most_id).has_value();
    const bool is_name = !text.empty() && text.size() <= 32 && letter(text.front()) &&
                         ranges::all_of(text, [&](char c) { return letter(c) || digit(c) || c == '-'; });
    if (!is_number && !is_name) {
        e.wrong("", text, "a name, of up to 32 letters, digits, '_' and '-', or a number from 0 to 4294967294");
    }
    return text;
}

void read_os(const Element& os, Domain& domain) {
    const Element type = os.needed_child("type");
    domain.arch = type.attribute("arch").value_or(domain.arch);
    if (const auto init = os.child("init")) domain.init = init->file_path("");
    // "/" is where init starts in any case; libvirt's schema has no such <initdir>.
    if (const auto directory = os.child("initdir"); directory && directory->path("") != "/") {
        domain.init_directory = directory->path("");
    }
    const auto user = os.child("inituser");
    const auto group = os.child("initgroup");
    // libvirt takes one alone, but its schema does not.
    if (user && !group) user->fail("<inituser> needs <initgroup> beside it");
    if (group && !user) group->fail("<initgroup> needs <inituser> beside it");
    if (user) domain.init_user = read_owner(*user);
    if (group) domain.init_group = read_owner(*group);
    for (const Element& e : os.children("initarg")) domain.init_arguments.push_back(string_for_init(e));
    std::map<std::string, int> lines;
    for (const Element& e : os.children("initenv")) {
        auto variable = read_variable(e);
        const auto [first, is_new] = lines.try_emplace(variable.first, e.line());
        if (!is_new) {
            e.fail("a second <initenv name='" + variable.first + "'>: the first is in line " +
                   std::to_string(first->second));
        }
        domain.init_environment.push_back(std::move(variable));
    }
}

/// An extent of an id map, and where it stands.
struct Extent {
    IdMap map;
    Element at;
};

Extent read_extent(const Element& e) {
    const auto id = [&](std::string_view name, std::uint64_t least) {
        (void)e.needed_attribute(name);
        return static_cast<std::uint32_t>(e.number(name, least, most_id));
    };
    const IdMap map{id("start", 0), id("target", 0), id("count", 1)};
    // The last number is not an id: it says "none" to system calls. See user_namespaces(7).
    if (std::uint64_t{map.inside} + map.count > most_id) e.fail(e.tag() + " ends behind the last id, 4294967294");
    if (std::uint64_t{map.outside} + map.count > most_id)
        e.fail("the target of " + e.tag() + " ends behind the last id, 4294967294");
    return {map, e};
}

void refuse_overlap(const std::vector<Extent>& sorted, std::uint32_t IdMap::*start, std::string_view side) {
    for (auto&& pair : sorted | ranges::views::sliding(2)) {
        const Extent& a = pair[0];
        const Extent& b = pair[1];
        if (std::uint64_t{a.map.*start} + a.map.count <= b.map.*start) continue;
        const auto [first, second] = std::minmax({a.at.line(), b.at.line()});
        b.at.fail(b.at.tag() + " overlaps the one of line " + std::to_string(first) + " " + std::string{side}, second);
    }
}

std::vector<IdMap> read_map(const Element& idmap, std::string_view name) {
    constexpr std::size_t most_extents = 340;  // the kernel's limit since Linux 4.15
    auto extents = idmap.children(name) | ranges::views::transform(read_extent) | ranges::to<std::vector>();
    if (extents.empty()) idmap.fail("<idmap> needs both <uid> and <gid>");
    if (extents.size() > most_extents)
        extents[most_extents].at.fail("more than 340 <" + std::string{name} + "> in <idmap>");
    const auto by = [](std::uint32_t IdMap::*start) { return [start](const Extent& e) { return e.map.*start; }; };
    refuse_overlap(ranges::actions::sort(std::vector{extents}, std::less{}, by(&IdMap::outside)), &IdMap::outside,
                   "on the host");
    extents |= ranges::actions::sort(std::less{}, by(&IdMap::inside));
    refuse_overlap(extents, &IdMap::inside, "in the container");
    if (extents.front().map.inside != 0) {
        extents.front().at.fail("no <" + std::string{name} + "> starts at 0: root inside must be mapped");
    }
    auto map = extents | ranges::views::transform(&Extent::map) | ranges::to<std::vector>();
    if (const std::size_t bytes = caisson::detail::map_text(map).size(); bytes > caisson::detail::longest_map_text) {
        idmap.fail("the <" + std::string{name} + "> in <idmap> are " + std::to_string(bytes) +
                   " bytes for the kernel, which takes 4095: give fewer");
    }
    return map;
}

void read_features(const Element& features, Domain& domain) {
    domain.acpi = features.child("acpi").has_value();
    domain.apic = features.child("apic").has_value();
    domain.pae = features.child("pae").has_value();
    domain.private_network = features.child("privnet").has_value();
    const auto capabilities = features.child("capabilities");
    if (!capabilities) return;
    domain.capability_policy = words::value<CapabilityPolicy>(capabilities->attribute("policy").value_or("default"));
    for (const Element& e : capabilities->children()) {
        const bool on = e.attribute("state").value_or("on") == "on";
        (on ? domain.capabilities_on : domain.capabilities_off).add(*CapabilitySet::number(e.name()));
    }
}

/// libvirt's rules: a static label is the document's, and has no base; without a label there is none of the others.
void read_security_label(const Element& e, Domain& domain) {
    const auto type = e.attribute("type");
    if (!type) {
        e.fail("<seclabel> without a type is type='dynamic', which is libvirt's, but caisson does not support it yet");
    }
    const bool fixed = *type == "static";
    for (const Element& child : e.children()) {
        if (fixed && child.name() != "baselabel") continue;
        child.fail(child.tag() + " is not for <seclabel type='" + *type + "'>");
    }
    if (!fixed) return;
    const std::string model = e.needed_attribute("model");
    if (model == "dac") e.fail("<seclabel model='dac'> is libvirt's, but caisson does not support it yet");
    if (model != "apparmor" && model != "selinux") e.wrong("model", model, "'apparmor' or 'selinux'");
    const Element label = e.needed_child("label");
    const std::string text = label.text();
    const bool good =
        !text.empty() && text.size() <= 1024 && ranges::all_of(text, [](char c) { return c > ' ' && c < 127; });
    if (!good) label.wrong("", text, "1 to 1024 characters of ASCII without white space");
    if (domain.security_label) e.fail("a second <seclabel type='static'>: a container has one label");
    domain.security_label = SecurityLabel{words::value<SecurityLabel::Model>(model), text};
}

}  // namespace

Domain domain(const Element& root) {
    if (!root.attribute("type")) root.fail("<domain> needs the attribute 'type'");
    // What a running domain's document adds is dropped, but it must be that.
    if (root.attribute("id")) (void)root.number("id", 0, std::numeric_limits<std::int32_t>::max());
    Domain domain;
    for (const Element& label : root.children("seclabel")) read_security_label(label, domain);
    domain.name = read_name(root);
    domain.uuid = read_uuid(root);
    domain.title = read_title(root);
    domain.description = optional_text(root, "description");
    if (const auto e = root.child("metadata")) domain.metadata = metadata::read(*e);
    limits(root, domain);
    if (const auto vcpu = root.child("vcpu")) domain.vcpus = static_cast<std::uint32_t>(vcpu->number("", 1, 65535));
    read_os(root.needed_child("os"), domain);
    if (const auto idmap = root.child("idmap")) {
        domain.uid_map = read_map(*idmap, "uid");
        domain.gid_map = read_map(*idmap, "gid");
    }
    if (const auto features = root.child("features")) read_features(*features, domain);
    if (const auto clock = root.child("clock")) domain.clock = words::value<Clock>(clock->needed_attribute("offset"));
    read_word(root, "on_poweroff", domain.on_poweroff);
    read_word(root, "on_reboot", domain.on_reboot);
    read_word(root, "on_crash", domain.on_crash);
    if (const auto e = root.child("devices")) devices(*e, domain);
    return domain;
}

}  // namespace caisson::inline v0::xml::reading
