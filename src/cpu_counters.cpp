// src/cpu_counters.cpp - perf events of a control group.
#include <caisson/detail/cpu_counters.hpp>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {
namespace {

Fd open_counter(int group, int cpu) noexcept {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_CPU_CLOCK;
    return Fd{static_cast<int>(sys::retry([&] {
        return ::syscall(SYS_perf_event_open, &attributes, group, cpu, -1, PERF_FLAG_PID_CGROUP | PERF_FLAG_FD_CLOEXEC);
    }))};
}

std::uint64_t value_of(const Fd& counter) noexcept {
    std::uint64_t value = 0;
    if (!counter || sys::retry([&] { return ::read(counter.get(), &value, sizeof value); }) != sizeof value) return 0;
    return value;
}

}  // namespace

/// Up to the first number that no CPU can have: for that one the kernel says EINVAL.
bool CpuCounters::open_all(std::vector<Fd>& into) const {
    for (int cpu = 0;; ++cpu) {
        Fd counter = open_counter(group_.get(), cpu);
        if (!counter && errno == EINVAL && cpu > 0) return true;
        if (!counter && errno != ENODEV) return false;
        into.push_back(std::move(counter));
    }
}

bool CpuCounters::open(Fd group) {
    group_ = std::move(group);
    online_ = sys::open("/sys/devices/system/cpu/online", O_RDONLY);
    online_text_.clear();
    std::vector<Fd> made;
    if (!open_all(made)) {
        made.clear();
        group_.reset();
        online_.reset();
        return false;
    }
    for (Fd& fd : made) counters_.push_back({std::move(fd), 0});
    (void)follow_online();
    return true;
}

/// The kernel takes a counter off a CPU that goes offline, and does not put it back.
bool CpuCounters::follow_online() {
    if (!online_) return true;
    std::array<char, 4096> buffer;
    const ssize_t n = sys::retry([&] { return ::pread(online_.get(), buffer.data(), buffer.size(), 0); });
    if (n <= 0) return true;
    const std::string_view text{buffer.data(), static_cast<std::size_t>(n)};
    if (text == online_text_) return true;
    std::vector<Fd> made;
    const bool is_first = online_text_.empty();
    if (!is_first && !open_all(made)) return false;
    online_text_.assign(text);
    if (is_first || made.size() != counters_.size()) return true;
    for (std::size_t cpu = 0; cpu < made.size(); ++cpu) {
        counters_[cpu].past += value_of(counters_[cpu].fd);
        counters_[cpu].fd = std::move(made[cpu]);
    }
    return true;
}

bool CpuCounters::read(std::vector<std::uint64_t>& into) {
    into.clear();
    if (!follow_online()) return false;
    for (const Counter& counter : counters_) into.push_back(counter.past + value_of(counter.fd));
    return true;
}

std::string_view CpuCounters::remedy(int error) noexcept {
    switch (error) {
        case EACCES: return "this takes CAP_PERFMON, or kernel.perf_event_paranoid at 0 or below";
        case EPERM: return "this takes CAP_PERFMON, and a system call filter that allows perf_event_open(2)";
        case EMFILE:
        case ENFILE: return "no descriptor is left, and each CPU takes one: raise 'ulimit -n'";
        case EINVAL:
        case ENOENT:
        case ENOSYS:
        case EOPNOTSUPP: return "no perf events of control groups here: the kernel needs CONFIG_CGROUP_PERF";
        default: return "the kernel does not count each CPU's time for this group";
    }
}

}  // namespace caisson::inline v0::detail
