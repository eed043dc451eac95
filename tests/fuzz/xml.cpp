// Fuzz target, built by clang with -Dfuzz=true. Whatever the bytes, parse() takes them or throws XmlError with a line;
// what it takes is written and read back as the same domain, and makes a spec that can work.
#include <caisson/check.hpp>
#include <caisson/xml.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

using namespace caisson;

namespace {

void must(bool good) {
    if (!good) std::abort();
}

void try_one(std::string_view text) {
    std::optional<xml::Domain> domain;
    try {
        domain = xml::parse(text);
    } catch (const xml::XmlError& e) {
        must(e.line() >= 1 && e.file() == "<string>");
        return;
    }
    std::string written;
    try {
        written = xml::dump(*domain, xml::Live{1, {"/dev/pts/0"}});
    } catch (const Error&) {
        // Escapes make a document longer, and there is a limit.
        must(text.size() > (1 << 17));
        return;
    }
    must(xml::parse(written) == *domain);
    check(xml::to_spec(*domain));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try_one({reinterpret_cast<const char*>(data), size});
    return 0;
}
