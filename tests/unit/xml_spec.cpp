// What a domain becomes when it is to be started.
#include <caisson/check.hpp>
#include <caisson/xml.hpp>

#include <algorithm>

#include <unistd.h>

#include "support/doctest.hpp"
#include "support/documents.hpp"

using namespace caisson;
using caisson_test::domain_with;

namespace {

ContainerSpec spec_of(std::string_view devices, std::string_view extra = "") {
    return xml::to_spec(xml::parse(domain_with(devices, extra)));
}

/// libvirt follows the links of a source, binds what is mounted below it not along, and takes nothing away.
constexpr MountOptions as_libvirt_mounts{
    .read_only = false, .no_suid = false, .no_dev = false, .no_exec = false, .recursive = false, .follow_links = true};

bool keeps(const ContainerSpec& spec, std::string_view capability) {
    return spec.capabilities.bounding.has(*CapabilitySet::number(capability));
}

}  // namespace

TEST_CASE("the walk-through becomes a container with its own root, network and memory limit") {
    const xml::Domain d = xml::parse(caisson_test::walk_through);
    const ContainerSpec spec = xml::to_spec(d);
    CHECK(spec.name == "mycontainer");
    CHECK(spec.uuid == d.uuid.str());
    CHECK(spec.root == "/root/mycontainer");
    CHECK_FALSE(spec.root_read_only);
    CHECK(spec.command == std::vector<std::string>{"/sbin/init"});
    CHECK(spec.mounts.empty());
    CHECK(spec.limits.memory == 500000 * 1024);
    REQUIRE(spec.networks.size() == 1);
    CHECK(spec.networks[0].bridge == "br0");
    CHECK(spec.namespaces.has(NamespaceKind::net));
    CHECK(spec.console.has_value());
}

TEST_CASE("each console of a domain is one of the container") {
    const ContainerSpec spec = spec_of(
        "<console><log file='/l' append='on'/></console><console type='pty'/>"
        "<console type='pty'><log file='/m' append='off'/><target port='2'/></console>");
    REQUIRE(spec.console);
    CHECK(spec.console->log == "/l");
    CHECK(spec.console->log_append);
    // As virtlogd has it, and no container fills the disk of its host.
    CHECK(spec.console->log_limit == 2 << 20);
    REQUIRE(spec.more_consoles.size() == 2);
    CHECK(spec.more_consoles[0].log.empty());
    CHECK(spec.more_consoles[0].log_limit == 0);
    CHECK(spec.more_consoles[1].log == "/m");
    CHECK_FALSE(spec.more_consoles[1].log_append);
    CHECK(spec_of("").more_consoles.empty());
}

TEST_CASE("without id maps a domain has no user namespace, with them it has") {
    CHECK_FALSE(spec_of("").has_user_namespace());
    const ContainerSpec mapped = spec_of("",
                                         "<idmap><uid start='0' target='100000' count='65536'/>"
                                         "<gid start='0' target='200000' count='10'/></idmap>");
    CHECK(mapped.has_user_namespace());
    CHECK(mapped.uid_map == std::vector<IdMap>{{0, 100000, 65536}});
    CHECK(mapped.gid_map == std::vector<IdMap>{{0, 200000, 10}});
}

TEST_CASE("with a map that caisson found, mounts are id-mapped; with any other they are as they are") {
    const auto map = [](std::string_view uid, std::string_view gid, std::string_view root = "/srv/web") {
        return spec_of("<filesystem><source dir='" + std::string{root} + "'/><target dir='/'/></filesystem>",
                       "<idmap><uid start='0' target='" + std::string{uid} + "'/><gid start='0' target='" +
                           std::string{gid} + "'/></idmap>")
            .id_mapped_mounts;
    };
    CHECK(map("2013265920' count='65536", "2013265920' count='65536"));
    CHECK_FALSE(map("2013265920' count='65536", "2013331456' count='65536"));
    CHECK_FALSE(map("2013265920' count='1000", "2013265920' count='1000"));
    CHECK_FALSE(map("100000' count='65536", "100000' count='65536"));
    CHECK_FALSE(map("2013265920' count='65536", "2013265920' count='65536", "/"));
    CHECK_FALSE(spec_of("<filesystem><source dir='/srv'/><target dir='/'/></filesystem>").id_mapped_mounts);
}

TEST_CASE("an id map of more bytes than the kernel takes is refused with its line") {
    std::string map = "<idmap><gid start='0' target='0' count='1'/>";
    for (int i = 0; i < 300; ++i) {
        const std::string id = std::to_string(i);
        map += "<uid start='" + id + "' target='" + std::to_string(4000000000 + 2 * i) + "' count='1'/>\n";
    }
    CHECK_THROWS_WITH(spec_of("", map + "</idmap>"),
                      "<string>:5: the <uid> in <idmap> are 4990 bytes for the kernel, which takes 4095: give fewer");
}

TEST_CASE("a free id map is none that another domain has") {
    if (::geteuid() != 0) CAISSON_SKIP("what containers have is seen by root alone");
    std::vector<xml::Domain> others(2);
    const auto free = xml::free_id_map(others);
    REQUIRE(free);
    CHECK(free->inside == 0);
    CHECK(free->count == 65536);
    CHECK((free->outside >= 2013265920 && free->outside < 2147483648 && free->outside % 65536 == 0));
    others[0].uid_map = {{0, 2013265920, 65536}, {65536, 2013331456 + 65536, 134217728 - 2 * 65536}};
    CHECK(xml::free_id_map(others) == IdMap{0, 2013331456, 65536});
    others[1].gid_map = {{0, 2013331456 + 65535, 1}};
    CHECK_FALSE(xml::free_id_map(others));
}

TEST_CASE("init runs as the user and group that the document names, with the kernel's other face for a 32-bit arch") {
    const auto os = [](std::string_view pieces) {
        return xml::to_spec(xml::parse(domain_with("", "", "<memory>1</memory>", pieces)));
    };
    const ContainerSpec plain = os("<os><type>exe</type></os>");
    CHECK(plain.user.empty());
    CHECK(plain.group.empty());
    CHECK(plain.personality == Personality::native);
    const ContainerSpec names = os("<os><type>exe</type><inituser>www-data</inituser><initgroup>33</initgroup></os>");
    CHECK(names.user == "www-data");
    CHECK(names.group == "33");
    const ContainerSpec numbers = os("<os><type>exe</type><inituser>+1000</inituser><initgroup>+33</initgroup></os>");
    CHECK(numbers.user == "1000");
    CHECK(numbers.group == "33");
    const std::string twin = xml::Domain::host_arch() == "x86_64" ? "i686" : "armv7l";
    CHECK(os("<os><type arch='" + twin + "'>exe</type></os>").personality == Personality::linux32);
    CHECK(os("<os><type arch='" + std::string{xml::Domain::host_arch()} + "'>exe</type></os>").personality ==
          Personality::native);
}

TEST_CASE("what is to follow an end is what the document says") {
    const auto spec = [](std::string_view pieces) { return xml::to_spec(xml::parse(domain_with("", pieces))); };
    CHECK(spec("").on_poweroff == EndAction::destroy);
    CHECK(spec("").on_reboot == EndAction::restart);
    CHECK(spec("").on_crash == EndAction::destroy);
    const ContainerSpec other =
        spec("<on_poweroff>restart</on_poweroff><on_reboot>preserve</on_reboot><on_crash>preserve</on_crash>");
    CHECK(other.on_poweroff == EndAction::restart);
    CHECK(other.on_reboot == EndAction::preserve);
    CHECK(other.on_crash == EndAction::preserve);
    CHECK(spec("<on_reboot>rename-restart</on_reboot>").on_reboot == EndAction::restart);
    CHECK(spec("<on_crash>coredump-restart</on_crash>").on_crash == EndAction::restart);
    CHECK(spec("<on_crash>coredump-destroy</on_crash>").on_crash == EndAction::destroy);
}

TEST_CASE("a domain's security label, masks and control groups are the container's") {
    const ContainerSpec plain = spec_of("");
    CHECK(plain.security_label.empty());
    CHECK(plain.masked_paths == ContainerSpec::default_masked_paths());
    CHECK(plain.read_only_paths == ContainerSpec::default_read_only_paths());
    CHECK(plain.cgroup_mount == CgroupMount::read_write);
    CHECK(spec_of("", "<seclabel type='static' model='selinux'><label>a:b:c:s0</label></seclabel>").security_label ==
          "selinux:a:b:c:s0");
}

TEST_CASE("a domain's limits are the container's, and its memory is one of them unless <hard_limit> is there") {
    CHECK(spec_of("").limits == LimitSpec{.memory = 500000 * 1024});
    CHECK(spec_of("", "<currentMemory>1000</currentMemory>").limits.memory == 500000 * 1024);
    const LimitSpec limits =
        spec_of("",
                "<memtune><hard_limit>600000</hard_limit><soft_limit>4</soft_limit>"
                "<swap_hard_limit unit='GiB'>1</swap_hard_limit></memtune>"
                "<cputune><shares>2</shares><period>1000000</period><quota>1000</quota></cputune>"
                "<vcpu cpuset='1-4,^3'>9</vcpu><numatune><memory mode='restrictive' nodeset='0,1'/></numatune>"
                "<blkiotune><weight>1000</weight><device><path>/dev/block/8:16</path><read_bytes_sec>7</read_bytes_sec>"
                "</device></blkiotune>")
            .limits;
    CHECK(limits == LimitSpec{.memory = 600000 * 1024,
                              .memory_soft = 4096,
                              .memory_and_swap = std::uint64_t{1} << 30,
                              .cpu_shares = 2,
                              .cpu_quota = 1000,
                              .cpu_period = 1000000,
                              .cpus = "1-2,4",
                              .memory_nodes = "0-1",
                              .block_weight = 1000,
                              .block = {{.device = "/dev/block/8:16", .read_bytes = 7}}});
    CHECK(spec_of("", "<cputune><quota>-1</quota></cputune>").limits.cpu_quota == LimitSpec::unlimited);
}

TEST_CASE("a partition is the control group that libvirt makes of it, and libvirt's default is caisson's") {
    const auto group = [](const std::string& partition) {
        return spec_of("", "<resource><partition>" + partition + "</partition></resource>").cgroup_parent;
    };
    CHECK(spec_of("").cgroup_parent.empty());
    CHECK(group("/machine").empty());
    CHECK(group("/system") == "/system");
    CHECK(group("/machine/production") == "/machine/production.partition");
    CHECK(group("/web//user/") == "/web.partition/user.partition");
    CHECK(group("/web.slice/a.b") == "/web.slice/a.b");
    CHECK(group("/_x/.y/cpu/cpu.z/cgroup.w/cpus") ==
          "/__x.partition/_.y/_cpu.partition/_cpu.z/_cgroup.w/cpus.partition");
}

TEST_CASE("limits out of range and lists that are none are refused with value and range") {
    const auto message = [](std::string_view piece) {
        try {
            (void)xml::parse(domain_with("", piece), "x.xml");
        } catch (const xml::XmlError& e) {
            return std::string{e.what()};
        }
        return std::string{"taken"};
    };
    const struct {
        std::string_view piece, expected;
    } rows[] = {
        {"\n<currentMemory unit='GiB'>1</currentMemory>",
         "x.xml:6: <currentMemory> is '1': it must be 1 to 500000 KiB, which is the <memory>"},
        {"<memtune><hard_limit>0</hard_limit></memtune>",
         "x.xml:5: <hard_limit> is '0': it must be a decimal number from 1 to 18446744073709551615"},
        {"<memtune><soft_limit>-1</soft_limit></memtune>",
         "x.xml:5: <soft_limit> is '-1': it must be a decimal number from 1 to 18446744073709551615"},
        {"<memtune>\n<swap_hard_limit>499999</swap_hard_limit></memtune>",
         "x.xml:6: <swap_hard_limit> is '499999': it must be at least 500000 KiB, which is the <memory>"},
        {"<memtune><swap_hard_limit>5</swap_hard_limit><hard_limit>6</hard_limit></memtune>",
         "x.xml:5: <swap_hard_limit> is '5': it must be at least 6 KiB, which is the <hard_limit>"},
        {"<memtune><soft_limit>500001</soft_limit></memtune>",
         "x.xml:5: <soft_limit> is '500001': it must be at most 500000 KiB, which is the <memory>"},
        {"<cputune><shares>1</shares></cputune>",
         "x.xml:5: <shares> is '1': it must be a decimal number from 2 to 262144"},
        {"<cputune><shares>262145</shares></cputune>",
         "x.xml:5: <shares> is '262145': it must be a decimal number from 2 to 262144"},
        {"<cputune><period>999</period></cputune>",
         "x.xml:5: <period> is '999': it must be a decimal number from 1000 to 1000000"},
        {"<cputune><period>1000001</period></cputune>",
         "x.xml:5: <period> is '1000001': it must be a decimal number from 1000 to 1000000"},
        {"<cputune><quota>999</quota></cputune>",
         "x.xml:5: <quota> is '999': it must be -1, for no limit, or a decimal number from 1000 to 17592186044415"},
        {"<cputune><quota>17592186044416</quota></cputune>",
         "x.xml:5: <quota> is '17592186044416': it must be -1, for no limit, or a decimal number from 1000 to "
         "17592186044415"},
        {"<cputune><quota>-2</quota></cputune>",
         "x.xml:5: <quota> is '-2': it must be -1, for no limit, or a decimal number from 1000 to 17592186044415"},
        {"<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>",
         "x.xml:5: <vcpupin> is libvirt's, but caisson does not support it yet"},
        {"<cputune><share>5</share></cputune>", "x.xml:5: unknown element <share> in <cputune>"},
        {"<blkiotune><weight>99</weight></blkiotune>",
         "x.xml:5: <weight> is '99': it must be a decimal number from 100 to 1000"},
        {"<blkiotune><device><path>/dev/a</path><weight>1001</weight></device></blkiotune>",
         "x.xml:5: <weight> is '1001': it must be a decimal number from 100 to 1000"},
        {"<blkiotune><device><path>/dev/a</path><read_iops_sec>4294967296</read_iops_sec></device></blkiotune>",
         "x.xml:5: <read_iops_sec> is '4294967296': it must be a decimal number from 0 to 4294967294"},
        {"<blkiotune><device><weight>500</weight></device></blkiotune>", "x.xml:5: <device> needs the element <path>"},
        {"<blkiotune><device><path>sda</path></device></blkiotune>",
         "x.xml:5: <path> is 'sda': it must be an absolute path without control characters, of at most 4095 bytes"},
        {"<blkiotune><device><path>/</path></device></blkiotune>",
         "x.xml:5: <path> is '/': it must be the path of a device"},
        {"<blkiotune><device><path>/dev/a</path></device>\n<device><path>/dev//a</path></device></blkiotune>",
         "x.xml:6: a second <device> of '/dev/a': the first is in line 5"},
        {"<numatune><memory mode='strict'/></numatune>", "x.xml:5: <memory> needs the attribute 'nodeset'"},
        {"<numatune><memory mode='interleave' nodeset='0'/></numatune>",
         "x.xml:5: <memory mode='interleave'> is libvirt's, but caisson does not support it yet"},
        {"<numatune><memory placement='auto'/></numatune>",
         "x.xml:5: <memory placement='auto'> is libvirt's, but caisson does not support it yet"},
        {"<numatune><memory nodeset='1024'/></numatune>",
         "x.xml:5: attribute 'nodeset' of <memory> is '1024': it must be numbers from 0 to 1023 that leave one, in a "
         "list such as '0-3,^1,6'"},
        {"<resource/>", "x.xml:5: <resource> needs the element <partition>"},
        {"<resource><partition>web</partition></resource>",
         "x.xml:5: <partition> is 'web': it must be an absolute path without control characters, of at most 4095 "
         "bytes"},
        {"<resource><partition>/a/../b</partition></resource>",
         "x.xml:5: <partition> is '/a/../b': it must be a path without '.' and '..'"},
        {"<resource><partition>/</partition></resource>",
         "x.xml:5: <partition> is '/': it must be the path of a group below that"},
    };
    for (const auto& row : rows) CHECK(message(row.piece) == row.expected);
    for (const std::string wrong : {"", ",", "1,", ",1", "1,,2", "3-1", "1-", "-1", "^1", "1,^1", "0-2,^0-1", "a", "1 ",
                                    "8192", "0-8192", "01", "^", "1-2-3", "99999999999999999999"}) {
        CHECK(message("<vcpu cpuset='" + wrong + "'>1</vcpu>") ==
              "x.xml:5: attribute 'cpuset' of <vcpu> is '" + wrong +
                  "': it must be numbers from 0 to 8191 that leave one, in a list such as '0-3,^1,6'");
    }
    std::string holes = "1000-8191";
    for (int i = 1001; i < 4000; i += 6) holes += ",^" + std::to_string(i);
    CHECK(message("<vcpu cpuset='" + holes + "'>1</vcpu>")
              .ends_with("'...: it must be a list of at most 4000 bytes when it is written without '^'"));
}

TEST_CASE("a disk is a node in /dev, with the right to read, write and make it") {
    const ContainerSpec spec = spec_of(
        "<disk type='block'><source dev='/dev/x'/><target dev='vda'/></disk>"
        "<disk type='block'><source dev='/dev/y'/><target dev='vdb'/><readonly/></disk>");
    REQUIRE(spec.devices.size() == 2);
    CHECK(spec.devices[0] == DeviceSpec{.source = "/dev/x",
                                        .target = "vda",
                                        .type = DeviceSpec::Type::block,
                                        .access = {.read = true, .write = true, .make = true},
                                        .mode = 0700});
    CHECK(spec.devices[1].access == DeviceAccess{.read = true, .write = false, .make = true});
}

TEST_CASE("a domain has a network namespace with <privnet/> or an interface, else the host's") {
    CHECK_FALSE(spec_of("").namespaces.has(NamespaceKind::net));
    CHECK(spec_of("", "<features><privnet/></features>").namespaces.has(NamespaceKind::net));
    CHECK(spec_of("<interface type='bridge'><source bridge='b'/></interface>").namespaces.has(NamespaceKind::net));
}

TEST_CASE("the environment of init is libvirt's, and <initenv> wins") {
    const xml::Domain d = xml::parse(domain_with("", "", "<memory>1</memory>",
                                                 "<os><type>exe</type><init>/bin/sh</init><initarg>-c</initarg>"
                                                 "<initarg>exit 0</initarg><initenv name='TERM'>vt100</initenv>"
                                                 "<initdir>/srv</initdir></os>"));
    const ContainerSpec spec = xml::to_spec(d);
    const std::string uuid = d.uuid.str();
    CHECK(spec.environment == std::vector<std::pair<std::string, std::string>>{{"PATH", "/bin:/sbin"},
                                                                               {"container", "lxc-libvirt"},
                                                                               {"HOME", "/"},
                                                                               {"container_uuid", uuid},
                                                                               {"LIBVIRT_LXC_UUID", uuid},
                                                                               {"LIBVIRT_LXC_NAME", "web"},
                                                                               {"TERM", "vt100"}});
    CHECK(spec.command == std::vector<std::string>{"/bin/sh", "-c", "exit 0"});
    CHECK(spec.working_directory == "/srv");
}

TEST_CASE("capabilities are libvirt's policy with each one's own word") {
    const ContainerSpec standard = spec_of("");
    CHECK(standard.capabilities == CapabilitySet::libvirt());
    CHECK_FALSE(standard.no_new_privileges);
    CHECK(standard.seccomp == SeccompSpec{SeccompProfile::system, {{.call = "bpf"}}, true, false});
    const ContainerSpec mapped = spec_of(
        "", "<idmap><uid start='0' target='100000' count='9'/><gid start='0' target='100000' count='9'/></idmap>");
    CHECK(mapped.seccomp == SeccompSpec{SeccompProfile::system, {}, true, false});

    const ContainerSpec mixed =
        spec_of("", "<features><capabilities><mknod/><chown state='off'/></capabilities></features>");
    CHECK(keeps(mixed, "mknod"));
    constexpr DeviceAccess make{.read = false, .write = false, .make = true};
    CHECK(mixed.device_rules.at(1) == DeviceRule{DeviceRule::Type::character, {}, {}, make});
    CHECK(mixed.device_rules.at(2) == DeviceRule{DeviceRule::Type::block, {}, {}, make});
    CHECK_NOTHROW(check(mixed));
    CHECK_FALSE(keeps(mixed, "chown"));
    CHECK_FALSE(keeps(mixed, "sys_time"));

    const ContainerSpec allow =
        spec_of("", "<features><capabilities policy='allow'><kill state='off'/></capabilities></features>");
    CHECK(keeps(allow, "sys_time"));
    CHECK(allow.device_rules.size() == 1);  // libvirt asks for the element
    CHECK_FALSE(keeps(allow, "kill"));

    const ContainerSpec deny =
        spec_of("", "<features><capabilities policy='deny'><kill state='on'/></capabilities></features>");
    CHECK(deny.capabilities.bounding.bits() == std::uint64_t{1} << *CapabilitySet::number("kill"));
}

TEST_CASE("file systems become single binds and tmpfs in the document's order, less the root") {
    const ContainerSpec spec = spec_of(R"(
        <filesystem><source dir='/home'/><target dir='/home'/></filesystem>
        <filesystem type='ram'><source usage='1048576' units='bytes'/><target dir='/run'/></filesystem>
        <filesystem type='mount'><source dir='/srv/root'/><target dir='/'/><readonly/></filesystem>
        <filesystem><source dir='/etc/hosts'/><target dir='/etc/hosts'/><readonly/></filesystem>)");
    CHECK(spec.root == "/srv/root");
    CHECK(spec.root_read_only);
    REQUIRE(spec.mounts.size() == 3);
    CHECK(spec.mounts[0].type == MountSpec::Type::bind);
    CHECK(spec.mounts[0].source == "/home");
    CHECK(spec.mounts[0].target == "/home");
    CHECK(spec.mounts[0].options == as_libvirt_mounts);
    CHECK(spec.mounts[1] == MountSpec::tmpfs("/run", 1048576));
    CHECK(spec.mounts[2].source == "/etc/hosts");
    CHECK(spec.mounts[2].options.read_only);
}

TEST_CASE("file systems of devices and files become images, and binds from inside stay inside") {
    const ContainerSpec spec = spec_of(R"(
        <filesystem type='file'><source file='/srv/root.img'/><target dir='/'/><readonly/></filesystem>
        <filesystem type='block'><source dev='/dev/vda1'/><target dir='/data'/></filesystem>
        <filesystem type='file'><source file='/srv/a.img'/><target dir='/a'/><readonly/></filesystem>
        <filesystem type='bind'><source dir='/etc'/><target dir='/copy'/></filesystem>)");
    CHECK(spec.root == "/srv/root.img");
    CHECK(spec.root_read_only);
    REQUIRE(spec.mounts.size() == 3);
    MountOptions read_only = as_libvirt_mounts;
    read_only.read_only = true;
    CHECK(spec.mounts[0] == MountSpec::image("/dev/vda1", "/data", as_libvirt_mounts));
    CHECK(spec.mounts[1] == MountSpec::image("/srv/a.img", "/a", read_only));
    CHECK(spec.mounts[2] == MountSpec::bind_inside("/etc", "/copy", as_libvirt_mounts));
    CHECK_NOTHROW(check(spec));
    CHECK(spec_of("<filesystem type='block'><source dev='/dev/vda1'/><target dir='/'/></filesystem>").root ==
          "/dev/vda1");
    CHECK(spec_of("<filesystem type='bind'><source dir='/'/><target dir='/'/></filesystem>").root == "/");
}

TEST_CASE("without a root file system the container has the host's") {
    CHECK(spec_of("").root == "/");
}

TEST_CASE("a route without a metric gets libvirt's") {
    const ContainerSpec spec = spec_of(
        "<interface type='bridge'><source bridge='b'/>"
        "<route address='0.0.0.0' gateway='10.0.0.1'/>"
        "<route address='10.9.0.0' prefix='16' gateway='10.0.0.1' metric='7'/></interface>");
    REQUIRE(spec.networks.at(0).routes.size() == 2);
    CHECK(spec.networks[0].routes[0].metric == 1);
    CHECK(spec.networks[0].routes[1].metric == 7);
}

TEST_CASE("what a document says can be started, as far as a spec tells") {
    CHECK_NOTHROW(check(xml::to_spec(xml::parse(caisson_test::walk_through))));
    CHECK_NOTHROW(
        check(spec_of("<filesystem type='ram'><source usage='18014398509481983'/><target dir='/run'/></filesystem>"
                      "<interface type='bridge'><source bridge='b'/><guest dev='eth7'/><mtu size='68'/>"
                      "<route family='ipv6' address='::' gateway='fd00::1'/></interface>",
                      "<idmap><uid start='0' target='0' count='4294967294'/>"
                      "<gid start='0' target='4294967294' count='1'/></idmap>")));
}

TEST_CASE("host devices become nodes below /dev that may be used and made again, and fuse may be used by all") {
    const ContainerSpec spec = spec_of(
        "<hostdev mode='capabilities' type='storage'><source><block>/dev/sdf1</block></source></hostdev>"
        "<hostdev mode='capabilities' type='misc'><source><char>/host/net//tun</char></source></hostdev>");
    constexpr DeviceAccess all{true, true, true};
    CHECK(spec.devices ==
          std::vector<DeviceSpec>{{"/dev/sdf1", "sdf1", DeviceSpec::Type::block, all, 0700, 0, 0},
                                  {"/host/net/tun", "net/tun", DeviceSpec::Type::character, all, 0700, 0, 0}});
    CHECK(spec.device_rules == std::vector<DeviceRule>{{DeviceRule::Type::character, 10, 229, all}});
    CHECK_NOTHROW(check(spec));
}

TEST_CASE("one device is read as it is in a domain") {
    const auto disk = xml::parse_device(
        "<disk type='block' device='disk'><driver type='raw'/><source dev='/dev//sdb'/><target dev='vdb' "
        "bus='virtio'/></disk>");
    CHECK(std::get<xml::Disk>(disk) == xml::Disk{"/dev/sdb", "vdb", false});
    const auto fs = xml::parse_device("<filesystem><source dir='/srv'/><target dir='/mnt'/><readonly/></filesystem>");
    CHECK(std::get<xml::Filesystem>(fs) == xml::Filesystem{xml::Filesystem::Type::mount, "/srv", 0, "/mnt", true});
    const auto device = xml::parse_device(
        "<hostdev mode='capabilities' type='misc'><source><char>/dev/net/tun</char></source></hostdev>");
    CHECK(std::get<xml::HostDevice>(device) == xml::HostDevice{xml::HostDevice::Type::misc, "/dev/net/tun"});
    const auto net = xml::parse_device(
        "<interface type='bridge'><source bridge='br0'/><port isolated='yes'/><guest dev='lan'/></interface>");
    NetworkSpec expected;
    expected.bridge = "br0";
    expected.name = "lan";
    expected.isolated = true;
    CHECK(std::get<xml::Interface>(net) == xml::Interface{expected, false});
    CHECK_FALSE(std::get<xml::Interface>(xml::parse_device("<interface type='bridge'><source bridge='br0'/>"
                                                           "<port isolated='no'/></interface>"))
                    .network.isolated);
}

TEST_CASE("a document of one device is refused with file and line") {
    const auto refused = [](std::string_view text) {
        try {
            (void)xml::parse_device(text, "d.xml");
        } catch (const xml::XmlError& e) {
            return std::string{e.what()};
        }
        return std::string{};
    };
    CHECK(refused("<domain/>") ==
          "d.xml:1: the root element is <domain>: it must be <disk>, <filesystem>, <hostdev> or <interface>");
    CHECK(refused("<rng model='virtio'/>") == "d.xml:1: <rng> is libvirt's, but caisson does not support it yet");
    CHECK(refused("<interface\ntype='bridge'><source\nbridge='a b'/></interface>") ==
          "d.xml:3: attribute 'bridge' of <source> is 'a b': it must be 1 to 15 letters, digits, '.', '_' and '-', the "
          "first no '-'");
    CHECK(refused("<disk type='block'>") != "");
    CHECK_THROWS_WITH_AS((void)xml::load_device("/nowhere/d.xml"), "read '/nowhere/d.xml': No such file or directory",
                         Error);
}

TEST_CASE("a disk that is none is refused with its line") {
    const auto refused = [](std::string_view text) {
        try {
            (void)xml::parse(domain_with(text), "x.xml");
        } catch (const xml::XmlError& e) {
            return std::string{e.what()};
        }
        return std::string{};
    };
    const struct {
        std::string_view piece, expected;
    } rows[] = {
        {"<disk type='file'/>", ": <disk type='file'> is libvirt's, but caisson does not support it yet"},
        {"<disk type='block'/>", ": <disk> needs the element <source>"},
        {"<disk type='block'><source dev='/'/></disk>",
         ": attribute 'dev' of <source> is '/': it must be the "
         "path of a block device"},
        {"<disk type='block'><source dev='/dev/x'/><target dev='null'/></disk>",
         ": attribute 'dev' of <target> is 'null': it must be 'vd', 'sd', 'hd', 'xvd', 'fd' or 'ubd', and "
         "letters, digits and '_'"},
        {"<disk type='block'><source dev='/dev/x'/><target dev='vda'/></disk>"
         "<disk type='block'><source dev='/dev/y'/><target dev='vda'/></disk>",
         ": a second <disk> with the target device 'vda': the first is in line 6"},
        {"<disk type='block'><source dev='/dev/x'/><target dev='vda'/><serial>1</serial></disk>",
         ": <serial> is libvirt's, but caisson does not support it yet"},
    };
    for (const auto& row : rows) CHECK(refused(row.piece).ends_with(row.expected));
}
