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

#include "lock_down.hpp"
#include "plain_event.hpp"
#include "privileges.hpp"

namespace caisson_helper {
namespace {

using detail::Taken;

constexpr std::size_t most_clients = 512;

/// Who does not take what is sent is let go: nobody waits for a client.
void tell(Client& client, const Message& message, int pass = -1) {
    if (!detail::send_message(client.socket.get(), message, pass, MSG_DONTWAIT)) client.socket.reset();
}

bool has(const std::vector<int>& ready, const Fd& fd) {
    return fd && std::find(ready.begin(), ready.end(), fd.get()) != ready.end();
}

void forget_closed(std::vector<Client>& clients) {
    std::erase_if(clients, [](const Client& client) { return !client.socket; });
}

/// As if the helper had not raised its own.
void limit_descriptors(ContainerSpec& spec, const ResourceLimit& limit) {
    const auto is_given = [](const ResourceLimit& given) { return given.kind == ResourceLimit::Kind::nofile; };
    std::vector<ResourceLimit>& limits = spec.resource_limits;
    if (std::none_of(limits.begin(), limits.end(), is_given)) limits.push_back(limit);
}

}  // namespace

void take_descriptors(ContainerSpec& spec, const std::vector<Fd>& passed) {
    const auto take = [&](std::int32_t& fd) {
        if (fd < 0) return;
        const auto index = static_cast<std::size_t>(fd) - detail::helper_stdio;
        if (fd < detail::helper_stdio || index >= passed.size()) {
            throw Error{Step::helper, EBADMSG, "message of caisson: it names a descriptor that was not passed on"};
        }
        fd = passed[index].get();
    };
    for (std::int32_t* const fd : {&spec.stdio.in, &spec.stdio.out, &spec.stdio.err}) take(*fd);
    for (std::int32_t& fd : spec.descriptors) take(fd);
}

Server::Server(const detail::StartRequest& request)
    : run_directory_{request.run_directory}, epoll_{::epoll_create1(EPOLL_CLOEXEC)} {
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
}

bool Server::is_idle() const {
    return wards_.empty() && starting_.empty() && !controller_.has_unread_console();
}

void Server::run() {
    while (!is_idle()) turn(-1);
    if (!group_) return;
    // Who has come to the group before its end is served; who comes later finds nobody, and starts the next helper.
    turn(0);
    if (!is_idle()) return run();
    group_->release();
}

void Server::turn(int milliseconds) {
    pollfd p[]{{controller_.fd(), POLLIN, 0}, {epoll_.get(), POLLIN, 0}};
    if (::poll(p, 2, milliseconds) < 0 && errno != EINTR) detail::fail(Step::event_loop, "wait for events");
    while (const auto event = controller_.next()) handle(*event);
    settle_failures();
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

Server::Starting& Server::prepare(detail::StartRequest request, Client& client) {
    auto made = std::make_unique<Starting>();
    take_descriptors(request.spec, client.descriptors);
    made->ward = std::make_unique<Ward>(Ward{RunDirectory::acquire(run_directory_, request.spec.name)});
    made->ward->directory.record();
    made->ward->has_command_below = request.spec.init;
    made->ward->restarts_on_reboot = request.spec.on_reboot == EndAction::restart;
    made->ward->can_start_again = group_ || request.spec.may_restart();
    made->ward->info = {.name = request.spec.name, .note = std::move(request.note)};
    made->opens_console = request.open_console && request.spec.console;
    made->spec = std::move(request.spec);
    if (descriptor_limit_) limit_descriptors(made->spec, *descriptor_limit_);
    made->borrowed = std::move(client.descriptors);
    made->client = std::move(client);
    return *starting_.emplace_back(std::move(made));
}

void Server::start_first(detail::StartRequest request, Client& client) {
    Starting& starting = prepare(std::move(request), client);
    (void)controller_.start(starting.spec);
    starting.borrowed.clear();
}

void Server::take_over(const detail::StartRequest& request, RunDirectory place, Container container, Fd note,
                       Client& first) {
    wards_.push_back(std::make_unique<Ward>(Ward{std::move(place)}));
    Ward& ward = *wards_.back();
    ward.has_command_below = request.spec.init;
    ward.restarts_on_reboot = request.spec.on_reboot == EndAction::restart;
    ward.can_start_again = false;
    ward.info = {.name = request.spec.name, .note = request.note};
    ward.kept_note = std::move(note);
    ward.id = controller_.adopt(std::move(container), ConsoleUse::relay, request.spec);
    if (first.socket) return introduce(ward, request.spec, first, request.open_console && request.spec.console);
    make_known(ward, request.spec);
}

void Server::begin(detail::StartRequest request, Client& client) {
    Starting& starting = prepare(std::move(request), client);
    // The others' consoles go on meanwhile.
    const auto fail = [this, &starting] {
        starting.failed = true;
        controller_.stop();  // wakes the loop
    };
    try {
        starting.thread = std::thread{[this, &starting, fail] {
            try {
                (void)controller_.start(starting.spec);
            } catch (const std::exception&) {
                fail();
            }
        }};
    } catch (const std::exception&) {
        // No thread is to be had: that start fails, and the others' containers go on.
        fail();
    }
}

std::unique_ptr<Server::Starting> Server::take_starting(const std::string& name) {
    const auto found = std::find_if(starting_.begin(), starting_.end(),
                                    [&](const auto& starting) { return starting->ward->info.name == name; });
    if (found == starting_.end()) return nullptr;
    auto taken = std::move(*found);
    starting_.erase(found);
    if (taken->thread.joinable()) taken->thread.join();
    return taken;
}

void Server::settle_failures() {
    for (std::size_t i = 0; i < starting_.size();) {
        if (!starting_[i]->failed) {
            ++i;
            continue;
        }
        const auto taken = take_starting(starting_[i]->ward->info.name);
        taken->ward->directory.release();
        tell(taken->client, refusal({Step::helper, EAGAIN, "start the container"}));
    }
}

void Server::settle(std::unique_ptr<Starting> starting, const Event& event) {
    Ward& ward = *starting->ward;
    Client& client = starting->client;
    if (event.error) {
        ward.directory.release();
        return tell(client, refusal(*event.error));
    }
    ward.id = event.id;
    // From here on it has a place, from which its end will take it.
    wards_.push_back(std::move(starting->ward));
    introduce(ward, starting->spec, client, starting->opens_console);
}

void Server::introduce(Ward& ward, const ContainerSpec& spec, Client& client, bool opens_console) {
    try {
        make_known(ward, spec);
        const Fd console = opens_console ? controller_.open_console(ward.id) : Fd{};
        tell(client, {.kind = Message::Kind::done}, console ? console.get() : -1);
        if (!client.socket) return;
        watch(client.socket.get());
        ward.clients.push_back(std::move(client));
    } catch (const Error& e) {
        // It is told once nothing is left of the container.
        ward.refusal = refusal(e);
        ward.clients.push_back(std::move(client));
        (void)controller_.kill(ward.id);
    }
}

void Server::make_known(Ward& ward, const ContainerSpec& spec) {
    ward.info.init = controller_.init_pid(ward.id);
    ward.info.console_path = controller_.console_path(ward.id);
    for (std::size_t i = 1; !ward.info.console_path.empty(); ++i) {
        std::string path = controller_.console_path(ward.id, i);
        if (path.empty()) break;
        ward.info.more_console_paths.push_back(std::move(path));
    }
    ward.info_file = detail::to_memory_file(detail::encode(ward.info));
    ward.directory.record(ward.info.init);
    ward.listener = ward.directory.listen();
    watch(ward.listener.get());
    count_cpus(ward);
    // Whoever may have to start one more keeps what that takes.
    if (ward.can_start_again || std::exchange(is_lowered_, true)) return;
    lower_privileges();
    lock_down(ward.directory, spec);
}

void Server::count_cpus(const Ward& ward) {
    try {
        (void)controller_.usage(ward.id, UsagePart::cpu);
    } catch (const Error&) {
        // It has no groups, or has ended already.
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
    if (!is_over && (event.preserved || event.kind == Event::Kind::started)) renew(ward, event);
    if (event.kind == Event::Kind::exited && is_over) {
        end(ward, ward.last_status);
        wards_.erase(found);
        return;
    }
    tell_watchers(ward, event);
    forget_closed(ward.clients);
    if (!is_over) return;
    // A restart has failed: the end that it was to follow is the last one.
    end(ward, ward.last_status);
    wards_.erase(found);
}

void Server::tell_watchers(Ward& ward, const Event& event) {
    const Message message{.kind = Message::Kind::event, .body = detail::encode(detail::PlainEvent::of(event))};
    for (Client& client : ward.clients) {
        if (client.watches) tell(client, message);
    }
}

void Server::renew(Ward& ward, const Event& event) {
    try {
        if (event.preserved) ward.info.preserved = detail::PlainStatus::of(*event.status);
        else ward.info.init = controller_.init_pid(ward.id);
        ward.info_file = detail::to_memory_file(detail::encode(ward.info));
        if (!event.preserved) ward.directory.record(ward.info.init);
    } catch (const Error&) {
        // It has ended already, or no file can be made: what is told is then what was.
    }
}

void Server::serve_ward(Ward& ward, const std::vector<int>& ready) {
    for (Client& client : ward.clients) {
        if (has(ready, client.socket)) serve(ward, client);
    }
    forget_closed(ward.clients);
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
    } catch (const Error& e) {
        tell(client, refusal(e));
        client.socket.reset();
        return;
    }
    try {
        const Answer found = answer(controller_, ward, client, question, passed);
        tell(client, found.message, found.passed.get());
        if (question.kind == Message::Kind::note) tell_watchers(ward, {.kind = Event::Kind::noted});
    } catch (const Error& e) {
        if (client.socket) tell(client, refusal(e));
    } catch (const std::exception& e) {
        if (client.socket) tell(client, refusal({Step::helper, ENOMEM, std::string{"helper: "} + e.what()}));
    }
}

void Server::serve_group(const std::vector<int>& ready) {
    for (Client& client : group_clients_) {
        if (!has(ready, client.socket)) continue;
        try {
            while (client.socket && serve_start(client)) {
            }
        } catch (const Error& e) {
            if (client.socket) tell(client, refusal(e));
            client.socket.reset();
        } catch (const std::exception& e) {
            if (client.socket) tell(client, refusal({Step::helper, ENOMEM, std::string{"helper: "} + e.what()}));
            client.socket.reset();
        }
    }
    forget_closed(group_clients_);
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
    if (!passed || (message.kind != Message::Kind::descriptor && message.kind != Message::Kind::start)) {
        throw Error{Step::helper, EBADMSG, "message of caisson: it is no part of a start"};
    }
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
        Client client{.socket = Fd{detail::sys::retry(
                          [&] { return ::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); })}};
        if (!client.socket) return;
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(client.socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
            (peer.uid != 0 && peer.uid != ::geteuid())) {
            continue;
        }
        if (into.size() >= most_clients) {
            tell(client, refusal({Step::helper, EAGAIN, "helper", "it has too many clients"}));
            continue;
        }
        watch(client.socket.get());
        into.push_back(std::move(client));
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
    ward.directory.release();
    if (ward.listener) accept_clients(ward.listener, ward.clients);
    ward.listener.reset();
    Message message{.kind = Message::Kind::exited};
    message.body = detail::encode(detail::PlainStatus::of(status));
    for (Client& client : ward.clients) tell(client, ward.refusal ? *ward.refusal : message);
    ward.clients.clear();
}

}  // namespace caisson_helper
