// caisson/bridge.hpp - a bridge of the host, and the cables from it into network namespaces.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/fd.hpp>
#include <caisson/namespace.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0 {

/// What `Bridge::create` can be told beyond name and addresses.
struct BridgeOptions {
    /// Bytes, 68 to 65535, and fixed. Nothing: 1500, and from the first port on the smallest of its ports', see
    /// bridge(8).
    std::optional<std::uint32_t> mtu{};
    friend bool operator==(const BridgeOptions&, const BridgeOptions&) = default;
};

/// A bridge in the network namespace that the calling thread was in when it was made or found.
///
/// Move-only. `create` owns the bridge and the destructor removes it, by its index and never by its name; `use` borrows
/// one and leaves it there. Keeps one netlink socket, so that it stays with its network namespace whatever namespace
/// its user enters later. Every function throws `Step::network`, and `std::logic_error` on an object that holds
/// nothing. One thread at a time. `use` and the getters need no privilege, the rest CAP_NET_ADMIN. Kernel:
/// rtnetlink(7).
class Bridge {
public:
    /// Makes a bridge with these addresses and sets it up. It takes no router advertisement and makes up no IPv6
    /// address of its own, so that nothing in a container can route the host's packets. Its owner is noted in its
    /// alias: a sweep finds it if this process dies. A name that is taken is an error (EEXIST).
    [[nodiscard]] static Bridge create(std::string name, const std::vector<IpPrefix>& addresses = {},
                                       BridgeOptions options = {}) {
        detail::check_link_name(name, "bridge");
        Bridge bridge{std::move(name)};
        bridge.index_ = detail::make_bridge(bridge.netlink_.get(), bridge.name_, addresses, options.mtu);
        bridge.made_ = true;
        return bridge;
    }
    /// A bridge that someone else made and keeps. ENODEV if there is no such link, EINVAL if the link is no bridge.
    [[nodiscard]] static Bridge use(std::string name) {
        detail::check_link_name(name, "bridge");
        Bridge bridge{std::move(name)};
        bridge.index_ = detail::find_bridge(bridge.netlink_.get(), bridge.name_);
        return bridge;
    }

    Bridge(Bridge&& other) noexcept { swap(other); }
    Bridge& operator=(Bridge&& other) noexcept {
        Bridge taken{std::move(other)};
        swap(taken);
        return *this;
    }
    Bridge(const Bridge&) = delete;
    Bridge& operator=(const Bridge&) = delete;
    ~Bridge() {
        if (made_ && maker_ == ::getpid()) (void)detail::delete_link_quietly(netlink_.get(), index_);
    }

    /// Lays a veth pair from this bridge into `net`: name (empty: the first free of eth0, eth1, ...), MAC, MTU,
    /// addresses and routes are in place and the link is up when this returns. The spec's `bridge` is this one's name
    /// or empty. The pair goes away with `net`, or with the link whose index, outside, is returned. On failure nothing
    /// is left. The calling thread is in `net` for the length of one system call and then back; this needs
    /// CAP_SYS_ADMIN.
    unsigned plug(const Namespace& net, const NetworkSpec& spec) {
        require();
        if (net.kind() != NamespaceKind::net) throw std::logic_error{"plug: this is no network namespace"};
        if (!spec.bridge.empty() && spec.bridge != name_) throw std::logic_error{"plug: the spec names another bridge"};
        Fd inside;
        {
            Namespace::Scope scope = net.enter_scoped();
            inside = detail::open_netlink();
            scope.leave();
        }
        return detail::plug_link(netlink_.get(), index_, spec, net.fd(), inside.get());
    }

    /// Removes the bridge that `create` made, now; the cables lose their bridge and stay. A bridge that was only used
    /// is not this object's to remove: `std::logic_error`.
    void remove() {
        require();
        if (!made_) throw std::logic_error{"remove: this bridge was made by someone else"};
        detail::delete_link(netlink_.get(), index_);
        made_ = false;
        *this = Bridge{};
    }
    /// Leaves the bridge in place for good: neither this object nor a sweep removes it. The object can still plug.
    void release() {
        require();
        if (made_) detail::disown_link(netlink_.get(), index_);
        made_ = false;
    }

    /// As given to `create` or `use`; empty once moved from.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// The kernel's number of the link in its network namespace; 0 once moved from.
    [[nodiscard]] unsigned index() const noexcept { return index_; }
    /// Bytes, as the kernel has it at this moment.
    [[nodiscard]] std::uint32_t mtu() const {
        require();
        return detail::link_mtu(netlink_.get(), index_);
    }

private:
    Bridge() noexcept = default;
    explicit Bridge(std::string name) : netlink_{detail::open_netlink()}, name_{std::move(name)} {}
    void require() const {
        if (index_ == 0) throw std::logic_error{"this Bridge holds nothing"};
    }
    void swap(Bridge& other) noexcept {
        std::swap(netlink_, other.netlink_);
        name_.swap(other.name_);
        std::swap(index_, other.index_);
        std::swap(made_, other.made_);
        std::swap(maker_, other.maker_);
    }

    Fd netlink_;
    std::string name_;
    unsigned index_ = 0;
    bool made_ = false;
    pid_t maker_ = ::getpid();  // a fork(2)ed copy removes nothing
};

}  // namespace caisson::inline v0
