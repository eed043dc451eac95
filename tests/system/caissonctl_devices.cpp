// caissonctl's attach-device, detach-device, update-device and their kin: as virsh prints and refuses, and in force.
#include <caisson/bridge.hpp>
#include <caisson/helper.hpp>

#include "support/doctest.hpp"

#include <csignal>
#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "support/domains.hpp"
#include "support/hotplug.hpp"
#include "support/machine.hpp"
#include "support/why_not.hpp"

using namespace caisson_test;

namespace {

constexpr const char* interface_xml =
    "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/></interface>\n";
constexpr const char* log_xml =
    "<hostdev mode='capabilities' type='misc'><source><char>/dev/kmsg</char></source></hostdev>\n";

}  // namespace

TEST_CASE("wrong use of the verbs for devices is told in virsh's own words") {
    const LeavesNothing nothing;
    const Domains ctl;
    const std::pair<Words, std::string> cases[] = {
        {{"attach-device"},
         "command 'attach-device' requires <domain> option\nerror: command 'attach-device' requires "
         "<file> option"},
        {{"detach-device", "x"}, "command 'detach-device' requires <file> option"},
        {{"attach-disk", "x", "y"}, "command 'attach-disk' requires <target> option"},
        {{"attach-interface", "x", "bridge"}, "command 'attach-interface' requires <source> option"},
        {{"update-device", "x", "y", "--bogus"}, "command 'update-device' doesn't support option --bogus"},
        {{"attach-device", "x", "/nowhere"},
         "Failed to attach device from /nowhere\nerror: Failed to open file '/nowhere': No such file or directory"},
        {{"attach-interface", "x", "direct", "eth0"},
         "Failed to attach interface\nerror: No support for direct in command 'attach-interface'"},
        {{"attach-interface", "x", "bridge", "br0", "--mac", "1"},
         "Failed to attach interface\nerror: invalid MAC address '1'"},
        {{"attach-disk", "x", "/dev/vda", "vdb", "--mode", "shareable"},
         "Failed to attach disk\nerror: No support for shareable in command 'attach-disk'"},
        {{"detach-disk", "x", "vdb"}, "Failed to detach disk\nerror: failed to get domain 'x'"},
    };
    for (const auto& one : cases) {
        const auto& arguments = one.first;
        const auto& error = one.second;
        CAPTURE(arguments.front());
        const Outcome outcome = ctl(arguments);
        CHECK(outcome.status == 1);
        CHECK(outcome.err == "error: " + error + "\n");
    }
    CHECK(has(ctl({"help", "attach-device"}).out,
              "attach-device <domain> <file> [--persistent] [--config] [--live] [--current]"));
}

TEST_CASE("devices come to a running domain and go, and its document shows them") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Domains ctl;
    const OwnNetwork own;
    const caisson::Bridge bridge = caisson::Bridge::create("br0");
    const std::string first = "<interface type='bridge'><source bridge='br0'/></interface>";
    REQUIRE(ctl({"define", ctl.describe("web", "", 50000, "/sbin/init", first)}).status == 0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    const std::string running = ctl({"dumpxml", "web"}).out;
    const std::string defined = ctl({"dumpxml", "web", "--inactive"}).out;

    const std::string net = ctl.write("net.xml", interface_xml);
    check_said(ctl({"attach-device", "web", net}), "Device attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out,
              "      <mac address='52:54:00:11:22:33'/>\n      <source bridge='br0'/>\n      <guest dev='eth1'/>\n"));
    CHECK(ctl({"domifstat", "web", "52:54:00:11:22:33"}).status == 0);
    check_error(ctl({"attach-device", "web", net}),
                "error: Failed to attach device from " + net +
                    "\nerror: operation failed: interface with the MAC address '52:54:00:11:22:33' already exists\n");
    check_said(ctl({"detach-device", "web", net}), "Device detached successfully\n");
    check_error(ctl({"detach-device", "web", net}),
                "error: Failed to detach device from " + net +
                    "\nerror: device not found: interface with the MAC address '52:54:00:11:22:33' not found\n");

    const std::string log = ctl.write("log.xml", log_xml);
    check_said(ctl({"attach-device", "web", log, "--live"}), "Device attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "<char>/dev/kmsg</char>"));
    check_said(ctl({"detach-device", "web", log}), "Device detached successfully\n");

    const std::string memory = ctl.write(
        "memory.xml", "<filesystem type='ram'><source usage='1' units='MiB'/><target dir='/mnt'/></filesystem>\n");
    check_said(ctl({"attach-device", "web", memory}), "Device attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "<target dir='/mnt'/>"));
    check_said(ctl({"detach-device", "web", memory}), "Device detached successfully\n");

    CHECK(ctl({"dumpxml", "web", "--inactive"}).out == defined);
    // The interface of the start has been given the name that it has.
    std::string now = ctl({"dumpxml", "web"}).out;
    const std::string named = "      <guest dev='eth0'/>\n";
    REQUIRE(has(now, named));
    CHECK(now.erase(now.find(named), named.size()) == running);

    // What is refused changes neither document.
    const std::string none = ctl.write(
        "none.xml", "<hostdev mode='capabilities' type='misc'><source><char>/dev/none</char></source></hostdev>\n");
    check_error(
        ctl({"attach-device", "web", none, "--persistent"}),
        "error: Failed to attach device from " + none +
            "\nerror: container 'web': device.source: '/dev/none': No such file or directory: name a device that "
            "the host has\n");
    CHECK(ctl({"dumpxml", "web", "--inactive"}).out == defined);
    check_said(ctl({"attach-interface", "web", "bridge", "br0", "--mac", "52:54:00:44:55:66", "--persistent"}),
               "Interface attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "52:54:00:44:55:66"));
    CHECK(has(ctl({"dumpxml", "web", "--inactive"}).out, "52:54:00:44:55:66"));
    const std::string late =
        ctl.write("late.xml", "<interface type='bridge'><source bridge='br0'/><target dev='late0'/></interface>\n");
    check_error(ctl({"detach-device", "web", late}),
                "error: Failed to detach device from " + late +
                    "\nerror: device not found: interface with the target device 'late0' not found\n");
    check_said(ctl({"attach-device", "web", late}), "Device attached successfully\n");
    check_error(ctl({"attach-interface", "web", "bridge", "br0", "--target", "late0"}),
                "error: Failed to attach interface\nerror: operation failed: interface with the target device 'late0' "
                "already exists\n");
    check_said(ctl({"detach-device", "web", late}), "Device detached successfully\n");
    check_error(ctl({"detach-interface", "web", "bridge"}),
                "error: Failed to detach interface\nerror: Domain has 2 interfaces. Please specify which one to detach "
                "using --mac\n");
    check_said(ctl({"detach-interface", "web", "bridge", "--mac", "52:54:00:44:55:66", "--persistent"}),
               "Interface detached successfully\n");
    CHECK(ctl({"dumpxml", "web", "--inactive"}).out == defined);
    REQUIRE(ctl({"destroy", "web"}).status == 0);
}

TEST_CASE("a domain that is started again has what came while it ran, and its document shows it") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web", "", 50000, "/sbin/init", "", "<on_crash>restart</on_crash>")}).status ==
            0);
    REQUIRE(ctl({"start", "web"}).status == 0);
    auto helper = caisson::Helper::find("web", ctl.file("run"));
    REQUIRE(helper);
    check_said(ctl({"attach-device", "web", ctl.write("log.xml", log_xml), "--live"}),
               "Device attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out, "<char>/dev/kmsg</char>"));
    helper->watch();
    REQUIRE(helper->signal(SIGKILL));
    bool is_there = false;
    while (!is_there && caisson::detail::wait_readable(helper->fd(), 5000)) {
        while (const auto event = helper->next_event())
            is_there = is_there || event->kind == caisson::Event::Kind::started;
    }
    CHECK(is_there);
    CHECK(has(ctl({"dumpxml", "web"}).out, "<char>/dev/kmsg</char>"));
    CHECK(::access(("/proc/" + std::to_string(helper->info().init) + "/root/dev/kmsg").c_str(), F_OK) == 0);
    check_said(ctl({"detach-device", "web", ctl.write("log.xml", log_xml), "--live"}),
               "Device detached successfully\n");
    CHECK_FALSE(has(ctl({"dumpxml", "web"}).out, "<char>/dev/kmsg</char>"));
    REQUIRE(ctl({"destroy", "web"}).status == 0);
}

TEST_CASE("a definition gets devices, loses them and has them updated") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    Domains ctl;
    REQUIRE(ctl({"define", ctl.describe("web")}).status == 0);
    const std::string defined = ctl({"dumpxml", "web"}).out;
    check_said(ctl({"attach-disk", "web", "/dev/vg/data", "vdb", "--mode", "readonly", "--config"}),
               "Disk attached successfully\n");
    CHECK(has(ctl({"dumpxml", "web"}).out,
              "    <disk type='block' device='disk'>\n      <driver type='raw'/>\n      <source dev='/dev/vg/data'/>\n"
              "      <target dev='vdb'/>\n      <readonly/>\n    </disk>\n"));
    check_error(ctl({"attach-disk", "web", "/dev/vg/more", "vdb"}),
                "error: Failed to attach disk\nerror: operation failed: disk 'vdb' already exists\n");
    check_error(ctl({"attach-disk", "web", "/dev/vg/more", "vdb", "--live"}),
                "error: Failed to attach disk\nerror: Requested operation is not valid: domain is not running\n");
    check_said(ctl({"detach-disk", "web", "vdb"}), "Disk detached successfully\n");
    CHECK(ctl({"dumpxml", "web"}).out == defined);

    const std::string net = ctl.write("net.xml", interface_xml);
    check_error(ctl({"update-device", "web", net}),
                "error: Failed to update device from " + net +
                    "\nerror: device not found: interface with the MAC address '52:54:00:11:22:33' not found\n");
    check_said(ctl({"attach-device", "web", net}), "Device attached successfully\n");
    const std::string other = ctl.write(
        "other.xml",
        "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br1'/><port isolated='yes'/>"
        "</interface>\n");
    check_said(ctl({"update-device", "web", other, "--config"}), "Device updated successfully\n");
    const std::string updated = ctl({"dumpxml", "web"}).out;
    CHECK(has(updated, "<source bridge='br1'/>\n      <port isolated='yes'/>\n"));
    CHECK_FALSE(has(updated, "br0"));
    const std::string log = ctl.write("log.xml", log_xml);
    check_error(ctl({"update-device", "web", log}),
                "error: Failed to update device from " + log +
                    "\nerror: Operation not supported: only the interfaces of a definition can be updated\n");
    const std::string rng = ctl.write("rng.xml", "<rng model='virtio'/>\n");
    check_error(ctl({"attach-device", "web", rng}),
                "error: Failed to attach device from " + rng + "\nerror: " + rng +
                    ":1: <rng> is libvirt's, but caisson does not support it yet\n");
}
