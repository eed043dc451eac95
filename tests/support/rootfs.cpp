#include "support/rootfs.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

namespace caisson_test {
namespace {

namespace fs = std::filesystem;

constexpr const char* applets[] = {
    "[",        "awk",      "basename", "cat",   "chmod",    "chown",    "cp",      "cut",    "date",  "dd",
    "df",       "dmesg",    "echo",     "env",   "expr",     "false",    "find",    "free",   "grep",  "halt",
    "head",     "hostname", "id",       "init",  "ip",       "kill",     "killall", "ln",     "login", "ls",
    "mkdir",    "mkfifo",   "mknod",    "mount", "mv",       "nc",       "nproc",   "od",     "ping",  "pivot_root",
    "poweroff", "printf",   "ps",       "pwd",   "readlink", "realpath", "reboot",  "rm",     "rmdir", "sed",
    "seq",      "setsid",   "sh",       "sleep", "sort",     "stat",     "stty",    "sync",   "tail",  "tee",
    "test",     "timeout",  "top",      "touch", "tr",       "true",     "tty",     "umount", "uname", "unshare",
    "usleep",   "wc",       "which",    "xargs", "yes"};

const char* busybox() {
    for (const char* file : {"/bin/busybox", "/usr/bin/busybox"}) {
        if (::access(file, X_OK) == 0) return file;
    }
    return nullptr;
}

[[noreturn]] void refuse(const std::string& what) {
    throw std::runtime_error{what + ": " + std::system_category().message(errno)};
}

std::mutex directories_mutex;
std::vector<std::string> directories;  // all that this process or one that it is a copy of has made

std::string make_directory() {
    const char* parent = std::getenv("TMPDIR");
    // Not /tmp, which is a tmpfs on many machines; a container's root is seldom on one.
    std::string path =
        fs::canonical(fs::path{parent != nullptr ? parent : "/var/tmp"}).string() + "/caisson-test-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) refuse("mkdtemp " + path);
    // Whoever the container's root is outside must be able to pass.
    if (::chmod(path.c_str(), 0755) != 0) refuse("chmod " + path);
    const std::scoped_lock lock{directories_mutex};
    directories.push_back(path + "/");
    return path;
}

bool mounted_below(const std::string& path) {
    std::ifstream file{"/proc/self/mountinfo"};
    for (std::string line; std::getline(file, line);) {
        std::size_t at = 0;
        for (int field = 0; field < 4 && at != std::string::npos; ++field) at = line.find(' ', at) + 1;
        const std::string_view point = std::string_view{line}.substr(at, line.find(' ', at) - at);
        if (point.starts_with(path) && (point.size() == path.size() || point[path.size()] == '/')) return true;
    }
    return false;
}

void remove_directory(const std::string& path) noexcept {
    try {
        if (path.empty()) return;
        if (mounted_below(path)) {
            std::fprintf(stderr, "something is mounted below %s: it is left alone\n", path.c_str());
            return;
        }
        std::error_code error;
        fs::remove_all(path, error);
        if (error) std::fprintf(stderr, "removing %s: %s\n", path.c_str(), error.message().c_str());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "removing %s: %s\n", path.c_str(), error.what());
    }
}

}  // namespace

const char* TestRoot::missing() {
    if (::geteuid() != 0) return "needs root";
    return busybox() == nullptr ? "busybox is missing: install busybox-static" : nullptr;
}

TestRoot::TestRoot() {
    if (const char* reason = missing()) throw std::runtime_error{reason};
    path_ = make_directory();
    try {
        for (const char* name : {"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"}) {
            fs::create_directory(*this / name);
        }
        fs::permissions(*this / "tmp", fs::perms::all | fs::perms::sticky_bit);
        copy(busybox(), "bin/busybox");
        for (const char* name : applets) fs::create_symlink("busybox", *this / (std::string{"bin/"} + name));
        write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        write("etc/group", "root:x:0:\n");
    } catch (...) {
        remove();
        throw;
    }
}

TestRoot::~TestRoot() {
    remove();
}
void TestRoot::remove() noexcept {
    remove_directory(path_);
}

std::string TestRoot::operator/(std::string_view inside) const {
    std::string path = path_;
    if (!inside.starts_with('/')) path += '/';
    return path.append(inside);
}

std::string TestRoot::write(std::string_view inside, std::string_view content, unsigned mode) const {
    const std::string path = *this / inside;
    fs::create_directories(fs::path{path}.parent_path());
    std::ofstream file{path, std::ios::binary | std::ios::trunc};
    file << content;
    file.close();
    if (!file || ::chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) refuse("write " + path);
    return path;
}

std::string TestRoot::copy(std::string_view host_file, std::string_view inside) const {
    const std::string path = *this / inside;
    fs::create_directories(fs::path{path}.parent_path());
    fs::copy_file(fs::path{host_file}, path, fs::copy_options::overwrite_existing);
    if (::chmod(path.c_str(), 0755) != 0) refuse("chmod " + path);
    return path;
}

std::string TestRoot::read(std::string_view inside) const {
    std::ifstream file{*this / inside, std::ios::binary};
    return {std::istreambuf_iterator<char>{file}, {}};
}

bool is_in_test_directory(std::string_view path) {
    const std::scoped_lock lock{directories_mutex};
    return std::any_of(directories.begin(), directories.end(),
                       [&](const std::string& directory) { return path.starts_with(directory); });
}
TestDirectory::TestDirectory() : path_{make_directory()} {}
TestDirectory::~TestDirectory() {
    remove_directory(path_);
}
std::string TestDirectory::operator/(std::string_view name) const {
    return std::string{path_ + '/'}.append(name);
}

std::string program(std::string_view name) {
    return (fs::read_symlink("/proc/self/exe").parent_path() / name).string();
}

}  // namespace caisson_test
