#include "listing.hpp"

#include <array>
#include <cstdio>

#include "failure.hpp"
#include "table.hpp"

namespace caissonctl {

namespace xml = caisson::xml;

int list(const Session& session, const Arguments& arguments) {
    const bool running = arguments.has("all") || !arguments.has("inactive");
    const bool inactive = arguments.has("all") || arguments.has("inactive");
    bool plain = false;
    for (const char* option : {"name", "uuid", "id"}) {
        if (!arguments.has(option)) continue;
        plain = true;
        if (arguments.has("table")) {
            throw Failure{std::string{"Options --table and --"} + option + " are mutually exclusive"};
        }
    }
    Table table{{"Id", "Name", "State"}};
    std::string lines;
    for (Entry& entry : session.domains.all()) {
        if (entry.running ? !running : !inactive) continue;
        if (arguments.has("persistent") != arguments.has("transient") &&
            entry.persistent != arguments.has("persistent")) {
            continue;
        }
        if (!plain) {
            const char* const state = entry.state();
            if (entry.running ? running : inactive) table.add({entry.id(), entry.name, state});
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
    row("Autostart:", "disable");
    row("Managed save:", "no");
    print(text);
    return 0;
}

int domstate(const Session& session, const Arguments& arguments) {
    print(std::string{session.domains.find(arguments.get("domain")).state()} + "\n");
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
