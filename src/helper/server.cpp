// helper/server.cpp - the helper's loop: containers, their consoles and their clients.
#include "server.hpp"

#include <cerrno>
#include <cstddef>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "privileges.hpp"

namespace caisson_helper {
namespace {

using detail::Taken;

constexpr std::size_t most_clients = 512;

/// Who does not take what is sent is let go: nobody waits for a client.
void tell(Fd& client, const Message& message, int pass = -1) {
    if (!detail::send_message(client.get(), message, pass, MSG_DONTWAIT)) client.reset();
}

/// What the start has borrowed.
void close_borrowed(const ContainerSpec& spec) {
    std::vector<int> borrowed = spec.descriptors;
    for (const int fd : {spec.stdio.in, spec.stdio.out, spec.stdio.err}) borrowed.push_back(fd);
    for (const int fd : borrowed) {
        if (fd >= detail::helper_stdio) (void)::close(fd);
    }
}

}  // namespace

Server::Server(detail::StartRequest request, Fd first)
    : ward_{.directory = RunDirectory::acquire(request.run_directory, request.spec.name)} {
    start(request.spec);
    ward_.info.note = std::move(request.note);
    ward_.info_file = detail::to_memory_file(detail::encode(ward_.info));
    ward_.listener = ward_.directory.listen();
    count_cpus();
    lower_privileges();
    const bool gives_console = request.open_console && request.spec.console;
    const Fd console = gives_console ? controller_.open_console(ward_.id) : Fd{};
    ward_.clients.push_back(std::move(first));
    tell(ward_.clients.front(), {.kind = Message::Kind::done}, console ? console.get() : -1);
}

void Server::start(const ContainerSpec& spec) {
    ward_.id = controller_.start(spec);
    ward_.has_command_below = spec.init;
    auto event = controller_.next();
    if (!event) throw Error{Step::helper, EPROTO, "start the container"};
    if (event->error) throw *event->error;
    close_borrowed(spec);
    ward_.info.name = spec.name;
    ward_.info.init = controller_.init_pid(ward_.id);
    ward_.info.console_path = controller_.console_path(ward_.id);
}

void Server::count_cpus() {
    try {
        (void)controller_.usage(ward_.id, UsagePart::cpu);
    } catch (const Error&) {
        // It has no groups, or has ended already.
    }
}

void Server::run() {
    while (!status_ || controller_.has_unread_console()) {
        std::vector<pollfd> p{{controller_.fd(), POLLIN, 0}, {ward_.listener.get(), POLLIN, 0}};
        for (const Fd& client : ward_.clients) p.push_back({client.get(), POLLIN, 0});
        if (::poll(p.data(), p.size(), -1) < 0 && errno != EINTR) detail::fail(Step::event_loop, "wait for events");
        while (auto event = controller_.next()) {
            if (event->kind == Event::Kind::exited) end(*event->status);
        }
        if (status_) continue;
        for (std::size_t i = 0; i + 2 < p.size(); ++i) {
            if (p[i + 2].revents != 0) serve(ward_.clients[i]);
        }
        std::erase_if(ward_.clients, [](const Fd& client) { return !client; });
        if (p[1].revents != 0) accept_clients();
    }
}

void Server::accept_clients() {
    for (;;) {
        Fd client{detail::sys::retry(
            [&] { return ::accept4(ward_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); })};
        if (!client) return;
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
            (peer.uid != 0 && peer.uid != ::geteuid())) {
            continue;
        }
        if (ward_.clients.size() >= most_clients) {
            tell(client, refusal({Step::helper, EAGAIN, "helper", "it has too many clients"}));
            continue;
        }
        ward_.clients.push_back(std::move(client));
    }
}

void Server::serve(Fd& client) {
    Message question;
    Fd passed;
    try {
        switch (detail::take_message(client.get(), question, &passed)) {
            case Taken::nothing_yet: return;
            case Taken::closed: client.reset(); return;
            case Taken::message: break;
        }
    } catch (const Error& e) {
        tell(client, refusal(e));
        client.reset();
        return;
    }
    try {
        const Answer found = answer(controller_, ward_, question, passed);
        tell(client, found.message, found.passed.get());
    } catch (const Error& e) {
        if (client) tell(client, refusal(e));
    }
}

void Server::end(ExitStatus status) {
    status_ = status;
    ward_.directory.release();
    accept_clients();
    ward_.listener.reset();
    Message message{.kind = Message::Kind::exited};
    message.body = detail::encode(detail::PlainStatus::of(status));
    for (Fd& client : ward_.clients) tell(client, message);
    ward_.clients.clear();
}

}  // namespace caisson_helper
