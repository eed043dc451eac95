// caisson/xml.hpp - libvirt's domain XML, in and out. In libcaisson-xml; nothing else of the library includes it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <sys/random.h>

#include <caisson/error.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::xml {

/// A document that cannot be taken. `what()` begins with file and line: "web.xml:12: <target> needs the attribute
/// 'dir'".
class [[gnu::visibility("default")]] XmlError : public Error {
public:
    /// `file` is shown as it is: it must hold no control characters.
    XmlError(std::string_view file, int line, std::string_view message)
        : Error{Step::read_xml, 0,
                std::string{file}.append(":").append(std::to_string(line)).append(": ").append(message)},
          file_size_{file.size()},
          line_{line} {}
    /// The source that was given to `load` or `parse`.
    [[nodiscard]] std::string_view file() const noexcept {
        return context().substr(0, file_size_);
    }
    /// Of the element, attribute or byte at fault; from 1.
    [[nodiscard]] int line() const noexcept {
        return line_;
    }

private:
    std::size_t file_size_;
    int line_;
};

/// A universally unique identifier, RFC 4122.
struct Uuid {
    std::array<std::uint8_t, 16> octets{};
    /// From "8369f1ac-7e46-e869-4ca5-759d51478066" or the same 32 digits without '-', in either case; nothing if the
    /// text is anything else.
    [[nodiscard]] static constexpr std::optional<Uuid> parse(std::string_view text) noexcept {
        if (text.size() != 32 && text.size() != 36) return std::nullopt;
        const auto nibble = [](char c) -> int {
            if (c >= '0' && c <= '9') return c - '0';
            if (c >= 'a' && c <= 'f') return c - 'a' + 10;
            if (c >= 'A' && c <= 'F') return c - 'A' + 10;
            return -1;
        };
        Uuid uuid;
        std::size_t at = 0;
        for (std::size_t i = 0; i < uuid.octets.size(); ++i) {
            if (text.size() == 36 && (i == 4 || i == 6 || i == 8 || i == 10) && text[at++] != '-') return std::nullopt;
            const int high = nibble(text[at]);
            const int low = nibble(text[at + 1]);
            if (high < 0 || low < 0) return std::nullopt;
            uuid.octets[i] = static_cast<std::uint8_t>(high * 16 + low);
            at += 2;
        }
        return uuid;
    }
    /// A random one (version 4), from getrandom(2).
    [[nodiscard]] static Uuid generate() {
        Uuid uuid;
        // Up to 256 bytes are given whole once the kernel's pool is ready; only the wait for it can be interrupted.
        while (::getrandom(uuid.octets.data(), uuid.octets.size(), 0) != static_cast<ssize_t>(uuid.octets.size())) {
            if (errno != EINTR) detail::fail(Step::read_xml, "make a uuid");
        }
        uuid.octets[6] = static_cast<std::uint8_t>((uuid.octets[6] & 0x0f) | 0x40);
        uuid.octets[8] = static_cast<std::uint8_t>((uuid.octets[8] & 0x3f) | 0x80);
        return uuid;
    }
    /// "8369f1ac-7e46-e869-4ca5-759d51478066", lower case.
    [[nodiscard]] std::string str() const {
        constexpr char digits[] = "0123456789abcdef";
        std::string text;
        for (std::size_t i = 0; i < octets.size(); ++i) {
            if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
            text.append({digits[octets[i] >> 4], digits[octets[i] & 15]});
        }
        return text;
    }
    friend bool operator==(const Uuid&, const Uuid&) = default;
};

/// What is to happen when a domain ends in one of three ways, see EndAction and `to_spec`. A container's name stays
/// what it is, and no core of it is dumped: the last three are as the two of the same word.
enum class Action : std::uint8_t { destroy, restart, preserve, rename_restart, coredump_destroy, coredump_restart };

/// `<clock offset=>`; without effect on a container, which shares the host's clock.
enum class Clock : std::uint8_t { utc, localtime };

/// `<features><capabilities policy=>`: what a container keeps that says nothing about a capability.
enum class CapabilityPolicy : std::uint8_t {
    standard,  ///< "default": `CapabilitySet::libvirt()`
    allow,     ///< all
    deny,      ///< none
};

/// `<numatune><memory mode=>`: in both, memory comes from the named nodes alone.
enum class NumaMode : std::uint8_t { strict, restrictive };

/// `<seclabel type='static'>`: what init is confined by. libvirt's other kinds are `none`, which is the default and not
/// told apart from it, and `dynamic`, which is not supported.
struct SecurityLabel {
    enum class Model : std::uint8_t { apparmor, selinux };
    Model model = Model::apparmor;
    std::string label{};  ///< apparmor: a profile; selinux: a context
    friend bool operator==(const SecurityLabel&, const SecurityLabel&) = default;
};

/// An element of `<metadata>`: what one application keeps in the document. It is told by its namespace.
struct Metadata {
    std::string uri{};  ///< of the namespace
    std::string xml{};  ///< the element, which declares it: `<app:site xmlns:app="http://example.org/app">x</app:site>`
    friend bool operator==(const Metadata&, const Metadata&) = default;
};

/// `<filesystem>`: what is seen at `target`.
struct Filesystem {
    enum class Type : std::uint8_t {
        mount,  ///< a directory or file of the host
        ram,    ///< memory
        bind,   ///< a directory or file of the container, as it is when what stands before it is in place
        block,  ///< the file system on a block device of the host
        file,   ///< the file system in a file of the host, by a loop device
    };
    Type type = Type::mount;
    std::string source{};         ///< absolute path; ram: empty
    std::uint64_t usage_kib = 0;  ///< ram: KiB that it may hold
    std::string target{};         ///< absolute path inside, without "//", "." and ".."; "/" is the container's root
    bool read_only = false;
    friend bool operator==(const Filesystem&, const Filesystem&) = default;
};

/// `<hostdev mode='capabilities'>`: a device of the host. Inside it is at the same path, with the first directory
/// replaced by /dev.
struct HostDevice {
    enum class Type : std::uint8_t { storage, misc };
    Type type = Type::misc;  ///< storage: a block device; misc: a character device
    std::string source{};    ///< absolute path on the host, without "//", "." and ".."
    friend bool operator==(const HostDevice&, const HostDevice&) = default;
};

/// `<disk type='block'>`: a block device of the host.
struct Disk {
    std::string source{};  ///< absolute path on the host, without "//", "." and ".."
    std::string target{};  ///< name of its node in /dev, as libvirt's schema has it: "vda"
    bool read_only = false;
    friend bool operator==(const Disk&, const Disk&) = default;
};

/// `<console type='pty'>`. The first is the container's console, the others are terminals beside it.
struct Console {
    std::string log{};        ///< see ConsoleSpec::log, with a limit of 2 MiB as virtlogd's; empty: none
    bool log_append = false;  ///< what was logged before a start stays
    friend bool operator==(const Console&, const Console&) = default;
};

/// `<interface type='bridge'>`.
struct Interface {
    NetworkSpec network{};
    bool link_up = false;  ///< the document says `<link state='up'/>`; the interface comes up in any case
    friend bool operator==(const Interface&, const Interface&) = default;
};

/// A `<domain type='lxc'>`: what the document says, as values. Copyable and comparable; every default is that of a
/// document which leaves the element out. `to_spec` makes a ContainerSpec of it.
struct Domain {
    std::string name{};  ///< see is_valid_name
    Uuid uuid{};
    std::string title{};                   ///< one line; empty: none
    std::string description{};             ///< empty: none
    std::vector<Metadata> metadata{};      ///< one for each namespace; without comments, and white space between tags
    std::uint64_t memory_kib = 0;          ///< KiB, 1 to 2^54 - 1; the limit, where `limits.memory` is nothing
    std::uint64_t current_memory_kib = 0;  ///< KiB, 1 to `memory_kib`; only told
    std::uint32_t vcpus = 1;               ///< 1 to 65535; only told
    /// What `<memtune>` (in whole KiB below 2^53 - 1; `memory` is its `<hard_limit>`), `<blkiotune>` (weights from 100
    /// on; devices by path), `<cputune>`, `<vcpu cpuset=>` and `<numatune>` say (the lists as the kernel writes them).
    /// No document says anything about `pids` and `huge_pages`.
    LimitSpec limits{};
    NumaMode numa_mode = NumaMode::strict;  ///< only with `limits.memory_nodes`
    std::string partition{};                ///< `<resource><partition>`: an absolute path; empty: none
    std::string arch{host_arch()};          ///< the host's, or its 32-bit twin
    std::string init = "/sbin/init";
    std::vector<std::string> init_arguments{};  ///< argv[1] and on
    std::vector<std::pair<std::string, std::string>> init_environment{};
    std::string init_directory{};  ///< empty: "/"
    std::string init_user{};       ///< both or none; a name of the root's own, a number, or '+' and a number
    std::string init_group{};
    std::vector<IdMap> uid_map{};  ///< both or none; in the order of `inside`
    std::vector<IdMap> gid_map{};
    bool acpi = false;  ///< these three are kept for those who ask, as libvirt does: a container has no machine
    bool apic = false;
    bool pae = false;
    bool private_network = false;
    CapabilityPolicy capability_policy = CapabilityPolicy::standard;
    CapabilitySet capabilities_on{};   ///< kept against the policy
    CapabilitySet capabilities_off{};  ///< taken against the policy
    Clock clock = Clock::utc;
    Action on_poweroff = Action::destroy;
    Action on_reboot = Action::restart;
    Action on_crash = Action::destroy;
    std::string emulator{};  ///< kept for those who ask; nothing is run from it. Empty: none
    std::vector<Disk> disks{};
    std::vector<Filesystem> filesystems{};  ///< in the order of the document
    std::vector<Interface> interfaces{};
    std::vector<Console> consoles = std::vector<Console>(1);  ///< a document without any has one
    std::vector<HostDevice> host_devices{};
    std::optional<SecurityLabel> security_label{};
    friend bool operator==(const Domain&, const Domain&) = default;

    /// libvirt's name of the machine this program is compiled for: "x86_64", "aarch64".
    [[nodiscard]] static constexpr std::string_view host_arch() noexcept {
#if defined(__aarch64__)
        return "aarch64";
#else
        return "x86_64";
#endif
    }
};

/// One device, as virsh's attach-device reads it.
using Device = std::variant<Disk, Filesystem, Interface, HostDevice>;

/// What only a running domain has.
struct Live {
    long id = 0;  ///< the pid of the process that runs it
    std::vector<std::string>
        console_paths{};  ///< the host's terminals to attach to, one for each console: "/dev/pts/22"
    friend bool operator==(const Live&, const Live&) = default;
};

/// The domain that is described by the file at `path`: a regular file of at most 1 MiB, in UTF-8.
///
/// What the file leaves out is filled in as libvirt does: a new uuid, one CPU, `/sbin/init` (as libvirt did in 2008).
/// Throws `Error` if the file cannot be read, else `XmlError`: also for each element, attribute and value that is
/// unknown, and with other words for what libvirt knows and this library does not support yet. May be called from any
/// thread.
[[nodiscard, gnu::visibility("default")]] Domain load(const std::string& path);

/// The same from memory; `source` stands for the file in messages.
[[nodiscard, gnu::visibility("default")]] Domain parse(std::string_view text, std::string_view source = "<string>");

/// The one device that a document describes, whose root is `<disk>`, `<filesystem>`, `<hostdev>` or `<interface>`. As
/// `load` and `parse`.
[[nodiscard, gnu::visibility("default")]] Device load_device(const std::string& path);
[[nodiscard, gnu::visibility("default")]] Device parse_device(std::string_view text,
                                                              std::string_view source = "<string>");

/// The domain as libvirt writes it, valid against libvirt's schema. With `live`, as of a running one: `parse` ignores
/// what that adds.
///
/// `parse(dump(domain)) == domain`: it is looked at before it is given out. Throws `Error` with `Step::check_spec`
/// where no document says what the domain holds (a relative path, no memory, a control character).
[[nodiscard, gnu::visibility("default")]] std::string dump(const Domain& domain, const std::optional<Live>& live = {});

/// The container that libvirt would make of the domain: without id maps no user namespace, libvirt's capabilities, no
/// `no_new_privileges`, single (not recursive) binds and images without `nosuid` and `nodev`, whose sources may lead
/// through symbolic links, libvirt's environment for init (`LIBVIRT_LXC_NAME`, `LIBVIRT_LXC_UUID`,
/// `container=lxc-libvirt`), the right to use fuse. Unlike there, it has a cgroup namespace and sees its own control
/// groups alone (to write to, as there), a filter of system calls, rules for devices, masked and read-only paths; and
/// with a map of `free_id_map` its mounts are id-mapped. Shares mean the same on v1 and v2, where libvirt has v2 take
/// them for a weight; swap is counted together with memory on both, and without `<swap_hard_limit>` there is none. The
/// partition "/a/b" is the control group "a.partition/b.partition", which must be there, as without systemd;
/// "/machine", libvirt's default, is where caisson chooses. Throws nothing but std::bad_alloc, and touches nothing.
[[nodiscard, gnu::visibility("default")]] ContainerSpec to_spec(const Domain& domain);
/// What `to_spec` makes of one device. Of a `<filesystem>` that is no root.
[[nodiscard, gnu::visibility("default")]] MountSpec to_spec(const Filesystem& fs);
[[nodiscard, gnu::visibility("default")]] NetworkSpec to_spec(const Interface& interface);
[[nodiscard, gnu::visibility("default")]] DeviceSpec to_spec(const HostDevice& device);
[[nodiscard, gnu::visibility("default")]] DeviceSpec to_spec(const Disk& disk);

/// What the application whose namespace is `uri` keeps in the domain: its element, without that namespace; nothing if
/// there is none. Throws `XmlError` if `Metadata::xml` is no XML.
[[nodiscard, gnu::visibility("default")]] std::optional<std::string> metadata_of(const Domain& domain,
                                                                                 std::string_view uri);
/// Puts `element`, XML without a namespace, into the domain, in the place of what that application has there; in the
/// document `key` stands for the namespace. Throws `XmlError` ("<metadata>:1: ...") if it is no XML, and
/// `Step::check_spec`. (To take it out: std::erase_if on `Domain::metadata`.)
[[gnu::visibility("default")]] void set_metadata(Domain& domain, std::string_view uri, std::string_view key,
                                                 std::string_view element);

/// A map for `Domain::uid_map` and `gid_map`: 65,536 ids from 0 on inside, which none of `others` has and no running
/// container has at this moment. They are of 2,048 such ranges, ids 2013265920 to 2147483647 of the host, that
/// automatic maps leave alone. With such a map the files of the root need not be chowned, see `to_spec`. Nothing: all
/// are taken. Throws `Step::map_ids` where it cannot be seen what containers have.
[[nodiscard, gnu::visibility("default")]] std::optional<IdMap> free_id_map(const std::vector<Domain>& others);
/// True for a domain with such a map.
[[nodiscard, gnu::visibility("default")]] bool has_free_id_map(const Domain& domain);

}  // namespace caisson::inline v0::xml
