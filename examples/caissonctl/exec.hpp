// Commands and files in a domain that runs.
#pragma once

#include <array>

#include "arguments.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr std::array exec_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"tty", Option::Kind::flag, "a terminal of the domain's own, which is the default on a terminal", "string",
           't'},
    Option{"no-tty", Option::Kind::flag, "no terminal, also on a terminal", "string", 'T'},
    Option{"interactive", Option::Kind::flag, "standard input is passed on, which is the default", "string", 'i'},
    Option{"user", Option::Kind::named, "user and group of the domain, by name or number", "USER[:GROUP]", 'u'},
    Option{"env", Option::Kind::repeated, "a variable", "NAME=VALUE", 'e'},
    Option{"workdir", Option::Kind::named, "the working directory", "path", 'w'},
    Option{"command", Option::Kind::several, "the command, by its path in the domain, and its arguments", ""}};
/// Ends the program as the command ends.
[[nodiscard]] int exec(const Session& session, const Arguments& arguments);

inline constexpr std::array enter_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"noseclabel", Option::Kind::flag, "Do not change process security label"},
    Option{"cmd", Option::Kind::several, "command to run", ""}};
/// As virsh does it: root with every capability that the domain can give, without filter and terminal.
[[nodiscard]] int enter_namespace(const Session& session, const Arguments& arguments);

inline constexpr std::array copy_options{
    Option{"source", Option::Kind::positional, "what is copied: a path, or DOMAIN:PATH"},
    Option{"target", Option::Kind::positional, "where to: a path, or DOMAIN:PATH"}};
/// One of the two is in a domain.
[[nodiscard]] int copy(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
