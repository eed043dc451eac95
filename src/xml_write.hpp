// xml_write.hpp - from values to text.
#pragma once

#include <caisson/xml.hpp>

namespace caisson::inline v0::xml::writing {

/// Text of an element. White space at the ends is written in numbers: a parser may drop text of nothing else, and a
/// carriage return anywhere.
[[nodiscard]] std::string escaped_text(std::string_view text);

/// The document, in libvirt's form and order. What it is given is not checked, but for `Metadata::xml`: XmlError.
[[nodiscard]] std::string document(const Domain& domain, const std::optional<Live>& live);

}  // namespace caisson::inline v0::xml::writing
