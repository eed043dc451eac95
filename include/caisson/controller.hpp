// caisson/controller.hpp - many containers and their consoles on one pollable descriptor.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <caisson/console.hpp>
#include <caisson/cancellation.hpp>
#include <caisson/container.hpp>
#include <caisson/detail/owned.hpp>
#include <caisson/detail/reattached.hpp>
#include <caisson/detail/turns.hpp>
#include <caisson/error.hpp>
#include <caisson/event.hpp>
#include <caisson/fd.hpp>
#include <caisson/lifecycle.hpp>
#include <caisson/limits.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/spec.hpp>
#include <caisson/start_hook.hpp>
#include <caisson/usage.hpp>

namespace caisson::inline v0 {

namespace detail {

class Consoles;
class Relay;
struct [[gnu::visibility("default")]] ConsolesEnd {
    void operator()(Consoles* consoles) const noexcept;
};
using ConsolesOwner = Owned<Consoles, ConsolesEnd>;

}  // namespace detail

class [[gnu::visibility("default")]] Controller;

/// Runs any number of containers and tells what happens to them: from the caller's event loop, or in a thread of the
/// caller's. Makes no threads and no processes but the containers', installs no handlers, stores no callbacks.
///
/// Own loop:    poll `fd()` for POLLIN, then `while (auto event = controller.next()) ...`
/// Own thread:  `std::thread t{[&] { controller.run([](Event event) { ... }); }};`, and `controller.stop()` to end it.
///
/// Threads: every function may be called from any thread, also from the handler that `run` calls; only destroying it is
/// for one alone. Neither copied nor moved, so that `stop()` always finds it. Destroying it kills its containers,
/// silently; in a fork(2)ed copy of the process it does nothing. So does the death of the process: see Container. For
/// containers that outlive their maker there is `Helper`.
///
/// Consoles (ConsoleUse::relay): what comes out of the container goes to the terminal at `console_path` and to every
/// viewer of `attach_console`, what is typed there goes in. The fastest reader sets the pace: if none takes anything,
/// about 8 KiB wait in each terminal of the kernel and 64 KiB (or `scroll_back`) here, then the container's writes
/// block, as libvirt's do. Who falls behind the others by that much loses what is oldest, which is counted and told by
/// `console_lost`. Output while no user is there waits for the first one to come. ConsoleSpec changes that: with
/// `drop_oldest` or a log the container never waits. `exited` is told once the container's last byte has been written
/// to everybody, or once nobody has taken any for 2 seconds, or at the time that `stop` promises; the terminal stays
/// until its user has read all, or nothing for 2 seconds.
///
/// Ends: what follows is as the spec's `on_poweroff`, `on_reboot` and `on_crash` say. A container that is started again
/// keeps its id, the terminal of its relayed console, its limits as they were changed, and what was attached to it, and
/// does without what was detached; it is a fresh one in all else. What was attached is looked up anew, as all that the
/// spec names, by and where this process is: if it is not there any more, `failed` tells. What `stdio` and
/// `descriptors` of a spec name that may restart by itself is held open until it does so no more.
///
/// Throws `Step::event_loop` where the kernel refuses, and `std::logic_error` for an id that it never gave out.
class Controller {
public:
    Controller();
    Controller(const Controller&) = delete;
    Controller& operator=(const Controller&) = delete;
    ~Controller();

    /// Starts a container, before it returns; how that went is the event `started` or `failed`. Throws nothing of the
    /// container's own. Blocks for the one or two milliseconds that a start takes. `hook` and `cancellation` as of
    /// Container::start, for this start, not for later ones; what the hook throws is told by `failed`.
    ContainerId start(const ContainerSpec& spec, ConsoleUse use = ConsoleUse::relay, const StartHook& hook = {},
                      const Cancellation* cancellation = nullptr);
    /// Takes over a container that runs; `exited` will follow, and no restart. Its consoles are relayed as
    /// `consoles_of` says, which nothing else is taken from. Where that throws, the container has been killed.
    ContainerId adopt(Container container, ConsoleUse use = ConsoleUse::relay, const ContainerSpec& consoles_of = {});
    /// A container that a helper runs, see Helper: its events come here, and what is asked by its id is asked of the
    /// helper, as far as a Helper can be asked; the rest throws `Step::event_loop` with EOPNOTSUPP. It stays the
    /// helper's: it goes on when this object or the process ends. If the helper lets go of this program, which has not
    /// called `next` for too long, events may be missing; `failed` follows where it cannot be found again. Throws
    /// `Step::helper`, with ESRCH if no helper runs a container of that name.
    ///
    /// An answer takes as long as the helper takes, 10 seconds at most; the other containers go on meanwhile.
    ContainerId reattach(const std::string& name, const std::string& run_directory = default_run_directory);
    /// See Container::exec. The command is the caller's, who waits for it by `Exec::fd`: no event tells of it. Other
    /// threads go on meanwhile. Throws `Step::event_loop` with ESRCH if the container has ended.
    [[nodiscard]] Exec exec(ContainerId id, const ExecSpec& spec) { return exec_ticket(id).exec(spec); }
    /// See Container::exec_ticket, also for Container::copy_in and Container::copy_out.
    [[nodiscard]] detail::ExecTicket exec_ticket(ContainerId id);
    /// Gives a container to the caller; no event about it will follow. What a user has typed or not yet read of a
    /// relayed console is lost. Throws `Step::event_loop` with ESRCH if it has ended or did not start.
    [[nodiscard]] Container take(ContainerId id);

    /// Sends a signal to the container's init; false if it has ended. See Container::signal. If it ends, what follows
    /// is as the spec says: who wants it ended for good calls `stop`.
    bool signal(ContainerId id, int number);
    /// Sends SIGTERM to init, and SIGKILL to everything once `grace` is over; returns at once, and `exited` follows
    /// within half a second of that, or `stuck` if a process cannot end. What a viewer has not read by then is lost to
    /// it, and counted. False if it has ended. A suspended one is resumed. A second call may bring the end forward,
    /// never put it off. One that waits for its restart is not started any more.
    bool stop(ContainerId id, std::chrono::milliseconds grace);
    /// SIGKILL to everything in it, at once, and nothing follows its end; else as `stop`.
    bool kill(ContainerId id);
    /// See Container::shutdown; `exited` follows if init does it, or what `on_poweroff` says, however it ends. One that
    /// waits for its restart is not started any more. False if it has ended.
    bool shutdown(ContainerId id, ShutdownMode mode = ShutdownMode::automatic) {
        return ask(id, EndKind::poweroff, mode);
    }
    /// See Container::reboot; if init does it, what `on_reboot` says follows, however it ends: so this restarts any
    /// command that ends by SIGTERM. It takes back a `stop` with a grace of years, which nobody may have obeyed. False
    /// if it has ended, and is not started again.
    bool reboot(ContainerId id, ShutdownMode mode = ShutdownMode::automatic) { return ask(id, EndKind::reboot, mode); }
    /// How a container has ended that is preserved or waits for its restart; nothing while it runs. Throws
    /// `Step::event_loop` with ESRCH if the controller knows it no more.
    [[nodiscard]] std::optional<ExitStatus> status(ContainerId id);
    /// What keeps a container that was killed from its end, see Container::stuck; nothing where nothing does.
    [[nodiscard]] std::optional<Error> stuck(ContainerId id);
    /// Forgets a preserved container, and what its console still held; false if there was none.
    bool release(ContainerId id);
    /// See Container::suspend; `suspended` follows, unless it was that already. Others go on while this waits. Throws
    /// `Step::event_loop` with ESRCH if the container has ended, and `Step::cgroup`.
    void suspend(ContainerId id) { freeze(id, true); }
    /// See Container::resume; `resumed` follows, unless it was not suspended. Throws as `suspend` does.
    void resume(ContainerId id) { freeze(id, false); }
    /// See Container::suspended. Throws as `suspend` does.
    [[nodiscard]] bool suspended(ContainerId id);
    /// From now on, `memory_pressure` tells when the container's processes have had it as hard as `level`, or harder; a
    /// second call changes the level. Costs a descriptor. Throws as `suspend` does; see Cgroup::watch.
    void watch_pressure(ContainerId id, MemoryPressure level);
    /// See Container::usage. Of a preserved container, what was answered last, if anybody has asked; who asked for less
    /// than another is left out. Throws `Step::event_loop` with ESRCH if the container has ended.
    [[nodiscard]] Usage usage(ContainerId id, UsageParts parts = UsageParts::all());
    /// See Container::limit. Others go on while the kernel looks for the memory that is to go. Throws
    /// `Step::event_loop` with ESRCH if the container has ended.
    void limit(ContainerId id, const LimitSpec& limits);
    /// See Container::limits. Throws as `limit` does.
    [[nodiscard]] LimitSpec limits(ContainerId id);
    /// See Container::attach and what goes with it; `device_added` or `device_removed` follows. Others go on meanwhile.
    /// Throw `Step::event_loop` with ESRCH if the container has ended.
    std::string attach(ContainerId id, const NetworkSpec& network);
    void attach(ContainerId id, const DeviceSpec& device);
    void attach(ContainerId id, const MountSpec& mount);
    void detach_network(ContainerId id, const std::string& name);
    void detach_device(ContainerId id, const std::string& path);
    void detach_mount(ContainerId id, const std::string& target);
    /// For who does it elsewhere: see Container::hotplug.
    [[nodiscard]] detail::HotplugState hotplug_state(ContainerId id);
    void note(ContainerId id, const detail::Change& change, Fd netlink = Fd{});
    /// Of all containers, in the order of their starts, in the place of what is in `into`: once that has been filled,
    /// it is filled again without allocating. Those that have ended are left out. Nothing that is wrong with one
    /// hinders the others: it is told in `ContainerUsage::missing`.
    void usage(UsageParts parts, std::vector<ContainerUsage>& into);
    // Consoles are known by their numbers: 0 is `ContainerSpec::console`, 1 the first of `more_consoles`.

    /// Gives a console another size; the container's foreground programs get SIGWINCH. False if the container has ended
    /// or has no such console. A size that is set inside, or on the terminal at `console_path`, is the other side's as
    /// soon as something is written there, and told by `console_resized`.
    bool resize(ContainerId id, WindowSize size, std::size_t console = 0);
    /// "/dev/pts/N" of the host, the terminal that a relayed console is carried to; empty where it is not relayed. It
    /// is in raw mode. Its owner is the caller's user, its mode what the host's devpts gives. It is made when it is
    /// first asked for, by this or by `open_console`. Throws `Step::terminal` if it cannot be made.
    [[nodiscard]] std::string console_path(ContainerId id, std::size_t console = 0);
    /// The same terminal, opened. Throws `Step::terminal`, also where the console is not relayed.
    [[nodiscard]] Fd open_console(ContainerId id, std::size_t console = 0);
    /// One more viewer: a socket that gives first what is kept (`ConsoleSpec::scroll_back`), then all that comes out of
    /// the console, and its end after the last byte. What is written to it is typed. Closing it detaches the viewer;
    /// shutdown(2) for writing ends what it types. Throws `Step::terminal`, also where the console is not relayed.
    [[nodiscard]] Fd attach_console(ContainerId id, const ViewerOptions& options = {});
    /// Ends every viewer's socket; the terminal at `console_path` stays. Throws as `attach_console` does.
    void detach_viewers(ContainerId id, std::size_t console = 0);
    /// Throws as `attach_console` does.
    [[nodiscard]] ConsoleState console_state(ContainerId id, std::size_t console = 0);
    /// With ConsoleUse::raw and `told`: the controlling end of the container's console, which stays the controller's
    /// until `exited` hands it over; -1 where there is none.
    [[nodiscard]] int console_fd(ContainerId id, std::size_t console = 0);
    /// The container's init. Throws `Step::event_loop` with ESRCH if the container has ended.
    [[nodiscard]] pid_t init_pid(ContainerId id);
    /// Containers whose `exited` has not been made yet.
    [[nodiscard]] std::size_t size() const {
        const std::lock_guard lock{own()};
        return entries_.size() - preserved_ + reattached_.ids().size();
    }
    /// True while a console of an ended container waits for its user to read the rest.
    [[nodiscard]] bool has_unread_console() const {
        const std::lock_guard lock{own()};
        return !lingering_.empty();
    }

    /// Readable while `next` has something to do; consoles and deadlines are covered. An epoll(7) descriptor, the same
    /// as long as this object lives; do not read from it.
    [[nodiscard]] int fd() const noexcept { return epoll_.get(); }
    /// Does what can be done without blocking and returns the next event, if there is one.
    /// A restart that is due is made here: that takes as long as `start`.
    /// `hook` is called for each restart, as of Container::start; what it throws is told by `failed`.
    [[nodiscard]] std::optional<Event> next(const StartHook& hook = {});
    /// Blocks, handing each event to `handle(Event)`, until `stop` is called; events that are there then wait for the
    /// next call. If `handle` throws, so does this: the event is gone that it was given, all others wait for the next
    /// call, and everything goes on as if nothing had been. `hook` as of `next`.
    template <class Handler>
    void run(Handler&& handle, const StartHook& hook = {}) {
        const Running running{*this};
        while (!take_stop()) {
            if (auto event = next(hook)) handle(std::move(*event));
            else (void)detail::wait_readable(epoll_.get(), -1);
        }
    }
    /// As `run`, but what `handle` throws goes to `caught(std::exception_ptr)`, and ends nothing.
    template <class Handler, class Caught>
    void run_on(Handler&& handle, Caught&& caught, const StartHook& hook = {}) {
        const auto guarded = [&](Event event) {
            try {
                handle(std::move(event));
            } catch (...) {
                caught(std::current_exception());
            }
        };
        run(guarded, hook);
    }
    /// Makes `run` return, the next one if none is under way; of several, one. Also async-signal-safe. Without a `run`,
    /// `fd()` gets readable once, and `next` swallows that.
    void stop() noexcept {
        if (owner_ != ::getpid()) return;
        const int saved = errno;
        const std::uint64_t one = 1;
        (void)!::write(stop_.get(), &one, sizeof one);
        errno = saved;
    }

private:
    static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    static constexpr std::int64_t patience_ms = 2000;  // for a user who does not read, once the container has ended
    static constexpr std::int64_t last_ms = 100;       // for one who reads, where `stop` has no more than that to give
    static constexpr std::int64_t linger_step_ms = 20;
    static constexpr std::int64_t kill_again_ms = 100;  // see Container::kill_all
    static constexpr std::int64_t stuck_ms = 400;       // after SIGKILL
    static constexpr std::int64_t again_ms = 100;       // after what the kernel had no room for
    static constexpr std::int64_t seek_ms = 50;         // a helper that has hung up
    static constexpr std::int64_t give_up_seeking_ms = 10000;
    // What epoll reports: a container's number and one of these.
    static constexpr std::uint64_t key_wake = 0, key_stop = 1, key_timer = 2, part_mask = 0xffff;
    // With `part_data`, the number of a raw console; with `part_console`, what a relay is told.
    enum Part : std::uint64_t { part_end, part_oom, part_pressure, part_data = 0x4000, part_console = 0x8000 };

    /// What a container is started again from: its spec, with what it was changed to while it ran.
    struct Origin {
        ContainerSpec spec;
        std::vector<Fd> kept;         // what `spec` borrows, where it may restart by itself
        bool can_start_again = true;  // else its descriptors are the caller's no more
        static detail::Owned<Origin> of(const ContainerSpec& spec);
    };
    enum class Asked : std::uint8_t { nothing, reboot, shutdown, stop };

    struct Entry {
        ContainerId id;
        Container container;
        int end_fd = -1;                 // what is watched for its end
        detail::Owned<Origin> origin{};  // nothing for one that was adopted
        Asked asked = Asked::nothing;
        bool starting = false;
        bool preserved = false;
        std::uint32_t restarts_in_row = 0;
        std::uint64_t restarts = 0;
        std::int64_t started_at = detail::monotonic_ms();
        std::int64_t restart_at = never;
        detail::Owned<Usage> last_usage{};  // where it may be preserved
        UsageParts last_parts{};
        ConsoleUse use = ConsoleUse::relay;
        detail::ConsolesOwner consoles{};  // those that are relayed
        std::uint64_t data_told = 0;       // a bit for each console whose `console_data` nobody has taken yet
        std::int64_t losses_at = never;
        std::optional<ExitStatus> status{};      // known, while the console is not yet finished
        bool suspended = false;                  // as has been told
        std::optional<detail::OomNotice> oom{};  // on v2 by a descriptor of the container's group
        std::int64_t oom_at = never;
        std::optional<detail::PressureNotice> pressure{};
        std::int64_t pressure_at = never;
        std::int64_t kill_at = never;
        std::int64_t stuck_at = never;
        std::int64_t stop_by = never;  // from then on nobody is waited for
        std::int64_t give_up_at = never;
        std::int64_t again_at = never;  // what was refused is tried once more
        std::int64_t due = never;       // when `attend` is called next

        /// Its end has been told.
        [[nodiscard]] bool told() const noexcept { return preserved || starting || restart_at != never; }
        [[nodiscard]] bool waits_for_restart() const noexcept { return starting || restart_at != never; }
    };
    /// An entry's time to be attended to. Of several, only the one that `Entry::due` says counts.
    struct Due {
        std::int64_t at;
        ContainerId id;
        friend bool operator>(const Due& a, const Due& b) noexcept { return a.at > b.at; }
    };
    using Entries = std::vector<detail::Owned<Entry>>;
    /// A call of `run` that is under way.
    struct Running {
        explicit Running(Controller& controller) : all{controller} { all.count_runs(1); }
        Running(const Running&) = delete;
        ~Running() { all.count_runs(-1); }
        Controller& all;
    };
    struct Lingering {
        detail::ConsolesOwner consoles;
        std::size_t unread;
        std::int64_t give_up_at;
    };

    [[nodiscard]] detail::HelperCall call_helper(ContainerId id) { return reattached_.call(id); }
    /// What its helper has told; false if it is none of a helper's.
    bool hear_helper(ContainerId id);
    void hear(detail::Reattached& one);
    /// Tries to find its helper again, which has hung up.
    void seek(detail::Reattached& one, std::int64_t now);
    void seek_helpers(std::int64_t now);
    void end_reattached(detail::Reattached& one, Event last);
    void add_reattached_usage(UsageParts parts, std::vector<ContainerUsage>& into, std::size_t filled);

    static std::uint64_t key(ContainerId id, Part part) noexcept { return static_cast<std::uint64_t>(id) << 16 | part; }

    /// What every function holds. A fork(2)ed copy has the descriptors, so that whatever it did would be done to the
    /// original's containers.
    [[nodiscard]] std::mutex& own() const;
    ContainerId next_id() {
        const std::lock_guard lock{own()};
        return ContainerId{++last_id_};
    }
    Entries::iterator place(ContainerId id) noexcept {
        return std::lower_bound(entries_.begin(), entries_.end(), id,
                                [](const auto& entry, ContainerId value) { return entry->id < value; });
    }
    Entry* look_up(ContainerId id) noexcept {
        const auto found = place(id);
        return found != entries_.end() && (*found)->id == id ? found->get() : nullptr;
    }
    Entry* find(ContainerId id) {
        const auto number = static_cast<std::uint64_t>(id);
        if (number == 0 || number > last_id_) {
            throw std::logic_error{"this Controller has never had a container " + std::to_string(number)};
        }
        if (const detail::Reattached* const one = reattached_.find(id)) {
            throw Error{Step::event_loop, EOPNOTSUPP, "container " + detail::quote(one->events.name()),
                        "its helper runs it, and cannot be asked for this"};
        }
        return look_up(id);
    }
    /// Also one that has ended and is preserved, or waits for its restart.
    Entry& known(ContainerId id) {
        if (Entry* const entry = find(id)) return *entry;
        throw Error{Step::event_loop, ESRCH, "container " + std::to_string(static_cast<std::uint64_t>(id)),
                    "it has ended"};
    }
    Entry& require(ContainerId id) {
        Entry& entry = known(id);
        if (!entry.status) return entry;
        throw Error{Step::event_loop, ESRCH, "container " + std::to_string(static_cast<std::uint64_t>(id)),
                    entry.waits_for_restart() ? "it has ended, and is about to be started again" : "it has ended"};
    }
    bool ask(ContainerId id, EndKind kind, ShutdownMode mode);

    void control(int operation, int fd, std::uint64_t key, std::uint32_t events);
    /// Kills it at `at`, and goes on until it has ended.
    void kill_from(Entry& entry, std::int64_t at);
    /// What follows the end: a restart, its preservation, or nothing.
    [[nodiscard]] EndAction after_end(Entry& entry, std::int64_t now);
    void restart_later(Entry& entry, std::int64_t now);
    void look_at_end(Entry& entry, std::int64_t now);
    /// Starts the next one that is due, without the lock.
    void start_again(std::unique_lock<std::mutex>& lock, const StartHook& hook);
    void put_in_place(Entry& entry, Container&& container);
    /// The container's last event; it is forgotten.
    void drop(ContainerId id, Event event);
    void watch(int fd, std::uint64_t key, std::uint32_t events);
    void unwatch(int fd) noexcept;
    Entry& insert(ContainerId id, Container&& container, detail::ConsolesOwner consoles, ConsoleUse use);
    [[nodiscard]] static detail::Relay& relay(Entry& entry, std::size_t console);
    [[nodiscard]] static detail::ConsolesOwner consoles_for(const ContainerSpec& spec, ConsoleUse use);
    void watch_consoles(Entry& entry);
    /// What a restart begins with, where the size of a console is another by now.
    [[nodiscard]] static ContainerSpec with_sizes_of_consoles(const Entry& entry);
    void leave_consoles(Entry& entry);
    void end_consoles(Entry& entry);
    [[nodiscard]] static bool consoles_are_finished(const Entry& entry) noexcept;
    /// Those of an entry that is about to go: what their terminals hold stays until their users have read it.
    void let_consoles_go(Entry& entry, std::int64_t now);
    /// Those of `ConsoleUse::raw`.
    void hand_over_consoles(Entry& entry, Event& event);
    void tell_of_consoles(Entry& entry, bool all);
    void look_at_lingering(std::int64_t now);
    void watch_all(Entry& entry);
    void push(Event event);
    /// Why a start failed, as an Error: what a hook throws may be anything, and nothing may leave the loop.
    static Error reason(const std::string& name);
    void fail(ContainerId id, const std::string& name, const Error& error);
    void look_at_kills(Entry& entry);
    void unwatch_kills(Entry& entry) noexcept;
    void look_at_pressure(Entry& entry);
    void unwatch_pressure(Entry& entry) noexcept;
    void push_kills(const Entry& entry, std::uint64_t count);
    void freeze(ContainerId id, bool on);
    template <class Do>
    detail::Change change(ContainerId id, const char* what, Do&& act);
    void note_change(Entry& entry, const detail::Change& change, Fd netlink);
    void note_suspended(Entry& entry, bool suspended);
    /// What the container's control group refused; that it has ended is told as such.
    [[noreturn]] void refuse(ContainerId id, const char* what, const Error& e);
    void forget_taken() noexcept;
    void take_data_told(const Event& event) noexcept;
    void count_runs(int by);
    bool take_stop();
    /// Everything that is ready at this moment, once.
    void turn();
    void dispatch(ContainerId id, std::uint64_t part, std::uint32_t events);
    void serve(Entry& entry, unsigned part, std::uint32_t events);
    /// Who reads the last bytes is waited for, until `stop` is to have ended it.
    void give_up_later(Entry& entry);
    /// What goes wrong with one container is tried again a moment later, and nobody else is hindered.
    template <class Do>
    void guard(ContainerId id, Do&& act);
    void try_again(Entry& entry);
    /// Makes the event, and lets the container go.
    void finish(ContainerId id);
    /// Sees to it that `expire` is called at `at` or before.
    void arm(std::int64_t at);
    /// Sees to it that `attend` is called at `at` or before.
    void arm(Entry& entry, std::int64_t at);
    /// Does what an entry's deadlines ask for.
    void attend(Entry& entry, std::int64_t now);
    static void kill_all(Entry& entry, std::int64_t now) noexcept;
    /// Ends one that does not run; nothing where it runs, else what is answered.
    std::optional<bool> end_at_once(Entry& entry);
    static bool is_suspended(Container& container) noexcept;
    void expire();

    detail::Turns changes_;  // who attaches, detaches or limits
    mutable std::mutex mutex_;
    Fd epoll_, wake_, stop_, timer_;
    pid_t owner_;
    std::uint64_t last_id_ = 0;
    Entries entries_;        // in the order of their ids
    std::vector<Due> dues_;  // a heap, the earliest first: a tick costs nothing for who is not due
    std::vector<ContainerId> to_start_;
    std::size_t preserved_ = 0;
    detail::Reattachments reattached_;
    std::vector<Lingering> lingering_;
    std::vector<Event> events_;  // those before `taken_` have been given out
    std::size_t taken_ = 0;
    std::int64_t armed_ = never;
    bool seeks_helpers_ = false;
    int runs_ = 0;          // calls of `run` that are under way
    bool stopped_ = false;  // `stop` was called, and `next` has seen it before `run` did
};

}  // namespace caisson::inline v0
