// Messages between a helper and its clients.
#include <caisson/detail/helper_wire.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <vector>

#include <sys/socket.h>

#include "support/doctest.hpp"

using caisson::Fd;
using caisson::detail::Message;
using caisson::detail::Taken;

TEST_CASE("the last word of a peer that closes is heard, whatever it has not read") {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    const Fd ours{ends[0]};
    Fd theirs{ends[1]};
    Message message;
    CHECK(take_message(ours.get(), message, nullptr) == Taken::nothing_yet);
    REQUIRE(send_message(ours.get(), Message{.kind = Message::Kind::signal}));
    REQUIRE(send_message(theirs.get(), Message{.kind = Message::Kind::exited, .number = 7}));
    theirs.reset();
    CHECK(take_message(ours.get(), message, nullptr) == Taken::message);
    CHECK(message.number == 7);
    CHECK(take_message(ours.get(), message, nullptr) == Taken::closed);
}

// Between two looks of the kernel's, which no test can count on to come about.
TEST_CASE("an end that is told in front of the last word is not taken for the end") {
    struct Told {
        std::vector<int> by_kernel;  // sizes, or negative errors; the last is told again and again
        int result;
    };
    for (const Told& told :
         {Told{{5}, 5}, Told{{0, 5}, 5}, Told{{-ECONNRESET, 5}, 5}, Told{{-ECONNRESET, 0, 5}, 5},
          Told{{0, -ECONNRESET, 5}, 5}, Told{{-EINTR, 0, -EINTR, 5}, 5}, Told{{0}, 0}, Told{{-ECONNRESET, 0}, 0},
          Told{{-EAGAIN}, -EAGAIN}, Told{{-ECONNRESET, -EAGAIN}, -EAGAIN}}) {
        CAPTURE(told.by_kernel.size());
        CAPTURE(told.by_kernel[0]);
        std::size_t looks = 0;
        const auto look = [&]() -> ssize_t {
            const int next = told.by_kernel[std::min(looks++, told.by_kernel.size() - 1)];
            if (next < 0) errno = -next;
            return next < 0 ? -1 : next;
        };
        ssize_t result = caisson::detail::sys::last_word(look);
        if (result < 0) result = -errno;
        CHECK(result == told.result);
    }
}
