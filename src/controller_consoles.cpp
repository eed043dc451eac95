// src/controller_consoles.cpp - the consoles of a controller's containers.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <sys/epoll.h>

#include <caisson/controller.hpp>
#include <caisson/detail/consoles.hpp>

#include "consoles.hpp"

namespace caisson::inline v0 {
namespace {

constexpr unsigned console_bits = 0x7fff;

Event event_of(const detail::ConsoleNotice& notice) {
    using Kind = detail::ConsoleNotice::Kind;
    const auto kind = [&] {
        switch (notice.kind) {
            case Kind::attached: return Event::Kind::console_attached;
            case Kind::detached: return Event::Kind::console_detached;
            case Kind::resized: return Event::Kind::console_resized;
            case Kind::lost: return Event::Kind::console_lost;
            case Kind::log_failed: break;
        }
        return Event::Kind::console_log_failed;
    };
    return {.kind = kind(), .count = notice.count, .console_number = notice.console, .viewer = notice.viewer};
}

}  // namespace

void detail::ConsolesEnd::operator()(Consoles* consoles) const noexcept {
    delete consoles;
}

detail::ConsolesOwner Controller::consoles_for(const ContainerSpec& spec, ConsoleUse use) {
    if (use != ConsoleUse::relay) return {};
    try {
        bool has_log = false;
        for (std::size_t i = 0; i < detail::consoles_of(spec); ++i) {
            has_log = has_log || !detail::console_of(spec, i).log.empty();
        }
        // Nothing is made for a spec that cannot be.
        if (has_log) check(spec);
        return detail::ConsolesOwner{new detail::Consoles{spec}};
    } catch (const Error& e) {
        throw e.in("container " + detail::quote(spec.name));
    }
}

void Controller::watch_consoles(Entry& entry) {
    if (entry.consoles) {
        entry.consoles->begin(entry.container, epoll_.get(), key(entry.id, part_console));
        tell_of_consoles(entry, false);
    }
    if (entry.use != ConsoleUse::told) return;
    for (std::uint64_t i = 0; const Pty* const console = entry.container.console(i); ++i) {
        // Told again when more comes, and not as long as there is some.
        watch(console->fd(), key(entry.id, static_cast<Part>(part_data | i)), EPOLLIN | EPOLLET);
    }
}

ContainerSpec Controller::with_sizes_of_consoles(const Entry& entry) {
    ContainerSpec spec = entry.origin->spec;
    for (std::size_t i = 0; entry.consoles && entry.consoles->find(i) != nullptr; ++i) {
        const WindowSize size = entry.consoles->find(i)->size();
        if (size == detail::console_of(spec, i).size) continue;
        (i == 0 ? *spec.console : spec.more_consoles[i - 1]).size = size;
    }
    return spec;
}

void Controller::leave_consoles(Entry& entry) {
    if (entry.consoles) entry.consoles->release();
    entry.consoles.reset();
    for (std::size_t i = 0; const Pty* const console = entry.container.console(i); ++i) unwatch(console->fd());
}

void Controller::end_consoles(Entry& entry) {
    if (!entry.consoles) return;
    if (entry.give_up_at == never) give_up_later(entry);
    entry.consoles->end();
    // What the terminal still had room for, nobody has read yet.
    (void)entry.consoles->took_some();
    tell_of_consoles(entry, false);
}

bool Controller::consoles_are_finished(const Entry& entry) noexcept {
    return !entry.consoles || entry.consoles->finished();
}

void Controller::let_consoles_go(Entry& entry, std::int64_t now) {
    if (!entry.consoles) return;
    entry.consoles->give_up();
    tell_of_consoles(entry, true);
    entry.consoles->release();
    const std::size_t unread = entry.consoles->unread();
    if (unread == 0) return;
    lingering_.push_back({std::move(entry.consoles), unread, now + patience_ms});
    arm(now + linger_step_ms);
}

void Controller::look_at_lingering(std::int64_t now) {
    std::erase_if(lingering_, [now](Lingering& l) {
        const std::size_t unread = l.consoles->unread();
        if (unread != std::exchange(l.unread, unread)) l.give_up_at = now + patience_ms;
        return unread == 0 || l.give_up_at <= now;
    });
    if (!lingering_.empty()) arm(now + linger_step_ms);
}

void Controller::hand_over_consoles(Entry& entry, Event& event) {
    if (entry.consoles) return;
    for (std::size_t i = 0; Pty* const console = entry.container.console(i); ++i) {
        if (console->fd() < 0) continue;  // `restarting` has handed it over
        if (entry.use == ConsoleUse::told) unwatch(console->fd());
        if (i == 0) event.console.emplace(std::move(*console));
        else event.more_consoles.push_back(std::move(*console));
    }
}

void Controller::tell_of_consoles(Entry& entry, bool all) {
    if (!entry.consoles || !entry.consoles->has_notices()) return;
    for (const detail::ConsoleNotice& notice : entry.consoles->take_notices(detail::monotonic_ms(), all)) {
        Event event = event_of(notice);
        event.id = entry.id;
        event.name = entry.container.name();
        push(std::move(event));
    }
    entry.losses_at = entry.consoles->tell_at();
    arm(entry, entry.losses_at);
}

void Controller::serve(Entry& entry, unsigned part, std::uint32_t events) {
    if ((part & part_console) == 0) {
        const std::size_t number = part & ~unsigned{part_data};
        const std::uint64_t bit = std::uint64_t{1} << number;
        // A hang-up alone only says that nobody inside has it open.
        if ((events & EPOLLIN) == 0 || (entry.data_told & bit) != 0) return;
        push({.kind = Event::Kind::console_data,
              .id = entry.id,
              .name = entry.container.name(),
              .console_number = number});
        entry.data_told |= bit;
        return;
    }
    if (!entry.consoles) return;
    entry.consoles->serve(part & console_bits, events);
    if (entry.consoles->took_some() && entry.status && !entry.told()) give_up_later(entry);
    tell_of_consoles(entry, false);
}

void Controller::take_data_told(const Event& event) noexcept {
    if (Entry* const entry = look_up(event.id)) entry->data_told &= ~(std::uint64_t{1} << event.console_number);
}

detail::Relay& Controller::relay(Entry& entry, std::size_t console) {
    detail::Relay* const relay = entry.consoles ? entry.consoles->find(console) : nullptr;
    if (relay != nullptr) return *relay;
    throw Error{Step::terminal, ENOTTY,
                detail::title_of_console(console) + " of container " + detail::quote(entry.container.name()),
                "it was started without such a console to relay"};
}

bool Controller::resize(ContainerId id, WindowSize size, std::size_t console) {
    if (const auto helper = call_helper(id)) return helper->resize(size, console), true;
    const std::lock_guard lock{own()};
    Entry* const entry = find(id);
    if (entry == nullptr || entry->status) return false;
    Pty* const terminal = entry->container.console(console);
    if (terminal == nullptr) return false;
    if (entry->consoles) relay(*entry, console).resize(size);
    else terminal->resize(size);
    return true;
}

std::string Controller::console_path(ContainerId id, std::size_t console) {
    if (const auto helper = call_helper(id)) {
        HelperInfo info = helper->info();
        if (console == 0) return std::move(info.console_path);
        return console <= info.more_console_paths.size() ? info.more_console_paths[console - 1] : std::string{};
    }
    const std::lock_guard lock{own()};
    Entry& entry = known(id);
    if (!entry.consoles || entry.consoles->find(console) == nullptr) return {};
    return relay(entry, console).terminal().peer_path();
}

Fd Controller::open_console(ContainerId id, std::size_t console) {
    if (const auto helper = call_helper(id)) return helper->open_console(console);
    const std::lock_guard lock{own()};
    return relay(known(id), console).terminal().open_peer();
}

Fd Controller::attach_console(ContainerId id, const ViewerOptions& options) {
    if (const auto helper = call_helper(id)) return helper->attach_console(options);
    const std::lock_guard lock{own()};
    Entry& entry = known(id);
    Fd viewer = relay(entry, options.console).attach(options);
    tell_of_consoles(entry, false);
    return viewer;
}

void Controller::detach_viewers(ContainerId id, std::size_t console) {
    if (const auto helper = call_helper(id)) return helper->detach_viewers(console);
    const std::lock_guard lock{own()};
    Entry& entry = known(id);
    relay(entry, console).detach_all();
    tell_of_consoles(entry, false);
}

ConsoleState Controller::console_state(ContainerId id, std::size_t console) {
    if (const auto helper = call_helper(id)) return helper->console_state(console);
    const std::lock_guard lock{own()};
    return relay(known(id), console).state();
}

int Controller::console_fd(ContainerId id, std::size_t console) {
    const std::lock_guard lock{own()};
    Entry& entry = require(id);
    const Pty* const terminal = entry.consoles ? nullptr : entry.container.console(console);
    return terminal == nullptr ? -1 : terminal->fd();
}

}  // namespace caisson::inline v0
