// caisson/detail/owner.hpp - who made a thing that outlives a process: what sweep() goes by.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {

/// A process, so named that no later one with the same pid is taken for it: pid, start time in clock ticks since boot
/// (field 22 of proc_pid_stat(5)) and the pid namespace in which the pid counts.
struct Owner {
    pid_t pid = 0;
    std::uint64_t start_time = 0;
    std::uint64_t pid_namespace = 0;

    /// The calling process. Throws `Step::sweep` where /proc does not tell.
    [[nodiscard]] static Owner current() {
        errno = 0;
        const auto start = start_time_of(::getpid());
        if (!start) {
            const int saved = errno == 0 ? ENOENT : errno;
            throw Error{Step::sweep, saved, "'/proc/self/stat'", saved == ENOENT ? "mount proc on /proc" : ""};
        }
        return {::getpid(), *start, own_pid_namespace()};
    }
    /// Another process of the caller's pid namespace; nothing for one that does not run. Throws `Step::sweep` for want
    /// of descriptors or memory.
    [[nodiscard]] static std::optional<Owner> of(pid_t pid) {
        errno = 0;
        const auto start = start_time_of(pid);
        if (!start && sys::is_shortage(errno)) {
            fail(Step::sweep, "'/proc/" + std::to_string(pid) + "/stat'", "raise 'ulimit -n'");
        }
        if (!start) return std::nullopt;
        return Owner{pid, *start, own_pid_namespace()};
    }
    /// "PID-START-NAMESPACE", fit for a file name.
    [[nodiscard]] std::string tag() const {
        return std::to_string(pid) + "-" + std::to_string(start_time) + "-" + std::to_string(pid_namespace);
    }
    /// The inverse of `tag`; nothing for any other text.
    [[nodiscard]] static std::optional<Owner> parse(std::string_view tag) {
        const std::size_t first = tag.find('-');
        if (first == std::string_view::npos) return std::nullopt;
        const std::size_t second = tag.find('-', first + 1);
        if (second == std::string_view::npos) return std::nullopt;
        const auto pid = parse_decimal(tag.substr(0, first), 0x7fffffff);
        const auto start = parse_decimal(tag.substr(first + 1, second - first - 1), UINT64_MAX);
        const auto ns = parse_decimal(tag.substr(second + 1), UINT64_MAX);
        if (!pid || !start || !ns) return std::nullopt;
        return Owner{static_cast<pid_t>(*pid), *start, *ns};
    }
    /// The owner whose tag a file holds; nothing for any other content, or where it cannot be read.
    [[nodiscard]] static std::optional<Owner> recorded_in(int directory, const char* file) {
        std::string tag;
        if (!sys::read_file(directory, file, tag, 256)) return std::nullopt;
        if (!tag.empty() && tag.back() == '\n') tag.pop_back();
        return parse(tag);
    }
    /// True only where it is certain: the pid counts in the caller's pid namespace, and no process with that pid and
    /// start time runs there (a zombie does not run).
    [[nodiscard]] bool is_dead() const {
        if (pid_namespace != own_pid_namespace()) return false;
        errno = 0;
        const auto start = start_time_of(pid);
        // Who has no descriptor left to look with has seen nothing.
        return start ? *start != start_time : errno == ENOENT || errno == ESRCH;
    }
    friend bool operator==(const Owner&, const Owner&) = default;

private:
    static std::uint64_t own_pid_namespace() noexcept {
        struct stat st {};
        return ::stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
    }
    /// Nothing and `errno` for a process that does not exist (ENOENT) or is a zombie (ESRCH), or where that cannot be
    /// told.
    static std::optional<std::uint64_t> start_time_of(pid_t pid) {
        std::string text;
        if (!sys::read_file(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/stat").c_str(), text)) return std::nullopt;
        // The command in parentheses may itself hold spaces and parentheses.
        std::size_t at = text.rfind(')');
        if (at == std::string::npos || at + 2 >= text.size()) return std::nullopt;
        at += 2;
        const bool zombie = text[at] == 'Z' || text[at] == 'X';
        for (int field = 3; field < 22; ++field) {
            // One whose first thread has ended looks like a zombie too, but counts the others (field 20).
            if (field == 20 && zombie && text.compare(at, 2, "1 ") == 0) {
                errno = ESRCH;
                return std::nullopt;
            }
            at = text.find(' ', at);
            if (at == std::string::npos) return std::nullopt;
            ++at;
        }
        return parse_decimal(std::string_view{text}.substr(at, text.find(' ', at) - at), UINT64_MAX);
    }
};

}  // namespace caisson::inline v0::detail
