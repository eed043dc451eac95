// What is attached by who keeps many containers, or by a client of a helper: who is told, who waits for whom, and what
// is known when somebody dies half-way.
#include <caisson/bridge.hpp>
#include <caisson/container.hpp>
#include <caisson/controller.hpp>
#include <caisson/detail/container_record.hpp>
#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/helper.hpp>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/fuse.hpp"
#include "support/helper.hpp"
#include "support/hotplug.hpp"
#include "support/machine.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// What a client says to a helper that the library does not know of; what it is refused with, or nothing.
class Client {
public:
    explicit Client(const Place& place) : place_{place.run + "/web"}, socket_{connect_to(place_ + "/sock")} {}
    detail::Message ask(detail::Message::Kind kind, const std::string& body = {}, int pass = -1) {
        REQUIRE(detail::send_message(socket_.get(), {.kind = kind, .body = body}, pass));
        detail::Message answer;
        while (detail::take_message(socket_.get(), answer, &passed_) == detail::Taken::nothing_yet) {
            REQUIRE(detail::wait_readable(socket_.get(), 10'000));
        }
        return answer;
    }
    std::string refusal(detail::Message::Kind kind, const std::string& body = {}, int pass = -1) {
        const detail::Message answer = ask(kind, body, pass);
        if (answer.kind != detail::Message::Kind::refused) return {};
        return detail::decode<detail::PlainError>(answer.body).error().what();
    }

    detail::Hotplug begin() {
        REQUIRE(refusal(detail::Message::Kind::equipment) == "");
        Process init = Process::adopt(std::move(passed_));
        directory_.emplace(detail::ContainerRecord::lock(place_));
        record_ = *detail::ContainerRecord::read(directory_->fd(), *detail::Owner::of(init.pid()));
        return {std::move(init), record_.hotplug};
    }
    void intend(const detail::Change& change, pid_t init) {
        record_.note(change);
        record_.write(directory_->fd(), *detail::Owner::of(init), place_);
        const Fd netlink = detail::open_netlink();
        CHECK(refusal(detail::Message::Kind::intent, detail::encode(change), netlink.get()) == "");
    }
    void unlock() { directory_.reset(); }

private:
    std::string place_;
    Fd socket_;
    std::optional<detail::LockedDirectory> directory_;
    detail::ContainerRecord record_;
    Fd passed_;
};

using Question = detail::Message::Kind;

const detail::Change log_change{.kind = detail::Change::Kind::device,
                                .device = {"log/kernel", {DeviceRule::Type::character, 1, 11}}};

}  // namespace

TEST_CASE("a controller tells what came and went") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    Controller controller;
    ContainerSpec spec = shell(root, "sleep 1000");
    const ContainerId id = controller.start(spec);
    (void)controller.next();
    const auto told = [&](Event::Kind kind) {
        const auto event = controller.next();
        REQUIRE(event);
        CHECK(event->kind == kind);
        CHECK(event->name == "test");
        return event->device;
    };
    CHECK(controller.attach(id, NetworkSpec{.bridge = "br0"}) == "eth0");
    CHECK(told(Event::Kind::device_added) == "network 'eth0'");
    controller.attach(id, log_device);
    CHECK(told(Event::Kind::device_added) == "device '/dev/log/kernel'");
    controller.attach(id, MountSpec::tmpfs("/mnt", 1 << 20));
    CHECK(told(Event::Kind::device_added) == "mount '/mnt'");
    CHECK(controller.usage(id, UsagePart::network).networks.size() == 1);
    CHECK(
        refusal([&] { controller.detach_network(id, "eth1"); }, ENOENT) ==
        "container 'test': interface 'eth1': No such file or directory: it was not given to the container, or is gone "
        "already");
    CHECK_FALSE(controller.next());
    controller.detach_mount(id, "/mnt");
    CHECK(told(Event::Kind::device_removed) == "mount '/mnt'");
    controller.detach_device(id, "log/kernel");
    CHECK(told(Event::Kind::device_removed) == "device '/dev/log/kernel'");
    controller.detach_network(id, "eth0");
    CHECK(told(Event::Kind::device_removed) == "network 'eth0'");
    CHECK_THROWS_AS((void)controller.attach(ContainerId{99}, log_device), std::logic_error);
    (void)controller.kill(id);
    while (!controller.next()) (void)detail::wait_readable(controller.fd(), 1000);
    CHECK(refusal([&] { controller.attach(id, log_device); }, ESRCH).ends_with("it has ended"));
}

TEST_CASE("two threads that attach devices at once take nothing from each other") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    Controller controller;
    const ContainerId id = controller.start(shell(root, "sleep 1000"));
    (void)controller.next();
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&controller, id, i] {
                controller.attach(id, DeviceSpec{.source = "/dev/null", .target = "of" + std::to_string(i)});
            });
        }
    }
    const Container container = controller.take(id);
    for (int i = 0; i < 4; ++i) {
        const std::string node = "/proc/" + std::to_string(container.init().pid()) + "/root/dev/of" + std::to_string(i);
        CHECK(::access(node.c_str(), F_OK) == 0);
    }
}

TEST_CASE("who asks a helper attaches and detaches with rights of its own, for whoever comes after") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0", {*IpPrefix::parse("10.9.0.1/24")});
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(helper.attach(NetworkSpec{.bridge = "br0", .host_name = "late0"}) == "eth0");
    helper.attach(log_device);
    helper.attach(MountSpec::tmpfs("/mnt", 1 << 20));
    // Its owner is who lives as long as the container, not who asked.
    const std::string link = output("ip -o link show late0");
    CHECK(contains(link, "caisson:" + std::to_string(helper.pid()) + "-"));
    auto other = Helper::find("web", place.options.run_directory);
    REQUIRE(other);
    CHECK(other->usage(UsagePart::network).networks.size() == 1);
    CHECK(
        refusal([&] { other->attach(log_device); }, EEXIST).starts_with("container 'web': device '/dev/log/kernel': "));
    other->detach_mount("/mnt");
    other->detach_device("log/kernel");
    CHECK(refusal([&] { helper.detach_device("log/kernel"); }, ENOENT).starts_with("container 'web': "));
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("a network that came later goes with the container, too, when the owner is dead") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    REQUIRE(in_child([&] {
                Container container = Container::start(shell(root, "sleep 1000"));
                (void)container.attach(NetworkSpec{.bridge = "br0", .host_name = "late0"});
                ::_exit(contains(links(), "late0") ? 0 : 1);
                return 2;
            }) == 0);
    bool is_there = true;
    for (int waited = 0; is_there && waited < 500; ++waited) {
        ::usleep(10'000);
        is_there = contains(links(), "late0");
    }
    CHECK_FALSE(is_there);
}

TEST_CASE("who waits for one container holds up neither the others nor that one's end") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const TestDirectory silent;
    SilentServer server;
    if (!server.mount(silent.path())) CAISSON_SKIP("there is no FUSE");
    Controller controller;
    std::optional<Helper> helper;
    ContainerId id{};
    SUBCASE("of the process's own") {
        id = controller.start(place.spec("web"));
    }
    SUBCASE("of a helper's") {
        helper.emplace(Helper::start(place.spec("web"), place.options));
        id = controller.reattach("web", place.run);
    }
    const ContainerId other = controller.start(place.spec("other"));
    std::string why;
    std::atomic<bool> waits{true};
    std::atomic<bool> is_done{false};
    std::thread waiting{[&] {
        try {
            controller.attach(id, MountSpec::bind(silent.path(), "/mnt"));
        } catch (const Error& e) {
            why = e.what();
        }
        waits = false;
    }};
    std::thread ending{[&] {
        for (int waited = 0; !is_done && waited < 500; ++waited) ::usleep(10'000);
        server.fuse.reset();
    }};
    ::usleep(100'000);
    controller.attach(other, MountSpec::tmpfs("/mnt", 1 << 20));
    CHECK(controller.usage(id, UsagePart::memory).memory.has_value());
    CHECK(controller.kill(id));
    bool has_ended = false;
    while (!has_ended && detail::wait_readable(controller.fd(), 5000)) {
        while (const auto event = controller.next()) has_ended = has_ended || (event->id == id && event->is_last());
    }
    CHECK(has_ended);
    CHECK(waits);
    is_done = true;
    ending.join();
    waiting.join();
    CHECK(why.ends_with("container 'web': No such process: it has ended"));
    CHECK(::umount2(silent.path().c_str(), MNT_DETACH) == 0);
}

namespace {

std::string device_told_by(Helper& helper) {
    for (;;) {
        if (const auto event = helper.next_event()) return std::string{event->device};
        REQUIRE(detail::wait_readable(helper.fd(), 5000));
    }
}
/// All but the last step: telling the helper that it is done.
template <class Spec>
void attach_half(Client& client, const Spec& spec, pid_t init) {
    detail::Hotplug plug = client.begin();
    const auto intend = [&](const detail::Change& change) { client.intend(change, init); };
    plug.tell_before(intend);
    (void)plug.attach(spec);
}

}  // namespace

TEST_CASE("what a client was about to attach when it died is known, and can be detached") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    Helper helper = Helper::start(place.spec("web"), place.options);
    helper.watch();
    const auto told = [&] { return device_told_by(helper); };
    const auto attach = [init = helper.info().init](Client& client, const auto& spec) {
        attach_half(client, spec, init);
    };
    {
        Client client{place};
        attach(client, NetworkSpec{.bridge = "br0"});
    }
    CHECK(told() == "network 'eth0'");
    CHECK(helper.usage(UsagePart::network).networks.size() == 1);
    {
        // Nor is one that was about to be detached forgotten.
        Client client{place};
        (void)client.begin();
        client.intend({.kind = detail::Change::Kind::network, .added = false, .is_half = true}, helper.info().init);
    }
    helper.detach_network("eth0");
    CHECK(told() == "network 'eth0'");
    {
        Client client{place};
        attach(client, log_device);
    }
    CHECK(told() == "device '/dev/log/kernel'");
    helper.detach_device("log/kernel");
    CHECK(told() == "device '/dev/log/kernel'");
    {
        Client client{place};
        attach(client, MountSpec::tmpfs("/mnt", 1 << 20));
    }
    CHECK(told() == "mount '/mnt'");
    helper.detach_mount("/mnt");
    CHECK(told() == "mount '/mnt'");
    // Of a link that is not there by then, nothing is told; nor of what has been taken back.
    {
        Client client{place};
        (void)client.begin();
        const Fd netlink = detail::open_netlink();
        const detail::Change none{.kind = detail::Change::Kind::network, .link = {0, "eth0", "none0", true}};
        CHECK(client.refusal(Question::intent, detail::encode(none), netlink.get()) == "");
    }
    {
        Client client{place};
        const std::string intent = detail::encode(log_change);
        CHECK(client.refusal(Question::intent, intent) ==
              "message of caisson: it is no client that changes something: Bad message");
        (void)client.begin();
        CHECK(client.refusal(Question::intent, intent) == "");
        CHECK(client.refusal(Question::change) == "");
    }
    helper.attach(MountSpec::tmpfs("/mnt", 1 << 20));
    CHECK(told() == "mount '/mnt'");
    (void)helper.kill();
}

TEST_CASE("a device whose taking was cut off does not come back, and can be taken again") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    const LogNode node;
    ContainerSpec spec = place.spec("web");
    spec.mounts.push_back(node.mount());
    Helper helper = Helper::start(spec, place.options);
    helper.watch();
    const auto can_use = [&] {
        return helper.exec(ExecSpec{.command = {"/bin/sh", "-c", ": >/nodes/log"}}).wait() == ExitStatus::exited(0);
    };
    if (can_use()) CAISSON_SKIP("no rules for devices can be set here");
    helper.attach(log_device);
    CHECK(can_use());
    {
        Client client{place};
        detail::Hotplug plug = client.begin();
        const auto intend = [&, init = helper.info().init](const detail::Change& change) {
            CHECK_FALSE(change.added);
            client.intend(change, init);
        };
        plug.tell_before(intend);
        (void)plug.detach_device("log/kernel");
    }
    CHECK_FALSE(can_use());
    // This gives all rights anew.
    helper.attach(DeviceSpec{.source = "/dev/null", .target = "other"});
    CHECK_FALSE(can_use());
    helper.detach_device("log/kernel");
    for (const char* const told : {"device '/dev/log/kernel'", "device '/dev/other'", "device '/dev/log/kernel'"}) {
        CHECK(device_told_by(helper) == told);
    }
    (void)helper.kill();
}

TEST_CASE("a client that is refused may still undo what it did, and lets others go on then") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    Client client{place};
    (void)client.begin();
    CHECK(client.refusal(Question::change, "nonsense") != "");
    CHECK(refusal([&] { helper.attach(log_device); }, EBUSY) ==
          "container 'web': devices of the container: Device or resource busy: another client is attaching or "
          "detaching one");
    CHECK(client.refusal(Question::change) == "");
    client.unlock();
    helper.attach(log_device);
    helper.detach_device("log/kernel");
    (void)helper.kill();
}

TEST_CASE("what was attached is known to who takes the place of a helper that died, and is still its owner's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    Place place;
    place.options.outlive = true;
    const OwnNetwork own;
    const Bridge bridge = Bridge::create("br0");
    Helper helper = Helper::start(place.spec("web"), place.options);
    helper.watch();
    {
        Client client{place};
        attach_half(client, NetworkSpec{.bridge = "br0"}, helper.info().init);
    }
    CHECK(device_told_by(helper) == "network 'eth0'");
    CHECK(helper.usage(UsagePart::network).networks.size() == 1);
    helper.detach_network("eth0");
    CHECK(device_told_by(helper) == "network 'eth0'");
    (void)helper.attach(NetworkSpec{.bridge = "br0", .host_name = "late0"});
    helper.attach(log_device);
    REQUIRE(::kill(helper.pid(), SIGKILL) == 0);
    CHECK(helper.info().name == "web");  // by another
    (void)sweep();
    CHECK(contains(links(), "late0"));
    helper.detach_network("eth0");
    CHECK_FALSE(contains(links(), "late0"));
    helper.detach_device("log/kernel");
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("what could not be attached is not written down, and what somebody has lost is refused by its file") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    const auto init = detail::Owner::of(helper.info().init);
    REQUIRE(init);
    const std::string file = place.run + "/web/" + detail::ContainerRecord::file_of(*init);
    const auto written = [&] {
        std::string bytes;
        REQUIRE(detail::sys::read_file(AT_FDCWD, file.c_str(), bytes));
        return bytes;
    };
    const std::string before = written();
    CHECK(refusal([&] { helper.attach(MountSpec::bind("/etc/passwd", "/tmp")); }, EINVAL) != "");
    CHECK(written() == before);
    helper.attach(log_device);
    CHECK(written() != before);
    helper.detach_device("log/kernel");
    CHECK(written() == before);
    REQUIRE(::unlink(file.c_str()) == 0);
    CHECK(refusal([&] { helper.attach(log_device); }, ENOENT) ==
          "helper of container 'web': '" + file +
              "': No such file or directory: its clients believe nothing else, and it was there: stop the container "
              "and start it again");
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("what was done to a container before it was started again is not noted on its successor") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    ContainerSpec spec = place.spec("web");
    spec.on_crash = EndAction::restart;
    spec.back_off.first_pause_ms = 10;
    Helper helper = Helper::start(spec, place.options);
    helper.watch();
    Client client{place};
    (void)client.begin();
    (void)helper.signal(SIGKILL);
    bool is_there = false;
    while (!is_there && detail::wait_readable(helper.fd(), 5000)) {
        while (const auto event = helper.next_event()) is_there = is_there || event->kind == Event::Kind::started;
    }
    REQUIRE(is_there);
    CHECK(client.refusal(Question::change, detail::encode(log_change)).ends_with("No such process: it has ended"));
    CHECK(client.refusal(Question::change) == "");
    client.unlock();
    CHECK(refusal([&] { helper.detach_device("log/kernel"); }, ENOENT).starts_with("container 'web': device "));
    (void)helper.kill();
}
