// caisson/detail/superblock.hpp - which file system is on a block device or in a file, by its first blocks.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include <sys/types.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

namespace caisson::inline v0::detail {

/// How a file system is recognised, and what it can.
struct FileSystemType {
    const char* name;  ///< the kernel's
    off_t offset;      ///< bytes from the start
    std::string_view magic;
    bool read_only;  ///< it cannot be written to at all
};

/// Those that a container's root can be on. The driver of ext4 reads ext2 and ext3 as well.
inline constexpr std::array<FileSystemType, 5> file_system_types{{
    {"ext4", 1024 + 56, "\x53\xef", false},
    {"squashfs", 0, "hsqs", true},
    {"erofs", 1024, "\xe2\xe1\xf5\xe0", true},
    {"xfs", 0, "XFSB", false},
    {"btrfs", 65536 + 64, "_BHRfS_M", false},
}};

/// What is on the readable `fd`; nothing where it is none of the above. Reads, and does not move the file's offset.
[[nodiscard]] inline std::optional<FileSystemType> find_file_system(int fd) {
    for (const FileSystemType& type : file_system_types) {
        std::array<char, 8> bytes{};
        const std::size_t size = type.magic.size();
        const ssize_t n = sys::retry([&] { return ::pread(fd, bytes.data(), size, type.offset); });
        if (n == static_cast<ssize_t>(size) && std::string_view{bytes.data(), size} == type.magic) return type;
    }
    return std::nullopt;
}

}  // namespace caisson::inline v0::detail
