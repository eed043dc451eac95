// helper/server.cpp - the helper's loop: containers, their consoles and their clients.
#include "server.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <exception>
#include <utility>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plain_event.hpp"
#include "privileges.hpp"

namespace caisson_helper {
namespace {

using detail::Taken;

constexpr std::size_t most_clients = 512;

bool has(const std::vector<int>& ready, const Fd& fd) {
    return fd && std::find(ready.begin(), ready.end(), fd.get()) != ready.end();
}

void forget_closed(std::vector<Client>& clients) {
    std::erase_if(clients, [](const Client& client) { return !client.socket; });
}

/// After a failure for want of memory or descriptors: that is one container's matter, and may be better in a moment.
void give_time() noexcept {
    (void)::poll(nullptr, 0, 10);
}

Fd accept_one(const Fd& listener) {
    return Fd{
        detail::sys::retry([&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); })};
}

}  // namespace

Server::Server(const detail::StartRequest& request)
    : run_directory_{request.run_directory}, epoll_{::epoll_create1(EPOLL_CLOEXEC)}, spare_{epoll_.duplicate()} {
    if (!epoll_) detail::fail(Step::event_loop, "descriptors of a helper");
    if (request.group.empty()) return;
    descriptor_limit_ = make_room();
    group_.emplace(RunDirectory::acquire_group(run_directory_, request.group));
    group_listener_ = group_->listen();
    watch(group_listener_.get());
}

Server::~Server() {
    for (const auto& starting : starting_) {
        if (starting->thread.joinable()) starting->thread.join();
    }
    for (const auto& work : work_) work->thread.join();
}

bool Server::is_idle() const {
    return wards_.empty() && starting_.empty() && !controller_.has_unread_console();
}

void Server::run() {
    while (!is_idle()) {
        try {
            turn(-1);
        } catch (const std::exception&) {
            give_time();
        }
    }
    if (!group_) return;
    // Who has come to the group before its end is served; who comes later finds nobody, and starts the next helper.
    turn(0);
    if (!is_idle()) return run();
    group_->release();
}

void Server::turn(int milliseconds) {
    pollfd p[]{{controller_.fd(), POLLIN, 0}, {epoll_.get(), POLLIN, 0}};
    // What was done since the last look has woken that turn.
    const bool has_finished =
        std::any_of(work_.begin(), work_.end(), [](const auto& work) { return work->done.load(); });
    if (::poll(p, 2, has_finished ? 0 : milliseconds) < 0 && errno != EINTR) {
        detail::fail(Step::event_loop, "wait for events");
    }
    // An answer comes behind the events that it has caused.
    const std::vector<const Work*> done = finished();
    take_events();
    settle_failures();
    settle(done);
    if (p[1].revents == 0) return;
    epoll_event events[64];
    const int n = ::epoll_wait(epoll_.get(), events, 64, 0);
    std::vector<int> ready;
    for (int i = 0; i < n; ++i) ready.push_back(events[i].data.fd);
    for (const auto& ward : wards_) {
        serve_ward(*ward, ready);
        if (ward->released) end(*ward, ward->last_status);
    }
    std::erase_if(wards_, [](const auto& ward) { return ward->released; });
    if (group_) serve_group(ready);
}

void Server::take_events() {
    try {
        while (const auto event = controller_.next()) handle(*event);
    } catch (const std::exception&) {
        give_time();
    }
}

void Server::handle(const Event& event) {
    if (event.kind == Event::Kind::started || event.kind == Event::Kind::failed) {
        if (auto starting = take_starting(event.name)) return settle(std::move(starting), event);
    }
    const auto found =
        std::find_if(wards_.begin(), wards_.end(), [&](const auto& ward) { return ward->id == event.id; });
    if (found == wards_.end()) return;
    Ward& ward = **found;
    const bool is_over = event.is_last() && !event.preserved;
    if (event.status) ward.last_status = *event.status;
    const bool starts_again = event.kind == Event::Kind::started;
    if (!is_over && (event.preserved || starts_again)) renew(ward, event);
    if (event.kind == Event::Kind::exited && is_over) {
        end(ward, ward.last_status);
        wards_.erase(found);
        return;
    }
    tell_watchers(ward, event);
    forget_closed(ward);
    if (!is_over) return;
    // A restart has failed: the end that it was to follow is the last one.
    // Out of the list first: what fails half-way would else keep the helper from its end.
    const auto over = std::move(*found);
    wards_.erase(found);
    end(*over, over->last_status);
}

void Server::forget_closed(Ward& ward) {
    for (Client& client : ward.clients) {
        if (!client.socket) keep_intended(controller_, ward, client);
    }
    caisson_helper::forget_closed(ward.clients);
}

void Server::tell_watchers(Ward& ward, const Event& event) {
    const Message message{.kind = Message::Kind::event, .body = detail::encode(detail::PlainEvent::of(event))};
    for (Client& client : ward.clients) {
        if (client.watches) tell(client, message);
    }
}

void Server::renew(Ward& ward, const Event& event) {
    try {
        if (!event.preserved) {
            ward.is_recorded = false;
            return catch_up(ward);
        }
        ward.info.preserved = detail::PlainStatus::of(*event.status);
        ward.info_file = detail::to_memory_file(detail::encode(ward.info));
    } catch (const Error&) {
        // It has ended already, or no file can be made: what is told is then what was.
    }
}

void Server::catch_up(Ward& ward) {
    ward.info.init = controller_.init_pid(ward.id);
    ward.info_file = detail::to_memory_file(detail::encode(ward.info));
    record(ward);
}

void Server::catch_up(Ward& ward, const Message& question) {
    const bool needs_it = goes_by_record(question);
    if (!needs_it && question.kind != Message::Kind::info) return;
    try {
        catch_up(ward);
    } catch (const Error&) {
        if (needs_it) throw;
    }
}

void Server::serve_ward(Ward& ward, const std::vector<int>& ready) {
    for (Client& client : ward.clients) {
        if (has(ready, client.socket)) serve(ward, client);
    }
    forget_closed(ward);
    if (has(ready, ward.listener)) accept_clients(ward.listener, ward.clients);
}

void Server::serve(Ward& ward, Client& client) {
    Message question;
    Fd passed;
    try {
        switch (detail::take_message(client.socket.get(), question, &passed)) {
            case Taken::nothing_yet: return;
            case Taken::closed: client.socket.reset(); return;
            case Taken::message: break;
        }
    } catch (const std::exception& e) {
        tell(client, refusal(e));
        client.socket.reset();
        return;
    }
    try {
        // Of a restart for which there was no room: who asks is told so, or it is made up for.
        if (!ward.is_recorded) catch_up(ward, question);
        if (group_ && may_take_long(question)) return answer_beside(ward, client, std::move(question));
        const Answer found = answer(controller_, ward, client, question, passed);
        tell(client, found.message, found.passed.get());
        if (question.kind == Message::Kind::note) tell_watchers(ward, {.kind = Event::Kind::noted});
    } catch (const std::exception& e) {
        if (client.socket) tell(client, refusal(e));
    }
}

/// A thread must not end by an exception. What has no text is refused all the same.
static Message refusal_if_room(const std::exception& e) noexcept {
    try {
        return refusal(e);
    } catch (...) {
        return {.kind = Message::Kind::refused};
    }
}

void Server::answer_beside(const Ward& ward, Client& client, Message question) {
    Work& work = *work_.emplace_back(new Work{.question = std::move(question), .id = ward.id});
    try {
        work.thread = start_thread([this, &work] {
            try {
                work.found = answer_slowly(controller_, work.id, work.question);
            } catch (const std::exception& e) {
                work.found.message = refusal_if_room(e);
            }
            work.done = true;
            controller_.stop();  // wakes the loop
        });
    } catch (...) {
        work_.pop_back();
        throw;
    }
    client.waits_for = &work;
    unwatch(client.socket.get());
}

std::vector<const Work*> Server::finished() const {
    std::vector<const Work*> all;
    for (const auto& work : work_) {
        if (work->done) all.push_back(work.get());
    }
    return all;
}

void Server::settle(const std::vector<const Work*>& finished) {
    for (const Work* const work : finished) {
        for (const auto& ward : wards_) {
            for (Client& client : ward->clients) {
                if (client.waits_for != work) continue;
                client.waits_for = nullptr;
                tell(client, work->found.message);
                try {
                    if (client.socket) watch(client.socket.get());
                } catch (const Error&) {
                    client.socket.reset();
                }
            }
            forget_closed(*ward);
        }
        // Nobody has asked any more, where the container has ended meanwhile.
        const auto is_it = [&](const auto& one) { return one.get() == work; };
        const auto found = std::find_if(work_.begin(), work_.end(), is_it);
        (*found)->thread.join();
        work_.erase(found);
    }
}

void Server::serve_group(const std::vector<int>& ready) {
    for (Client& client : group_clients_) {
        if (!has(ready, client.socket)) continue;
        try {
            while (client.socket && serve_start(client)) {
            }
        } catch (const std::exception& e) {
            if (client.socket) tell(client, refusal(e));
            client.socket.reset();
        }
    }
    caisson_helper::forget_closed(group_clients_);
    if (has(ready, group_listener_)) accept_clients(group_listener_, group_clients_);
}

bool Server::serve_start(Client& client) {
    constexpr std::size_t most_descriptors = 1024;
    Message message;
    Fd passed;
    switch (detail::take_message(client.socket.get(), message, &passed)) {
        case Taken::nothing_yet: return false;
        case Taken::closed: client.socket.reset(); return false;
        case Taken::message: break;
    }
    if (message.kind != Message::Kind::descriptor && message.kind != Message::Kind::start) {
        throw Error{Step::helper, EBADMSG, "message of caisson: it is no part of a start"};
    }
    require_passed(passed, "a start");
    if (message.kind == Message::Kind::descriptor) {
        if (client.descriptors.size() >= most_descriptors) throw Error{Step::helper, EMSGSIZE, "descriptors"};
        client.descriptors.push_back(std::move(passed));
        return true;
    }
    const std::string bytes = read_sealed(passed, "request");
    detail::require_wire_version(bytes);
    // Until it is the container's client, its hang-up is nobody's business.
    unwatch(client.socket.get());
    begin(detail::decode<detail::StartRequest>(bytes), client);
    return false;
}

void Server::accept_clients(const Fd& listener, std::vector<Client>& into) {
    for (;;) {
        if (!spare_) spare_ = epoll_.duplicate();
        Client client{.socket = accept_one(listener)};
        const bool is_full = !client.socket && (errno == EMFILE || errno == ENFILE);
        if (is_full) {
            // Left waiting, it would wake the loop again and again.
            spare_.reset();
            client.socket = accept_one(listener);
        }
        if (!client.socket) {
            if (is_full) give_time();
            return;
        }
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(client.socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
            (peer.uid != 0 && peer.uid != ::geteuid())) {
            continue;
        }
        try {
            if (is_full) throw Error{Step::helper, EMFILE, "helper", "it has no descriptor left"};
            if (into.size() >= most_clients) throw Error{Step::helper, EAGAIN, "helper", "it has too many clients"};
            watch(client.socket.get());
            into.push_back(std::move(client));
        } catch (const std::exception& e) {
            if (client.socket) tell(client, refusal(e));
        }
    }
}

void Server::watch(int fd) {
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &e) != 0) detail::fail(Step::event_loop, "watch a descriptor");
}

void Server::unwatch(int fd) noexcept {
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void Server::end(Ward& ward, ExitStatus status) {
    ward.directory->release();
    if (ward.listener) accept_clients(ward.listener, ward.clients);
    ward.listener.reset();
    Message message{.kind = Message::Kind::exited};
    message.body = detail::encode(detail::PlainStatus::of(status));
    for (Client& client : ward.clients) tell(client, ward.refusal ? *ward.refusal : message);
    ward.clients.clear();
}

}  // namespace caisson_helper
