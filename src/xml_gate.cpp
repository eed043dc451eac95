#include "xml_gate.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <caisson/xml.hpp>

namespace caisson::inline v0::xml::gate {
namespace {

/// XML 1.0, production 2.
constexpr bool is_char(char32_t c) {
    return c == 0x9 || c == 0xa || c == 0xd || (c >= 0x20 && c <= 0xd7ff) || (c >= 0xe000 && c <= 0xfffd) ||
           (c >= 0x10000 && c <= 0x10ffff);
}

constexpr bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/// Names are ASCII here: all of libvirt's are.
constexpr bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
}
constexpr bool is_name(char c) {
    return is_name_start(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

std::string hex(std::uint32_t value, std::size_t width) {
    std::string out;
    for (; value != 0 || out.size() < width; value >>= 4) out.insert(out.begin(), "0123456789ABCDEF"[value & 15]);
    return out;
}

class Scanner {
public:
    Scanner(std::string_view text, std::string_view source) : text_{text}, source_{source} {}

    void check_bytes();
    void check_markup();

private:
    struct Open {
        std::string_view name;
        int line;
    };

    [[noreturn]] void fail(int line, std::string_view message) const { throw XmlError{source_, line, message}; }
    [[nodiscard]] bool done() const { return at_ == text_.size(); }
    [[nodiscard]] char peek() const { return done() ? '\0' : text_[at_]; }
    [[nodiscard]] bool starts(std::string_view with) const { return text_.substr(at_).starts_with(with); }
    void advance(std::size_t count) {
        const std::string_view passed = text_.substr(at_, count);
        line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
        at_ += passed.size();
    }
    bool skip_space() {
        const std::size_t before = at_;
        while (!done() && is_space(text_[at_])) advance(1);
        return at_ != before;
    }
    std::string_view name(std::string_view what) {
        const std::size_t from = at_;
        if (!is_name_start(peek())) fail(line_, std::string{what}.append(" is missing or not in ASCII"));
        while (is_name(peek())) ++at_;
        if (static_cast<unsigned char>(peek()) >= 0x80) fail(line_, std::string{what}.append(" is not in ASCII"));
        return text_.substr(from, at_ - from);
    }
    /// Skips to behind `end`, which must be there.
    std::string_view until(std::string_view end, std::string_view what) {
        const std::size_t found = text_.find(end, at_);
        if (found == std::string_view::npos) fail(line_, std::string{what}.append(" does not end"));
        const std::string_view inside = text_.substr(at_, found - at_);
        advance(found - at_ + end.size());
        return inside;
    }

    [[nodiscard]] bool starts_declaration() const {
        return starts("<?xml") && text_.size() > at_ + 5 && is_space(text_[at_ + 5]);
    }
    void declaration();
    void markup();
    void start_tag();
    void end_tag();
    std::string_view quoted(std::string_view of);
    void reference();
    void text();

    std::string_view text_;
    std::string_view source_;
    std::size_t at_ = 0;
    int line_ = 1;
    int elements_ = 0;
    std::vector<Open> open_{};
};

void Scanner::check_bytes() {
    if (text_.size() > max_bytes) fail(1, "larger than 1 MiB");
    int line = 1;
    for (std::size_t i = 0; i < text_.size();) {
        const auto byte = static_cast<unsigned char>(text_[i]);
        if (byte == '\n') ++line;
        if (byte == 0) fail(line, "a NUL byte");
        // The lead byte tells the length; the smallest character of each length rules out overlong forms.
        const std::size_t length = byte < 0x80   ? 1
                                   : byte < 0xc2 ? 0
                                   : byte < 0xe0 ? 2
                                   : byte < 0xf0 ? 3
                                   : byte < 0xf5 ? 4
                                                 : 0;
        constexpr char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
        constexpr unsigned lead_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
        bool good = length != 0 && i + length <= text_.size();
        char32_t c = good ? byte & lead_bits[length] : 0;
        for (std::size_t k = 1; good && k < length; ++k) {
            const auto next = static_cast<unsigned char>(text_[i + k]);
            good = (next & 0xc0) == 0x80;
            c = c << 6 | (next & 0x3fu);
        }
        if (!good || c < smallest[length]) fail(line, "byte 0x" + hex(byte, 2) + " is not UTF-8");
        if (!is_char(c)) fail(line, "the character U+" + hex(c, 4) + " is not allowed in XML");
        i += length;
    }
}

void Scanner::check_markup() {
    if (starts("\xef\xbb\xbf")) at_ += 3;
    if (starts_declaration()) declaration();
    while (!done()) {
        if (peek() == '<') {
            markup();
        } else {
            text();
        }
    }
    if (!open_.empty()) {
        fail(line_, std::string{"<"}
                        .append(open_.back().name)
                        .append("> of line ")
                        .append(std::to_string(open_.back().line))
                        .append(" is not closed"));
    }
    if (elements_ == 0) fail(line_, "no element");
}

void Scanner::declaration() {
    // XML 1.0, production 23: each at most once, in this order, the first always.
    constexpr std::array<std::string_view, 3> order{"version", "encoding", "standalone"};
    const int line = line_;
    std::size_t next = 0;
    at_ += 5;
    for (;;) {
        const bool spaced = skip_space();
        if (starts("?>")) break;
        if (done()) fail(line, "the XML declaration does not end");
        if (!spaced) fail(line_, "a space is missing in the XML declaration");
        const std::string_view attribute = name("an attribute's name");
        const auto index = static_cast<std::size_t>(std::find(order.begin(), order.end(), attribute) - order.begin());
        if (index == order.size())
            fail(line_, "unknown attribute " + detail::quote(attribute) + " in the XML declaration");
        if (index < next || (index > 0 && next == 0)) {
            fail(line_, detail::quote(attribute) +
                            " in the XML declaration: it must hold 'version', 'encoding' and "
                            "'standalone' in this order, and may leave out the last two");
        }
        next = index + 1;
        const std::string_view value = quoted(attribute);
        std::string lower{value};
        for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        if (attribute == "encoding" && lower != "utf-8") {
            fail(line_, "the encoding is " + detail::quote(value) + ": it must be UTF-8");
        }
        if (attribute == "version" && value != "1.0") {
            fail(line_, "the XML version is " + detail::quote(value) + ": it must be 1.0");
        }
        if (attribute == "standalone" && value != "yes" && value != "no") {
            fail(line_,
                 "'standalone' of the XML declaration is " + detail::quote(value) + ": it must be 'yes' or 'no'");
        }
    }
    if (next == 0) fail(line, "the XML declaration has no version");
    at_ += 2;
}

void Scanner::markup() {
    const int line = line_;
    if (starts("<!--")) {
        advance(4);
        // In well-formed XML the first "--" of a comment is the one that ends it.
        (void)until("--", "the comment");
        if (peek() != '>') fail(line_, "'--' within a comment");
        ++at_;
    } else if (starts("<![CDATA[")) {
        if (open_.empty()) fail(line, "text outside of the root element");
        advance(9);
        (void)until("]]>", "the CDATA section");
    } else if (starts("<!DOCTYPE")) {
        fail(line, "a DOCTYPE is not accepted");
    } else if (starts("<!")) {
        fail(line, "'<!' begins neither a comment nor a CDATA section");
    } else if (starts_declaration()) {
        fail(line, "the XML declaration is not at the very beginning");
    } else if (starts("<?")) {
        fail(line, "a processing instruction is not accepted");
    } else if (starts("</")) {
        end_tag();
    } else {
        start_tag();
    }
}

void Scanner::start_tag() {
    const int line = line_;
    const std::size_t from = at_++;
    const std::string_view tag = name("an element's name");
    if (open_.empty() && elements_ > 0) fail(line, std::string{"a second root element <"}.append(tag).append(">"));
    if (++elements_ > max_elements) fail(line, "more than " + std::to_string(max_elements) + " elements");
    if (open_.size() == max_depth) fail(line, "elements are nested more than " + std::to_string(max_depth) + " deep");
    std::vector<std::string_view> seen;
    for (;;) {
        const bool spaced = skip_space();
        if (at_ - from > max_tag_bytes) fail(line, std::string{"<"}.append(tag).append("> has more than 4096 bytes"));
        if (done()) fail(line, std::string{"<"}.append(tag).append("> does not end"));
        if (peek() == '>') {
            ++at_;
            open_.push_back({tag, line});
            return;
        }
        if (starts("/>")) {
            at_ += 2;
            return;
        }
        if (!spaced) fail(line_, std::string{"a space is missing in <"}.append(tag).append(">"));
        const int attribute_line = line_;
        const std::string_view attribute = name("an attribute's name");
        if (static_cast<int>(seen.size()) == max_attributes) {
            fail(line, std::string{"<"}
                           .append(tag)
                           .append("> has more than ")
                           .append(std::to_string(max_attributes))
                           .append(" attributes"));
        }
        if (std::find(seen.begin(), seen.end(), attribute) != seen.end()) {
            fail(attribute_line, "a second attribute " + detail::quote(attribute) + " of <" + std::string{tag} + ">");
        }
        seen.push_back(attribute);
        (void)quoted(attribute);
    }
}

void Scanner::end_tag() {
    const int line = line_;
    at_ += 2;
    const std::string_view tag = name("an element's name");
    skip_space();
    if (peek() != '>') fail(line, std::string{"</"}.append(tag).append("> does not end"));
    ++at_;
    if (open_.empty()) fail(line, std::string{"</"}.append(tag).append("> closes nothing"));
    const Open& open = open_.back();
    if (open.name != tag) {
        fail(line, std::string{"</"}
                       .append(tag)
                       .append("> does not close <")
                       .append(open.name)
                       .append("> of line ")
                       .append(std::to_string(open.line)));
    }
    open_.pop_back();
}

std::string_view Scanner::quoted(std::string_view of) {
    skip_space();
    if (peek() != '=') fail(line_, "the attribute " + detail::quote(of) + " has no value");
    ++at_;
    skip_space();
    const char quote = peek();
    const int line = line_;
    if (quote != '"' && quote != '\'') fail(line, "the value of " + detail::quote(of) + " is not in quotes");
    const std::size_t from = ++at_;
    while (peek() != quote) {
        if (done()) fail(line, "the value of " + detail::quote(of) + " does not end");
        if (peek() == '<') fail(line_, "'<' in the value of " + detail::quote(of));
        if (peek() == '&') {
            reference();
        } else {
            advance(1);
        }
    }
    return text_.substr(from, at_++ - from);
}

void Scanner::reference() {
    const std::size_t end = text_.substr(at_, 16).find(';');
    const std::string_view body = text_.substr(at_ + 1, end == std::string_view::npos ? 0 : end - 1);
    if (end == std::string_view::npos) fail(line_, "'&' begins no entity: it is written as &amp;");
    at_ += end + 1;
    if (!body.starts_with('#')) {
        for (const std::string_view known : {"lt", "gt", "amp", "apos", "quot"}) {
            if (body == known) return;
        }
        fail(line_, "unknown entity " + detail::quote("&" + std::string{body} + ";"));
    }
    const bool is_hex = body.starts_with("#x");
    std::uint32_t value = 0;
    bool good = body.size() > (is_hex ? 2 : 1);
    for (const char c : body.substr(is_hex ? 2 : 1)) {
        const int digit = c >= '0' && c <= '9'             ? c - '0'
                          : is_hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : is_hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                           : -1;
        good = good && digit >= 0 && value <= 0x10ffff;
        if (good) value = value * (is_hex ? 16 : 10) + static_cast<std::uint32_t>(digit);
    }
    if (!good || !is_char(value)) {
        fail(line_, detail::quote("&" + std::string{body} + ";") + " is not a character of XML");
    }
}

void Scanner::text() {
    const bool inside = !open_.empty();
    while (!done() && peek() != '<') {
        if (!inside && !is_space(peek())) fail(line_, "text outside of the root element");
        if (starts("]]>")) fail(line_, "']]>' in text");
        if (peek() == '&') {
            reference();
        } else {
            advance(1);
        }
    }
}

}  // namespace

void check(std::string_view text, std::string_view source) {
    Scanner scanner{text, source};
    scanner.check_bytes();
    scanner.check_markup();
}

}  // namespace caisson::inline v0::xml::gate
