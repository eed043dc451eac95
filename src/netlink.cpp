// src/netlink.cpp - builds, sends and reads rtnetlink messages. Framing is libmnl's, the socket is plain system calls.
#include "netlink.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <sys/socket.h>

#include <caisson/detail/sys.hpp>

namespace caisson::inline v0::detail {
namespace {

/// Calls `f` for each attribute that lies wholly within the payload.
template <class F>
void for_each_attribute(const void* payload, std::size_t size, F&& f) {
    const auto* attribute = static_cast<const nlattr*>(payload);
    auto left = static_cast<int>(size);
    while (mnl_attr_ok(attribute, left)) {
        f(attribute);
        left -= static_cast<int>(MNL_ALIGN(attribute->nla_len));
        attribute = mnl_attr_next(attribute);
    }
}

std::string text_of(const nlattr* attribute) {
    const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
    return {text, ::strnlen(text, mnl_attr_get_payload_len(attribute))};
}

std::uint32_t number_of(const nlattr* attribute) {
    return mnl_attr_get_payload_len(attribute) >= sizeof(std::uint32_t) ? mnl_attr_get_u32(attribute) : 0;
}

std::optional<Link> link_of(const nlmsghdr* message) {
    const std::size_t size = mnl_nlmsg_get_payload_len(message);
    const std::size_t fixed = MNL_ALIGN(sizeof(ifinfomsg));
    if (size < fixed) return std::nullopt;
    const char* const payload = static_cast<const char*>(mnl_nlmsg_get_payload(message));
    Link link;
    ifinfomsg info;
    std::memcpy(&info, payload, sizeof info);
    if (info.ifi_index <= 0) return std::nullopt;
    link.index = static_cast<unsigned>(info.ifi_index);
    for_each_attribute(payload + fixed, size - fixed, [&](const nlattr* attribute) {
        const std::size_t length = mnl_attr_get_payload_len(attribute);
        switch (mnl_attr_get_type(attribute)) {
            case IFLA_IFNAME: link.name = text_of(attribute); break;
            case IFLA_IFALIAS: link.alias = text_of(attribute); break;
            case IFLA_MTU: link.mtu = number_of(attribute); break;
            case IFLA_LINK: link.peer = number_of(attribute); break;
            case IFLA_ADDRESS:
                if (length == link.mac.size()) std::memcpy(link.mac.data(), mnl_attr_get_payload(attribute), length);
                break;
            case IFLA_LINKINFO:
                for_each_attribute(mnl_attr_get_payload(attribute), length, [&](const nlattr* inner) {
                    if (mnl_attr_get_type(inner) == IFLA_INFO_KIND) link.kind = text_of(inner);
                });
                break;
            default: break;
        }
    });
    return link;
}

[[noreturn]] void malformed() {
    throw Error{Step::network, EBADMSG, "answer from rtnetlink"};
}

}  // namespace

void Request::too_long() {
    throw Error{Step::network, EMSGSIZE, "request to rtnetlink"};
}

Request& Request::put(unsigned type, const void* data, std::size_t size) {
    if (!mnl_attr_put_check(header_, buffer_.size(), static_cast<std::uint16_t>(type), size, data)) too_long();
    return *this;
}

nlattr* Request::begin(unsigned type) {
    nlattr* nest = mnl_attr_nest_start_check(header_, buffer_.size(), static_cast<std::uint16_t>(type));
    if (nest == nullptr) too_long();
    return nest;
}

bool Answer::take(const void* data, std::size_t size, std::uint32_t sequence) {
    int left = static_cast<int>(size);
    const auto* message = static_cast<const nlmsghdr*>(data);
    for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        if (message->nlmsg_seq != sequence) continue;
        if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
        const std::size_t payload_size = mnl_nlmsg_get_payload_len(message);
        const char* const payload = static_cast<const char*>(mnl_nlmsg_get_payload(message));
        if (message->nlmsg_type == RTM_NEWLINK) {
            auto link = link_of(message);
            if (!link) malformed();
            links.push_back(std::move(*link));
        } else if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE) {
            std::int32_t code = 0;
            if (payload_size < sizeof code) malformed();
            std::memcpy(&code, payload, sizeof code);
            if (code < -4095 || code > 0) malformed();
            error = -code;
            // The kernel's own words follow the header of the request, or all of it.
            if (message->nlmsg_type == NLMSG_ERROR && (message->nlmsg_flags & NLM_F_ACK_TLVS) != 0 &&
                payload_size >= sizeof(nlmsgerr)) {
                nlmsgerr head;
                std::memcpy(&head, payload, sizeof head);
                std::size_t skip = sizeof head;
                if ((message->nlmsg_flags & NLM_F_CAPPED) == 0 && head.msg.nlmsg_len > sizeof head.msg) {
                    skip += MNL_ALIGN(std::size_t{head.msg.nlmsg_len} - sizeof head.msg);
                }
                if (skip <= payload_size) {
                    for_each_attribute(payload + skip, payload_size - skip, [&](const nlattr* attribute) {
                        if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG) reason = text_of(attribute);
                    });
                }
            }
            return true;
        }
    }
    if (left > 0) malformed();  // the padding of the last message may be missing
    return false;
}

void Answer::require(std::string_view context, std::string_view remedy) const {
    if (error == 0) return;
    std::string text{context};
    if (!reason.empty()) text.append(" (").append(reason).append(")");
    if (remedy.empty() && error == EPERM) remedy = "this needs CAP_NET_ADMIN over the network namespace";
    throw Error{Step::network, error, text, remedy};
}

Netlink::Netlink(int socket) : socket_{socket}, buffer_(32768) {
    const int on = 1;
    // Only makes messages better, so a refusal is no error.
    (void)::setsockopt(socket_, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
}

Answer Netlink::ask(Request& request, std::string_view context) {
    // A number that no earlier request over this socket can have had: its answer may still wait in the queue.
    timespec now{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto sequence = static_cast<std::uint32_t>(now.tv_sec * 1'000'000'000 + now.tv_nsec);
    nlmsghdr* const header = request.header();
    header->nlmsg_seq = sequence;
    header->nlmsg_flags |= NLM_F_ACK;

    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    sockaddr* const to = static_cast<sockaddr*>(static_cast<void*>(&kernel));
    if (sys::retry([&] { return ::sendto(socket_, header, header->nlmsg_len, 0, to, sizeof kernel); }) < 0) {
        fail(Step::network, std::string{context} + ": send to rtnetlink");
    }
    Answer answer;
    bool lost = false;
    for (;;) {
        sockaddr_nl from{};
        iovec part{buffer_.data(), buffer_.size()};
        msghdr message{};
        message.msg_name = &from;
        message.msg_namelen = sizeof from;
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        // The kernel has acted and queued the answer before sendto returns, so there is nothing to wait for.
        const ssize_t size = sys::retry([&] { return ::recvmsg(socket_, &message, MSG_DONTWAIT); });
        if (size < 0) {
            const int saved = errno;
            if (saved == ENOBUFS && !lost) {
                lost = true;
                continue;
            }
            const int cause = saved != EAGAIN ? saved : lost ? ENOBUFS : EPROTO;
            throw Error{Step::network, cause, std::string{context} + ": answer from rtnetlink"};
        }
        // Whoever has CAP_NET_ADMIN over the network namespace may write to this socket; only the kernel's word counts.
        if (message.msg_namelen != sizeof from || from.nl_pid != 0) continue;
        if ((message.msg_flags & MSG_TRUNC) != 0) malformed();
        if (answer.take(buffer_.data(), static_cast<std::size_t>(size), sequence)) return answer;
    }
}

std::optional<Link> Netlink::find(Request& request, std::string_view context) {
    Answer answer = ask(request, context);
    if (answer.error == ENODEV) return std::nullopt;
    answer.require(context);
    if (answer.links.size() != 1) malformed();
    return std::move(answer.links.front());
}

std::optional<Link> Netlink::find(const std::string& name) {
    Request request{RTM_GETLINK, 0, ifinfomsg{}};
    request.put(IFLA_IFNAME, name);
    return find(request, "look for link " + quote(name));
}

std::optional<Link> Netlink::find(unsigned index) {
    ifinfomsg info{};
    info.ifi_index = static_cast<int>(index);
    Request request{RTM_GETLINK, 0, info};
    return find(request, "look for link " + std::to_string(index));
}

std::vector<Link> Netlink::links() {
    for (int attempt = 0;; ++attempt) {
        Request request{RTM_GETLINK, NLM_F_DUMP, ifinfomsg{}};
        Answer answer = ask(request, "list of links");
        answer.require("list of links");
        // After many tries a list that may lack a link that came meanwhile is better than none.
        if (!answer.interrupted || attempt == 15) return std::move(answer.links);
    }
}

}  // namespace caisson::inline v0::detail
