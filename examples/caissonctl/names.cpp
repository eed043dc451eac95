#include "names.hpp"

#include <cstdio>
#include <string>

#include "failure.hpp"

namespace caissonctl {

namespace xml = caisson::xml;

namespace {

/// The document that a verb looks at: of the running domain, or the definition.
xml::Domain document(const Session& session, Entry& entry, Affected wanted) {
    if (wanted.live && wanted.config) (void)looks_at_running(wanted, entry);
    const auto info = entry.ask(&caisson::Helper::info);
    return looks_at_running(wanted, entry) ? xml::parse(info->note, entry.name) : session.domains.defined(entry.name);
}

/// The words of a description, as virsh puts them together.
std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text.append(text.empty() ? "" : " ").append(word);
    return text;
}

}  // namespace

int autostart(const Session& session, const Arguments& arguments) {
    const Entry entry = session.domains.find(arguments.get("domain"));
    const bool on = !arguments.has("disable");
    const std::string outer =
        std::string{"Failed to "} + (on ? "mark" : "unmark") + " domain " + quoted(entry.name) + " as autostarted";
    because(outer, [&] {
        const Store::Lock lock = session.domains.store().lock();
        if (!session.domains.store().has(entry.name)) {
            throw Failure{outer, "Requested operation is not valid: cannot set autostart for transient domain"};
        }
        session.domains.store().set_autostart(lock, entry.name, on);
    });
    session.say("Domain " + quoted(entry.name) + (on ? " marked" : " unmarked") + " as autostarted\n");
    return 0;
}

int autostart_all(const Session& session, const Arguments&) {
    std::string failed;
    for (const std::string& name : session.domains.store().names()) {
        if (!session.domains.store().autostarts(name)) continue;
        try {
            const Store::Lock lock = session.domains.store().lock();
            const auto now = session.domains.by_name(name);
            if (!now || !now->persistent || now->running) continue;
            (void)session.domains.start(session.domains.defined(name), true, false);
            session.say("Domain " + quoted(name) + " started\n");
        } catch (const std::exception& e) {
            const auto* const failure = dynamic_cast<const Failure*>(&e);
            const std::string reason = failure != nullptr && !failure->reason().empty() ? ": " + failure->reason() : "";
            // The others are not to wait for somebody who mends this one.
            std::fflush(stdout);
            std::fprintf(stderr, "error: Failed to start domain '%s'\nerror: %s%s\n", name.c_str(), e.what(),
                         reason.c_str());
            failed.append(failed.empty() ? "" : ", ").append(quoted(name));
        }
    }
    if (!failed.empty()) throw Failure{"Failed to autostart " + failed};
    return 0;
}

int desc(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    const bool title = arguments.has("title");
    Entry entry = session.domains.find(arguments.get("domain"));
    const auto field = title ? &xml::Domain::title : &xml::Domain::description;
    const std::string what = title ? "title" : "description";
    if (arguments.several().empty()) {
        const std::string text = document(session, entry, wanted).*field;
        if (text.empty()) session.say("No " + what + " for domain: " + entry.name);
        else print(text + "\n");
        return 0;
    }
    const std::string text = joined(arguments.several());
    const std::string outer = "Failed to set new domain " + what;
    if (title && text.find('\n') != std::string::npos) {
        throw Failure{outer, "metadata title can't contain newlines"};
    }
    because(outer, [&] {
        change_documents(session, entry.name, wanted, [&](xml::Domain& domain, bool) { domain.*field = text; });
    });
    session.say("Domain " + what + " updated successfully");
    return 0;
}

int domrename(const Session& session, const Arguments& arguments) {
    const std::string from = session.domains.find(arguments.get("domain"), By{.id = false}).name;
    const std::string to = arguments.get("new-name");
    const std::string refused = "Requested operation is not valid: ";
    if (!caisson::is_valid_name(to)) {
        throw Failure{"invalid argument: name " + quoted(to) +
                      " must be 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit"};
    }
    const Store::Lock lock = session.domains.store().lock();
    const auto entry = session.domains.by_name(from);
    if (!entry) throw Failure{"failed to get domain " + quoted(from)};
    if (entry->running) {
        throw Failure{refused +
                      (entry->persistent ? "cannot rename active domain" : "cannot rename a transient domain")};
    }
    if (to == from) throw Failure{refused + "Can't rename domain to itself"};
    if (session.domains.by_name(to)) throw Failure{refused + "domain with name " + quoted(to) + " already exists"};
    xml::Domain domain = session.domains.defined(from);
    domain.name = to;
    session.domains.store().rename(lock, from, to, xml::dump(domain));
    session.say("Domain successfully renamed\n");
    return 0;
}

int metadata(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    if (arguments.has("set") && arguments.has("remove")) {
        throw Failure{"Options --remove and --set are mutually exclusive"};
    }
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string uri = arguments.get("uri");
    if (arguments.has("set")) {
        const std::string element = arguments.get("set");
        const std::string key = arguments.get("key");
        if (key.empty()) throw Failure{"namespace key is required when modifying metadata"};
        change_documents(session, entry.name, wanted,
                         [&](xml::Domain& domain, bool) { xml::set_metadata(domain, uri, key, element); });
        session.say("Metadata modified\n");
    } else if (arguments.has("remove")) {
        change_documents(session, entry.name, wanted, [&](xml::Domain& domain, bool) {
            std::erase_if(domain.metadata, [&](const xml::Metadata& kept) { return kept.uri == uri; });
        });
        session.say("Metadata removed\n");
    } else {
        const auto element = xml::metadata_of(document(session, entry, wanted), uri);
        if (!element) throw Failure{"metadata not found: Requested metadata element is not present"};
        print(*element + "\n");
    }
    return 0;
}

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
