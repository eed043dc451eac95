// src/network_usage.cpp - the kernel's figures of links, asked for one by one without allocating.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include <linux/if_link.h>
#include <sys/socket.h>

#include <caisson/detail/network.hpp>
#include <caisson/detail/sys.hpp>

#include "netlink.hpp"

namespace caisson::inline v0::detail {
namespace {

constexpr const char* context = "statistics of a network interface";

/// As in Netlink::ask: an answer to anything else may wait in the queue.
std::uint32_t fresh_sequence() noexcept {
    timespec now{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint32_t>(now.tv_sec * 1'000'000'000 + now.tv_nsec);
}

/// Of one message; false if it is not about `IFLA_STATS_LINK_64`.
bool take(const nlmsghdr* message, rtnl_link_stats64& into) noexcept {
    const std::size_t fixed = MNL_ALIGN(sizeof(if_stats_msg));
    const std::size_t size = mnl_nlmsg_get_payload_len(message);
    if (message->nlmsg_type != RTM_NEWSTATS || size < fixed) return false;
    const char* const payload = static_cast<const char*>(mnl_nlmsg_get_payload(message));
    const auto* attribute = static_cast<const nlattr*>(static_cast<const void*>(payload + fixed));
    int left = static_cast<int>(size - fixed);
    for (; mnl_attr_ok(attribute, left); attribute = mnl_attr_next(attribute)) {
        left -= static_cast<int>(MNL_ALIGN(attribute->nla_len));
        if (mnl_attr_get_type(attribute) != IFLA_STATS_LINK_64) continue;
        // Kernels differ in how much comes after what is of interest here.
        std::memcpy(&into, mnl_attr_get_payload(attribute),
                    std::min<std::size_t>(sizeof into, mnl_attr_get_payload_len(attribute)));
        return true;
    }
    return false;
}

/// False if there is no such link.
bool ask(int netlink, unsigned index, rtnl_link_stats64& into) {
    if_stats_msg wanted{};
    wanted.ifindex = index;
    wanted.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64);
    Request request{RTM_GETSTATS, 0, wanted};
    nlmsghdr* const header = request.header();
    header->nlmsg_seq = fresh_sequence();
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    const sockaddr* const to = static_cast<const sockaddr*>(static_cast<const void*>(&kernel));
    if (sys::retry([&] { return ::sendto(netlink, header, header->nlmsg_len, 0, to, sizeof kernel); }) < 0) {
        fail(Step::network, context);
    }
    alignas(nlmsghdr) std::array<char, 4096> buffer;
    for (;;) {
        sockaddr_nl from{};
        socklen_t from_size = sizeof from;
        sockaddr* const sender = static_cast<sockaddr*>(static_cast<void*>(&from));
        // The kernel has queued the answer before sendto returns.
        const ssize_t size = sys::retry(
            [&] { return ::recvfrom(netlink, buffer.data(), buffer.size(), MSG_DONTWAIT, sender, &from_size); });
        if (size < 0 && errno == ENOBUFS) continue;
        if (size < 0) throw Error{Step::network, errno == EAGAIN ? EPROTO : errno, context};
        // Only the kernel's word counts, and what answers another question may have come before.
        if (from_size != sizeof from || from.nl_pid != 0) continue;
        const auto* const message = static_cast<const nlmsghdr*>(static_cast<const void*>(buffer.data()));
        if (!mnl_nlmsg_ok(message, static_cast<int>(size)) || message->nlmsg_seq != header->nlmsg_seq) continue;
        if (take(message, into)) return true;
        std::int32_t code = 0;
        if (message->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(message) < sizeof code) {
            throw Error{Step::network, EBADMSG, context};
        }
        std::memcpy(&code, mnl_nlmsg_get_payload(message), sizeof code);
        if (code == -ENODEV) return false;
        throw Error{Step::network, code >= -4095 && code < 0 ? -code : EBADMSG, context};
    }
}

}  // namespace

void read_network_usage(int netlink, const std::vector<PluggedLink>& links, std::vector<NetworkUsage>& into) {
    into.clear();
    for (const PluggedLink& link : links) {
        rtnl_link_stats64 outer{};
        if (!ask(netlink, link.index, outer)) continue;
        // What the host's end has received, the container has sent.
        into.push_back({.name = link.name,
                        .host_name = link.host_name,
                        .received_bytes = outer.tx_bytes,
                        .received_packets = outer.tx_packets,
                        .received_errors = outer.tx_errors,
                        .received_dropped = outer.tx_dropped,
                        .sent_bytes = outer.rx_bytes,
                        .sent_packets = outer.rx_packets,
                        .sent_errors = outer.rx_errors,
                        .sent_dropped = outer.rx_dropped});
    }
}

}  // namespace caisson::inline v0::detail
