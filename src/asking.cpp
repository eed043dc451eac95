// src/asking.cpp - how an init is asked to end, and who holds an end up.
#include <caisson/detail/asking.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/descriptor.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {
namespace {

// Of characters: pointers would be a variable of the library's, for the loader to fill in.
constexpr char fifos[][16]{"run/initctl", "dev/initctl", "etc/.initctl"};

/// What init(8) reads from its fifo: initreq.h of sysvinit.
struct InitRequest {
    std::int32_t magic = 0x03091969;
    std::int32_t command = 1;  // change the runlevel
    std::int32_t runlevel = 0;
    std::int32_t sleep_time = 0;
    char data[368]{};
};
static_assert(sizeof(InitRequest) == 384);

// Signals by the kernel's numbers, as the C library of most systems gives them: its own may keep others for itself.
constexpr int systemd_poweroff = 34 + 4;
constexpr int systemd_reboot = 34 + 5;

/// The process's directory in /proc, which stays its own whoever gets its pid; nothing where it has ended.
Fd directory_of(const Process& process) {
    Fd directory = sys::open("/proc/" + std::to_string(process.pid()), O_PATH | O_DIRECTORY);
    return process.ended() ? Fd{} : std::move(directory);
}

/// A path of the container, as O_PATH. Only through what the kernel has in memory, as all that leads to a fifo that
/// somebody has open: a file system that does not answer is never asked.
Fd open_in_memory(int root, const char* path) {
    constexpr std::uint64_t resolve_cached = 0x20;  // Linux 5.12
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = sys::in_root | resolve_cached;
    return Fd{static_cast<int>(::syscall(SYS_openat2, root, path, &how, sizeof how))};
}

bool is_hosts(const struct stat& fifo) {
    return std::any_of(std::begin(fifos), std::end(fifos), [&](const char* path) {
        struct stat own {};
        return ::stat((std::string{"/"} + path).c_str(), &own) == 0 && own.st_dev == fifo.st_dev &&
               own.st_ino == fifo.st_ino;
    });
}

std::string_view line_of(std::string_view text, std::string_view key) {
    const std::size_t at = text.find(key);
    if (at == std::string_view::npos) return {};
    const std::size_t begin = text.find_first_not_of(" \t", at + key.size());
    return begin == std::string_view::npos ? std::string_view{} : text.substr(begin, text.find('\n', begin) - begin);
}

/// The signals that a process has a handler for, or keeps blocked and waits for.
std::uint64_t signals_taken(const std::string& status) {
    std::uint64_t all = 0;
    for (const char* key : {"\nSigBlk:", "\nSigCgt:"}) {
        all |= std::strtoull(std::string{line_of(status, key)}.c_str(), nullptr, 16);
    }
    return all;
}

std::string trimmed(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
    return text;
}

/// "in 'fuse_wait'"; the kernel tells it only to who may trace the process.
std::string place_of(const std::string& task) {
    std::string where;
    if (!sys::read_file(AT_FDCWD, (task + "/wchan").c_str(), where)) return {};
    where = trimmed(std::move(where));
    return where.empty() || where == "0" ? std::string{} : ", in " + quote(where);
}

/// The letter of proc(5)'s "state"; 0 where the task is gone. A name may hold anything, also ')'.
char state_of(const std::string& task) {
    std::string text;
    if (!sys::read_file(AT_FDCWD, (task + "/stat").c_str(), text)) return 0;
    const std::size_t at = text.rfind(") ");
    return at == std::string::npos || at + 2 >= text.size() ? '\0' : text[at + 2];
}

std::string name_of_process(const std::string& process) {
    std::string name;
    return sys::read_file(AT_FDCWD, (process + "/comm").c_str(), name) ? " (" + quote(trimmed(std::move(name))) + ")"
                                                                       : std::string{};
}

/// A task of this process that is in the state; empty: none is.
std::string task_in(char state, const std::string& process) {
    const std::string tasks = process + "/task";
    DIR* const stream = ::opendir(tasks.c_str());
    std::string found;
    while (const dirent* entry = stream != nullptr ? ::readdir(stream) : nullptr) {
        if (entry->d_name[0] == '.') continue;
        const std::string task = tasks + "/" + entry->d_name;
        if (state_of(task) != state) continue;
        found = task;
        break;
    }
    if (stream != nullptr) (void)::closedir(stream);
    return found;
}

}  // namespace

bool ask_by_initctl(const Process& init, EndKind kind) {
    const Fd directory = directory_of(init);
    const Fd root = directory ? sys::open_at(directory.get(), "root", O_PATH | O_DIRECTORY) : Fd{};
    if (!root) return false;
    for (const char* path : fifos) {
        const Fd found = open_in_memory(root.get(), path);
        struct stat st {};
        if (!found || ::fstat(found.get(), &st) != 0 || !S_ISFIFO(st.st_mode) || is_hosts(st)) continue;
        // Without a reader this is refused (ENXIO).
        const Fd fifo = sys::open(magic_path(found.get()), O_WRONLY | O_NONBLOCK | O_NOCTTY);
        if (!fifo) continue;
        // Being a reader as well: one that closes it at this moment would raise SIGPIPE.
        const Fd reader = sys::open(magic_path(found.get()), O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (!reader) continue;
        InitRequest request;
        request.runlevel = kind == EndKind::reboot ? '6' : '0';
        std::array<char, sizeof request> bytes;
        std::memcpy(bytes.data(), &request, sizeof request);
        if (sys::write_all(fifo.get(), {bytes.data(), bytes.size()})) return true;
    }
    return false;
}

int signal_for(const Process& init, bool has_command_below, EndKind kind) {
    const bool reboot = kind == EndKind::reboot;
    const Fd directory = directory_of(init);
    std::string name, status;
    if (has_command_below || !directory || !sys::read_file(directory.get(), "comm", name) ||
        !sys::read_file(directory.get(), "status", status)) {
        return SIGTERM;
    }
    const std::uint64_t taken = signals_taken(status);
    const auto takes = [&](int number) { return (taken >> (number - 1) & 1) != 0; };
    if (trimmed(name) == "systemd" && takes(systemd_poweroff)) return reboot ? systemd_reboot : systemd_poweroff;
    if (takes(SIGPWR)) return reboot ? SIGINT : SIGPWR;
    return SIGTERM;
}

bool is_ending(const Process& init) {
    const std::string file = "/proc/" + std::to_string(init.pid()) + "/stat";
    std::string text;
    if (init.ended() || !sys::read_file(AT_FDCWD, file.c_str(), text)) return init.ended();
    // See proc_pid_stat(5). The second is the name, which may hold anything.
    constexpr std::size_t state = 3, flags = 9, threads = 20;
    std::string_view rest = text;
    rest.remove_prefix(std::min(rest.rfind(") ") + 2, rest.size()));
    std::array<std::string_view, threads + 1> fields;
    for (std::size_t i = state; i < fields.size(); ++i) fields[i] = take_field(rest, ' ');
    constexpr std::uint64_t exiting = 4;  // the kernel's PF_EXITING
    if ((parse_decimal(fields[flags], ~std::uint32_t{0}).value_or(0) & exiting) == 0) return init.ended();
    // It is of the first thread, which may end before the others do.
    return fields[threads] == "1" || init.ended_within(100);
}

bool is_held(const Process& process) {
    return !task_in('t', "/proc/" + std::to_string(process.pid())).empty();
}

std::string who_is_stuck(const Process& init, const std::vector<pid_t>& processes) {
    std::string text;
    int count = 0;
    for (const pid_t pid : processes) {
        const std::string process = "/proc/" + std::to_string(pid);
        const std::string task = task_in('D', process);  // it waits uninterruptibly
        if (task.empty()) continue;
        if (++count > 4) return text + ", and others";
        text += (count == 1 ? "process " : ", process ") + std::to_string(pid) + name_of_process(process) +
                " waits in the kernel" + place_of(task);
    }
    if (count > 0) return text;
    const std::string process = "/proc/" + std::to_string(init.pid());
    const char state = state_of(process);
    return "process " + std::to_string(init.pid()) + name_of_process(process) + " has not ended" +
           (state == 0 ? "" : std::string{" (state "} + state + ")") + place_of(process);
}

}  // namespace caisson::inline v0::detail
