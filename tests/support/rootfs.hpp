// support/rootfs.hpp - root directories for the containers of a test, and where the test programs are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caisson_test {

/// A directory on a real file system that can be a container's root: /bin with busybox and its applets, and empty /dev,
/// /proc, /sys, /tmp, /etc, /root, /run and /var. Removed with all that is in it on destruction, unless something is
/// still mounted below it: that is told on standard error and left alone, as removing would go through the mount.
///
/// Every maker and member throws `std::runtime_error` where the machine refuses. Not copyable.
class TestRoot {
public:
    /// Why no root can be made here ("busybox is missing: install busybox-static"); null where it can. For
    /// CAISSON_SKIP.
    [[nodiscard]] static const char* missing();

    TestRoot();
    TestRoot(const TestRoot&) = delete;
    TestRoot& operator=(const TestRoot&) = delete;
    ~TestRoot();

    /// The root itself, absolute, without links. Owned by root, mode 0755, as are the directories above it.
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// A path inside, as the host sees it: `path() + inside`.
    [[nodiscard]] std::string operator/(std::string_view inside) const;
    /// Writes a file (replaced if it is there, missing parents made) and returns its path on the host.
    std::string write(std::string_view inside, std::string_view content, unsigned mode = 0644) const;
    /// Copies a program of the host to `inside`, mode 0755.
    std::string copy(std::string_view host_file, std::string_view inside) const;
    /// The content of a file below the root; empty if it is not there.
    [[nodiscard]] std::string read(std::string_view inside) const;

private:
    void remove() noexcept;
    std::string path_;
};

/// A directory for a test's own files, on the same file system as the roots; removed in the same way.
class TestDirectory {
public:
    TestDirectory();
    TestDirectory(const TestDirectory&) = delete;
    TestDirectory& operator=(const TestDirectory&) = delete;
    ~TestDirectory();
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string operator/(std::string_view name) const;

private:
    std::string path_;
};

/// True if the path is in a directory that this process, or one that it is a copy of, has made for a test.
[[nodiscard]] bool is_in_test_directory(std::string_view path);

/// The path of a program that was built beside the running one: `program("payload")`.
[[nodiscard]] std::string program(std::string_view name);

}  // namespace caisson_test
