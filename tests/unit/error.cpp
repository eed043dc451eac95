#include <caisson/error.hpp>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("an error reads from the outside in, then the reason, then the remedy") {
    const Error inner{Step::mount, EPERM, "mount 'proc' on '/proc' (in the child)", "mount /proc on the host"};
    const Error outer = inner.in("container 'web'");
    CHECK(std::string{outer.what()} ==
          "container 'web': mount 'proc' on '/proc' (in the child): Operation not permitted: mount /proc on the host");
    CHECK(outer.context() == "container 'web': mount 'proc' on '/proc' (in the child)");
    CHECK(outer.remedy() == "mount /proc on the host");
    CHECK(outer.step() == Step::mount);
    CHECK(outer.code() == std::errc::operation_not_permitted);
}

TEST_CASE("an error without a system call's refusal ends with its context") {
    CHECK(std::string{Error{Step::check_spec, 0, "name '': empty"}.what()} == "name '': empty");
}

TEST_CASE("every step has a name of its own") {
    for (int i = 0; i <= static_cast<int>(Step::copy); ++i) {
        CHECK(to_string(static_cast<Step>(i)) != "unknown");
        for (int j = 0; j < i; ++j) CHECK(to_string(static_cast<Step>(i)) != to_string(static_cast<Step>(j)));
    }
}

TEST_CASE("a quoted name cannot write to a terminal") {
    CHECK(detail::quote("a\x1b[2J\nb") == "'a\\x1b[2J\\x0ab'");
    CHECK(detail::quote("\xc2\x9b[2J\xc2\x80") == "'\\xc2\\x9b[2J\\xc2\\x80'");
    CHECK(detail::quote("\xc2\xa0\xc3\x9b\xc2") == "'\xc2\xa0\xc3\x9b\xc2'");
}
