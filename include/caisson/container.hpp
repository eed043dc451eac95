// caisson/container.hpp - a running container.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

#include <caisson/cancellation.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/check.hpp>
#include <caisson/detail/asking.hpp>
#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/error.hpp>
#include <caisson/exec.hpp>
#include <caisson/lifecycle.hpp>
#include <caisson/limits.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/security_report.hpp>
#include <caisson/spec.hpp>
#include <caisson/start_hook.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

/// Owns a container: its first process ("init") and everything that was made for it. Move-only.
///
/// A `Container` that exists has started: its command is running, or has run. When init ends, the container ends: the
/// kernel kills what else runs in it, and a small process of its own, the keeper, removes what was made for it. If the
/// process that started it dies, the keeper kills the container. Destroying the object kills it too, silently. In a
/// fork(2)ed copy of the process destroying it does nothing, and what asks for anything throws `std::logic_error`.
///
/// Threads: any thread may start containers, at the same time; the container does not depend on that thread's life. One
/// object is used by one thread at a time, different objects by different ones. No signal handler is installed and no
/// SIGCHLD is raised; see EMBEDDING.md.
class Container {
public:
    /// Makes the container and returns once the kernel has accepted its command (execve).
    ///
    /// All or nothing: throws `Error`, naming the step, the object and the remedy, and leaves nothing behind but
    /// missing mount points that it made in a root directory of the caller's. Needs Linux 5.14, and root
    /// (CAP_SYS_ADMIN, CAP_MKNOD; CAP_NET_ADMIN for networks); without CAP_SYS_ADMIN the container is made inside a
    /// user namespace of the caller's, as far as that goes: see EMBEDDING.md. `probe()` tells what is missing.
    /// `hook` is called once its namespaces are there and before its command runs; what it throws is thrown.
    /// `cancellation`: nullptr, or what another thread may end this start by.
    [[nodiscard]] static Container start(const ContainerSpec& spec, const StartHook& hook = {},
                                         const Cancellation* cancellation = nullptr) {
        return {spec.name, detail::start(spec, hook, cancellation)};
    }
    Container(Container&& other) noexcept
        : name_{std::move(other.name_)},
          running_{std::move(other.running_)},
          status_{std::exchange(other.status_, std::nullopt)},
          oom_kills_{other.oom_kills_},
          lost_keeper_{other.lost_keeper_},
          owner_{std::exchange(other.owner_, -1)},
          user_{other.user_} {}
    Container& operator=(Container&& other) noexcept {
        if (this == &other) return *this;
        end();
        name_ = std::move(other.name_);
        running_ = std::move(other.running_);
        status_ = std::exchange(other.status_, std::nullopt);
        oom_kills_ = other.oom_kills_;
        lost_keeper_ = other.lost_keeper_;
        owner_ = std::exchange(other.owner_, -1);
        user_ = other.user_;
        return *this;
    }
    Container(const Container&) = delete;
    Container& operator=(const Container&) = delete;
    ~Container() { end(); }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// The container's pid 1, as the caller's pid namespace numbers it.
    [[nodiscard]] const Process& init() const noexcept { return running_.init; }
    /// Readable for poll(2) once `try_wait` has the exit status. Owned by this object; do not read from it.
    /// Another one once the keeper is dead and init is not.
    [[nodiscard]] int fd() const noexcept { return lost_keeper_ ? running_.init.pidfd() : running_.channel.fd(); }
    /// The controlling end of the container's console, or of another of its terminals: 1 is the first of
    /// `ContainerSpec::more_consoles`; nullptr if the spec asked for none. Read what comes out of it, or the container
    /// will block once some kilobytes wait. As long as nobody inside has it open, reading fails with EIO; who minds
    /// keeps a descriptor of `Pty::open_peer`.
    [[nodiscard]] Pty* console(std::size_t number = 0) noexcept {
        return number < running_.consoles.size() ? &running_.consoles[number] : nullptr;
    }
    /// Its control group; nullptr if it has none, or has ended. It is removed with the container, by nobody else.
    [[nodiscard]] Cgroup* cgroup() noexcept { return running_.cgroup ? &*running_.cgroup : nullptr; }
    /// A handle of one of the container's namespaces. Throws `Step::open_namespace`, with ESRCH once it has ended.
    [[nodiscard]] Namespace open_namespace(NamespaceKind kind) const {
        require_started();
        try {
            return Namespace::of(running_.init, kind);
        } catch (const Error& e) {
            throw e.in("container " + detail::quote(name_));
        }
    }
    /// What its control groups count at this moment. Throws `Step::cgroup` if it has none, or has ended.
    [[nodiscard]] Usage usage(UsageParts parts = UsageParts::all()) {
        Usage usage;
        this->usage(parts, usage);
        return usage;
    }
    /// The same into an object that the caller keeps: once it has been filled, it is filled again without allocating.
    void usage(UsageParts parts, Usage& into) {
        require_started();
        Cgroup& own = group("usage");
        try {
            own.usage(parts, into);
            if (parts.has(UsagePart::network)) running_.links.usage(into.networks);
        } catch (const Error& e) {
            throw of_group("usage", e);
        }
    }
    /// Changes the limits that `limits` names while the container runs, and leaves the others as they are; a wrong
    /// value is refused as by `check`. All or nothing: where the kernel does not take one, those before it are put
    /// back. Throws `Step::cgroup` if it has no control group, or has ended. See LimitSpec.
    void limit(const LimitSpec& limits) {
        require_started();
        Cgroup& own = group("limits");
        try {
            check_limit_change(limits);
            own.limit(limits);
        } catch (const Error& e) {
            throw of_group("limits", e);
        }
    }
    /// The limits in force, see Cgroup::limits. Throws as `usage` does.
    [[nodiscard]] LimitSpec limits() {
        require_started();
        const Cgroup& own = group("limits");
        try {
            return own.limits();
        } catch (const Error& e) {
            throw of_group("limits", e);
        }
    }

    /// What is in force for the command and its control groups at this moment, read back from the kernel. Throws
    /// `Step::report`, with ESRCH once it has ended.
    [[nodiscard]] SecurityReport security_report() const {
        require_started();
        try {
            return running_.has_command_below ? SecurityReport::of_command(running_.init)
                                              : SecurityReport::of(running_.init);
        } catch (const Error& e) {
            throw e.in("container " + detail::quote(name_));
        }
    }

    /// Starts a command in the container and returns once the kernel has accepted it (execve); any number at a time.
    ///
    /// All or nothing: throws `Error`, naming the step, the object and the remedy. ESRCH: it has ended. EBUSY: it is
    /// suspended; one that is suspended during the start is waited for until `ExecSpec::start_timeout`. ETIMEDOUT: a
    /// file system of the container's own did not answer until then. Needs the rights of a start.
    [[nodiscard]] Exec exec(const ExecSpec& spec) { return exec_ticket().exec(spec); }
    /// Copies a file, a link or a directory with all that is in it from the host into the container: into `target` if
    /// that is a directory, else as `target`, whose directory must be there. It is made by root inside; modes are
    /// kept, but for set-user-ID and the like. What is there already is replaced by what is whole, so that there must
    /// be room for both; directories are merged.
    ///
    /// Paths of the container are resolved inside its root, by a process that has no other. Throws `Step::copy`, naming
    /// what could not be copied; what was copied by then stays; a caller that is killed, and ETIMEDOUT, may leave a
    /// `.caisson-NUMBER` beside it. ETIMEDOUT: a file system of the container's own did not answer for ten seconds.
    /// EINVAL: something is neither file, directory nor link, or a directory would come into itself. EISDIR: a file or
    /// a link would come in the place of a directory. EEXIST: a file would come onto itself, as in a directory that the
    /// host shares.
    void copy_in(const std::string& source, const std::string& target) { exec_ticket().copy_in(source, target); }
    /// The same from the container to the host; what is made there is the caller's.
    void copy_out(const std::string& source, const std::string& target) { exec_ticket().copy_out(source, target); }
    /// For who starts commands without keeping this object busy. Throws as `exec` does if it has ended.
    [[nodiscard]] detail::ExecTicket exec_ticket() {
        require_started();
        if (try_wait()) {
            throw Error{Step::exec, ESRCH, "container " + detail::quote(name_) + ": start a command", "it has ended"};
        }
        detail::ExecTicket ticket{.init = {}, .defaults = *running_.defaults};
        try {
            ticket.init = running_.init.duplicate();
        } catch (const Error& e) {
            throw e.in("container " + detail::quote(name_));
        }
        if (!running_.cgroup) return ticket;
        ticket.groups = detail::GroupPlace::of(*running_.cgroup);
        try {
            ticket.is_suspended = running_.cgroup->frozen();
        } catch (const Error&) {  // it has ended, or nothing here can suspend it
        }
        return ticket;
    }

    /// Lays a veth pair from a bridge of the host into the running container, up and with its addresses and routes; the
    /// interface's name inside: without one in the spec, the first of eth0, eth1, ... that is free and that it was
    /// given for no other. The host's end goes with the container; should this process die first, a moment after it.
    /// EXDEV where the calling thread is in another network namespace than the container's links were made in; so does
    /// detach_network.
    ///
    /// This and the five that follow are all or nothing: what they refuse changes nothing, and throws as a start does
    /// for the same thing, with `Step::open_namespace` and ESRCH if the container has ended. They are carried out by a
    /// process that joins the container as an init does at a start, and by the caller: what the container has put in
    /// the place of a directory leads to nothing of the host's. It may be suspended. Needs what the start needed; for
    /// an ordinary user's container, a tmpfs is all there is.
    [[gnu::visibility("default")]] std::string attach(const NetworkSpec& network);
    /// Makes a node in the container's /dev, and lets its processes use the device. ESTALE where the container has
    /// mounted something else on /dev.
    [[gnu::visibility("default")]] void attach(const DeviceSpec& device);
    /// Mounts a bind, an image or a tmpfs at `target`, which is made if it is missing; links in it are resolved inside.
    /// ESTALE for all but a tmpfs where init has gone on to a user namespace of its own making.
    [[gnu::visibility("default")]] void attach(const MountSpec& mount);
    /// Removes an interface, by its name inside as it was given: of `networks` or attached. ENOENT if there is none.
    [[gnu::visibility("default")]] void detach_network(const std::string& name);
    /// Removes a node, "/dev/fuse" or "fuse", of `devices` or attached, and takes the right to open the device, unless
    /// another node or rule gives it; who has it open keeps it. ENOENT if there is none.
    [[gnu::visibility("default")]] void detach_device(const std::string& path);
    /// Unmounts what was attached at `target`, or is one of `mounts`, busy or not, and nothing else: ESTALE or EBUSY
    /// where something else is mounted there by now; ESTALE, too, where the container has moved or taken out one of
    /// `mounts`, and what it has put in its place counts as that one. What was attached and is gone already counts as
    /// detached, if init sees all that is mounted. EBUSY, too, where a later mount lies below or over it, and for one
    /// of `mounts` at, above or below what is masked or read-only. ENOENT if there is none.
    [[gnu::visibility("default")]] void detach_mount(const std::string& target);
    /// For who does the same elsewhere: see Hotplug. `what` is what it is for.
    [[nodiscard]] [[gnu::visibility("default")]] detail::Hotplug hotplug(const char* what);
    [[nodiscard]] [[gnu::visibility("default")]] detail::HotplugState hotplug_state() const;
    /// What a `Hotplug` has done; who cannot note it undoes it. `netlink`: of a network that was added, a socket of the
    /// network namespace that its bridge is in, where this process cannot open it. False if nothing is there or gone by
    /// it for certain: of a link without an index there is no link, or it was half taken away.
    [[gnu::visibility("default")]] bool note(const detail::Change& change, Fd netlink = Fd{});

    /// Makes every process of the container stand still (freezer(7)); returns once all do. Files, memory, networks stay
    /// as they are, and time goes on. Without effect on one that stands still. Throws `Step::cgroup`: with ETIMEDOUT if
    /// a process does not come to rest within half a second, and all go on then; with ESRCH if it has ended.
    void suspend() {
        in_group("suspend", [](Cgroup& group) { group.freeze(); });
    }
    /// Lets them go on, whoever made them stand still; without effect if nobody did. Throws `Step::cgroup`, with EBUSY
    /// if a control group above the container's is frozen.
    void resume() {
        in_group("resume", [](Cgroup& group) { group.thaw(); });
    }
    /// True while its processes stand still, whoever made them. Throws `Step::cgroup` as `usage` does.
    [[nodiscard]] bool suspended() {
        bool answer = false;
        in_group("state of", [&](Cgroup& group) { answer = group.frozen(); });
        return answer;
    }

    /// See Cgroup::freezer; `what` is what it is for. Throws as `suspended` does.
    [[nodiscard]] detail::Freezer freezer(const char* what) {
        std::optional<detail::Freezer> made;
        in_group(what, [&](const Cgroup& group) { made.emplace(group.freezer()); });
        return std::move(*made);
    }

    /// Sends a signal to init; false if it has ended. An init without a handler for it is not killed by any signal but
    /// SIGKILL and SIGSTOP from outside, see pid_namespaces(7). A suspended one gets it when it is resumed, but for
    /// SIGKILL, which ends it at once. Throws `Step::signal` with EACCES where the policy of the spec's security label
    /// keeps it from init; but SIGKILL then goes by the v2 control group, if it has one.
    bool signal(int number) const {
        require_started();
        try {
            if (!running_.init.signal(number)) return false;
        } catch (const Error& e) {
            if (number == SIGKILL && running_.cgroup && !status_ && running_.cgroup->kill_by_file()) return true;
            throw e.in("container " + detail::quote(name_));
        }
        if (number == SIGKILL && running_.cgroup) running_.cgroup->thaw_for_kill();
        return true;
    }
    /// How init ended; nothing while it runs. Never blocks. Once it has returned a status, everything that was made for
    /// the container is gone.
    [[nodiscard]] std::optional<ExitStatus> try_wait() {
        require_started();
        while (!status_) {
            detail::Received message;
            switch (running_.channel.receive(message)) {
                case detail::Channel::State::nothing_yet: return std::nullopt;
                case detail::Channel::State::closed:
                    if (!end_without_keeper()) return std::nullopt;
                    break;
                case detail::Channel::State::report:
                    if (message.report.kind != detail::Report::Kind::ended) break;
                    if (message.report.left == 0 && running_.cgroup) running_.cgroup->release();
                    running_.links.release();
                    oom_kills_ = message.report.oom_kills;
                    finish(detail::exit_status_of(message.report));
                    break;
            }
        }
        return status_;
    }
    /// How many processes the kernel's out-of-memory killer has ended in it, once `try_wait` has given a status; see
    /// Usage::oom_kills.
    [[nodiscard]] std::uint64_t oom_kills() const noexcept { return oom_kills_; }
    /// Blocks until init has ended. May be called again.
    ExitStatus wait() {
        for (;;) {
            if (const auto status = try_wait()) return *status;
            (void)detail::wait_readable(fd(), lost_keeper_ ? kill_again.count() : -1);
        }
    }
    /// As `wait`, for at most `time`; nothing if it still runs then.
    [[nodiscard]] std::optional<ExitStatus> wait_for(std::chrono::milliseconds time) {
        const std::int64_t deadline = detail::deadline_in(time.count());
        for (;;) {
            if (const auto status = try_wait()) return status;
            const std::int64_t left = deadline - detail::monotonic_ms();
            if (left <= 0) return std::nullopt;
            (void)detail::wait_readable(fd(), lost_keeper_ ? std::min<std::int64_t>(left, kill_again.count()) : left);
        }
    }
    /// Asks init to power off, in the way that it understands; false if it has ended. What init makes of it, and how
    /// long that takes, is its own; a suspended one gets it when it is resumed. Throws `Step::signal`: with ENXIO where
    /// `mode` is initctl and no init inside reads its fifo; else as `signal` does. Never blocks.
    bool shutdown(ShutdownMode mode = ShutdownMode::automatic) { return ask(EndKind::poweroff, mode); }
    /// Asks init to restart, see `shutdown`. That ends the container (ExitStatus::request()): who starts it again is a
    /// Controller, or the caller.
    bool reboot(ShutdownMode mode = ShutdownMode::automatic) { return ask(EndKind::reboot, mode); }
    /// SIGTERM to init, then SIGKILL to everything if it has not ended after `grace`; returns how it ended. A suspended
    /// one is resumed with the SIGTERM waiting for it. An ended one is no error. Throws `Step::signal` with ETIMEDOUT,
    /// and names the process, where one that waits in the kernel has not ended half a second after SIGKILL: the
    /// container then ends when that does, and `wait` tells.
    ExitStatus stop(std::chrono::milliseconds grace) {
        if (!try_wait() && ask_to_stop()) {
            if (const auto status = wait_for(grace)) return *status;
        }
        if (!try_wait()) (void)signal(SIGKILL);
        for (std::int64_t deadline = detail::deadline_in(kill_ms);;) {
            if (const auto status = wait_for(kill_again)) return *status;
            // Once init has ended nobody is left in it, and what the kernel still counts goes by itself.
            if (detail::monotonic_ms() >= deadline && !running_.init.ended()) throw stuck();
            (void)kill_all();
        }
    }
    /// What keeps a container that was killed from its end, as `stop` throws it.
    [[nodiscard]] Error stuck() const {
        require_started();
        const auto processes = running_.cgroup && !status_ ? running_.cgroup->processes() : std::vector<pid_t>{};
        return {Step::signal, ETIMEDOUT, "container " + detail::quote(name_) + ": end",
                detail::who_is_stuck(running_.init, processes)};
    }
    /// SIGTERM to init, which is resumed if it is suspended; false if it has ended.
    bool ask_to_stop() {
        try {
            if (!signal(SIGTERM)) return false;
        } catch (const Error& e) {
            if (e.code().value() != EACCES) throw;  // a policy: SIGKILL is for that, too
        }
        try {
            if (running_.cgroup) running_.cgroup->thaw();
        } catch (const Error&) {
            // What cannot be thawed does not end by itself: SIGKILL is for that.
        }
        return true;
    }
    /// SIGKILL to everything in the container, at once, suspended or not; returns how it ended.
    ExitStatus kill() {
        if (!try_wait()) (void)signal(SIGKILL);
        for (;;) {
            if (const auto status = wait_for(kill_again)) return *status;
            (void)kill_all();
        }
    }
    /// SIGKILL to init and to every process of its control groups, once, without waiting; false if init has ended. The
    /// kernel kills the others with init, but one of them can hold init's end up: as its tracer (ptrace(2)), as the
    /// server of a file system that init waits for (FUSE), or by freezing a v1 group. Throws as `signal` does.
    bool kill_all() {
        if (!signal(SIGKILL)) return false;
        if (running_.cgroup && !status_) running_.cgroup->kill_once();
        return true;
    }

    /// In a fork(2)ed copy of the process, made for this while the process itself only waits: what is asked is answered
    /// there, and destroying the object still does nothing.
    void lend_to_copy() noexcept { user_ = ::getpid(); }

private:
    Container(std::string name, detail::Running running)
        : name_{std::move(name)}, running_{std::move(running)}, owner_{::getpid()}, user_{owner_} {}

    void require_started() const {
        if (owner_ < 0) throw std::logic_error{"this Container has been moved from"};
        if (user_ != ::getpid()) throw std::logic_error{"this Container is another process's, of which this is a copy"};
    }
    bool ask(EndKind kind, ShutdownMode mode) {
        if (try_wait() || running_.init.ended()) return false;
        if (mode == ShutdownMode::by_caller) return true;
        if (mode != ShutdownMode::signal && detail::ask_by_initctl(running_.init, kind)) return true;
        if (mode == ShutdownMode::initctl) {
            throw Error{Step::signal, ENXIO, "container " + detail::quote(name_) + ": request to init",
                        "no init reads '/run/initctl', '/dev/initctl' or '/etc/.initctl' inside: ask by a signal"};
        }
        const auto& chosen = kind == EndKind::reboot ? running_.reboot_signal : running_.shutdown_signal;
        return signal(chosen ? *chosen : detail::signal_for(running_.init, running_.has_command_below, kind));
    }
    /// Lets a `Hotplug` do something, and notes it.
    template <class Do>
    detail::Change change(const char* what, Do&& act) {
        detail::Hotplug plug = hotplug(what);
        try {
            detail::Change change = act(plug);
            plug.keep(change, [&] { (void)note(change); });
            return change;
        } catch (const Error& e) {
            if (!detail::is_ending(running_.init)) throw e.in("container " + detail::quote(name_));
            throw Error{Step::open_namespace, ESRCH, what + (" container " + detail::quote(name_)), "it has ended"};
        }
    }
    Cgroup& group(const char* what) {
        if (running_.cgroup && !status_) return *running_.cgroup;
        throw Error{Step::cgroup, status_ ? ESRCH : ENOENT, std::string{what} + " of container " + detail::quote(name_),
                    status_ ? "it has ended" : "it has no control group"};
    }
    /// What the group has thrown. Its end comes before the report of init's.
    [[nodiscard]] Error of_group(const char* what, const Error& e) const {
        if (!running_.init.ended()) return e.in("container " + detail::quote(name_));
        return {Step::cgroup, ESRCH, std::string{what} + " of container " + detail::quote(name_), "it has ended"};
    }
    /// Something that the control group is asked for. What fails because the container has ended says so.
    template <class Ask>
    void in_group(const char* what, Ask&& ask) {
        const auto outer = [&] { return what + (" container " + detail::quote(name_)); };
        if (!try_wait()) {
            if (!running_.cgroup) throw Error{Step::cgroup, ENOENT, outer(), "it has no control group"};
            try {
                return ask(*running_.cgroup);
            } catch (const Error& e) {
                // Its end and that of its group come before the report of it.
                if (!running_.init.ended()) throw e.in(outer());
            }
        }
        throw Error{Step::cgroup, ESRCH, outer(), "it has ended"};
    }
    void finish(ExitStatus status) noexcept {
        status_ = status;
        detail::reap_if_ours(running_.keeper.get());
        running_.cgroup.reset();
        running_.links.remove();
    }
    /// Somebody killed the keeper: the kernel kills init with it, and what the keeper would have removed is removed
    /// here, once init has ended; false until then.
    bool end_without_keeper() {
        lost_keeper_ = true;
        try {
            if (kill_all() && !running_.init.ended()) return false;
        } catch (const Error&) {
            return false;  // a policy may refuse it now, and not the next time
        }
        // In this order: init is the keeper's child until that one's end is complete.
        detail::reap_if_ours(running_.keeper.get());
        detail::reap_if_ours(running_.init.pidfd());
        finish(ExitStatus::killed(SIGKILL));
        return true;
    }
    void end() noexcept {
        if (owner_ != ::getpid() || status_) {
            if (owner_ >= 0 && running_.cgroup && !status_) running_.cgroup->release();
            return;
        }
        try {
            const std::int64_t deadline = detail::deadline_in(10'000);
            (void)signal(SIGKILL);
            while (!wait_for(kill_again) && detail::monotonic_ms() < deadline && kill_all()) {
            }
            if (!status_) (void)wait_for(std::chrono::milliseconds{deadline - detail::monotonic_ms()});
        } catch (...) {
            // A destructor is silent; stop() and kill() tell.
        }
    }

    static constexpr std::chrono::milliseconds kill_again{100};
    static constexpr std::int64_t kill_ms = 400;

    std::string name_;
    detail::Running running_;
    std::optional<ExitStatus> status_;
    std::uint64_t oom_kills_ = 0;
    bool lost_keeper_ = false;
    pid_t owner_ = -1;  // whose end is the container's
    pid_t user_ = -1;   // who may ask; another one only by `lend_to_copy`
};

}  // namespace caisson::inline v0
