// Containers on a bridge. The bridge and the host ends are in a network namespace of the test's own.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/doctest.hpp"
#include "support/host.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"
#include "support/why_not.hpp"

using namespace caisson;
using caisson_test::keeper_of;
using caisson_test::TestRoot;
using caisson_test::why_not;

namespace {

/// The calling thread is in a network namespace of its own while this lives.
struct OwnNetwork {
    Namespace net = Namespace::create(NamespaceKind::net);
    Namespace::Scope scope = net.enter_scoped();
};

std::string links() {
    std::string text;
    FILE* pipe = ::popen("ip -o link | cut -d: -f2", "re");
    REQUIRE(pipe != nullptr);
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
    (void)::pclose(pipe);
    return text;
}

std::string drain(Container& container) {
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(container.console()->fd(), buffer, sizeof buffer)) > 0;) {
        for (ssize_t i = 0; i < n; ++i) {
            if (buffer[i] != '\r') all += buffer[i];
        }
    }
    return all;
}

ContainerSpec on_bridge(const TestRoot& root, const std::string& name, const std::string& address,
                        const std::string& script) {
    ContainerSpec spec;
    spec.name = name;
    spec.root = root.path();
    spec.command = {"/bin/sh", "-c", script};
    NetworkSpec network;
    network.bridge = "br0";
    network.mac = MacAddress::parse("00:11:22:34:34:34");
    network.addresses = {*IpPrefix::parse(address)};
    network.routes = {{*IpPrefix::parse("0.0.0.0/0"), IpAddress::parse("10.9.0.1")}};
    spec.networks = {network};
    return spec;
}

}  // namespace

TEST_CASE("a container on a bridge has its name, address, MAC and route, and reaches the bridge") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {*IpPrefix::parse("10.9.0.1/24")});
    const std::string before = links();
    for (const bool user : {true, false}) {
        ContainerSpec spec =
            on_bridge(root, "net", "10.9.0.2/24",
                      "ip -o addr show dev eth0; ip link show eth0; ip route; ping -c 1 -W 5 10.9.0.1; "
                      "ping -c 1 -W 5 127.0.0.1; ip -o link | wc -l");
        spec.capabilities = CapabilitySet::application().with({"net_raw"});
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        Container container = Container::start(spec);
        const std::string text = drain(container);
        CAPTURE(text);
        CHECK(container.wait().success());
        CHECK(text.find("10.9.0.2/24") != std::string::npos);
        CHECK(text.find("00:11:22:34:34:34") != std::string::npos);
        CHECK(text.find("default via 10.9.0.1") != std::string::npos);
        CHECK(text.find("0% packet loss") != text.rfind("0% packet loss"));
        CHECK(text.substr(text.size() - 2) == "2\n");
        CHECK(links() == before);
    }
}

TEST_CASE("two containers on a bridge reach each other") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec first = on_bridge(root, "first", "10.9.0.1/24", "echo up; read line");
    first.networks[0].mac.reset();
    first.networks[0].routes.clear();
    Container a = Container::start(first);
    ContainerSpec second = on_bridge(root, "second", "10.9.0.2/24", "ping -c 1 -W 5 10.9.0.1");
    second.capabilities = CapabilitySet::application().with({"net_raw"});
    Container b = Container::start(second);
    CHECK(drain(b).find(" 0% packet loss") != std::string::npos);
    CHECK(b.wait().success());
}

TEST_CASE("what came and went through each interface is told as the container sees it") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {*IpPrefix::parse("10.9.0.1/24")});
    const Bridge other = Bridge::create("br1");
    ContainerSpec spec = on_bridge(root, "counted", "10.9.0.2/24", "echo up; read line");
    NetworkSpec second;
    second.bridge = "br1";
    second.name = "lan";
    second.host_name = "outer";
    spec.networks.push_back(second);
    Container container = Container::start(spec);
    char buffer[16];
    REQUIRE(::read(container.console()->fd(), buffer, sizeof buffer) > 0);
    // 20 datagrams, to a port on which nobody listens.
    const Fd socket{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    to.sin_addr.s_addr = htonl(0x0a090002);
    const std::string data(1000, 'x');
    for (int i = 0; i < 20; ++i) {
        (void)::sendto(socket.get(), data.data(), data.size(), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
    }
    Usage usage = container.usage(UsagePart::network);
    REQUIRE(usage.networks.size() == 2);
    CHECK(usage.networks[0].name == "eth0");
    CHECK(usage.networks[0].host_name.starts_with("veth"));
    CHECK(usage.networks[0].received_bytes >= 20 * 1028);
    CHECK(usage.networks[0].received_packets >= 20);
    CHECK(usage.networks[0].sent_packets < usage.networks[0].received_packets);
    CHECK(usage.networks[1].name == "lan");
    CHECK(usage.networks[1].host_name == "outer");
    CHECK(usage.networks[1].received_bytes < 20 * 1028);
    // As the kernel counts it inside.
    unsigned long long received[8]{}, sent[2]{};
    {
        const Namespace::Scope there = container.open_namespace(NamespaceKind::net).enter_scoped();
        std::string text;
        REQUIRE(detail::sys::read_file(AT_FDCWD, "/proc/thread-self/net/dev", text));
        const std::size_t at = text.find("eth0:");
        REQUIRE(at != std::string::npos);
        REQUIRE(std::sscanf(text.c_str() + at, "eth0: %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", received,
                            received + 1, received + 2, received + 3, received + 4, received + 5, received + 6,
                            received + 7, sent, sent + 1) == 10);
    }
    usage = container.usage(UsagePart::network);
    CHECK(usage.networks[0].received_bytes == received[0]);
    CHECK(usage.networks[0].received_packets == received[1]);
    CHECK(usage.networks[0].sent_bytes == sent[0]);
    CHECK(usage.networks[0].sent_packets == sent[1]);
    CHECK(container.usage(UsagePart::cpu).networks.empty());

    REQUIRE(::system("ip link del outer") == 0);
    usage = container.usage(UsagePart::network);
    REQUIRE(usage.networks.size() == 1);
    CHECK(usage.networks[0].name == "eth0");
}

TEST_CASE("a bridge that is not there makes the start fail before anything is made") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const std::string before = links();
    try {
        Container container = Container::start(on_bridge(root, "net", "10.9.0.2/24", "true"));
        FAIL("it started");
    } catch (const Error& e) {
        CHECK(e.step() == Step::network);
        CHECK(std::string{e.what()}.find("container 'net': bridge 'br0': No such device") == 0);
        CHECK_FALSE(e.remedy().empty());
    }
    CHECK(links() == before);
}

TEST_CASE("a route that the kernel refuses makes the start fail, and nothing stays") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    const std::string before = links();
    ContainerSpec spec = on_bridge(root, "net", "10.9.0.2/24", "true");
    spec.networks[0].routes[0].gateway = IpAddress::parse("192.0.2.1");
    try {
        Container container = Container::start(spec);
        FAIL("it started");
    } catch (const Error& e) {
        CHECK(e.step() == Step::network);
        CHECK(std::string{e.what()}.find("192.0.2.1") != std::string::npos);
    }
    CHECK(links() == before);
}

TEST_CASE("a start with a network tells why the stage has refused it, whatever the host is about meanwhile") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    ContainerSpec spec = on_bridge(root, "net", "10.9.0.2/24", "true");
    // More than the kernel gives anybody.
    spec.resource_limits = {{ResourceLimit::Kind::nofile, 1024, std::uint64_t{1} << 40}};
    try {
        const Container container = Container::start(spec);
        FAIL("it started");
    } catch (const Error& e) {
        CHECK(e.step() == Step::credentials);
        CHECK(std::string{e.what()} ==
              "container 'net': resource limit 'nofile': the hard limit of 1099511627776: Operation not permitted: it "
              "is above fs.nr_open, or above the host's own, which only CAP_SYS_RESOURCE raises");
    }
}

TEST_CASE("once a container has ended, however it did, its interfaces are gone and their names are free") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    const std::string before = links();
    ContainerSpec spec = on_bridge(root, "net", "10.9.0.2/24", "read line");
    spec.networks.push_back(spec.networks[0]);
    spec.networks[1].mac.reset();
    spec.networks[1].addresses.clear();
    spec.networks[1].routes.clear();
    spec.networks[0].host_name = "outer0";
    spec.networks[1].host_name = "outer1";
    for (int round = 0; round < 3; ++round) {
        Container container = Container::start(spec);
        CHECK(links().find("outer0") != std::string::npos);
        CHECK(links().find("outer1") != std::string::npos);
        container.kill();
        CHECK(links() == before);
    }
    {
        Container container = Container::start(spec);
        (void)::kill(keeper_of(container), SIGKILL);
        CHECK(container.wait() == ExitStatus::killed(SIGKILL));
        CHECK(links() == before);
    }
    { const Container container = Container::start(spec); }
    CHECK(links() == before);
    spec.command = {"/missing"};
    CHECK_THROWS_AS((void)Container::start(spec), Error);
    CHECK(links() == before);
}

TEST_CASE("a network namespace of its own without a network has lo alone, and it is up") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const caisson_test::LeavesNothing nothing;
    const TestRoot root;
    ContainerSpec spec;
    spec.name = "alone";
    spec.root = root.path();
    spec.namespaces = spec.namespaces | NamespaceSet{NamespaceKind::net};
    spec.command = {"/bin/sh", "-c", "ip -o link; ping -c 1 127.0.0.1"};
    spec.capabilities = CapabilitySet::application().with({"net_raw"});
    Container container = Container::start(spec);
    const std::string text = drain(container);
    CHECK(text.find("1: lo: <LOOPBACK,UP") == 0);
    CHECK(text.find("2: ") == std::string::npos);
    CHECK(text.find(" 0% packet loss") != std::string::npos);
}
