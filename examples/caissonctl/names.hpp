// The verbs that change what a definition is called, what is said about it and whether it is there.
#pragma once

#include <array>

#include "arguments.hpp"
#include "change.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr std::array autostart_options{Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
                                              Option{"disable", Option::Kind::flag, "disable autostarting"}};
inline constexpr Option of_live{"live", Option::Kind::flag, "modify/get running state"};
inline constexpr Option of_config{"config", Option::Kind::flag, "modify/get persistent configuration"};
inline constexpr Option of_current{"current", Option::Kind::flag, "modify/get current state configuration"};
inline constexpr std::array desc_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    of_live,
    of_config,
    of_current,
    Option{"title", Option::Kind::flag, "modify/get the title instead of description"},
    Option{"new-desc", Option::Kind::several, "message"}};
inline constexpr std::array metadata_options{
    Option{"domain", Option::Kind::positional, "domain name, id or uuid"},
    Option{"uri", Option::Kind::positional, "URI of the namespace"},
    of_live,
    of_config,
    of_current,
    Option{"key", Option::Kind::named, "key to be used as a namespace identifier"},
    Option{"set", Option::Kind::named, "new metadata to set"},
    Option{"remove", Option::Kind::flag, "remove the metadata corresponding to an uri"}};
inline constexpr std::array rename_options{Option{"domain", Option::Kind::positional, "domain name or uuid"},
                                           Option{"new-name", Option::Kind::positional, "new domain name"}};

int autostart(const Session& session, const Arguments& arguments);
int autostart_all(const Session& session, const Arguments& arguments);
int desc(const Session& session, const Arguments& arguments);
int domrename(const Session& session, const Arguments& arguments);
int metadata(const Session& session, const Arguments& arguments);
int undefine(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
