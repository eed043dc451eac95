// The other translation unit that includes everything.
#include <caisson/caisson.hpp>
#ifdef CONSUMER_HAS_XML
#include <caisson/xml.hpp>
#endif

bool two_agrees(const caisson::Error& error) {
    return caisson::to_string(error.step()) == "check_spec";
}
