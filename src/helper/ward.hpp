// helper/ward.hpp - a container in the helper's care, and what its clients are answered.
#pragma once

#include <vector>

#include <caisson/controller.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

#include "run_directory.hpp"

namespace caisson_helper {

using namespace caisson;
using detail::Message;

/// A container, its place among the names, and who asks about it.
struct Ward {
    RunDirectory directory;
    ContainerId id{};
    bool has_command_below = false;  // see Running
    detail::Info info{};
    Fd info_file{};
    Fd listener{};
    std::vector<Fd> clients{};
};

/// What goes to who has asked.
struct Answer {
    Message message{.kind = Message::Kind::done};
    Fd passed{};  ///< goes along, if it is one
};

/// One question's answer. Throws `Error`: the refusal that the client gets.
[[nodiscard]] Answer answer(Controller& controller, Ward& ward, const Message& question, const Fd& passed);

[[nodiscard]] Message refusal(const Error& e);

}  // namespace caisson_helper
