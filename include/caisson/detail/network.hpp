// caisson/detail/network.hpp - what Bridge and the start of a container ask of rtnetlink; implemented in
// src/network.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/spec.hpp>
#include <caisson/usage.hpp>

// Every function throws `Step::network`, and ENOTSUP in a library without networks (-Dnetwork=disabled). A socket
// argument is borrowed; replies are told apart by sequence number, but one socket serves one thread at a time.
namespace caisson::inline v0::detail {

/// Throws unless `name` is fit for a link: 1 to 15 bytes of printable ASCII without '/', ':' and '%', none of the names
/// that /proc/sys/net uses for itself. `what` is the noun for the message: "bridge".
inline void check_link_name(std::string_view name, std::string_view what) {
    const auto refuse = [&](int errnum, std::string_view remedy) {
        throw Error{Step::network, errnum, std::string{what} + " " + quote(name), remedy};
    };
    if (name.empty()) refuse(EINVAL, "it needs a name");
    if (name.size() > 15) refuse(ENAMETOOLONG, "the name of a link has at most 15 bytes");
    if (name == "." || name == ".." || name == "all" || name == "default") refuse(EINVAL, "this name is reserved");
    for (const char c : name) {
        if (c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%') {
            refuse(EINVAL, "the name of a link is printable ASCII without space, '/', ':' and '%'");
        }
    }
}

/// A socket for links of the network namespace that the calling thread is in, and which it stays with.
[[nodiscard, gnu::visibility("default")]] Fd open_netlink();
/// A number of the network namespace that a socket is in, which no other has had or will have.
[[nodiscard]] inline std::uint64_t network_of(int socket) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    if (::getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) {
        fail(Step::network, "network namespace of a socket");
    }
    return cookie;
}

/// Makes a bridge that refuses router advertisements and has no address but those given, and sets it up; its index.
[[nodiscard, gnu::visibility("default")]] unsigned make_bridge(int netlink, const std::string& name,
                                                               const std::vector<IpPrefix>& addresses,
                                                               std::optional<std::uint32_t> mtu);
/// The index of an existing bridge.
[[nodiscard, gnu::visibility("default")]] unsigned find_bridge(int netlink, const std::string& name);
[[nodiscard, gnu::visibility("default")]] std::uint32_t link_mtu(int netlink, unsigned index);
/// Takes the owner's tag off a link: `sweep_links` leaves it alone from then on.
[[gnu::visibility("default")]] void disown_link(int netlink, unsigned index);
[[gnu::visibility("default")]] void delete_link(int netlink, unsigned index);
/// The same in the calling thread's network namespace.
[[gnu::visibility("default")]] void delete_link(unsigned index);
/// What a netlink socket has to be given by write(2) to remove these links.
[[nodiscard, gnu::visibility("default")]] std::vector<std::byte> delete_requests(const std::vector<unsigned>& indices);
/// For destructors: false where the loud one would throw.
[[gnu::visibility("default")]] bool delete_link_quietly(int netlink, unsigned index) noexcept;

/// Lays a veth pair from a port of the bridge `bridge` into the network namespace `netns`, in which `netlink_inside`
/// was opened: addresses, up, routes. An unnamed inner end gets the first free name of eth0, eth1, ... Returns the
/// index of the outer end; on failure the pair is gone.
[[gnu::visibility("default")]] unsigned plug_link(int netlink, unsigned bridge, const NetworkSpec& spec, int netns,
                                                  int netlink_inside);

/// An interface of a container's.
struct PluggedLink {
    unsigned index = 0;       ///< of the outer end
    std::string name{};       ///< inside
    std::string host_name{};  ///< of the outer end
    bool late = false;        ///< it came while the container ran: the keeper does not know it
};

/// Looks at what a start will need, and makes nothing: bridges are there, names are valid and free and not given twice.
[[gnu::visibility("default")]] void check_network(const std::vector<NetworkSpec>& networks);
/// As `plug_link`, to the bridge that the spec names; an unnamed inner end is called eth and `index_of_unnamed`.
[[gnu::visibility("default")]] PluggedLink plug_container(int netlink, const NetworkSpec& spec,
                                                          unsigned index_of_unnamed, int netns, int netlink_inside);
/// What the inner end is to be called: by the spec, else the first of eth0, eth1, ... that is free inside, and that no
/// link of `given` was called when it came. Throws EEXIST where the spec's is one of those.
[[nodiscard, gnu::visibility("default")]] std::string free_name(const NetworkSpec& spec, int netlink_inside,
                                                                const std::vector<PluggedLink>& given);
/// Who is told what the outer end will be called, before it is made: each name that is tried. Borrows what it calls.
struct NameTeller {
    const void* who = nullptr;
    void (*tell)(const void*, const std::string&) = nullptr;
    template <class Tell>
    [[nodiscard]] static NameTeller of(const Tell& tell) noexcept {
        return {&tell, [](const void* teller, const std::string& name) { (*static_cast<const Tell*>(teller))(name); }};
    }
};
/// The same as `plug_container` for a container that runs, and an inner end that has a name. `tag` is the owner's.
[[gnu::visibility("default")]] PluggedLink plug_running(int netlink, const NetworkSpec& spec, int netns,
                                                        int netlink_inside, const std::string& tag, NameTeller teller);
/// The index of the outer end of that name, if it is a link of the owner that has this tag; else 0.
[[nodiscard, gnu::visibility("default")]] unsigned find_plugged(int netlink, const std::string& host_name,
                                                                const std::string& tag);
/// What came and went through each, as the container sees it, in the place of what is in `into`; those that somebody
/// has removed are left out.
[[gnu::visibility("default")]] void read_network_usage(int netlink, const std::vector<PluggedLink>& links,
                                                       std::vector<NetworkUsage>& into);

/// The outer ends of a container's veth pairs. The kernel would take them away with the container's network namespace,
/// but only some time after the container's end, and until then their names are taken.
class Links {
public:
    Links() noexcept = default;
    Links(Links&& other) noexcept { swap(other); }
    Links& operator=(Links&& other) noexcept {
        Links taken{std::move(other)};
        swap(taken);
        return *this;
    }
    Links(const Links&) = delete;
    Links& operator=(const Links&) = delete;
    ~Links() { remove(); }

    /// As `plug_container`, in the network namespace that the calling thread is in at the first call.
    void plug(const NetworkSpec& spec, unsigned index_of_unnamed, int netns, int netlink_inside) {
        if (!netlink_) netlink_ = open_netlink();
        maker_ = ::getpid();
        links_.reserve(links_.size() + 1);
        links_.push_back(plug_container(netlink_.get(), spec, index_of_unnamed, netns, netlink_inside));
    }
    [[nodiscard]] bool empty() const noexcept { return links_.empty(); }
    /// See `Usage::networks`.
    void usage(std::vector<NetworkUsage>& into) const {
        if (!empty()) read_network_usage(netlink_.get(), links_, into);
    }
    [[nodiscard]] int netlink() const noexcept { return netlink_.get(); }
    [[nodiscard]] std::vector<std::byte> delete_requests() const {
        std::vector<unsigned> indices;
        for (const PluggedLink& link : links_) indices.push_back(link.index);
        return detail::delete_requests(indices);
    }
    /// Sees to what `add` needs, which then does not throw: a socket, opened here where none is given.
    void prepare_to_add(Fd netlink) {
        if (!netlink_ || empty()) netlink_ = netlink ? std::move(netlink) : open_netlink();
        maker_ = ::getpid();
        links_.reserve(links_.size() + 1);
    }
    /// See `network_of`; 0 where there are none.
    [[nodiscard]] std::uint64_t network() const { return empty() ? 0 : network_of(netlink_.get()); }
    [[nodiscard]] const std::vector<PluggedLink>& all() const noexcept { return links_; }
    void add(PluggedLink link) noexcept { links_.push_back(std::move(link)); }
    /// Forgets one; it is somebody else's to remove.
    void erase(unsigned index) noexcept {
        std::erase_if(links_, [index](const PluggedLink& link) { return link.index == index; });
    }
    /// The keeper has removed those that it knows.
    void release() noexcept {
        std::erase_if(links_, [](const PluggedLink& link) { return !link.late; });
        remove();
    }
    /// Does nothing in a fork(2)ed copy of the process.
    void remove() noexcept {
        if (maker_ != ::getpid()) return;
        for (const PluggedLink& link : links_) (void)delete_link_quietly(netlink_.get(), link.index);
        links_.clear();
        netlink_.reset();
    }

private:
    void swap(Links& other) noexcept {
        std::swap(netlink_, other.netlink_);
        std::swap(links_, other.links_);
        std::swap(maker_, other.maker_);
    }
    Fd netlink_{};
    std::vector<PluggedLink> links_{};
    pid_t maker_ = -1;
};

/// Deletes the bridges and veth pairs in the calling thread's network namespace whose tag names an owner that is dead
/// for certain; the names of what is gone. What cannot be deleted is left for the next time.
[[gnu::visibility("default")]] std::vector<std::string> sweep_links();

}  // namespace caisson::inline v0::detail
