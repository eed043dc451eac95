// src/helper.cpp - where the helper program is, and how it is started.
#include <caisson/helper.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/check.hpp>
#include <caisson/detail/asking.hpp>
#include <caisson/detail/container_record.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/launch.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/plan_payload.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/detail/unprivileged.hpp>
#include <caisson/detail/visit.hpp>

#include "helper/plain_event.hpp"
#include "helper_connection.hpp"

namespace caisson::inline v0 {
namespace {

using detail::quote;

constexpr std::string_view program_name = "caisson-helper";
constexpr std::string_view stage_name = "caisson-stage";

/// The file that this function was loaded from: the shared library, or the program that the library is linked into.
std::string own_file() {
    Dl_info info{};
    if (::dladdr(reinterpret_cast<const void*>(&own_file), &info) != 0 && info.dli_fname != nullptr &&
        info.dli_fname[0] == '/') {
        return info.dli_fname;
    }
    char path[4096];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
    return n > 0 ? std::string{path, static_cast<std::size_t>(n)} : std::string{};
}

/// Where a program of the library's is that was installed with it.
std::vector<std::string> places_of(std::string_view program) {
    std::vector<std::string> all;
    const std::string file = own_file();
    const std::size_t slash = file.rfind('/');
    if (slash != std::string::npos) {
        const std::string directory = file.substr(0, slash + 1);
        for (const char* way : {CAISSON_LIBDIR_TO_HELPER, CAISSON_BINDIR_TO_HELPER}) {
            all.push_back(directory + way + "/" + std::string{program});
        }
    }
    all.push_back(std::string{CAISSON_HELPER_DIRECTORY} + "/" + std::string{program});
    return all;
}

std::vector<std::string> places_of_helper() {
    std::vector<std::string> all = places_of(program_name);
    // Only for what itself runs from the build tree: an installed library never looks there.
    if (own_file().starts_with(std::string{CAISSON_BUILD_ROOT} + "/")) all.insert(all.begin(), CAISSON_HELPER_BUILT);
    return all;
}

void check_note(const std::string& note) {
    if (note.size() <= detail::most_note) return;
    throw Error{Step::check_spec, E2BIG, "note of " + std::to_string(note.size()) + " bytes",
                "at most 1048576 bytes are kept"};
}

/// In another pid namespace a process has another number; when it was started is the same in all.
bool is_recorded(const detail::Owner& process, const detail::Owner& recorded) {
    if (process.pid_namespace == recorded.pid_namespace) return process == recorded;
    if (process.start_time != recorded.start_time) return false;
    const std::string path = "/proc/" + std::to_string(process.pid) + "/status";
    std::string status;
    if (!detail::sys::read_file(AT_FDCWD, path.c_str(), status)) {
        if (detail::sys::is_shortage(errno)) detail::fail(Step::helper, quote(path), "raise 'ulimit -n'");
        return false;
    }
    constexpr std::string_view key = "\nNSpid:";
    const std::size_t line = status.find(key);
    if (line == std::string::npos) return false;
    const std::size_t from = line + key.size();
    const std::string numbers = status.substr(from, status.find('\n', from) - from) + "\t";
    return numbers.find("\t" + std::to_string(recorded.pid) + "\t") != std::string::npos;
}

}  // namespace

namespace detail {

Fd open_helper_program(const std::string& path) {
    if (!path.empty()) {
        Fd program = sys::open(path, O_PATH);
        if (!program)
            fail(Step::helper, "helper program " + quote(path), "set helper_path to an installed caisson-helper");
        return program;
    }
    std::string tried;
    for (const std::string& place : places_of_helper()) {
        Fd program = sys::open(place, O_PATH);
        if (!program && sys::is_shortage(errno)) {
            fail(Step::helper, "helper program " + quote(place), "raise 'ulimit -n'");
        }
        struct stat st {};
        if (program && ::fstat(program.get(), &st) == 0 && S_ISREG(st.st_mode)) return program;
        tried += (tried.empty() ? "" : ", ") + quote(place);
    }
    throw Error{Step::helper, ENOENT, "helper program in " + tried, "install caisson, or set helper_path"};
}

std::string own_stage(const std::string& told) {
    if (told.empty()) return {};
    for (std::string& place : places_of(stage_name)) {
        if (::access(place.c_str(), X_OK) == 0) return std::move(place);
    }
    return {};
}

}  // namespace detail

/// Of a container; none where it has gone. Who has no room to look must not say so.
static Fd open_place(const std::string& path) {
    Fd directory = detail::sys::open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!directory && detail::sys::is_shortage(errno)) {
        detail::fail(Step::helper, "directory " + quote(path), "raise 'ulimit -n'");
    }
    return directory;
}

std::optional<detail::StateRecord> Helper::record() const {
    const Fd directory = open_place(run_directory_ + "/" + name_);
    return directory ? detail::StateRecord::read(directory.get()) : std::nullopt;
}

Process Helper::own_init(Fd pidfd) const {
    const auto ended = [this] { return Error{Step::helper, ESRCH, "container " + quote(name_), "it has ended"}; };
    Process process = [&] {
        try {
            return Process::adopt(std::move(pidfd));
        } catch (const Error& e) {
            throw e.code().value() == ESRCH ? ended() : e;
        }
    }();
    const auto record = this->record();
    const auto given = detail::Owner::of(process.pid());
    if (!given) throw ended();
    if (record && record->init && is_recorded(*given, *record->init)) return process;
    throw Error{Step::helper, EPERM, what(),
                "it gives process " + std::to_string(process.pid()) + " as the container's, and " +
                    quote(run_directory_ + "/" + name_ + "/" + detail::StateRecord::file) + " does not"};
}

detail::ContainerRecord Helper::container_record(const Process& init) const {
    const std::string place = run_directory_ + "/" + name_;
    const Fd directory = open_place(place);
    const auto state = directory ? detail::StateRecord::read(directory.get()) : std::nullopt;
    if (state && state->init) {
        if (auto record = detail::ContainerRecord::read(directory.get(), *state->init)) return std::move(*record);
    }
    if (init.ended()) throw Error{Step::helper, ESRCH, "container " + quote(name_), "it has ended"};
    const std::string file =
        state && state->init ? detail::ContainerRecord::file_of(*state->init) : std::string{detail::StateRecord::file};
    throw Error{Step::helper, ENOENT, what() + ": " + quote(place + "/" + file),
                "its clients believe nothing else, and it was there: stop the container and start it again"};
}

bool Helper::has_command_below(const Process& init) const {
    return container_record(init).has_command_below;
}

detail::ExecTicket Helper::exec_ticket() {
    Fd pidfd;
    const bool suspended = ask({.kind = detail::Message::Kind::process}, &pidfd).number == 1;
    if (!pidfd) throw without_descriptor();
    Process init = own_init(std::move(pidfd));
    detail::ContainerRecord record = container_record(init);
    record.defaults.spec.stage_path = detail::own_stage(record.defaults.spec.stage_path);
    return {.init = std::move(init),
            .defaults = std::move(record.defaults),
            .groups = {std::move(record.hotplug.group), std::move(record.hotplug.directories)},
            .is_suspended = suspended};
}

void Helper::set_note(const std::string& note) {
    check_note(note);
    const Fd file = detail::to_memory_file(note);
    (void)ask({.kind = detail::Message::Kind::note}, nullptr, file.get());
}

bool Helper::ask_init(EndKind kind, ShutdownMode mode) {
    using Question = detail::Message::Kind;
    // The helper may not look into the container, the caller perhaps may.
    if (mode == ShutdownMode::automatic || mode == ShutdownMode::initctl) {
        Fd fd;
        try {
            (void)ask({.kind = Question::process}, &fd);
        } catch (const Error& e) {
            // One that waits for its restart has no init, or where there is no room for that look: the helper can be
            // asked all the same.
            if (e.code().value() == ETIMEDOUT || e.code().value() == ECONNRESET) throw;
        }
        try {
            if (fd && detail::ask_by_initctl(own_init(std::move(fd)), kind)) mode = ShutdownMode::by_caller;
        } catch (const Error& e) {
            if (e.step() == Step::helper && e.code().value() == EPERM) throw;
            // It is in a pid namespace that this process does not see into, or has ended.
        }
    }
    const auto question = kind == EndKind::reboot ? Question::reboot : Question::shutdown;
    return ask({.kind = question, .number = static_cast<std::int64_t>(mode)}).number == 1;
}

ExitStatus Helper::stop(std::chrono::milliseconds grace) {
    constexpr std::int64_t kill_ms = 450;
    unsigned before = reconnects_;
    (void)exchange({.kind = detail::Message::Kind::stop, .number = grace.count()});
    for (std::int64_t deadline = detail::deadline_in(grace.count()) + kill_ms;; deadline += kill_ms) {
        for (std::int64_t left = 0; (left = deadline - detail::monotonic_ms()) > 0;) {
            if (const auto status = try_wait()) return *status;
            (void)detail::wait_readable(fd(), left);
        }
        if (reconnects_ != std::exchange(before, reconnects_)) {
            // Who was to kill it has died.
            (void)exchange({.kind = detail::Message::Kind::kill});
            continue;
        }
        const auto answer = exchange({.kind = detail::Message::Kind::stuck});
        if (answer && !answer->body.empty()) throw detail::decode<detail::PlainError>(answer->body).error();
    }
}

std::optional<Event> Helper::next_event() {
    try {
        if (events_.empty()) (void)try_wait();
    } catch (const Error&) {
        if (events_.empty()) throw;  // else it is told behind them
    }
    return take_event();
}

std::optional<Event> Helper::take_event() {
    if (events_.empty()) return std::nullopt;
    const std::string plain = std::move(events_.front());
    events_.erase(events_.begin());
    return detail::decode<detail::PlainEvent>(plain).event(name_);
}

/// What a helper is asked for, and the descriptors that go with it.
struct Helper::Request {
    detail::StartRequest start;
    std::vector<int> passed;

    Request(const ContainerSpec& spec, const HelperOptions& options)
        : start{.run_directory = detail::absolute(options.run_directory),
                .group = options.group,
                .note = options.note,
                .open_console = options.open_console,
                .outlive = options.outlive,
                .spec = spec} {
        const auto pass = [&](std::int32_t& fd) {
            if (fd < 0) return;
            passed.push_back(fd);
            fd = detail::helper_stdio + static_cast<std::int32_t>(passed.size()) - 1;
        };
        if (spec.console) start.spec.stdio = {};
        StdioSpec& stdio = start.spec.stdio;
        for (std::int32_t* const fd : {&stdio.in, &stdio.out, &stdio.err}) pass(*fd);
        for (std::int32_t& fd : start.spec.descriptors) pass(fd);
    }
};

detail::Taken Helper::take_start(detail::Message& answer) {
    detail::Taken taken;
    // As long as a start takes; the helper's death ends it.
    while ((taken = detail::take_message(fd(), answer, &console_)) == detail::Taken::nothing_yet) {
        (void)detail::wait_readable(fd(), -1);
    }
    if (taken == detail::Taken::message && answer.kind == detail::Message::Kind::refused) {
        throw detail::decode<detail::PlainError>(answer.body).error();
    }
    return taken;
}

std::optional<Helper> Helper::launch(const Request& request, const HelperOptions& options) {
    Fd program = detail::open_helper_program(options.helper_path);
    Fd null = detail::sys::open("/dev/null", O_RDWR | O_NOCTTY);
    if (!null) detail::fail(Step::helper, "'/dev/null'");
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        detail::fail(Step::helper, "socket to the helper");
    }
    Fd ours{ends[0]};
    Fd theirs{ends[1]};
    Fd file = detail::to_memory_file(detail::encode(request.start));
    std::vector<int> descriptors{null.get(), null.get(), null.get(), theirs.get(), file.get()};
    descriptors.insert(descriptors.end(), request.passed.begin(), request.passed.end());

    std::string title = "caisson-helper";
    std::string name = options.group.empty() ? request.start.spec.name : options.group;
    char* const argv[] = {title.data(), name.data(), nullptr};
    char* const envp[] = {nullptr};
    detail::LaunchFailure failure;
    detail::Launched launched = detail::launch({.program = program.get(),
                                                .argv = argv,
                                                .envp = envp,
                                                .descriptors = descriptors.data(),
                                                .descriptor_count = descriptors.size()},
                                               failure);
    if (!launched.pidfd) {
        const std::string& path = options.helper_path;
        throw Error{
            Step::helper, failure.errnum,
            "start the helper program" + (path.empty() ? path : " " + detail::quote(path)) + ": " + failure.call,
            failure.errnum == EACCES || failure.errnum == ENOEXEC
                ? "it must be an installed caisson-helper, an executable file"
                : ""};
    }
    for (Fd* const passed : {&theirs, &file, &null, &program}) passed->reset();
    Helper helper{request.start.spec.name, Process{launched.pid, std::move(launched.pidfd)}, std::move(ours)};
    helper.run_directory_ = request.start.run_directory;
    detail::Message answer;
    if (helper.take_start(answer) == detail::Taken::closed) {
        throw Error{Step::helper, ECONNRESET, "helper program: it ended before it had started the container",
                    "run it by hand to see whether it can be loaded"};
    }
    if (answer.kind == detail::Message::Kind::elsewhere) return std::nullopt;
    if (!request.start.outlive) return helper;
    try {
        // What was launched is who puts others in the helper's place; found by its name, it is the one that serves.
        if (auto found = find(helper.name_, request.start.run_directory)) helper.process_ = std::move(found->process_);
        helper.owner_ = detail::owner_of(helper.run_directory_ + "/" + helper.name_);
    } catch (...) {
        // Nobody would have it.
        (void)detail::send_message(helper.fd(), {.kind = detail::Message::Kind::kill});
        throw;
    }
    return helper;
}

std::optional<Helper> Helper::join(const Request& request) {
    const std::string what = "helper of group " + quote(request.start.group);
    auto found = detail::connect_to(request.start.run_directory, "." + request.start.group, what);
    if (!found) return std::nullopt;
    Helper helper{request.start.spec.name, std::move(found->helper), std::move(found->socket)};
    helper.run_directory_ = request.start.run_directory;
    // False where it goes away at this moment, with its last container.
    const auto send = [&](detail::Message::Kind kind, int fd) {
        while (!detail::send_message(helper.fd(), {.kind = kind}, fd)) {
            if (errno == EPIPE || errno == ECONNRESET) return false;
            if (errno != EAGAIN) detail::fail(Step::helper, what);
            pollfd p{helper.fd(), POLLOUT, 0};
            (void)detail::sys::retry([&] { return ::poll(&p, 1, -1); });
        }
        return true;
    };
    for (const int fd : request.passed) {
        if (!send(detail::Message::Kind::descriptor, fd)) break;
    }
    const Fd file = detail::to_memory_file(detail::encode(request.start));
    // Where it does not take that, it may have said why.
    (void)send(detail::Message::Kind::start, file.get());
    detail::Message answer;
    if (helper.take_start(answer) == detail::Taken::closed) return std::nullopt;
    return helper;
}

Helper Helper::begin(const ContainerSpec& spec, const HelperOptions& options) {
    if (options.run_directory.empty() || options.run_directory.find('\0') != std::string::npos) {
        throw Error{Step::check_spec, 0, "run_directory: " + detail::quote(options.run_directory) + " is no path",
                    "name a directory, such as /run/caisson"};
    }
    if (!options.group.empty() && !is_valid_name(options.group)) {
        throw Error{Step::check_spec, 0, "group: " + detail::quote(options.group) + " is no valid name",
                    "use a letter or digit, then up to 62 letters, digits, '_', '.' and '-'"};
    }
    if (options.outlive && !options.group.empty()) {
        throw Error{Step::check_spec, 0, "outlive: a group's helper is not put in another's place",
                    "leave group empty"};
    }
    if (options.outlive && spec.may_restart()) {
        throw Error{Step::check_spec, 0, "outlive: what may restart by itself depends on the helper that starts it",
                    "set on_poweroff, on_reboot and on_crash to destroy or preserve"};
    }
    check_note(options.note);
    detail::check_descriptors(spec);
    const Request request{spec, options};
    const std::int64_t deadline = detail::monotonic_ms() + answer_ms;
    for (;;) {
        if (!options.group.empty()) {
            if (auto helper = join(request)) return std::move(*helper);
        }
        if (auto helper = launch(request, options)) return std::move(*helper);
        // Between the moments in which another has taken the group and listens for its starts, or has left it.
        if (detail::monotonic_ms() > deadline) {
            throw Error{Step::helper, ETIMEDOUT, "helper of group " + quote(options.group), "it does not answer"};
        }
        (void)::poll(nullptr, 0, 2);
    }
}

Helper Helper::start(const ContainerSpec& spec, const HelperOptions& options) {
    try {
        detail::refuse_set_id_program();
        check(spec);
        return begin(spec, options);
    } catch (const Error& e) {
        const std::string outer = "container " + quote(spec.name);
        throw e.context().starts_with(outer) ? e : e.in(outer);
    }
}

}  // namespace caisson::inline v0
