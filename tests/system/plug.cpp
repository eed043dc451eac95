// What the start of a container asks of the network layer, and what a sweep finds of it.
#include "support/machine.hpp"
#include "support/network_lab.hpp"

using namespace caisson_test;

TEST_CASE("what a start needs is looked at before anything is made") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const Bridge bridge = Bridge::create("br0");
    (void)output("ip link add taken type veth peer name other");
    const std::string before = output("ip link");
    NetworkSpec spec;
    spec.bridge = "br0";
    CHECK_NOTHROW(detail::check_network({}));
    CHECK_NOTHROW(detail::check_network({spec, spec}));
    const auto refusal = [](std::vector<NetworkSpec> specs, int errnum) {
        return message_of([&] { detail::check_network(specs); }, errnum);
    };
    NetworkSpec bad = spec;
    bad.name = "eth0";
    CHECK(refusal({spec, bad}, EEXIST) == "interface 'eth0': File exists: the name is given twice");
    bad.name = "eth 0";
    CHECK(has(refusal({bad}, EINVAL), "interface 'eth 0'"));
    bad = spec;
    bad.host_name = "taken";
    CHECK(has(refusal({spec, bad}, EEXIST), "interface 'taken': File exists: the name is taken on the host"));
    bad.host_name = "fresh";
    CHECK(refusal({bad, bad}, EEXIST) == "interface 'fresh': File exists: the name is given twice");
    bad.mtu = 67;
    CHECK(has(refusal({bad}, EINVAL), "MTU 67 of interface 'eth0'"));
    bad.mtu.reset();
    bad.bridge = "br9";
    CHECK(has(refusal({bad}, ENODEV), "bridge 'br9': No such device: create it with"));
    bad.bridge = "taken";
    CHECK(has(refusal({bad}, EINVAL), "no bridge but of type 'veth'"));
    bad.bridge = "";
    CHECK(has(refusal({bad}, EINVAL), "bridge '': Invalid argument: it needs a name"));
    CHECK(output("ip link") == before);
}

TEST_CASE("a container is plugged through a socket that came from its network namespace") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const Bridge bridge = Bridge::create("br0", {prefix("10.7.0.1/24")});
    const Fd inside = lab.netlink_inside();
    NetworkSpec spec;
    spec.bridge = "br0";
    spec.addresses = {prefix("10.7.0.2/24")};
    const unsigned outer =
        detail::plug_container(detail::open_netlink().get(), spec, 4, lab.inside.fd(), inside.get()).index;
    CHECK(has(lab.in("ip addr show eth4"), "inet 10.7.0.2/24"));
    CHECK(connects(lab, address("10.7.0.1")));
    detail::delete_link(outer);
    CHECK_FALSE(has(lab.in("ip link"), "eth4"));
    CHECK(message_of([&] { detail::delete_link(outer); }, ENODEV) ==
          "remove link " + std::to_string(outer) + ": No such device");
    spec.bridge = "br9";
    CHECK(has(message_of(
                  [&] { detail::plug_container(detail::open_netlink().get(), spec, 0, lab.inside.fd(), inside.get()); },
                  ENODEV),
              "bridge 'br9'"));
}

TEST_CASE("a container with a user namespace of its own is plugged through a socket that it opened inside") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const Bridge bridge = Bridge::create("br0", {prefix("10.7.0.1/24")});
    int ready[2];
    int done[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    REQUIRE(::pipe2(done, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        (void)::close(done[1]);
        int number = -1;
        if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
            number = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        }
        char c;
        (void)!::write(ready[1], &number, sizeof number);
        (void)!::read(done[0], &c, 1);
        ::_exit(0);
    }
    (void)::close(done[0]);
    int number = -1;
    REQUIRE(::read(ready[0], &number, sizeof number) == sizeof number);
    if (number >= 0) {
        const Process process = Process::open(child);
        const Fd inside{static_cast<int>(::syscall(SYS_pidfd_getfd, process.pidfd(), number, 0))};
        REQUIRE(inside);
        const Namespace net = Namespace::of(process, NamespaceKind::net);
        NetworkSpec spec;
        spec.bridge = "br0";
        spec.addresses = {prefix("10.7.0.2/24"), prefix("fd07::2/64")};
        spec.routes = {{prefix("0.0.0.0/0"), address("10.7.0.1"), 0}};
        detail::plug_container(detail::open_netlink().get(), spec, 0, net.fd(), inside.get());
        const Namespace::Scope there = net.enter_scoped();
        CHECK(has(output("ip addr show eth0"), "inet6 fd07::2/64"));
        CHECK(has(output("ip route"), "default via 10.7.0.1 dev eth0"));
    }
    (void)::close(done[1]);
    (void)::close(ready[0]);
    (void)::close(ready[1]);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    if (number < 0) CAISSON_SKIP("no user namespaces here");
}

TEST_CASE("a sweep removes the links of dead owners and no others") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const Bridge alive = Bridge::create("alive");
    (void)output(
        "ip link add untagged type bridge; ip link add odd alias caisson:1-2 type bridge;"
        "ip link add elsewhere alias caisson:1-2-3 type bridge");
    const std::string before = links();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        try {
            Bridge left = Bridge::create("left");
            NetworkSpec spec;
            spec.host_name = "cable";
            left.plug(lab.inside, spec);
            ::_exit(0);
        } catch (...) {
            ::_exit(1);
        }
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
    CHECK(has(links(), "left"));
    auto removed = detail::sweep_links();
    REQUIRE(removed.size() == 2);
    CHECK(((removed[0] == "left" && removed[1] == "cable") || (removed[0] == "cable" && removed[1] == "left")));
    CHECK(links() == before);
    CHECK(detail::sweep_links().empty());
}

TEST_CASE("without the right to it, nothing is made and the missing capability is named") {
    if (!possible()) CAISSON_SKIP("needs root");
    const caisson_test::LeavesNothing nothing;
    const Lab lab;
    const std::string before = links();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
        try {
            (void)Bridge::create("br0");
            ::_exit(3);
        } catch (const Error& e) {
            ::_exit(std::strcmp(e.what(),
                                "bridge 'br0': Operation not permitted: this needs CAP_NET_ADMIN over the "
                                "network namespace") == 0
                        ? 0
                        : 4);
        }
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(links() == before);
}
