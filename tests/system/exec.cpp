// Joining a container that runs.
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/detail/visit.hpp>

#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/rootfs.hpp"

using namespace caisson_test;
using caisson::Container;
using caisson::NamespaceKind;
using caisson::Step;
using caisson::detail::Op;
using caisson::detail::Visit;

namespace {

constexpr std::int64_t seconds_10 = 10'000;

/// A container that does nothing until it is killed.
caisson::ContainerSpec idle(const TestRoot& root) {
    return shell(root, "exec sleep 1000");
}

std::string read_from_start(int fd) {
    char buffer[4096];
    const ssize_t n = ::pread(fd, buffer, sizeof buffer, 0);
    return n < 0 ? "error" : std::string(buffer, static_cast<std::size_t>(n));
}

}  // namespace

TEST_CASE("a visit carries out instructions in a container that runs, and passes descriptors up") {
    if (!can_run()) CAISSON_SKIP(why_not());
    for (const bool user : {true, false}) {
        CAPTURE(user);
        const TestRoot root;
        caisson::ContainerSpec spec = idle(root);
        if (!user) spec.namespaces = spec.namespaces.without(NamespaceKind::user);
        Container container = Container::start(spec);

        Visit visit{container.init(),
                    NamespaceKind::mount | NamespaceKind::user | caisson::NamespaceSet{NamespaceKind::net}};
        visit.enter();
        auto& plan = visit.plan();
        const auto made = plan.dynamic();
        plan.add(
            {.op = Op::new_filesystem, .slot = made, .a = plan.text("tmpfs"), .b = plan.pairs({{"source", "late"}})},
            Step::mount, "mount 'tmpfs' on '/tmp'");
        plan.add({.op = Op::place, .slot = made, .a = plan.text("/tmp")}, Step::mount, "mount 'tmpfs' on '/tmp'");
        const auto mounts = plan.dynamic();
        plan.add({.op = Op::open_file, .slot = mounts, .a = plan.text("/proc/1/mountinfo"), .x = O_RDONLY}, Step::exec,
                 "open the mounts");
        visit.pass_up(mounts, Step::exec, "pass up the mounts");
        const auto socket = plan.dynamic();
        plan.add({.op = Op::open_netlink, .slot = socket}, Step::network, "netlink socket");
        visit.pass_up(socket, Step::exec, "pass up the socket");
        const std::vector<caisson::Fd> passed = visit.run(seconds_10);

        REQUIRE(passed.size() == 2);
        CHECK(read_from_start(passed[0].get()).find(" /tmp rw,relatime - tmpfs late rw") != std::string::npos);
        int domain = 0;
        socklen_t size = sizeof domain;
        CHECK(::getsockopt(passed[1].get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0);
        CHECK(domain == AF_NETLINK);

        Visit back{container.init(), NamespaceKind::mount | NamespaceKind::user};
        back.enter();
        back.plan().add({.op = Op::unmount, .a = back.plan().text("/tmp")}, Step::mount, "unmount '/tmp'");
        back.run(seconds_10);
        CHECK(read_from_start(passed[0].get()).find("late") == std::string::npos);
        (void)container.kill();
    }
}

TEST_CASE("an instruction of a visit that is refused is named") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const TestRoot root;
    Container container = Container::start(idle(root));
    Visit visit{container.init(), NamespaceKind::mount | NamespaceKind::user};
    visit.enter();
    visit.plan().add({.op = Op::working_directory, .a = visit.plan().text("/nowhere")}, Step::exec,
                     "working directory '/nowhere'");
    try {
        visit.run(seconds_10);
        FAIL("it was there");
    } catch (const caisson::Error& e) {
        CHECK(std::string{e.what()} == "working directory '/nowhere' (in the child): No such file or directory");
    }
    (void)container.kill();
}
