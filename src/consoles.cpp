#include "consoles.hpp"

#include <algorithm>
#include <utility>

#include <caisson/detail/consoles.hpp>

namespace caisson::inline v0::detail {

Consoles::Consoles(const ContainerSpec& spec) {
    for (std::size_t i = 0; i < consoles_of(spec); ++i) {
        specs_.push_back(console_of(spec, i));
        logs_.emplace_back();
        if (!specs_.back().log.empty()) logs_.back().emplace(specs_.back());
    }
}

void Consoles::begin(Container& container, int epoll, std::uint64_t key) {
    for (std::size_t i = 0; Pty* const terminal = container.console(i); ++i) {
        if (Relay* const relay = find(i)) {
            relay->join(*terminal);
            continue;
        }
        relays_.push_back(std::make_unique<Relay>(i, *terminal, i < specs_.size() ? specs_[i] : ConsoleSpec{},
                                                  i < logs_.size() ? std::move(logs_[i]) : std::nullopt,
                                                  Poller{epoll, key | std::uint64_t{i} << which_bits}));
    }
    specs_ = decltype(specs_){};
    logs_ = decltype(logs_){};
}

void Consoles::serve(unsigned part, std::uint32_t events) {
    if (Relay* const relay = find(part >> which_bits)) relay->serve(part & ((1u << which_bits) - 1), events);
}

void Consoles::end() {
    for (const auto& relay : relays_) relay->end();
}

bool Consoles::finished() const noexcept {
    return std::all_of(relays_.begin(), relays_.end(), [](const auto& relay) { return relay->finished(); });
}

bool Consoles::took_some() noexcept {
    bool some = false;
    for (const auto& relay : relays_) some = relay->took_some() || some;
    return some;
}

void Consoles::leave() noexcept {
    for (const auto& relay : relays_) relay->leave();
}

void Consoles::give_up() noexcept {
    for (const auto& relay : relays_) relay->give_up();
}

void Consoles::pause() noexcept {
    for (const auto& relay : relays_) relay->pause();
}

void Consoles::go_on() {
    for (const auto& relay : relays_) relay->serve(Relay::which_inner, 0);
}

void Consoles::release() {
    for (const auto& relay : relays_) relay->release();
}

std::size_t Consoles::unread() const noexcept {
    std::size_t all = 0;
    for (const auto& relay : relays_) all += relay->unread();
    return all;
}

bool Consoles::has_notices() const noexcept {
    return std::any_of(relays_.begin(), relays_.end(),
                       [](const auto& relay) { return !relay->notices().empty() || relay->has_untold(); });
}

std::vector<ConsoleNotice> Consoles::take_notices(std::int64_t now, bool all) {
    std::vector<ConsoleNotice> notices;
    const bool has_some =
        std::any_of(relays_.begin(), relays_.end(), [](const auto& relay) { return relay->has_untold(); });
    const bool is_time = now - told_at_ >= period_ms || told_at_ == 0;
    const bool tells = has_some && (all || is_time);
    if (tells) told_at_ = now;
    tell_at_ = has_some && !tells ? told_at_ + period_ms : never;
    for (const auto& relay : relays_) {
        if (tells) relay->note_untold();
        auto& made = relay->notices();
        notices.insert(notices.end(), made.begin(), made.end());
        made = {};
    }
    return notices;
}

}  // namespace caisson::inline v0::detail
