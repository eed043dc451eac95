// The verbs that change what a definition is called, what is said about it and whether it is there.
#pragma once

#include "arguments.hpp"
#include "verbs.hpp"

namespace caissonctl {

int undefine(const Session& session, const Arguments& arguments);

}  // namespace caissonctl
