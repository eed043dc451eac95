// src/helper_main.cpp - caisson-helper: one container, its console and its clients in one loop. Started by
// caisson::Helper::start, which gives it a socket and a request; see helper.hpp for what is promised.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/controller.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/error.hpp>

#include "run_directory.hpp"

namespace caisson_helper {
namespace {

using detail::Message;
using detail::Taken;

constexpr std::size_t most_clients = 512;

/// A process like any other: signals as by default, a session of its own, no directory held.
void become_independent() {
    for (int number = 1; number < NSIG; ++number) (void)::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::setsid();
    if (::chdir("/") != 0) detail::fail(Step::helper, "working directory '/'");
    (void)::prctl(PR_SET_NAME, "caisson-helper");
    // Only what the container's start names goes on to it.
    (void)::close_range(detail::helper_socket, ~0U, CLOSE_RANGE_CLOEXEC);
}

/// Keeps what signalling the container and removing its control groups takes.
void lower_privileges() {
    constexpr __u32 kept = 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE;
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
        if (capability >= 32 || (kept >> capability & 1) == 0) (void)::prctl(PR_CAPBSET_DROP, capability);
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &header, data) != 0) detail::fail(Step::credentials, "capabilities of the helper");
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[0].inheritable = 0;
    data[1] = {};
    if (::syscall(SYS_capset, &header, data) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        detail::fail(Step::credentials, "capabilities of the helper");
    }
}

Message refusal(const Error& e) {
    Message message{.kind = Message::Kind::refused};
    auto plain = detail::PlainError::of(e);
    plain.context.resize(std::min<std::size_t>(plain.context.size(), 32768));
    message.body = detail::encode(plain);
    return message;
}

class Server {
public:
    Server(detail::StartRequest request, Fd first)
        : directory_{RunDirectory::acquire(request.run_directory, request.spec.name)} {
        id_ = controller_.start(request.spec);
        has_command_below_ = request.spec.init;
        auto event = controller_.next();
        if (!event) throw Error{Step::helper, EPROTO, "start the container"};
        if (event->error) throw *event->error;
        std::vector<int> borrowed = request.spec.descriptors;
        for (const int fd : {request.spec.stdio.in, request.spec.stdio.out, request.spec.stdio.err}) {
            borrowed.push_back(fd);
        }
        for (const int fd : borrowed) {
            if (fd >= detail::helper_stdio) (void)::close(fd);
        }
        info_ = {.name = request.spec.name,
                 .init = controller_.init_pid(id_),
                 .console_path = controller_.console_path(id_),
                 .note = std::move(request.note)};
        info_file_ = detail::to_memory_file(detail::encode(info_));
        listener_ = directory_.listen();
        count_cpus();
        lower_privileges();
        clients_.push_back(std::move(first));
        const bool gives_console = request.open_console && request.spec.console;
        const Fd console = gives_console ? controller_.open_console(id_) : Fd{};
        tell(clients_.front(), {.kind = Message::Kind::done}, console ? console.get() : -1);
    }

    void run() {
        while (!status_ || controller_.has_unread_console()) {
            std::vector<pollfd> p{{controller_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
            for (const Fd& client : clients_) p.push_back({client.get(), POLLIN, 0});
            if (::poll(p.data(), p.size(), -1) < 0 && errno != EINTR) detail::fail(Step::event_loop, "wait for events");
            while (auto event = controller_.next()) {
                if (event->kind == Event::Kind::exited) end(*event->status);
            }
            if (status_) continue;
            for (std::size_t i = 0; i + 2 < p.size(); ++i) {
                if (p[i + 2].revents != 0) serve(clients_[i]);
            }
            std::erase_if(clients_, [](const Fd& client) { return !client; });
            if (p[1].revents != 0) accept_clients();
        }
    }

private:
    /// What takes privileges that are given up next. Where the kernel refuses, each answer says so.
    void count_cpus() {
        try {
            (void)controller_.usage(id_, UsagePart::cpu);
        } catch (const Error&) {
            // It has no groups, or has ended already.
        }
    }
    /// Who does not take what is sent is let go: nobody waits for a client.
    static void tell(Fd& client, const Message& message, int pass = -1) {
        if (!detail::send_message(client.get(), message, pass, MSG_DONTWAIT)) client.reset();
    }
    void accept_clients() {
        for (;;) {
            Fd client{detail::sys::retry(
                [&] { return ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); })};
            if (!client) return;
            ucred peer{};
            socklen_t size = sizeof peer;
            if (::getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
                (peer.uid != 0 && peer.uid != ::geteuid())) {
                continue;
            }
            if (clients_.size() >= most_clients) {
                tell(client, refusal({Step::helper, EAGAIN, "helper", "it has too many clients"}));
                continue;
            }
            clients_.push_back(std::move(client));
        }
    }
    /// One question.
    void serve(Fd& client) {
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
            answer(client, question, passed);
        } catch (const Error& e) {
            if (client) tell(client, refusal(e));
        }
    }
    void set_note(const Fd& file) {
        // Of anything else than a file in memory, the reading might never end.
        constexpr int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
        const int seals = ::fcntl(file.get(), F_GET_SEALS);
        if (seals < 0 || (seals & sealed) != sealed) {
            throw Error{Step::helper, EBADMSG, "message of caisson: it has no note"};
        }
        detail::Info info = info_;
        info.note = detail::read_memory_file(file.get());
        if (info.note.size() > detail::most_note) throw Error{Step::helper, EMSGSIZE, "note"};
        info_file_ = detail::to_memory_file(detail::encode(info));
        info_ = std::move(info);
    }
    void answer(Fd& client, const Message& question, const Fd& passed) {
        Message done{.kind = Message::Kind::done};
        switch (question.kind) {
            case Message::Kind::info: done.number = is_suspended() ? 1 : 0; return tell(client, done, info_file_.get());
            case Message::Kind::signal:
                if (question.number < 0 || question.number > 64) {
                    throw Error{Step::signal, EINVAL, "signal " + std::to_string(question.number)};
                }
                done.number = controller_.signal(id_, static_cast<int>(question.number)) ? 1 : 0;
                return tell(client, done);
            case Message::Kind::stop:
                done.number = controller_.stop(id_, std::chrono::milliseconds{question.number}) ? 1 : 0;
                return tell(client, done);
            case Message::Kind::kill: done.number = controller_.signal(id_, SIGKILL) ? 1 : 0; return tell(client, done);
            case Message::Kind::usage: {
                const auto parts = UsageParts::of_bits(static_cast<std::uint32_t>(question.number));
                done.body = detail::encode(controller_.usage(id_, parts));
                return tell(client, done);
            }
            case Message::Kind::resize:
                done.number = controller_.resize(id_, question.size) ? 1 : 0;
                return tell(client, done);
            case Message::Kind::console: {
                const Fd console = controller_.open_console(id_);
                return tell(client, done, console.get());
            }
            case Message::Kind::process: {
                const Process init = Process::open(controller_.init_pid(id_));
                // It runs after the descriptor was opened: so its pid was nobody else's then.
                if (!controller_.signal(id_, 0)) throw Error{Step::helper, ESRCH, "container", "it has ended"};
                done.number = has_command_below_ ? 1 : 0;
                return tell(client, done, init.pidfd());
            }
            case Message::Kind::suspend: controller_.suspend(id_); return tell(client, done);
            case Message::Kind::resume: controller_.resume(id_); return tell(client, done);
            case Message::Kind::limit:
                controller_.limit(id_, detail::decode<LimitSpec>(question.body));
                return tell(client, done);
            case Message::Kind::limits: done.body = detail::encode(controller_.limits(id_)); return tell(client, done);
            case Message::Kind::note: set_note(passed); return tell(client, done);
            case Message::Kind::done:
            case Message::Kind::refused:
            case Message::Kind::exited: break;
        }
        throw Error{Step::helper, EBADMSG, "message of caisson: its kind is not a question"};
    }
    /// False also where it cannot be told: nothing else about the container depends on it.
    bool is_suspended() {
        try {
            return controller_.suspended(id_);
        } catch (const Error&) {
            return false;
        }
    }
    /// First the name is free, then everybody is told: who waits for the end may start the next one at once.
    void end(ExitStatus status) {
        status_ = status;
        directory_.release();
        accept_clients();
        listener_.reset();
        Message message{.kind = Message::Kind::exited};
        message.body = detail::encode(detail::PlainStatus::of(status));
        for (Fd& client : clients_) tell(client, message);
        clients_.clear();
    }

    RunDirectory directory_;
    Controller controller_;  // destroyed first: no container outlives the lock
    ContainerId id_{};
    bool has_command_below_ = false;  // see Running
    detail::Info info_;
    Fd info_file_;
    Fd listener_;
    std::vector<Fd> clients_;
    std::optional<ExitStatus> status_;
};

}  // namespace
}  // namespace caisson_helper

int main(int argc, char**) {
    using namespace caisson_helper;
    struct stat st {};
    if (argc != 2 || ::fstat(detail::helper_socket, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        std::fputs("caisson-helper is started by programs that use libcaisson (caisson::Helper), not by hand.\n",
                   stderr);
        return 2;
    }
    Fd first{detail::helper_socket};
    const int answer_to = first.get();
    Message answer;
    try {
        become_independent();
        const Fd file{detail::helper_request};
        const std::string bytes = detail::read_memory_file(file.get());
        detail::require_wire_version(bytes);
        // A copy: the start's own refusal must find it open.
        Fd client{::fcntl(answer_to, F_DUPFD_CLOEXEC, 3)};
        Server server{detail::decode<detail::StartRequest>(bytes), std::move(client)};
        first.reset();
        server.run();
        return 0;
    } catch (const Error& e) {
        answer = refusal(e);
    } catch (const std::exception& e) {
        answer = refusal({Step::helper, 0, std::string{"helper: "} + e.what()});
    }
    if (first) (void)detail::send_message(first.get(), answer);
    return 1;
}
