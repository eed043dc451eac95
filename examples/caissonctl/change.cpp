#include "change.hpp"

#include "failure.hpp"

namespace caissonctl {

namespace xml = caisson::xml;
using caisson::Helper;

Affected affected(const Arguments& arguments) {
    for (const char* const other : {"live", "config"}) {
        if (arguments.has("current") && arguments.has(other)) {
            throw Failure{std::string{"Options --current and --"} + other + " are mutually exclusive"};
        }
    }
    return {arguments.has("live"), arguments.has("config")};
}

Affected resolve(Affected wanted, const Entry& entry) {
    const std::string outer = "Requested operation is not valid: ";
    const bool running = entry.running.has_value();
    if (!wanted.live && !wanted.config) wanted = {running, !running};
    if (wanted.live && !running) throw Failure{outer + "domain is not running"};
    if (wanted.config && !entry.persistent) {
        throw Failure{outer + "transient domains do not have any persistent config"};
    }
    return wanted;
}

bool looks_at_running(Affected wanted, const Entry& entry) {
    if (wanted.live && wanted.config) {
        throw Failure{"Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"};
    }
    return resolve(wanted, entry).live;
}

void change_documents(const Session& session, const std::string& name, Affected wanted, const Change& change,
                      const Enforce& enforce) {
    const Store::Lock lock = session.domains.store().lock();
    auto entry = session.domains.by_name(name);
    if (!entry) throw Failure{"failed to get domain " + quoted(name)};
    const auto info = entry->ask(&Helper::info);
    const Affected at = resolve(wanted, *entry);
    std::string live;
    std::string config;
    std::string config_before;
    if (at.live) {
        xml::Domain domain = xml::parse(info->note, name);
        change(domain, true);
        live = xml::dump(domain);
    }
    if (at.config) {
        xml::Domain domain = session.domains.defined(name);
        config_before = xml::dump(domain);
        change(domain, false);
        config = xml::dump(domain);
    }
    // By here both documents are known to be possible, and nothing is changed yet. A disk that is full is found before
    // anything is in force.
    if (at.config) session.domains.store().save(lock, name, config);
    if (!at.live) return;
    try {
        if (enforce) enforce(*entry->running);
    } catch (...) {
        if (at.config) session.domains.store().save(lock, name, config_before);
        throw;
    }
    entry->running->set_note(live);
}

}  // namespace caissonctl
