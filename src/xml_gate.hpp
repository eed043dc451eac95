// xml_gate.hpp - what is checked of a document's bytes before the XML parser sees them.
#pragma once

#include <string_view>

namespace caisson::inline v0::xml::gate {

inline constexpr std::size_t max_bytes = 1 << 20;
inline constexpr std::size_t max_tag_bytes = 4096;
inline constexpr int max_attributes = 64;
inline constexpr std::size_t max_depth = 32;
inline constexpr int max_elements = 10'000;

/// Returns if `text` is one well-formed XML element within the limits above, in UTF-8, without DOCTYPE and processing
/// instructions and with no entities but XML's five and character references. Takes time linear in the size: tinyxml2
/// compares each attribute of a tag with each other and takes 17 s for 1 MiB of them. It also lets pass bad UTF-8, what
/// comes after a NUL byte, `&#0;` and a second root.
///
/// Throws XmlError.
void check(std::string_view text, std::string_view source);

}  // namespace caisson::inline v0::xml::gate
