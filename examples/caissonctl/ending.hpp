// The verbs that end a domain, or have it start anew.
#pragma once

#include <array>

#include "arguments.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr std::array destroy_options{Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
                                            Option{"graceful", Option::Kind::flag, "terminate gracefully"}};
inline constexpr std::array shutdown_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"mode", Option::Kind::named, "shutdown mode: acpi|agent|initctl|signal|paravirt"}};

int destroy(const Session& session, const Arguments& arguments);
int reboot(const Session& session, const Arguments& arguments);
int shutdown(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
