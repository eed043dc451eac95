// limit_words.hpp - what a LimitSpec names, read: lists of CPUs, block devices, sizes of huge pages.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/cgroup_tree.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::limit_words {

/// Of reads or writes of a block device in a second: the kernel keeps 32 bits, and all of them set are no limit.
inline constexpr std::uint64_t most_operations = 4294967294;

/// Ranges of numbers, first and last: ascending, and none touches the next.
using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

/// The list format of cpuset(7), "0-3,6"; nothing for anything else. An empty text is an empty list.
[[nodiscard]] inline std::optional<Ranges> parse_list(std::string_view text) {
    constexpr std::uint32_t most = 1u << 20;
    Ranges all;
    if (text.ends_with(',')) return std::nullopt;
    while (!text.empty()) {
        std::string_view last = detail::take_field(text, ',');
        const bool is_range = last.find('-') != std::string_view::npos;
        const auto first_number = detail::parse_decimal(is_range ? detail::take_field(last, '-') : last, most);
        const auto last_number = detail::parse_decimal(last, most);
        if (!first_number || !last_number || *first_number > *last_number) return std::nullopt;
        all.emplace_back(static_cast<std::uint32_t>(*first_number), static_cast<std::uint32_t>(*last_number));
    }
    std::sort(all.begin(), all.end());
    Ranges joined;
    for (const auto& range : all) {
        if (joined.empty() || range.first > joined.back().second + 1) joined.push_back(range);
        else joined.back().second = std::max(joined.back().second, range.second);
    }
    return joined;
}
/// As the kernel writes it.
[[nodiscard]] inline std::string list_text(const Ranges& ranges) {
    std::string text;
    for (const auto& range : ranges) {
        if (!text.empty()) text += ',';
        text += std::to_string(range.first);
        if (range.first != range.second) text += "-" + std::to_string(range.second);
    }
    return text;
}
/// The first of `wanted` that is not in `there`.
[[nodiscard]] inline std::optional<std::uint32_t> first_missing(const Ranges& wanted, const Ranges& there) {
    for (const auto& range : wanted) {
        const auto holds = [&](const auto& t) { return t.first <= range.first && range.first <= t.second; };
        const auto found = std::find_if(there.begin(), there.end(), holds);
        if (found == there.end()) return range.first;
        if (found->second < range.second) return found->second + 1;
    }
    return std::nullopt;
}

/// From here on the kernel's largest count of pages, huge ones included, may be meant, which is no limit.
inline constexpr std::uint64_t as_good_as_none = INT64_MAX - (std::uint64_t{1} << 34);

/// v2's "max", v1's -1 and the largest count of pages are no limit.
[[nodiscard]] inline std::uint64_t value_of(std::string_view text) {
    const auto value = detail::parse_decimal(text, UINT64_MAX);
    return value && *value < as_good_as_none ? *value : UINT64_MAX;
}
/// What the kernel makes of a limit on memory: whole pages, or none.
[[nodiscard]] inline std::uint64_t in_pages(std::uint64_t bytes) {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    return bytes >= as_good_as_none ? UINT64_MAX : bytes / page * page;
}

/// A file's text without its last newline; nothing, and `errno`, where it cannot be read.
[[nodiscard]] inline std::optional<std::string> text_of(const std::string& path) {
    std::string text;
    if (!detail::sys::read_file(AT_FDCWD, path.c_str(), text)) return std::nullopt;
    if (text.ends_with('\n')) text.pop_back();
    return text;
}

/// A disk, by the numbers of its node.
struct Disk {
    unsigned major = 0;
    unsigned minor = 0;
    [[nodiscard]] std::string str() const { return std::to_string(major) + ":" + std::to_string(minor); }
    friend bool operator==(const Disk&, const Disk&) = default;
};
/// "MAJOR:MINOR"
[[nodiscard]] inline std::optional<Disk> parse_disk(std::string_view text) {
    const auto major = detail::parse_decimal(detail::take_field(text, ':'), (1u << 12) - 1);
    const auto minor = detail::parse_decimal(text, (1u << 20) - 1);
    if (!major || !minor) return std::nullopt;
    return Disk{static_cast<unsigned>(*major), static_cast<unsigned>(*minor)};
}
/// The disk that `BlockLimit::device` means, a partition's whole one; nothing, and why, if there is none.
[[nodiscard]] inline std::optional<Disk> find_disk(const std::string& device, std::string& why) {
    std::optional<Disk> disk = parse_disk(device);
    if (!disk) {
        struct stat st {};
        if (::stat(device.c_str(), &st) != 0) {
            why = errno == ENOENT || errno == ENOTDIR ? "does not exist" : "cannot be looked at";
            return std::nullopt;
        }
        if (!S_ISBLK(st.st_mode)) {
            why = "is no block device";
            return std::nullopt;
        }
        disk = {major(st.st_rdev), minor(st.st_rdev)};
    }
    const std::string entry = "/sys/dev/block/" + disk->str();
    // Without a sysfs, the kernel's own answer comes when the limit is set.
    if (::access("/sys/dev/block", F_OK) != 0) return disk;
    if (::access(entry.c_str(), F_OK) != 0) {
        why = "is no block device of this machine";
        return std::nullopt;
    }
    if (::access((entry + "/partition").c_str(), F_OK) != 0) return disk;
    if (const auto whole = text_of(entry + "/../dev")) return parse_disk(*whole);
    why = "is a partition whose disk is not to be found";
    return std::nullopt;
}

/// "2MB", as the kernel names a size of huge pages in its control files.
[[nodiscard]] inline std::string huge_page_name(std::uint64_t bytes) {
    if (bytes >= 1u << 30) return std::to_string(bytes >> 30) + "GB";
    return bytes >= 1u << 20 ? std::to_string(bytes >> 20) + "MB" : std::to_string(bytes >> 10) + "KB";
}
/// In bytes, ascending.
[[nodiscard]] inline std::vector<std::uint64_t> huge_page_sizes() {
    std::vector<std::uint64_t> sizes;
    const Fd directory = detail::sys::open("/sys/kernel/mm/hugepages", O_RDONLY | O_DIRECTORY);
    if (!directory) return sizes;
    for (const std::string& name : detail::groups_in(directory)) {
        constexpr std::string_view before = "hugepages-", after = "kB";
        std::string_view number = name;
        if (!number.starts_with(before) || !number.ends_with(after)) continue;
        number.remove_prefix(before.size());
        number.remove_suffix(after.size());
        if (const auto kib = detail::parse_decimal(number, UINT64_MAX / 1024)) sizes.push_back(*kib * 1024);
    }
    std::sort(sizes.begin(), sizes.end());
    return sizes;
}

// The kernel's conversion between v1's shares and v2's weight: 1024 is 100.
[[nodiscard]] constexpr std::uint64_t weight_of_shares(std::uint64_t shares) noexcept {
    return (shares * 100 + 512) / 1024;
}
[[nodiscard]] constexpr std::uint64_t shares_of_weight(std::uint64_t weight) noexcept {
    return (weight * 1024 + 50) / 100;
}
inline constexpr std::uint64_t usual_shares = 1024, usual_period = 100000, usual_block_weight = 100;

}  // namespace caisson::inline v0::limit_words
