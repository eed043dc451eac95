// src/network.cpp - bridges, veth pairs, addresses and routes, in terms of src/netlink.hpp.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include <linux/if_addr.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <caisson/detail/network.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/sys.hpp>

#include "netlink.hpp"

namespace caisson::inline v0::detail {
namespace {

using Mac = std::array<std::uint8_t, 6>;

template <std::size_t N>
std::array<std::uint8_t, N> random_bytes() {
    std::array<std::uint8_t, N> bytes{};
    if (sys::retry([&] { return ::getrandom(bytes.data(), N, 0); }) != static_cast<ssize_t>(N)) {
        fail(Step::network, "random number");
    }
    return bytes;
}

/// Random but for its beginning.
template <std::size_t N>
Mac random_mac(const std::array<std::uint8_t, N>& beginning) {
    Mac mac = random_bytes<6>();
    std::copy(beginning.begin(), beginning.end(), mac.begin());
    return mac;
}

void check_mtu(std::optional<std::uint32_t> mtu, const std::string& whose) {
    if (mtu && (*mtu < 68 || *mtu > 65535)) {
        throw Error{Step::network, EINVAL, "MTU " + std::to_string(*mtu) + " of " + whose, "give 68 to 65535 bytes"};
    }
}

ifinfomsg link_header(unsigned index, bool up) {
    ifinfomsg info{};
    info.ifi_index = static_cast<int>(index);
    if (up) info.ifi_flags = info.ifi_change = IFF_UP;
    return info;
}

Answer ask_delete(Netlink& net, unsigned index) {
    Request request{RTM_DELLINK, 0, link_header(index, false)};
    return net.ask(request, "remove link " + std::to_string(index));
}

/// Deletes a link on the way out, unless told that all went well.
class Undo {
public:
    Undo(Netlink& net, unsigned index) noexcept : net_{net}, index_{index} {}
    Undo(const Undo&) = delete;
    Undo& operator=(const Undo&) = delete;
    ~Undo() {
        if (index_ == 0) return;
        try {
            (void)ask_delete(net_, index_);
        } catch (...) {  // what made us leave is already under way
        }
    }
    void dismiss() noexcept { index_ = 0; }

private:
    Netlink& net_;
    unsigned index_;
};

struct Made {
    Answer answer;
    Link link{};  ///< only where the answer is no refusal
};

/// Sends a request that makes a link with this name, kind and MAC. The MAC is random, and so tells our link from any
/// other when the answer is lost or the link is renamed at once: then it is deleted again.
Made make_link(Netlink& net, Request& request, const std::string& name, const char* kind, const Mac& mac,
               std::string_view context) {
    const auto is_ours = [&](const Link& link) { return link.mac == mac && link.kind == kind; };
    try {
        Made made{net.ask(request, context)};
        if (made.answer.error != 0) return made;
        auto link = net.find(name);
        if (!link || !is_ours(*link)) {
            throw Error{Step::network, ENODEV, context, "another program renamed or removed it as it was made"};
        }
        made.link = std::move(*link);
        return made;
    } catch (...) {
        try {
            for (const Link& link : net.links()) {
                if (is_ours(link)) (void)ask_delete(net, link.index);
            }
        } catch (...) {  // the first error is the one to tell
        }
        throw;
    }
}

/// The alias of what the calling process makes. Asked for before a link is made, so that it is untagged, and invisible
/// to a sweep, for no longer than it must.
std::string own_alias() {
    return alias_of(Owner::current().tag());
}

/// Up, tagged with its owner, without an IPv6 address made up by the kernel.
void adopt(Netlink& net, unsigned index, const std::string& alias, std::optional<std::uint32_t> mtu,
           std::string_view context) {
    Answer answer;
    for (const bool with_ipv6 : {true, false}) {
        Request request{RTM_NEWLINK, 0, link_header(index, true)};
        request.put(IFLA_IFALIAS, alias);
        if (mtu) request.put(IFLA_MTU, *mtu);
        if (with_ipv6) {
            nlattr* const families = request.begin(IFLA_AF_SPEC);
            nlattr* const inet6 = request.begin(AF_INET6);
            request.put(IFLA_INET6_ADDR_GEN_MODE, std::uint8_t{IN6_ADDR_GEN_MODE_NONE});
            request.end(inet6);
            request.end(families);
        }
        answer = net.ask(request, context);
        // A kernel without IPv6, or an MTU too small for it: refused as a whole, and there is nothing to turn off.
        if (answer.error != EAFNOSUPPORT) break;
    }
    answer.require(context);
}

/// No frame goes from this port to another such one.
void isolate(Netlink& net, unsigned index, std::string_view context) {
    Request request{RTM_NEWLINK, 0, link_header(index, false)};
    nlattr* const info = request.begin(IFLA_LINKINFO);
    request.put(IFLA_INFO_SLAVE_KIND, std::string{"bridge"});
    nlattr* const port = request.begin(IFLA_INFO_SLAVE_DATA);
    request.put(IFLA_BRPORT_ISOLATED, std::uint8_t{1});
    request.end(port);
    request.end(info);
    net.ask(request, context).require(context);
}

/// Router advertisements cannot be turned off through netlink, so this goes through the calling thread's /proc/sys/net.
void refuse_router_advertisements(const std::string& name) {
    const std::string path = "/proc/sys/net/ipv6/conf/" + name;
    const Fd directory = sys::open(path, O_PATH | O_DIRECTORY);
    if (!directory) {
        if (errno == ENOENT) return;  // no IPv6 on this link
        fail(Step::network, quote(path));
    }
    for (const char* const file : {"accept_ra", "autoconf", "accept_redirects"}) {
        if (sys::write_file(directory.get(), file, "0")) continue;
        const int saved = errno;
        std::string value;
        if (sys::read_file(directory.get(), file, value) && value == "0\n") continue;
        throw Error{Step::network, saved, "write " + quote(path + "/" + file),
                    "make /proc/sys/net writable, or set net.ipv6.conf.default." + std::string{file} + " to 0"};
    }
}

int family_of(const IpAddress& address) {
    return address.v6 ? AF_INET6 : AF_INET;
}

void add_address(Netlink& net, unsigned index, const IpPrefix& prefix, std::string_view whose) {
    const IpAddress& address = prefix.address;
    const std::string context = "address " + quote(prefix.str()) + " of " + std::string{whose};
    if (prefix.length > address.size() * 8) {
        throw Error{Step::network, EINVAL, context, "the prefix is longer than the address"};
    }
    ifaddrmsg info{};
    info.ifa_family = static_cast<std::uint8_t>(family_of(address));
    info.ifa_prefixlen = prefix.length;
    info.ifa_index = index;
    // Detection of duplicates would hold an IPv6 address back for a second.
    if (address.v6) info.ifa_flags = IFA_F_NODAD;
    Request request{RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, info};
    request.put(IFA_LOCAL, address.octets.data(), address.size());
    request.put(IFA_ADDRESS, address.octets.data(), address.size());
    if (!address.v6 && prefix.length < 31) {
        std::array<std::uint8_t, 4> broadcast{};
        std::copy_n(address.octets.begin(), 4, broadcast.begin());
        for (unsigned bit = prefix.length; bit < 32; ++bit) {
            broadcast[bit / 8] = static_cast<std::uint8_t>(broadcast[bit / 8] | (0x80u >> (bit % 8)));
        }
        request.put(IFA_BROADCAST, broadcast.data(), broadcast.size());
    }
    const Answer answer = net.ask(request, context);
    answer.require(context, answer.error == EEXIST ? "the address is given twice" : "");
}

void add_route(Netlink& net, unsigned index, const RouteSpec& route, std::string_view whose) {
    const IpAddress& destination = route.destination.address;
    std::string context = "route to " + quote(route.destination.str());
    if (route.gateway) context += " via " + quote(route.gateway->str());
    context += " of " + std::string{whose};
    if (route.gateway && route.gateway->v6 != destination.v6) {
        throw Error{Step::network, EINVAL, context, "give a gateway of the destination's address family"};
    }
    if (route.destination.length > destination.size() * 8) {
        throw Error{Step::network, EINVAL, context, "the prefix is longer than the address"};
    }
    rtmsg info{};
    info.rtm_family = static_cast<std::uint8_t>(family_of(destination));
    info.rtm_dst_len = route.destination.length;
    info.rtm_table = RT_TABLE_MAIN;
    info.rtm_protocol = RTPROT_STATIC;
    info.rtm_scope = route.gateway || destination.v6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    info.rtm_type = RTN_UNICAST;
    Request request{RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, info};
    if (route.destination.length > 0) request.put(RTA_DST, destination.octets.data(), destination.size());
    if (route.gateway) request.put(RTA_GATEWAY, route.gateway->octets.data(), destination.size());
    request.put(RTA_OIF, std::uint32_t{index});
    if (route.metric != 0) request.put(RTA_PRIORITY, route.metric);
    const Answer answer = net.ask(request, context);
    answer.require(context, answer.error == EEXIST        ? "there is such a route already"
                            : answer.error == ENETUNREACH ? "give the interface an address in the gateway's network"
                                                          : "");
}

/// What both ends of a veth pair are to be.
struct Pair {
    std::string outer;
    Mac outer_mac;
    std::string inner;
    Mac inner_mac;
    std::uint32_t mtu;
};

Made ask_pair(Netlink& host, const Pair& pair, unsigned bridge, int netns, std::string_view context) {
    Request request{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{}};
    request.put(IFLA_IFNAME, pair.outer);
    request.put(IFLA_ADDRESS, pair.outer_mac.data(), pair.outer_mac.size());
    request.put(IFLA_MTU, pair.mtu);
    request.put(IFLA_MASTER, std::uint32_t{bridge});
    nlattr* const info = request.begin(IFLA_LINKINFO);
    request.put(IFLA_INFO_KIND, std::string{"veth"});
    nlattr* const data = request.begin(IFLA_INFO_DATA);
    nlattr* const peer = request.begin(VETH_INFO_PEER);
    request.append(ifinfomsg{});
    request.put(IFLA_IFNAME, pair.inner);
    request.put(IFLA_ADDRESS, pair.inner_mac.data(), pair.inner_mac.size());
    request.put(IFLA_MTU, pair.mtu);
    request.put(IFLA_NET_NS_FD, static_cast<std::uint32_t>(netns));
    request.end(peer);
    request.end(data);
    request.end(info);
    return make_link(host, request, pair.outer, "veth", pair.outer_mac, context);
}

std::string random_name() {
    std::uint32_t number = 0;
    std::memcpy(&number, random_bytes<sizeof number>().data(), sizeof number);
    return "veth" + std::to_string(number % 100'000'000);
}

/// The pair itself, in one request. The outer end gets a MAC above all others, lest a bridge that takes the lowest one
/// of its ports changes its own as containers come and go.
Link make_pair(Netlink& host, const Link& bridge, const NetworkSpec& spec, const std::string& inner, int netns,
               Netlink& inside, std::string_view context, NameTeller teller) {
    Pair pair{spec.host_name, random_mac(std::array<std::uint8_t, 1>{0xfe}), inner,
              spec.mac ? spec.mac->octets : random_mac(std::array<std::uint8_t, 3>{0x52, 0x54, 0x00}),
              spec.mtu.value_or(bridge.mtu)};
    for (int attempt = 0;; ++attempt) {
        if (spec.host_name.empty()) pair.outer = random_name();
        if (teller.tell != nullptr) teller.tell(teller.who, pair.outer);
        Made made = ask_pair(host, pair, bridge.index, netns, context);
        const int error = made.answer.error;
        if (error == EEXIST) {
            if (inside.find(inner)) {
                made.answer.require(context, "the name is taken in the container's network namespace");
            }
            if (spec.host_name.empty() && attempt < 100) continue;
            made.answer.require("interface " + quote(pair.outer),
                                "the name is taken on the host: choose another, or none");
        }
        made.answer.require(context, error == EOPNOTSUPP ? "this kernel has no veth pairs: load its module 'veth'"
                                     : error == EXFULL   ? "the bridge has all the ports it can have"
                                                         : "");
        return std::move(made.link);
    }
}

PluggedLink lay(Netlink& host, const Link& bridge, const NetworkSpec& spec, const std::string& inner, int netns,
                int netlink_inside, const std::string& alias, NameTeller teller = {}) {
    check_link_name(inner, "interface");
    if (!spec.host_name.empty()) check_link_name(spec.host_name, "interface");
    Netlink inside{netlink_inside};
    const std::string whose = "interface " + quote(inner);
    check_mtu(spec.mtu, whose);
    const std::string context = whose + " on bridge " + quote(bridge.name);

    const Link outer = make_pair(host, bridge, spec, inner, netns, inside, context, teller);
    Undo undo{host, outer.index};
    // There is no carrier until the inner end is up, so the kernel makes up no address before it is told not to.
    if (spec.isolated) isolate(host, outer.index, "isolated port for " + context);
    adopt(host, outer.index, alias, std::nullopt, context);
    Request up{RTM_NEWLINK, 0, link_header(outer.peer, true)};
    inside.ask(up, context).require(context);
    for (const IpPrefix& address : spec.addresses) add_address(inside, outer.peer, address, whose);
    for (const RouteSpec& route : spec.routes) add_route(inside, outer.peer, route, whose);
    undo.dismiss();
    return {outer.index, inner, outer.name, false};
}

Link require_bridge(Netlink& net, const std::string& name) {
    const std::string context = "bridge " + quote(name);
    auto link = net.find(name);
    if (!link) throw Error{Step::network, ENODEV, context, "create it with 'ip link add " + name + " type bridge'"};
    if (link->kind != "bridge") {
        throw Error{
            Step::network, EINVAL, context,
            link->kind.empty() ? "this link is no bridge" : "this link is no bridge but of type " + quote(link->kind)};
    }
    return std::move(*link);
}

Link require_link(Netlink& net, unsigned index) {
    auto link = net.find(index);
    if (!link) throw Error{Step::network, ENODEV, "link " + std::to_string(index), "another program removed it"};
    return std::move(*link);
}

}  // namespace

Fd open_netlink() {
    Fd socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
    if (!socket)
        fail(Step::network, "netlink socket", errno == EMFILE ? "no descriptor is left: raise 'ulimit -n'" : "");
    return socket;
}

unsigned make_bridge(int netlink, const std::string& name, const std::vector<IpPrefix>& addresses,
                     std::optional<std::uint32_t> mtu) {
    check_link_name(name, "bridge");
    Netlink net{netlink};
    const std::string context = "bridge " + quote(name);
    check_mtu(mtu, context);
    const std::string alias = own_alias();
    const Mac mac = random_mac(std::array<std::uint8_t, 1>{0x52});
    Request request{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{}};
    request.put(IFLA_IFNAME, name);
    request.put(IFLA_ADDRESS, mac.data(), mac.size());
    // The kernel takes an MTU for the user's wish, and keeps it, only if it is a change.
    if (mtu) request.put(IFLA_MTU, *mtu > 68 ? *mtu - 1 : std::uint32_t{69});
    nlattr* const info = request.begin(IFLA_LINKINFO);
    request.put(IFLA_INFO_KIND, std::string{"bridge"});
    request.end(info);
    const Made made = make_link(net, request, name, "bridge", mac, context);
    const int error = made.answer.error;
    made.answer.require(context, error == EEXIST       ? "the name is taken: choose another, or use that bridge"
                                 : error == EOPNOTSUPP ? "this kernel has no bridges: load its module 'bridge'"
                                                       : "");
    Undo undo{net, made.link.index};
    // Nothing can arrive before the first port is there.
    adopt(net, made.link.index, alias, mtu, context);
    refuse_router_advertisements(name);
    for (const IpPrefix& address : addresses) add_address(net, made.link.index, address, context);
    undo.dismiss();
    return made.link.index;
}

unsigned find_bridge(int netlink, const std::string& name) {
    check_link_name(name, "bridge");
    Netlink net{netlink};
    return require_bridge(net, name).index;
}

std::uint32_t link_mtu(int netlink, unsigned index) {
    Netlink net{netlink};
    return require_link(net, index).mtu;
}

void disown_link(int netlink, unsigned index) {
    Netlink net{netlink};
    const std::string context = "take the owner's tag off link " + std::to_string(index);
    Request request{RTM_NEWLINK, 0, link_header(index, false)};
    request.put(IFLA_IFALIAS, nullptr, 0);
    net.ask(request, context).require(context);
}

void delete_link(int netlink, unsigned index) {
    Netlink net{netlink};
    ask_delete(net, index).require("remove link " + std::to_string(index));
}

void delete_link(unsigned index) {
    delete_link(open_netlink().get(), index);
}

std::vector<std::byte> delete_requests(const std::vector<unsigned>& indices) {
    std::vector<std::byte> all;
    static_assert(NLMSG_SPACE(sizeof(ifinfomsg)) == 32, "the keeper reads whole requests");
    for (const unsigned index : indices) {
        Request request{RTM_DELLINK, 0, link_header(index, false)};
        const auto* const begin = reinterpret_cast<const std::byte*>(request.header());
        all.insert(all.end(), begin, begin + NLMSG_ALIGN(request.header()->nlmsg_len));
    }
    return all;
}

bool delete_link_quietly(int netlink, unsigned index) noexcept {
    try {
        delete_link(netlink, index);
        return true;
    } catch (...) {
        return false;
    }
}

std::string free_name(const NetworkSpec& spec, int netlink_inside, const std::vector<PluggedLink>& given) {
    const auto is_given = [&](const std::string& name) {
        return std::ranges::any_of(given, [&](const PluggedLink& link) { return link.name == name; });
    };
    std::string inner = spec.name;
    if (!inner.empty()) {
        if (!is_given(inner)) return inner;
        throw Error{Step::network, EEXIST, "interface " + quote(inner) + " on bridge " + quote(spec.bridge),
                    "the container was given one of that name: choose another, or detach that one first"};
    }
    Netlink inside{netlink_inside};
    unsigned number = 0;
    do inner = "eth" + std::to_string(number++);
    while (is_given(inner) || inside.find(inner));
    return inner;
}

unsigned plug_link(int netlink, unsigned bridge, const NetworkSpec& spec, int netns, int netlink_inside) {
    Netlink host{netlink};
    const std::string inner = free_name(spec, netlink_inside, {});
    return lay(host, require_link(host, bridge), spec, inner, netns, netlink_inside, own_alias()).index;
}

PluggedLink plug_running(int netlink, const NetworkSpec& spec, int netns, int netlink_inside, const std::string& tag,
                         NameTeller teller) {
    check_link_name(spec.bridge, "bridge");
    Netlink host{netlink};
    const Link bridge = require_bridge(host, spec.bridge);
    PluggedLink link = lay(host, bridge, spec, spec.name, netns, netlink_inside, alias_of(tag), teller);
    link.late = true;
    return link;
}

void check_network(const std::vector<NetworkSpec>& networks) {
    if (networks.empty()) return;
    const Fd socket = open_netlink();
    Netlink net{socket.get()};
    std::vector<std::string> inner_names;
    std::vector<std::string> host_names;
    const auto twice = [](const std::string& name) {
        throw Error{Step::network, EEXIST, "interface " + quote(name), "the name is given twice"};
    };
    unsigned unnamed = 0;
    for (const NetworkSpec& spec : networks) {
        check_link_name(spec.bridge, "bridge");
        (void)require_bridge(net, spec.bridge);
        const std::string inner = spec.name.empty() ? "eth" + std::to_string(unnamed++) : spec.name;
        check_link_name(inner, "interface");
        check_mtu(spec.mtu, "interface " + quote(inner));
        if (std::ranges::find(inner_names, inner) != inner_names.end()) twice(inner);
        inner_names.push_back(inner);
        if (spec.host_name.empty()) continue;
        check_link_name(spec.host_name, "interface");
        if (std::ranges::find(host_names, spec.host_name) != host_names.end()) twice(spec.host_name);
        if (net.find(spec.host_name)) {
            throw Error{Step::network, EEXIST, "interface " + quote(spec.host_name),
                        "the name is taken on the host: choose another, or none"};
        }
        host_names.push_back(spec.host_name);
    }
}

PluggedLink plug_container(int netlink, const NetworkSpec& spec, unsigned index_of_unnamed, int netns,
                           int netlink_inside) {
    check_link_name(spec.bridge, "bridge");
    Netlink host{netlink};
    const Link bridge = require_bridge(host, spec.bridge);
    const std::string inner = spec.name.empty() ? "eth" + std::to_string(index_of_unnamed) : spec.name;
    return lay(host, bridge, spec, inner, netns, netlink_inside, own_alias());
}

}  // namespace caisson::inline v0::detail
