#include <caisson/detail/path.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <caisson/mount.hpp>

#include "support/doctest.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;
using detail::make_in_root;
using detail::PathKind;
using detail::resolve_in_root;

namespace {
void link(const std::string& text, const std::string& path) {
    if (::symlink(text.c_str(), path.c_str()) != 0) throw std::runtime_error{path};
}

/// A container's root as an attacker would make it, next to what must never be reached.
struct Hostile {
    Scratch scratch;
    std::string outside;
    std::string base;
    Fd root;
    Fd outside_fd;
    Mount proc;
    Mount mounted;

    Hostile() {
        if (!scratch) return;
        outside = scratch.directory("outside");
        base = scratch.directory("root");
        write(outside + "/secret", "secret");
        std::filesystem::create_directories(base + "/dir/sub");
        std::filesystem::create_directories(base + "/proc");
        std::filesystem::create_directories(base + "/mnt/under");
        write(base + "/file", "file");
        link("/dir", base + "/abs");
        link("dir", base + "/rel");
        link("../../../../../dir", base + "/up");
        link(outside, base + "/host");
        link("../outside", base + "/uphost");
        link("/", base + "/self");
        link("nothing", base + "/dangling");
        link("/nothing/at/all", base + "/dangling2");
        link("loop", base + "/loop");
        link("loop2", base + "/loop1");
        link("/loop1", base + "/loop2");
        link("../../../..", base + "/dir/sub/out");
        link("/proc/self/root", base + "/magic");
        link("/proc/self/cwd/..", base + "/magic2");
        link("/file", base + "/tofile");
        for (int i = 1; i <= 45; ++i) {
            link(i == 1 ? "dir" : "chain" + std::to_string(i - 1), base + "/chain" + std::to_string(i));
        }
        root = Fd{::open(base.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
        outside_fd = Fd{::open(outside.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
        proc = Mount::proc();
        proc.attach(base + "/proc");
        mounted = Mount::tmpfs(1 << 20);
        mounted.attach(base + "/mnt");
    }
};

#define HOSTILE(name)   \
    const Hostile name; \
    if (!name.scratch) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN")

std::size_t entries(const std::string& path) {
    std::size_t n = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator{path}) {
        (void)entry;
        ++n;
    }
    return n;
}
}  // namespace

TEST_CASE("no spelling of a path leads out of the root") {
    HOSTILE(h);
    struct Row {
        std::string path;
        std::string expected;  // below the root; empty: `error`
        int error = 0;
    };
    const std::string by_fd = "/proc/self/fd/" + std::to_string(h.outside_fd.get());
    const std::vector<Row> rows{
        {"/", "."},
        {"", "."},
        {".", "."},
        {"..", "."},
        {"../../../../../../..", "."},
        {"/dir", "dir"},
        {"/dir/../dir/./sub", "dir/sub"},
        {"//dir///sub//", "dir/sub"},
        {"/abs", "dir"},
        {"/abs/sub", "dir/sub"},
        {"/rel/sub", "dir/sub"},
        {"/up/sub", "dir/sub"},
        {"/self", "."},
        {"/self/self/self/dir", "dir"},
        {"/dir/sub/out", "."},
        {"/dir/sub/out/../../dir", "dir"},
        {"/tofile", "file"},
        {"/chain40", "dir"},
        {"/mnt/..", "."},
        {"/mnt/../../..", "."},
        {"/../outside", "", ENOENT},
        {"/host", "", ENOENT},
        {"/host/secret", "", ENOENT},
        {"/uphost", "", ENOENT},
        {"/uphost/secret", "", ENOENT},
        {"/dangling", "", ENOENT},
        {"/dangling2", "", ENOENT},
        {"/mnt/under", "", ENOENT},
        {"/loop", "", ELOOP},
        {"/loop/x", "", ELOOP},
        {"/loop1", "", ELOOP},
        {"/chain41", "", ELOOP},
        {"/file/", "", ENOTDIR},
        {"/file/..", "", ENOTDIR},
        {"/tofile/x", "", ENOTDIR},
        {"/proc/self/root", "", ELOOP},
        {"/proc/self/cwd", "", ELOOP},
        {"/proc/self/exe", "", ELOOP},
        {"/proc/thread-self/root/etc", "", ELOOP},
        {by_fd, "", ELOOP},
        {by_fd + "/secret", "", ELOOP},
        {"/magic", "", ELOOP},
        {"/magic/etc", "", ELOOP},
        {"/magic2", "", ELOOP},
        {std::string(256, 'x'), "", ENAMETOOLONG},
        {std::string(5000, '/') + "dir", "", ENAMETOOLONG},
    };
    for (const Row& row : rows) {
        CAPTURE(row.path);
        try {
            const Fd fd = resolve_in_root(h.root.get(), row.path);
            CHECK(row.error == 0);
            CHECK(inode(fd.get()) == inode(h.base + "/" + row.expected));
        } catch (const Error& e) {
            CHECK(e.code().value() == row.error);
            CHECK(std::string{e.what()}.find("path " + detail::quote(row.path) + " in the container: ") == 0);
        }
    }
}

TEST_CASE("what is missing is never made outside, whatever the links say") {
    HOSTILE(h);
    const std::size_t before = entries(h.outside);
    const std::vector<std::string> paths{
        "/host/new",     "/uphost/new",    "/uphost/a/b/c", "/dangling/new", "/dangling",    "/dangling2",
        "/dangling2/x",  "/loop/new",      "/magic/tmp/x",  "/magic2/x",     "/tofile/new",  "/../outside/new",
        "/up/../../new", "/self/self/new", "/abs/new/deep", "/rel/new2",     "/mnt/new/deep"};
    const std::string mounts_before = mounts();
    for (const std::string& path : paths) {
        for (const PathKind kind : {PathKind::directory, PathKind::file}) {
            CAPTURE(path);
            try {
                const Fd fd = make_in_root(h.root.get(), path + (kind == PathKind::file ? "_f" : ""), kind);
                CHECK(detail::path_of(fd.get()).find(h.base) == 0);
            } catch (const Error& e) {
                CHECK(e.step() == Step::mount);
            }
        }
    }
    CHECK(entries(h.outside) == before);
    CHECK_FALSE(exists(h.scratch / "new"));
    CHECK_FALSE(exists("/new"));
    CHECK_FALSE(exists("/nothing"));
    CHECK(exists(h.base + "/new"));           // by "/self/self/new"
    CHECK(exists(h.base + "/dir/new/deep"));  // by "/abs/new/deep"
    CHECK(exists(h.base + "/outside/new"));   // by "/../outside/new"
    CHECK(exists(h.base + "/mnt/new/deep_f"));
    CHECK(mounts() == mounts_before);
}

TEST_CASE("a directory that is swapped with a link all the time never leads out of the root") {
    HOSTILE(h);
    const std::string swap = h.base + "/swap";
    const std::string swapped = h.base + "/swapped";
    std::filesystem::create_directories(swap);
    write(swap + "/secret", "inside");
    link(h.outside, swapped);
    link("../outside", h.base + "/swapped2");
    // The inner tree has no such path, so that a resolution that starts at the host's root would show.
    const std::uint64_t secret = inode(h.outside + "/secret");
    const std::size_t before = entries(h.outside);

    std::atomic<bool> stop{false};
    std::thread attacker{[&] {
        const std::string second = h.base + "/swapped2";
        while (!stop) {
            (void)::renameat2(AT_FDCWD, swap.c_str(), AT_FDCWD, swapped.c_str(), RENAME_EXCHANGE);
            (void)::renameat2(AT_FDCWD, swapped.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE);
        }
    }};
    int inside = 0;
    int refused = 0;
    int leaked = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{1};
    for (int i = 0; std::chrono::steady_clock::now() < end; ++i) {
        for (const char* path : {"/swap/secret", "/swap/../swap/secret"}) {
            try {
                const Fd fd = resolve_in_root(h.root.get(), path);
                ++(inode(fd.get()) == secret ? leaked : inside);
            } catch (const Error&) {
                ++refused;
            }
        }
        try {
            const Fd fd = make_in_root(h.root.get(), "/swap/d" + std::to_string(i % 50) + "/f", PathKind::file);
        } catch (const Error&) {
            ++refused;
        }
    }
    stop = true;
    attacker.join();
    CHECK(leaked == 0);
    CHECK(entries(h.outside) == before);
    // The race took place: both outcomes were met.
    CHECK(inside > 0);
    CHECK(refused > 0);
}

TEST_CASE("a directory that is moved out of the root while '..' is resolved never leads out of it") {
    HOSTILE(h);
    const std::string inner = h.base + "/dir/sub/deep";
    const std::string outer = h.outside + "/deep";
    std::filesystem::create_directories(inner + "/er");
    const std::uint64_t secret = inode(h.outside + "/secret");
    std::atomic<bool> stop{false};
    std::thread mover{[&] {
        while (!stop) {
            (void)::rename(inner.c_str(), outer.c_str());
            (void)::rename(outer.c_str(), inner.c_str());
        }
    }};
    int leaked = 0;
    int met = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{1};
    while (std::chrono::steady_clock::now() < end) {
        for (const char* path : {"/dir/sub/deep/er/../../secret", "/dir/sub/deep/er/../../../outside/secret"}) {
            try {
                const Fd fd = resolve_in_root(h.root.get(), path);
                if (inode(fd.get()) == secret) ++leaked;
            } catch (const Error&) {
                ++met;
            }
        }
    }
    stop = true;
    mover.join();
    CHECK(leaked == 0);
    CHECK(met > 0);
}

TEST_CASE("a parent of mode 0711 that belongs to somebody else is good enough for its owner's container") {
    HOSTILE(h);
    std::filesystem::create_directories(h.base + "/home/x");
    REQUIRE(::chmod((h.base + "/home").c_str(), 0711) == 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (::chown((h.base + "/home/x").c_str(), 1000, 1000) != 0) ::_exit(9);
        if (::setresgid(1000, 1000, 1000) != 0 || ::setresuid(1000, 1000, 1000) != 0) ::_exit(9);
        try {
            (void)make_in_root(h.root.get(), "/home/x/new/dir", PathKind::directory);
        } catch (const Error&) {
            ::_exit(1);
        }
        ::_exit(0);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
    CHECK(exists(h.base + "/home/x/new/dir"));
}

TEST_CASE("who has no id in an id-mapped mount is told so") {
    HOSTILE(h);
    if (!tmpfs_can_be_id_mapped()) CAISSON_SKIP("this kernel cannot id-map a tmpfs");
    Mount m = Mount::bind(h.base, {.recursive = false});
    m.id_map(user_namespace(100000, 1000));
    try {
        (void)make_in_root(m.fd(), "/by root", PathKind::directory);
        FAIL("made");
    } catch (const Error& e) {
        CHECK(std::string{e.what()} ==
              "path '/by root' in the container: Value too large for defined data type: the caller's user has no id in "
              "this mount: use one that is not id-mapped");
    }
}
