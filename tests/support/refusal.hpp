// support/refusal.hpp - what check() says of a specification that is otherwise good.
#pragma once

#include <caisson/check.hpp>

#include <string>

#include "support/doctest.hpp"

namespace caisson_test {

inline caisson::ContainerSpec good() {
    caisson::ContainerSpec spec;
    spec.name = "web";
    spec.root = "/srv/web";
    spec.command = {"/sbin/init"};
    spec.seccomp.profile = caisson::SeccompProfile::none;  // a library without libseccomp has no other
    return spec;
}
/// "accepted", or the message.
template <class Change>
std::string refusal(Change change) {
    caisson::ContainerSpec spec = good();
    change(spec);
    try {
        check(spec);
    } catch (const caisson::Error& e) {
        CHECK(e.step() == caisson::Step::check_spec);
        return e.what();
    }
    return "accepted";
}

}  // namespace caisson_test
