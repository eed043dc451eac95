// src/cgroup_limits_read.cpp - the limits of a control group that are in force.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>

#include <caisson/address.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/error.hpp>
#include <caisson/limits.hpp>

#include "limit_words.hpp"

namespace caisson::inline v0 {
namespace {

using limit_words::Disk;

std::optional<std::uint64_t> limit_of(std::string_view text) {
    const std::uint64_t value = limit_words::value_of(text);
    return value == LimitSpec::unlimited ? std::nullopt : std::optional{value};
}

/// Calls `take(device, rest of the line)` for each line that begins with a device.
template <class Take>
void each_device(std::string_view text, Take&& take) {
    while (!text.empty()) {
        std::string_view line = detail::take_field(text, '\n');
        if (const auto disk = limit_words::parse_disk(detail::take_field(line, ' '))) take(*disk, line);
    }
}

BlockLimit& of_disk(std::vector<BlockLimit>& all, const Disk& disk) {
    const std::string name = disk.str();
    const auto found = std::find_if(all.begin(), all.end(), [&](const BlockLimit& b) { return b.device == name; });
    if (found != all.end()) return *found;
    all.emplace_back();
    all.back().device = name;
    return all.back();
}

}  // namespace

/// Reads from the directory that has a controller's files; what is not there is empty.
class Cgroup::LimitReader {
public:
    LimitReader(const Cgroup& group, const char* controller) : group_{group}, directory_{group.find(controller)} {}
    explicit operator bool() const noexcept { return directory_ != nullptr; }
    [[nodiscard]] bool v2() const noexcept { return directory_->v2(); }
    [[nodiscard]] std::string parent() const { return directory_->parent_path; }
    /// Without the last newline.
    [[nodiscard]] std::string text(const std::string& file) const {
        std::string text;
        const Fd fd = group_.open_file(*directory_, file.c_str(), O_RDONLY);
        if (fd ? !read_all(fd, text) : errno != ENOENT) {
            detail::fail(Step::cgroup, "read " + detail::quote(group_.path(*directory_) + "/" + file));
        }
        if (text.ends_with('\n')) text.pop_back();
        return text;
    }
    [[nodiscard]] std::optional<std::uint64_t> number(const std::string& file) const { return limit_of(text(file)); }

private:
    const Cgroup& group_;
    const CgroupDirectory* directory_;
};

namespace {

template <class Reader>
void read_memory(const Reader& memory, LimitSpec& limits) {
    if (!memory) return;
    limits.memory = memory.number(memory.v2() ? "memory.max" : "memory.limit_in_bytes");
    limits.memory_soft = memory.number(memory.v2() ? "memory.high" : "memory.soft_limit_in_bytes");
    if (!memory.v2()) {
        limits.memory_and_swap = memory.number("memory.memsw.limit_in_bytes");
    } else if (const auto swap = memory.number("memory.swap.max"); swap && limits.memory) {
        limits.memory_and_swap = *limits.memory + *swap;
    }
}

template <class Reader>
void read_cpu(const Reader& cpu, LimitSpec& limits) {
    if (!cpu) return;
    std::string quota = cpu.text(cpu.v2() ? "cpu.max" : "cpu.cfs_quota_us");
    std::string period = cpu.v2() ? std::string{} : cpu.text("cpu.cfs_period_us");
    if (const std::size_t space = quota.find(' '); cpu.v2() && space != std::string::npos) {
        period = quota.substr(space + 1);
        quota.resize(space);
    }
    limits.cpu_quota = limit_of(quota);
    limits.cpu_period = limit_of(period);
    if (!limits.cpu_quota && limits.cpu_period == limit_words::usual_period) limits.cpu_period.reset();
    limits.cpu_shares = cpu.number(cpu.v2() ? "cpu.weight" : "cpu.shares");
    if (cpu.v2() && limits.cpu_shares) limits.cpu_shares = limit_words::shares_of_weight(*limits.cpu_shares);
    if (limits.cpu_shares == limit_words::usual_shares) limits.cpu_shares.reset();
}

template <class Reader>
void read_cpuset(const Reader& cpuset, LimitSpec& limits) {
    if (!cpuset) return;
    // A new v1 group has its parent's, a v2 one says nothing.
    const auto own = [&](const std::string& file) {
        const std::string text = cpuset.text(file);
        const bool is_parents = !cpuset.v2() && limit_words::text_of(cpuset.parent() + "/" + file) == text;
        return is_parents ? std::string{} : text;
    };
    limits.cpus = own("cpuset.cpus");
    limits.memory_nodes = own("cpuset.mems");
}

void read_weights(std::string_view text, LimitSpec& limits) {
    std::string_view first = text.substr(0, text.find('\n'));
    if (first.starts_with("default ")) first.remove_prefix(8);
    const auto weight = detail::parse_decimal(first, 10000);
    if (weight && *weight != limit_words::usual_block_weight) {
        limits.block_weight = static_cast<std::uint32_t>(*weight);
    }
    each_device(text, [&](const Disk& disk, std::string_view rest) {
        if (const auto own = detail::parse_decimal(rest, 10000)) {
            of_disk(limits.block, disk).weight = static_cast<std::uint32_t>(*own);
        }
    });
}

template <class Reader>
void read_block(const Reader& io, LimitSpec& limits) {
    if (!io) return;
    if (!io.v2()) {
        for (const char* file :
             {"blkio.weight", "blkio.bfq.weight", "blkio.weight_device", "blkio.bfq.weight_device"}) {
            read_weights(io.text(file), limits);
        }
        const auto rates = [&](const char* file, std::optional<std::uint64_t> BlockLimit::*rate) {
            each_device(io.text(file), [&](const Disk& disk, std::string_view rest) {
                of_disk(limits.block, disk).*rate = limit_of(rest);
            });
        };
        rates("blkio.throttle.read_bps_device", &BlockLimit::read_bytes);
        rates("blkio.throttle.write_bps_device", &BlockLimit::write_bytes);
        rates("blkio.throttle.read_iops_device", &BlockLimit::read_operations);
        rates("blkio.throttle.write_iops_device", &BlockLimit::write_operations);
        return;
    }
    for (const char* file : {"io.weight", "io.bfq.weight"}) read_weights(io.text(file), limits);
    each_device(io.text("io.max"), [&](const Disk& disk, std::string_view rest) {
        BlockLimit& limit = of_disk(limits.block, disk);
        while (!rest.empty()) {
            std::string_view value = detail::take_field(rest, ' ');
            const std::string_view key = detail::take_field(value, '=');
            if (key == "rbps") limit.read_bytes = limit_of(value);
            if (key == "wbps") limit.write_bytes = limit_of(value);
            if (key == "riops") limit.read_operations = limit_of(value);
            if (key == "wiops") limit.write_operations = limit_of(value);
        }
    });
}

template <class Reader>
void read_huge_pages(const Reader& hugetlb, LimitSpec& limits) {
    if (!hugetlb) return;
    for (const std::uint64_t size : limit_words::huge_page_sizes()) {
        const std::string file = "hugetlb." + limit_words::huge_page_name(size);
        if (const auto bytes = hugetlb.number(file + (hugetlb.v2() ? ".max" : ".limit_in_bytes"))) {
            limits.huge_pages.push_back({.page_size = size, .bytes = *bytes});
        }
    }
}

}  // namespace

LimitSpec Cgroup::limits() const {
    require_there("limits");
    LimitSpec limits;
    read_memory(LimitReader{*this, "memory"}, limits);
    read_cpu(LimitReader{*this, "cpu"}, limits);
    read_cpuset(LimitReader{*this, "cpuset"}, limits);
    if (const LimitReader pids{*this, "pids"}) limits.pids = pids.number("pids.max");
    const LimitReader blkio{*this, "blkio"};
    read_block(blkio ? blkio : LimitReader{*this, "io"}, limits);
    read_huge_pages(LimitReader{*this, "hugetlb"}, limits);
    return limits;
}

}  // namespace caisson::inline v0
