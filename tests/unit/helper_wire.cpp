// Messages between a helper and its clients.
#include <caisson/detail/helper_wire.hpp>

#include <string>
#include <thread>

#include <sched.h>
#include <sys/socket.h>

#include "support/doctest.hpp"

using caisson::Fd;
using caisson::detail::Message;
using caisson::detail::Taken;

TEST_CASE("the last word of a peer that closes is heard, whatever it has not read") {
    int missed = 0;
    for (int round = 0; round < 2000; ++round) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        const Fd ours{ends[0]};
        Fd theirs{ends[1]};
        REQUIRE(send_message(ours.get(), Message{.kind = Message::Kind::signal}));
        std::thread peer{[&] {
            (void)send_message(theirs.get(), Message{.kind = Message::Kind::exited, .number = 7});
            theirs.reset();
        }};
        Message message;
        Taken taken = Taken::nothing_yet;
        while (taken == Taken::nothing_yet) taken = take_message(ours.get(), message, nullptr);
        missed += taken == Taken::message && message.number == 7 ? 0 : 1;
        peer.join();
    }
    CHECK(missed == 0);
}
