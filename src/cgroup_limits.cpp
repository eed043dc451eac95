// src/cgroup_limits.cpp - the limits of a control group: written, and read back.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/limits.hpp>

namespace caisson::inline v0 {

void Cgroup::limit(const LimitSpec& limits) {
    if (limits.memory) limit_memory(*limits.memory);
    if (limits.pids) {
        const std::string what = "pids limit of " + std::to_string(*limits.pids);
        const CgroupDirectory& d = need("pids", what);
        set(d, "pids.max", *limits.pids, what, "the kernel takes 4194304 at most");
    }
}

void Cgroup::limit_memory(std::uint64_t bytes) const {
    const std::string what = "memory limit of " + std::to_string(bytes) + " bytes";
    const CgroupDirectory& d = need("memory", what);
    const char* busy = "the group uses more than that";
    if (d.v2()) {
        set(d, "memory.max", bytes, what, busy);
        set(d, "memory.swap.max", 0, what, busy, Absent::is_fine);
        return;
    }
    // The limit on RAM may never be above the one on both: on the way up, the second has to move first.
    const std::string text = std::to_string(bytes);
    if (!write(d, "memory.limit_in_bytes", text) && errno == EINVAL) {
        (void)write(d, "memory.memsw.limit_in_bytes", text);
    }
    set(d, "memory.limit_in_bytes", bytes, what, busy);
    set(d, "memory.memsw.limit_in_bytes", bytes, what, busy, Absent::is_fine);
}

/// Writes a limit and compares what the kernel made of it.
void Cgroup::set(const CgroupDirectory& d, const char* file, std::uint64_t value, const std::string& what,
                 const char* remedy, Absent absent) const {
    const Fd fd = open_file(d, file, O_RDWR);
    if (!fd && errno == ENOENT && absent == Absent::is_fine) return;
    const std::string context =
        what + " for control group " + detail::quote(name_) + ": write " + detail::quote(path(d) + "/" + file);
    if (!fd || !detail::sys::write_all(fd.get(), std::to_string(value))) {
        const int error = errno;
        const bool known = error == EBUSY || error == EINVAL || error == ERANGE;
        throw Error{Step::cgroup, error, context, known ? std::string{remedy} : detail::remedy_for(error, path(d))};
    }
    std::string text;
    if (!read_all(fd, text)) detail::fail(Step::cgroup, context + " and read it back");
    if (!text.empty() && text.back() == '\n') text.pop_back();
    const bool pages = std::string_view{file}.starts_with("memory.");
    const std::uint64_t page = pages ? static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 1;
    const std::uint64_t most = pages ? INT64_MAX / page * page : UINT64_MAX;
    const std::uint64_t want = std::min(value / page * page, most);
    if (text == std::to_string(want) || (pages && want == most && text == "max")) return;
    throw Error{Step::cgroup, 0, context, "the kernel made " + detail::quote(text) + " of it"};
}

}  // namespace caisson::inline v0
