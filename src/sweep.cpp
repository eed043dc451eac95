// src/sweep.cpp - what dead helpers left in their run directory.
#include <caisson/sweep.hpp>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/id_range.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {
namespace {

/// A container's, or with a dot in front a group's.
bool is_a_helpers(std::string_view name) {
    const std::string_view registry = IdRange::registry;
    if (name == registry.substr(registry.rfind('/') + 1)) return false;
    if (name.starts_with('.')) name.remove_prefix(1);
    return is_valid_name(name);
}

/// The tag is written right after the lock was taken: who has left it empty has died in between.
bool is_left(int lock, int directory) {
    struct stat st {};
    if (::fstat(lock, &st) == 0 && st.st_size == 0) return true;
    const auto owner = Owner::recorded_in(directory, "owner");
    return owner && owner->is_dead();
}

/// Why a directory that a dead helper has left cannot be removed; empty once it has been.
std::string remove_left(const Fd& run, const std::string& name, const Fd& directory) {
    try {
        const auto record = StateRecord::read(directory.get());
        if (record && !record->end_init()) return "process " + std::to_string(record->init->pid) + " does not end";
    } catch (const Error& e) {
        return e.what();  // the next sweep may have what it takes to look
    }
    // `owner` goes last: what cannot be removed is found again.
    StateRecord::remove_files(directory);
    if (names_in(directory, false).size() + names_in(directory, true).size() > 1) errno = ENOTEMPTY;
    else if (::unlinkat(directory.get(), "owner", 0) == 0 && ::unlinkat(run.get(), name.c_str(), AT_REMOVEDIR) == 0) {
        return {};
    }
    return std::system_category().message(errno);
}

}  // namespace

void sweep_run_directory(const std::string& path, SweepReport& report) {
    const Fd run = sys::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!run || !StateRecord::is_ones_own(run.get())) return;
    for (const std::string& name : groups_in(run)) {
        const std::string full = path + "/" + name;
        const Fd directory = sys::open_at(run.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (!directory || !is_a_helpers(name) || !StateRecord::is_ones_own(directory.get())) continue;
        // A helper that starts takes over what a dead one left there: from here on it waits.
        const Fd lock = sys::open_at(directory.get(), "owner", O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
        if (!lock) {
            // Of one that died before it had made the file. An empty one that is about to be used is made again.
            if (errno == ENOENT && is_a_helpers(name) && ::unlinkat(run.get(), name.c_str(), AT_REMOVEDIR) == 0) {
                report.removed.push_back(full);
            }
            continue;
        }
        if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 || !is_left(lock.get(), directory.get())) continue;
        if (const std::string why = remove_left(run, name, directory); why.empty()) report.removed.push_back(full);
        else report.kept.push_back(full + ": " + why);
    }
}

}  // namespace caisson::inline v0::detail
