// Bridges and cables, in network namespaces of the test's own.
#include "support/machine.hpp"
#include "support/network_lab.hpp"

using namespace caisson_test;

TEST_CASE("a bridge is made with its addresses, is up, refuses router advertisements and goes with its object") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const std::string before = links();
    {
        const Bridge bridge = Bridge::create("br0", {prefix("10.7.0.1/24"), prefix("fd07::1/64")});
        CHECK(bridge.name() == "br0");
        CHECK(bridge.mtu() == 1500);
        const std::string shown = output("ip -d addr show br0; ip -d link show br0");
        CHECK(has(shown, std::to_string(bridge.index()) + ": br0: "));
        CHECK(has(shown, ",UP"));
        CHECK(has(shown, "bridge forward_delay"));
        CHECK(has(shown, "inet 10.7.0.1/24 brd 10.7.0.255 "));
        CHECK(has(shown, "inet6 fd07::1/64 "));
        CHECK_FALSE(has(shown, "tentative"));
        CHECK(has(shown, "addrgenmode none"));
        CHECK(has(shown, "alias caisson:" + detail::Owner::current().tag()));
        for (const char* file : {"accept_ra", "autoconf", "accept_redirects"}) {
            CHECK(output(std::string{"cat /proc/sys/net/ipv6/conf/br0/"} + file) == "0\n");
        }
    }
    CHECK(links() == before);
}

TEST_CASE("a bridge stays with its network namespace whatever namespace the thread is in") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const std::string before = links();
    {
        Bridge bridge = Bridge::create("br0");
        const Namespace::Scope elsewhere = lab.inside.enter_scoped();
        // The same index, so that a removal by index in the wrong place would hit it.
        (void)output("ip link add other index " + std::to_string(bridge.index()) + " type bridge");
        CHECK(bridge.mtu() == 1500);
        { const Bridge last = std::move(bridge); }
        CHECK(has(links(), "other"));
    }
    CHECK(links() == before);
}

TEST_CASE("a moved bridge is removed once, and what it was moved from holds nothing") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    Bridge a = Bridge::create("br0");
    Bridge b = std::move(a);
    CHECK(a.index() == 0);
    CHECK(a.name() == "");
    CHECK_THROWS_AS((void)a.mtu(), std::logic_error);
    CHECK_THROWS_AS(a.remove(), std::logic_error);
    CHECK_THROWS_AS(a.release(), std::logic_error);
    CHECK_THROWS_AS(a.plug(lab.inside, {}), std::logic_error);
    Bridge& self = b;
    b = std::move(self);
    CHECK(b.name() == "br0");
    CHECK(has(links(), "br0"));
    Bridge c = Bridge::create("br1");
    c = std::move(b);
    CHECK(has(links(), "br0"));
    CHECK_FALSE(has(links(), "br1"));
    c.remove();
    CHECK_FALSE(has(links(), "br0"));
    CHECK_THROWS_AS(c.remove(), std::logic_error);
}

TEST_CASE("a bridge that is used stays, and one that is released does too, without its owner's tag") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    (void)output("ip link add br0 mtu 1400 type bridge");
    {
        Bridge bridge = Bridge::use("br0");
        CHECK(bridge.mtu() == 1400);
        CHECK_THROWS_AS(bridge.remove(), std::logic_error);
        Bridge::create("br1").release();
    }
    CHECK(has(links(), "br0"));
    CHECK(has(links(), "br1"));
    CHECK_FALSE(has(output("ip link show br1"), "alias"));
}

TEST_CASE("removing a bridge that someone else removed is told, destroying it is not") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    Bridge bridge = Bridge::create("br0");
    (void)output("ip link del br0");
    CHECK(message_of([&] { bridge.remove(); }, ENODEV) ==
          "remove link " + std::to_string(bridge.index()) + ": No such device");
    CHECK(has(message_of([&] { (void)bridge.mtu(); }, ENODEV), "another program removed it"));
}

TEST_CASE("a name that is taken, a bridge that is not there and a link that is no bridge are three errors") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    (void)output("ip link add br0 alias mine type bridge; ip link add v0 type veth peer name v1");
    const std::string before = output("ip -d link");
    CHECK(message_of([] { (void)Bridge::create("br0"); }, EEXIST) ==
          "bridge 'br0': File exists: the name is taken: choose another, or use that bridge");
    CHECK(message_of([] { (void)Bridge::use("br9"); }, ENODEV) ==
          "bridge 'br9': No such device: create it with 'ip link add br9 type bridge'");
    CHECK(message_of([] { (void)Bridge::use("v0"); }, EINVAL) ==
          "bridge 'v0': Invalid argument: this link is no bridge but of type 'veth'");
    CHECK(message_of([] { (void)Bridge::use("lo"); }, EINVAL) ==
          "bridge 'lo': Invalid argument: this link is no bridge");
    CHECK(output("ip -d link") == before);
}

TEST_CASE("a bridge that cannot have what it is to have is not made at all") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const std::string before = links();
    CHECK(has(message_of(
                  [] {
                      (void)Bridge::create("br0", {prefix("10.7.0.1/24"), prefix("10.7.0.1/24")});
                  },
                  EEXIST),
              "address '10.7.0.1/24' of bridge 'br0'"));
    CHECK(message_of([] { (void)Bridge::create("br0", {}, {.mtu = 65536}); }, EINVAL) ==
          "MTU 65536 of bridge 'br0': Invalid argument: give 68 to 65535 bytes");
    CHECK(has(message_of(
                  [] {
                      (void)Bridge::create("br0", {{address("10.7.0.1"), 33}});
                  },
                  EINVAL),
              "address '10.7.0.1/33' of bridge 'br0'"));
    CHECK(links() == before);
}

TEST_CASE("a given MTU is kept whatever is plugged, by a bridge and by what is plugged into it") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    for (const std::uint32_t mtu : {68u, 1500u, 9000u, 65535u}) {
        Bridge bridge = Bridge::create("br0", {}, {.mtu = mtu});
        NetworkSpec spec;
        bridge.plug(lab.inside, spec);
        spec.mtu = 1280;
        bridge.plug(lab.inside, spec);
        CHECK(bridge.mtu() == mtu);
        CHECK(has(lab.in("ip link show eth0"), " mtu " + std::to_string(mtu) + " "));
        CHECK(has(lab.in("ip link show eth1"), " mtu 1280 "));
        (void)lab.in("ip link del eth0; ip link del eth1");
    }
}

TEST_CASE("a plugged namespace has name, MAC, addresses and routes, and packets flow at once") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const std::string before = links();
    {
        Bridge bridge = Bridge::create("br0", {prefix("10.7.0.1/24"), prefix("fd07::1/64")});
        NetworkSpec spec;
        spec.bridge = "br0";
        spec.name = "uplink";
        spec.host_name = "guest";
        spec.mac = MacAddress::parse("00:11:22:34:34:34");
        spec.addresses = {prefix("10.7.0.2/24"), prefix("fd07::2/64")};
        spec.routes = {{prefix("0.0.0.0/0"), address("10.7.0.1"), 0},
                       {prefix("::/0"), address("fd07::1"), 0},
                       {prefix("10.8.0.0/16"), std::nullopt, 7}};
        const unsigned outer = bridge.plug(lab.inside, spec);

        const std::string port = output("ip -d link show guest");
        CHECK(port.starts_with(std::to_string(outer) + ": guest@"));
        CHECK(has(port, " master br0 "));
        CHECK(has(port, "addrgenmode none"));
        CHECK(has(port, "link/ether fe:"));
        CHECK(has(port, "alias caisson:" + detail::Owner::current().tag()));
        CHECK_FALSE(has(output("ip addr show guest"), "inet"));
        const std::string shown = lab.in("ip addr show uplink");
        CHECK(has(shown, "UP"));
        CHECK(has(shown, "link/ether 00:11:22:34:34:34 "));
        CHECK(has(shown, "inet 10.7.0.2/24 brd 10.7.0.255 "));
        CHECK(has(shown, "inet6 fd07::2/64 "));
        CHECK(has(lab.in("ip route"), "default via 10.7.0.1 dev uplink"));
        CHECK(has(lab.in("ip route"), "10.8.0.0/16 dev uplink proto static scope link metric 7"));
        CHECK(has(lab.in("ip -6 route"), "default via fd07::1 dev uplink"));
        CHECK(connects(lab, address("10.7.0.1")));
        CHECK(connects(lab, address("fd07::1")));
        detail::delete_link(outer);
        CHECK_FALSE(has(lab.in("ip link"), "uplink"));
    }
    CHECK(links() == before);
}

TEST_CASE("the unnamed are eth0, eth1, ..., with MACs of their own that begin with 52:54:00") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    Bridge bridge = Bridge::create("br0");
    const std::string own = output("ip -o link show br0 | grep -o 'ether [^ ]*'");
    for (int i = 0; i < 3; ++i) bridge.plug(lab.inside, {});
    const std::string shown = lab.in("ip -o link");
    for (const char* name : {"eth0", "eth1", "eth2"}) CHECK(has(shown, std::string{": "} + name + "@"));
    const std::string macs = lab.in("ip -o link | grep -o 'ether 52:54:00:[^ ]*' | sort -u | wc -l");
    CHECK(macs == "3\n");
    CHECK(output("ip -o link show br0 | grep -o 'ether [^ ]*'") == own);
    CHECK(output("ip -o link show master br0 | grep -cE ': veth[0-9]+@'") == "3\n");
}

TEST_CASE("a plug that fails leaves nothing on either side, and says what was wrong") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    Bridge bridge = Bridge::create("br0");
    (void)output("ip link add taken alias mine type bridge");
    const std::string before = output("ip -o link | grep -v br0");
    const std::string inside_before = lab.in("ip -o link");
    const auto plug = [&](const NetworkSpec& spec, int errnum) {
        const std::string text = message_of([&] { bridge.plug(lab.inside, spec); }, errnum);
        CHECK(output("ip -o link | grep -v br0") == before);
        CHECK(lab.in("ip -o link") == inside_before);
        return text;
    };
    NetworkSpec good;
    good.addresses = {prefix("10.7.0.2/24")};
    NetworkSpec spec = good;
    spec.addresses.push_back(prefix("10.7.0.2/24"));
    CHECK(plug(spec, EEXIST).starts_with("address '10.7.0.2/24' of interface 'eth0'"));
    CHECK(plug(spec, EEXIST).ends_with("File exists: the address is given twice"));
    spec = good;
    spec.routes = {{prefix("0.0.0.0/0"), address("10.9.9.9"), 0}};
    CHECK(plug(spec, ENETUNREACH) ==
          "route to '0.0.0.0/0' via '10.9.9.9' of interface 'eth0' (Nexthop has invalid gateway): Network is "
          "unreachable: give the interface an address in the gateway's network");
    spec.routes = {{prefix("0.0.0.0/0"), address("fd07::1"), 0}};
    CHECK(has(plug(spec, EINVAL), "address family"));
    spec.routes = {{prefix("10.8.0.1/16"), std::nullopt, 0}};
    CHECK(has(plug(spec, EINVAL), "route to '10.8.0.1/16' of interface 'eth0' ("));
    spec = good;
    spec.host_name = "taken";
    CHECK(plug(spec, EEXIST) ==
          "interface 'taken': File exists: the name is taken on the host: choose another, or none");
    spec = good;
    spec.name = "lo";
    CHECK(has(plug(spec, EEXIST), "the name is taken in the container's network namespace"));
    spec.name = "sixteen-bytes-xx";
    CHECK(has(plug(spec, ENAMETOOLONG), "interface 'sixteen-bytes-xx'"));
    spec = good;
    spec.host_name = "veth%d";
    CHECK(has(plug(spec, EINVAL), "interface 'veth%d'"));
    spec = good;
    spec.mtu = 67;
    CHECK(plug(spec, EINVAL) == "MTU 67 of interface 'eth0': Invalid argument: give 68 to 65535 bytes");
    CHECK_THROWS_AS(bridge.plug(Namespace::current(NamespaceKind::uts), good), std::logic_error);
    good.bridge = "br1";
    CHECK_THROWS_AS(bridge.plug(lab.inside, good), std::logic_error);
}
