// src/netlink.hpp - rtnetlink in three nouns: a request, what the kernel answers, the socket between them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include <caisson/error.hpp>

namespace caisson::inline v0::detail {

/// A link as the kernel tells of it.
struct Link {
    unsigned index = 0;
    unsigned peer = 0;  ///< veth: the other end's index in its own network namespace
    std::uint32_t mtu = 0;
    std::array<std::uint8_t, 6> mac{};
    std::string name{};
    std::string kind{};  ///< "bridge", "veth"; empty for hardware and lo
    std::string alias{};
};

/// One request, built in place; throws EMSGSIZE rather than let an attribute outgrow it.
class Request {
public:
    template <class Header>
    Request(unsigned type, unsigned flags, const Header& fixed) {
        header_ = mnl_nlmsg_put_header(buffer_.data());
        header_->nlmsg_type = static_cast<std::uint16_t>(type);
        header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
        append(fixed);
    }
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    /// A second fixed part, as in VETH_INFO_PEER.
    template <class Header>
    void append(const Header& fixed) {
        if (header_->nlmsg_len + mnl_nlmsg_size(sizeof fixed) > buffer_.size()) too_long();
        *static_cast<Header*>(mnl_nlmsg_put_extra_header(header_, sizeof fixed)) = fixed;
    }
    Request& put(unsigned type, const void* data, std::size_t size);
    Request& put(unsigned type, std::uint32_t value) { return put(type, &value, sizeof value); }
    Request& put(unsigned type, std::uint8_t value) { return put(type, &value, sizeof value); }
    Request& put(unsigned type, const std::string& text) { return put(type, text.c_str(), text.size() + 1); }
    /// Attributes put until `end` are inside this one.
    [[nodiscard]] nlattr* begin(unsigned type);
    void end(nlattr* nest) noexcept { mnl_attr_nest_end(header_, nest); }

    [[nodiscard]] nlmsghdr* header() noexcept { return header_; }

private:
    [[noreturn]] static void too_long();
    alignas(nlmsghdr) std::array<char, 1024> buffer_{};
    nlmsghdr* header_ = nullptr;
};

/// What the kernel says to one request.
struct Answer {
    int error = 0;         ///< errno of the kernel's refusal
    std::string reason{};  ///< the kernel's own words for it, where it has any
    std::vector<Link> links{};
    bool interrupted = false;  ///< a dump during which links came or went: ask again

    /// Reads one datagram; true when the answer is complete. Messages with another sequence number answer something
    /// else and are passed over. Throws EBADMSG on what is no netlink message.
    bool take(const void* data, std::size_t size, std::uint32_t sequence);
    /// Throws the refusal, if it is one.
    void require(std::string_view context, std::string_view remedy = {}) const;
};

/// Talks to the kernel over a borrowed NETLINK_ROUTE socket.
class Netlink {
public:
    explicit Netlink(int socket);
    /// Sends and waits for the whole answer. Throws where the socket fails: whether the kernel has acted is then
    /// unknown.
    Answer ask(Request& request, std::string_view context);
    /// The link with this name or index; nothing if there is none.
    [[nodiscard]] std::optional<Link> find(const std::string& name);
    [[nodiscard]] std::optional<Link> find(unsigned index);
    [[nodiscard]] std::vector<Link> links();

private:
    std::optional<Link> find(Request& request, std::string_view context);
    int socket_;
    std::vector<char> buffer_;
};

inline constexpr std::string_view tag_prefix = "caisson:";
/// The alias of an owner's links.
[[nodiscard]] std::string alias_of(const std::string& tag);

}  // namespace caisson::inline v0::detail
