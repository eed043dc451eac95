// xml_document.hpp - from a file, or its text, to the elements in it.
#pragma once

#include <string>
#include <string_view>

#include <tinyxml2.h>

#include "xml_element.hpp"

namespace caisson::inline v0::xml::gate {

/// The text of a regular file, or as much of it as `check` needs to refuse it. Throws `Step::read_xml`.
[[nodiscard]] std::string read(const std::string& path);

/// A text that has passed the gate, parsed.
class Document {
public:
    /// `source` stands for the file in messages. Throws XmlError.
    Document(std::string_view text, std::string_view source);
    /// Valid as long as this object.
    [[nodiscard]] Element root() const { return {document_.RootElement(), shown_}; }

private:
    std::string shown_;
    tinyxml2::XMLDocument document_;
};

}  // namespace caisson::inline v0::xml::gate
