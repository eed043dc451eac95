// xml_write.hpp - from values to text.
#pragma once

#include <caisson/xml.hpp>

namespace caisson::inline v0::xml::writing {

/// The document, in libvirt's form and order. What it is given is not checked.
[[nodiscard]] std::string document(const Domain& domain, const std::optional<Live>& live);

}  // namespace caisson::inline v0::xml::writing
