// src/state_record.cpp - what a helper runs, as a file that outlives it.
#include <caisson/detail/state_record.hpp>

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/cgroup_tree.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/process.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr std::string_view heading = "caisson-state 1\n";

std::string boot_id() {
    constexpr const char* path = "/proc/sys/kernel/random/boot_id";
    std::string id;
    if (!sys::read_file(AT_FDCWD, path, id, 64)) {
        if (sys::is_shortage(errno)) fail(Step::sweep, quote(path), "raise 'ulimit -n'");
        return {};
    }
    if (!id.empty() && id.back() == '\n') id.pop_back();
    return id;
}

}  // namespace

StateRecord StateRecord::of_helper(const std::string& name) {
    return {.name = name, .boot = boot_id(), .helper = Owner::current()};
}

std::string StateRecord::text() const {
    std::string text{heading};
    const auto line = [&text](const char* word, const std::string& value) { text += word + (" " + value) + "\n"; };
    line("name", name);
    line("boot", boot);
    line("helper", helper.tag());
    if (init) line("init", init->tag());
    return text;
}

std::optional<StateRecord> StateRecord::parse(std::string_view text) {
    if (!text.starts_with(heading)) return std::nullopt;
    text.remove_prefix(heading.size());
    StateRecord record;
    std::optional<Owner> helper;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        if (end == std::string_view::npos) return std::nullopt;
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end + 1);
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos) return std::nullopt;
        const std::string_view word = line.substr(0, space);
        const std::string_view value = line.substr(space + 1);
        if (word == "name") record.name = value;
        if (word == "boot") record.boot = value;
        if (word == "helper" && !(helper = Owner::parse(value))) return std::nullopt;
        if (word == "init" && !(record.init = Owner::parse(value))) return std::nullopt;
    }
    if (!helper || record.name.empty()) return std::nullopt;
    record.helper = *helper;
    return record;
}

bool StateRecord::is_ones_own(int fd) noexcept {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && st.st_uid == ::geteuid() && (st.st_mode & 022) == 0;
}

std::optional<std::string> StateRecord::read_own(int directory, const std::string& name, std::size_t most_bytes) {
    std::string bytes;
    if (!is_ones_own(directory)) return std::nullopt;
    errno = 0;
    const Fd found = sys::open_at(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    // The directory is as it is now, and may have been otherwise when the file came.
    if (found && is_ones_own(found.get()) && sys::read_all(found.get(), bytes, most_bytes)) return bytes;
    if (sys::is_shortage(errno)) fail(Step::helper, "file " + quote(name), "raise 'ulimit -n'");
    return std::nullopt;
}

std::optional<StateRecord> StateRecord::read(int directory) {
    const auto text = read_own(directory, file, 4096);
    return text ? parse(*text) : std::nullopt;
}

void StateRecord::write(int directory, const std::string& path) const {
    write_file(directory, file, text(), path);
}

void StateRecord::write_file(int directory, const std::string& name, const std::string& bytes,
                             const std::string& path) {
    const std::string whole = name + while_written;
    const auto refuse = [&](int error) {
        (void)::unlinkat(directory, whole.c_str(), 0);
        throw Error{Step::helper, error, "write " + quote(path + "/" + name),
                    error == ENOSPC || error == EDQUOT ? "make room there, or set run_directory" : ""};
    };
    sys::require_file_size(Step::helper, bytes.size(), "write " + quote(path + "/" + name));
    (void)::unlinkat(directory, whole.c_str(), 0);
    const Fd made = sys::open_at(directory, whole.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0600);
    // Not synced, which may take a disk long: once the machine has crashed, there is nothing that it could tell of.
    if (!made || !sys::write_all(made.get(), bytes)) refuse(errno);
    if (::renameat(directory, whole.c_str(), directory, name.c_str()) != 0) refuse(errno);
}

void StateRecord::remove_files(const Fd& directory) noexcept {
    for (const char* const name : {"sock", file, "state.new"}) (void)::unlinkat(directory.get(), name, 0);
    try {
        for (const std::string& name : names_in(directory, false)) {
            if (name.starts_with(container_prefix)) (void)::unlinkat(directory.get(), name.c_str(), 0);
        }
    } catch (...) {
        // Without memory: whoever takes the name next, or sweeps, tries again.
    }
}

bool StateRecord::end_init() const {
    if (!init || init->is_dead() || boot != boot_id()) return true;
    errno = 0;
    if (!helper.is_dead()) {
        if (sys::is_shortage(errno)) fail(Step::sweep, "process " + std::to_string(helper.pid), "raise 'ulimit -n'");
        return true;
    }
    const Process process{init->pid, Fd{sys::pidfd_open(init->pid)}};
    if (!process && errno == ESRCH) return true;
    if (!process) fail(Step::sweep, "process " + std::to_string(init->pid));
    // What was opened is what the record means only if that was still there afterwards.
    if (Owner::of(init->pid) != init) return true;
    return !process.signal(SIGKILL) || process.ended_within(2000);
}

}  // namespace caisson::inline v0::detail
