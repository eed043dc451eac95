#include <caisson/xml.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <unistd.h>

#include "support/doctest.hpp"
#include "support/documents.hpp"

using namespace caisson;
using caisson_test::domain_with;

namespace {

/// A file with this content that is removed at the end.
class TemporaryFile {
public:
    explicit TemporaryFile(const std::string& content) {
        const int fd = ::mkstemp(path_);
        REQUIRE(fd >= 0);
        REQUIRE(::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
        ::close(fd);
    }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() { ::unlink(path_); }
    [[nodiscard]] const char* path() const { return path_; }

private:
    char path_[32] = "/tmp/caisson-xml-XXXXXX";
};

/// Every value away from its default.
xml::Domain full_domain() {
    xml::Domain d;
    d.name = "web.1";
    d.uuid = *xml::Uuid::parse("8369f1ac-7e46-e869-4ca5-759d51478066");
    d.title = "  a <title> & \"more\" ";
    d.description = "two\nlines, a tab\t, a CR \r and 'quotes' ]]> \xc3\xa9 \xf0\x9f\x90\xa7\n";
    d.metadata = {{"http://example.org/a", R"(<a:x xmlns:a="http://example.org/a" q='"'>&#x20;1 &lt; 2<b/>3</a:x>)"},
                  {"urn:b", R"(<site xmlns="urn:b"/>)"}};
    d.memory_kib = (std::uint64_t{1} << 54) - 1;
    d.current_memory_kib = 7;
    d.vcpus = 65535;
    d.limits = {.memory = 6 * 1024,
                .memory_soft = 1024,
                .memory_and_swap = ((std::uint64_t{1} << 53) - 2) * 1024,
                .cpu_shares = 262144,
                .cpu_quota = 17592186044415,
                .cpu_period = 1000,
                .cpus = "0,2-3,8191",
                .memory_nodes = "0-1,1023",
                .block_weight = 100,
                .block = {{.device = "/dev/it's",
                           .weight = 1000,
                           .read_bytes = 18446744073709551615u,
                           .write_bytes = 1,
                           .read_operations = 4294967294,
                           .write_operations = 2},
                          {.device = "/dev/vdb", .write_bytes = 3}}};
    d.numa_mode = xml::NumaMode::restrictive;
    d.partition = "/production/web";
    d.init = "/bin/a b'c\"d&e<f>";
    d.init_arguments = {"--unit", " ", "\n", "a\nb", "<&>", "&amp;", "\t x \t"};
    d.init_environment = {{"PATH", "/sbin"}, {"_x9", " = "}};
    d.init_directory = "/srv";
    d.init_user = "www-data";
    d.init_group = "+33";
    d.acpi = d.apic = d.pae = true;
    d.security_label = xml::SecurityLabel{xml::SecurityLabel::Model::selinux, "system_u:system_r:svirt_lxc_net_t:s0"};
    d.uid_map = {{0, 100000, 1000}, {1000, 1000, 1}, {1001, 101000, 64535}};
    d.gid_map = {{0, 100000, 4294867295}};
    d.private_network = true;
    d.capability_policy = xml::CapabilityPolicy::deny;
    d.capabilities_on.add(*CapabilitySet::number("mknod"));
    d.capabilities_on.add(*CapabilitySet::number("chown"));
    d.capabilities_off.add(*CapabilitySet::number("wake_alarm"));
    d.clock = xml::Clock::localtime;
    d.on_poweroff = xml::Action::preserve;
    d.on_reboot = xml::Action::rename_restart;
    d.on_crash = xml::Action::coredump_restart;
    d.emulator = "/usr/libexec/libvirt_lxc";
    d.disks = {{"/dev/mapper/a", "vda", false}, {"/dev/sdf", "sd_1", true}};
    d.filesystems = {{xml::Filesystem::Type::mount, "/", 0, "/", true},
                     {xml::Filesystem::Type::ram, "", 8192, "/run", false},
                     {xml::Filesystem::Type::mount, "/srv/'\"&<>", 0, "/mnt/both \"'", false},
                     {xml::Filesystem::Type::mount, "/it's", 0, "/mnt/it's", true},
                     {xml::Filesystem::Type::bind, "/etc", 0, "/mnt/etc", true},
                     {xml::Filesystem::Type::block, "/dev/vg/data", 0, "/mnt/block", false},
                     {xml::Filesystem::Type::file, "/srv/a.img", 0, "/mnt/file", true}};
    xml::Interface net;
    net.link_up = true;
    net.network.bridge = "br0";
    net.network.name = "eth7";
    net.network.host_name = "vweb";
    net.network.mac = MacAddress::parse("00:11:22:34:34:34");
    net.network.addresses = {*IpPrefix::parse("192.168.122.2/24"), *IpPrefix::parse("fd00::2/64")};
    net.network.routes = {{*IpPrefix::parse("0.0.0.0/0"), IpAddress::parse("192.168.122.1"), 0},
                          {*IpPrefix::parse("10.0.0.0/8"), IpAddress::parse("192.168.122.9"), 5},
                          {*IpPrefix::parse("::/0"), IpAddress::parse("fd00::1"), 0},
                          {*IpPrefix::parse("0.0.0.0/1"), IpAddress::parse("192.168.122.1"), 4294967295}};
    net.network.mtu = 1400;
    net.network.isolated = true;
    d.interfaces = {net, xml::Interface{}};
    d.interfaces.back().network.bridge = "br-1.x_y";
    d.host_devices = {{xml::HostDevice::Type::storage, "/dev/sdf1"}, {xml::HostDevice::Type::misc, "/dev/net/tun"}};
    return d;
}

}  // namespace

TEST_CASE("each kind of file system is written as libvirt writes it, and taken with less") {
    const auto written = [](std::string_view devices) {
        const std::string text = xml::dump(xml::parse(domain_with(devices)));
        const std::size_t at = text.find("    <filesystem");
        return text.substr(at, text.find("    <console") - at);
    };
    CHECK(written("<filesystem type='bind'><source dir='/a'/><target dir='/b'/></filesystem>") ==
          "    <filesystem type='bind' accessmode='passthrough'>\n"
          "      <source dir='/a'/>\n"
          "      <target dir='/b'/>\n"
          "    </filesystem>\n");
    CHECK(written("<filesystem type='block'><source dev='/dev/vda1'/><target dir='/'/><readonly/></filesystem>") ==
          "    <filesystem type='block' accessmode='passthrough'>\n"
          "      <source dev='/dev/vda1'/>\n"
          "      <target dir='/'/>\n"
          "      <readonly/>\n"
          "    </filesystem>\n");
    const std::string file =
        "    <filesystem type='file' accessmode='passthrough'>\n"
        "      <driver type='loop' format='raw'/>\n"
        "      <source file='/a.img'/>\n"
        "      <target dir='/'/>\n"
        "    </filesystem>\n";
    for (const char* driver : {"", "<driver/>", "<driver type='loop'/>", "<driver format='raw'/>"}) {
        CHECK(written("<filesystem type='file'>" + std::string{driver} +
                      "<source file='/a.img'/><target dir='/'/></filesystem>") == file);
    }
    CHECK(written(file) == file);
}

TEST_CASE("the walk-through's document is read as it means it") {
    const xml::Domain d = xml::parse(caisson_test::walk_through);
    CHECK(d.name == "mycontainer");
    CHECK(d.memory_kib == 500000);
    CHECK(d.current_memory_kib == 500000);
    CHECK(d.vcpus == 1);
    CHECK(d.arch == xml::Domain::host_arch());
    CHECK(d.init == "/sbin/init");
    CHECK(d.clock == xml::Clock::utc);
    CHECK(d.on_poweroff == xml::Action::destroy);
    CHECK(d.on_reboot == xml::Action::restart);
    CHECK(d.on_crash == xml::Action::destroy);
    REQUIRE(d.filesystems.size() == 1);
    CHECK(d.filesystems[0] == xml::Filesystem{xml::Filesystem::Type::mount, "/root/mycontainer", 0, "/", false});
    REQUIRE(d.interfaces.size() == 1);
    CHECK(d.interfaces[0].network.bridge == "br0");
    CHECK(d.interfaces[0].network.mac == MacAddress::parse("00:11:22:34:34:34"));
}

TEST_CASE("the walk-through's document is written in libvirt's form") {
    xml::Domain d = xml::parse(caisson_test::walk_through);
    d.uuid = *xml::Uuid::parse("8369f1ac-7e46-e869-4ca5-759d51478066");
    d.arch = "x86_64";
    const std::string expected = R"(<domain type='lxc'>
  <name>mycontainer</name>
  <uuid>8369f1ac-7e46-e869-4ca5-759d51478066</uuid>
  <memory unit='KiB'>500000</memory>
  <currentMemory unit='KiB'>500000</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='x86_64'>exe</type>
    <init>/sbin/init</init>
  </os>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <filesystem type='mount' accessmode='passthrough'>
      <source dir='/root/mycontainer'/>
      <target dir='/'/>
    </filesystem>
    <interface type='bridge'>
      <mac address='00:11:22:34:34:34'/>
      <source bridge='br0'/>
    </interface>
    <console type='pty'>
      <target type='lxc' port='0'/>
    </console>
  </devices>
</domain>
)";
    if (xml::Domain::host_arch() != "x86_64") CAISSON_SKIP("the document is an x86_64 machine's");
    CHECK(xml::dump(d) == expected);
}

TEST_CASE("the walk-through's live document is read, less what only a running domain has") {
    if (xml::Domain::host_arch() != "x86_64") CAISSON_SKIP("the document is an x86_64 machine's");
    const xml::Domain d = xml::parse(caisson_test::live_walk_through);
    CHECK(d.uuid.str() == "8369f1ac-7e46-e869-4ca5-759d51478066");
    CHECK(d.arch == "i686");
    xml::Domain same = xml::parse(caisson_test::walk_through);
    same.uuid = d.uuid;
    same.arch = d.arch;
    same.interfaces.clear();
    CHECK(d == same);
}

TEST_CASE("a live domain shows its id and its console, and is read back as the same domain") {
    xml::Domain d = full_domain();
    d.consoles = {{"/var/log/web", true}, {"/var/log/web-2", false}, {}};
    const std::string text = xml::dump(d, xml::Live{28407, {"/dev/pts/22", "/dev/pts/23"}});
    CHECK(text.starts_with("<domain type='lxc' id='28407'>\n"));
    CHECK(text.find("    <console type='pty' tty='/dev/pts/22'>\n"
                    "      <source path='/dev/pts/22'/>\n"
                    "      <log file='/var/log/web' append='on'/>\n"
                    "      <target type='lxc' port='0'/>\n    </console>\n    <console type='pty'>\n"
                    "      <source path='/dev/pts/23'/>\n"
                    "      <log file='/var/log/web-2'/>\n"
                    "      <target type='lxc' port='1'/>\n"
                    "    </console>\n"
                    "    <console type='pty'>\n"
                    "      <target type='lxc' port='2'/>\n") != std::string::npos);
    CHECK(xml::parse(text) == d);
}

TEST_CASE("what is written is read back as the same domain") {
    for (const xml::Domain& d : {full_domain(), xml::parse(caisson_test::walk_through),
                                 xml::parse(domain_with("", "<features/><clock offset='utc'/>"))}) {
        CHECK(xml::parse(xml::dump(d)) == d);
    }
}

TEST_CASE("what is written is valid against libvirt's schema") {
    if (::access("/usr/bin/virt-xml-validate", X_OK) != 0) CAISSON_SKIP("virt-xml-validate is not installed");
    xml::Domain full = full_domain();
    full.capability_policy = xml::CapabilityPolicy::allow;
    xml::Domain plain = full_domain();
    plain.consoles = {{"/var/log/web", true}, {}};
    plain.capability_policy = xml::CapabilityPolicy::standard;
    plain.capabilities_on = plain.capabilities_off = CapabilitySet{};
    plain.limits = {.cpu_quota = LimitSpec::unlimited, .memory_nodes = "3"};
    plain.numa_mode = xml::NumaMode::strict;
    const std::optional<xml::Live> live = xml::Live{28407, {"/dev/pts/22"}};
    const std::string initdir =
        domain_with("", "", "<memory>1</memory>", "<os><type>exe</type><initdir>/</initdir></os>");
    CHECK(xml::parse(initdir).init_directory.empty());
    for (const std::string& text :
         {xml::dump(xml::parse(caisson_test::walk_through)), xml::dump(xml::parse(caisson_test::walk_through), live),
          xml::dump(full), xml::dump(plain, live), xml::dump(xml::parse(initdir))}) {
        const TemporaryFile file{text};
        const std::string command =
            std::string{"/usr/bin/virt-xml-validate "} + file.path() + " domain >/dev/null 2>&1";
        INFO(text);
        CHECK(std::system(command.c_str()) == 0);
    }
}

TEST_CASE("a domain that no document says is not written") {
    const auto message = [](auto&& change) {
        xml::Domain d = full_domain();
        change(d);
        try {
            (void)xml::dump(d);
        } catch (const Error& e) {
            CHECK(e.step() == Step::check_spec);
            return std::string{e.what()};
        }
        return std::string{"written"};
    };
    CHECK(message([](xml::Domain& d) { d.memory_kib = 0; }) ==
          "write the domain 'web.1' as XML: <dump>:11: <memory> is '0': it must be a decimal number from 1 to "
          "18446744073709551615");
    CHECK(message([](xml::Domain& d) { d.init_arguments = {"a\x01"}; }) ==
          "write the domain 'web.1' as XML: <dump>:48: the character U+0001 is not allowed in XML");
    for (const auto& change :
         {+[](LimitSpec& l) { l.pids = 5; }, +[](LimitSpec& l) { l.memory = 7 * 1024 - 1; },
          +[](LimitSpec& l) { l.memory_and_swap = std::uint64_t{1} << 63; }, +[](LimitSpec& l) { l.cpus = "0,1"; },
          +[](LimitSpec& l) { l.block[0].device += '/'; }}) {
        CHECK(message([&](xml::Domain& d) { change(d.limits); }) ==
              "write the domain 'web.1' as XML: it would be read back as another one");
    }
    CHECK(message([](xml::Domain& d) { d.filesystems[1].target = "/a//b"; }) ==
          "write the domain 'web.1' as XML: it would be read back as another one");
    CHECK(message([](xml::Domain& d) {
              d.name = "x'><evil/>";
          }).starts_with("write the domain 'x'><evil/>' as XML: <dump>:2: <name> is "));
}

TEST_CASE("a security label is read with the words that libvirt adds to a running domain's") {
    const xml::Domain d = xml::parse(
        domain_with("",
                    "<seclabel type='none' model='dac'/><seclabel type='static' model='apparmor' relabel='no'>"
                    "<label>caisson-web</label><imagelabel>caisson-web</imagelabel></seclabel>"));
    CHECK(d.security_label == xml::SecurityLabel{xml::SecurityLabel::Model::apparmor, "caisson-web"});
    CHECK(xml::parse(xml::dump(d)) == d);
    CHECK_FALSE(xml::parse(domain_with("", "<seclabel type='none'/>")).security_label);
}

TEST_CASE("a missing uuid is made up") {
    const xml::Domain a = xml::parse(caisson_test::walk_through);
    const xml::Domain b = xml::parse(caisson_test::walk_through);
    CHECK(a.uuid != b.uuid);
    CHECK(a.uuid != xml::Uuid{});
    CHECK(a.uuid.str()[14] == '4');
}

TEST_CASE("a uuid is read from its two forms alone and written in lower case") {
    const char* const canonical = "8369f1ac-7e46-e869-4ca5-759d51478066";
    CHECK(xml::Uuid::parse(canonical)->str() == canonical);
    CHECK(xml::Uuid::parse("8369F1AC7E46E8694CA5759D51478066")->str() == canonical);
    for (const char* wrong : {"", "8369f1ac-7e46-e869-4ca5-759d5147806", "8369f1ac-7e46-e869-4ca5-759d514780667",
                              "8369f1ac-7e46-e869-4ca5-759d5147806g", "8369f1ac7-e46-e869-4ca5-759d51478066",
                              "8369f1ac7e46-e869-4ca5-759d514780661", " 369f1ac-7e46-e869-4ca5-759d51478066",
                              "8369f1ac-7e46-e869-4ca5--59d51478066", "{369f1ac-7e46-e869-4ca5-759d5147806}"}) {
        CAPTURE(wrong);
        CHECK_FALSE(xml::Uuid::parse(wrong).has_value());
    }
}

TEST_CASE("memory is taken in every unit of libvirt's, rounded up to KiB") {
    const struct {
        const char* text;
        std::uint64_t kib;
    } rows[] = {{"<memory>1</memory>", 1},
                {"<memory unit='KiB'>1</memory>", 1},
                {"<memory unit='k'>3</memory>", 3},
                {"<memory unit='b'>1</memory>", 1},
                {"<memory unit='bytes'>1024</memory>", 1},
                {"<memory unit='byte'>1025</memory>", 2},
                {"<memory unit='KB'>1024</memory>", 1000},
                {"<memory unit='kb'>1</memory>", 1},
                {"<memory unit='M'>2</memory>", 2048},
                {"<memory unit='MiB'>2</memory>", 2048},
                {"<memory unit='MB'>1</memory>", 977},
                {"<memory unit='G'>1</memory>", 1048576},
                {"<memory unit='GiB'>1</memory>", 1048576},
                {"<memory unit='GB'>1</memory>", 976563},
                {"<memory unit='T'>1</memory>", 1073741824},
                {"<memory unit='tib'>1</memory>", 1073741824},
                {"<memory unit='TB'>1</memory>", 976562500},
                {"<memory unit='P'>1</memory>", 1099511627776},
                {"<memory unit='EiB'>15</memory>", 16888498602639360},
                {"<memory unit='EB'>18</memory>", 17578125000000000},
                {"<memory unit='KiB'>18014398509481983</memory>", 18014398509481983},
                {"<memory unit='b'>18446744073709550592</memory>", 18014398509481983}};
    for (const auto& row : rows) {
        CAPTURE(row.text);
        CHECK(xml::parse(domain_with("", "", row.text)).memory_kib == row.kib);
    }
}

TEST_CASE("currentMemory is at most memory") {
    const auto current = [](const char* text) { return xml::parse(domain_with("", text)).current_memory_kib; };
    CHECK(current("") == 500000);
    CHECK(current("<currentMemory>499999</currentMemory>") == 499999);
    CHECK(current("<currentMemory unit='KB'>512000</currentMemory>") == 500000);
}

TEST_CASE("limits are written where and as libvirt writes them") {
    const std::string text = xml::dump(xml::parse(
        domain_with("",
                    "<resource><partition>/machine//x/</partition></resource>"
                    "<numatune><memory nodeset='0' placement='static'/></numatune>"
                    "<cputune><quota>-1</quota><period>20000</period><shares>512</shares></cputune>"
                    "<vcpu cpuset='0-3,^1,7,^9,2,5-5'>1</vcpu>"
                    "<memtune><swap_hard_limit>600000</swap_hard_limit><soft_limit unit='b'>1025</soft_limit>"
                    "<hard_limit unit='M'>90</hard_limit></memtune>"
                    "<blkiotune><device><path>/dev//vda</path><write_bytes_sec>4</write_bytes_sec>"
                    "<read_bytes_sec>0</read_bytes_sec><write_iops_sec>2</write_iops_sec>"
                    "<read_iops_sec>1</read_iops_sec><weight>300</weight></device>"
                    "<device><path>/dev/vdb</path></device><weight>250</weight></blkiotune>")));
    const std::size_t at = text.find("  <blkiotune");
    CHECK(text.substr(at, text.find("  <os>") - at) == R"(  <blkiotune>
    <weight>250</weight>
    <device>
      <path>/dev/vda</path>
      <weight>300</weight>
      <read_iops_sec>1</read_iops_sec>
      <write_iops_sec>2</write_iops_sec>
      <write_bytes_sec>4</write_bytes_sec>
    </device>
  </blkiotune>
  <memtune>
    <hard_limit unit='KiB'>92160</hard_limit>
    <soft_limit unit='KiB'>2</soft_limit>
    <swap_hard_limit unit='KiB'>600000</swap_hard_limit>
  </memtune>
  <vcpu placement='static' cpuset='0,2-3,5,7'>1</vcpu>
  <cputune>
    <shares>512</shares>
    <period>20000</period>
    <quota>-1</quota>
  </cputune>
  <numatune>
    <memory mode='strict' nodeset='0'/>
  </numatune>
  <resource>
    <partition>/machine/x</partition>
  </resource>
)");
    const xml::Domain none = xml::parse(
        domain_with("",
                    "<memtune><hard_limit>9007199254740991</hard_limit><soft_limit unit='EiB'>15</soft_limit>"
                    "</memtune><blkiotune/><cputune/><numatune/>"));
    CHECK(none.limits == LimitSpec{});
    CHECK(xml::dump(none).find("tune") == std::string::npos);
}

TEST_CASE("text is taken whole, around comments and from CDATA") {
    const xml::Domain d =
        xml::parse(domain_with("", "<description>a<!-- b -->c<![CDATA[<&>]]>&lt;&#65;&#x42;</description>"));
    CHECK(d.description == "ac<&><AB");
}

TEST_CASE("an id map is sorted as libvirt does") {
    const xml::Domain d =
        xml::parse(domain_with("",
                               "<idmap><uid start='10' target='5' count='5'/><uid start='0' target='100' count='10'/>"
                               "<gid start='0' target='0' count='1'/></idmap>"));
    CHECK(d.uid_map == std::vector<IdMap>{{0, 100, 10}, {10, 5, 5}});
    CHECK(d.gid_map == std::vector<IdMap>{{0, 0, 1}});
}

TEST_CASE("an address without a prefix gets libvirt's") {
    const xml::Domain d = xml::parse(domain_with(R"(<interface type='bridge'><source bridge='b'/>
        <ip address='10.1.2.3'/><ip address='172.16.0.1'/><ip address='192.168.0.1'/><ip address='fd00::1'/>
        <route address='0.0.0.0' gateway='10.0.0.1'/><route address='10.0.0.0' gateway='10.0.0.1'/>
        <route address='10.8.0.0' netmask='255.248.0.0' gateway='10.0.0.1'/>
        <route family='ipv6' address='::' gateway='fd00::2'/></interface>)"));
    const NetworkSpec& net = d.interfaces.at(0).network;
    std::string all;
    for (const IpPrefix& ip : net.addresses) all += ip.str() + " ";
    for (const RouteSpec& route : net.routes) all += route.destination.str() + " ";
    CHECK(all == "10.1.2.3/8 172.16.0.1/16 192.168.0.1/24 fd00::1/64 0.0.0.0/0 10.0.0.0/8 10.8.0.0/13 ::/0 ");
}

TEST_CASE("paths are taken without doubled and trailing slashes") {
    const xml::Domain d = xml::parse(domain_with("<filesystem><source dir='//'/><target dir='/a//b/'/></filesystem>"));
    CHECK(d.filesystems.at(0).source == "/");
    CHECK(d.filesystems.at(0).target == "/a/b");
}

TEST_CASE("a file is loaded under its name") {
    const TemporaryFile good{std::string{caisson_test::walk_through}};
    CHECK(xml::load(good.path()).name == "mycontainer");
    const TemporaryFile bad{"<domain type='lxc'>\n<x/></domain>"};
    try {
        (void)xml::load(bad.path());
        FAIL("loaded");
    } catch (const xml::XmlError& e) {
        CHECK(std::string{e.what()} == std::string{bad.path()} + ":2: unknown element <x> in <domain>");
        CHECK(e.file() == bad.path());
        CHECK(e.line() == 2);
        CHECK(e.step() == Step::read_xml);
    }
}

TEST_CASE("what applications keep in a document is found by its namespace, replaced and taken out") {
    const std::string kept = domain_with("", R"(<metadata>
  <app:site xmlns:app='urn:app' n="1"> <!-- one --> <app:port app:tls='no'>80</app:port><plain/> </app:site>
  <b xmlns='urn:b'>text</b></metadata>)");
    xml::Domain domain = xml::parse(kept);
    REQUIRE(domain.metadata.size() == 2);
    CHECK(xml::metadata_of(domain, "urn:app") ==
          "<site n=\"1\">\n  <port app:tls=\"no\">80</port>\n  <plain/>\n</site>");
    CHECK(xml::metadata_of(domain, "urn:b") == "<b>text</b>");
    CHECK(xml::metadata_of(domain, "urn:c") == std::nullopt);

    xml::set_metadata(domain, "urn:b", "key", "<a c='1'>\n  <b>x</b>\n</a>");
    CHECK(domain.metadata.back().xml == R"(<key:a xmlns:key="urn:b" c="1"><key:b>x</key:b></key:a>)");
    CHECK(xml::metadata_of(domain, "urn:b") == "<a c=\"1\">\n  <b>x</b>\n</a>");
    CHECK(xml::dump(domain).find("<metadata>\n    <app:site") != std::string::npos);
    CHECK(xml::dump(domain).find("\n    <key:a xmlns:key=\"urn:b\" c=\"1\">\n      <key:b>x</key:b>\n    </key:a>") !=
          std::string::npos);
    CHECK(xml::parse(xml::dump(domain)) == domain);
    std::erase_if(domain.metadata, [](const xml::Metadata& m) { return m.uri == "urn:app"; });
    CHECK(xml::parse(xml::dump(domain)).metadata.size() == 1);

    const auto refusal = [&](std::string_view uri, std::string_view key, std::string_view element) {
        try {
            xml::set_metadata(domain, uri, key, element);
        } catch (const Error& e) {
            return std::string{e.what()};
        }
        return std::string{"taken"};
    };
    CHECK(refusal("", "k", "<a/>") == "metadata of domain 'web': the namespace is empty: give a URI of your own");
    CHECK(refusal("u", "1", "<a/>") ==
          "metadata of domain 'web': the key '1' is no prefix of a namespace: give a letter and letters, digits, '-', "
          "'_' and '.', not beginning with 'xml'");
    CHECK(refusal("u", "k", "<a xmlns='v'/>") ==
          "metadata of domain 'web': <a> has a namespace already: leave it out: the URI and the key stand for it");
    CHECK(refusal("u", "k", "<a").starts_with("<metadata>:1: "));
    CHECK(refusal("u", "k", "<a/><b/>").starts_with("<metadata>:1: "));
}
