// src/visit.cpp - the host's side of a visit to a container that runs.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <caisson/detail/asking.hpp>
#include <caisson/detail/launch.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/detail/stage_program.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/detail/unprivileged.hpp>
#include <caisson/detail/visit.hpp>

namespace caisson::inline v0::detail {
namespace {

/// A thread cannot join a user namespace that it is in, and what it shares with the container it need not join.
NamespaceSet namespaces_of_its_own(const Process& init, NamespaceSet wanted) {
    NamespaceSet own;
    for (const NamespaceKind kind : all_namespace_kinds) {
        if (!wanted.has(kind)) continue;
        if (Namespace::of(init, kind).id() != Namespace::current(kind).id()) own = own | NamespaceSet{kind};
    }
    return own;
}

/// Where below the group `name` the process is, on v2: an init such as systemd's moves itself further down, and the
/// kernel keeps processes out of a group that hands controllers on.
std::string way_below(const std::string& name, pid_t process) {
    std::string text;
    const std::string file = "/proc/" + std::to_string(process) + "/cgroup";
    if (!sys::read_file(AT_FDCWD, file.c_str(), text)) return {};
    const std::size_t line = text.rfind("0::", 0) == 0 ? 0 : text.find("\n0::");
    if (line == std::string::npos) return {};
    std::string path = text.substr(line, text.find('\n', line + 1) - line);
    if (path.ends_with('\n')) path.pop_back();
    const std::size_t at = path.find("/" + name + "/");
    return at == std::string::npos ? std::string{} : path.substr(at + name.size() + 2);
}

constexpr std::int64_t patience = 10'000;  // milliseconds for what nobody but the kernel can hold up

/// Marks of the visits to a container that could not be ended, for all processes with the same /proc: a lock on one
/// byte of a file of init's there that other users cannot open. It belongs to an open file that the stage of such a
/// visit keeps, and goes with that one; or with a copy that fork(2) has made of the host meanwhile, if that stays
/// longer.
class VisitMarks {
public:
    explicit VisitMarks(int file) noexcept : file_{file} {}
    [[nodiscard]] bool is_full() const noexcept { return file_ >= 0 && free_place() == most; }
    void set() const noexcept {
        struct flock place = lock_of(file_ < 0 ? most : free_place());
        if (place.l_start < most) (void)::fcntl(file_, F_OFD_SETLK, &place);
    }

private:
    static constexpr off_t most = 8;

    static struct flock lock_of(off_t place) noexcept {
        struct flock lock {};
        lock.l_type = F_RDLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = place;
        lock.l_len = 1;
        return lock;
    }
    [[nodiscard]] off_t free_place() const noexcept {
        for (off_t place = 0; place < most; ++place) {
            struct flock lock = lock_of(place);
            lock.l_type = F_WRLCK;
            if (::fcntl(file_, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return place;
        }
        return most;
    }
    int file_;
};

/// One visit from its launch on. Whatever is thrown, nothing is left of it but a visitor that the kernel cannot end
/// yet, and then the stage that waits for that.
class Journey {
public:
    Journey(const Process& init, const std::vector<PlanNote>& notes, VisitMarks marks, std::int64_t milliseconds)
        : init_{init}, notes_{notes}, marks_{marks}, deadline_{deadline_in(milliseconds)} {
        if (!marks_.is_full()) return;
        throw Error{Step::open_namespace, EBUSY, "join the container",
                    "others that were to join it still wait there: resume it, have its own file systems (FUSE) answer, "
                    "or end it"};
    }
    Journey(const Journey&) = delete;
    Journey& operator=(const Journey&) = delete;
    ~Journey() {
        if (!visitor_.keeper) return;
        if (visitor_.process) (void)sys::pidfd_send_signal(visitor_.process.pidfd(), SIGKILL);
        // Not once somebody may have gone in: it is there to end and to reap who has.
        if (!lets_in_ && !channel_has_come()) (void)sys::pidfd_send_signal(visitor_.keeper.get(), SIGKILL);
        status_.reset();
        visitor_.channel.hang_up();
        first_.hang_up();
        // It is there as long as its visitor: one that waits for a file system may not even be killed.
        if (wait_readable(visitor_.keeper.get(), is_late_ ? 100 : patience)) reap_if_ours(visitor_.keeper.get());
        else marks_.set();
    }

    void launch(const std::string& stage_path, PlanPart first, const PlanPart& second) {
        const StageProgram program{stage_path, all_seals};
        const Fd plan = sealed_file("plan", mfd_noexec_seal, first.bytes.data(), first.bytes.size());
        const Fd rest = sealed_file("plan", mfd_noexec_seal, second.bytes.data(), second.bytes.size());
        auto [channel, keepers_end] = Channel::make();
        const Process self = Process::self();
        std::vector<int>& descriptors = first.descriptors;
        descriptors[plan_slot] = plan.get();
        descriptors[host_slot] = keepers_end.get();
        descriptors[owner_slot] = self.pidfd();
        descriptors[rest_slot] = rest.get();
        descriptors[program_slot] = program.file();
        const std::size_t received = descriptors.size();
        descriptors.insert(descriptors.end(), second.descriptors.begin(), second.descriptors.end());
        descriptors[received] = rest.get();
        std::string name = "caisson-visit";
        char* const argv[] = {name.data(), nullptr};
        char* const envp[] = {nullptr};
        LaunchFailure failure;
        Launched launched = detail::launch({.program = program.fd(),
                                            .argv = argv,
                                            .envp = envp,
                                            .descriptors = descriptors.data(),
                                            .descriptor_count = descriptors.size()},
                                           failure);
        if (!launched.pidfd) throw launch_error(failure);
        visitor_.keeper = std::move(launched.pidfd);
        first_ = std::move(channel);
    }

    void talk(std::int64_t milliseconds, void (*function)(void*, bool&), void* object) {
        function(object, is_late_);
        deadline_ = deadline_in(milliseconds);
    }
    /// Until the command was executed, or all was done. Throws what went wrong.
    void wait_for_mark() {
        while (!has_ended(status_)) take_report(status_.get());
        const StageStatus told = StageStatus::read(status_, Step::exec, "status of the process in the container");
        if (told.is_done) return;
        if (told.failure) throw at(told.failure->instr, told.failure->errnum, " (in the child)");
        wait_for_end();
        const ExitStatus status = exit_status_of(*visitor_.ended);
        // Who kills all that is in a container may have come to init last.
        if (status.signal() == SIGKILL) (void)init_.ended_within(100);
        const Error died = at(visitor_.ended->index, 0, ": the process in the container died (" + status.str() + ")");
        if (status.signal() != SIGSYS) throw died;
        throw died.with_remedy("a rule of seccomp.rules kills for what the start of a command itself calls");
    }
    /// Until the command's own process is known.
    void wait_for_process() {
        while (!visitor_.process) take_report();
    }
    /// Of the visitor and of the stage.
    void wait_for_end() {
        while (!visitor_.ended) take_report();
        while (!wait_readable(visitor_.keeper.get(), left())) throw_late();
    }
    [[nodiscard]] std::vector<Fd> take_passed() noexcept { return std::move(passed_); }
    /// The visit goes on.
    [[nodiscard]] Visitor take_visitor() noexcept { return std::move(visitor_); }

private:
    /// The stage's own socket, without which it lets nobody in. It cannot send it any more then.
    bool channel_has_come() noexcept {
        first_.shut();
        Received message;
        if (first_.receive(message) != Channel::State::report || message.report.kind != Report::Kind::channel) {
            return false;
        }
        visitor_.channel = Channel{std::move(message.fd)};
        return true;
    }
    [[nodiscard]] Channel& reports() noexcept { return visitor_.channel.fd() >= 0 ? visitor_.channel : first_; }
    [[nodiscard]] std::int64_t left() const noexcept { return std::max<std::int64_t>(0, deadline_ - monotonic_ms()); }
    [[nodiscard]] static bool has_ended(const Fd& status) noexcept {
        pollfd p{status.get(), 0, 0};
        return status && ::poll(&p, 1, 0) > 0;
    }

    /// Waits for a report, or for the end of the pipe `or_end`, and takes it in.
    void take_report(int or_end = -1) {
        pollfd p[3]{{reports().fd(), POLLIN, 0}, {visitor_.keeper.get(), POLLIN, 0}, {or_end, 0, 0}};
        const int wait = static_cast<int>(std::min<std::int64_t>(left(), 1'000'000));
        const int ready = ::poll(p, 3, wait);
        if (ready < 0 && errno != EINTR) fail(Step::exec, "wait for the process in the container");
        if (ready == 0 && left() == 0) throw_late();
        if (ready <= 0 || (p[0].revents == 0 && p[1].revents == 0)) return;
        Received message;
        const Channel::State state = reports().receive(message);
        if (state == Channel::State::nothing_yet && p[1].revents == 0) return;
        if (state != Channel::State::report) throw keeper_death_error();
        take(message);
    }
    void take(Received& message) {
        switch (message.report.kind) {
            case Report::Kind::channel:
                lets_in_ = true;
                require(message.fd);
                visitor_.channel = Channel{std::move(message.fd)};
                require(message.second);
                status_ = std::move(message.second);
                return;
            case Report::Kind::cloned:
                require(message.fd);
                visitor_.process = Process{message.report.value, std::move(message.fd)};
                return;
            case Report::Kind::passed:
                require(message.fd);
                passed_.push_back(std::move(message.fd));
                return;
            case Report::Kind::terminal:
                require(message.fd);
                visitor_.console = std::move(message.fd);
                return;
            case Report::Kind::refused: throw from_refusal(message.report);
            case Report::Kind::ended: visitor_.ended = message.report; return;
            case Report::Kind::netlink:
            case Report::Kind::given_up: return;
        }
    }
    static void require(const Fd& fd) { require_received(fd, "descriptors from the container"); }

    /// What an instruction has come to.
    [[nodiscard]] Error at(std::uint32_t instruction, int errnum, const std::string& how) const {
        const bool known = instruction < notes_.size();
        const Step step = known ? notes_[instruction].step : Step::open_namespace;
        const std::string context = (known ? notes_[instruction].context : "join the container") + how;
        if (is_ending(init_)) return {step, ESRCH, context, "it has ended"};
        return {step, errnum, context};
    }
    [[nodiscard]] Error from_refusal(const Report& report) const {
        const bool making = report.place == static_cast<std::uint32_t>(KeeperStep::clone);
        const std::string what = making ? "make a process for the container" : "prepare a process for the container";
        if (is_ending(init_)) return {Step::clone, ESRCH, what, "it has ended"};
        return {Step::clone, report.value, what,
                !making                 ? ""
                : report.value == EBUSY ? "its control group hands controllers on, and may hold no process"
                : report.value == EAGAIN
                    ? "a limit on processes is reached: see limits.pids, 'ulimit -u' and the pids control group"
                    : ""};
    }
    /// Asks the stage what the visitor is at, which it kills.
    [[noreturn]] void throw_late() {
        is_late_ = true;
        std::uint32_t reached = ~0u;
        if (visitor_.channel.fd() >= 0) {
            visitor_.channel.stop_sending();
            Received message;
            while (wait_readable(visitor_.channel.fd(), 1000)) {
                if (visitor_.channel.receive(message) == Channel::State::closed) break;
                if (message.report.kind != Report::Kind::given_up && message.report.kind != Report::Kind::ended) {
                    continue;
                }
                reached = message.report.index;
                break;
            }
        }
        throw at(reached, ETIMEDOUT, " (in the child)")
            .with_remedy("the container is suspended, or a file system of its own (FUSE) does not answer");
    }

    const Process& init_;
    const std::vector<PlanNote>& notes_;
    VisitMarks marks_;
    std::int64_t deadline_;
    Visitor visitor_;
    Channel first_;  // to the stage, until its own is here
    Fd status_;
    std::vector<Fd> passed_;
    bool lets_in_ = false;  // the stage has a socket of its own
    bool is_late_ = false;
};

}  // namespace

GroupEntrance GroupEntrance::open(const GroupPlace& group, pid_t init) {
    GroupEntrance entrance;
    for (const auto& [controllers, parent] : group.hierarchies) {
        const bool v2 = controllers.empty();
        const std::string path = parent + "/" + group.name;
        const std::string file = v2 ? path : path + "/tasks";
        Fd fd = sys::open(file, v2 ? O_PATH | O_DIRECTORY | O_NOFOLLOW : O_WRONLY | O_NOFOLLOW);
        if (!fd) fail(Step::cgroup, "open " + quote(file));
        if (!v2) {
            entrance.v1.emplace_back(controllers, std::move(fd));
            continue;
        }
        const std::string below = way_below(group.name, init);
        if (!below.empty()) {
            Fd further = sys::openat2(fd.get(), below.c_str(), O_PATH | O_DIRECTORY, sys::beneath);
            if (further) fd = std::move(further);
        }
        entrance.unified = std::move(fd);
    }
    return entrance;
}

Visit::Visit(const Process& init, NamespaceSet namespaces, std::string stage_path)
    : init_{init},
      namespaces_{namespaces_of_its_own(init, namespaces)},
      stage_path_{std::move(stage_path)},
      marks_{sys::open("/proc/" + std::to_string(init.pid()) + "/personality", O_RDONLY | O_NOCTTY)} {
    for (Slot slot = 0; slot < first_free_slot; ++slot) (void)plan_.inherit(-1);
    (void)plan_.inherit(init.pidfd());
    // Its place is taken also where there are no marks: the stage keeps what has this number.
    (void)plan_.inherit(marks_ ? marks_.get() : init.pidfd());
    plan_.header.flags = plan_visit;
    plan_.header.name = plan_.text("caisson:visit");
}

void Visit::enter(const GroupEntrance* groups) {
    if (groups != nullptr) {
        if (groups->unified) plan_.header.cgroup_slot = plan_.inherit(groups->unified.get());
        for (const auto& [controllers, tasks] : groups->v1) {
            plan_.add({.op = Op::join_group, .slot = plan_.inherit(tasks.get())}, Step::cgroup,
                      "join the control group in hierarchy " + quote(controllers));
        }
    }
    plan_.add({.op = Op::join, .slot = visited_slot, .x = namespaces_.bits(), .y = is_ordinary_user() ? 1u : 0u},
              Step::open_namespace, "join the container's namespaces");
    plan_.header.received_at = static_cast<Slot>(plan_.descriptors().size());
    first_ = plan_.finish_first();
    (void)plan_.inherit(-1);  // the second part itself
}

std::vector<Fd> Visit::run(std::int64_t milliseconds) {
    return run(milliseconds, nullptr, nullptr);
}

std::vector<Fd> Visit::run(std::int64_t milliseconds, void (*talk)(void*, bool&), void* object) {
    Journey journey{init_, plan_.notes(), VisitMarks{marks_.get()}, milliseconds};
    journey.launch(stage_path_, std::move(first_), plan_.finish_rest({}, {}, 0));
    if (talk != nullptr) journey.talk(milliseconds, talk, object);
    journey.wait_for_mark();
    journey.wait_for_end();
    return journey.take_passed();
}

Visitor Visit::start(const std::vector<std::string>& argv, const std::vector<std::string>& envp, std::uint32_t passed,
                     std::int64_t milliseconds) {
    Journey journey{init_, plan_.notes(), VisitMarks{marks_.get()}, milliseconds};
    journey.launch(stage_path_, std::move(first_), plan_.finish_rest(argv, envp, passed));
    journey.wait_for_mark();
    journey.wait_for_process();
    return journey.take_visitor();
}

}  // namespace caisson::inline v0::detail
