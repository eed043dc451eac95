// src/network_owners.cpp - links by the tags of their owners.
#include <string>
#include <string_view>
#include <vector>

#include <caisson/detail/network.hpp>
#include <caisson/detail/owner.hpp>

#include "netlink.hpp"

namespace caisson::inline v0::detail {

std::string alias_of(const std::string& tag) {
    return std::string{tag_prefix} + tag;
}

unsigned find_plugged(int netlink, const std::string& host_name, const std::string& tag) {
    Netlink net{netlink};
    const auto link = net.find(host_name);
    return link && link->kind == "veth" && link->alias == alias_of(tag) ? link->index : 0;
}

std::vector<std::string> sweep_links() {
    const Fd socket = open_netlink();
    Netlink net{socket.get()};
    std::vector<std::string> removed;
    for (const Link& link : net.links()) {
        if ((link.kind != "bridge" && link.kind != "veth") || !link.alias.starts_with(tag_prefix)) continue;
        const auto owner = Owner::parse(std::string_view{link.alias}.substr(tag_prefix.size()));
        if (!owner || !owner->is_dead()) continue;
        if (delete_link_quietly(socket.get(), link.index)) removed.push_back(link.name);
    }
    return removed;
}

}  // namespace caisson::inline v0::detail
