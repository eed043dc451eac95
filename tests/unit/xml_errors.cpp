// What a document says that is not taken: each with its line.
#include <caisson/xml.hpp>

#include <string>
#include <vector>

#include "support/doctest.hpp"
#include "support/documents.hpp"

using namespace caisson;
using caisson_test::domain_with;

namespace {

std::string message(std::string_view text) {
    try {
        (void)xml::parse(text, "x.xml");
    } catch (const xml::XmlError& e) {
        return e.what();
    }
    return "taken";
}

struct Row {
    std::string_view piece;
    std::string_view expected;
};

void check_devices(const std::vector<Row>& rows) {
    for (const Row& row : rows) CHECK(message(domain_with(row.piece)) == row.expected);
}
void check_extra(const std::vector<Row>& rows) {
    for (const Row& row : rows) CHECK(message(domain_with("", row.piece)) == row.expected);
}
void check_memory(const std::vector<Row>& rows) {
    for (const Row& row : rows) CHECK(message(domain_with("", "", row.piece)) == row.expected);
}
void check_os(const std::vector<Row>& rows) {
    for (const Row& row : rows) CHECK(message(domain_with("", "", "<memory>1</memory>", row.piece)) == row.expected);
}
void check_whole(const std::vector<Row>& rows) {
    for (const Row& row : rows) CHECK(message(row.piece) == row.expected);
}

}  // namespace

TEST_CASE("what nobody knows and what only libvirt knows are different messages") {
    check_extra({
        {"<metadata><app:a/></metadata>", "x.xml:5: <app:a> in <metadata> must say its namespace: xmlns:app='URI'"},
        {"<metadata><a xmlns=''/></metadata>", "x.xml:5: <a> in <metadata> must say its namespace: xmlns='URI'"},
        {"<metadata><a xmlns='u'/>\n<b:c xmlns:b='u'/></metadata>",
         "x.xml:6: a second element of the namespace 'u' in <metadata>: the first is in line 5"},
        {"<metadata>x</metadata>", "x.xml:5: unexpected text in <metadata>"},
        {"<cputun/>", "x.xml:5: unknown element <cputun> in <domain>"},
        {"<sysinfo/>", "x.xml:5: <sysinfo> is libvirt's, but caisson does not support it yet"},
        {"\n<memtune><min_guarantee>1</min_guarantee></memtune>",
         "x.xml:6: <min_guarantee> is libvirt's, but caisson does not support it yet"},
        {"<seclabel type='dynamic'/>",
         "x.xml:5: <seclabel type='dynamic'> is libvirt's, but caisson does not support it yet"},
        {"<resource><fibrechannel appid='x'/></resource>",
         "x.xml:5: <fibrechannel> is libvirt's, but caisson does not support it yet"},
        {"<lxc:namespace/>", "x.xml:5: <lxc:namespace> is libvirt's, but caisson does not support it yet"},
        {"<qemu:commandline/>", "x.xml:5: <qemu:commandline> is libvirt's, but caisson does not support it yet"},
        {"<qemu:commandlin/>", "x.xml:5: unknown element <qemu:commandlin> in <domain>"},
        {"<features><ps2 state='off'/></features>", "x.xml:5: <ps2> is libvirt's, but caisson does not support it yet"},
        {"<features><apic eoi='on'/></features>",
         "x.xml:5: attribute 'eoi' of <apic> is libvirt's, but caisson does not support it yet"},
        {"<features><capabilities><bpf/></capabilities></features>",
         "x.xml:5: unknown element <bpf> in <capabilities>"},
        {"<features><privnet x='y'/></features>", "x.xml:5: unknown attribute 'x' of <privnet>"},
        {"<clock offset='utc'><timer name='rtc'/></clock>",
         "x.xml:5: <timer> is libvirt's, but caisson does not support it yet"},
        {"<clock offset='variable'/>",
         "x.xml:5: <clock offset='variable'> is libvirt's, but caisson does not support it yet"},
        {"<clock offset='mars'/>", "x.xml:5: attribute 'offset' of <clock> is 'mars': it must be 'utc' or 'localtime'"},
        {"<clock\n\noffset='mars'/>",
         "x.xml:7: attribute 'offset' of <clock> is 'mars': it must be 'utc' or 'localtime'"},
        {"<clock/>", "x.xml:5: <clock> needs the attribute 'offset'"},
        {"<on_reboot>stop</on_reboot>",
         "x.xml:5: <on_reboot> is 'stop': it must be 'destroy', 'restart', 'preserve' or 'rename-restart'"},
        {"<on_reboot>coredump-restart</on_reboot>",
         "x.xml:5: <on_reboot> is 'coredump-restart': it must be 'destroy', 'restart', 'preserve' or 'rename-restart'"},
        {"<vcpu placement='auto'>1</vcpu>",
         "x.xml:5: <vcpu placement='auto'> is libvirt's, but caisson does not support it yet"},
        {"<vcpu\n current='1'>1</vcpu>",
         "x.xml:6: attribute 'current' of <vcpu> is libvirt's, but caisson does not support it yet"},
        {"<vcpu cpus='0-3'>1</vcpu>", "x.xml:5: unknown attribute 'cpus' of <vcpu>"},
    });
    check_devices({
        {"<emulator>/</emulator>", "x.xml:6: <emulator> is '/': it must be the path of a program"},
        {"<hostdev mode='subsystem' type='usb'/>",
         "x.xml:6: <hostdev mode='subsystem'> is libvirt's, but caisson does not support it yet"},
        {"<hostdev mode='capabilities' type='net'/>",
         "x.xml:6: <hostdev type='net'> is libvirt's, but caisson does not support it yet"},
        {"<hostdev mode='capabilities'/>", "x.xml:6: <hostdev> needs the attribute 'type'"},
        {"<hostdev type='misc'/>", "x.xml:6: <hostdev> needs the attribute 'mode'"},
        {"<hostdev mode='capabilities' type='misc'/>", "x.xml:6: <hostdev> needs the element <source>"},
        {"<hostdev mode='capabilities' type='misc'><source/></hostdev>", "x.xml:6: <source> needs the element <char>"},
        {"<hostdev mode='capabilities' type='misc'><source><block>/dev/x</block></source></hostdev>",
         "x.xml:6: <block> is not for <hostdev type='misc'>"},
        {"<hostdev mode='capabilities' type='storage'><source><block>/</block></source></hostdev>",
         "x.xml:6: <block> is '/': it must be the path of a device"},
        {"<hostdev mode='capabilities' type='misc'><source><char>/dev/x</char></source></hostdev>"
         "<hostdev mode='capabilities' type='misc'><source><char>/dev//x</char></source></hostdev>",
         "x.xml:6: a second <hostdev> of '/dev/x': the first is in line 6"},
        {"<interface type='bridge'><source bridge='b'/><port/></interface>",
         "x.xml:6: <port> needs the attribute 'isolated'"},
        {"<interface type='bridge'><source bridge='b'/><port isolated='maybe'/></interface>",
         "x.xml:6: attribute 'isolated' of <port> is 'maybe': it must be 'yes' or 'no'"},
        {"<filesystem type='template'/>",
         "x.xml:6: <filesystem type='template'> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='volume'/>",
         "x.xml:6: <filesystem type='volume'> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='file'><driver type='nbd' format='qcow2'/></filesystem>",
         "x.xml:6: <driver type='nbd'> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='file'><driver type='loop' format='qcow2'/></filesystem>",
         "x.xml:6: <driver format='qcow2'> is libvirt's, but caisson does not support it yet"},
        {"<filesystem><driver type='path' wrpolicy='immediate'/></filesystem>",
         "x.xml:6: <driver type='path'> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='file'><driver type='loop' wrpolicy='immediate'/></filesystem>",
         "x.xml:6: attribute 'wrpolicy' of <driver> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='file'><driver type='tape'/></filesystem>",
         "x.xml:6: attribute 'type' of <driver> is 'tape': it must be 'loop'"},
        {"<filesystem type='nfs'/>",
         "x.xml:6: attribute 'type' of <filesystem> is 'nfs': it must be 'mount', 'bind', 'block', 'file' or 'ram'"},
        {"<filesystem type='mount ram'/>",
         "x.xml:6: attribute 'type' of <filesystem> is 'mount ram': it must be 'mount', 'bind', 'block', 'file' or "
         "'ram'"},
        {"<filesystem accessmode='squash'/>",
         "x.xml:6: <filesystem accessmode='squash'> is libvirt's, but caisson does not support it yet"},
        {"<interface type='direct'>\n<source dev='eth0'/></interface>",
         "x.xml:6: <interface type='direct'> is libvirt's, but caisson does not support it yet"},
        {"<interface type=''/>", "x.xml:6: attribute 'type' of <interface> is '': it must be 'bridge'"},
        {"<interface type='bridge'><source bridge='b'/><link state='down'/></interface>",
         "x.xml:6: <link state='down'> is libvirt's, but caisson does not support it yet"},
        {"<console type='file'/>", "x.xml:6: <console type='file'> is libvirt's, but caisson does not support it yet"},
        {"<console><log file='/l'/></console>\n<console><log file='/l'/></console>",
         "x.xml:7: a second <log> with the file '/l': the first is in line 6"},
        {"<console/>\n<console><target port='0'/></console>",
         "x.xml:7: attribute 'port' of <target> is '0': it must be a decimal number from 1 to 1"},
        {"<console><target port='1'/></console>",
         "x.xml:6: attribute 'port' of <target> is '1': it must be a decimal number from 0 to 0"},
    });
}

TEST_CASE("the root must be a domain of type lxc with name, memory and os") {
    check_whole({
        {"\n<network/>", "x.xml:2: the root element is <network>: it must be <domain>"},
        {"<domain/>", "x.xml:1: <domain> needs the attribute 'type'"},
        {"<domain type='qemu'/>", "x.xml:1: <domain type='qemu'> is libvirt's, but caisson does not support it yet"},
        {"<domain type='kvm'\nxmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' colour='red'/>",
         "x.xml:1: <domain type='kvm'> is libvirt's, but caisson does not support it yet"},
        {"<domain type='lxc'\nxmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'/>",
         "x.xml:2: attribute 'xmlns:qemu' of <domain> is libvirt's, but caisson does not support it yet"},
        {"<domain type='docker'/>", "x.xml:1: attribute 'type' of <domain> is 'docker': it must be 'lxc'"},
        {"<domain type='lxc' colour='red'/>", "x.xml:1: unknown attribute 'colour' of <domain>"},
        {"<domain type='lxc'>\n</domain>", "x.xml:1: <domain> needs the element <name>"},
        {"<domain type='lxc'><name>a</name></domain>", "x.xml:1: <domain> needs the element <memory>"},
        {"<domain type='lxc'><name>a</name><memory>1</memory></domain>", "x.xml:1: <domain> needs the element <os>"},
        {"<domain type='lxc'>\nhello<name>a</name></domain>", "x.xml:2: unexpected text in <domain>"},
        {"<domain type='lxc' xmlns:lxc='http://libvirt.org/schemas/domain/lxc/1.0'/>",
         "x.xml:1: attribute 'xmlns:lxc' of <domain> is libvirt's, but caisson does not support it yet"},
    });
}

TEST_CASE("the id of a running domain is a number") {
    const auto with_id = [](const std::string& id) {
        return message("<domain type='lxc' id='" + id +
                       "'>\n<name>a</name><memory>1</memory><os><type>exe</type></os></domain>");
    };
    CHECK(with_id("28407") == "taken");
    for (const std::string wrong : {"", "-1", "+1", "0x1", "a", "2147483648", "99999999999999999999"}) {
        CHECK(with_id(wrong) == "x.xml:1: attribute 'id' of <domain> is '" + wrong +
                                    "': it must be a decimal number from 0 to 2147483647");
    }
}

TEST_CASE("a long value is shown by its beginning, in whole characters") {
    CHECK(message("<domain type='lxc'>\n<name>" + std::string(98, 'a') + "\xc3\xa9</name></domain>")
              .starts_with("x.xml:2: <name> is '" + std::string(98, 'a') + "\xc3\xa9': "));
    CHECK(message("<domain type='lxc'>\n<name>" + std::string(99, 'a') + "\xc3\xa9</name></domain>")
              .starts_with("x.xml:2: <name> is '" + std::string(99, 'a') + "'...: "));
}

TEST_CASE("hostile names are refused") {
    constexpr std::string_view must =
        "': it must be 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit";
    for (const char* name : {"", ".", "..", "a/b", "../x", "-a", "a b", " a", "a ", "a\nb", "a'b", "a;b", "\xc3\xa9",
                             "0123456789012345678901234567890123456789012345678901234567890123"}) {
        CAPTURE(name);
        const std::string text = "<domain type='lxc'>\n<name>" + std::string{name} +
                                 "</name><memory>1</memory><os><type>exe</type></os></domain>";
        CHECK(message(text) == "x.xml:2: <name> is " + detail::quote(name) + std::string{must.substr(1)});
    }
}

TEST_CASE("memory is a positive number below 2^64 bytes") {
    constexpr const char* number = "it must be a decimal number from 1 to 18446744073709551615";
    for (const char* wrong : {"", "0", "-1", "+1", " 1", "1 ", "1.5", "1e30", "0x10", "010", "12abc", "1,000",
                              "18446744073709551616", "99999999999999999999999999"}) {
        CAPTURE(wrong);
        CHECK(message(domain_with("", "", "<memory>" + std::string{wrong} + "</memory>")) ==
              "x.xml:3: <memory> is '" + std::string{wrong} + "': " + number);
    }
    check_memory({
        {"<memory>18014398509481984</memory>",
         "x.xml:3: <memory> is '18014398509481984': it must be less than 2^64 bytes, and its unit is 'KiB'"},
        {"<memory unit='b'>18446744073709550593</memory>",
         "x.xml:3: <memory> is '18446744073709550593': it must be less than 2^64 bytes, and its unit is 'b'"},
        {"<memory unit='EiB'>16</memory>",
         "x.xml:3: <memory> is '16': it must be less than 2^64 bytes, and its unit is 'EiB'"},
        {"<memory unit='EiB'>18446744073709551615</memory>",
         "x.xml:3: <memory> is '18446744073709551615': it must be less than 2^64 bytes, and its unit is 'EiB'"},
        {"<memory unit='Kib '>1</memory>",
         "x.xml:3: attribute 'unit' of <memory> is 'Kib ': it must be 'bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', "
         "'EiB' or "
         "'KB', 'MB', 'GB', 'TB', 'PB', 'EB'"},
        {"<memory dumpCore='off'>1</memory>",
         "x.xml:3: attribute 'dumpCore' of <memory> is libvirt's, but caisson does not support it yet"},
        {"<memory>1<x/></memory>", "x.xml:3: unknown element <x> in <memory>"},
        {"<memory>1</memory>\n<memory>2</memory>", "x.xml:4: a second <memory> in <domain>: the first is in line 3"},
    });
    check_extra({
        {"<currentMemory>0</currentMemory>",
         "x.xml:5: <currentMemory> is '0': it must be a decimal number from 1 to 18446744073709551615"},
        {"<vcpu>0</vcpu>", "x.xml:5: <vcpu> is '0': it must be a decimal number from 1 to 65535"},
        {"<vcpu>65536</vcpu>", "x.xml:5: <vcpu> is '65536': it must be a decimal number from 1 to 65535"},
        {"<vcpu>-1</vcpu>", "x.xml:5: <vcpu> is '-1': it must be a decimal number from 1 to 65535"},
        {"<uuid>1234</uuid>",
         "x.xml:5: <uuid> is '1234': it must be 32 hexadecimal digits, in groups of 8, 4, 4, 4 and 12 with '-' "
         "between"},
        {"<title>a\nb</title>", "x.xml:5: <title> has more than one line"},
    });
}

TEST_CASE("a security label is none, or a static one of the two modules that confine containers") {
    check_extra({
        {"<seclabel/>",
         "x.xml:5: <seclabel> without a type is type='dynamic', which is libvirt's, but caisson does not "
         "support it yet"},
        {"<seclabel type='none' model='selinux' relabel='no'/>", "taken"},
        {"<seclabel type='none' relabel='yes'/>",
         "x.xml:5: <seclabel relabel='yes'> is libvirt's, but caisson does not support it yet"},
        {"<seclabel type='none'><label>x</label></seclabel>", "x.xml:5: <label> is not for <seclabel type='none'>"},
        {"<seclabel type='static' model='selinux'>\n<baselabel>x</baselabel></seclabel>",
         "x.xml:6: <baselabel> is not for <seclabel type='static'>"},
        {"<seclabel type='static'><label>x</label></seclabel>", "x.xml:5: <seclabel> needs the attribute 'model'"},
        {"<seclabel type='static' model='apparmor'/>", "x.xml:5: <seclabel> needs the element <label>"},
        {"<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>",
         "x.xml:5: <seclabel model='dac'> is libvirt's, but caisson does not support it yet"},
        {"<seclabel type='static' model='smack'><label>x</label></seclabel>",
         "x.xml:5: attribute 'model' of <seclabel> is 'smack': it must be 'apparmor' or 'selinux'"},
        {"<seclabel type='static' model='apparmor'>\n<label>a b</label></seclabel>",
         "x.xml:6: <label> is 'a b': it must be 1 to 1024 characters of ASCII without white space"},
        {"<seclabel type='static' model='apparmor'><label/></seclabel>",
         "x.xml:5: <label> is '': it must be 1 to 1024 characters of ASCII without white space"},
        {"<seclabel type='static' model='apparmor'><label>x</label></seclabel>\n"
         "<seclabel type='static' model='selinux'><label>x</label></seclabel>",
         "x.xml:6: a second <seclabel type='static'>: a container has one label"},
    });
}

TEST_CASE("what starts init is checked") {
    constexpr const char* path = "it must be an absolute path without control characters, of at most 4095 bytes";
    check_os({
        {"<os/>", "x.xml:4: <os> needs the element <type>"},
        {"<os><type>hvm</type></os>", "x.xml:4: <type>hvm</type> is libvirt's, but caisson does not support it yet"},
        {"<os><type>exec</type></os>", "x.xml:4: <type> is 'exec': it must be 'exe'"},
        {"<os><type arch='s390x'>exe</type></os>",
         "x.xml:4: <type arch='s390x'> is libvirt's, but caisson does not support it yet"},
        {"<os><type>exe</type>\n<inituser>0</inituser></os>", "x.xml:5: <inituser> needs <initgroup> beside it"},
        {"<os><type>exe</type><initgroup>0</initgroup></os>", "x.xml:4: <initgroup> needs <inituser> beside it"},
        {"<os><type>exe</type><inituser>a b</inituser><initgroup>0</initgroup></os>",
         "x.xml:4: <inituser> is 'a b': it must be a name, of up to 32 letters, digits, '_' and '-', or a number from "
         "0 "
         "to 4294967294"},
        {"<os><type>exe</type><inituser>0</inituser>\n<initgroup>4294967295</initgroup></os>",
         "x.xml:5: <initgroup> is '4294967295': it must be a name, of up to 32 letters, digits, '_' and '-', or a "
         "number from 0 to 4294967294"},
        {"<os><type>exe</type><inituser>+x</inituser><initgroup>0</initgroup></os>",
         "x.xml:4: <inituser> is '+x': it must be a name, of up to 32 letters, digits, '_' and '-', or a number from 0 "
         "to 4294967294"},
        {"<os><type>exe</type><inituser/><initgroup>0</initgroup></os>",
         "x.xml:4: <inituser> is '': it must be a name, of up to 32 letters, digits, '_' and '-', or a number from 0 "
         "to "
         "4294967294"},
        {"<os><type>exe</type>\n<initarg/></os>", "x.xml:5: <initarg> is empty"},
        {"<os><type>exe</type><initenv>x</initenv></os>", "x.xml:4: <initenv> needs the attribute 'name'"},
        {"<os><type>exe</type><initenv name='A'/></os>", "x.xml:4: <initenv> is empty"},
        {"<os><type>exe</type><initenv name='A=B'>x</initenv></os>",
         "x.xml:4: attribute 'name' of <initenv> is 'A=B': it must be letters, digits and '_', the first no digit"},
        {"<os><type>exe</type><initenv name='1A'>x</initenv></os>",
         "x.xml:4: attribute 'name' of <initenv> is '1A': it must be letters, digits and '_', the first no digit"},
        {"<os><type>exe</type><initenv name='A'>x</initenv>\n<initenv name='A'>y</initenv></os>",
         "x.xml:5: a second <initenv name='A'>: the first is in line 4"},
        {"<os><type>exe</type>\n<type>exe</type></os>", "x.xml:5: a second <type> in <os>: the first is in line 4"},
        {"<os><type>exe</type><init>//</init></os>", "x.xml:4: <init> is '//': it must be the path of a program"},
        {"<os><type>exe</type><init>/a/../b</init></os>",
         "x.xml:4: <init> is '/a/../b': it must be a path without '.' and '..'"},
    });
    const auto with_strings = [](std::size_t argument, std::size_t variable) {
        return message(domain_with("", "", "<memory>1</memory>",
                                   "<os><type>exe</type>\n<initarg>" + std::string(argument, 'a') +
                                       "</initarg>\n<initenv name='AB'>" + std::string(variable, 'b') +
                                       "</initenv></os>"));
    };
    CHECK(with_strings(131071, 131068) == "taken");
    CHECK(with_strings(131072, 1) == "x.xml:5: <initarg> has 131072 bytes: 131071 are possible");
    CHECK(with_strings(1, 131069) == "x.xml:6: <initenv> has 131072 bytes: 131071 are possible");
    for (const char* wrong : {"", "sbin/init", "./init", " /sbin/init", "/sbin/in\nit", "/sbin/\tinit", "/a\x7f"}) {
        CAPTURE(wrong);
        const std::string os = "<os><type>exe</type><init>" + std::string{wrong} + "</init></os>";
        CHECK(message(domain_with("", "", "<memory>1</memory>", os)) ==
              "x.xml:4: <init> is " + detail::quote(wrong) + ": " + path);
    }
    const std::string longest = "/" + std::string(4094, 'a');
    const auto with_init = [](const std::string& init) {
        return domain_with("", "", "<memory>1</memory>", "<os><type>exe</type><init>" + init + "</init></os>");
    };
    CHECK(message(with_init(longest)) == "taken");
    CHECK(message(with_init(longest + "a")) == "x.xml:4: <init> is '/" + std::string(99, 'a') + "'...: " + path);
}

TEST_CASE("id maps that the kernel would refuse are refused with their line") {
    check_extra({
        {"<idmap><uid start='0' target='1' count='1'/></idmap>", "x.xml:5: <idmap> needs both <uid> and <gid>"},
        {"<idmap><gid start='0' target='1' count='1'/></idmap>", "x.xml:5: <idmap> needs both <uid> and <gid>"},
        {"<idmap/>", "x.xml:5: <idmap> needs both <uid> and <gid>"},
        {"<idmap><uid target='1' count='1'/></idmap>", "x.xml:5: <uid> needs the attribute 'start'"},
        {"<idmap><uid start='0' count='1'/></idmap>", "x.xml:5: <uid> needs the attribute 'target'"},
        {"<idmap><uid start='0' target='1'/></idmap>", "x.xml:5: <uid> needs the attribute 'count'"},
        {"<idmap><uid start='0' target='1' count='0'/></idmap>",
         "x.xml:5: attribute 'count' of <uid> is '0': it must be a decimal number from 1 to 4294967295"},
        {"<idmap><uid start='-1' target='1' count='1'/></idmap>",
         "x.xml:5: attribute 'start' of <uid> is '-1': it must be a decimal number from 0 to 4294967295"},
        {"<idmap><uid start='0' target='4294967296' count='1'/></idmap>",
         "x.xml:5: attribute 'target' of <uid> is '4294967296': it must be a decimal number from 0 to 4294967295"},
        {"<idmap><uid start='4294967295' target='1' count='1'/></idmap>",
         "x.xml:5: <uid> ends behind the last id, 4294967294"},
        {"<idmap><uid start='0' target='4294967295' count='1'/></idmap>",
         "x.xml:5: the target of <uid> ends behind the last id, 4294967294"},
        {"<idmap><uid start='0' target='100000' count='4294867296'/></idmap>",
         "x.xml:5: the target of <uid> ends behind the last id, 4294967294"},
        {"<idmap>\n<uid start='1' target='100000' count='1'/></idmap>",
         "x.xml:6: no <uid> starts at 0: root inside must be mapped"},
        {"<idmap>\n<uid start='0' target='100000' count='10'/>\n<uid start='9' target='0' count='1'/></idmap>",
         "x.xml:7: <uid> overlaps the one of line 6 in the container"},
        {"<idmap>\n<uid start='10' target='5' count='5'/>\n<uid start='0' target='0' count='6'/></idmap>",
         "x.xml:7: <uid> overlaps the one of line 6 on the host"},
    });
    std::string many = "<idmap>\n";
    for (int i = 0; i < 341; ++i) {
        const std::string id = std::to_string(i);
        many += "<uid start='" + id + "' target='" + id + "' count='1'/>\n";
    }
    CHECK(message(domain_with("", many + "</idmap>")) == "x.xml:346: more than 340 <uid> in <idmap>");
}

TEST_CASE("file systems without source, target or sense are refused") {
    check_devices({
        {"<filesystem><target dir='/a'/></filesystem>", "x.xml:6: <filesystem> needs the element <source>"},
        {"<filesystem><source dir='/a'/></filesystem>", "x.xml:6: <filesystem> needs the element <target>"},
        {"<filesystem><source/>\n<target dir='/a'/></filesystem>", "x.xml:6: <source> needs the attribute 'dir'"},
        {"<filesystem><source dir='/a'/>\n<target/></filesystem>", "x.xml:7: <target> needs the attribute 'dir'"},
        {"<filesystem><source dir='relative'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dir' of <source> is 'relative': it must be an absolute path without control characters, "
         "of at "
         "most 4095 bytes"},
        {"<filesystem><source dir='/a&#10;b'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dir' of <source> is '/a\\x0ab': it must be an absolute path without control characters, "
         "of at "
         "most 4095 bytes"},
        {"<filesystem><source dir='/a'/><target dir='/a/./b'/></filesystem>",
         "x.xml:6: attribute 'dir' of <target> is '/a/./b': it must be a path without '.' and '..'"},
        {"<filesystem><source file='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'file' of <source> is not for <filesystem type='mount'>"},
        {"<filesystem><source pool='p'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'pool' of <source> is libvirt's, but caisson does not support it yet"},
        {"<filesystem type='block'><source dir='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dir' of <source> is not for <filesystem type='block'>"},
        {"<filesystem type='block'><source/><target dir='/a'/></filesystem>",
         "x.xml:6: <source> needs the attribute 'dev'"},
        {"<filesystem type='block'><source dev='/'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dev' of <source> is '/': it must be the path of a block device"},
        {"<filesystem type='file'><source dev='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dev' of <source> is not for <filesystem type='file'>"},
        {"<filesystem type='file'><source/><target dir='/a'/></filesystem>",
         "x.xml:6: <source> needs the attribute 'file'"},
        {"<filesystem type='file'><source file='//'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'file' of <source> is '/': it must be the path of a file"},
        {"<filesystem type='bind'><source file='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'file' of <source> is not for <filesystem type='bind'>"},
        {"<filesystem type='bind'>\n<driver type='loop'/><source dir='/a'/><target dir='/a'/></filesystem>",
         "x.xml:7: <driver> is not for <filesystem type='bind'>"},
        {"<filesystem><source dir='/a'/>\n<source dir='/b'/><target dir='/a'/></filesystem>",
         "x.xml:7: a second <source> in <filesystem>: the first is in line 6"},
        {"<filesystem><source dir='/a' usage='1'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'usage' of <source> is not for <filesystem type='mount'>"},
        {"<filesystem type='ram'><source usage='1' dir='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dir' of <source> is not for <filesystem type='ram'>"},
        {"<filesystem type='ram'><source dir='/a'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'dir' of <source> is not for <filesystem type='ram'>"},
        {"<filesystem type='ram'><source/><target dir='/a'/></filesystem>",
         "x.xml:6: <source> needs the attribute 'usage'"},
        {"<filesystem type='ram'><source usage='0'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'usage' of <source> is '0': it must be a decimal number from 1 to 18446744073709551615"},
        {"<filesystem type='ram'><source usage='18014398509481984'/><target dir='/a'/></filesystem>",
         "x.xml:6: attribute 'usage' of <source> is '18014398509481984': it must be less than 2^64 bytes, and its unit "
         "is "
         "'KiB'"},
        {"<filesystem type='ram'><source usage='1'/>\n<target dir='//'/></filesystem>",
         "x.xml:7: a <filesystem type='ram'> cannot be the root"},
        {"<filesystem><source dir='/a'/><target dir='/a'/></filesystem>\n"
         "<filesystem><source dir='/b'/><target dir='//a/'/></filesystem>",
         "x.xml:7: a second <filesystem> on '/a': the first is in line 6"},
        {"<filesystem><source dir='/a'/><target dir='/a'/><readonly>yes</readonly></filesystem>",
         "x.xml:6: unexpected text in <readonly>"},
    });
}

TEST_CASE("interfaces that could not be made are refused") {
    const auto check = [](const char* piece, const char* expected) {
        const std::string text =
            domain_with("<interface type='bridge'><source bridge='b'/>\n" + std::string{piece} + "</interface>");
        CHECK(message(text) == "x.xml:7: " + std::string{expected});
    };
    constexpr const char* link = "it must be 1 to 15 letters, digits, '.', '_' and '-', the first no '-'";
    check_devices({
        {"<interface><source bridge='b'/></interface>", "x.xml:6: <interface> needs the attribute 'type'"},
        {"<interface type='bridge'/>", "x.xml:6: <interface> needs the element <source>"},
        {"<interface type='bridge'><source/></interface>", "x.xml:6: <source> needs the attribute 'bridge'"},
        {"<interface type='bridge'><source bridge='a' network='b'/></interface>",
         "x.xml:6: <source> has both 'bridge' and 'network'"},
        {"<interface type='bridge'><source bridge='a'/><guest dev='e'/></interface>\n"
         "<interface type='bridge'><source bridge='a'/><guest dev='e'/></interface>",
         "x.xml:7: a second <interface> with the guest device 'e': the first is in line 6"},
        {"<interface type='bridge'><source bridge='a'/><target dev='e'/></interface>\n"
         "<interface type='bridge'><source bridge='a'/><target dev='e'/></interface>",
         "x.xml:7: a second <interface> with the target device 'e': the first is in line 6"},
        {"<interface type='bridge'><source bridge='a'/><mac address='00:11:22:33:44:5a'/></interface>\n"
         "<interface type='bridge'><source bridge='a'/><mac address='00:11:22:33:44:5A'/></interface>",
         "x.xml:7: a second <interface> with the address '00:11:22:33:44:5a': the first is in line 6"},
    });
    for (const char* wrong : {"", ".", "..", "a/b", "-a", "a b", "0123456789abcdef", "a:b", "../x"}) {
        CAPTURE(wrong);
        const std::string named{wrong};
        CHECK(message(domain_with("<interface type='bridge'><source bridge='" + named + "'/></interface>")) ==
              "x.xml:6: attribute 'bridge' of <source> is '" + named + "': " + link);
        check(("<guest dev='" + named + "'/>").c_str(),
              ("attribute 'dev' of <guest> is '" + named + "': " + link).c_str());
        check(("<target dev='" + named + "'/>").c_str(),
              ("attribute 'dev' of <target> is '" + named + "': " + link).c_str());
    }
    check("<mac/>", "<mac> needs the attribute 'address'");
    check("<mac address='01:11:22:34:34:34'/>",
          "attribute 'address' of <mac> is '01:11:22:34:34:34': it must be six pairs of hexadecimal digits with ':' "
          "between, "
          "not a multicast address and not all zeros");
    check("<mac address='00:11:22:34:34'/>",
          "attribute 'address' of <mac> is '00:11:22:34:34': it must be six pairs of hexadecimal digits with ':' "
          "between, not "
          "a multicast address and not all zeros");
    check("<mac address='00:00:00:00:00:00'/>",
          "attribute 'address' of <mac> is '00:00:00:00:00:00': it must be six pairs of hexadecimal digits with ':' "
          "between, not a multicast address and not all zeros");
    check("<mtu size='67'/>", "attribute 'size' of <mtu> is '67': it must be a decimal number from 68 to 65535");
    check("<mtu size='65536'/>", "attribute 'size' of <mtu> is '65536': it must be a decimal number from 68 to 65535");
    check("<mtu/>", "<mtu> needs the attribute 'size'");
    check("<link/>", "<link> needs the attribute 'state'");
    check("<ip/>", "<ip> needs the attribute 'address'");
    check("<ip address='10.0.0'/>", "attribute 'address' of <ip> is '10.0.0': it must be an IPv4 or IPv6 address");
    check("<ip address='10.0.0.1' prefix='33'/>",
          "attribute 'prefix' of <ip> is '33': it must be a decimal number from 1 to 32");
    check("<ip address='10.0.0.1' prefix='0'/>",
          "attribute 'prefix' of <ip> is '0': it must be a decimal number from 1 to 32");
    check("<ip address='fd00::1' prefix='129'/>",
          "attribute 'prefix' of <ip> is '129': it must be a decimal number from 1 to 128");
    check("<ip address='10.0.0.1' family='ipv6'/>",
          "attribute 'address' of <ip> is '10.0.0.1': it must be an address of the family ipv6");
    check("<ip address='10.0.0.1' family='ipv5'/>",
          "attribute 'family' of <ip> is 'ipv5': it must be 'ipv4' or 'ipv6'");
    check("<ip address='240.0.0.1'/>", "<ip> needs the attribute 'prefix'");
    check("<ip address='10.0.0.1' peer='10.0.0.2'/>",
          "attribute 'peer' of <ip> is libvirt's, but caisson does not support it yet");
    check("<route address='0.0.0.0'/>", "<route> needs the attribute 'gateway'");
    check("<route gateway='10.0.0.1'/>", "<route> needs the attribute 'address'");
    check("<route address='10.0.0.1' prefix='24' gateway='10.0.0.1'/>",
          "attribute 'address' of <route> is '10.0.0.1': it must be a network's, without bits behind the prefix 24");
    check("<route address='10.0.0.0' prefix='8' netmask='255.0.0.0' gateway='10.0.0.1'/>",
          "<route> has both 'prefix' and 'netmask'");
    check("<route address='10.0.0.0' netmask='255.0.255.0' gateway='10.0.0.1'/>",
          "attribute 'netmask' of <route> is '255.0.255.0': it must be an IPv4 netmask, for an IPv4 address");
    check("<route address='10.0.0.0' gateway='fd00::1'/>",
          "attribute 'gateway' of <route> is 'fd00::1': it must be of the same family as the address");
    check("<route address='10.0.0.0' family='ipv4' gateway='fd00::1'/>",
          "attribute 'gateway' of <route> is 'fd00::1': it must be an address of the family ipv4");
    check("<route address='10.0.0.0' gateway='10.0.0.1' metric='0'/>",
          "attribute 'metric' of <route> is '0': it must be a decimal number from 1 to 4294967295");
}
