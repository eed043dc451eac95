// What src/netlink.cpp makes of answers that no kernel should give, and of those that it does.
#include "../../src/netlink.hpp"

#include <cstring>
#include <vector>

#include <linux/if_link.h>
#include <linux/netlink.h>

#include "support/doctest.hpp"

using namespace caisson;
using detail::Answer;

namespace {
/// Bytes of a datagram, put together by hand rather than by the library under test.
struct Datagram {
    std::vector<char> bytes;
    template <class T>
    Datagram& add(const T& value) {
        const std::size_t at = bytes.size();
        bytes.resize(at + (sizeof value + 3) / 4 * 4);
        std::memcpy(bytes.data() + at, &value, sizeof value);
        return *this;
    }
    Datagram& attribute(unsigned type, const std::string& payload) {
        add(nlattr{static_cast<std::uint16_t>(sizeof(nlattr) + payload.size()), static_cast<std::uint16_t>(type)});
        bytes.insert(bytes.end(), payload.begin(), payload.end());
        bytes.resize((bytes.size() + 3) / 4 * 4);
        return *this;
    }
    /// The length of the message that begins at `at` is what has been added since.
    Datagram& close(std::size_t at = 0) {
        const auto length = static_cast<std::uint32_t>(bytes.size() - at);
        std::memcpy(bytes.data() + at, &length, sizeof length);
        return *this;
    }
};
Datagram message(unsigned type, unsigned flags, std::uint32_t sequence) {
    return Datagram{}.add(
        nlmsghdr{0, static_cast<std::uint16_t>(type), static_cast<std::uint16_t>(flags), sequence, 0});
}
bool take(Answer& answer, const Datagram& datagram, std::uint32_t sequence = 7) {
    return answer.take(datagram.bytes.data(), datagram.bytes.size(), sequence);
}
ifinfomsg link_header(int index) {
    ifinfomsg info{};
    info.ifi_index = index;
    return info;
}
}  // namespace

TEST_CASE("an acknowledgement ends the answer, a refusal carries the kernel's own words") {
    Answer yes;
    CHECK(take(yes, message(NLMSG_ERROR, 0, 7).add(nlmsgerr{}).close()));
    CHECK_NOTHROW(yes.require("bridge 'br0'"));

    nlmsgerr refusal{};
    refusal.error = -EINVAL;
    refusal.msg.nlmsg_len = sizeof(nlmsghdr) + 8;
    Answer no;
    CHECK(take(no, message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7)
                       .add(refusal)
                       .add(std::uint64_t{})
                       .attribute(NLMSGERR_ATTR_MSG, std::string{"too odd\0", 8})
                       .close()));
    CHECK_THROWS_WITH_AS(no.require("bridge 'br0'"), "bridge 'br0' (too odd): Invalid argument", Error);

    Answer capped;
    CHECK(take(capped, message(NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, 7)
                           .add(refusal)
                           .attribute(NLMSGERR_ATTR_MSG, "no end")
                           .close()));
    CHECK(capped.reason == "no end");
}

TEST_CASE("an answer to another request is passed over") {
    nlmsgerr refusal{};
    refusal.error = -EPERM;
    Answer answer;
    CHECK_FALSE(take(answer, message(NLMSG_ERROR, 0, 6).add(refusal).close()));
    CHECK(answer.error == 0);
    CHECK(take(answer, message(NLMSG_ERROR, 0, 7).add(nlmsgerr{}).close()));
}

TEST_CASE("a link is read with its kind, and attributes of wrong sizes are not") {
    Datagram kind;
    kind.attribute(IFLA_INFO_KIND, std::string{"bridge\0", 7});
    Answer answer;
    CHECK_FALSE(take(answer, message(RTM_NEWLINK, 0, 7)
                                 .add(link_header(3))
                                 .attribute(IFLA_IFNAME, std::string{"br0\0", 4})
                                 .attribute(IFLA_MTU, "12")
                                 .attribute(IFLA_ADDRESS, "12345")
                                 .attribute(IFLA_LINKINFO, {kind.bytes.begin(), kind.bytes.end()})
                                 .attribute(IFLA_IFALIAS, "no nul")
                                 .close()));
    REQUIRE(answer.links.size() == 1);
    const detail::Link& link = answer.links.front();
    CHECK(link.index == 3);
    CHECK(link.name == "br0");
    CHECK(link.kind == "bridge");
    CHECK(link.alias == "no nul");
    CHECK(link.mtu == 0);
    CHECK(link.mac == std::array<std::uint8_t, 6>{});
}

TEST_CASE("bytes that are no netlink message are an error and are never read beyond their end") {
    Answer answer;
    CHECK_THROWS_WITH_AS(take(answer, message(RTM_NEWLINK, 0, 7).close()), "answer from rtnetlink: Bad message", Error);
    CHECK_THROWS_AS(take(answer, message(RTM_NEWLINK, 0, 7).add(link_header(-1)).close()), Error);
    CHECK_THROWS_AS(take(answer, message(NLMSG_ERROR, 0, 7).close()), Error);
    for (const int code : {1, -4096, -2147483647 - 1}) {
        nlmsgerr refusal{};
        refusal.error = code;
        CHECK_THROWS_AS(take(answer, message(NLMSG_ERROR, 0, 7).add(refusal).close()), Error);
    }
    Datagram whole = message(RTM_NEWLINK, 0, 7)
                         .add(link_header(3))
                         .attribute(IFLA_IFNAME, std::string{"br0\0", 4})
                         .attribute(IFLA_LINKINFO, "12345678")
                         .close();
    // Every shorter datagram, with the length as it was and with the length that is left.
    for (std::size_t size = 1; size < whole.bytes.size(); ++size) {
        Datagram part;
        part.bytes.assign(whole.bytes.begin(), whole.bytes.begin() + static_cast<std::ptrdiff_t>(size));
        CHECK_THROWS_AS(take(answer, part), Error);
        if (size < sizeof(nlmsghdr)) continue;
        part.close();
        try {
            (void)take(answer, part);
        } catch (const Error& e) {
            CHECK(e.code().value() == EBADMSG);
        }
    }
}

TEST_CASE("a request takes what fits and refuses the rest") {
    detail::Request request{RTM_NEWLINK, 0, ifinfomsg{}};
    request.put(IFLA_IFALIAS, std::string(500, 'x'));
    const std::uint32_t before = request.header()->nlmsg_len;
    const std::vector<char> much(70000, 'x');
    CHECK_THROWS_AS(request.put(IFLA_IFALIAS, much.data(), much.size()), Error);
    CHECK_THROWS_AS(request.put(IFLA_IFALIAS, std::string(600, 'x')), Error);
    CHECK_THROWS_WITH_AS(request.put(IFLA_IFALIAS, much.data(), 65536), "request to rtnetlink: Message too long",
                         Error);
    CHECK(request.header()->nlmsg_len == before);
    CHECK_NOTHROW(request.put(IFLA_MTU, std::uint32_t{1500}));
}
