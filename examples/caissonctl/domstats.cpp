// domstats: what many domains use, as keys and values for programs.
#include <algorithm>
#include <array>
#include <exception>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <caisson/error.hpp>

#include "failure.hpp"
#include "statistics.hpp"

namespace caissonctl {
namespace {

using caisson::Usage;
using caisson::UsagePart;

/// The lines of one domain.
class Record {
public:
    explicit Record(const std::string& name) : text_{"Domain: " + quoted(name) + "\n"} {}
    template <class Value>
    void add(const std::string& key, const Value& value) {
        text_.append("  ").append(key).append("=");
        if constexpr (std::is_convertible_v<Value, std::string_view>) text_.append(value);
        else text_.append(std::to_string(value));
        text_ += '\n';
    }
    void add_if(const std::string& key, const std::optional<std::uint64_t>& value, std::uint64_t unit = 1) {
        if (value) add(key, *value / unit);
    }
    [[nodiscard]] const std::string& str() const noexcept { return text_; }

private:
    std::string text_;
};

/// The groups of keys, and what they need to be asked for.
struct Group {
    std::string_view option;
    caisson::UsageParts parts;
    void (*tell)(Record&, const Usage&);
};

void tell_cpu(Record& record, const Usage& usage) {
    record.add_if("cpu.time", usage.cpu);
    record.add_if("cpu.user", usage.cpu_user);
    record.add_if("cpu.system", usage.cpu_system);
}
void tell_memory(Record& record, const Usage& usage) {
    record.add_if("balloon.current", usage.memory_limit, 1024);
    record.add_if("balloon.available", usage.memory_limit, 1024);
    if (usage.memory && usage.memory_limit) {
        record.add("balloon.unused", (*usage.memory_limit - std::min(*usage.memory_limit, *usage.memory)) / 1024);
    }
    record.add_if("balloon.disk_caches", usage.memory_file, 1024);
    record.add_if("balloon.rss", usage.memory, 1024);
}
// A container's virtual CPUs are the host's.
void tell_each_cpu(Record& record, const Usage& usage) {
    if (usage.cpu_each.empty()) return;
    record.add("vcpu.current", usage.cpu_each.size());
    record.add("vcpu.maximum", usage.cpu_each.size());
    for (std::size_t i = 0; i < usage.cpu_each.size(); ++i) {
        record.add("vcpu." + std::to_string(i) + ".time", usage.cpu_each[i]);
    }
}
void tell_networks(Record& record, const Usage& usage) {
    record.add("net.count", usage.networks.size());
    for (std::size_t i = 0; i < usage.networks.size(); ++i) {
        const caisson::NetworkUsage& one = usage.networks[i];
        const std::string key = "net." + std::to_string(i);
        record.add(key + ".name", one.host_name);
        record.add(key + ".rx.bytes", one.received_bytes);
        record.add(key + ".rx.pkts", one.received_packets);
        record.add(key + ".rx.errs", one.received_errors);
        record.add(key + ".rx.drop", one.received_dropped);
        record.add(key + ".tx.bytes", one.sent_bytes);
        record.add(key + ".tx.pkts", one.sent_packets);
        record.add(key + ".tx.errs", one.sent_errors);
        record.add(key + ".tx.drop", one.sent_dropped);
    }
}
void tell_block(Record& record, const Usage& usage) {
    record.add("block.count", usage.block.size());
    for (std::size_t i = 0; i < usage.block.size(); ++i) {
        const caisson::BlockUsage& one = usage.block[i];
        const std::string key = "block." + std::to_string(i);
        record.add(key + ".name", block_device_name(one));
        record.add(key + ".rd.reqs", one.read_operations);
        record.add(key + ".rd.bytes", one.read_bytes);
        record.add(key + ".wr.reqs", one.write_operations);
        record.add(key + ".wr.bytes", one.write_bytes);
    }
}

constexpr std::array groups{
    Group{"cpu-total", UsagePart::cpu | UsagePart::details, tell_cpu},
    Group{"balloon", UsagePart::memory | UsagePart::details, tell_memory}, Group{"vcpu", UsagePart::cpu, tell_each_cpu},
    Group{"interface", UsagePart::network, tell_networks}, Group{"block", UsagePart::block, tell_block}};

/// True if nothing is said about these kinds of domains, or the domain is of one that is asked for.
bool passes(const Arguments& arguments, std::initializer_list<std::pair<const char*, bool>> kinds) {
    const auto asked = [&](const auto& kind) { return arguments.has(kind.first); };
    return std::ranges::none_of(kinds, asked) ||
           std::ranges::any_of(kinds, [&](const auto& kind) { return kind.second && asked(kind); });
}

/// The most memory that it may be given, in KiB; nothing where its description is none of caissonctl's.
std::optional<std::uint64_t> most_memory(const Session& session, Entry& entry) {
    try {
        return session.domains.current(entry).memory_kib;
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

/// The lines of one domain; "" if it is not to be told about.
std::string tell(const Session& session, Entry& entry, const Arguments& arguments) {
    const bool everything = !arguments.has("state") && std::ranges::none_of(groups, [&](const Group& group) {
        return arguments.has(group.option);
    });
    caisson::UsageParts parts;
    for (const Group& group : groups) {
        if (everything || arguments.has(group.option)) parts = parts | group.parts;
    }
    std::optional<Usage> usage;
    if (parts.bits() != 0) usage = entry.ask([&](caisson::Helper& helper) { return helper.usage(parts); });
    const bool paused = entry.paused();
    const bool active = entry.is_active();
    if (!passes(arguments, {{"list-active", active}, {"list-inactive", !active}}) ||
        !passes(arguments, {{"list-persistent", entry.persistent}, {"list-transient", !entry.persistent}}) ||
        !passes(arguments, {{"list-running", active && !entry.is_silent && !paused},
                            {"list-paused", paused},
                            {"list-shutoff", !active}})) {
        return {};
    }
    Record record{entry.name};
    if (everything || arguments.has("state")) {
        // libvirt's numbers: running since it was started, paused by the user, shut off for a reason that nobody kept,
        // or none that is known.
        record.add("state.state", !active ? 5 : entry.is_silent ? 0 : paused ? 3 : 1);
        record.add("state.reason", active && !entry.is_silent ? 1 : 0);
    }
    for (const Group& group : groups) {
        if (!usage || !(everything || arguments.has(group.option))) continue;
        if (group.option == "balloon") record.add_if("balloon.maximum", most_memory(session, entry));
        group.tell(record, *usage);
    }
    return record.str();
}

}  // namespace

int domstats(const Session& session, const Arguments& arguments) {
    std::vector<Entry> entries;
    if (arguments.several().empty()) entries = session.domains.all();
    for (const std::string& word : arguments.several()) entries.push_back(session.domains.find(word));
    std::string text;
    for (Entry& entry : entries) {
        const std::string lines = tell(session, entry, arguments);
        if (!text.empty() && !lines.empty()) text += '\n';
        text += lines;
    }
    print(text);
    return 0;
}

}  // namespace caissonctl
