// consoles.hpp - all terminals of one container, as its controller relays them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include <caisson/console.hpp>
#include <caisson/container.hpp>
#include <caisson/spec.hpp>

#include "console_log.hpp"
#include "console_relay.hpp"

namespace caisson::inline v0::detail {

class Consoles {
public:
    /// Opens the logs. Throws `Step::terminal`.
    explicit Consoles(const ContainerSpec& spec);
    /// Relays the terminals of a container that stays where it is; again after an end, those of the next one. `key`:
    /// see Poller; of it the bits from `which_bits` on say which console. Throws `Step::terminal` and
    /// `Step::event_loop`.
    void begin(Container& container, int epoll, std::uint64_t key);

    [[nodiscard]] Relay* find(std::size_t number) noexcept {
        return number < relays_.size() ? relays_[number].get() : nullptr;
    }
    void serve(unsigned part, std::uint32_t events);
    void end();
    [[nodiscard]] bool finished() const noexcept;
    [[nodiscard]] bool took_some() noexcept;
    /// The container goes, and another comes.
    void leave() noexcept;
    void give_up() noexcept;
    /// Nothing is waited for until `go_on`, which throws as `serve` may.
    void pause() noexcept;
    void go_on();
    void release();
    [[nodiscard]] std::size_t unread() const noexcept;
    /// True where `take_notices` may have something.
    [[nodiscard]] bool has_notices() const noexcept;
    /// What there is to tell at `now`: losses and sizes once in a second, unless `all` are asked for.
    [[nodiscard]] std::vector<ConsoleNotice> take_notices(std::int64_t now, bool all);
    /// When there will be more.
    [[nodiscard]] std::int64_t tell_at() const noexcept { return tell_at_; }

    static constexpr unsigned which_bits = 9;

private:
    static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    static constexpr std::int64_t period_ms = 1000;

    std::vector<ConsoleSpec> specs_;
    std::vector<std::optional<ConsoleLog>> logs_;  // until the relays have them
    std::vector<std::unique_ptr<Relay>> relays_;
    std::int64_t told_at_ = 0;
    std::int64_t tell_at_ = never;
};

}  // namespace caisson::inline v0::detail
