#include "xml_schema.hpp"

#include <map>
#include <stdexcept>

#include <range/v3/algorithm/contains.hpp>
#include <range/v3/algorithm/find.hpp>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/split.hpp>
#include <range/v3/view/transform.hpp>

namespace caisson::inline v0::xml::schema {
namespace {

/// What an element may hold. Names are separated by spaces.
struct Content {
    std::string_view path;        ///< of the element, from the root
    std::string_view attributes;  ///< that are read
    std::string_view elements;    ///< that are read, at most once each
    std::string_view lists;       ///< that are read, any number of times
    bool text;
    std::string_view libvirts_attributes;
    std::string_view libvirts_elements;
};

/// What an attribute, or an element's text, may say.
struct Words {
    std::string_view path;
    std::string_view attribute;  ///< empty: the text
    std::string_view ours;
    std::string_view libvirts;
};

constexpr std::string_view capability_elements =
    "audit_control audit_write block_suspend chown dac_override dac_read_search fowner fsetid ipc_lock ipc_owner kill "
    "lease linux_immutable mac_admin mac_override mknod net_admin net_bind_service net_broadcast net_raw setfcap "
    "setgid "
    "setpcap setuid sys_admin sys_boot sys_chroot sys_module sys_nice sys_pacct sys_ptrace sys_rawio sys_resource "
    "sys_time sys_tty_config syslog wake_alarm";

// clang-format off
constexpr Content contents[] = {
    {"domain", "type id",
     "name uuid title description metadata memory currentMemory blkiotune memtune vcpu cputune numatune resource os idmap features clock on_poweroff on_reboot on_crash "
     "devices", "seclabel", false,
     "xmlns:lxc xmlns:qemu xmlns:xen xmlns:bhyve xmlns:vmware",
     "genid maxMemory memoryBacking cpu iothreads iothreadids "
     "defaultiothread vcpus sysinfo bootloader bootloader_args pm perf on_lockfailure keywrap launchSecurity "
     "throttlegroups lxc:namespace qemu:capabilities qemu:commandline qemu:deprecation qemu:override xen:commandline "
     "bhyve:commandline vmware:datacenterpath"},
    {"domain/name", "", "", "", true, "", ""},
    {"domain/uuid", "", "", "", true, "", ""},
    {"domain/title", "", "", "", true, "", ""},
    {"domain/description", "", "", "", true, "", ""},
    {"domain/metadata", "", "", "", false, "", ""},
    {"domain/memory", "unit", "", "", true, "dumpCore", ""},
    {"domain/currentMemory", "unit", "", "", true, "", ""},
    {"domain/vcpu", "placement cpuset", "", "", true, "current", ""},

    {"domain/blkiotune", "", "weight", "device", false, "", ""},
    {"domain/blkiotune/weight", "", "", "", true, "", ""},
    {"domain/blkiotune/device", "", "path weight read_iops_sec write_iops_sec read_bytes_sec write_bytes_sec", "",
     false, "", ""},
    {"domain/blkiotune/device/path", "", "", "", true, "", ""},
    {"domain/blkiotune/device/weight", "", "", "", true, "", ""},
    {"domain/blkiotune/device/read_iops_sec", "", "", "", true, "", ""},
    {"domain/blkiotune/device/write_iops_sec", "", "", "", true, "", ""},
    {"domain/blkiotune/device/read_bytes_sec", "", "", "", true, "", ""},
    {"domain/blkiotune/device/write_bytes_sec", "", "", "", true, "", ""},
    {"domain/memtune", "", "hard_limit soft_limit swap_hard_limit", "", false, "", "min_guarantee"},
    {"domain/memtune/hard_limit", "unit", "", "", true, "", ""},
    {"domain/memtune/soft_limit", "unit", "", "", true, "", ""},
    {"domain/memtune/swap_hard_limit", "unit", "", "", true, "", ""},
    {"domain/cputune", "", "shares period quota", "", false, "",
     "cachetune emulator_period emulator_quota emulatorpin emulatorsched global_period global_quota iothread_period "
     "iothread_quota iothreadpin iothreadsched memorytune vcpupin vcpusched"},
    {"domain/cputune/shares", "", "", "", true, "", ""},
    {"domain/cputune/period", "", "", "", true, "", ""},
    {"domain/cputune/quota", "", "", "", true, "", ""},
    {"domain/numatune", "", "memory", "", false, "", "memnode"},
    {"domain/numatune/memory", "mode nodeset placement", "", "", false, "", ""},
    {"domain/resource", "", "partition", "", false, "", "fibrechannel"},
    {"domain/resource/partition", "", "", "", true, "", ""},

    {"domain/seclabel", "type model relabel", "label imagelabel baselabel", "", false, "", ""},
    {"domain/seclabel/label", "", "", "", true, "", ""},
    {"domain/seclabel/imagelabel", "", "", "", true, "", ""},
    {"domain/seclabel/baselabel", "", "", "", true, "", ""},

    {"domain/os", "", "type init initdir inituser initgroup", "initarg initenv", false, "firmware",
     "cmdline acpi bios boot bootmenu dtb firmware initrd kernel loader nvram root smbios"},
    {"domain/os/type", "arch", "", "", true, "machine", ""},
    {"domain/os/init", "", "", "", true, "", ""},
    {"domain/os/initarg", "", "", "", true, "", ""},
    {"domain/os/initenv", "name", "", "", true, "", ""},
    {"domain/os/initdir", "", "", "", true, "", ""},
    {"domain/os/inituser", "", "", "", true, "", ""},
    {"domain/os/initgroup", "", "", "", true, "", ""},

    {"domain/idmap", "", "", "uid gid", false, "", ""},
    {"domain/idmap/uid", "start target count", "", "", false, "", ""},
    {"domain/idmap/gid", "start target count", "", "", false, "", ""},

    {"domain/features", "", "acpi apic pae privnet capabilities", "", false, "",
     "aia async-teardown ccf-assist cfpc gic hap hpt htm hyperv ibs ioapic kvm msrs nested-hv pmu ps2 "
     "pvspinlock ras sbbc smm tcg viridian vmcoreinfo vmport xen"},
    {"domain/features/acpi", "", "", "", false, "", ""},
    {"domain/features/apic", "", "", "", false, "eoi", ""},
    {"domain/features/pae", "", "", "", false, "", ""},
    {"domain/features/privnet", "", "", "", false, "", ""},
    {"domain/features/capabilities", "policy", capability_elements, "", false, "", ""},
    {"domain/features/capabilities/*", "state", "", "", false, "", ""},

    {"domain/clock", "offset", "", "", false, "adjustment basis start timezone", "timer"},
    {"domain/on_poweroff", "", "", "", true, "", ""},
    {"domain/on_reboot", "", "", "", true, "", ""},
    {"domain/on_crash", "", "", "", true, "", ""},

    {"domain/devices", "", "emulator", "disk filesystem interface console hostdev", false, "",
     "audio channel controller crypto graphics hub input iommu lease memballoon memory nvram panic "
     "parallel pstore redirdev redirfilter rng serial shmem smartcard sound tpm video vsock watchdog"},
    {"domain/devices/emulator", "", "", "", true, "", ""},

    {"domain/devices/disk", "type device", "driver source target readonly", "", false, "model rawio sgio snapshot",
     "acpi address alias auth backenddomain backingStore blockio boot encryption geometry iotune mirror product serial "
     "shareable throttlefilters transient vendor wwn"},
    {"domain/devices/disk/driver", "type", "", "", false,
     "ats cache copy_on_read detect_zeroes discard error_policy event_idx io ioeventfd iommu iothread name packed "
     "page_per_vq queue_size queues rerror_policy",
     "iothreads metadata_cache"},
    {"domain/devices/disk/source", "dev", "", "", false,
     "dir file index mode name pool protocol query startupPolicy tls tlsHostname type volume",
     "address auth config cookies encryption host identity initiator knownHosts namespace readahead reconnect "
     "reservations seclabel slices snapshot ssl timeout"},
    {"domain/devices/disk/target", "dev bus", "", "", false, "dpofua removable rotation_rate tray", ""},
    {"domain/devices/disk/readonly", "", "", "", false, "", ""},

    {"domain/devices/filesystem", "type accessmode", "driver source target readonly", "", false,
     "model fmode dmode multidevs",
     "acpi address alias binary boot idmap space_hard_limit space_soft_limit"},
    {"domain/devices/filesystem/driver", "type format", "", "", false,
     "ats iommu name packed page_per_vq queue wrpolicy", ""},
    {"domain/devices/filesystem/source", "dir dev file usage units", "", "", false, "name pool socket volume", ""},
    {"domain/devices/filesystem/target", "dir", "", "", false, "", ""},
    {"domain/devices/filesystem/readonly", "", "", "", false, "", ""},

    {"domain/devices/hostdev", "mode type", "source", "", false, "display managed model ramfb rawio sgio",
     "acpi address alias boot driver ip readonly rom route shareable teaming"},
    {"domain/devices/hostdev/source", "", "block char", "", false,
     "guestReset name protocol startupPolicy writeFiltering wwpn",
     "adapter address auth host initiator interface product vendor"},
    {"domain/devices/hostdev/source/block", "", "", "", true, "", ""},
    {"domain/devices/hostdev/source/char", "", "", "", true, "", ""},

    {"domain/devices/interface", "type", "mac source target guest link mtu port", "ip route", false,
     "managed trustGuestRxFilters",
     "acpi address alias backend backenddomain bandwidth boot coalesce downscript driver filterref model "
     "portForward rom script teaming tune virtualport vlan"},
    {"domain/devices/interface/mac", "address", "", "", false, "type check", ""},
    {"domain/devices/interface/source", "bridge network", "", "", false,
     "address connectionid dev macTableManager mode name path port portgroup portgroupid portid switchid type",
     "address ip local product reconnect route vendor"},
    {"domain/devices/interface/target", "dev", "", "", false, "managed", ""},
    {"domain/devices/interface/guest", "dev", "", "", false, "actual", ""},
    {"domain/devices/interface/ip", "address family prefix", "", "", false, "peer", ""},
    {"domain/devices/interface/route", "family address prefix netmask gateway metric", "", "", false, "", ""},
    {"domain/devices/interface/link", "state", "", "", false, "", ""},
    {"domain/devices/interface/mtu", "size", "", "", false, "", ""},
    {"domain/devices/interface/port", "isolated", "", "", false, "", ""},

    // The paths and names of a running domain's console are taken and dropped.
    {"domain/devices/console", "type tty", "source log target alias", "", false, "", "acpi address protocol"},
    {"domain/devices/console/log", "file append", "", "", false, "", ""},
    {"domain/devices/console/source", "path", "", "", false,
     "append channel host master mode service slave tls", "clipboard mouse reconnect seclabel"},
    {"domain/devices/console/target", "type port", "", "", false, "", "model"},
    {"domain/devices/console/alias", "name", "", "", false, "", ""},
};

constexpr std::string_view archs =
    "aarch64 alpha armv6l armv7l cris i686 ia64 lm32 loongarch64 m68k microblaze microblazeel mips mips64 mips64el "
    "mipsel openrisc parisc parisc64 ppc ppc64 ppc64le ppcemb riscv32 riscv64 s390 s390x sh4 sh4eb sparc sparc64 "
    "unicore32 x86_64 xtensa xtensaeb";
#if defined(__aarch64__)
constexpr std::string_view host_archs = "aarch64 armv7l";
#else
constexpr std::string_view host_archs = "x86_64 i686";
#endif

constexpr Words words[] = {
    {"domain", "type", "lxc", "bhyve hvf hyperv kqemu kvm openvz parallels phyp qemu test uml vbox vmware vz xen"},
    {"domain/vcpu", "placement", "static", "auto"},
    {"domain/numatune/memory", "mode", "strict restrictive", "interleave preferred"},
    {"domain/numatune/memory", "placement", "static", "auto"},
    {"domain/seclabel", "type", "none static", "dynamic"},
    {"domain/seclabel", "relabel", "no", "yes"},
    {"domain/os/type", "", "exe", "hvm linux uml xen xenpvh"},
    {"domain/os/type", "arch", host_archs, archs},
    {"domain/features/capabilities", "policy", "default allow deny", ""},
    {"domain/features/capabilities/*", "state", "on off", ""},
    {"domain/clock", "offset", "utc localtime", "absolute timezone variable"},
    {"domain/on_poweroff", "", "destroy restart preserve rename-restart", ""},
    {"domain/on_reboot", "", "destroy restart preserve rename-restart", ""},
    {"domain/on_crash", "", "destroy restart preserve rename-restart coredump-destroy coredump-restart", ""},
    {"domain/devices/disk", "type", "block", "dir file network nvme vhostuser vhostvdpa volume"},
    {"domain/devices/disk", "device", "disk", "cdrom floppy lun"},
    {"domain/devices/disk/driver", "type", "raw",
     "aio bochs cloop cow dir dmg fat iso luks phy ploop qcow qcow2 qed vdi vhd vmdk vpc"},
    {"domain/devices/disk/target", "bus", "fdc ide nvme sata scsi sd uml usb virtio xen", ""},
    {"domain/devices/filesystem", "type", "mount bind block file ram", "template volume"},
    {"domain/devices/filesystem", "accessmode", "passthrough", "mapped squash"},
    {"domain/devices/filesystem/driver", "type", "loop", "handle mtp nbd path virtiofs"},
    {"domain/devices/filesystem/driver", "format", "raw",
     "bochs cloop cow dir dmg fat iso ploop qcow qcow2 qed vdi vhd vmdk vpc"},
    {"domain/devices/hostdev", "mode", "capabilities", "subsystem"},
    {"domain/devices/hostdev", "type", "storage misc", "mdev net pci scsi scsi_host usb"},
    {"domain/devices/interface", "type", "bridge",
     "client direct ethernet hostdev internal mcast network null server udp user vdpa vds vhostuser"},
    {"domain/devices/interface/ip", "family", "ipv4 ipv6", ""},
    {"domain/devices/interface/route", "family", "ipv4 ipv6", ""},
    {"domain/devices/interface/link", "state", "up", "down"},
    {"domain/devices/interface/port", "isolated", "yes no", ""},
    {"domain/devices/console", "type", "pty",
     "dbus dev file nmdm null pipe qemu-vdagent spiceport spicevmc stdio tcp udp unix vc"},
    {"domain/devices/console/log", "append", "on off", ""},
    {"domain/devices/console/target", "type", "lxc", "openvz sclp sclplm serial uml virtio xen"},
};
// clang-format on

constexpr std::string_view not_yet = " is libvirt's, but caisson does not support it yet";

auto split(std::string_view names) {
    return names | ranges::views::split(' ') | ranges::views::transform([](auto&& word) {
               return std::string_view{&*word.begin(), static_cast<std::size_t>(ranges::distance(word))};
           });
}

bool has(std::string_view names, std::string_view name) {
    return !names.empty() && ranges::contains(split(names), name);
}

/// "'a'", "'a' or 'b'", "'a', 'b' or 'c'".
std::string alternatives(std::string_view names) {
    const auto all = split(names) | ranges::views::transform(detail::quote) | ranges::to<std::vector>();
    std::string text;
    for (std::size_t i = 0; i < all.size(); ++i) text += (i == 0 ? "" : i + 1 == all.size() ? " or " : ", ") + all[i];
    return text;
}

class Walk {
public:
    void element(const Element& e, const std::string& path) {
        const auto* found = ranges::find(contents, std::string_view{path}, &Content::path);
        if (found == ranges::end(contents)) throw std::logic_error{"xml_schema.cpp has no line for " + path};
        const Content& content = *found;
        // A type that is not supported tells more than the attributes that only it has.
        words_of(e, content.path);
        attributes(e, content);
        if (!content.text) no_text(e);
        if (content.path == "domain/metadata") return;  // whatever applications like
        std::map<std::string_view, int> seen;
        for (const Element& child : e.children()) {
            const std::string_view name = child.name();
            const bool once = has(content.elements, name);
            if (!once && !has(content.lists, name)) {
                if (has(content.libvirts_elements, name)) child.fail(child.tag().append(not_yet));
                child.fail("unknown element " + child.tag() + " in " + e.tag());
            }
            const auto [first, is_new] = seen.try_emplace(name, child.line());
            if (once && !is_new) {
                child.fail("a second " + child.tag() + " in " + e.tag() + ": the first is in line " +
                           std::to_string(first->second));
            }
            const bool capability = content.path == "domain/features/capabilities";
            element(child, path + "/" + (capability ? "*" : std::string{name}));
        }
    }

private:
    static void attributes(const Element& e, const Content& content) {
        for (const auto* a : e.attributes()) {
            if (has(content.attributes, a->Name())) continue;
            const std::string named = "attribute " + detail::quote(a->Name()) + " of " + e.tag();
            if (has(content.libvirts_attributes, a->Name())) e.fail(named + std::string{not_yet}, a->GetLineNum());
            e.fail("unknown " + named, a->GetLineNum());
        }
    }

    static void no_text(const Element& e) {
        for (const auto* node : e.nodes()) {
            const auto* text = node->ToText();
            if (text == nullptr) continue;
            const std::string_view value = text->Value();
            if (value.find_first_not_of(" \t\r\n") == std::string_view::npos) continue;
            e.fail("unexpected text in " + e.tag(), text->GetLineNum());
        }
    }

    static void words_of(const Element& e, std::string_view path) {
        for (const Words& w : words) {
            if (w.path != path) continue;
            const auto value = w.attribute.empty() ? std::optional{e.text()} : e.attribute(w.attribute);
            if (!value || has(w.ours, *value)) continue;
            if (!has(w.libvirts, *value)) e.wrong(w.attribute, *value, alternatives(w.ours));
            const std::string name{e.name()};
            const std::string shown = w.attribute.empty()
                                          ? "<" + name + ">" + *value + "</" + name + ">"
                                          : "<" + name + " " + std::string{w.attribute} + "='" + *value + "'>";
            e.fail(shown + std::string{not_yet}, e.attribute_line(w.attribute));
        }
    }
};

}  // namespace

void check(const Element& root) {
    if (root.name() != "domain") root.fail("the root element is " + root.tag() + ": it must be <domain>");
    Walk{}.element(root, "domain");
}

void check_device(const Element& root) {
    constexpr std::string_view devices = "disk filesystem hostdev interface";
    const std::string path = "domain/devices/" + std::string{root.name()};
    if (has(devices, root.name())) return Walk{}.element(root, path);
    const Content& all = *ranges::find(contents, std::string_view{"domain/devices"}, &Content::path);
    if (has(all.libvirts_elements, root.name())) root.fail(root.tag().append(not_yet));
    root.fail("the root element is " + root.tag() + ": it must be <disk>, <filesystem>, <hostdev> or <interface>");
}

}  // namespace caisson::inline v0::xml::schema
