// xml_metadata.hpp - what applications keep in a document.
#pragma once

#include <vector>

#include <caisson/xml.hpp>

#include "xml_element.hpp"

namespace caisson::inline v0::xml::metadata {

/// The elements of `<metadata>`. Throws XmlError for one that does not declare its namespace, and for a second of one
/// namespace.
[[nodiscard]] std::vector<Metadata> read(const Element& e);

/// The element as it stands in a document, that deep. Throws XmlError if it is none.
[[nodiscard]] std::string print(const Metadata& metadata, std::size_t depth);

}  // namespace caisson::inline v0::xml::metadata
