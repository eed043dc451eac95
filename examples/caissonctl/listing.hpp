// The verbs that tell which domains there are, and what they are called.
#pragma once

#include <array>

#include "arguments.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr std::array list_options{
    Option{"inactive", Option::Kind::flag, "list inactive domains"},
    Option{"all", Option::Kind::flag, "list inactive & active domains"},
    Option{"transient", Option::Kind::flag, "list transient domains"},
    Option{"persistent", Option::Kind::flag, "list persistent domains"},
    Option{"state-running", Option::Kind::flag, "list domains in running state"},
    Option{"state-paused", Option::Kind::flag, "list domains in paused state"},
    Option{"state-shutoff", Option::Kind::flag, "list domains in shutoff state"},
    Option{"state-other", Option::Kind::flag, "list domains in other states"},
    Option{"autostart", Option::Kind::flag, "list domains with autostart enabled"},
    Option{"no-autostart", Option::Kind::flag, "list domains with autostart disabled"},
    Option{"uuid", Option::Kind::flag, "list uuid's only"},
    Option{"name", Option::Kind::flag, "list domain names only"},
    Option{"id", Option::Kind::flag, "list domain IDs only"},
    Option{"table", Option::Kind::flag, "list table (default)"},
    Option{"title", Option::Kind::flag, "show domain title"}};

inline constexpr std::array state_options{Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
                                          Option{"reason", Option::Kind::flag, "also print reason for the state"}};
inline constexpr std::array id_options{Option{"domain", Option::Kind::positional, "domain name or uuid"}};
inline constexpr std::array name_options{Option{"domain", Option::Kind::positional, "domain id or uuid"}};
inline constexpr std::array uuid_options{Option{"domain", Option::Kind::positional, "domain id or name"}};

int list(const Session& session, const Arguments& arguments);
int dominfo(const Session& session, const Arguments& arguments);
int domstate(const Session& session, const Arguments& arguments);
int domid(const Session& session, const Arguments& arguments);
int domname(const Session& session, const Arguments& arguments);
int domuuid(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
