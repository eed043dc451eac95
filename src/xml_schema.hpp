// xml_schema.hpp - which elements, attributes and words there are, and which of them are libvirt's alone.
#pragma once

#include "xml_element.hpp"

namespace caisson::inline v0::xml::schema {

/// Looks through the whole document: every element, attribute and enumerated word is one that is read, each is there as
/// often as it may be, and there is text only where text is read. Throws XmlError at the first that is not so.
void check(const Element& root);
/// The same of a document that is one device.
void check_device(const Element& root);

}  // namespace caisson::inline v0::xml::schema
