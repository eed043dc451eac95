#include "console_relay.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <caisson/detail/consoles.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson::inline v0::detail {
namespace {

constexpr std::size_t most_kept = 65536;   // for a reader that is behind, and of what is typed
constexpr std::size_t most_a_read = 4096;  // as much as a terminal gives

void make_nonblocking(int fd, int flags) {
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) fail(Step::terminal, "modes of a console");
}

}  // namespace

void Poller::watch(int fd, unsigned which, std::uint32_t events, std::optional<std::uint32_t>& before) const {
    if (before == events) return;
    epoll_event e{};
    e.events = events;
    e.data.u64 = key_ | which;
    if (::epoll_ctl(epoll_, before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) != 0) {
        fail(Step::event_loop, "watch a console", errno == ENOSPC ? "raise fs.epoll.max_user_watches" : "");
    }
    before = events;
}

void Poller::forget(int fd, std::optional<std::uint32_t>& before) const noexcept {
    if (before) (void)::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    before.reset();
}

Relay::Relay(std::size_t number, Pty& inner, const ConsoleSpec& spec, std::optional<ConsoleLog> log, Poller poller)
    : number_{number}, spec_{spec}, log_{std::move(log)}, poller_{poller}, size_{inner.size()} {
    join(inner);
}

void Relay::join(Pty& inner) {
    inner_flags_ = ::fcntl(inner.fd(), F_GETFL);
    make_nonblocking(inner.fd(), inner_flags_);
    inner_peer_ = inner.open_peer();
    if (inner.size() != size_) inner.resize(size_);
    inner_ = &inner;
    inner_open_ = true;
    ended_ = false;
    update_events();
}

void Relay::leave() noexcept {
    if (inner_ != nullptr) poller_.forget(inner_->fd(), inner_events_);
    inner_ = nullptr;
    inner_open_ = false;
    ended_ = true;
}

Relay::~Relay() {
    if (inner_ != nullptr) poller_.forget(inner_->fd(), inner_events_);
    if (outer_) poller_.forget(outer_->fd(), outer_events_);
    if (outer_) poller_.forget(outer_peer_.get(), outer_peer_events_);
    for (Viewer& viewer : viewers_) poller_.forget(viewer.socket.get(), viewer.events);
}

const Pty& Relay::terminal() {
    if (outer_) return *outer_;
    Pty made = Pty::open(size_);
    make_nonblocking(made.fd(), ::fcntl(made.fd(), F_GETFL));
    made.make_raw();
    outer_peer_ = made.open_peer();
    outer_ = std::move(made);
    // What went by before is nobody's loss.
    terminal_.lost = terminal_.told = 0;
    try {
        // Only a hang-up is reported of it: a user has had the terminal as the controlling one, and has left.
        poller_.watch(outer_peer_.get(), which_terminal_peer, 0, outer_peer_events_);
        move();
    } catch (...) {
        poller_.forget(outer_peer_.get(), outer_peer_events_);
        poller_.forget(outer_->fd(), outer_events_);
        outer_.reset();
        throw;
    }
    return *outer_;
}

Fd Relay::attach(const ViewerOptions& options) {
    const auto is_free = [this](unsigned which) {
        return std::none_of(viewers_.begin(), viewers_.end(), [&](const Viewer& v) { return v.which == which; });
    };
    unsigned which = which_viewer;
    while (!is_free(which)) ++which;
    if (which - which_viewer >= most_viewers) {
        throw Error{Step::terminal, EUSERS, "viewer of " + name_of_console(number_),
                    std::to_string(most_viewers) + " are attached"};
    }
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        fail(Step::terminal, "viewer of " + name_of_console(number_), errno == EMFILE ? "raise 'ulimit -n'" : "");
    }
    Viewer viewer{.number = last_viewer_ + 1, .which = which, .socket = Fd{pair[0]}};
    Fd theirs{pair[1]};
    viewer.reader.at = said_.begin();
    viewer.reader.is_waited_for = options.when_full == WhenFull::wait;
    viewer.read_only = options.read_only;
    poller_.watch(viewer.socket.get(), which, EPOLLOUT, viewer.events);
    viewers_.push_back(std::move(viewer));
    ++last_viewer_;
    notices_.push_back({ConsoleNotice::Kind::attached, number_, last_viewer_, 0});
    move();
    return theirs;
}

void Relay::detach_all() {
    for (Viewer& viewer : viewers_) viewer.gone = true;
    remove_gone();
    move();
}

void Relay::serve(unsigned which, std::uint32_t events) {
    if (which == which_terminal_peer && outer_ && (events & EPOLLHUP) != 0) {
        poller_.forget(outer_peer_.get(), outer_peer_events_);
    }
    if (outer_ && !outer_peer_events_) open_terminal_again();
    if (which >= which_viewer && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        for (Viewer& viewer : viewers_) {
            if (viewer.which != which) continue;
            poller_.forget(viewer.socket.get(), viewer.events);
            viewer.hung_up = true;
        }
    }
    move((events & EPOLLIN) != 0 ? which : which_inner);
}

/// After a hang-up. The kernel has put its modes back, and echo would give the container its own output as input.
void Relay::open_terminal_again() {
    outer_peer_ = outer_->open_peer();
    outer_->make_raw();
    poller_.watch(outer_peer_.get(), which_terminal_peer, 0, outer_peer_events_);
}

/// Moves what can be moved, a bounded part at a time. `typed`: who has written something, if it is not the container.
void Relay::move(unsigned typed) {
    // After the end nothing announces what is left inside: all of it is taken, which is some kilobytes.
    for (int turn = 0; turn < (ended_ ? 4096 : 16); ++turn) {
        update_room();
        const Got got = inner_open_ && has_room_ ? read_inner() : Got::nothing;
        if (got == Got::hang_up) inner_open_ = false;
        pass_on();
        if (got == Got::something) continue;
        if (!ended_) match_sizes();
        break;
    }
    if (!ended_) {
        while (read_typed(typed)) {
            write_typed();
            typed = which_inner;
        }
        write_typed();
    }
    remove_gone();
    update_room();
    update_events();
}

Relay::Got Relay::read_inner() {
    said_.reserve(most_a_read);
    char buffer[most_a_read];
    const ssize_t n = sys::retry([&] { return ::read(inner_->fd(), buffer, sizeof buffer); });
    if (n <= 0) return n < 0 && errno == EAGAIN ? Got::nothing : Got::hang_up;
    const std::string_view bytes{buffer, static_cast<std::size_t>(n)};
    if (log_) log_->write(bytes);
    said_.append(bytes);
    return Got::something;
}

template <class Write>
void Relay::pass_on_to(Reader& reader, Write&& write) {
    while (reader.at != said_.end()) {
        const std::string_view bytes = said_.from(reader.at);
        const ssize_t n = sys::retry([&] { return write(bytes.data(), bytes.size()); });
        if (n <= 0) return;
        reader.at += static_cast<std::uint64_t>(n);
        taken_ = true;
        if (static_cast<std::size_t>(n) < bytes.size()) return;  // it is full
    }
}

void Relay::pass_on() {
    if (outer_) {
        pass_on_to(terminal_, [&](const char* data, std::size_t size) { return ::write(outer_->fd(), data, size); });
    }
    for (Viewer& viewer : viewers_) {
        if (viewer.hung_up) continue;
        pass_on_to(viewer.reader, [&](const char* data, std::size_t size) {
            const ssize_t n = ::send(viewer.socket.get(), data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN && errno != EINTR) viewer.hung_up = true;
            return n;
        });
    }
    keep();
}

/// How far behind a terminal may be that nobody has asked for: where the container does not wait, it is in the way of
/// nobody but the memory.
std::size_t Relay::allowed_behind() const noexcept {
    const bool waits = !log_ && spec_.when_full == WhenFull::wait;
    return outer_ || waits ? std::max<std::size_t>(most_kept, spec_.scroll_back) : spec_.scroll_back;
}

/// Forgets what nobody is to see again.
void Relay::keep() {
    const std::uint64_t end = said_.end();
    std::uint64_t from = end - std::min<std::uint64_t>(end, spec_.scroll_back);
    const auto hold = [&](Reader& reader, std::size_t behind) {
        const std::uint64_t oldest = end - std::min<std::uint64_t>(end, behind);
        if (reader.at < oldest) {
            reader.lost += oldest - reader.at;
            reader.at = oldest;
        }
        from = std::min(from, reader.at);
    };
    hold(terminal_, allowed_behind());
    for (Viewer& viewer : viewers_) hold(viewer.reader, std::max<std::size_t>(most_kept, spec_.scroll_back));
    said_.drop_before(from);
}

/// Whether more may be read: with a margin, so that not each byte that is taken lets one in.
void Relay::update_room() noexcept {
    const std::size_t most = std::max<std::size_t>(most_kept, spec_.scroll_back);
    const std::size_t enough = has_room_ ? most - most_a_read : most / 2;
    const auto has = [&](const Reader& reader) { return said_.end() - reader.at <= enough; };
    bool some = log_ || spec_.when_full == WhenFull::drop_oldest || (ended_ && !has_readers()) || has(terminal_);
    bool all = true;
    for (const Viewer& viewer : viewers_) {
        if (viewer.hung_up) continue;
        some = some || has(viewer.reader);
        all = all && (!viewer.reader.is_waited_for || has(viewer.reader));
    }
    has_room_ = some && all;
}

template <class Read>
Relay::Got Relay::read_typed_once(Read&& read) {
    if (typed_.size() > most_kept - most_a_read) return Got::nothing;
    typed_.reserve(most_a_read);
    char buffer[most_a_read];
    const ssize_t n = sys::retry([&] { return read(buffer, sizeof buffer); });
    if (n <= 0) return n < 0 && errno == EAGAIN ? Got::nothing : Got::hang_up;
    typed_.append({buffer, static_cast<std::size_t>(n)});
    return Got::something;
}

bool Relay::read_typed(unsigned from) {
    bool is_more = false;
    if (outer_ && from == which_terminal) {
        (void)read_typed_once([&](char* into, std::size_t size) { return ::read(outer_->fd(), into, size); });
    }
    for (Viewer& viewer : viewers_) {
        if (viewer.read_only || !viewer.types) {
            viewer.gone = viewer.hung_up;
            continue;
        }
        if (from != viewer.which && !viewer.hung_up) continue;
        const Got got = read_typed_once(
            [&](char* into, std::size_t size) { return ::recv(viewer.socket.get(), into, size, MSG_DONTWAIT); });
        if (got == Got::hang_up) viewer.types = false;
        viewer.gone = viewer.hung_up && !viewer.types;
        // Nothing announces the rest.
        is_more = is_more || (viewer.hung_up && got == Got::something);
    }
    return is_more;
}

void Relay::write_typed() {
    typed_.drop_before(typed_.begin());  // the room that was for more than came
    while (!typed_.empty()) {
        const std::string_view bytes = typed_.from(typed_.begin());
        const ssize_t n = sys::retry([&] { return ::write(inner_->fd(), bytes.data(), bytes.size()); });
        if (n <= 0) return;
        typed_.drop_before(typed_.begin() + static_cast<std::uint64_t>(n));
    }
}

void Relay::remove_gone() {
    if (ended_) {
        for (Viewer& viewer : viewers_) viewer.gone = viewer.gone || viewer.hung_up;
    }
    std::erase_if(viewers_, [this](Viewer& viewer) {
        if (!viewer.gone) return false;
        poller_.forget(viewer.socket.get(), viewer.events);
        if (viewer.reader.lost != viewer.reader.told) {
            notices_.push_back(
                {ConsoleNotice::Kind::lost, number_, viewer.number, viewer.reader.lost - viewer.reader.told});
        }
        notices_.push_back({ConsoleNotice::Kind::detached, number_, viewer.number, 0});
        return true;
    });
}

void Relay::update_events() {
    const bool takes_typed = !ended_ && typed_.size() <= most_kept - most_a_read;
    const auto events = [&](bool in, bool out) {
        return (in ? std::uint32_t{EPOLLIN} : 0u) | (out ? std::uint32_t{EPOLLOUT} : 0u);
    };
    if (inner_ != nullptr && !ended_ && inner_open_) {
        poller_.watch(inner_->fd(), which_inner, events(has_room_, !typed_.empty()), inner_events_);
    } else if (inner_ != nullptr) {
        // From here on it would report its hang-up all the time; `move` empties it.
        poller_.forget(inner_->fd(), inner_events_);
    }
    if (outer_) {
        poller_.watch(outer_->fd(), which_terminal, events(takes_typed, terminal_.at != said_.end()), outer_events_);
    }
    for (Viewer& viewer : viewers_) {
        if (viewer.hung_up) {
            poller_.forget(viewer.socket.get(), viewer.events);
            continue;
        }
        const bool types = takes_typed && viewer.types && !viewer.read_only;
        poller_.watch(viewer.socket.get(), viewer.which, events(types, viewer.reader.at != said_.end()), viewer.events);
    }
}

/// A size that was set inside is seen outside, and the other way round.
void Relay::match_sizes() {
    WindowSize size = inner_->size();
    if (size == size_ && outer_) {
        size = outer_->size();
        if (size != size_) inner_->resize(size);
    } else if (size != size_ && outer_) {
        outer_->resize(size);
    }
    if (size == size_) return;
    size_ = size;
    resized_ = true;
}

void Relay::resize(WindowSize size) {
    if (inner_ != nullptr) inner_->resize(size);
    if (outer_) outer_->resize(size);
    size_ = size;
}

ConsoleState Relay::state() const {
    ConsoleState state{.size = size_, .written = said_.end(), .log_lost = log_ ? log_->lost() : 0};
    if (log_ && log_->error() != 0) {
        state.log_error = Error{Step::terminal, log_->error(), "log " + quote(spec_.log)}.what();
    }
    state.viewers.push_back({0, terminal_.lost});
    for (const Viewer& viewer : viewers_) state.viewers.push_back({viewer.number, viewer.reader.lost});
    return state;
}

bool Relay::has_untold() const noexcept {
    if (resized_) return true;
    // A terminal that nobody has asked for has no user who could miss something.
    if ((outer_ && terminal_.lost != terminal_.told) || (log_ && log_->lost() != log_told_)) return true;
    return std::any_of(viewers_.begin(), viewers_.end(),
                       [](const Viewer& v) { return v.reader.lost != v.reader.told; });
}

void Relay::note_untold() {
    if (std::exchange(resized_, false)) notices_.push_back({ConsoleNotice::Kind::resized, number_, 0, 0});
    const auto note = [this](ConsoleNotice::Kind kind, std::uint32_t viewer, std::uint64_t lost, std::uint64_t& told) {
        if (lost != told) notices_.push_back({kind, number_, viewer, lost - std::exchange(told, lost)});
    };
    if (outer_) note(ConsoleNotice::Kind::lost, 0, terminal_.lost, terminal_.told);
    for (Viewer& viewer : viewers_) {
        note(ConsoleNotice::Kind::lost, viewer.number, viewer.reader.lost, viewer.reader.told);
    }
    if (log_) note(ConsoleNotice::Kind::log_failed, 0, log_->lost(), log_told_);
}

void Relay::end() {
    ended_ = true;
    inner_peer_.reset();
    move();
}

bool Relay::finished() const noexcept {
    const auto has_all = [this](const Reader& reader) { return reader.at == said_.end(); };
    return !inner_open_ && (!outer_ || has_all(terminal_)) &&
           std::all_of(viewers_.begin(), viewers_.end(), [&](const Viewer& v) { return has_all(v.reader); });
}

void Relay::give_up() noexcept {
    const auto lose = [this](Reader& reader) { reader.lost += said_.end() - std::exchange(reader.at, said_.end()); };
    lose(terminal_);
    for (Viewer& viewer : viewers_) lose(viewer.reader);
}

void Relay::pause() noexcept {
    if (inner_ != nullptr) poller_.forget(inner_->fd(), inner_events_);
    if (outer_) poller_.forget(outer_->fd(), outer_events_);
    for (Viewer& viewer : viewers_) poller_.forget(viewer.socket.get(), viewer.events);
}

void Relay::release() {
    if (inner_ != nullptr && inner_flags_ >= 0) (void)::fcntl(inner_->fd(), F_SETFL, inner_flags_);
    leave();
    for (Viewer& viewer : viewers_) poller_.forget(viewer.socket.get(), viewer.events);
    viewers_.clear();
    if (!outer_) return;
    poller_.forget(outer_->fd(), outer_events_);
    poller_.forget(outer_peer_.get(), outer_peer_events_);
}

std::size_t Relay::unread() const noexcept {
    if (!outer_) return 0;
    pollfd p{outer_peer_.get(), POLLIN, 0};
    if (sys::retry([&] { return ::poll(&p, 1, 0); }) <= 0 || (p.revents & POLLHUP) != 0) return 0;
    int n = 0;
    return ::ioctl(outer_peer_.get(), FIONREAD, &n) == 0 && n > 0 ? static_cast<std::size_t>(n) : 0;
}

}  // namespace caisson::inline v0::detail
