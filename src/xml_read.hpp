// xml_read.hpp - from checked elements to values.
#pragma once

#include "xml_element.hpp"

namespace caisson::inline v0::xml::reading {

/// The domain that an element says, which schema::check has passed. Throws XmlError.
[[nodiscard]] Domain domain(const Element& root);

/// The device that an element says, which schema::check_device has passed. Throws XmlError.
[[nodiscard]] Device device(const Element& root);

/// Fills in what `<devices>` says.
void devices(const Element& e, Domain& domain);
/// Fills in memory, `limits` and `partition` from what the domain says about them.
void limits(const Element& root, Domain& domain);

}  // namespace caisson::inline v0::xml::reading
