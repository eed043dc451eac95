#include "listing.hpp"

#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "table.hpp"

namespace caissonctl {

namespace xml = caisson::xml;

namespace {

/// Which domains `list` is about.
class Filter {
public:
    explicit Filter(const Arguments& arguments) : arguments_{arguments} {
        const bool all = arguments.has("all");
        inactive_ = all || arguments.has("inactive") || arguments.has("state-shutoff");
        active_ = all || !inactive_;
        for (const char* const state : {"state-running", "state-paused", "state-shutoff", "state-other"}) {
            by_state_ = by_state_ || arguments.has(state);
        }
    }
    /// True for an entry that is listed, as far as can be said without asking its helper.
    [[nodiscard]] bool wants(const Entry& entry, const Store& store) const {
        if (entry.is_active() ? !active_ : !inactive_) return false;
        if (!either("persistent", "transient", entry.persistent)) return false;
        return !(arguments_.has("autostart") || arguments_.has("no-autostart")) ||
               either("autostart", "no-autostart", entry.persistent && store.autostarts(entry.name));
    }
    /// True for an entry whose state is asked for; it may have ended meanwhile.
    [[nodiscard]] bool wants_state(Entry& entry) const {
        if (!by_state_) return true;
        const std::string_view state = entry.state();
        if (entry.is_active() ? !active_ : !inactive_) return false;
        return arguments_.has(state == "running"    ? "state-running"
                              : state == "paused"   ? "state-paused"
                              : state == "shut off" ? "state-shutoff"
                                                    : "state-other");
    }
    [[nodiscard]] bool wants_activity(const Entry& entry) const { return entry.is_active() ? active_ : inactive_; }

private:
    /// Of two opposite options, both or none say nothing.
    [[nodiscard]] bool either(const char* yes, const char* no, bool value) const {
        return arguments_.has(yes) == arguments_.has(no) || arguments_.has(yes) == value;
    }

    const Arguments& arguments_;
    bool active_ = true;
    bool inactive_ = false;
    bool by_state_ = false;
};

}  // namespace

int list(const Session& session, const Arguments& arguments) {
    const Filter filter{arguments};
    bool plain = false;
    for (const char* option : {"name", "uuid", "id"}) {
        if (!arguments.has(option)) continue;
        plain = true;
        if (arguments.has("table")) {
            throw Failure{std::string{"Options --table and --"} + option + " are mutually exclusive"};
        }
    }
    const bool titles = arguments.has("title");
    Table table{titles ? std::vector<std::string>{"Id", "Name", "State", "Title"}
                       : std::vector<std::string>{"Id", "Name", "State"}};
    std::string lines;
    for (Entry& entry : session.domains.all()) {
        if (!filter.wants(entry, session.domains.store()) || !filter.wants_state(entry)) continue;
        if (!plain) {
            const char* const state = entry.state();
            const std::string title = titles ? session.domains.title(entry) : std::string{};
            if (!filter.wants_activity(entry)) continue;
            std::vector<std::string> row{entry.id(), entry.name, state};
            if (titles) row.push_back(title);
            table.add(std::move(row));
            continue;
        }
        std::string line;
        const auto add = [&](std::string_view option, const std::string& text) {
            if (arguments.has(option)) line.append(line.empty() ? "" : " ").append(text);
        };
        if (arguments.has("uuid")) {
            const auto uuid = session.domains.uuid(entry);
            add("uuid", uuid ? uuid->str() : "-");
        }
        // As virsh: an inactive domain has no line of its own where only ids are asked for.
        if (entry.running || line.size() > 0 || arguments.has("name")) add("id", entry.id());
        add("name", entry.name);
        if (!line.empty()) lines += line + '\n';
    }
    print(plain ? lines : table.str(session.quiet));
    return 0;
}

int dominfo(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const xml::Domain domain = session.domains.current(entry);
    const auto usage = entry.ask(
        [](caisson::Helper& helper) { return helper.usage(caisson::UsagePart::cpu | caisson::UsagePart::memory); });
    std::string text;
    const auto row = [&](std::string key, const std::string& value) {
        key.resize(16, ' ');
        text += key + value + '\n';
    };
    row("Id:", entry.id());
    row("Name:", entry.name);
    row("UUID:", domain.uuid.str());
    row("OS Type:", "exe");
    row("State:", entry.state());
    row("CPU(s):", std::to_string(domain.vcpus));
    std::uint64_t used_kib = domain.current_memory_kib;
    if (usage) {
        if (usage->cpu.value_or(0) > 0) {
            std::array<char, 32> seconds;
            std::snprintf(seconds.data(), seconds.size(), "%.1fs", static_cast<double>(*usage->cpu) / 1e9);
            row("CPU time:", seconds.data());
        }
        if (usage->memory) used_kib = *usage->memory / 1024;
    }
    row("Max memory:", std::to_string(domain.memory_kib) + " KiB");
    row("Used memory:", std::to_string(used_kib) + " KiB");
    row("Persistent:", entry.persistent ? "yes" : "no");
    row("Autostart:", entry.persistent && session.domains.store().autostarts(entry.name) ? "enable" : "disable");
    row("Managed save:", "no");
    print(text);
    return 0;
}

int domstate(const Session& session, const Arguments& arguments) {
    const std::string state = session.domains.find(arguments.get("domain")).state();
    // Nobody keeps why a domain is off: there is no daemon.
    const char* const reason = state == "running" ? " (booted)" : state == "paused" ? " (user)" : " (unknown)";
    print(state + (arguments.has("reason") ? reason : "") + "\n");
    return 0;
}

int domid(const Session& session, const Arguments& arguments) {
    print(session.domains.find(arguments.get("domain"), By{.id = false}).id() + "\n");
    return 0;
}

int domname(const Session& session, const Arguments& arguments) {
    print(session.domains.find(arguments.get("domain"), By{.name = false}).name + "\n");
    return 0;
}

int domuuid(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"), By{.uuid = false});
    print(session.domains.current(entry).uuid.str() + "\n");
    return 0;
}

}  // namespace caissonctl
