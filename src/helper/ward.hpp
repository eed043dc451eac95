// helper/ward.hpp - a container in the helper's care, and what its clients are answered.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <caisson/controller.hpp>
#include <caisson/detail/equipment.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/process.hpp>

#include "run_directory.hpp"

namespace caisson_helper {

using namespace caisson;
using detail::Message;

struct Work;

struct Client {
    Fd socket;
    bool watches = false;  ///< it is told of what happens
    Process changes{};  ///< an init; whatever it attaches to that container, or detaches, it has not told the outcome
    /// What it was about to do then, with its netlink socket.
    std::optional<detail::Change> intended{};
    Fd netlink{};
    /// What it has passed on, for the start that it asks for next.
    std::vector<Fd> descriptors{};
    const Work* waits_for = nullptr;  ///< until that is done, nothing more is taken from it
};

/// A container, its place among the names, and who asks about it.
struct Ward {
    std::optional<RunDirectory> directory{};  ///< nothing while it waits for its name
    ContainerId id{};
    bool has_command_below = false;  ///< see Running
    bool restarts_on_reboot = false;
    bool can_start_again = true;
    ExitStatus last_status{};  ///< once it has ended
    bool released = false;     ///< it was preserved
    bool is_recorded = false;  ///< what its clients go by is of the container that runs
    detail::Info info{};
    Fd info_file{};
    Fd kept_note{};  ///< where the note is kept for who takes this process's place
    Fd listener{};
    std::vector<Client> clients{};
    std::optional<Message> refusal{};  ///< of its start, which it did not survive
};

/// What goes to who has asked.
struct Answer {
    Message message{.kind = Message::Kind::done};
    Fd passed{};  ///< goes along, if it is one
};

/// The request's numbers of descriptors become this process's. Throws where one is none.
void take_descriptors(ContainerSpec& spec, const std::vector<Fd>& passed);

/// A note in a file that another process reads back; false and `errno` on failure.
[[nodiscard]] bool keep_note(const Fd& file, const std::string& note);
/// Nothing where its writer has died half-way.
[[nodiscard]] std::optional<std::string> kept_note(const Fd& file);

/// A question whose answer may take the kernel some time.
[[nodiscard]] bool may_take_long(const Message& question) noexcept;
/// Its answer is worth nothing without the files of RunDirectory::record.
[[nodiscard]] bool goes_by_record(const Message& question) noexcept;
/// The answer to one that may take long: from any thread. Throws as `answer`.
[[nodiscard]] Answer answer_slowly(Controller& controller, ContainerId id, const Message& question);
/// One question's answer. Throws `Error`: the refusal that the client gets.
[[nodiscard]] Answer answer(Controller& controller, Ward& ward, Client& client, const Message& question,
                            const Fd& passed);

/// A descriptor belongs to the message, and the kernel drops what there is no room for. Throws with EMFILE where it
/// has.
inline void require_passed(const Fd& passed, const std::string& what) {
    if (!passed) throw Error{Step::helper, EMFILE, "helper: descriptor of " + what, "end others of its group"};
}

/// All of a file in memory that a client has passed on. Throws `Step::helper`: the message has no such `what`.
[[nodiscard]] std::string read_sealed(const Fd& file, const char* what);

[[nodiscard]] Message refusal(const std::exception& e);

/// Throws `Step::helper` where there can be none.
template <class Do>
[[nodiscard]] std::thread start_thread(Do&& act) {
    try {
        return std::thread{std::forward<Do>(act)};
    } catch (const std::system_error& e) {
        throw Error{Step::helper, e.code().value(), "helper: make a thread",
                    "raise 'ulimit -u' and the pids limit of its control group"};
    }
}

/// Who does not take what is sent is let go: nobody waits for a client.
void tell(Client& client, const Message& message, int pass = -1);

/// Who was about to attach or detach something has gone away.
void keep_intended(Controller& controller, const Ward& ward, Client& client) noexcept;

}  // namespace caisson_helper
