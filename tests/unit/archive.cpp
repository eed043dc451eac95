// Values as bytes and back, and what hostile bytes can do: throw.
#include <caisson/detail/archive.hpp>

#include "support/doctest.hpp"

using namespace caisson;
using detail::decode;
using detail::encode;

namespace {

/// Every member differs from its default.
ContainerSpec full() {
    ContainerSpec s;
    s.name = "web";
    s.root = "/srv/web";
    s.root_read_only = true;
    s.command = {"/bin/sh", "-c", std::string{"a\0b", 3}};
    s.environment = {{"A", "1"}, {"B", ""}};
    s.working_directory = "/tmp";
    s.hostname = "host";
    s.namespaces = NamespaceKind::mount | NamespaceKind::net;
    s.uid_map = {{0, 100000, 65536}, {65536, 1, 1}};
    s.gid_map = {{0, 200000, 65536}};
    s.id_mapped_mounts = true;
    s.proc = s.sys = s.dev = false;
    s.mounts = {MountSpec::tmpfs("/tmp", 1 << 20), MountSpec::bind("/a", "/b", {.read_only = true, .no_suid = false})};
    s.mounts[0].upper = "/u";
    s.mounts[0].work = "/w";
    s.mounts[1].options.no_dev = s.mounts[1].options.recursive = false;
    s.mounts[1].options.no_exec = s.mounts[1].options.follow_links = true;
    s.console = ConsoleSpec{{50, 132}, "/var/log/web", false, 8192, 7, WhenFull::drop_oldest};
    s.more_consoles = {{.size = {1, 2}}};
    s.stdio = {3, 4, 5};
    NetworkSpec n;
    n.bridge = "br0";
    n.name = "eth7";
    n.host_name = "veth9";
    n.mac = MacAddress::parse("52:54:00:01:02:03");
    n.addresses = {*IpPrefix::parse("10.0.0.2/24"), *IpPrefix::parse("fd00::2/64")};
    n.routes = {{*IpPrefix::parse("0.0.0.0/0"), IpAddress::parse("10.0.0.1"), 7}, {*IpPrefix::parse("::/0"), {}, 0}};
    n.mtu = 1400;
    n.isolated = true;
    s.networks = {n};
    s.limits = {.memory = std::uint64_t{1} << 40,
                .memory_soft = 1,
                .memory_and_swap = LimitSpec::unlimited,
                .cpu_shares = 2,
                .cpu_quota = 3,
                .cpu_period = 4,
                .cpus = "0-1",
                .memory_nodes = "0",
                .pids = 77,
                .block_weight = 5,
                .block = {{"/dev/sda", 6, 7, 8, 9, 10}},
                .huge_pages = {{2097152, 11}}};
    s.count_cpus = true;
    s.cgroup = false;
    s.cgroup_parent = "x/y";
    s.capabilities = CapabilitySet::all();
    s.capabilities.bounding = CapabilitySet{1};
    s.capabilities.inheritable = CapabilitySet{2};
    s.capabilities.ambient = CapabilitySet{4};
    s.root_overlay = RootOverlay{{"/l"}, "/u", "/w", 5};
    s.cgroup_mount = CgroupMount::read_write;
    s.mounts.push_back(MountSpec::bind_inside("/i", "/t"));
    s.masked_paths = {"/m"};
    s.read_only_paths = {"/r"};
    s.resource_limits = {{ResourceLimit::Kind::rttime, 1, 2}};
    s.devices = {{"/dev/a", "b", DeviceSpec::Type::block, {false, false, true}, 0600, 1, 2}};
    s.device_rules = {{DeviceRule::Type::block, 8, {}, {false, true, true}}};
    s.seccomp = {SeccompProfile::system,
                 {{"mount", SeccompRule::Action::kill, 5, {{1, SeccompArgument::Operator::masked_equal, 2, 3}}}},
                 true,
                 true};
    s.security_label = "apparmor:x";
    s.groups = {4, 5};
    s.user = "alice";
    s.group = "users";
    s.descriptors = {7};
    s.sysctls = {{"net.ipv4.ip_forward", "1"}};
    s.oom_score_adj = 100;
    s.personality = Personality::linux32;
    s.umask = 077;
    s.init = true;
    s.no_new_privileges = false;
    s.uid = 1000;
    s.gid = 4294967295u;
    s.uuid = "8369f1ac-7e46-e869-4ca5-759d51478066";
    s.stage_path = "/stage";
    s.id_map_tools = "/tools";
    s.on_poweroff = EndAction::restart;
    s.on_reboot = EndAction::destroy;
    s.on_crash = EndAction::preserve;
    s.back_off = {1, 2, 3, 4};
    s.shutdown_signal = 38;
    s.reboot_signal = 39;
    return s;
}

/// What decoding the bytes does: nothing at all, or an Error with EBADMSG.
template <class T>
bool harmless(const std::string& bytes) {
    try {
        (void)decode<T>(bytes);
    } catch (const Error& e) {
        return e.step() == Step::helper && e.code().value() == EBADMSG;
    }
    return true;
}

}  // namespace

TEST_CASE("a specification comes back from bytes as it was") {
    CHECK(decode<ContainerSpec>(encode(full())) == full());
    CHECK(decode<ContainerSpec>(encode(ContainerSpec{})) == ContainerSpec{});
    ContainerSpec no_console;
    no_console.console.reset();
    CHECK(decode<ContainerSpec>(encode(no_console)) == no_console);
}

TEST_CASE("usage, exit statuses and errors come back from bytes as they were") {
    Usage usage;
    usage.cpu = 5;
    usage.cpu_each = {1, 4};
    usage.cpu_each_missing = "why";
    usage.memory = std::uint64_t{1} << 50;
    usage.cpu_user = 1, usage.cpu_system = 2, usage.cpu_throttled = 3;
    usage.memory_peak = 4, usage.memory_limit = 5, usage.memory_anon = 6, usage.memory_file = 7;
    usage.swap = 8, usage.swap_limit = 9, usage.memory_limit_hits = 10;
    usage.pids = 11, usage.pids_limit = 12, usage.oom_kills = 13;
    usage.block = {{8, 0, 1, 2, 3, 4}};
    usage.networks = {{"eth0", "veth1", 1, 2, 3, 4, 5, 6, 7, 8}};
    usage.cpu_pressure = Pressure{1, 2, 3, 4};
    usage.memory_pressure = Pressure{5, 6, 7, 8};
    usage.io_pressure = Pressure{9, 10, 11, 12};
    CHECK(decode<Usage>(encode(usage)) == usage);

    const auto killed = ExitStatus::killed(9).with_out_of_memory(true).with_core_dumped(true);
    const auto restart = ExitStatus::killed(1).with(ExitStatus::Request::restart);
    for (const ExitStatus status : {ExitStatus::exited(0), ExitStatus::exited(255), killed, restart}) {
        CHECK(decode<detail::PlainStatus>(encode(detail::PlainStatus::of(status))).status() == status);
    }

    const Error error{Step::mount, EPERM, "mount 'proc' on '/proc' (in the child)", "become root"};
    const Error back = decode<detail::PlainError>(encode(detail::PlainError::of(error))).error();
    CHECK(std::string{back.what()} == error.what());
    CHECK(back.step() == error.step());
    CHECK(back.code() == error.code());
    CHECK(back.context() == error.context());
    CHECK(back.remedy() == error.remedy());
}

TEST_CASE("a message that is cut short anywhere, or too long, is refused") {
    const std::string bytes = encode(full());
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        CAPTURE(n);
        CHECK_THROWS_AS((void)decode<ContainerSpec>(bytes.substr(0, n)), Error);
    }
    CHECK_THROWS_AS((void)decode<ContainerSpec>(bytes + '\0'), Error);
    try {
        (void)decode<ContainerSpec>("");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "message of caisson: its length is not as expected: Bad message");
    }
}

TEST_CASE("no flipped bit in a message does more harm than an error") {
    const std::string bytes = encode(full());
    for (std::size_t n = 0; n < bytes.size() * 8; ++n) {
        std::string flipped = bytes;
        flipped[n / 8] = static_cast<char>(flipped[n / 8] ^ (1 << n % 8));
        CAPTURE(n);
        CHECK(harmless<ContainerSpec>(flipped));
    }
}

TEST_CASE("no random bytes do more harm than an error") {
    std::uint32_t state = 1;
    for (int round = 0; round < 20000; ++round) {
        std::string bytes(static_cast<std::size_t>(round % 300), '\0');
        for (char& c : bytes) {
            state = state * 1664525 + 1013904223;
            c = static_cast<char>(round % 2 == 0 ? state >> 24 : state >> 31);
        }
        CHECK(harmless<ContainerSpec>(bytes));
        CHECK(harmless<Usage>(bytes));
        CHECK(harmless<detail::PlainStatus>(bytes));
        CHECK(harmless<detail::PlainError>(bytes));
    }
}

TEST_CASE("a length that promises more than there is takes no memory") {
    std::string bytes = encode(Usage{});
    // cpu_each, behind three absent figures: 4,294,967,295 elements.
    for (std::size_t n = 3; n < 7; ++n) bytes[n] = '\xff';
    CHECK_THROWS_AS((void)decode<Usage>(bytes), Error);
}

TEST_CASE("an enumerator that does not exist is refused") {
    std::string bytes = encode(detail::PlainError{});
    bytes[0] = '\x7f';
    CHECK_THROWS_AS((void)decode<detail::PlainError>(bytes), Error);
    std::string spec = encode(full());
    CHECK_THROWS_AS((void)decode<detail::PlainStatus>(encode(detail::PlainStatus{}).substr(0, 7) + '\x09'), Error);
}
