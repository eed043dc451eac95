// src/controller.cpp - what a controller does between two of its events: consoles, ends, deadlines.
#include <caisson/controller.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "changed_spec.hpp"
#include "consoles.hpp"

namespace caisson::inline v0 {
namespace {

/// All containers are asked at the same moments, so that many wake the program no more often than one.
std::int64_t next_period() noexcept {
    constexpr std::int64_t period = detail::PressureNotice::period_ms;
    return (detail::monotonic_ms() / period + 1) * period;
}

}  // namespace

std::mutex& Controller::own() const {
    if (owner_ != ::getpid()) throw std::logic_error{"this Controller is another process's, of which this is a copy"};
    return mutex_;
}

void Controller::control(int operation, int fd, std::uint64_t key, std::uint32_t events) {
    epoll_event e{};
    e.events = events;
    e.data.u64 = key;
    if (::epoll_ctl(epoll_.get(), operation, fd, &e) != 0) {
        detail::fail(Step::event_loop, "watch a descriptor", errno == ENOSPC ? "raise fs.epoll.max_user_watches" : "");
    }
}

void Controller::watch(int fd, std::uint64_t key, std::uint32_t events) {
    control(EPOLL_CTL_ADD, fd, key, events);
}

void Controller::unwatch(int fd) noexcept {
    if (fd >= 0) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Controller::Entry& Controller::insert(ContainerId id, Container&& container, detail::ConsolesOwner consoles,
                                      ConsoleUse use) {
    detail::Owned<Entry> made{
        new Entry{.id = id, .container = std::move(container), .use = use, .consoles = std::move(consoles)}};
    Entry& entry = *made;
    watch_all(entry);
    entries_.insert(place(id), std::move(made));
    return entry;
}

void Controller::watch_all(Entry& entry) {
    const ContainerId id = entry.id;
    // Where one of these throws, closing the descriptors takes them out of the set again.
    entry.end_fd = entry.container.fd();
    watch(entry.end_fd, key(id, part_end), EPOLLIN);
    watch_consoles(entry);
    if (Cgroup* group = entry.container.cgroup()) {
        entry.oom = group->oom_notice();
        if (entry.oom) watch(entry.oom->fd(), key(id, part_oom), entry.oom->events());
    }
}

ContainerId Controller::adopt(Container container, ConsoleUse use, const ContainerSpec& consoles_of) {
    if (container.fd() < 0) throw std::logic_error{"this Container has been moved from"};
    const ContainerId id = next_id();
    const std::lock_guard lock{own()};
    Entry& entry = insert(id, std::move(container), consoles_for(consoles_of, use), use);
    if (entry.oom) (void)entry.oom->take();
    entry.suspended = is_suspended(entry.container);
    return id;
}

Controller::Controller()
    : epoll_{::epoll_create1(EPOLL_CLOEXEC)},
      wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
      stop_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
      timer_{::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)},
      owner_{::getpid()} {
    if (!epoll_ || !wake_ || !stop_ || !timer_) {
        detail::fail(Step::event_loop, "descriptors of a controller", "raise 'ulimit -n'");
    }
    watch(wake_.get(), key_wake, EPOLLIN);
    watch(stop_.get(), key_stop, EPOLLIN);
    watch(timer_.get(), key_timer, EPOLLIN);
}

Controller::~Controller() {
    if (::getpid() != owner_) {
        // The set is the other process's, too: what the consoles take out of it would be out there as well.
        epoll_.reset();
        return;
    }
    // All at once, so that the time does not add up.
    for (const auto& entry : entries_) {
        try {
            if (!entry->status) (void)entry->container.signal(SIGKILL);
        } catch (...) {
            // A destructor is silent.
        }
    }
}

Container Controller::take(ContainerId id) {
    const std::lock_guard lock{own()};
    Entry& entry = require(id);
    unwatch(entry.end_fd);
    unwatch_kills(entry);
    unwatch_pressure(entry);
    leave_consoles(entry);
    Container container = std::move(entry.container);
    entries_.erase(place(id));
    const auto first = events_.begin() + static_cast<std::ptrdiff_t>(taken_);
    const auto is_its = [id](const Event& event) { return event.id == id; };
    events_.erase(std::remove_if(first, events_.end(), is_its), events_.end());
    forget_taken();
    return container;
}

detail::ExecTicket Controller::exec_ticket(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->exec_ticket();
    const std::lock_guard lock{own()};
    return require(id).container.exec_ticket();
}

bool Controller::signal(ContainerId id, int number) {
    if (const auto helper = call_helper(id)) return helper->signal(number);
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr || entry->status || !entry->container.signal(number)) return false;
    if (number == SIGKILL) kill_from(*entry, detail::deadline_in(kill_again_ms));
    return true;
}

void Controller::push(Event event) {
    events_.push_back(std::move(event));
    const std::uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
}

void Controller::push_kills(const Entry& entry, std::uint64_t count) {
    push({.kind = Event::Kind::out_of_memory, .id = entry.id, .name = entry.container.name(), .count = count});
}

void Controller::look_at_kills(Entry& entry) {
    entry.oom_at = never;
    const auto kills = entry.oom->take();
    if (!kills) return unwatch_kills(entry);
    if (*kills > 0) push_kills(entry, *kills);
    if (entry.oom->again_in() > 0) arm(entry, entry.oom_at = detail::deadline_in(entry.oom->again_in()));
}

void Controller::unwatch_kills(Entry& entry) noexcept {
    entry.oom_at = never;
    if (entry.oom) unwatch(entry.oom->fd());
}

void Controller::look_at_pressure(Entry& entry) {
    if (!entry.pressure->take()) return;
    push({.kind = Event::Kind::memory_pressure,
          .id = entry.id,
          .name = entry.container.name(),
          .pressure = entry.pressure->level()});
}

void Controller::unwatch_pressure(Entry& entry) noexcept {
    entry.pressure_at = never;
    if (entry.pressure) unwatch(entry.pressure->fd());
    entry.pressure.reset();
}

void Controller::watch_pressure(ContainerId id, MemoryPressure level) {
    if (const auto helper = call_helper(id)) return helper->watch_pressure(level);
    const std::lock_guard lock{own()};
    Entry& entry = require(id);
    const char* const what = "memory pressure of";
    try {
        Cgroup* const group = entry.container.cgroup();
        if (group == nullptr) throw Error{Step::cgroup, ENOENT, {}, "it has no control group"};
        detail::PressureNotice notice = group->pressure_notice(level);
        if (notice.fd() >= 0) watch(notice.fd(), key(id, part_pressure), EPOLLIN);
        unwatch_pressure(entry);
        entry.pressure.emplace(std::move(notice));
        if (entry.pressure->fd() < 0) arm(entry, entry.pressure_at = next_period());
    } catch (const Error& e) {
        refuse(id, what, e);
    }
}

bool Controller::is_suspended(Container& container) noexcept {
    try {
        return container.cgroup() != nullptr && container.cgroup()->frozen();
    } catch (const Error&) {
        return false;  // it has ended, or there is no freezer
    }
}

void Controller::note_suspended(Entry& entry, bool suspended) {
    if (std::exchange(entry.suspended, suspended) == suspended) return;
    push({.kind = suspended ? Event::Kind::suspended : Event::Kind::resumed,
          .id = entry.id,
          .name = entry.container.name()});
}

void Controller::refuse(ContainerId id, const char* what, const Error& e) {
    const Container& container = require(id).container;
    const std::string outer = what + (" container " + detail::quote(container.name()));
    if (container.init().ended()) throw Error{Step::event_loop, ESRCH, outer, "it has ended"};
    if (e.context().empty()) throw Error{e.step(), e.code(), outer, e.remedy()};
    throw e.context().starts_with(outer) ? e : e.in(outer);
}

LimitSpec Controller::limits(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->limits();
    const std::lock_guard lock{own()};
    return require(id).container.limits();
}

void Controller::limit(ContainerId id, const LimitSpec& limits) {
    if (const auto helper = call_helper(id)) return helper->limit(limits);
    // A restart is to have what the kernel has been told last.
    const detail::Turns::Turn turn{changes_, id};
    std::unique_lock lock{own()};
    try {
        Cgroup* const own = require(id).container.cgroup();
        if (own == nullptr) throw Error{Step::cgroup, ENOENT, {}, "it has no control group"};
        Cgroup group = own->borrow();
        lock.unlock();
        check_limit_change(limits);
        group.limit(limits);
        lock.lock();
        if (Entry* const entry = find(id); entry != nullptr && entry->origin) {
            detail::apply(limits, entry->origin->spec.limits);
        }
    } catch (const Error& e) {
        if (!lock) lock.lock();
        const Container& container = require(id).container;
        if (e.context().empty() || container.init().ended()) refuse(id, "limits of", e);
        throw e.in("container " + detail::quote(container.name()));
    }
}

void Controller::freeze(ContainerId id, bool on) {
    if (const auto helper = call_helper(id)) return on ? helper->suspend() : helper->resume();
    const char* const what = on ? "suspend" : "resume";
    std::unique_lock lock{own()};
    try {
        detail::Freezer freezer = require(id).container.freezer(what);
        lock.unlock();
        if (on) freezer.freeze();
        else freezer.thaw();
        lock.lock();
        // Another thread may have changed it since.
        if (Entry* const entry = find(id)) note_suspended(*entry, freezer.frozen());
    } catch (const Error& e) {
        if (!lock) lock.lock();
        // One that did not come to rest goes on, whatever it did before.
        if (Entry* const entry = find(id); entry != nullptr && !entry->status) {
            note_suspended(*entry, is_suspended(entry->container));
        }
        refuse(id, what, e);
    }
}

bool Controller::suspended(ContainerId id) {
    if (const auto helper = call_helper(id)) return helper->suspended();
    const std::lock_guard lock{own()};
    try {
        return require(id).container.freezer("state of").frozen();
    } catch (const Error& e) {
        refuse(id, "state of", e);
    }
}

void Controller::forget_taken() noexcept {
    if (taken_ != events_.size()) return;
    events_.clear();
    taken_ = 0;
    if (to_start_.empty()) (void)detail::sys::take_count(wake_);
}

void Controller::count_runs(int by) {
    // Of a destructor, too, which must not throw.
    const std::lock_guard lock{mutex_};
    runs_ += by;
}

bool Controller::take_stop() {
    const std::lock_guard lock{own()};
    return detail::sys::take_count(stop_) || std::exchange(stopped_, false);
}

void Controller::turn() {
    epoll_event ready[64];
    const int n = ::epoll_wait(epoll_.get(), ready, 64, 0);
    if (n < 0 && errno != EINTR) detail::fail(Step::event_loop, "wait for events");
    for (int i = 0; i < n; ++i) {
        const std::uint64_t key = ready[i].data.u64;
        if (key == key_wake) continue;
        // A `run` that is under way takes it itself: taken off here, it would not wake one that is about to wait.
        if (key == key_stop) stopped_ = (runs_ == 0 && detail::sys::take_count(stop_)) || stopped_;
        else if (key == key_timer) expire();
        else guard(ContainerId{key >> 16}, [&] { dispatch(ContainerId{key >> 16}, key & part_mask, ready[i].events); });
    }
}

template <class Do>
void Controller::guard(ContainerId id, Do&& act) {
    try {
        act();
    } catch (const std::exception&) {
        Entry* const entry = look_up(id);
        if (entry == nullptr) return;
        entry->again_at = detail::deadline_in(again_ms);
        arm(*entry, entry->again_at);
        // Until then it would be ready all the time.
        if (entry->consoles) entry->consoles->pause();
    }
}

void Controller::try_again(Entry& entry) {
    entry.again_at = never;
    if (entry.status && !entry.told()) end_consoles(entry);
    else if (entry.consoles) entry.consoles->go_on();
    tell_of_consoles(entry, false);
    if (entry.status && !entry.told() && consoles_are_finished(entry)) finish(entry.id);
}

void Controller::dispatch(ContainerId id, std::uint64_t part, std::uint32_t events) {
    if (hear_helper(id)) return;
    // An earlier one of the same turn may have ended it.
    Entry* const found = look_up(id);
    if (found == nullptr) return;
    Entry& entry = *found;
    if (part == part_oom) {
        if (entry.oom) look_at_kills(entry);
        return;
    }
    if (part == part_pressure) {
        if (!entry.pressure) return;
        // v1 gives the notice of a group's removal, too.
        if (entry.container.init().ended()) return unwatch_pressure(entry);
        return look_at_pressure(entry);
    }
    if (part == part_end) {
        if (entry.status) return;
        entry.status = entry.container.try_wait();
        if (!entry.status) {
            if (entry.container.fd() == entry.end_fd) return;
            // Its keeper is dead: it has been killed, and init's end is waited for.
            watch(entry.container.fd(), key(id, part_end), EPOLLIN);
            unwatch(std::exchange(entry.end_fd, entry.container.fd()));
            return kill_from(entry, detail::deadline_in(kill_again_ms));
        }
        unwatch(entry.end_fd);
        unwatch_pressure(entry);
        entry.kill_at = entry.stuck_at = never;
        if (entry.oom && entry.container.oom_kills() > entry.oom->seen()) {
            push_kills(entry, entry.container.oom_kills() - entry.oom->seen());
        }
        unwatch_kills(entry);
        entry.oom.reset();
        end_consoles(entry);
    } else {
        serve(entry, static_cast<unsigned>(part), events);
    }
    if (entry.status && !entry.told() && consoles_are_finished(entry)) finish(id);
}

void Controller::give_up_later(Entry& entry) {
    const std::int64_t now = detail::monotonic_ms();
    const std::int64_t earliest = entry.give_up_at == never ? now + last_ms : entry.give_up_at;
    entry.give_up_at = std::max(earliest, std::min(now + patience_ms, entry.stop_by));
    arm(entry, entry.give_up_at);
}

void Controller::arm(std::int64_t at) {
    if (at >= armed_) return;
    armed_ = at;
    itimerspec when{};
    when.it_value.tv_sec = static_cast<time_t>(at / 1000);
    when.it_value.tv_nsec = static_cast<long>(at % 1000) * 1'000'000 + 999'999;
    if (::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) != 0) {
        detail::fail(Step::event_loop, "set a timer");
    }
}

/// SIGKILL, and again until init has ended.
void Controller::kill_all(Entry& entry, std::int64_t now) noexcept {
    entry.kill_at = now + kill_again_ms;
    try {
        if (!entry.container.kill_all()) entry.kill_at = never;
    } catch (const Error&) {
        // A policy may refuse it now, and not the next time.
    }
}

void Controller::arm(Entry& entry, std::int64_t at) {
    if (at >= entry.due) return;
    if (dues_.size() > 64 + 4 * entries_.size()) {
        // Those of who has ended before his time.
        std::erase_if(dues_, [this](const Due& due) {
            const Entry* const found = look_up(due.id);
            return found == nullptr || found->due != due.at;
        });
        std::make_heap(dues_.begin(), dues_.end(), std::greater{});
    }
    dues_.push_back({at, entry.id});
    std::push_heap(dues_.begin(), dues_.end(), std::greater{});
    entry.due = at;
    arm(at);
}

void Controller::attend(Entry& entry, std::int64_t now) {
    if (entry.give_up_at <= now) {
        entry.give_up_at = never;
        return finish(entry.id);
    }
    if (entry.again_at <= now) {
        const ContainerId id = entry.id;
        try_again(entry);
        if (look_up(id) == nullptr) return;
    }
    if (entry.restart_at <= now) {
        entry.restart_at = never;
        entry.starting = true;
        to_start_.push_back(entry.id);
    }
    if (entry.starting && entry.kill_at <= now) entry.kill_at = now + kill_again_ms;
    if (entry.kill_at <= now) kill_all(entry, now);
    if (entry.stuck_at <= now) look_at_end(entry, now);
    if (entry.oom_at <= now) look_at_kills(entry);
    if (entry.pressure_at <= now) {
        look_at_pressure(entry);
        entry.pressure_at = next_period();
    }
    if (entry.losses_at <= now) tell_of_consoles(entry, false);
    arm(entry, std::min({entry.give_up_at, entry.kill_at, entry.oom_at, entry.pressure_at, entry.restart_at,
                         entry.stuck_at, entry.losses_at, entry.again_at}));
}

void Controller::expire() {
    if (!detail::sys::take_count(timer_)) return;
    armed_ = never;
    const std::int64_t now = detail::monotonic_ms();
    while (!dues_.empty() && dues_.front().at <= now) {
        const Due due = dues_.front();
        std::pop_heap(dues_.begin(), dues_.end(), std::greater{});
        dues_.pop_back();
        Entry* const entry = look_up(due.id);
        if (entry == nullptr || entry->due != due.at) continue;
        entry->due = never;
        guard(due.id, [&] { attend(*entry, now); });
    }
    if (!dues_.empty()) arm(dues_.front().at);
    look_at_lingering(now);
    seek_helpers(now);
}

}  // namespace caisson::inline v0
