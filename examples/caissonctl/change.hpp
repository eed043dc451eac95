// Changes of a domain's documents: the definition, that of the running domain, or both.
#pragma once

#include <functional>
#include <string>

#include <caisson/helper.hpp>
#include <caisson/xml.hpp>

#include "arguments.hpp"
#include "domains.hpp"
#include "verbs.hpp"

namespace caissonctl {

/// Which of a domain's two states a verb is about; neither: as it is at this moment.
struct Affected {
    bool live = false;
    bool config = false;
};

/// What --live, --config and --current say. Throws `Failure`.
[[nodiscard]] Affected affected(const Arguments& arguments);
/// One or both. Throws `Failure` for a state that the domain does not have.
[[nodiscard]] Affected resolve(Affected wanted, const Entry& entry);
/// The one of the two that is to be looked at: true for the running domain. Throws `Failure`.
[[nodiscard]] bool looks_at_running(Affected wanted, const Entry& entry);

/// Changes a document, that of the running domain if `live`.
using Change = std::function<void(caisson::xml::Domain& domain, bool live)>;
/// Puts what was changed of the running domain in force.
using Enforce = std::function<void(caisson::Helper& helper)>;

/// Changes the documents of the domain called `name`, under the store's lock: all or none, unless the machine stops in
/// between.
void change_documents(const Session& session, const std::string& name, Affected wanted, const Change& change,
                      const Enforce& enforce = {});

inline constexpr Option to_config{"config", Option::Kind::flag, "affect next boot"};
inline constexpr Option to_live{"live", Option::Kind::flag, "affect running domain"};
inline constexpr Option to_current{"current", Option::Kind::flag, "affect current domain"};

}  // namespace caissonctl
