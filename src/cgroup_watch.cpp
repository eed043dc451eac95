// src/cgroup_watch.cpp - what happens to control groups: processes killed for want of memory, pressure, the last one
// gone.
#include <caisson/cgroup_watch.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/channel.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

#include "usage_text.hpp"

namespace caisson::inline v0 {
namespace detail {
namespace {

/// A small file from its start; false once its group was removed.
bool read_again(int fd, std::string& into) {
    char buffer[4096];
    const ssize_t n = sys::retry([&] { return ::pread(fd, buffer, sizeof buffer, 0); });
    into.assign(buffer, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    return n >= 0;
}
/// v1's way: an eventfd that the kernel writes to. See the kernel's cgroup-v1/memory.rst.
Fd ask_for_events(const Fd& event_control, int file, const char* arguments, const char* what) {
    Fd event{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (!event) fail(Step::cgroup, what, "raise 'ulimit -n'");
    const std::string text = std::to_string(event.get()) + " " + std::to_string(file) + arguments;
    if (!sys::write_all(event_control.get(), text)) fail(Step::cgroup, what + std::string{": 'cgroup.event_control'"});
    return event;
}

/// The microseconds of `PressureNotice::period_ms` that are too many.
std::uint64_t most_stalled(MemoryPressure level) {
    return level == MemoryPressure::low ? 50'000 : 200'000;
}

}  // namespace

OomNotice::OomNotice(Fd file, const Fd& event_control) : file_{std::move(file)} {
    if (event_control) event_ = ask_for_events(event_control, file_.get(), "", "out-of-memory events");
}

std::uint32_t OomNotice::events() const noexcept {
    return event_ ? EPOLLIN : EPOLLPRI;
}

std::optional<std::uint64_t> OomNotice::take() {
    constexpr int longest_pause = 128;
    if (event_ && sys::take_count(event_)) again_in_ = 1;
    else again_in_ = again_in_ < longest_pause ? again_in_ * 2 : 0;
    std::string text;
    if (!read_again(file_.get(), text)) return std::nullopt;
    const std::uint64_t now = find_number(text, "oom_kill").value_or(seen_);
    const std::uint64_t before = std::exchange(seen_, now);
    return now > before ? now - before : 0;
}

PressureNotice::PressureNotice(MemoryPressure level, Fd file) noexcept : level_{level}, file_{std::move(file)} {
    seen_ = stalled().value_or(0);
    at_ = monotonic_ms();
}

PressureNotice::PressureNotice(MemoryPressure level, const Fd& file, const Fd& event_control)
    : level_{level},
      event_{ask_for_events(event_control, file.get(),
                            level == MemoryPressure::low      ? " low"
                            : level == MemoryPressure::medium ? " medium"
                                                              : " critical",
                            "memory pressure")} {}

/// Microseconds.
std::optional<std::uint64_t> PressureNotice::stalled() const {
    std::string text;
    if (!read_again(file_.get(), text)) return std::nullopt;
    const auto pressure = parse_pressure(text);
    if (!pressure) return std::nullopt;
    return level_ == MemoryPressure::critical ? pressure->full : pressure->some;
}

bool PressureNotice::take() {
    if (event_) return sys::take_count(event_);
    const auto now = stalled();
    is_gone_ = !now;
    if (is_gone_) return false;
    const std::int64_t at = monotonic_ms();
    // Who asks late asks about more than a period.
    const auto passed = static_cast<std::uint64_t>(std::max(at - std::exchange(at_, at), period_ms));
    return (*now - std::exchange(seen_, *now)) * std::uint64_t{period_ms} >= most_stalled(level_) * passed;
}

}  // namespace detail

namespace {
constexpr std::uint64_t key_timer = 0, key_oom = 1, key_pressure = 2, key_population = 3;
}  // namespace

std::optional<detail::OomNotice> Cgroup::oom_notice() {
    const CgroupDirectory* d = find("memory");
    if (d == nullptr) return std::nullopt;
    const char* const name = d->v2() ? "memory.events" : "memory.oom_control";
    Fd file = open_file(*d, name, O_RDONLY);
    if (!file) {
        require_descriptor(*d, name);
        return std::nullopt;
    }
    Fd control;
    if (!d->v2()) {
        control = open_file(*d, "cgroup.event_control", O_WRONLY);
        // Not there where the kernel is built for real time.
        if (!control && (is_refusal(errno) || errno == ENOENT)) return std::nullopt;
        if (!control) {
            detail::fail(Step::cgroup, "open " + detail::quote(path(*d) + "/cgroup.event_control"));
        }
    }
    try {
        return std::optional<detail::OomNotice>{std::in_place, std::move(file), control};
    } catch (const Error& e) {
        // A container that ends at once has no group any more: its keeper has removed it meanwhile.
        if (e.code().value() == ENODEV || e.code().value() == ENOENT) return std::nullopt;
        throw;
    }
}

detail::PressureNotice Cgroup::pressure_notice(MemoryPressure level) const {
    const std::string what = "memory pressure of control group " + detail::quote(name_);
    for (const CgroupDirectory& d : directories_) {
        if (!d.v2()) continue;
        Fd file = open_file(d, "memory.pressure", O_RDONLY);
        std::string text;
        if (file && detail::read_again(file.get(), text)) return {level, std::move(file)};
        if (errno == EMFILE || errno == ENFILE) detail::fail(Step::cgroup, what, "raise 'ulimit -n'");
    }
    for (const CgroupDirectory& d : directories_) {
        if (!detail::list_has(d.controllers, "memory")) continue;
        const Fd file = open_file(d, "memory.pressure_level", O_RDONLY);
        const Fd control = open_file(d, "cgroup.event_control", O_WRONLY);
        if (!file || !control) {
            detail::fail(Step::cgroup, what + ": open " + detail::quote(path(d) + "/memory.pressure_level"));
        }
        return {level, file, control};
    }
    if (directories_.empty()) throw Error{Step::cgroup, 0, what, "there is no group"};
    throw Error{Step::cgroup, EOPNOTSUPP, what,
                "this kernel does not count pressure (PSI): boot it with psi=1, or build it with CONFIG_PSI"};
}

CgroupWatch Cgroup::watch(const CgroupWatchOptions& options) {
    CgroupWatch watch;
    watch.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    watch.timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!watch.epoll_ || !watch.timer_) {
        detail::fail(Step::cgroup, "watch control group " + detail::quote(name_), "raise 'ulimit -n'");
    }
    watch.add(watch.timer_.get(), EPOLLIN, key_timer);
    if (options.out_of_memory) {
        const CgroupDirectory& d = need("memory", "out-of-memory events");
        Fd file = open_file(d, d.v2() ? "memory.events" : "memory.oom_control", O_RDONLY);
        const Fd control = d.v2() ? Fd{} : open_file(d, "cgroup.event_control", O_WRONLY);
        if (!file || (!d.v2() && !control)) {
            detail::fail(Step::cgroup, "out-of-memory events of control group " + detail::quote(path(d)),
                         errno == ENOENT ? "the group was removed, or this kernel is built for real time"
                                         : detail::remedy_for(errno, path(d)));
        }
        watch.oom_.emplace(std::move(file), control);
        (void)watch.oom_->take();
        watch.add(watch.oom_->fd(), watch.oom_->events(), key_oom);
    }
    if (options.pressure) {
        watch.pressure_.emplace(pressure_notice(*options.pressure));
        if (watch.pressure_->fd() >= 0) watch.add(watch.pressure_->fd(), EPOLLIN, key_pressure);
        else watch.pressure_at_ = detail::deadline_in(detail::PressureNotice::period_ms);
    }
    if (options.empty) {
        for (const CgroupDirectory& d : directories_) {
            if (!d.v2()) continue;
            watch.population_ = open_file(d, "cgroup.events", O_RDONLY);
            if (!watch.population_) {
                detail::fail(Step::cgroup, "watch for the end of control group " + detail::quote(path(d)));
            }
        }
        if (!watch.population_) {
            throw Error{Step::cgroup, EOPNOTSUPP, "watch for the end of control group " + detail::quote(name_),
                        "it has no directory on cgroup v2, and v1 does not tell that the last process has left"};
        }
        watch.look_at_processes();
        watch.emptied_ = false;
        watch.add(watch.population_.get(), EPOLLPRI, key_population);
    }
    watch.set_timer();
    return watch;
}

void CgroupWatch::add(int fd, std::uint32_t events, std::uint64_t key) const {
    epoll_event e{};
    e.events = events;
    e.data.u64 = key;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) != 0) {
        detail::fail(Step::cgroup, "watch a control group", errno == ENOSPC ? "raise fs.epoll.max_user_watches" : "");
    }
}

void CgroupWatch::set_timer() const {
    const std::int64_t at = std::min(oom_at_, pressure_at_);
    itimerspec when{};
    if (at != never) {
        when.it_value.tv_sec = static_cast<time_t>(at / 1000);
        when.it_value.tv_nsec = static_cast<long>(at % 1000) * 1'000'000;
    }
    if (::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) != 0) {
        detail::fail(Step::cgroup, "set the timer of a control group's watch");
    }
}

void CgroupWatch::look_at_kills() {
    const auto kills = oom_->take();
    // A file of a group that was removed would be reported as ready for ever.
    if (!kills) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, oom_->fd(), nullptr);
    kills_ += kills.value_or(0);
    const int again = kills ? oom_->again_in() : 0;
    oom_at_ = again > 0 ? detail::deadline_in(again) : never;
}

void CgroupWatch::look_at_processes() {
    std::string text;
    if (!detail::read_again(population_.get(), text)) {
        (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, population_.get(), nullptr);
        emptied_ = emptied_ || std::exchange(populated_, false);
        return;
    }
    const bool populated = detail::find_number(text, "populated") == 1;
    const bool frozen = detail::find_number(text, "frozen") == 1;
    // One that has come and gone since is seen by nothing but the notice, which freezing gives too.
    const bool was_populated = std::exchange(populated_, populated);
    const bool was_frozen = std::exchange(frozen_, frozen);
    emptied_ = !populated && (emptied_ || was_populated || frozen == was_frozen);
}

std::optional<CgroupEvent> CgroupWatch::next() {
    epoll_event ready[4];
    const int n = ::epoll_wait(epoll_.get(), ready, 4, 0);
    if (n < 0 && errno != EINTR) detail::fail(Step::cgroup, "watch a control group");
    const std::int64_t now = detail::monotonic_ms();
    for (int i = 0; i < n; ++i) {
        const std::uint64_t key = ready[i].data.u64;
        if (key == key_timer) (void)detail::sys::take_count(timer_);
        if (key == key_oom || (key == key_timer && oom_at_ <= now)) look_at_kills();
        if (key == key_pressure || (key == key_timer && pressure_at_ <= now)) {
            pressed_ = pressure_->take() || pressed_;
            if (pressure_->is_gone()) pressure_at_ = never;
            else if (pressure_at_ != never) pressure_at_ = now + detail::PressureNotice::period_ms;
        }
        if (key == key_population) look_at_processes();
    }
    if (n > 0) set_timer();
    if (kills_ > 0) {
        return CgroupEvent{.kind = CgroupEvent::Kind::out_of_memory, .count = std::exchange(kills_, 0)};
    }
    if (std::exchange(pressed_, false)) {
        return CgroupEvent{.kind = CgroupEvent::Kind::memory_pressure, .pressure = pressure_->level()};
    }
    if (std::exchange(emptied_, false)) return CgroupEvent{.kind = CgroupEvent::Kind::empty};
    return std::nullopt;
}

}  // namespace caisson::inline v0
