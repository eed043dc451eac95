// helper/answers.cpp - the questions that a helper's clients may ask.
#include "ward.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <caisson/process.hpp>

namespace caisson_helper {
namespace {

/// False also where it cannot be told: nothing else about the container depends on it.
bool is_suspended(Controller& controller, const Ward& ward) {
    try {
        return controller.suspended(ward.id);
    } catch (const Error&) {
        return false;
    }
}

void set_note(Ward& ward, const Fd& file) {
    require_passed(file, "a note");
    detail::Info info = ward.info;
    info.note = read_sealed(file, "note");
    if (info.note.size() > detail::most_note) throw Error{Step::helper, EMSGSIZE, "note"};
    ward.info_file = detail::to_memory_file(detail::encode(info));
    if (ward.kept_note && !keep_note(ward.kept_note, info.note)) detail::fail(Step::helper, "note");
    ward.info = std::move(info);
}

bool release(Controller& controller, Ward& ward) {
    ward.released = true;
    return controller.release(ward.id);
}

bool ask(Controller& controller, const Ward& ward, const Message& question) {
    if (question.number < 0 || question.number > static_cast<std::int64_t>(ShutdownMode::by_caller)) {
        throw Error{Step::helper, EBADMSG, "message of caisson: its mode is none"};
    }
    const auto mode = static_cast<ShutdownMode>(question.number);
    if (question.kind == Message::Kind::shutdown) return controller.shutdown(ward.id, mode);
    if (ward.restarts_on_reboot && !ward.can_start_again) {
        throw Error{Step::helper, EPERM, "reboot",
                    "its helper has given up what a start takes: leave it CAP_SYS_BOOT, set on_crash to restart, or "
                    "start it again yourself"};
    }
    return controller.reboot(ward.id, mode);
}

std::size_t console_of(const Message& question) {
    return static_cast<std::size_t>(question.number);
}

Fd copy(int fd) {
    Fd made{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    if (!made) detail::fail(Step::helper, "descriptor of an answer");
    return made;
}

Process open_init(Controller& controller, const Ward& ward) {
    Process init = Process::open(controller.init_pid(ward.id));
    // It runs after the descriptor was opened: so its pid was nobody else's then.
    if (!controller.signal(ward.id, 0)) throw Error{Step::helper, ESRCH, "container", "it has ended"};
    return init;
}

Answer begin_change(Controller& controller, const Ward& ward, Client& client) {
    Answer answer;
    Process init = open_init(controller, ward);
    answer.passed = copy(init.pidfd());
    client.changes = std::move(init);
    return answer;
}

Fd copy_of(const Fd& fd) {
    return fd ? copy(fd.get()) : Fd{};
}

void note_change(Controller& controller, const Ward& ward, const Client& client, const detail::Change& change,
                 Fd netlink) {
    // If the container has been started again, it is another that was changed.
    if (client.changes.ended()) throw Error{Step::helper, ESRCH, "container", "it has ended"};
    controller.note(ward.id, change, std::move(netlink));
}

/// Throws where its netlink socket was dropped, without which nothing that is attached could be taken away again.
detail::Change change_of(const Message& question, const Fd& netlink) {
    detail::Change change = detail::decode<detail::Change>(question.body);
    if (change.kind == detail::Change::Kind::network && change.added) require_passed(netlink, "a change");
    return change;
}

void end_change(Controller& controller, const Ward& ward, Client& client, const Message& question, const Fd& passed) {
    if (!client.changes) {
        throw Error{Step::helper, EBADMSG, "message of caisson: it is no client that changes something"};
    }
    if (question.kind == Message::Kind::intent) {
        detail::Change change = change_of(question, passed);
        client.netlink = copy_of(passed);
        client.intended = std::move(change);
        return;
    }
    if (!question.body.empty()) {
        note_change(controller, ward, client, change_of(question, passed), copy_of(passed));
    }
    // Who is refused undoes it first.
    client.changes = Process{};
    client.intended.reset();
    client.netlink.reset();
}

}  // namespace

bool may_take_long(const Message& question) noexcept {
    using Kind = Message::Kind;
    return question.kind == Kind::suspend || question.kind == Kind::resume || question.kind == Kind::limit;
}

bool goes_by_record(const Message& question) noexcept {
    return question.kind == Message::Kind::process || question.kind == Message::Kind::equipment;
}

Answer answer_slowly(Controller& controller, ContainerId id, const Message& question) {
    if (question.kind == Message::Kind::suspend) controller.suspend(id);
    else if (question.kind == Message::Kind::resume) controller.resume(id);
    else controller.limit(id, detail::decode<LimitSpec>(question.body));
    return {};
}

Answer answer(Controller& controller, Ward& ward, Client& client, const Message& question, const Fd& passed) {
    Answer done;
    switch (question.kind) {
        case Message::Kind::info:
            done.message.number = is_suspended(controller, ward) ? 1 : 0;
            done.passed = copy(ward.info_file.get());
            return done;
        case Message::Kind::signal:
            if (question.number < 0 || question.number > 64) {
                throw Error{Step::signal, EINVAL, "signal " + std::to_string(question.number)};
            }
            done.message.number = controller.signal(ward.id, static_cast<int>(question.number)) ? 1 : 0;
            return done;
        case Message::Kind::stop:
            // Whoever ends what is preserved has looked at it.
            if (ward.info.preserved) done.message.number = release(controller, ward) ? 1 : 0;
            else done.message.number = controller.stop(ward.id, std::chrono::milliseconds{question.number}) ? 1 : 0;
            return done;
        case Message::Kind::kill:
            if (ward.info.preserved) done.message.number = release(controller, ward) ? 1 : 0;
            else done.message.number = controller.kill(ward.id) ? 1 : 0;
            return done;
        case Message::Kind::shutdown:
        case Message::Kind::reboot: done.message.number = ask(controller, ward, question) ? 1 : 0; return done;
        case Message::Kind::stuck:
            if (const auto stuck = controller.stuck(ward.id)) {
                done.message.body = detail::encode(detail::PlainError::of(*stuck));
            }
            return done;
        case Message::Kind::usage: {
            const auto parts = UsageParts::of_bits(static_cast<std::uint32_t>(question.number));
            done.message.body = detail::encode(controller.usage(ward.id, parts));
            return done;
        }
        case Message::Kind::resize:
            done.message.number = controller.resize(ward.id, question.size, console_of(question)) ? 1 : 0;
            return done;
        case Message::Kind::console: done.passed = controller.open_console(ward.id, console_of(question)); return done;
        case Message::Kind::viewer:
            done.passed = controller.attach_console(ward.id, detail::decode<ViewerOptions>(question.body));
            return done;
        case Message::Kind::detach: controller.detach_viewers(ward.id, console_of(question)); return done;
        case Message::Kind::console_state:
            done.message.body = detail::encode(controller.console_state(ward.id, console_of(question)));
            return done;
        case Message::Kind::process:
            done.message.number = is_suspended(controller, ward) ? 1 : 0;
            done.passed = copy(open_init(controller, ward).pidfd());
            return done;
        case Message::Kind::suspend:
        case Message::Kind::resume:
        case Message::Kind::limit: return answer_slowly(controller, ward.id, question);
        case Message::Kind::limits: done.message.body = detail::encode(controller.limits(ward.id)); return done;
        case Message::Kind::note: set_note(ward, passed); return done;
        case Message::Kind::pressure: {
            constexpr auto last = static_cast<std::int64_t>(MemoryPressure::critical);
            if (question.number < 0 || question.number > last) throw Error{Step::helper, EINVAL, "level of pressure"};
            controller.watch_pressure(ward.id, static_cast<MemoryPressure>(question.number));
            return done;
        }
        case Message::Kind::equipment: return begin_change(controller, ward, client);
        case Message::Kind::intent:
        case Message::Kind::change: end_change(controller, ward, client, question, passed); return done;
        case Message::Kind::watch: client.watches = true; return done;
        case Message::Kind::descriptor:
        case Message::Kind::start:
        case Message::Kind::done:
        case Message::Kind::refused:
        case Message::Kind::elsewhere:
        case Message::Kind::event:
        case Message::Kind::exited: break;
    }
    throw Error{Step::helper, EBADMSG, "message of caisson: its kind is not a question"};
}

void keep_intended(Controller& controller, const Ward& ward, Client& client) noexcept {
    try {
        if (client.intended) note_change(controller, ward, client, *client.intended, std::move(client.netlink));
    } catch (const std::exception&) {
        // It has ended, and all that was attached with it.
    }
}

bool keep_note(const Fd& file, const std::string& note) {
    const std::string bytes = detail::encode(note);
    return ::ftruncate(file.get(), 0) == 0 && (detail::sys::retry([&] {
                                                   return ::pwrite(file.get(), bytes.data(), bytes.size(), 0);
                                               }) == static_cast<ssize_t>(bytes.size()));
}

std::optional<std::string> kept_note(const Fd& file) {
    try {
        return detail::decode<std::string>(detail::read_memory_file(file.get()));
    } catch (const Error&) {
        return std::nullopt;
    }
}

std::string read_sealed(const Fd& file, const char* what) {
    // Of anything else than a file in memory, the reading might never end.
    constexpr int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    const int seals = ::fcntl(file.get(), F_GET_SEALS);
    if (seals < 0 || (seals & sealed) != sealed) {
        throw Error{Step::helper, EBADMSG, std::string{"message of caisson: it has no "} + what};
    }
    return detail::read_memory_file(file.get());
}

Message refusal(const std::exception& e) {
    const auto* const error = dynamic_cast<const Error*>(&e);
    Message message{.kind = Message::Kind::refused};
    const bool without_memory = dynamic_cast<const std::bad_alloc*>(&e) != nullptr;
    auto plain = detail::PlainError::of(
        error != nullptr ? *error
        : without_memory ? Error{Step::helper, ENOMEM, "helper", "end other programs, or raise the limits"}
                         : Error{Step::helper, 0, std::string{"helper: "} + e.what()});
    plain.context.resize(std::min<std::size_t>(plain.context.size(), 32768));
    message.body = detail::encode(plain);
    return message;
}

void tell(Client& client, const Message& message, int pass) {
    if (!detail::send_message(client.socket.get(), message, pass, MSG_DONTWAIT)) client.socket.reset();
}

}  // namespace caisson_helper
