#include <caisson/mount.hpp>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <vector>

#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "support/doctest.hpp"
#include "support/sandbox.hpp"

using namespace caisson;
using namespace caisson_test;

#define SCRATCH(name)   \
    const Scratch name; \
    if (!name) CAISSON_SKIP("a mount namespace needs CAP_SYS_ADMIN")

namespace {
template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.step() == Step::mount);
        return e.what();
    }
    return "nothing was thrown";
}
unsigned long flags_of(int fd) {
    struct statvfs st {};
    REQUIRE(::fstatvfs(fd, &st) == 0);
    return st.f_flag;
}
long type_of(int fd) {
    struct statfs st {};
    REQUIRE(::fstatfs(fd, &st) == 0);
    return st.f_type;
}
int make_file_at(int dir, const char* name) {
    const Fd fd{::openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
    return fd ? 0 : errno;
}
int make_file(const std::string& path) {
    return make_file_at(AT_FDCWD, path.c_str());
}
}  // namespace

TEST_CASE("a detached mount changes no mount namespace, and is usable by descriptor") {
    SCRATCH(s);
    {
        const Mount m = Mount::tmpfs(1 << 20);
        CHECK(make_file_at(m.fd(), "here") == 0);
        CHECK((::fcntl(m.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(mounts().find("/here") == std::string::npos);
        CHECK(m.target().empty());
    }
    CHECK(s.unchanged());
}

TEST_CASE("each maker makes the file system of its name") {
    SCRATCH(s);
    CHECK(type_of(Mount::tmpfs(1 << 20).fd()) == TMPFS_MAGIC);
    CHECK(type_of(Mount::proc().fd()) == PROC_SUPER_MAGIC);
    CHECK(type_of(Mount::sysfs().fd()) == SYSFS_MAGIC);
    CHECK(type_of(Mount::mqueue().fd()) == 0x19800202);
    CHECK(type_of(Mount::devpts().fd()) == DEVPTS_SUPER_MAGIC);
    CHECK(type_of(Mount::overlay({s.directory("a"), s.directory("b")}, "", "").fd()) == OVERLAYFS_SUPER_MAGIC);
    CHECK(inode(Mount::bind(s.directory("a")).fd()) == inode(s / "a"));
    CHECK(s.unchanged());
}

TEST_CASE("a tmpfs has the size and the mode that were asked for") {
    SCRATCH(s);
    const Mount m = Mount::tmpfs(64 << 10, {}, 0710);
    struct stat st {};
    REQUIRE(::fstat(m.fd(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0710);
    struct statvfs size {};
    REQUIRE(::fstatvfs(m.fd(), &size) == 0);
    CHECK(size.f_blocks * size.f_frsize == 64 << 10);
    struct statvfs standard {};
    const Mount unsized_one = Mount::tmpfs(0);
    REQUIRE(::fstatvfs(unsized_one.fd(), &standard) == 0);
    CHECK(standard.f_blocks > 0);
}

TEST_CASE("the options are on the mount, and the safe ones by default") {
    SCRATCH(s);
    const unsigned long all = ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC;
    CHECK((flags_of(Mount::tmpfs(1 << 20).fd()) & all) == (ST_NOSUID | ST_NODEV));
    CHECK((flags_of(Mount::bind(s.path()).fd()) & all) == (ST_NOSUID | ST_NODEV));
    const MountOptions strict{.read_only = true, .no_exec = true};
    CHECK((flags_of(Mount::tmpfs(1 << 20, strict).fd()) & all) == all);
    CHECK((flags_of(Mount::bind(s.path(), strict).fd()) & all) == all);
    const MountOptions none{.no_suid = false, .no_dev = false};
    CHECK((flags_of(Mount::bind(s.path(), none).fd()) & all) == 0);
    Mount m = Mount::bind(s.path(), none);
    m.set({.read_only = true, .no_suid = false, .no_dev = false});
    CHECK((flags_of(m.fd()) & all) == ST_RDONLY);
    m.set({.no_suid = false, .no_dev = true});
    CHECK((flags_of(m.fd()) & all) == (ST_RDONLY | ST_NODEV));
}

TEST_CASE("an attached mount is seen at its target until it is detached") {
    SCRATCH(s);
    const std::string target = s.directory("target");
    Mount m = Mount::tmpfs(1 << 20);
    CHECK(make_file_at(m.fd(), "inside") == 0);
    m.attach(target);
    CHECK(m.target() == target);
    CHECK(exists(target + "/inside"));
    m.detach();
    CHECK_FALSE(exists(target + "/inside"));
    CHECK_FALSE(m);
    CHECK(s.unchanged());
}

TEST_CASE("destroying and overwriting unmount silently, and errno is kept") {
    SCRATCH(s);
    const std::string target = s.directory("target");
    {
        Mount m = Mount::tmpfs(1 << 20);
        m.attach(target);
        errno = ENOTTY;
        { const Mount gone{std::move(m)}; }
        CHECK(errno == ENOTTY);
    }
    CHECK(s.unchanged());
    {
        Mount m = Mount::tmpfs(1 << 20);
        m.attach(target);
        const Fd open_file{::open(target.c_str(), O_RDONLY | O_CLOEXEC)};  // busy, and unmounted all the same
        m = Mount{};
    }
    CHECK(s.unchanged());
    {
        Mount m = Mount::tmpfs(1 << 20);
        m.attach(target);
        REQUIRE(::umount2(target.c_str(), MNT_DETACH) == 0);
        errno = ENOTTY;
        { const Mount gone_already{std::move(m)}; }
        CHECK(errno == ENOTTY);
    }
    Mount unmounted = Mount::tmpfs(1 << 20);
    unmounted.attach(target);
    REQUIRE(::umount2(target.c_str(), 0) == -1);  // busy: the object holds it
    REQUIRE(::umount2(target.c_str(), MNT_DETACH) == 0);
    CHECK(error_of([&] { unmounted.detach(); }) ==
          "unmount '" + target + "': Invalid argument: it is not mounted in the caller's mount namespace");
}

TEST_CASE("a moved mount is unmounted once, by its last owner") {
    SCRATCH(s);
    const std::string target = s.directory("target");
    {
        Mount a = Mount::tmpfs(1 << 20);
        a.attach(target);
        Mount b{std::move(a)};
        CHECK_FALSE(a);
        CHECK(a.target().empty());
        a = Mount{};
        CHECK_FALSE(s.unchanged());
        Mount& same = b;
        b = std::move(same);
        CHECK(b.target() == target);
        CHECK_FALSE(s.unchanged());
    }
    CHECK(s.unchanged());
}

TEST_CASE("a released mount stays where it is") {
    SCRATCH(s);
    const std::string target = s.directory("target");
    {
        Mount m = Mount::tmpfs(1 << 20);
        CHECK(make_file_at(m.fd(), "inside") == 0);
        m.attach(target);
        const Fd fd = m.release();
        CHECK(fd);
        CHECK_FALSE(m);
    }
    CHECK(exists(target + "/inside"));
    REQUIRE(::umount2(target.c_str(), 0) == 0);
    CHECK(s.unchanged());
}

TEST_CASE("a mount can be placed by descriptor, and moved") {
    SCRATCH(s);
    const std::string first = s.directory("first");
    const std::string second = s.directory("second");
    const Fd place{::open(first.c_str(), O_PATH | O_CLOEXEC)};
    Mount m = Mount::tmpfs(1 << 20);
    CHECK(make_file_at(m.fd(), "inside") == 0);
    m.attach(place.get());
    CHECK(m.target() == first);
    CHECK(exists(first + "/inside"));
    m.attach(second);
    CHECK(m.target() == second);
    CHECK_FALSE(exists(first + "/inside"));
    CHECK(exists(second + "/inside"));
}

TEST_CASE("a target that is not there or of the other kind is named, and the mount stays detached") {
    SCRATCH(s);
    REQUIRE(make_file(s / "file") == 0);
    Mount m = Mount::tmpfs(1 << 20);
    CHECK(error_of([&] { m.attach(s / "none"); }) ==
          "mount 'tmpfs' on '" + s.path() + "/none': No such file or directory: the target must exist");
    CHECK(error_of([&] { m.attach(s / "file"); }) ==
          "mount 'tmpfs' on '" + s.path() +
              "/file': Invalid argument: a directory goes on a directory, and a file on "
              "a file");
    CHECK(m.target().empty());
    Mount file = Mount::bind(s / "file");
    CHECK(error_of([&] { file.attach(s.directory("dir")); }) ==
          "bind '" + s.path() + "/file' on '" + s.path() +
              "/dir': Invalid argument: a directory goes on a directory, and a file on a file");
}

TEST_CASE("a bind shows a directory or a file, by path or by descriptor") {
    SCRATCH(s);
    REQUIRE(write(s / "file", "text"));
    REQUIRE(make_file(s / "place") == 0);
    Mount m = Mount::bind(s / "file");
    m.attach(s / "place");
    CHECK(content(s / "place") == "text");
    m.detach();
    const Fd dir{::open(s.directory("d").c_str(), O_PATH | O_CLOEXEC)};
    const Mount by_descriptor = Mount::bind(dir.get());
    CHECK(make_file_at(by_descriptor.fd(), "new") == 0);
    CHECK(exists(s / "d/new"));
}

TEST_CASE("a read-only bind is read-only for the mounts below it too, and leaves the source alone") {
    SCRATCH(s);
    const std::string source = s.directory("source");
    Mount below = Mount::tmpfs(1 << 20);
    below.attach(s.directory("source/below"));
    {
        const Mount m = Mount::bind(source, {.read_only = true});
        CHECK(make_file_at(m.fd(), "x") == EROFS);
        CHECK(make_file_at(m.fd(), "below/x") == EROFS);
        CHECK((flags_of(m.fd()) & ST_NOSUID) != 0);
        CHECK(make_file(source + "/x") == 0);
        CHECK(make_file(source + "/below/x") == 0);
    }
    Mount m = Mount::bind(source);
    CHECK(make_file_at(m.fd(), "below/y") == 0);
    m.set({.read_only = true});
    CHECK(make_file_at(m.fd(), "below/z") == EROFS);
}

TEST_CASE("a bind that is not recursive shows the directory without what is mounted below it") {
    SCRATCH(s);
    const std::string source = s.directory("source");
    Mount below = Mount::tmpfs(1 << 20);
    below.attach(s.directory("source/below"));
    REQUIRE(make_file(source + "/below/mounted") == 0);
    const Mount single = Mount::bind(source, {.recursive = false});
    CHECK(::faccessat(single.fd(), "below/mounted", F_OK, 0) != 0);
    const Mount whole = Mount::bind(source);
    CHECK(::faccessat(whole.fd(), "below/mounted", F_OK, 0) == 0);
}

TEST_CASE("nothing that is mounted in a bind reaches the source, nor the other way, even where the source is shared") {
    SCRATCH(s);
    const std::string source = s.directory("source");
    REQUIRE(::mount("shared", source.c_str(), "tmpfs", 0, nullptr) == 0);
    REQUIRE(::mount("none", source.c_str(), nullptr, MS_SHARED, nullptr) == 0);
    REQUIRE(::mkdir((source + "/d").c_str(), 0755) == 0);
    {
        Mount m = Mount::bind(source);
        const std::string seen = s.directory("seen");
        m.attach(seen);
        Mount inner = Mount::tmpfs(1 << 20);
        inner.attach(seen + "/d");
        REQUIRE(make_file(seen + "/d/from bind") == 0);
        CHECK_FALSE(exists(source + "/d/from bind"));
        inner.detach();
        Mount outer = Mount::tmpfs(1 << 20);
        outer.attach(source + "/d");
        REQUIRE(make_file(source + "/d/from source") == 0);
        CHECK_FALSE(exists(seen + "/d/from source"));
    }
    REQUIRE(::umount2(source.c_str(), MNT_DETACH) == 0);
    CHECK(s.unchanged());
}

TEST_CASE("an id-mapped bind shifts the owners, in both directions") {
    SCRATCH(s);
    if (!tmpfs_can_be_id_mapped()) CAISSON_SKIP("this kernel cannot id-map a tmpfs");
    REQUIRE(make_file(s / "file") == 0);
    REQUIRE(::chown((s / "file").c_str(), 5, 7) == 0);
    Mount m = Mount::bind(s.path());
    m.id_map(user_namespace(100000, 65536));
    struct stat st {};
    REQUIRE(::fstatat(m.fd(), "file", &st, 0) == 0);
    CHECK(st.st_uid == 100005);
    CHECK(st.st_gid == 100007);
    REQUIRE(::fchownat(m.fd(), "file", 100009, 100009, 0) == 0);
    REQUIRE(::stat((s / "file").c_str(), &st) == 0);
    CHECK(st.st_uid == 9);
    CHECK(error_of([&] {
              m.id_map(user_namespace(200000, 65536));
          }).find("Operation not permitted: this needs CAP_SYS_ADMIN over the file system") != std::string::npos);
}

TEST_CASE("a file system that cannot be id-mapped is named, with the remedy") {
    SCRATCH(s);
    const Namespace user = user_namespace(100000, 65536);
    Mount proc = Mount::proc();
    CHECK(error_of([&] { proc.id_map(user); }) ==
          "id-map mount 'proc' (file system proc): Invalid argument: the file system cannot be id-mapped: map its "
          "layers, or chown the root to the range");
    Mount inner = Mount::proc();
    inner.attach(s.directory("proc"));
    Mount tree = Mount::bind(s.path());
    CHECK(
        error_of([&] { tree.id_map(user); }) ==
        "id-map bind '" + s.path() +
            "' (file system tmpfs): Invalid argument: the file system cannot be id-mapped: "
            "map its layers, or chown the root to the range; if it is one that is mounted below, bind with 'recursive' "
            "off");
    Mount single = Mount::bind(s.path(), {.recursive = false});
    if (tmpfs_can_be_id_mapped()) CHECK_NOTHROW(single.id_map(user));
}

TEST_CASE("id-mapping by another kind of namespace, or of an attached mount, is wrong use") {
    SCRATCH(s);
    Mount m = Mount::tmpfs(1 << 20);
    CHECK_THROWS_AS(m.id_map(Namespace::current(NamespaceKind::net)), std::logic_error);
    m.attach(s.directory("target"));
    CHECK_THROWS_AS(m.id_map(Namespace::current(NamespaceKind::user)), std::logic_error);
}

TEST_CASE("an overlay takes directories of any name, and writes to the upper one") {
    SCRATCH(s);
    const std::string nasty = "a:b,c\\d e=";
    REQUIRE(write(s.directory(nasty) + "/top", "top"));
    REQUIRE(write(s / (nasty + "/both"), "top"));
    REQUIRE(write(s.directory("lower2") + "/both", "bottom"));
    REQUIRE(write(s / "lower2/bottom", "bottom"));
    Mount m = Mount::overlay({s / nasty, s / "lower2"}, s.directory("u:,\\"), s.directory("w,"));
    m.attach(s.directory("merged"));
    CHECK(content(s / "merged/top") == "top");
    CHECK(content(s / "merged/both") == "top");
    CHECK(content(s / "merged/bottom") == "bottom");
    REQUIRE(write(s / "merged/new", "new"));
    CHECK(content(s / "u:,\\/new") == "new");
    m.detach();
    MountSpec spec;
    spec.type = MountSpec::Type::overlay;
    spec.source = s.path() + "/a\\:b,c\\\\d e=:" + (s / "lower2");
    const Mount read_only = Mount::make(spec);
    CHECK(::faccessat(read_only.fd(), "top", F_OK, 0) == 0);
    CHECK(make_file_at(read_only.fd(), "x") == EROFS);
}

TEST_CASE("an overlay of many layers keeps their order") {
    SCRATCH(s);
    std::vector<std::string> lower;
    for (int i = 0; i < 40; ++i) {
        lower.push_back(s.directory("a rather long name of a layer number " + std::to_string(i)));
        REQUIRE(write(lower.back() + "/who", std::to_string(i)));
    }
    const std::string most = error_of([&] { (void)Mount::overlay(lower, "", ""); });
    if (most.find("before Linux 6.8") != std::string::npos) {
        CHECK(most ==
              "mount 'overlay': 40 lower directories: Argument list too long: before Linux 6.8 there is room for about "
              "ten: use fewer");
        lower.resize(9);
    }
    Mount m = Mount::overlay(lower, "", "");
    m.attach(s.directory("merged"));
    CHECK(content(s / "merged/who") == "0");
}

TEST_CASE("an overlay takes its layers by descriptor too, also those of detached mounts") {
    SCRATCH(s);
    REQUIRE(write(s.directory("a") + "/a", "a"));
    REQUIRE(write(s.directory("b") + "/b", "b"));
    const Fd a{::open((s / "a").c_str(), O_PATH | O_CLOEXEC)};
    const Fd b{::open((s / "b").c_str(), O_PATH | O_CLOEXEC)};
    const Mount attached = Mount::overlay(detail::OverlayLayers{{a.get(), b.get()}});
    CHECK(::faccessat(attached.fd(), "a", F_OK, 0) == 0);
    CHECK(::faccessat(attached.fd(), "b", F_OK, 0) == 0);
    const Mount below = Mount::bind(s / "a");
    const Mount memory = Mount::tmpfs(1 << 20);
    REQUIRE(::mkdirat(memory.fd(), "upper", 0755) == 0);
    REQUIRE(::mkdirat(memory.fd(), "work", 0755) == 0);
    const Fd upper{::openat(memory.fd(), "upper", O_PATH | O_CLOEXEC)};
    const Fd work{::openat(memory.fd(), "work", O_PATH | O_CLOEXEC)};
    try {
        const Mount detached = Mount::overlay(detail::OverlayLayers{{below.fd()}, upper.get(), work.get()});
        CHECK(make_file_at(detached.fd(), "new") == 0);
        CHECK_FALSE(exists(s / "a/new"));
    } catch (const Error& e) {
        CHECK(std::string{e.what()}.find("needs Linux 6.15") != std::string::npos);
    }
}

TEST_CASE("a layer that the kernel does not take is told with the kernel that takes more") {
    SCRATCH(s);
    Mount unbindable = Mount::tmpfs(1 << 20);
    unbindable.attach(s.directory("unbindable"));
    REQUIRE(::mount("none", (s / "unbindable").c_str(), nullptr, MS_UNBINDABLE, nullptr) == 0);
    const Fd layer{::open((s / "unbindable").c_str(), O_PATH | O_CLOEXEC)};
    const Fd other{::open(s.directory("other").c_str(), O_PATH | O_CLOEXEC)};
    const std::string text = error_of([&] { (void)Mount::overlay(detail::OverlayLayers{{layer.get(), other.get()}}); });
    CAPTURE(text);
    CHECK(text.find("mount 'overlay'") == 0);
    CHECK(text.find("Invalid argument: a directory that is id-mapped, in memory or in an image needs Linux 6.15") !=
          std::string::npos);
}

TEST_CASE("an overlay's missing layer is named with its role") {
    SCRATCH(s);
    const std::string a = s.directory("a");
    const std::string end = "': No such file or directory";
    CHECK(error_of([&] {
              (void)Mount::overlay({a, s / "none"}, "", "");
          }) == "mount 'overlay': lower directory '" + s.path() + "/none" + end);
    CHECK(error_of([&] { (void)Mount::overlay({a}, s / "none", a); }) ==
          "mount 'overlay': upper directory '" + s.path() + "/none" + end);
    CHECK(error_of([&] { (void)Mount::overlay({a}, a, s / "none"); }) ==
          "mount 'overlay': work directory '" + s.path() + "/none" + end);
    CHECK(s.unchanged());
}

TEST_CASE("a spec becomes the mount that it describes") {
    SCRATCH(s);
    MountSpec tmpfs = MountSpec::tmpfs("/t", 64 << 10, {.read_only = true});
    tmpfs.data = "size=64k,,mode=0700";
    const Mount m = Mount::make(tmpfs);
    struct stat st {};
    REQUIRE(::fstat(m.fd(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0700);
    CHECK((flags_of(m.fd()) & ST_RDONLY) != 0);
    const Mount b = Mount::make(MountSpec::bind(s.path(), "/b", {.no_exec = true}));
    CHECK(inode(b.fd()) == inode(s.path()));
    CHECK((flags_of(b.fd()) & ST_NOEXEC) != 0);
    MountSpec devpts;
    devpts.type = MountSpec::Type::devpts;
    devpts.data = "max=1,ptmxmode=0600";
    const Mount d = Mount::make(devpts);
    CHECK((flags_of(d.fd()) & ST_NODEV) == 0);
    REQUIRE(::fstatat(d.fd(), "ptmx", &st, 0) == 0);
    CHECK((st.st_mode & 07777) == 0600);
}

TEST_CASE("an option that the file system refuses is named, with the driver's own words") {
    SCRATCH(s);
    MountSpec spec = MountSpec::tmpfs("/t", 0);
    spec.data = "size=abc";
    CHECK(error_of([&] { (void)Mount::make(spec); }) ==
          "mount 'tmpfs': option 'size=abc': tmpfs: Bad value for 'size': Invalid argument");
    spec.data = "frob";
    CHECK(error_of([&] { (void)Mount::make(spec); }) ==
          "mount 'tmpfs': option 'frob': tmpfs: Unknown parameter 'frob': Invalid argument");
    spec.data = "frob\\,ni=cate";
    CHECK(error_of([&] { (void)Mount::make(spec); }).find("option 'frob,ni=cate'") != std::string::npos);
    spec.data = "mode=0755,noexec";
    CHECK(error_of([&] { (void)Mount::make(spec); }) ==
          "mount 'tmpfs': option 'noexec': tmpfs: Unknown parameter 'noexec': Invalid argument: this is set in "
          "MountOptions, not among the data");
    CHECK(s.unchanged());
}

TEST_CASE("without CAP_SYS_ADMIN each maker says what is missing") {
    SCRATCH(s);
    const std::string expected = "mount 'tmpfs': Operation not permitted: this needs CAP_SYS_ADMIN";
    const std::string bind = "bind '/': Operation not permitted: this needs CAP_SYS_ADMIN";
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (::setresuid(65534, 65534, 65534) != 0) ::_exit(9);
        const auto text = [](auto&& f) -> std::string {
            try {
                f();
            } catch (const Error& e) {
                return e.what();
            }
            return "";
        };
        if (text([] { (void)Mount::tmpfs(1); }) != expected) ::_exit(1);
        if (text([] { (void)Mount::bind("/"); }) != bind) ::_exit(2);
        ::_exit(0);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}
