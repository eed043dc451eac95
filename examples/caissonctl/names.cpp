#include "names.hpp"

#include "failure.hpp"

namespace caissonctl {

int undefine(const Session& session, const Arguments& arguments) {
    const Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to undefine domain " + quoted(entry.name);
    because(outer, [&] {
        const Store::Lock lock = session.domains.store().lock();
        const auto now = session.domains.by_name(entry.name);
        if (!now) throw Failure{"failed to get domain " + quoted(entry.name)};
        if (!now->persistent) {
            throw Failure{outer, "Requested operation is not valid: cannot undefine transient domain"};
        }
        session.domains.store().remove(lock, entry.name);
    });
    session.say("Domain " + quoted(entry.name) + " has been undefined\n");
    return 0;
}

}  // namespace caissonctl
