// The verb that tells what happens to domains.
#pragma once

#include <array>

#include "arguments.hpp"
#include "verbs.hpp"

namespace caissonctl {

inline constexpr std::array event_options{
    Option{"domain", Option::Kind::optional, "filter by domain name, id or uuid"},
    Option{"event", Option::Kind::named, "which event type to wait for"},
    Option{"all", Option::Kind::flag, "wait for all events instead of just one type"},
    Option{"loop", Option::Kind::flag, "loop until timeout or interrupt, rather than one-shot"},
    Option{"timeout", Option::Kind::named, "timeout seconds", "number"},
    Option{"list", Option::Kind::flag, "list valid event types"},
    Option{"timestamp", Option::Kind::flag, "show timestamp for each printed event"}};

int event(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
