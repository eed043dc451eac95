// src/controller_ends.cpp - how containers of a controller are asked to end, and what follows when they have.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <signal.h>

#include <caisson/controller.hpp>
#include <caisson/detail/sys.hpp>

#include "consoles.hpp"

namespace caisson::inline v0 {
namespace {

constexpr std::int64_t year_ms = std::int64_t{1000} * 86400 * 365;

bool borrows(const ContainerSpec& spec) {
    return !spec.descriptors.empty() || !(spec.stdio == StdioSpec{});
}

/// The ways to end that a container has more than one reason for.
EndKind kind_of(ExitStatus status, bool was_to_reboot, bool was_to_end) {
    const EndKind kind = end_kind(status);
    if (status.request() != ExitStatus::Request::none) return kind;
    return was_to_reboot ? EndKind::reboot : was_to_end ? EndKind::poweroff : kind;
}

}  // namespace

Error Controller::reason(const std::string& name) {
    const std::string what = "container " + detail::quote(name) + ": start";
    try {
        throw;
    } catch (const Error& e) {
        return e;
    } catch (const std::exception& e) {
        return {Step::event_loop, 0, what, e.what()};
    } catch (...) {
        return {Step::event_loop, 0, what, "the hook has thrown what is no std::exception"};
    }
}

void Controller::fail(ContainerId id, const std::string& name, const Error& error) {
    const std::lock_guard lock{own()};
    push({.kind = Event::Kind::failed, .id = id, .name = name, .error = error});
}

ContainerId Controller::start(const ContainerSpec& spec, ConsoleUse use, const StartHook& hook,
                              const Cancellation* cancellation) {
    const ContainerId id = next_id();
    try {
        auto origin = Origin::of(spec);
        auto consoles = consoles_for(spec, use);
        // Without the lock: others go on meanwhile.
        Container container = Container::start(spec, hook, cancellation);
        const std::lock_guard lock{own()};
        Entry& entry = insert(id, std::move(container), std::move(consoles), use);
        entry.origin = std::move(origin);
        push({.kind = Event::Kind::started, .id = id, .name = spec.name});
        if (entry.oom) look_at_kills(entry);
    } catch (const Error& e) {
        fail(id, spec.name, e);
    } catch (...) {
        if (!hook) throw;
        fail(id, spec.name, reason(spec.name));
    }
    return id;
}

std::optional<Event> Controller::next(const StartHook& hook) {
    std::unique_lock lock{own()};
    if (events_.empty()) turn();
    while (events_.empty() && !to_start_.empty()) start_again(lock, hook);
    if (events_.empty()) return std::nullopt;
    std::optional<Event> event{std::move(events_[taken_++])};
    if (event->kind == Event::Kind::console_data) take_data_told(*event);
    forget_taken();
    return event;
}

detail::Owned<Controller::Origin> Controller::Origin::of(const ContainerSpec& spec) {
    detail::Owned<Origin> origin{new Origin{.spec = spec, .kept = {}}};
    if (!borrows(spec)) return origin;
    origin->can_start_again = spec.may_restart();
    if (!origin->can_start_again) return origin;
    const auto keep = [&](std::int32_t& fd) {
        if (fd < 0) return;
        Fd copy{::fcntl(fd, F_DUPFD_CLOEXEC, 0)};
        if (!copy) {
            if (errno == EBADF) return;  // the start's to refuse
            throw Error{Step::descriptors, errno,
                        "container " + detail::quote(spec.name) + ": descriptor " + std::to_string(fd),
                        errno == EMFILE ? "raise 'ulimit -n'" : ""};
        }
        fd = copy.get();
        origin->kept.push_back(std::move(copy));
    };
    for (std::int32_t& fd : origin->spec.descriptors) keep(fd);
    for (auto* fd : {&origin->spec.stdio.in, &origin->spec.stdio.out, &origin->spec.stdio.err}) keep(*fd);
    return origin;
}

Usage Controller::usage(ContainerId id, UsageParts parts) {
    if (const auto helper = call_helper(id)) return helper->usage(parts);
    const std::lock_guard lock{own()};
    Entry& entry = known(id);
    if (entry.preserved && entry.last_usage) return *entry.last_usage;
    Usage usage = require(id).container.usage(parts);
    const auto preserves = [&](EndKind kind) { return entry.origin->spec.after(kind) == EndAction::preserve; };
    if (entry.origin && (preserves(EndKind::poweroff) || preserves(EndKind::reboot) || preserves(EndKind::crash))) {
        // A question for less than another is no later one.
        if ((parts | entry.last_parts) != parts) return usage;
        entry.last_usage.reset(new Usage{usage});
        entry.last_parts = parts;
    }
    return usage;
}

void Controller::usage(UsageParts parts, std::vector<ContainerUsage>& into) {
    std::unique_lock lock{own()};
    std::size_t filled = 0;
    for (const auto& owned : entries_) {
        Entry& entry = *owned;
        if (entry.status) continue;
        if (filled == into.size()) into.emplace_back();
        ContainerUsage& one = into[filled];
        one.id = entry.id;
        one.name = entry.container.name();
        one.missing.clear();
        try {
            entry.container.usage(parts, one.usage);
        } catch (const Error& e) {
            // Its group goes after its init has, and before the loop is told of its end.
            if (entry.container.init().ended_within(0)) continue;
            one.usage = Usage{};
            one.missing = e.what();
        }
        ++filled;
    }
    lock.unlock();
    add_reattached_usage(parts, into, filled);
}

void Controller::kill_from(Entry& entry, std::int64_t at) {
    entry.kill_at = std::min(entry.kill_at, at);
    entry.stuck_at = std::min(entry.stuck_at, at + stuck_ms);
    arm(entry, std::min(entry.kill_at, entry.stuck_at));
}

std::optional<bool> Controller::end_at_once(Entry& entry) {
    if (entry.preserved) return false;
    entry.asked = Asked::stop;
    if (entry.starting) {
        const auto due = std::find(to_start_.begin(), to_start_.end(), entry.id);
        if (due == to_start_.end()) return true;
        // Its turn has not come yet.
        to_start_.erase(due);
        entry.starting = false;
        finish(entry.id);
        return true;
    }
    if (entry.restart_at == never) return entry.status ? std::optional{false} : std::nullopt;
    entry.restart_at = never;
    finish(entry.id);
    return true;
}

bool Controller::stop(ContainerId id, std::chrono::milliseconds grace) {
    if (const auto helper = call_helper(id)) return helper->ask_to_stop(grace);
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr) return false;
    const std::int64_t at = detail::deadline_in(grace.count());
    entry->stop_by = std::min(entry->stop_by, at + stuck_ms);
    if (entry->starting) kill_from(*entry, at);
    if (entry->give_up_at != never) arm(*entry, entry->give_up_at = std::min(entry->give_up_at, entry->stop_by));
    if (const auto answer = end_at_once(*entry)) return *answer;
    if (!entry->container.ask_to_stop()) return false;
    note_suspended(*entry, is_suspended(entry->container));
    kill_from(*entry, at);
    return true;
}

bool Controller::kill(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->ask_to_kill();
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr) return false;
    const std::int64_t now = detail::monotonic_ms();
    entry->stop_by = std::min(entry->stop_by, now + stuck_ms);
    if (entry->starting) kill_from(*entry, now);
    if (const auto answer = end_at_once(*entry)) return *answer;
    if (!entry->container.signal(SIGKILL)) return false;
    kill_from(*entry, now + kill_again_ms);
    return true;
}

bool Controller::ask(ContainerId id, EndKind kind, ShutdownMode mode) {
    if (const auto helper = call_helper(id)) {
        return kind == EndKind::reboot ? helper->reboot(mode) : helper->shutdown(mode);
    }
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr || entry->preserved) return false;
    const bool reboot = kind == EndKind::reboot;
    if (entry->waits_for_restart() && reboot) return true;
    if (entry->status) {
        const bool is_due = std::find(to_start_.begin(), to_start_.end(), id) != to_start_.end();
        if (entry->restart_at != never || is_due) return *end_at_once(*entry);
        if (!entry->starting) {
            // Its console is still being read. What it has said by its end counts, but for a restart.
            const EndKind end = kind_of(*entry->status, entry->asked == Asked::reboot, entry->asked == Asked::shutdown);
            const bool restarts =
                entry->asked != Asked::stop && entry->origin && entry->origin->spec.after(end) == EndAction::restart;
            if (restarts && !reboot) entry->asked = Asked::stop;
            return restarts;
        }
        // Once its start, which is under way, is done.
        if (entry->asked != Asked::stop) entry->asked = Asked::shutdown;
        return true;
    }
    if (reboot && entry->origin && !entry->origin->can_start_again &&
        entry->origin->spec.on_reboot == EndAction::restart) {
        throw Error{Step::event_loop, EBADF, "container " + detail::quote(entry->container.name()) + ": reboot",
                    "its stdio and descriptors were lent for one start: set on_crash to restart, or start it yourself"};
    }
    if (!(reboot ? entry->container.reboot(mode) : entry->container.shutdown(mode))) return false;
    // A stop that asks and never kills can be taken back: an init that does not obey could only be killed else.
    if (reboot && entry->asked == Asked::stop && entry->stop_by > detail::deadline_in(year_ms)) {
        entry->kill_at = entry->stuck_at = entry->stop_by = never;
        entry->asked = Asked::nothing;
    }
    if (entry->asked != Asked::stop) entry->asked = reboot ? Asked::reboot : Asked::shutdown;
    return true;
}

std::optional<ExitStatus> Controller::status(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->info().preserved;
    const std::lock_guard lock{own()};
    return known(id).status;
}

bool Controller::release(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->info().preserved && helper->ask_to_kill();
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr || !entry->preserved) return false;
    --preserved_;
    entries_.erase(place(id));
    return true;
}

std::optional<Error> Controller::stuck(ContainerId id) {
    const std::lock_guard lock{own()};
    const Entry* const entry = find(id);
    const bool killed = entry != nullptr && !entry->status && entry->kill_at <= detail::deadline_in(kill_again_ms);
    return killed && !entry->container.init().ended() ? std::optional{entry->container.stuck()} : std::nullopt;
}

pid_t Controller::init_pid(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->info().init;
    const std::lock_guard lock{own()};
    return require(id).container.init().pid();
}

void Controller::look_at_end(Entry& entry, std::int64_t now) {
    entry.stuck_at = never;
    if (entry.status || entry.starting) return;
    // Nobody is left in it, and what the kernel still counts goes by itself.
    if (entry.container.init().ended()) {
        entry.stuck_at = now + 2 * stuck_ms;
        return;
    }
    push(
        {.kind = Event::Kind::stuck, .id = entry.id, .name = entry.container.name(), .error = entry.container.stuck()});
}

EndAction Controller::after_end(Entry& entry, std::int64_t now) {
    if (entry.asked == Asked::stop) return EndAction::destroy;
    const EndKind kind = kind_of(*entry.status, entry.asked == Asked::reboot, entry.asked == Asked::shutdown);
    const bool off = kind == EndKind::poweroff &&
                     (entry.asked == Asked::shutdown || entry.status->request() == ExitStatus::Request::poweroff);
    if (off || kind == EndKind::reboot) {
        push({.kind = off ? Event::Kind::powered_off : Event::Kind::rebooted,
              .id = entry.id,
              .name = entry.container.name(),
              .status = entry.status});
    }
    if (!entry.origin) return EndAction::destroy;
    const ContainerSpec& spec = entry.origin->spec;
    const EndAction action = spec.after(kind);
    if (action != EndAction::restart || entry.asked == Asked::reboot) return action;
    if (now - entry.started_at >= spec.back_off.forget_after_ms) entry.restarts_in_row = 0;
    const bool too_many = spec.back_off.most && entry.restarts_in_row >= *spec.back_off.most;
    return too_many || !entry.origin->can_start_again ? EndAction::destroy : action;
}

void Controller::finish(ContainerId id) {
    Entry& entry = *look_up(id);
    const std::int64_t now = detail::monotonic_ms();
    entry.give_up_at = never;
    const EndAction action = after_end(entry, now);
    if (action == EndAction::restart) return restart_later(entry, now);
    Event event{.kind = Event::Kind::exited,
                .id = id,
                .name = entry.container.name(),
                .status = entry.status,
                .preserved = action == EndAction::preserve};
    hand_over_consoles(entry, event);
    if (action == EndAction::preserve) {
        tell_of_consoles(entry, true);
        entry.preserved = true;
        ++preserved_;
        return push(std::move(event));
    }
    let_consoles_go(entry, now);
    drop(id, std::move(event));
}

void Controller::drop(ContainerId id, Event event) {
    entries_.erase(place(id));
    push(std::move(event));
}

void Controller::restart_later(Entry& entry, std::int64_t now) {
    note_suspended(entry, false);
    // Who asks for it himself is neither counted nor made to wait.
    const bool by_request = std::exchange(entry.asked, Asked::nothing) == Asked::reboot;
    const std::uint32_t pause = by_request ? 0 : entry.origin->spec.back_off.pause_ms(entry.restarts_in_row++);
    Event event{.kind = Event::Kind::restarting,
                .id = entry.id,
                .name = entry.container.name(),
                .status = entry.status,
                .count = ++entry.restarts,
                .pause = std::chrono::milliseconds{pause}};
    tell_of_consoles(entry, true);
    if (entry.consoles) entry.consoles->leave();
    hand_over_consoles(entry, event);
    push(std::move(event));
    arm(entry, entry.restart_at = now + pause);
}

void Controller::start_again(std::unique_lock<std::mutex>& lock, const StartHook& hook) {
    const ContainerId id = to_start_.back();
    const ContainerSpec spec = with_sizes_of_consoles(*look_up(id));
    to_start_.pop_back();
    std::optional<Container> made;
    std::optional<Error> error;
    lock.unlock();
    try {
        made.emplace(Container::start(spec, hook));
    } catch (...) {
        error = reason(spec.name);
    }
    lock.lock();
    // Who is starting is not forgotten by anybody.
    Entry& entry = *look_up(id);
    entry.starting = false;
    try {
        if (made) return put_in_place(entry, std::move(*made));
    } catch (...) {
        error = reason(spec.name);
    }
    Event event{.kind = Event::Kind::failed, .id = id, .name = spec.name, .error = std::move(error)};
    let_consoles_go(entry, detail::monotonic_ms());
    drop(id, std::move(event));
}

void Controller::put_in_place(Entry& entry, Container&& container) {
    entry.container = std::move(container);
    entry.status.reset();
    entry.last_usage.reset();
    entry.last_parts = {};
    note_suspended(entry, false);
    entry.started_at = detail::monotonic_ms();
    watch_all(entry);
    push({.kind = Event::Kind::started, .id = entry.id, .name = entry.container.name(), .count = entry.restarts});
    if (entry.oom) look_at_kills(entry);
    // Meanwhile it was asked to end.
    if (entry.asked == Asked::stop) {
        (void)entry.container.ask_to_stop();
        // While it was started nobody could kill it.
        entry.kill_at = std::max(entry.kill_at, entry.started_at);
        entry.stuck_at = entry.kill_at + stuck_ms;
        arm(entry, entry.kill_at);
    } else if (entry.asked == Asked::shutdown) {
        try {
            (void)entry.container.shutdown();
        } catch (const Error&) {
            // A policy: what does not end by itself is for `stop`.
        }
    }
}

}  // namespace caisson::inline v0
