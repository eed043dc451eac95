// Apart from machine.cpp, which programs without doctest use as well.
#include <exception>
#include <string>

#include "support/doctest.hpp"
#include "support/machine.hpp"

namespace caisson_test {

LeavesNothing::~LeavesNothing() {
    std::string left;
    try {
        left = lasting_difference(before_);
    } catch (const std::exception& error) {
        left = error.what();
    }
    CHECK_MESSAGE(left.empty(), "left behind:\n" << left);
}

}  // namespace caisson_test
