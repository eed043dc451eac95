#include "tuning.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "change.hpp"
#include "failure.hpp"

namespace caissonctl::tuning {
namespace {

namespace xml = caisson::xml;
using caisson::BlockLimit;
using caisson::Helper;
using caisson::LimitSpec;
using Number = std::optional<std::uint64_t>;
constexpr std::uint64_t unlimited = LimitSpec::unlimited;

void print(std::string_view key, const std::string& value) {
    std::printf("%-15s: %s\n", std::string{key}.c_str(), value.c_str());
}

[[noreturn]] void refuse(const std::string& why) {
    throw Failure{"invalid argument: " + why};
}

/// Runs `work`; whatever it throws is told as the reason of `outer`.
template <class F>
auto whole(const std::string& outer, F&& work) {
    try {
        return work();
    } catch (const std::runtime_error& e) {
        throw Failure{outer, e.what()};
    }
}

/// A decimal number; nothing if it is none, or does not fit.
template <class Integer>
std::optional<Integer> number(std::string_view text) {
    Integer value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() ? std::optional{value} : std::nullopt;
}

/// Bytes in one of virsh's units; nothing if there is no such unit.
Number unit(std::string_view suffix) {
    std::string lower;
    for (const char c : suffix) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (lower.empty()) return 1024;
    if (lower == "b" || lower == "byte" || lower == "bytes") return 1;
    const std::size_t power = std::string_view{"kmgtpe"}.find(lower.front());
    const std::string_view rest = std::string_view{lower}.substr(1);
    if (power == std::string_view::npos || (!rest.empty() && rest != "b" && rest != "ib")) return std::nullopt;
    std::uint64_t bytes = 1;
    for (std::size_t i = 0; i <= power; ++i) bytes *= rest == "b" ? 1000 : 1024;
    return bytes;
}

/// KiB, rounded up, of a scaled integer as virsh reads it. Throws `Failure{outer}`, with a reason where there is one.
std::uint64_t kib(const std::string& text, const std::string& outer) {
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const auto count = number<std::uint64_t>(std::string_view{text}.substr(0, digits));
    if (!count) throw Failure{outer};
    const std::string_view suffix = std::string_view{text}.substr(digits);
    const Number factor = unit(suffix);
    if (!factor) throw Failure{outer, "invalid argument: unknown suffix " + quoted(suffix)};
    if (*count > (most - 1023) / *factor) {
        throw Failure{outer, "numerical overflow: value too large: " + std::to_string(*count)};
    }
    return (*count * *factor + 1023) / 1024;
}

/// What there is to see: the document, and for a running domain the limits in force in the place of the document's.
struct Seen {
    xml::Domain domain;
    LimitSpec limits;
    bool live;
};

Seen look(const Session& session, Entry& entry, Affected wanted) {
    if (wanted.live && wanted.config) (void)looks_at_running(wanted, entry);
    const auto limits = entry.ask(&Helper::limits);
    const auto info = entry.ask(&Helper::info);
    if (!resolve(wanted, entry).live) {
        xml::Domain domain = session.domains.defined(entry.name);
        LimitSpec own = domain.limits;
        return {std::move(domain), std::move(own), false};
    }
    return {xml::parse(info->note, entry.name), *limits, true};
}

/// Changes a document; with `live`, that of a running domain, whose limits in force are to become so too.
using ChangeOfLimits = std::function<void(xml::Domain&, LimitSpec* live)>;

void apply(const Session& session, const std::string& name, Affected wanted, const ChangeOfLimits& change) {
    LimitSpec limits;
    change_documents(
        session, name, wanted, [&](xml::Domain& domain, bool live) { change(domain, live ? &limits : nullptr); },
        [&](Helper& helper) { helper.limit(limits); });
}

void refuse_memory(const xml::Domain& domain, bool lifted) {
    const auto text = [](std::uint64_t bytes) { return std::to_string(bytes / 1024); };
    const std::uint64_t most = domain.limits.memory.value_or(domain.memory_kib * 1024);
    const Number& swap = domain.limits.memory_and_swap;
    const Number& soft = domain.limits.memory_soft;
    if (swap && (lifted || most > *swap)) {
        refuse("memory hard_limit tunable value must be lower than or equal to swap_hard_limit: " +
               (lifted ? std::string{"unlimited"} : text(most)) + " is more than " + text(*swap));
    }
    if (soft && *soft > most) {
        refuse("memory soft_limit tunable value must be lower than or equal to hard_limit: " + text(*soft) +
               " is more than " + text(most));
    }
}

struct MemoryField {
    const char* option;
    const char* name;
    Number LimitSpec::*member;
};
constexpr MemoryField memory_fields[] = {{"hard-limit", "hard_limit", &LimitSpec::memory},
                                         {"soft-limit", "soft_limit", &LimitSpec::memory_soft},
                                         {"swap-hard-limit", "swap_hard_limit", &LimitSpec::memory_and_swap}};

/// What an option of memtune asks for: bytes, or `unlimited`.
Number memory_wish(const Arguments& arguments, const std::string& option) {
    if (!arguments.has(option)) return std::nullopt;
    const std::string text = arguments.raw(option);
    if (const auto negative = number<std::int64_t>(text); negative && *negative < 0) return unlimited;
    // As many are libvirt's other word for it.
    constexpr std::uint64_t none = std::numeric_limits<std::int64_t>::max() >> 10;
    const std::uint64_t size = kib(text, "Unable to parse integer parameter " + option);
    return size < none ? size * 1024 : unlimited;
}

std::uint64_t size_of(const Arguments& arguments) {
    const std::string text = arguments.raw("size");
    return kib(text, "Scaled numeric value " + quoted(text) + " for <size> option is malformed or out of range");
}

struct SchedulerField {
    std::string_view name;
    Number LimitSpec::*member;
    std::uint64_t least, most;
    std::string_view usual;  ///< in force where nobody said anything
};
constexpr SchedulerField scheduler_fields[] = {{"cpu_shares", &LimitSpec::cpu_shares, 2, 262144, "1024"},
                                               {"vcpu_period", &LimitSpec::cpu_period, 1000, 1000000, "100000"},
                                               {"vcpu_quota", &LimitSpec::cpu_quota, 1000, 17592186044415, "-1"}};

/// "name=value", into the limit that it names.
void read_parameter(const std::string& word, LimitSpec& into) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) throw Failure{"Invalid syntax for --set, expecting name=value"};
    const std::string name = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    const auto* const field = std::ranges::find(scheduler_fields, name, &SchedulerField::name);
    if (field == std::end(scheduler_fields)) throw Failure{"invalid scheduler option: " + name};
    if (into.*(field->member)) refuse("parameter " + quoted(name) + " occurs multiple times");
    const bool quota = field->member == &LimitSpec::cpu_quota;
    const auto negative = quota ? number<std::int64_t>(value) : std::nullopt;
    const bool none = negative && *negative < 0;
    const Number taken = none ? unlimited : number<std::uint64_t>(value);
    if (!taken) {
        refuse("Invalid value for field " + quoted(name) + ": expected " + (quota ? "" : "unsigned ") + "long long");
    }
    if (!none && (*taken < field->least || *taken > field->most)) {
        refuse(name + " " + quoted(value) + " must be " + (quota ? "-1 or " : "") + "in range [" +
               std::to_string(field->least) + ", " + std::to_string(field->most) + "]");
    }
    into.*(field->member) = taken;
}

template <auto Member>
Number get(const BlockLimit& limit) {
    const auto& value = limit.*Member;
    return value ? Number{*value} : std::nullopt;
}
template <auto Member>
void set(BlockLimit& limit, Number value) {
    using Value = std::remove_cvref_t<decltype(*(limit.*Member))>;
    limit.*Member = value ? std::optional{static_cast<Value>(*value)} : std::nullopt;
}

struct DeviceField {
    const char* option;
    const char* name;
    std::uint64_t most;
    std::uint64_t none;  ///< takes it away from a running domain
    Number (*get)(const BlockLimit&);
    void (*set)(BlockLimit&, Number);
};
constexpr std::uint64_t least_weight = 100, most_weight = 1000;
constexpr std::uint64_t most_operations = std::numeric_limits<std::uint32_t>::max() - 1;
constexpr DeviceField device_fields[] = {
    {"device-weights", "device_weight", most_operations, 100, get<&BlockLimit::weight>, set<&BlockLimit::weight>},
    {"device-read-iops-sec", "device_read_iops_sec", most_operations, unlimited, get<&BlockLimit::read_operations>,
     set<&BlockLimit::read_operations>},
    {"device-write-iops-sec", "device_write_iops_sec", most_operations, unlimited, get<&BlockLimit::write_operations>,
     set<&BlockLimit::write_operations>},
    {"device-read-bytes-sec", "device_read_bytes_sec", unlimited, unlimited, get<&BlockLimit::read_bytes>,
     set<&BlockLimit::read_bytes>},
    {"device-write-bytes-sec", "device_write_bytes_sec", unlimited, unlimited, get<&BlockLimit::write_bytes>,
     set<&BlockLimit::write_bytes>}};

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts{""};
    for (const char c : text) {
        if (c == at) parts.emplace_back();
        else parts.back() += c;
    }
    return parts;
}

/// A path as a document has it: absolute, without "//", "." and "..".
bool is_device_path(const std::string& path) {
    const auto parts = split(path, '/');
    return parts.size() > 1 && parts.front().empty() &&
           std::all_of(parts.begin() + 1, parts.end(),
                       [](const std::string& part) { return !part.empty() && part != "." && part != ".."; });
}

void require_weight(const std::string& what, std::uint64_t value) {
    if (value >= least_weight && value <= most_weight) return;
    refuse(what + " must be in range [" + std::to_string(least_weight) + ", " + std::to_string(most_weight) + "]");
}

/// One value for one device; 0 takes it away.
struct DeviceWish {
    const DeviceField* field;
    std::string path;
    std::uint64_t value;
};

/// "PATH,VALUE,PATH,VALUE".
void read_devices(const DeviceField& field, const std::string& text, std::vector<DeviceWish>& into) {
    const std::string cannot = "unable to parse blkio device " + quoted(field.name) + " " + quoted(text);
    const auto words = split(text, ',');
    if (words.size() % 2 != 0 || std::ranges::any_of(words, &std::string::empty)) refuse(cannot);
    for (std::size_t i = 0; i < words.size(); i += 2) {
        const std::string& path = words[i];
        if (!is_device_path(path)) refuse(cannot + ": " + quoted(path) + " is not the absolute path of a device");
        const auto value = number<std::uint64_t>(words[i + 1]);
        if (!value || *value > field.most) {
            refuse("invalid value " + quoted(words[i + 1]) + " for parameter " + quoted(field.name) + " of device " +
                   quoted(path));
        }
        const bool weight = field.none != unlimited;
        if (weight && *value != 0) {
            require_weight(std::string{field.name} + " " + quoted(words[i + 1]) + " of device " + quoted(path), *value);
        }
        into.push_back({&field, path, *value});
    }
}

BlockLimit& device(std::vector<BlockLimit>& devices, const std::string& path) {
    const auto found = std::ranges::find(devices, path, &BlockLimit::device);
    if (found != devices.end()) return *found;
    devices.emplace_back().device = path;
    return devices.back();
}

void change_device(const DeviceWish& wish, xml::Domain& domain, LimitSpec* live) {
    auto& own = domain.limits.block;
    wish.field->set(device(own, wish.path), wish.value != 0 ? Number{wish.value} : std::nullopt);
    std::erase_if(own, [](const BlockLimit& limit) {
        return std::ranges::none_of(device_fields, [&](const DeviceField& f) { return f.get(limit).has_value(); });
    });
    if (live != nullptr)
        wish.field->set(device(live->block, wish.path), wish.value != 0 ? wish.value : wish.field->none);
}

void show_block(const Seen& seen) {
    // A new group's weight is not told apart from one that somebody set: what the document says is.
    const auto weight = seen.limits.block_weight ? seen.limits.block_weight : seen.domain.limits.block_weight;
    print("weight", std::to_string(weight.value_or(0)));
    for (const DeviceField& field : device_fields) {
        std::string text;
        for (const BlockLimit& limit : seen.domain.limits.block) {
            const Number value = field.get(limit);
            if (value)
                text.append(text.empty() ? "" : ",").append(limit.device).append(",").append(std::to_string(*value));
        }
        print(field.name, text);
    }
}

}  // namespace

int memtune(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    Entry entry = session.domains.find(arguments.get("domain"));
    LimitSpec wish;
    for (const MemoryField& field : memory_fields) wish.*field.member = memory_wish(arguments, field.option);
    const Number guarantee = memory_wish(arguments, "min-guarantee");
    if (!guarantee && wish == LimitSpec{}) {
        const Seen seen =
            whole("Unable to get number of memory parameters", [&] { return look(session, entry, wanted); });
        for (const MemoryField& field : memory_fields) {
            const Number& bytes = seen.limits.*field.member;
            print(field.name, bytes && *bytes != unlimited ? std::to_string(*bytes / 1024) : "unlimited");
        }
        return 0;
    }
    whole("Unable to change memory parameters", [&] {
        if (guarantee) throw Failure{"argument unsupported: parameter 'min_guarantee' not supported"};
        for (const MemoryField& field : memory_fields) {
            if (wish.*field.member == 0u)
                refuse(std::string{field.name} + " '0' must be at least 1 KiB, or -1 for no limit");
        }
        apply(session, entry.name, wanted, [&](xml::Domain& domain, LimitSpec* live) {
            for (const MemoryField& field : memory_fields) {
                const Number& value = wish.*field.member;
                if (value) domain.limits.*field.member = *value != unlimited ? value : std::nullopt;
            }
            refuse_memory(domain, wish.memory == unlimited);
            if (live != nullptr) *live = wish;
        });
    });
    return 0;
}

int setmem(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    const std::string name = session.domains.find(arguments.get("domain")).name;
    const std::uint64_t size = size_of(arguments);
    if (size == 0) throw Failure{"memory in virDomainSetMemoryFlags must not be zero"};
    apply(session, name, wanted, [&](xml::Domain& domain, LimitSpec* live) {
        const auto refuse_over = [&](const char* what, std::uint64_t most) {
            if (size <= most) return;
            refuse(std::string{"Cannot set memory higher than "} + what + ": " + std::to_string(size) +
                   " KiB is more than " + std::to_string(most) + " KiB");
        };
        refuse_over("max memory", domain.memory_kib);
        domain.current_memory_kib = size;
        if (live == nullptr) return;
        if (domain.limits.memory) refuse_over("hard_limit", *domain.limits.memory / 1024);
        live->memory = size * 1024;
    });
    return 0;
}

int setmaxmem(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    const std::string name = session.domains.find(arguments.get("domain")).name;
    const std::uint64_t size = size_of(arguments);
    whole("Unable to change MaxMemorySize", [&] {
        if (size == 0) throw Failure{"memory in virDomainSetMemoryFlags must not be zero"};
        apply(session, name, wanted, [&](xml::Domain& domain, const LimitSpec* live) {
            if (live != nullptr) {
                throw Failure{"Requested operation is not valid: Cannot resize the max memory on an active domain"};
            }
            domain.memory_kib = size;
            domain.current_memory_kib = std::min(domain.current_memory_kib, size);
            refuse_memory(domain, false);
        });
    });
    return 0;
}

int schedinfo(const Session& session, const Arguments& arguments) {
    Affected wanted = affected(arguments);
    Entry entry = session.domains.find(arguments.get("domain"));
    print("Scheduler", "posix");
    LimitSpec wish;
    for (const std::string option : {"weight", "cap"}) {
        if (arguments.has(option)) read_parameter(option + "=" + arguments.raw(option), wish);
    }
    for (const std::string& word : arguments.several()) read_parameter(word, wish);
    if (wish != LimitSpec{}) {
        apply(session, entry.name, wanted, [&](xml::Domain& domain, LimitSpec* live) {
            for (const SchedulerField& field : scheduler_fields) {
                if (wish.*field.member) domain.limits.*field.member = wish.*field.member;
            }
            if (live != nullptr) *live = wish;
        });
        if (wanted.live) wanted.config = false;
    } else if (wanted.live && wanted.config) {
        throw Failure{"cannot query both live and config at once"};
    }
    const Seen seen = look(session, entry, wanted);
    for (const SchedulerField& field : scheduler_fields) {
        const Number& value = seen.limits.*field.member;
        const std::string none = seen.live ? std::string{field.usual} : "0";
        print(field.name, !value ? none : *value == unlimited ? "-1" : std::to_string(*value));
    }
    return 0;
}

int blkiotune(const Session& session, const Arguments& arguments) {
    const Affected wanted = affected(arguments);
    Entry entry = session.domains.find(arguments.get("domain"));
    std::optional<std::uint32_t> weight;
    if (const auto value = arguments.number("weight")) {
        if (*value <= 0) throw Failure{"Invalid value of " + arguments.raw("weight") + " for I/O weight"};
        weight = static_cast<std::uint32_t>(*value);
    }
    for (const DeviceField& field : device_fields) {
        if (arguments.has(field.option) && arguments.raw(field.option).empty()) {
            throw Failure{"Unable to parse string parameter"};
        }
    }
    if (!weight && std::ranges::none_of(device_fields, [&](const DeviceField& f) { return arguments.has(f.option); })) {
        show_block(whole("Unable to get number of blkio parameters", [&] { return look(session, entry, wanted); }));
        return 0;
    }
    whole("Unable to change blkio parameters", [&] {
        if (weight) require_weight("weight '" + std::to_string(*weight) + "'", *weight);
        std::vector<DeviceWish> wishes;
        for (const DeviceField& field : device_fields) {
            if (arguments.has(field.option)) read_devices(field, arguments.raw(field.option), wishes);
        }
        apply(session, entry.name, wanted, [&](xml::Domain& domain, LimitSpec* live) {
            if (weight) domain.limits.block_weight = weight;
            if (weight && live != nullptr) live->block_weight = weight;
            for (const DeviceWish& wish : wishes) change_device(wish, domain, live);
        });
    });
    return 0;
}

}  // namespace caissonctl::tuning
