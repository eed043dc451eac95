#include <caisson/detail/path.hpp>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/doctest.hpp"

using namespace caisson;
using detail::make_in_root;
using detail::PathKind;
using detail::resolve_in_root;

namespace {
/// A directory tree of the test's own, as any user can make it.
struct Tree {
    std::string path;
    Fd root;
    Tree() {
        char name[] = "/tmp/caisson-test-XXXXXX";
        if (::mkdtemp(name) != nullptr) path = name;
        root = Fd{::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    }
    ~Tree() { std::filesystem::remove_all(path); }
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;
    [[nodiscard]] std::string operator/(const std::string& name) const { return path + "/" + name; }
};
ino_t inode(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}
ino_t inode(const Fd& fd) {
    struct stat st {};
    return ::fstat(fd.get(), &st) == 0 ? st.st_ino : 0;
}
mode_t mode(const std::string& path) {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0 ? st.st_mode : 0;
}
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
}  // namespace

TEST_CASE("a path is resolved from the container's root, absolute or not, and the empty one is the root") {
    const Tree t;
    std::filesystem::create_directories(t / "a/b");
    CHECK(inode(resolve_in_root(t.root.get(), "/a/b")) == inode(t / "a/b"));
    CHECK(inode(resolve_in_root(t.root.get(), "a/b/")) == inode(t / "a/b"));
    CHECK(inode(resolve_in_root(t.root.get(), "")) == inode(t.path));
    CHECK(inode(resolve_in_root(t.root.get(), "/")) == inode(t.path));
    CHECK(inode(resolve_in_root(t.root.get(), "/../../..")) == inode(t.path));
    const Fd fd = resolve_in_root(t.root.get(), "/a");
    CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((::fcntl(fd.get(), F_GETFL) & O_PATH) != 0);
}

TEST_CASE("a path that cannot be resolved is named as it was given, with the reason") {
    const Tree t;
    CHECK(::symlink("loop", (t / "loop").c_str()) == 0);
    CHECK(error_of([&] { (void)resolve_in_root(t.root.get(), "/none/x"); }) ==
          "path '/none/x' in the container: No such file or directory");
    CHECK(error_of([&] { (void)resolve_in_root(t.root.get(), "/loop"); }) ==
          "path '/loop' in the container: Too many levels of symbolic links: a symbolic link in it leads in a circle, "
          "to nothing, or out through /proc");
    CHECK(error_of([&] {
              (void)resolve_in_root(t.root.get(), std::string_view{"a\0b", 3});
          }) == "path 'a\\x00b' in the container: Invalid argument: it holds a NUL byte");
    CHECK(error_of([&] {
              (void)make_in_root(t.root.get(), std::string_view{"a\0b", 3}, PathKind::file);
          }) == "path 'a\\x00b' in the container: Invalid argument: it holds a NUL byte");
}

TEST_CASE("the last component is not followed where that is asked for") {
    const Tree t;
    CHECK(::symlink("/", (t / "link").c_str()) == 0);
    CHECK(inode(resolve_in_root(t.root.get(), "/link")) == inode(t.path));
    CHECK(inode(resolve_in_root(t.root.get(), "/link", O_NOFOLLOW)) == inode(t / "link"));
    CHECK_THROWS_AS((void)resolve_in_root(t.root.get(), "/link", O_NOFOLLOW | O_DIRECTORY), Error);
}

TEST_CASE("what is missing of a path is made, whatever the umask says") {
    const Tree t;
    const mode_t before = ::umask(0077);
    const Fd dir = make_in_root(t.root.get(), "/a/b/./c//d/", PathKind::directory);
    const Fd file = make_in_root(t.root.get(), "e/f", PathKind::file);
    ::umask(before);
    CHECK(inode(dir) == inode(t / "a/b/c/d"));
    CHECK(mode(t / "a") == (S_IFDIR | 0755));
    CHECK(mode(t / "a/b/c/d") == (S_IFDIR | 0755));
    CHECK(inode(file) == inode(t / "e/f"));
    CHECK(mode(t / "e/f") == (S_IFREG | 0644));
}

TEST_CASE("what exists is taken as it is") {
    const Tree t;
    std::filesystem::create_directories(t / "a");
    REQUIRE(::chmod((t / "a").c_str(), 0700) == 0);
    CHECK(inode(make_in_root(t.root.get(), "/a", PathKind::directory)) == inode(t / "a"));
    CHECK(mode(t / "a") == (S_IFDIR | 0700));
    CHECK(inode(make_in_root(t.root.get(), "/", PathKind::directory)) == inode(t.path));
    CHECK(inode(make_in_root(t.root.get(), "", PathKind::directory)) == inode(t.path));
    REQUIRE(::mkfifo((t / "fifo").c_str(), 0600) == 0);
    CHECK(inode(make_in_root(t.root.get(), "/fifo", PathKind::file)) == inode(t / "fifo"));
}

TEST_CASE("a path of the other kind is refused") {
    const Tree t;
    std::filesystem::create_directories(t / "dir");
    (void)make_in_root(t.root.get(), "/file", PathKind::file);
    CHECK(error_of([&] { (void)make_in_root(t.root.get(), "/dir", PathKind::file); }) ==
          "path '/dir' in the container: Is a directory: a file goes on a file");
    CHECK(error_of([&] { (void)make_in_root(t.root.get(), "/file", PathKind::directory); }) ==
          "path '/file' in the container: Not a directory: a directory goes on a directory");
    CHECK(error_of([&] { (void)make_in_root(t.root.get(), "/file/x", PathKind::directory); }) ==
          "path '/file/x' in the container: Not a directory");
}

TEST_CASE("a parent that can be searched but not read is good enough") {
    const Tree t;
    std::filesystem::create_directories(t / "private");
    REQUIRE(::chmod((t / "private").c_str(), 0311) == 0);
    const Fd made = make_in_root(t.root.get(), "/private/x/y", PathKind::directory);
    CHECK(inode(made) == inode(t / "private/x/y"));
    REQUIRE(::chmod((t / "private").c_str(), 0755) == 0);
}

TEST_CASE("nothing is made through a dangling link, nor above a missing directory") {
    const Tree t;
    const Tree outside;
    REQUIRE(::symlink((outside / "new").c_str(), (t / "dangling").c_str()) == 0);
    for (const PathKind kind : {PathKind::directory, PathKind::file}) {
        CHECK(error_of([&] {
                  (void)make_in_root(t.root.get(), "/dangling", kind);
              }).find("path '/dangling' in the container: Too many levels of symbolic links: a symbolic link") == 0);
        CHECK(error_of([&] {
                  (void)make_in_root(t.root.get(), "/dangling/x", kind);
              }).find("path '/dangling/x' in the container: Too many levels") == 0);
        CHECK(
            error_of([&] { (void)make_in_root(t.root.get(), "/none/../x", kind); }) ==
            "path '/none/../x' in the container: No such file or directory: '..' after a directory that is not there");
    }
    CHECK(std::filesystem::is_empty(outside.path));
    CHECK(inode(t / "none") == 0);
    CHECK(inode(t / "x") == 0);
}

TEST_CASE("a link inside the root is followed for what exists, and the rest is made behind it") {
    const Tree t;
    std::filesystem::create_directories(t / "real");
    REQUIRE(::symlink("/real", (t / "link").c_str()) == 0);
    const Fd made = make_in_root(t.root.get(), "/link/new/file", PathKind::file);
    CHECK(inode(made) == inode(t / "real/new/file"));
    CHECK(mode(t / "real/new/file") == (S_IFREG | 0644));
}
