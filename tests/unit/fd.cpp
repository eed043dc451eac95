#include <caisson/fd.hpp>

#include <cerrno>
#include <fcntl.h>

#include "support/doctest.hpp"

using namespace caisson;

namespace {
bool is_open(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}
}  // namespace

TEST_CASE("a descriptor is closed once, by the last owner") {
    int raw = -1;
    {
        Fd a{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
        raw = a.get();
        Fd b{std::move(a)};
        CHECK_FALSE(a);
        CHECK(is_open(raw));
        Fd& self = b;
        b = std::move(self);
        CHECK(b.get() == raw);
        CHECK(is_open(raw));
    }
    CHECK_FALSE(is_open(raw));
}

TEST_CASE("closing keeps errno") {
    Fd a{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    errno = ENOTTY;
    a.reset();
    CHECK(errno == ENOTTY);
}

TEST_CASE("a duplicate is close-on-exec and none of the standard three") {
    Fd a{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
    const Fd b = a.duplicate();
    CHECK(b.get() > 2);
    CHECK((::fcntl(b.get(), F_GETFD) & FD_CLOEXEC) != 0);
}
