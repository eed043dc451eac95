// caisson/detail/start.hpp - launches a prepared container and sees it through to its execve.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <caisson/cancellation.hpp>
#include <caisson/cgroup.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/launch.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/detail/prepare.hpp>
#include <caisson/detail/running.hpp>
#include <caisson/detail/stage_program.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/process.hpp>
#include <caisson/pty.hpp>
#include <caisson/spec.hpp>
#include <caisson/start_hook.hpp>

namespace caisson::inline v0::detail {

/// Starts one container; any throw leaves nothing behind.
class Start {
public:
    Start(const ContainerSpec& spec, const Cancellation* cancellation)
        : cancel_{cancellation == nullptr ? -1 : cancellation->fd()}, preparation_{go_on(spec)} {}

    /// `in_hook` is true while the hook runs: of what is thrown then.
    [[nodiscard]] Running run(const StartHook& hook, bool& in_hook) {
        try {
            launch_stage();
            prepare_rest();
            if (hook) call(hook, in_hook);
            (void)go_on(preparation_.spec());
            send_rest();
            wait_for_exec();
            while (consoles_.size() < preparation_.consoles_inside()) (void)next_report();
        } catch (...) {
            abandon();
            throw;
        }
        running_.defaults = Owned<const ExecDefaults>{
            new ExecDefaults{ExecDefaults::of(preparation_.spec(), preparation_.callers_ids().deny_setgroups)}};
        running_.has_command_below = preparation_.spec().init;
        running_.shutdown_signal = preparation_.spec().shutdown_signal;
        running_.reboot_signal = preparation_.spec().reboot_signal;
        running_.cgroup = preparation_.take_cgroup();
        running_.consoles = consoles_.empty() ? preparation_.take_consoles() : std::move(consoles_);
        if (running_.cgroup) running_.cgroup->settle();
        running_.equipment = preparation_.equipment();
        running_.equipment.own_group = running_.cgroup.has_value();
        if (running_.equipment.maps_mounts) {
            running_.equipment.outer_user = Namespace::current(NamespaceKind::user).id();
        }
        return std::move(running_);
    }

private:
    /// Waits for input or a hang-up of `fd`, or for `other`. Throws ECANCELED where the start is given up.
    void await(int fd, short events, int other) const {
        pollfd p[3]{{fd, events, 0}, {other, POLLIN, 0}, {cancel_, POLLIN, 0}};
        while (::poll(p, 3, -1) < 0 && errno == EINTR) {
        }
        if (p[2].revents != 0) throw Error{Step::clone, ECANCELED, "start"};
    }
    const ContainerSpec& go_on(const ContainerSpec& spec) const {
        if (cancel_ >= 0 && wait_readable(cancel_, 0)) throw Error{Step::clone, ECANCELED, "start"};
        return spec;
    }

    void launch_stage() {
        // The keeper seals the rest, when it has taken out what it needs no more.
        const StageProgram program{preparation_.spec().stage_path, F_SEAL_SHRINK | F_SEAL_GROW};
        const Fd plan = plan_file(preparation_.first());
        auto [channel, keepers_end] = Channel::make();
        auto [rest, inits_end] = Channel::make();
        const Process self = Process::self();

        std::vector<int> descriptors = preparation_.first().descriptors;
        descriptors[plan_slot] = plan.get();
        descriptors[host_slot] = keepers_end.get();
        descriptors[owner_slot] = self.pidfd();
        descriptors[rest_slot] = inits_end.get();
        descriptors[program_slot] = program.file();
        std::string name = "caisson-keeper " + preparation_.spec().name;
        char* const argv[] = {name.data(), nullptr};
        char* const envp[] = {nullptr};
        LaunchFailure failure;
        Launched launched = launch({.program = program.fd(),
                                    .argv = argv,
                                    .envp = envp,
                                    .descriptors = descriptors.data(),
                                    .descriptor_count = descriptors.size()},
                                   failure);
        if (!launched.pidfd) throw launch_error(failure);
        running_.keeper = std::move(launched.pidfd);
        launch_ = std::move(channel);
        rest_ = std::move(rest);
    }
    [[nodiscard]] static Fd plan_file(const PlanPart& part) {
        return sealed_file("plan", mfd_noexec_seal, part.bytes.data(), part.bytes.size());
    }

    /// Lets the stage go on. One that is dead has said why, and `wait_for_exec` finds it.
    void send_rest() {
        const Fd plan = plan_file(preparation_.rest());
        std::vector<int> descriptors = preparation_.rest().descriptors;
        descriptors.front() = plan.get();
        const Rest rest{static_cast<std::uint32_t>(descriptors.size())};
        Go go = preparation_.go();
        std::vector<int> kept = preparation_.go_descriptors();
        Fd requests;
        if (!running_.links.empty()) {
            const std::vector<std::byte> bytes = running_.links.delete_requests();
            requests = sealed_file("links", mfd_noexec_seal, bytes.data(), bytes.size());
            go.has_links = 1;
            kept[1] = running_.links.netlink();
            kept[2] = requests.get();
        }
        const bool alive = rest_.send_all(rest, descriptors) && launch_.send_all(go, kept);
        if (!alive && errno != EPIPE && errno != ECONNRESET) fail(Step::clone, "tell the stage to go on");
        rest_ = Channel{};
    }

    void prepare_rest() {
        try {
            preparation_.finish();
            if (preparation_.callers_ids().by_tools) write_id_maps();
            if (!preparation_.spec().networks.empty()) plug_networks();
        } catch (const Error&) {
            throw_failure_of_stage();
            throw;
        }
    }
    void call(const StartHook& hook, bool& in_hook) {
        throw_failure_of_stage();
        while (!running_.init) (void)next_report();
        in_hook = true;
        hook({preparation_.spec().name, running_.init});
        in_hook = false;
    }
    void write_id_maps() {
        while (!running_.init) (void)next_report();
        try {
            detail::write_id_maps(running_.init.pid(), preparation_.callers_ids(), preparation_.spec().id_map_tools);
        } catch (...) {
            (void)launch_.send_all(unmapped_mark, {});
            throw;
        }
        if (!launch_.send_all(mapped_mark, {}) && errno != EPIPE && errno != ECONNRESET) {
            fail(Step::map_ids, "tell the keeper of the id maps");
        }
    }
    /// An init that has ended meanwhile takes its network namespace along, and the keeper its control groups: then its
    /// end is the reason for what the host could not do.
    void throw_failure_of_stage() {
        while (!running_.init) {
            if (!wait_readable(reports().fd(), 0) && !wait_readable(running_.keeper.get(), 0)) return;
            (void)next_report();
        }
        if (wait_readable(status_.get(), 0)) wait_for_exec();
    }
    void plug_networks() {
        Fd inside;
        while (!inside) {
            Received message = next_report();
            if (message.report.kind == Report::Kind::netlink) {
                if (message.report.value != 0) {
                    throw Error{Step::network, message.report.value, "netlink socket (in the child)"};
                }
                inside = std::move(message.fd);
            }
        }
        // By the socket: a look at init itself needs more privilege.
        const Fd net{::ioctl(inside.get(), SIOCGSKNS)};
        if (!net) fail(Step::network, "network namespace of the netlink socket");
        unsigned unnamed = 0;
        for (const NetworkSpec& network : preparation_.spec().networks) {
            running_.links.plug(network, unnamed, net.get(), inside.get());
            if (network.name.empty()) ++unnamed;
        }
    }

    [[nodiscard]] Channel& reports() noexcept { return running_.channel.fd() >= 0 ? running_.channel : launch_; }
    /// The next report of a start that is still well; throws what went wrong otherwise, and again at each later call.
    [[nodiscard]] Received next_report() {
        for (;;) {
            if (failure_) throw Error{*failure_};
            Received message;
            await(reports().fd(), POLLIN, running_.keeper.get());
            if (reports().wait(message, running_.keeper.get()) == Channel::State::closed) {
                failure_ = keeper_death_error();
                continue;
            }
            switch (message.report.kind) {
                case Report::Kind::channel:
                    require_descriptor(message.fd);
                    running_.channel = Channel{std::move(message.fd)};
                    continue;
                case Report::Kind::cloned:
                    require_descriptor(message.fd);
                    running_.init = Process{message.report.value, std::move(message.fd)};
                    require_descriptor(message.second);
                    status_ = std::move(message.second);
                    return message;
                case Report::Kind::netlink:
                    if (message.report.value == 0) require_descriptor(message.fd);
                    return message;
                case Report::Kind::terminal:
                    require_descriptor(message.fd);
                    consoles_.push_back(Pty::adopt(std::move(message.fd)));
                    return message;
                case Report::Kind::passed:
                case Report::Kind::given_up: continue;  // of visits
                case Report::Kind::refused:
                case Report::Kind::ended: break;
            }
            failure_ = from_report(message.report);
        }
    }
    static void require_descriptor(const Fd& fd) { require_received(fd, "descriptors from the keeper"); }

    /// Reads the status pipe to its end. What ends quickly may have been reaped by now: that report stays in the queue.
    void wait_for_exec() {
        while (!running_.init) (void)next_report();
        await(status_.get(), 0, -1);
        const StageStatus told = StageStatus::read(status_, Step::clone, "status of init");
        if (told.is_done) return;
        if (told.failure) throw from_failure(*told.failure);
        for (;;) (void)next_report();
    }

    [[nodiscard]] Error from_failure(const InitFailure& failure) {
        if (failure.instr >= preparation_.notes().size()) return {Step::clone, EPROTO, "status of the stage"};
        const PlanNote& note = preparation_.notes()[failure.instr];
        return {note.step, failure.errnum, note.context + " (in the child)",
                remedy_of(preparation_.spec(), note.step, failure.errnum, note.context,
                          failure.instr + 1 == preparation_.notes().size())};
    }
    [[nodiscard]] Error from_report(const Report& report) {
        if (report.kind == Report::Kind::ended) {
            std::string where = "its first step";
            if (report.index < preparation_.notes().size()) {
                where = "step " + std::string{to_string(preparation_.notes()[report.index].step)} + ": " +
                        preparation_.notes()[report.index].context;
            }
            const ExitStatus status = exit_status_of(report).with_out_of_memory(
                report.oom_kills > 0 || (report.value == SIGKILL && preparation_.has_run_out_of_memory()));
            const bool too_small = status.out_of_memory() && preparation_.spec().limits.memory;
            return {report.index < preparation_.notes().size() ? preparation_.notes()[report.index].step : Step::clone,
                    0, "init died (" + status.str() + ") during " + where,
                    too_small
                        ? "limits.memory is " + std::to_string(*preparation_.spec().limits.memory) + " bytes: raise it"
                    : status.signal() == SIGSYS ? "a rule of seccomp.rules kills for what the start itself calls"
                                                : ""};
        }
        const auto step = static_cast<KeeperStep>(report.place);
        if (step == KeeperStep::id_map_mount && report.index < preparation_.idmapped().size()) {
            // Not before: it may take a look at all mounts of the host.
            const std::string file_system =
                file_system_of(preparation_.go_descriptors()[kept_descriptors + report.index]);
            return {Step::map_ids, report.value,
                    "id map of " + preparation_.idmapped()[report.index] + ", which is on " + file_system,
                    file_system == "devtmpfs"
                        ? node_remedy
                        : "this file system cannot be id-mapped: put the data on another (ext4, xfs, btrfs, tmpfs), "
                          "make the mount not recursive, or give uid_map and gid_map and a root owned by them"};
        }
        if (step == KeeperStep::oom_score_adj) {
            const int wanted = preparation_.spec().oom_score_adj.value_or(0);
            return {Step::credentials, report.value, "oom_score_adj " + std::to_string(wanted),
                    report.value == EACCES ? "only CAP_SYS_RESOURCE lowers it below the host's own" : ""};
        }
        if (step == KeeperStep::raise_limit && report.index < preparation_.raises().size()) {
            const Raise& raise = preparation_.raises()[report.index];
            const auto kind = static_cast<ResourceLimit::Kind>(raise.resource);
            return {
                Step::credentials, report.value,
                "resource limit " + quote(ResourceLimit::name(kind)) + ": the hard limit of " + limit_text(raise.hard),
                report.value != EPERM                 ? ""
                : kind == ResourceLimit::Kind::nofile ? "it is above fs.nr_open, or above the host's own, which only "
                                                        "CAP_SYS_RESOURCE raises"
                                                      : "it is above the host's own, which only CAP_SYS_RESOURCE "
                                                        "raises"};
        }
        if (step == KeeperStep::context && report.index < preparation_.overlays().size()) {
            return preparation_.overlays()[report.index].refusal(report.value);
        }
        if (step == KeeperStep::clone) return clone_error(report.value, preparation_.namespaces());
        if (step == KeeperStep::id_map) {
            return {Step::map_ids, report.value, "id maps of the user namespace",
                    report.value == EPERM ? "this needs CAP_SETUID and CAP_SETGID: run as root" : ""};
        }
        return preparation_error(report.value);
    }

    /// Ends what was launched and waits until the keeper has cleaned up, so that the members can go.
    void abandon() noexcept {
        if (running_.init) (void)sys::pidfd_send_signal(running_.init.pidfd(), SIGKILL);
        status_.reset();
        launch_.hang_up();
        running_.channel.hang_up();
        if (running_.keeper && !wait_readable(running_.keeper.get(), 10'000)) {
            (void)sys::pidfd_send_signal(running_.keeper.get(), SIGKILL);
        }
        reap_if_ours(running_.keeper.get());
        if (running_.init && running_.init.ended_within(10'000)) reap_if_ours(running_.init.pidfd());
    }

    int cancel_;
    Preparation preparation_;
    Running running_;
    Channel launch_;  // to the keeper, until its own is here; `Go` goes this way
    Channel rest_;
    Fd status_;
    std::vector<Pty> consoles_;     // the controlling ends, where init has opened them
    std::optional<Error> failure_;  // what the stage told of its end, or did not live to tell
};

}  // namespace caisson::inline v0::detail
