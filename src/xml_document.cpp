#include "xml_document.hpp"

#include <algorithm>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

#include "xml_gate.hpp"

namespace caisson::inline v0::xml::gate {
namespace {

/// A file's name as it may stand at the front of a message.
std::string printable(std::string_view source) {
    const std::string quoted = caisson::detail::quote(source);
    return quoted.substr(1, quoted.size() - 2);
}

}  // namespace

std::string read(const std::string& path) {
    const std::string what = "read " + caisson::detail::quote(path);
    // Not to wait for the other end of a FIFO: what is not a regular file is refused after the open, not before it.
    const Fd file = caisson::detail::sys::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file) caisson::detail::fail(Step::read_xml, what);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) caisson::detail::fail(Step::read_xml, what);
    if (!S_ISREG(status.st_mode)) throw Error{Step::read_xml, 0, what + ": not a regular file"};
    std::string text;
    char buffer[8192];
    while (text.size() <= max_bytes) {
        const ssize_t n = caisson::detail::sys::retry([&] { return ::read(file.get(), buffer, sizeof buffer); });
        if (n < 0) caisson::detail::fail(Step::read_xml, what);
        if (n == 0) break;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
}

Document::Document(std::string_view text, std::string_view source) : shown_{printable(source)} {
    check(text, shown_);
    if (document_.Parse(text.data(), text.size()) == tinyxml2::XML_SUCCESS) return;
    // Not reached as far as is known: the gate lets pass only well-formed XML.
    throw XmlError{shown_, std::max(1, document_.ErrorLineNum()), document_.ErrorName()};
}

}  // namespace caisson::inline v0::xml::gate
