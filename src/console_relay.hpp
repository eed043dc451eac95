// console_relay.hpp - carries one of a container's terminals to a terminal of the host and to any number of viewers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <caisson/console.hpp>
#include <caisson/fd.hpp>
#include <caisson/pty.hpp>

#include "console_log.hpp"
#include "console_ring.hpp"

namespace caisson::inline v0::detail {

/// One console's share of a controller's epoll(7) set.
class Poller {
public:
    /// `key` is what epoll is to report, but for its lowest bits: which of the console's descriptors.
    Poller(int epoll, std::uint64_t key) noexcept : epoll_{epoll}, key_{key} {}
    /// Waits for `events` in the place of `before`. Throws `Step::event_loop`.
    void watch(int fd, unsigned which, std::uint32_t events, std::optional<std::uint32_t>& before) const;
    void forget(int fd, std::optional<std::uint32_t>& before) const noexcept;

private:
    int epoll_;
    std::uint64_t key_;
};

/// What a relay has to tell.
struct ConsoleNotice {
    enum class Kind : std::uint8_t { attached, detached, resized, lost, log_failed };
    Kind kind = Kind::attached;
    std::size_t console = 0;
    std::uint32_t viewer = 0;
    std::uint64_t count = 0;  ///< of `lost` and `log_failed`: bytes since the last such notice
};

/// What comes out of a container is kept once, and each reader (the terminal of the host, the viewers) has its place in
/// it; what they type goes in. Never blocks.
///
/// The container waits while no reader has room, unless the spec says otherwise: the fastest sets the pace, and who
/// falls behind by all that is kept loses what is oldest. A reader that nobody has come to yet is the terminal: so what
/// is written before anyone looks waits for the first who does.
///
/// The terminal is made when it is first asked for. A descriptor of its other end is kept: so the kernel keeps what is
/// written while no user is there, and never reports a hang-up that a loop would spin on. For the same reason one of
/// the inner terminal's other end is kept, until the container has ended: one that vhangup(2) has hung up counts, too.
class Relay {
public:
    /// Throws `Step::terminal` and `Step::event_loop`.
    Relay(std::size_t number, Pty& inner, const ConsoleSpec& spec, std::optional<ConsoleLog> log, Poller poller);
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;
    ~Relay();

    /// Something is ready; `which` as of `Poller`.
    void serve(unsigned which, std::uint32_t events);
    /// The terminal, made if need be. Throws `Step::terminal` and `Step::event_loop`.
    [[nodiscard]] const Pty& terminal();
    /// A viewer's own end. Throws `Step::terminal` and `Step::event_loop`.
    [[nodiscard]] Fd attach(const ViewerOptions& options);
    /// Lets all viewers go.
    void detach_all();
    void resize(WindowSize size);
    [[nodiscard]] WindowSize size() const noexcept { return size_; }
    [[nodiscard]] ConsoleState state() const;
    /// Makes notices of what was lost, and whether a size has changed, since the last time.
    void note_untold();
    /// True where `note_untold` has something.
    [[nodiscard]] bool has_untold() const noexcept;
    [[nodiscard]] std::vector<ConsoleNotice>& notices() noexcept { return notices_; }
    [[nodiscard]] const std::vector<ConsoleNotice>& notices() const noexcept { return notices_; }

    /// The container has ended: what it still wrote can be read, and then there is a hang-up.
    void end();
    /// The inner terminal goes with the container; readers stay for the next one.
    void leave() noexcept;
    /// The terminal of the next container. Throws `Step::terminal` and `Step::event_loop`.
    void join(Pty& inner);
    /// True once every reader has got everything that the container wrote.
    [[nodiscard]] bool finished() const noexcept;
    /// True if a byte was taken by somebody since the last question.
    [[nodiscard]] bool took_some() noexcept { return std::exchange(taken_, false); }
    /// Nobody waits any longer for who has not taken what is there: it is lost.
    void give_up() noexcept;
    /// Waits for nothing, until `serve` is called again.
    void pause() noexcept;
    /// The inner terminal stays its owner's, as it was; viewers are let go.
    void release();
    /// Bytes that the terminal's user has not read yet; 0 once there is none. Closing it would take them away.
    [[nodiscard]] std::size_t unread() const noexcept;

    static constexpr unsigned which_inner = 0, which_terminal = 1, which_terminal_peer = 2, which_viewer = 3;
    static constexpr unsigned most_viewers = 256;

private:
    struct Reader {
        std::uint64_t at = 0;  // the next byte that it gets
        std::uint64_t lost = 0;
        std::uint64_t told = 0;  // of what it has lost
        bool is_waited_for = false;
    };
    struct Viewer {
        std::uint32_t number;
        unsigned which;
        Fd socket;
        Reader reader{};
        bool read_only = false;
        bool types = true;     // its other end can still write
        bool hung_up = false;  // what it wrote before is still read
        bool gone = false;
        std::optional<std::uint32_t> events{};
    };
    enum class Got : std::uint8_t { something, nothing, hang_up };

    void move(unsigned typed = which_inner);
    [[nodiscard]] Got read_inner();
    /// True if a viewer who has left may have typed more than was read.
    bool read_typed(unsigned from);
    void open_terminal_again();
    template <class Read>
    [[nodiscard]] Got read_typed_once(Read&& read);
    void write_typed();
    void pass_on();
    template <class Write>
    void pass_on_to(Reader& reader, Write&& write);
    void keep();
    void update_room() noexcept;
    [[nodiscard]] std::size_t allowed_behind() const noexcept;
    void match_sizes();
    void remove_gone();
    void update_events();
    [[nodiscard]] bool has_readers() const noexcept { return outer_ || !viewers_.empty(); }

    std::size_t number_;
    ConsoleSpec spec_;
    std::optional<ConsoleLog> log_;
    Poller poller_;
    Pty* inner_;  // none once it is the owner's alone
    int inner_flags_ = -1;
    Fd inner_peer_;
    std::optional<std::uint32_t> inner_events_;
    std::optional<Pty> outer_;
    Fd outer_peer_;
    std::optional<std::uint32_t> outer_events_;
    std::optional<std::uint32_t> outer_peer_events_;
    Reader terminal_;
    std::vector<Viewer> viewers_;
    std::uint32_t last_viewer_ = 0;
    Ring said_;
    Ring typed_;
    WindowSize size_;
    std::uint64_t log_told_ = 0;
    bool has_room_ = true;
    bool inner_open_ = true;  // something may still come out of it
    bool ended_ = false;
    bool taken_ = false;
    bool resized_ = false;  // which nobody has been told of
    std::vector<ConsoleNotice> notices_;
};

}  // namespace caisson::inline v0::detail
