// Family G: networks, netlink and sockets. The bridge and the host's ends are in a network namespace of the test's own.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>
#include <caisson/helper.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/network_lab.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// The calling thread is in a network namespace of its own while this lives.
struct OwnNetwork {
    Namespace net = Namespace::create(NamespaceKind::net);
    Namespace::Scope scope = net.enter_scoped();
};

ContainerSpec on_bridge(const TestRoot& root, const std::string& script) {
    ContainerSpec spec = caisson_test::shell(root, script);
    NetworkSpec network;
    network.bridge = "br0";
    network.addresses = {prefix("10.9.0.2/24"), prefix("fd09::2/64")};
    spec.networks = {network};
    return spec;
}

std::string said_until(Container& container, const std::string& word) {
    std::string said;
    for (char c = 0; !has(said, word) && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    return said;
}

/// A router advertisement to all nodes, as an Ethernet frame: a default router for an hour, and the prefix fdbb::/64.
std::array<std::uint8_t, 14 + 40 + 16 + 32> advertisement() {
    std::array<std::uint8_t, 14 + 40 + 16 + 32> f{};
    const auto put = [&](std::size_t at, std::initializer_list<int> bytes) {
        for (const int byte : bytes) f[at++] = static_cast<std::uint8_t>(byte);
    };
    put(0, {0x33, 0x33, 0, 0, 0, 1, 0x52, 0x54, 0, 0x66, 0x66, 0x66, 0x86, 0xdd});
    put(14, {0x60, 0, 0, 0, 0, 48, 58, 255, 0xfe, 0x80});
    put(14 + 8 + 15, {0x66});
    put(14 + 24, {0xff, 2});
    put(14 + 39, {1});
    put(54, {134, 0, 0, 0, 64, 0, 0x0e, 0x10});
    put(70, {3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0, 0xfd, 0xbb});
    // Over the addresses, the length, the number of the protocol and the message.
    std::uint32_t sum = 48 + 58;
    for (std::size_t i = 22; i < f.size(); i += 2) sum += static_cast<std::uint32_t>(f[i] << 8 | f[i + 1]);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    sum = ~sum;
    put(56, {static_cast<int>(sum >> 8 & 0xff), static_cast<int>(sum & 0xff)});
    return f;
}

/// The sockets of a process, by inode.
std::set<std::string> sockets_of(const std::string& proc) {
    std::set<std::string> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator{proc + "/fd", error}) {
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        if (target.starts_with("socket:[")) found.insert(target.substr(8, target.size() - 9));
    }
    return found;
}

}  // namespace

TEST_CASE("CVE-2020-13401, CVE-2020-10749: a container that plays the router is not taken for one by the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {prefix("10.9.0.1/24"), prefix("fd09::1/64")});
    Container container = Container::start(on_bridge(root, "echo re\"\"ady; read line"));
    (void)said_until(container, "ready");
    const std::string before = output("ip -6 route; ip -6 addr");
    const auto received = [] {
        return std::stoi("0" +
                         output("grep -s Icmp6InRouterAdvertisements /proc/net/snmp6 | tr -dc '0-9\\n' | cut -c2-"));
    };
    const int first = received();
    {
        const Namespace there = container.open_namespace(NamespaceKind::net);
        const Namespace::Scope scope = there.enter_scoped();
        const Fd socket{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)};
        if (!socket) CAISSON_SKIP("this kernel has no packet sockets");
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
        to.sll_halen = 6;
        const auto frame = advertisement();
        for (int i = 0; i < 20; ++i) {
            REQUIRE(::sendto(socket.get(), frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                             sizeof to) == static_cast<ssize_t>(frame.size()));
        }
    }
    // They came, and counted for nothing.
    for (int waited = 0; received() < first + 20 && waited < 500; ++waited) ::usleep(10'000);
    CHECK(received() == first + 20);
    CHECK(output("ip -6 route; ip -6 addr") == before);
    CHECK_FALSE(has(before, "fdbb"));
}

TEST_CASE("a container without the capability to send raw packets has no socket for them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {prefix("10.9.0.1/24")});
    const std::string text = attempt(on_bridge(root,
                                               "ping -c 1 -W 1 10.9.0.1 2>&1; ip link set eth0 address "
                                               "52:54:00:00:00:01 2>&1; ip link add x type bridge 2>&1"));
    CAPTURE(text);
    CHECK(has(text, "ping: "));
    CHECK(has(text, "Operation not permitted"));
    CHECK_FALSE(has(text, "bytes from"));
}

TEST_CASE("CVE-2020-15257: nobody listens in the abstract socket namespace, which a container may share") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    // Without a network namespace of its own the container sees the host's abstract sockets.
    ContainerSpec shares = caisson_test::shell(place.root, "echo re\"\"ady; read line");
    shares.namespaces = shares.namespaces.without(NamespaceKind::net);
    Container container = Container::start(shares);
    (void)said_until(container, "ready");
    Helper helper = Helper::start(place.spec("web"), place.options);
    std::set<std::string> ours = sockets_of("/proc/self");
    ours.merge(sockets_of(keeper_directory(container)));
    ours.merge(sockets_of("/proc/" + std::to_string(helper.pid())));
    CHECK(ours.size() >= 4);
    std::string table;
    REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/net/unix", table));
    int seen = 0;
    int named = 0;
    for (std::size_t at = 0; at < table.size(); at = table.find('\n', at) + 1) {
        std::string line = table.substr(at, table.find('\n', at) - at);
        std::array<char, 32> inode{};
        if (std::sscanf(line.c_str(), "%*s %*s %*s %*s %*s %*s %31s", inode.data()) != 1) continue;
        if (!ours.contains(inode.data())) continue;
        ++seen;
        CAPTURE(line);
        CHECK_FALSE(has(line, "@"));
        named += has(line, "/sock") ? 1 : 0;
    }
    CHECK(seen >= 3);
    // The helper's, whose file and directory are its owner's alone: see "CVE-2021-41091".
    CHECK(named >= 1);
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("CVE-2021-43784: names and numbers that are too long for netlink are refused before anything is sent") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    const std::string before = links();
    for (const std::size_t length : {std::size_t{16}, std::size_t{300}, std::size_t{65531}, std::size_t{65536},
                                     std::size_t{70000}, std::size_t{65536 + 4}}) {
        const std::string name(length, 'x');
        const auto refused = [&](const char* field, auto&& change) {
            ContainerSpec spec = on_bridge(root, "true");
            change(spec.networks[0]);
            const std::string text = error_of(spec);
            CHECK(has(text, std::string{"container 'test': networks[0]."} + field + ": "));
            CHECK(text.size() < 100'000);
        };
        refused("name", [&](NetworkSpec& network) { network.name = name; });
        refused("host_name", [&](NetworkSpec& network) { network.host_name = name; });
        refused("bridge", [&](NetworkSpec& network) { network.bridge = name; });
        CHECK_THROWS_AS((void)Bridge::create(name), Error);
    }
    // As many addresses and routes as fit into no message.
    ContainerSpec spec = on_bridge(root, "ip -o -4 addr show dev eth0 | wc -l");
    spec.networks[0].addresses.clear();
    for (int i = 0; i < 3000; ++i) {
        spec.networks[0].addresses.push_back(
            prefix(("10." + std::to_string(i / 200) + "." + std::to_string(i % 200) + ".1/32").c_str()));
    }
    CHECK(attempt(spec) == "3000\n");
    CHECK(links() == before);
}

TEST_CASE("CVE-2017-5985, CVE-2018-6556, CVE-2022-47952, CVE-2026-39402: links of others are never touched") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    (void)output(
        "ip link add br0 type bridge; ip link set br0 up; ip link add mine0 type veth peer name mine1; "
        "ip link set mine0 master br0; ip link set mine0 alias 'somebody else'");
    const auto look = [] { return output("ip -d -o link | sed 's/bridge forward_delay.*//' | sort"); };
    const std::string before = links();
    const std::string mine = output("ip -d -o link show mine0");
    ContainerSpec spec = on_bridge(root, "true");
    for (const char* taken : {"mine0", "mine1", "br0", "lo"}) {
        spec.networks[0].host_name = taken;
        const std::string text = error_of(spec);
        CAPTURE(text);
        CHECK(has(text, std::string{"'"} + taken + "'"));
        CHECK(has(text, "File exists"));
        CHECK(links() == before);
    }
    spec.networks[0].host_name.clear();
    for (const char* bridge : {"mine0", "lo", "none"}) {
        spec.networks[0].bridge = bridge;
        const std::string text = error_of(spec);
        CAPTURE(text);
        CHECK(has(text, std::string{"'"} + bridge + "'"));
        CHECK(links() == before);
    }
    // A file that the caller cannot see is not told from one that is not there: nothing is opened for a name.
    spec.networks[0].bridge = "../../proc/1";
    CHECK(has(error_of(spec), "networks[0].bridge: '../../proc/1' is no name of a network interface"));
    // Containers come and go beside them, also one whose link somebody has renamed meanwhile.
    spec = on_bridge(root, "echo re\"\"ady; read line");
    spec.networks[0].host_name = "ours0";
    {
        Container container = Container::start(spec);
        (void)said_until(container, "ready");
        (void)output(
            "ip link set ours0 down; ip link set ours0 name ours1; ip link set mine0 down; "
            "ip link set mine0 name ours0");
        (void)container.kill();
        CHECK_FALSE(has(links(), "ours1"));
        CHECK(has(links(), "ours0"));
        (void)output("ip link set ours0 name mine0; ip link set mine0 up");
    }
    CHECK(links() == before);
    CHECK(has(mine, "somebody else"));
    CHECK(has(look(), "somebody else"));
}

TEST_CASE("CVE-2021-20199: two isolated ports of a bridge reach everybody but each other, whatever address they take") {
    if (!possible()) CAISSON_SKIP("needs root");
    const LeavesNothing nothing;
    const Lab lab;
    Bridge bridge = Bridge::create("br0", {prefix("10.9.0.1/24")});
    const Namespace other = Namespace::create(NamespaceKind::net);
    const Namespace open = Namespace::create(NamespaceKind::net);
    const auto plug = [&](const Namespace& net, const char* address, bool isolated) {
        NetworkSpec spec;
        spec.addresses = {prefix(address)};
        spec.isolated = isolated;
        (void)bridge.plug(net, spec);
    };
    plug(lab.inside, "10.9.0.2/24", true);
    plug(other, "10.9.0.3/24", true);
    plug(open, "10.9.0.4/24", false);
    // A datagram from one to another's address, and whether it comes within that time.
    const auto reaches = [](const Namespace& from, const Namespace& to, const char* at, int milliseconds = 5000) {
        const auto socket = [](const Namespace& net) {
            const Namespace::Scope there = net.enter_scoped();
            return Fd{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
        };
        const Fd receiver = socket(to);
        const Fd sender = socket(from);
        sockaddr_in place{};
        place.sin_family = AF_INET;
        place.sin_port = htons(7777);
        REQUIRE(::bind(receiver.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0);
        std::memcpy(&place.sin_addr, address(at).octets.data(), 4);
        REQUIRE(::sendto(sender.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&place), sizeof place) == 1);
        return detail::wait_readable(receiver.get(), milliseconds);
    };
    CHECK(reaches(lab.inside, lab.host, "10.9.0.1"));
    CHECK(reaches(lab.inside, open, "10.9.0.4"));
    CHECK(reaches(open, other, "10.9.0.3"));
    CHECK_FALSE(reaches(lab.inside, other, "10.9.0.3", 500));
    CHECK_FALSE(reaches(other, lab.inside, "10.9.0.2", 500));
    // One that takes a third one's address is not asked for it by the other.
    (void)lab.in("ip addr add 10.9.0.4/24 dev eth0");
    CHECK(reaches(other, open, "10.9.0.4"));
    const auto said = [](const Namespace& of, const std::string& command) {
        const Namespace::Scope there = of.enter_scoped();
        return output(command);
    };
    const std::string mac = said(open, "ip -o link show eth0");
    const std::size_t at = mac.find("link/ether ") + 11;
    CHECK(has(said(other, "ip neigh show 10.9.0.4"), mac.substr(at, 17)));
}
