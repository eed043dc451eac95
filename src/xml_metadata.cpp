#include "xml_metadata.hpp"

#include <algorithm>
#include <map>

#include <range/v3/algorithm/none_of.hpp>
#include <tinyxml2.h>

#include <caisson/detail/sys.hpp>

#include "xml_gate.hpp"
#include "xml_write.hpp"

namespace caisson::inline v0::xml {
namespace {

using detail::quote;

/// The part before the colon; empty where there is none.
std::string_view prefix_of(std::string_view name) {
    const std::size_t colon = name.find(':');
    return colon == std::string_view::npos ? std::string_view{} : name.substr(0, colon);
}

/// The attribute that declares the namespace with this prefix.
std::string declaration(std::string_view prefix) {
    return prefix.empty() ? std::string{"xmlns"} : std::string{"xmlns:"}.append(prefix);
}

/// An attribute in libxml2's form: in the quotes that need less escaping, so that a tag never becomes longer than that
/// which it was read from; double ones where that is the same.
std::string attribute(std::string_view name, std::string_view value) {
    const bool single = std::ranges::count(value, '\'') < std::ranges::count(value, '"');
    const char quotation = single ? '\'' : '"';
    std::string out = std::string{" "}.append(name).append("=") + quotation;
    for (const char c : value) {
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '\t': out += "&#9;"; break;
            case '\n': out += "&#10;"; break;
            case '\r': out += "&#13;"; break;
            default:
                if (c == quotation) out += single ? "&apos;" : "&quot;";
                else out += c;
        }
    }
    return out += quotation;
}

/// Writes elements, with other prefixes than they have.
struct Printer {
    std::string_view from;      ///< of the elements that get another
    std::string_view to;        ///< which; empty: none
    std::string_view left_out;  ///< an attribute of the outermost element; empty: none
    std::string_view added;     ///< the same, as text
    bool in_lines = false;      ///< each in a line of its own, where there is no text beside it

    [[nodiscard]] std::string print(const Element& e, std::size_t depth) const {
        return print(e, depth, true, in_lines);
    }

private:
    [[nodiscard]] std::string print(const Element& e, std::size_t depth, bool outermost, bool lines) const {
        std::string name{e.name()};
        if (prefix_of(name) == from) {
            const std::string local = name.substr(from.empty() ? 0 : from.size() + 1);
            name = to.empty() ? local : std::string{to}.append(":").append(local);
        }
        std::string out = "<" + name;
        if (outermost) out += added;
        for (const auto* a : e.attributes()) {
            if (!outermost || a->Name() != left_out) out += attribute(a->Name(), a->Value());
        }
        lines = lines && ranges::none_of(e.nodes(), [](const auto* node) { return node->ToText() != nullptr; });
        std::string inside;
        for (const auto* node : e.nodes()) {
            if (const auto* text = node->ToText()) {
                inside += writing::escaped_text(text->Value());
            } else if (const auto* child = node->ToElement()) {
                if (lines) inside.append("\n").append(2 * depth + 2, ' ');
                inside += print(e.of(child), depth + 1, false, lines);
            }
        }
        if (inside.empty()) return out += "/>";
        if (lines) inside.append("\n").append(2 * depth, ' ');
        return out += ">" + inside + "</" + name + ">";
    }
};

constexpr Printer as_it_is{.from = {}, .to = {}, .left_out = {}, .added = {}};

/// True for what may stand before the colon of a name, in ASCII.
bool is_prefix(std::string_view key) {
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    const auto may_follow = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.'; };
    return !key.empty() && is_letter(key.front()) && std::ranges::all_of(key, may_follow) && !key.starts_with("xml");
}

/// A document's one element, for as long as this lives.
class Parsed {
public:
    Parsed(std::string_view text, std::string_view source) : source_{source} {
        gate::check(text, source);
        if (document_.Parse(text.data(), text.size()) != tinyxml2::XML_SUCCESS) {
            throw XmlError{source, std::max(1, document_.ErrorLineNum()), document_.ErrorName()};
        }
    }
    [[nodiscard]] Element root() const { return {document_.RootElement(), source_}; }

private:
    std::string_view source_;
    tinyxml2::XMLDocument document_{};
};

}  // namespace

namespace metadata {

std::vector<Metadata> read(const Element& e) {
    std::vector<Metadata> all;
    std::map<std::string, int> lines;
    for (const Element& child : e.children()) {
        const std::string needed = declaration(prefix_of(child.name()));
        const std::string uri = child.attribute(needed).value_or("");
        if (uri.empty()) child.fail(child.tag() + " in <metadata> must say its namespace: " + needed + "='URI'");
        const auto [first, is_new] = lines.try_emplace(uri, child.line());
        if (!is_new) {
            child.fail("a second element of the namespace " + quote(uri) + " in <metadata>: the first is in line " +
                       std::to_string(first->second));
        }
        all.push_back({uri, as_it_is.print(child, 0)});
    }
    return all;
}

std::string print(const Metadata& metadata, std::size_t depth) {
    const Parsed parsed{metadata.xml, "<metadata>"};
    return Printer{.from = {}, .to = {}, .left_out = {}, .added = {}, .in_lines = true}.print(parsed.root(), depth);
}

}  // namespace metadata

std::optional<std::string> metadata_of(const Domain& domain, std::string_view uri) {
    const auto found = std::ranges::find(domain.metadata, uri, &Metadata::uri);
    if (found == domain.metadata.end()) return std::nullopt;
    const Parsed parsed{found->xml, "<metadata>"};
    const Element root = parsed.root();
    const std::string prefix{prefix_of(root.name())};
    const std::string declared = declaration(prefix);
    return Printer{.from = prefix, .to = {}, .left_out = declared, .added = {}, .in_lines = true}.print(root, 0);
}

void set_metadata(Domain& domain, std::string_view uri, std::string_view key, std::string_view element) {
    const auto refuse = [&](const std::string& what, std::string_view remedy) {
        throw Error{Step::check_spec, 0, "metadata of domain " + quote(domain.name) + ": " + what, remedy};
    };
    if (uri.empty()) refuse("the namespace is empty", "give a URI of your own");
    if (!is_prefix(key)) {
        refuse("the key " + quote(key) + " is no prefix of a namespace",
               "give a letter and letters, digits, '-', '_' and '.', not beginning with 'xml'");
    }
    const Parsed parsed{element, "<metadata>"};
    const Element root = parsed.root();
    if (!prefix_of(root.name()).empty() || root.attribute("xmlns") || root.attribute(declaration(key))) {
        refuse(root.tag() + " has a namespace already", "leave it out: the URI and the key stand for it");
    }
    const std::string added = attribute(declaration(key), uri);
    Metadata made{std::string{uri}, Printer{.from = {}, .to = key, .left_out = {}, .added = added}.print(root, 0)};
    const auto found = std::ranges::find(domain.metadata, uri, &Metadata::uri);
    if (found != domain.metadata.end()) *found = std::move(made);
    else domain.metadata.push_back(std::move(made));
}

}  // namespace caisson::inline v0::xml
