// xml_element.hpp - tinyxml2's elements with what the reading needs: lines, strict values, ranges.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <range/v3/view/facade.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/transform.hpp>
#include <tinyxml2.h>

#include <caisson/xml.hpp>

namespace caisson::inline v0::xml {

/// All siblings of a node, itself first, by `next`.
template <class Node, const Node* (*Next)(const Node*)>
class Siblings : public ranges::view_facade<Siblings<Node, Next>> {
    friend ranges::range_access;

public:
    Siblings() = default;
    explicit Siblings(const Node* first) : node_{first} {}

private:
    [[nodiscard]] const Node* read() const { return node_; }
    [[nodiscard]] bool equal(ranges::default_sentinel_t) const { return node_ == nullptr; }
    [[nodiscard]] bool equal(const Siblings& other) const { return node_ == other.node_; }
    void next() { node_ = Next(node_); }

    const Node* node_ = nullptr;
};

inline const tinyxml2::XMLNode* next_sibling(const tinyxml2::XMLNode* node) {
    return node->NextSibling();
}
inline const tinyxml2::XMLAttribute* next_attribute(const tinyxml2::XMLAttribute* a) {
    return a->Next();
}

/// An element of a document that `source` names. Cheap to copy; valid as long as both.
class Element {
public:
    Element(const tinyxml2::XMLElement* element, std::string_view source) : element_{element}, source_{source} {}

    [[nodiscard]] std::string_view name() const { return element_->Name(); }
    [[nodiscard]] int line() const { return element_->GetLineNum(); }
    /// "<name>", for messages.
    [[nodiscard]] std::string tag() const { return std::string{"<"}.append(name()).append(">"); }
    [[noreturn]] void fail(std::string_view message, int line = 0) const {
        throw XmlError{source_, line > 0 ? line : this->line(), message};
    }

    /// One of the same document.
    [[nodiscard]] Element of(const tinyxml2::XMLElement* other) const { return {other, source_}; }
    [[nodiscard]] auto nodes() const { return Siblings<tinyxml2::XMLNode, next_sibling>{element_->FirstChild()}; }
    [[nodiscard]] auto attributes() const {
        return Siblings<tinyxml2::XMLAttribute, next_attribute>{element_->FirstAttribute()};
    }
    [[nodiscard]] auto children() const {
        return nodes() |
               ranges::views::filter([](const tinyxml2::XMLNode* node) { return node->ToElement() != nullptr; }) |
               ranges::views::transform([source = source_](const tinyxml2::XMLNode* node) {
                   return Element{node->ToElement(), source};
               });
    }
    [[nodiscard]] auto children(std::string_view name) const {
        return children() | ranges::views::filter([name](const Element& child) { return child.name() == name; });
    }
    [[nodiscard]] std::optional<Element> child(std::string_view name) const;
    /// Throws XmlError where there is none.
    [[nodiscard]] Element needed_child(std::string_view name) const;

    [[nodiscard]] std::optional<std::string> attribute(std::string_view name) const;
    [[nodiscard]] int attribute_line(std::string_view name) const;
    /// Throws XmlError where there is none.
    [[nodiscard]] std::string needed_attribute(std::string_view name) const;
    /// All text and CDATA in it, as it stands.
    [[nodiscard]] std::string text() const;

    /// The attribute called `name`, or the text where that is empty; for messages. Then the value itself, and what it
    /// must be.
    [[noreturn]] void wrong(std::string_view name, std::string_view value, std::string_view must_be) const;
    /// A decimal number in that range, of the attribute `name` or of the text where that is empty.
    [[nodiscard]] std::uint64_t number(std::string_view name, std::uint64_t least, std::uint64_t most) const;
    /// An absolute path without "..", less doubled and trailing slashes.
    [[nodiscard]] std::string path(std::string_view name) const;
    /// The same, but not "/".
    [[nodiscard]] std::string file_path(std::string_view name) const;
    /// KiB, rounded up, of a number in the unit that the attribute `unit_name` names ("KiB" without one); at least 1.
    [[nodiscard]] std::uint64_t kib(std::string_view name, std::string_view unit_name) const;

private:
    [[nodiscard]] std::string value(std::string_view name) const {
        return name.empty() ? text() : needed_attribute(name);
    }

    const tinyxml2::XMLElement* element_;
    std::string_view source_;
};

}  // namespace caisson::inline v0::xml
