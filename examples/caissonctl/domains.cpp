#include "domains.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include <fcntl.h>
#include <strings.h>
#include <unistd.h>

#include <caisson/detail/sys.hpp>

#include "failure.hpp"

namespace caissonctl {

namespace xml = caisson::xml;
using caisson::Helper;

std::string Entry::id() const {
    return running ? std::to_string(running->pid()) : "-";
}

std::vector<Entry> Domains::all() const {
    std::vector<std::string> defined = store_.names();
    std::multimap<pid_t, Entry> active;  // a group's have one helper
    for (const std::string& name : Helper::list(run_)) {
        Entry entry{name, false, {}};
        try {
            entry.running = Helper::find(name, run_);
            if (!entry.running) continue;  // it has just ended
        } catch (const caisson::Error& e) {
            if (caisson::detail::sys::is_shortage(e.code().value())) throw;
            entry.is_silent = true;  // who asks for it by its name is told why
        }
        entry.persistent = std::erase(defined, name) > 0;
        const pid_t id = entry.running ? entry.running->pid() : 0;
        active.emplace(id, std::move(entry));
    }
    std::ranges::sort(defined, [](const std::string& a, const std::string& b) {
        const int order = ::strcasecmp(a.c_str(), b.c_str());
        return order != 0 ? order < 0 : a < b;
    });
    std::vector<Entry> entries;
    for (auto& [id, entry] : active) entries.push_back(std::move(entry));
    for (const std::string& name : defined) entries.push_back({name, true, {}});
    return entries;
}

std::optional<Entry> Domains::by_name(const std::string& name) const {
    if (!caisson::is_valid_name(name)) return std::nullopt;
    Entry entry{name, store_.has(name), Helper::find(name, run_)};
    if (!entry.persistent && !entry.running) return std::nullopt;
    return entry;
}

Entry Domains::find(const std::string& word, By by) const {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    if (by.id && std::ranges::all_of(word, is_digit)) {
        std::vector<Entry> entries = all();
        std::erase_if(entries, [&](const Entry& entry) { return !entry.running || entry.id() != word; });
        if (entries.size() > 1) throw Failure{"domain id " + word + " is of several domains: name one of them"};
        if (!entries.empty()) return std::move(entries.front());
    }
    if (by.uuid) {
        if (const auto wanted = xml::Uuid::parse(word)) {
            for (Entry& entry : all()) {
                if (uuid(entry) != wanted) continue;
                if (entry.is_silent) (void)Helper::find(entry.name, run_);  // throws why
                return std::move(entry);
            }
        }
    }
    if (by.name) {
        if (auto entry = by_name(word)) return std::move(*entry);
    }
    throw Failure{"failed to get domain '" + word + "'"};
}

xml::Domain Domains::defined(const std::string& name) const {
    const auto text = store_.load(name);
    if (!text) throw Failure{"failed to get domain '" + name + "'"};
    xml::Domain domain = xml::parse(*text, store_.file(name));
    if (domain.name != name) {
        throw Failure{store_.file(name) + ": it defines the domain '" + domain.name + "'",
                      "a definition's file has the domain's name: remove it, and define the document"};
    }
    return domain;
}

xml::Domain Domains::current(Entry& entry) const {
    const auto info = entry.ask(&Helper::info);
    return info ? xml::parse(info->note, entry.name) : defined(entry.name);
}

std::optional<xml::Uuid> Domains::uuid(Entry& entry) const {
    try {
        return current(entry).uuid;
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

std::string Domains::title(Entry& entry) const {
    try {
        return current(entry).title;
    } catch (const std::exception&) {
        return {};
    }
}

caisson::IdMap Domains::free_id_map(const std::string& name) const {
    std::vector<xml::Domain> others;
    for (const std::string& other : store_.names()) {
        xml::Domain domain = defined(other);
        if (other == name && xml::has_free_id_map(domain)) return domain.uid_map.front();
        if (other != name) others.push_back(std::move(domain));
    }
    if (const auto map = xml::free_id_map(others)) return *map;
    throw Failure{"no id map is free", "undefine a domain that has one, or write an <idmap> into the document"};
}

void Domains::refuse_conflict(const xml::Domain& domain, const std::string& outer) const {
    for (Entry& entry : all()) {
        const auto other = uuid(entry);
        // A transient one that does not answer keeps its uuid to itself, and does not keep others from being defined.
        if (!other || (entry.name == domain.name) == (*other == domain.uuid)) continue;
        throw Failure{outer, "operation failed: domain '" + entry.name + "' " +
                                 (entry.name == domain.name ? "already exists" : "is already defined") + " with uuid " +
                                 other->str()};
    }
}

Entry Domains::start(const xml::Domain& domain, bool persistent, bool open_console) const {
    Helper helper = Helper::start(xml::to_spec(domain),
                                  {.run_directory = run_, .note = xml::dump(domain), .open_console = open_console});
    return {domain.name, persistent, std::move(helper)};
}

xml::Domain read_document(const std::string& path) {
    return xml::parse(read_text(path), path);
}

std::string read_text(const std::string& path) {
    constexpr std::size_t largest = 1 << 20;
    const caisson::Fd in{::open(path.c_str(), O_RDONLY | O_NOCTTY | O_CLOEXEC)};
    if (!in) throw Failure{"Failed to open file '" + path + "': " + std::strerror(errno)};
    std::string text;
    std::array<char, 65536> chunk;
    // One byte over the limit is enough for the parser to refuse it.
    while (text.size() <= largest) {
        const ssize_t n = ::read(in.get(), chunk.data(), chunk.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw Failure{"Failed to read file '" + path + "': " + std::strerror(errno)};
        if (n == 0) break;
        text.append(chunk.data(), static_cast<std::size_t>(n));
    }
    return text;
}

}  // namespace caissonctl
