// Family E: ids, capabilities and who may have them.
#include <caisson/check.hpp>
#include <caisson/container.hpp>
#include <caisson/helper.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"
#include "support/promises.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

std::string hex(std::uint64_t bits) {
    char text[32];
    (void)std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(bits));
    return text;
}

/// What the kernel says of a map: 0, or the error of writing it.
int kernel_takes(const std::vector<IdMap>& maps) {
    std::string text;
    for (const IdMap& m : maps) {
        text += std::to_string(m.inside) + " " + std::to_string(m.outside) + " " + std::to_string(m.count) + "\n";
    }
    const auto pid = static_cast<pid_t>(::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (pid == 0) {
        for (;;) ::pause();
    }
    if (pid < 0) return errno;
    const Fd file{::open(("/proc/" + std::to_string(pid) + "/uid_map").c_str(), O_WRONLY | O_CLOEXEC)};
    const int error = ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : errno;
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
    return error;
}

/// What user_namespaces(7) says, pair by pair.
bool rules_allow(const std::vector<IdMap>& maps) {
    const auto meet = [](std::uint64_t a, std::uint64_t n, std::uint64_t b, std::uint64_t m) {
        return a < b + m && b < a + n;
    };
    for (std::size_t i = 0; i < maps.size(); ++i) {
        const IdMap& a = maps[i];
        const std::uint64_t last = 0xffffffff;
        if (a.count == 0 || std::uint64_t{a.inside} + a.count > last || std::uint64_t{a.outside} + a.count > last) {
            return false;
        }
        for (std::size_t j = 0; j < i; ++j) {
            const IdMap& b = maps[j];
            if (meet(a.inside, a.count, b.inside, b.count) || meet(a.outside, a.count, b.outside, b.count))
                return false;
        }
    }
    return !maps.empty() && maps.size() <= 340;
}

std::string refusal_of(const std::vector<IdMap>& maps) {
    try {
        check_id_maps(maps, "uid_map");
        return "";
    } catch (const Error& e) {
        return e.what();
    }
}

/// File capabilities of a program, as setcap(8) writes them.
bool set_file_capabilities(const std::string& file, std::uint64_t permitted, std::uint64_t inheritable,
                           bool effective) {
    vfs_cap_data data{};
    data.magic_etc = VFS_CAP_REVISION_2 | (effective ? VFS_CAP_FLAGS_EFFECTIVE : 0u);
    for (int i = 0; i < 2; ++i) {
        data.data[i].permitted = static_cast<std::uint32_t>(permitted >> (32 * i));
        data.data[i].inheritable = static_cast<std::uint32_t>(inheritable >> (32 * i));
    }
    return ::setxattr(file.c_str(), "security.capability", &data, sizeof data, 0) == 0;
}

}  // namespace

TEST_CASE("CVE-2014-8989: the host's supplementary groups are not the container's, which may set its own") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory directory;
    const int result = in_child([&] {
        const gid_t groups[] = {4, 27, 4321};
        if (::setgroups(3, groups) != 0) return 90;
        for (const bool user : {true, false}) {
            for (const std::uint32_t uid : {0u, 1000u}) {
                ContainerSpec spec =
                    with_user(shell(root, "grep Groups: /proc/self/status; cat /proc/self/setgroups"), user);
                spec.uid = spec.gid = uid;
                const std::string text = attempt(spec);
                if (text != "Groups:\t \nallow\n") {
                    std::fprintf(stderr, "%s", text.c_str());
                    return 1;
                }
            }
        }
        return 0;
    });
    CHECK(result == 0);
}

TEST_CASE("CVE-2018-18955: of 10,000 id maps exactly those are taken that the kernel takes and that have a root") {
    if (::geteuid() != 0) CAISSON_SKIP("needs root");
    const LeavesNothing nothing;
    std::mt19937 random{20181895};
    const std::uint32_t edges[] = {0,      1,          2,          999,        1000,       65535,      65536,
                                   100000, 0x7ffffffe, 0x7fffffff, 0x80000000, 0xfffffffd, 0xfffffffe, 0xffffffff};
    const auto number = [&]() -> std::uint32_t {
        switch (random() % 4) {
            case 0: return edges[random() % std::size(edges)];
            case 1: return edges[random() % std::size(edges)] + static_cast<std::uint32_t>(random() % 5) - 2;
            case 2: return static_cast<std::uint32_t>(random() % 3000);
            default: return static_cast<std::uint32_t>(random());
        }
    };
    const int asked = rounds(500, 10'000);
    int taken = 0;
    for (int i = 0; i < 10'000; ++i) {
        std::vector<IdMap> maps(1 + random() % 8);
        for (std::size_t j = 0; j < maps.size(); ++j) {
            // Small neighbours, or nearly every set of more than one would be refused.
            const bool small = random() % 4 != 0;
            maps[j] = small ? IdMap{static_cast<std::uint32_t>(j * 10 + random() % 10),
                                    static_cast<std::uint32_t>(j * 1000 + random() % 1000),
                                    static_cast<std::uint32_t>(random() % 9)}
                            : IdMap{number(), number(), number()};
        }
        if (random() % 2 == 0) maps[0].inside = 0;
        std::shuffle(maps.begin(), maps.end(), random);
        std::string text;
        for (const IdMap& m : maps) {
            text +=
                "{" + std::to_string(m.inside) + "," + std::to_string(m.outside) + "," + std::to_string(m.count) + "}";
        }
        CAPTURE(text);
        const bool has_root = std::any_of(maps.begin(), maps.end(), [](const IdMap& m) { return m.inside == 0; });
        const std::string refusal = refusal_of(maps);
        CAPTURE(refusal);
        const bool allowed = rules_allow(maps);
        CHECK(refusal.empty() == (allowed && has_root));
        CHECK((refusal.empty() || contains(refusal, "uid_map")));
        if (i < asked) CHECK((kernel_takes(maps) == 0) == allowed);
        taken += refusal.empty() ? 1 : 0;
    }
    CHECK(taken > 1000);
    CHECK(taken < 9000);
}

TEST_CASE("CVE-2018-18955: with six lines and with 340 an id inside is the one that its line says") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const std::uint32_t lines : {6u, 340u}) {
        ContainerSpec spec = shell(root, "stat -c '%u %g' /first /last /none; wc -l < /proc/self/uid_map");
        for (std::uint32_t i = 0; i < lines; ++i) spec.uid_map.push_back({i, 1000 + 2 * i, 1});
        spec.gid_map = spec.uid_map;
        for (const auto& [name, id] :
             {std::pair{"/first", 1000u}, {"/last", 1000 + 2 * (lines - 1)}, {"/none", 1001u}}) {
            root.write(name, "");
            REQUIRE(::chown((root / name).c_str(), id, id) == 0);
        }
        const std::string last = std::to_string(lines - 1);
        CHECK(attempt(spec) == "0 0\n" + last + " " + last + "\n65534 65534\n" + std::to_string(lines) + "\n");
    }
}

TEST_CASE("CVE-2022-29162, CVE-2022-27650, CVE-2022-27649, CVE-2022-24769: nothing is inheritable or ambient") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::uint64_t application = CapabilitySet::application().bits();
    for (const bool user : {true, false}) {
        for (const std::uint32_t uid : {0u, 1000u}) {
            ContainerSpec spec = with_user(shell(root, "grep -E '^(Cap|NoNew)' /proc/1/status"), user);
            spec.uid = spec.gid = uid;
            const std::string held = hex(uid == 0 ? application : 0);
            CHECK(attempt(spec) == "CapInh:\t" + hex(0) + "\nCapPrm:\t" + held + "\nCapEff:\t" + held + "\nCapBnd:\t" +
                                       hex(application) + "\nCapAmb:\t" + hex(0) + "\nNoNewPrivs:\t1\n");
        }
    }
}

TEST_CASE("CVE-2022-29162: a program with file capabilities gains nothing that the container does not have") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const std::uint64_t raw = CapabilitySet::of({"net_raw"}).bits();
    const std::uint64_t bind = CapabilitySet::of({"net_bind_service"}).bits();
    const auto capabilities_of = [&](bool no_new_privileges) {
        ContainerSpec spec = with_user(shell(root, "/bin/busybox2 grep CapPrm /proc/self/status 2>&1"), false);
        spec.uid = spec.gid = 1000;
        spec.no_new_privileges = no_new_privileges;
        return attempt(spec);
    };
    root.copy(root / "/bin/busybox", "/bin/busybox2");
    REQUIRE(set_file_capabilities(root / "/bin/busybox2", 0, raw | bind, true));
    CHECK(capabilities_of(false) == "CapPrm:\t" + hex(0) + "\n");
    // The bounding set has it: gained where privileges may be, and not where they may not.
    REQUIRE(set_file_capabilities(root / "/bin/busybox2", bind, 0, true));
    CHECK(capabilities_of(false) == "CapPrm:\t" + hex(bind) + "\n");
    CHECK(capabilities_of(true) == "CapPrm:\t" + hex(0) + "\n");
    REQUIRE(set_file_capabilities(root / "/bin/busybox2", raw, 0, false));
    CHECK(capabilities_of(false) == "CapPrm:\t" + hex(0) + "\n");
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CAISSON_TEST_ASAN
#endif
#endif
#if defined(CAISSON_TEST_ASAN)
constexpr bool has_address_sanitizer = true;
#else
constexpr bool has_address_sanitizer = false;
#endif

TEST_CASE("CVE-2020-5291, CVE-2016-8659, CVE-2026-41163: a setuid program that is still its caller's starts nothing") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory directory;
    const std::string copy = directory / "starter";
    if (!std::filesystem::exists(program("one_start"))) CAISSON_SKIP("tests/one_start is built with libmnl only");
    std::filesystem::copy_file(program("one_start"), copy);
    const auto said_by_nobody = [&](mode_t mode) {
        REQUIRE(::chmod(copy.c_str(), mode) == 0);
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        const pid_t child = ::fork();
        if (child == 0) {
            (void)::dup2(ends[1], 1);
            if (::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0) {
                (void)::execl(copy.c_str(), "starter", "start", root.path().c_str(), "-", "user", nullptr);
            }
            ::_exit(99);
        }
        (void)::close(ends[1]);
        const Fd from{ends[0]};
        std::string text;
        char buffer[4096];
        for (ssize_t n = 0; (n = ::read(from.get(), buffer, sizeof buffer)) > 0;) {
            text.append(buffer, static_cast<std::size_t>(n));
        }
        (void)::waitpid(child, nullptr, 0);
        return text;
    };
    const std::string refusal =
        "container 'walk': the program's ids: Operation not permitted: it is setuid or setgid and still its caller's: "
        "set the real ids to the effective ones first, or start containers from another program\n";
    CHECK(contains(said_by_nobody(04755), refusal));
    // The address sanitizer cannot look at itself there: /proc/self is then root's.
    if (!has_address_sanitizer) CHECK(contains(said_by_nobody(02755), refusal));
    CHECK_FALSE(contains(said_by_nobody(0755), "it is setuid"));
}

TEST_CASE("CVE-2016-3697, CVE-2026-30892, CVE-2024-40635: what names a user is a number or a name, and nothing else") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    // The root's owner calls users as numbers that others may be meant by, and gives them what it likes.
    root.write(
        "/etc/passwd",
        "root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n0:x:1000:1000::/:/bin/sh\n1:x:0:0::/:/bin/sh\n"
        "01:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n+1:x:0:0::/:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n"
        "4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n0x1:x:0:0::/:/bin/sh\n1000x:x:0:0::/:/bin/sh\n"
        " 1:x:0:0::/:/bin/sh\n1 :x:0:0::/:/bin/sh\n:x:0:0::/:/bin/sh\nneg:x:-1:0::/:/bin/sh\n"
        "big:x:4294967296:0::/:/bin/sh\nmax:x:4294967295:0::/:/bin/sh\nhex:x:0x10:0::/:/bin/sh\n"
        "octal:x:010:0::/:/bin/sh\nnone:x::0::/:/bin/sh\nspace:x: 5:0::/:/bin/sh\nsigned:x:+5:0::/:/bin/sh\n"
        "tail:x:5x:0::/:/bin/sh\ngroupless:x:5:::/:/bin/sh\nshort:x:5\nbob:x:1002:-1::/:/bin/sh\n");
    struct Row {
        const char* user;
        const char* group;
        const char* ids;  // "uid:gid"; empty: refused
    };
    const std::vector<Row> rows{
        {"0", "", "0:0"},
        {"1", "", "1:0"},
        {"65535", "", "65535:0"},
        {"1000", "", "1000:0"},
        {"alice", "", "1000:1001"},
        {"alice", "0", "1000:0"},
        {"alice", "7", "1000:7"},
        {"1", "2", "1:2"},
        {"root", "", "0:0"},
        {"", "", "0:0"},
        {"", "5", "0:5"},
        {"", "root", "0:0"},
        {"00", "", ""},
        {"01", "", ""},
        {"010", "", ""},
        {"+1", "", ""},
        {"-1", "", ""},
        {"-0", "", ""},
        {"--1", "", ""},
        {" 1", "", ""},
        {"1 ", "", ""},
        {"1\n", "", ""},
        {"\t1", "", ""},
        {"1:", "", ""},
        {":1", "", ""},
        {"1:2", "", ""},
        {"1:2:3", "", ""},
        {":", "", ""},
        {"alice:", "", ""},
        {"alice:x", "", ""},
        {"1000x", "", ""},
        {"x1000", "", ""},
        {"0x1", "", ""},
        {"0x10", "", ""},
        {"1e3", "", ""},
        {"1.0", "", ""},
        {"1,2", "", ""},
        {"1_000", "", ""},
        {"2147483647", "", ""},
        {"2147483648", "", ""},
        {"4294967294", "", ""},
        {"4294967295", "", ""},
        {"4294967296", "", ""},
        {"4294967297", "", ""},
        {"18446744073709551616", "", ""},
        {"99999999999999999999", "", ""},
        {"neg", "", ""},
        {"big", "", ""},
        {"max", "", ""},
        {"hex", "", ""},
        {"octal", "", ""},
        {"none", "", ""},
        {"space", "", ""},
        {"signed", "", ""},
        {"tail", "", ""},
        {"groupless", "", ""},
        {"short", "", ""},
        {"bob", "", ""},
        {"carol", "", ""},
        {"ALICE", "", ""},
        {"alic", "", ""},
        {"alice\nroot", "", ""},
        {"../root", "", ""},
        {"*", "", ""},
        {"%s", "", ""},
        {"", "-1", ""},
        {"", "01", ""},
        {"", "4294967295", ""},
        {"", "alice", ""},
        {"", " 0", ""},
        {"1", "1:2", ""},
        {"\xd9\xa1", "", ""},
    };
    CHECK(rows.size() >= 60);
    for (const Row& row : rows) {
        ContainerSpec spec = shell(root, "exec 2>/dev/null; echo $(id -u):$(id -g)");
        spec.user = row.user;
        spec.group = row.group;
        const std::string user = row.user;
        const std::string group = row.group;
        CAPTURE(user);
        CAPTURE(group);
        const std::string text = attempt(spec);
        CAPTURE(text);
        if (*row.ids != 0) CHECK(text == std::string{row.ids} + "\n");
        else
            CHECK(text.starts_with("container 'test': " +
                                   std::string{user.empty() || group == "1:2" ? "group" : "user"}));
    }
}

TEST_CASE("CVE-2021-41091: what the library keeps on the host's file systems is its owner's alone") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Place place;
    Helper helper = [&] {
        // A host that masks nothing.
        struct Unmasked {
            mode_t before = ::umask(0);
            ~Unmasked() { (void)::umask(before); }
        };
        const Unmasked unmasked;
        return Helper::start(place.spec("web"), place.options);
    }();
    int seen = 0;
    const auto check_mode = [&](const std::string& path) {
        struct stat st {};
        REQUIRE(::lstat(path.c_str(), &st) == 0);
        CAPTURE(path);
        CHECK((st.st_mode & 07077) == 0);
        CHECK(st.st_uid == ::geteuid());
        ++seen;
    };
    check_mode(place.run);
    for (const auto& entry : std::filesystem::recursive_directory_iterator{place.run}) check_mode(entry.path());
    CHECK(seen >= 4);
    struct stat st {};
    REQUIRE(::stat("/run/caisson/id-ranges", &st) == 0);
    CHECK((st.st_mode & 07777) == 0600);
    REQUIRE(::stat("/run/caisson", &st) == 0);
    CHECK((st.st_mode & 0022) == 0);
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("a first process that is no root dies with its keeper all the same, without anybody's help") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool user : {true, false}) {
        ContainerSpec spec =
            with_user(shell(root, "trap '' TERM HUP INT; echo re\"\"ady; while :; do sleep 100; done"), user);
        // A change of ids takes the parent-death signal away.
        spec.uid = 1000;
        spec.gid = 1001;
        Container container = Container::start(spec);
        std::string said;
        for (char c = 0; !contains(said, "ready") && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
        const int keeper = std::stoi(keeper_directory(container).substr(6));
        REQUIRE(::kill(keeper, SIGKILL) == 0);
        CHECK(container.init().ended_within(dead_within));
        CHECK(container.wait() == ExitStatus::killed(SIGKILL));
    }
}
