// caisson/helper.hpp - containers that outlive the program that started them, and can be found again.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <signal.h>

#include <caisson/detail/archive.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/exec.hpp>
#include <caisson/event.hpp>
#include <caisson/fd.hpp>
#include <caisson/lifecycle.hpp>
#include <caisson/limits.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/security_report.hpp>
#include <caisson/spec.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

inline constexpr const char* default_run_directory = "/run/caisson";

/// How a helper is started.
struct HelperOptions {
    /// Where helpers are found again: a directory of the caller's user that nobody else may write to; made if it is
    /// missing, its parent must be there. A relative path counts from the caller's working directory.
    std::string run_directory = default_run_directory;
    /// The helper program. Empty, it is looked for: where the library, or the program it is linked into, runs from its
    /// build tree, there; else at `libexec/caisson/caisson-helper` as seen from the library's (or program's) own
    /// directory, so that an installation may be moved; else where it was installed. Never in $PATH.
    std::string helper_path{};
    /// Any bytes, at most 1 MiB: the helper keeps them and gives them to who asks (`HelperInfo::note`).
    std::string note{};
    /// Opens the console as a part of the start: the first `Helper::open_console` gives it, with all that was written,
    /// also where the container has ended by then. Without effect if it has no console. Who sets this reads it: until
    /// then, for at most 2 seconds, the helper stays after the end.
    bool open_console = false;
    /// A name: the helper is shared with the other containers of that group in the same `run_directory`. The first of
    /// them starts it, with its rights, limits and namespaces, in which the paths of the others' specs count; it ends
    /// with the last one. It keeps all its privileges, for the starts that are to come. Empty: one for itself.
    std::string group{};
    /// The container survives its helper's death: that is two processes then, one that serves, and dies of whatever it
    /// is, and one that sleeps and puts another in its place within a moment. Clients go on with that one by
    /// themselves; the console has another terminal, and what was in the old one is lost. The sleeper's death is the
    /// container's. Not with `group`, nor for who `ContainerSpec::may_restart`.
    bool outlive = false;
};

/// What a helper tells about its container.
struct HelperInfo {
    std::string name{};
    pid_t init = -1;             ///< the container's pid 1, as the helper's pid namespace numbers it
    std::string console_path{};  ///< "/dev/pts/N" of the host, see Controller::console_path; empty: it has no console
    std::vector<std::string> more_console_paths{};  ///< of `ContainerSpec::more_consoles`
    std::string note{};                             ///< as given to `start` or `set_note`
    bool suspended = false;                         ///< see Container::suspended
    /// How it has ended, where the spec has it preserved: `stop` or `kill` release it, and `wait` waits for that.
    std::optional<ExitStatus> preserved{};
};

class [[gnu::visibility("default")]] Controller;

namespace detail {
struct ContainerRecord;
struct HelperChange;
struct StateRecord;
/// The helper program, opened; see HelperOptions::helper_path. Throws `Step::helper` where there is none.
[[nodiscard]] [[gnu::visibility("default")]] Fd open_helper_program(const std::string& path);
/// What a client uses in the place of the stage that a helper tells: one that was installed with its own library. Empty
/// where none was: the one inside the library.
[[nodiscard]] std::string own_stage(const std::string& told);
}  // namespace detail

/// A client of a helper: a process of its own that runs one container, or those of a group, in a Controller, and lives
/// as long as they do.
///
/// The helper is no child of the caller, has a session of its own and outlives it; by its name the container is found
/// again, by this program or another of the same user. If the helper is killed, the container dies, within a second; in
/// `RUN/NAME/` the helper keeps its socket, a locked file `owner` and what its clients go by, removed before `wait`
/// returns. What a killed helper left there is replaced by the next `start` of that name, or removed by `sweep()`. A
/// group's are in `RUN/.GROUP/` in addition. A helper of one container keeps no capability but CAP_KILL and
/// CAP_DAC_OVERRIDE (to signal the container, and to limit and remove its control groups), and gains none; but for a
/// container that may be started again (`ContainerSpec::may_restart`) it keeps what that takes. It stays in the control
/// group of who started it.
///
/// Move-only; destroying it changes nothing for the container. Any number of clients at a time; one object is used by
/// one thread at a time. Throws `Step::helper` where the helper does not answer within 10 seconds.
class Helper {
public:
    /// Starts a helper, which starts the container; returns once its command runs.
    ///
    /// All or nothing. Throws what `Container::start` throws, or `Step::helper`: EEXIST where a container of that name
    /// runs already (of any number of simultaneous starts one succeeds), ENOENT where the helper program is missing.
    /// Relative paths of the spec count from "/". The same rules for threads as for Container.
    [[nodiscard]] [[gnu::visibility("default")]] static Helper start(const ContainerSpec& spec,
                                                                     const HelperOptions& options = {});
    /// The helper that runs the container of this name; nothing if there is none (or it is just starting).
    [[nodiscard]] [[gnu::visibility("default")]] static std::optional<Helper> find(
        const std::string& name, const std::string& run_directory = default_run_directory);
    /// The names of all containers that helpers run there, sorted; none if the directory does not exist. One that
    /// `find` throws for is there, too.
    [[nodiscard]] [[gnu::visibility("default")]] static std::vector<std::string> list(
        const std::string& run_directory = default_run_directory);

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// The helper's own pid, as the caller's pid namespace numbers it.
    [[nodiscard]] pid_t pid() const noexcept { return process_.pid(); }
    /// Throws `Step::helper` with ESRCH if the container has ended; so do the other questions below.
    [[nodiscard]] HelperInfo info() {
        Fd file;
        const bool suspended = ask({.kind = detail::Message::Kind::info}, &file).number == 1;
        if (!file) throw without_descriptor();
        auto plain = detail::decode<detail::Info>(detail::read_memory_file(file.get()));
        HelperInfo info{std::move(plain.name),         plain.init,
                        std::move(plain.console_path), std::move(plain.more_console_paths),
                        std::move(plain.note),         suspended};
        if (plain.preserved) info.preserved = plain.preserved->status();
        return info;
    }
    /// Replaces the note, for everybody who asks from then on. At most 1 MiB, else `Step::check_spec`. A container that
    /// is started again is what it was at its start, and so is the note.
    [[gnu::visibility("default")]] void set_note(const std::string& note);
    /// See Container::suspend. Throws `Step::helper` with ESRCH if the container has ended, else as that does.
    void suspend() { (void)ask({.kind = detail::Message::Kind::suspend}); }
    /// See Container::resume. Throws as `suspend` does.
    void resume() { (void)ask({.kind = detail::Message::Kind::resume}); }
    /// See Container::suspended. Throws `Step::helper` with ESRCH if the container has ended.
    [[nodiscard]] bool suspended() { return info().suspended; }
    /// See Container::usage.
    [[nodiscard]] Usage usage(UsageParts parts = UsageParts::all()) {
        return detail::decode<Usage>(ask({.kind = detail::Message::Kind::usage, .number = parts.bits()}).body);
    }
    /// See Container::limit.
    void limit(const LimitSpec& limits) {
        (void)ask({.kind = detail::Message::Kind::limit, .body = detail::encode(limits)});
    }
    /// See Container::limits.
    [[nodiscard]] LimitSpec limits() {
        return detail::decode<LimitSpec>(ask({.kind = detail::Message::Kind::limits}).body);
    }
    /// See Container::security_report. The helper gives a pidfd of init, and the caller reads, with its own rights: the
    /// helper has given up most of its own.
    [[nodiscard]] SecurityReport security_report() {
        Fd fd;
        (void)ask({.kind = detail::Message::Kind::process}, &fd);
        if (!fd) throw without_descriptor();
        try {
            const Process init = own_init(std::move(fd));
            return has_command_below(init) ? SecurityReport::of_command(init) : SecurityReport::of(init);
        } catch (const Error& e) {
            throw e.in("container " + detail::quote(name_));
        }
    }
    /// See Container::exec. The caller starts the command, with its own rights and as its own to wait for: the helper
    /// only tells what that takes. The command ends with the caller, and what it has started goes on.
    [[nodiscard]] Exec exec(const ExecSpec& spec) { return exec_ticket().exec(spec); }
    /// See Container::copy_in and Container::copy_out.
    void copy_in(const std::string& source, const std::string& target) { exec_ticket().copy_in(source, target); }
    void copy_out(const std::string& source, const std::string& target) { exec_ticket().copy_out(source, target); }
    /// See Container::exec_ticket.
    [[nodiscard]] [[gnu::visibility("default")]] detail::ExecTicket exec_ticket();
    /// See Container::attach and what goes with it. Done by the caller, with its own rights and in its own network
    /// namespace; one client at a time, EBUSY for another. The host's end of a network that has come so is gone a
    /// moment after the container's end is told.
    [[gnu::visibility("default")]] std::string attach(const NetworkSpec& network);
    [[gnu::visibility("default")]] void attach(const DeviceSpec& device);
    [[gnu::visibility("default")]] void attach(const MountSpec& mount);
    [[gnu::visibility("default")]] void detach_network(const std::string& name);
    [[gnu::visibility("default")]] void detach_device(const std::string& path);
    [[gnu::visibility("default")]] void detach_mount(const std::string& target);
    /// Gives a console another size; without effect if there is no such console.
    void resize(WindowSize size, std::size_t console = 0) {
        (void)ask({.kind = detail::Message::Kind::resize, .number = static_cast<std::int64_t>(console), .size = size});
    }
    /// The terminal at `HelperInfo::console_path` or another, opened by the helper: right also where the caller sees
    /// another /dev/pts. Throws `Step::terminal` if the container has no such console. See HelperOptions::open_console.
    [[nodiscard]] Fd open_console(std::size_t console = 0) {
        if (console == 0 && console_) return std::move(console_);
        return ask_for_descriptor(
            {.kind = detail::Message::Kind::console, .number = static_cast<std::int64_t>(console)});
    }
    /// See Controller::attach_console.
    [[nodiscard]] Fd attach_console(const ViewerOptions& options = {}) {
        return ask_for_descriptor({.kind = detail::Message::Kind::viewer, .body = detail::encode(options)});
    }
    /// See Controller::detach_viewers.
    void detach_viewers(std::size_t console = 0) {
        (void)ask({.kind = detail::Message::Kind::detach, .number = static_cast<std::int64_t>(console)});
    }
    /// See Controller::console_state.
    [[nodiscard]] ConsoleState console_state(std::size_t console = 0) {
        return detail::decode<ConsoleState>(
            ask({.kind = detail::Message::Kind::console_state, .number = static_cast<std::int64_t>(console)}).body);
    }
    /// Sends a signal to init; false if it has ended. See Container::signal.
    bool signal(int number) {
        const auto answer = exchange({.kind = detail::Message::Kind::signal, .number = number});
        return answer && answer->number == 1;
    }
    /// See Controller::shutdown. Throws `Step::helper` with ESRCH if the container has ended, else as that does.
    bool shutdown(ShutdownMode mode = ShutdownMode::automatic) { return ask_init(EndKind::poweroff, mode); }
    /// See Controller::reboot. Throws as `shutdown` does, and with EPERM where the helper cannot start it again:
    /// it keeps what that takes only for who `ContainerSpec::may_restart`, and in a group.
    bool reboot(ShutdownMode mode = ShutdownMode::automatic) { return ask_init(EndKind::reboot, mode); }
    /// SIGTERM to init, then SIGKILL if it has not ended after `grace`; returns how it ended, and what is preserved is
    /// then released. A suspended container is resumed. The helper keeps the time, also if the caller dies meanwhile.
    /// Throws `Step::signal` with ETIMEDOUT as Container::stop does.
    [[gnu::visibility("default")]] ExitStatus stop(std::chrono::milliseconds grace);
    /// The same without waiting for the end; false if it has ended.
    bool ask_to_stop(std::chrono::milliseconds grace) {
        const auto answer = exchange({.kind = detail::Message::Kind::stop, .number = grace.count()});
        return answer && answer->number == 1;
    }
    /// SIGKILL to everything in the container, at once; returns how it ended, and what is preserved is then released.
    ExitStatus kill() {
        (void)ask_to_kill();
        return wait();
    }
    /// The same without waiting for the end; false if it has ended.
    bool ask_to_kill() {
        const auto answer = exchange({.kind = detail::Message::Kind::kill});
        return answer && answer->number == 1;
    }
    /// Blocks until the container has ended, its name is free again and its files are gone. If the helper was killed,
    /// that is `killed by signal 9`: what the container got. May be called again.
    ExitStatus wait() {
        for (;;) {
            if (const auto status = try_wait()) return *status;
            (void)detail::wait_readable(fd(), -1);
        }
    }
    /// How the container ended; nothing while it runs. Never blocks.
    [[nodiscard]] std::optional<ExitStatus> try_wait() {
        require_started();
        detail::Message message;
        // The rest stays readable, where a helper tells faster than anybody can listen.
        for (int count = 0; !status_ && count < most_at_once; ++count) {
            const auto taken = detail::take_message(socket_.get(), message, nullptr);
            if (taken == detail::Taken::nothing_yet) return std::nullopt;
            note(taken, message);
            if (status_ || taken != detail::Taken::message || message.kind == detail::Message::Kind::event) continue;
            if (late_ > 0) --late_;
            else if (message.kind == detail::Message::Kind::refused) throw refusal(message);
        }
        return status_;
    }
    /// Readable for poll(2) once `try_wait` has the exit status. Owned by this object; do not read from it.
    [[nodiscard]] int fd() const noexcept { return socket_.get(); }

    /// From now on `next_event` tells what happens to the container. Throws as `info` does.
    void watch() {
        watches_ = true;
        (void)ask({.kind = detail::Message::Kind::watch});
    }
    /// Of memory pressure, too: see Controller::watch_pressure. Throws as `suspend` does.
    void watch_pressure(MemoryPressure level) {
        (void)ask({.kind = detail::Message::Kind::pressure, .number = static_cast<std::int64_t>(level)});
    }
    /// What has happened since `watch`, but for the end, which `try_wait` tells; nothing if that is all. Never blocks.
    /// Ask until there is nothing: `fd()` is readable for what no other function of this object has taken before.
    [[nodiscard]] [[gnu::visibility("default")]] std::optional<Event> next_event();

private:
    static constexpr std::int64_t answer_ms = 10000;
    static constexpr int most_at_once = 256;

    Helper(std::string name, Process process, Fd socket)
        : name_{std::move(name)}, process_{std::move(process)}, socket_{std::move(socket)} {}

    static Helper begin(const ContainerSpec& spec, const HelperOptions& options);
    /// To the one that has taken the helper's place; false if nobody has.
    [[gnu::visibility("default")]] bool reconnect();
    // Whose loop waits for nobody.
    friend class Controller;
    /// One try, after the helper has hung up, that does not wait: for the same helper, the one in its place, or the end
    /// that its death was. False if none of them is there yet; throws where another runs one of that name.
    bool find_again();
    void take_connection(Fd socket, Process helper);
    struct Request;
    /// By a new process; nothing if the group has one.
    static std::optional<Helper> launch(const Request& request, const HelperOptions& options);
    /// By the group's process; nothing if it has none.
    static std::optional<Helper> join(const Request& request);
    /// How the start went.
    [[nodiscard]] detail::Taken take_start(detail::Message& answer);

    [[gnu::visibility("default")]] bool ask_init(EndKind kind, ShutdownMode mode);
    void require_started() const {
        if (!socket_) throw std::logic_error{"this Helper has been moved from"};
    }
    [[nodiscard]] std::string what() const { return "helper of container " + detail::quote(name_); }
    /// An answer has come alone: the kernel drops what the receiver has no room for.
    [[nodiscard]] Error without_descriptor() const {
        return {Step::helper, EMFILE, what() + ": descriptor of its answer", "raise 'ulimit -n'"};
    }
    friend struct detail::HelperChange;
    // A helper has locked itself down, and its clients have not: they go by what was written before.
    [[nodiscard]] std::optional<detail::StateRecord> record() const;
    /// Throws with ENOENT where it is gone.
    [[nodiscard]] detail::ContainerRecord container_record(const Process& init) const;
    [[nodiscard]] [[gnu::visibility("default")]] bool has_command_below(const Process& init) const;
    /// The pidfd's process, which the record names. Throws with EPERM where it is another.
    [[nodiscard]] [[gnu::visibility("default")]] Process own_init(Fd pidfd) const;
    [[nodiscard]] Error refusal(const detail::Message& message) const {
        const Error e = detail::decode<detail::PlainError>(message.body).error();
        const std::string outer = "container " + detail::quote(name_);
        return e.context().find(outer) != std::string_view::npos ? e : e.in(outer);
    }
    /// The first event that has been taken from the socket.
    std::optional<Event> take_event();
    /// The container's end, if that is what has come.
    void note(detail::Taken taken, const detail::Message& message) {
        if (taken == detail::Taken::closed) {
            // Its descriptors are closed one after the other: the lock on the name is gone for certain once all of it
            // is.
            if (let_go_ || !waits_ || !process_.ended_within(5000)) {
                let_go_ = true;
                throw Error{Step::helper, ECONNRESET, what(), "it has let this client go: find it again"};
            }
            if (!reconnect()) status_ = ExitStatus::killed(SIGKILL);
        } else if (message.kind == detail::Message::Kind::exited) {
            status_ = detail::decode<detail::PlainStatus>(message.body).status();
        } else if (message.kind == detail::Message::Kind::event && watches_) {
            events_.push_back(message.body);
        }
    }
    /// The answer; nothing if the container has ended.
    std::optional<detail::Message> exchange(const detail::Message& question, Fd* passed = nullptr, int pass = -1) {
        if (try_wait()) return std::nullopt;
        if (!detail::send_message(socket_.get(), question, pass) && errno != EPIPE && errno != ECONNRESET) {
            detail::fail(Step::helper, what());
        }
        const std::int64_t deadline = detail::monotonic_ms() + answer_ms;
        detail::Message message;
        while (!status_) {
            const std::int64_t left = deadline - detail::monotonic_ms();
            if (left <= 0) {
                ++late_;
                throw Error{Step::helper, ETIMEDOUT, what(),
                            "process " + std::to_string(process_.pid()) + " does not answer"};
            }
            const auto taken = detail::take_message(socket_.get(), message, passed);
            if (taken == detail::Taken::nothing_yet) {
                (void)detail::wait_readable(socket_.get(), left);
                continue;
            }
            note(taken, message);
            if (status_) break;
            if (taken == detail::Taken::closed) {
                // By another helper, which has not been asked yet.
                (void)detail::send_message(socket_.get(), question, pass);
                continue;
            }
            if (message.kind == detail::Message::Kind::event) continue;
            if (late_ > 0) {
                --late_;
                if (passed != nullptr) passed->reset();
                continue;
            }
            if (message.kind == detail::Message::Kind::refused) throw refusal(message);
            return message;
        }
        return std::nullopt;
    }
    [[nodiscard]] Fd ask_for_descriptor(const detail::Message& question) {
        Fd passed;
        (void)ask(question, &passed);
        if (!passed) throw without_descriptor();
        return passed;
    }
    /// The answer; throws if the container has ended.
    detail::Message ask(const detail::Message& question, Fd* passed = nullptr, int pass = -1) {
        auto answer = exchange(question, passed, pass);
        if (!answer) throw Error{Step::helper, ESRCH, "container " + detail::quote(name_), "it has ended"};
        return std::move(*answer);
    }

    std::string name_;
    Process process_;
    Fd socket_;
    Fd console_;  // opened at the start, for the first who asks
    std::optional<ExitStatus> status_;
    bool let_go_ = false;
    bool watches_ = false;
    bool waits_ = true;  // for a helper that has hung up, and is about to end
    std::string run_directory_;
    std::string owner_;  // whose the name is: the helper, or who puts another in its place
    unsigned reconnects_ = 0;
    std::vector<std::string> events_;  // each a PlainEvent
    unsigned late_ = 0;                // answers that are still to come, to questions that nobody waits for any more
};

}  // namespace caisson::inline v0
