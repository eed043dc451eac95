#include "arguments.hpp"

#include <algorithm>
#include <optional>

#include "failure.hpp"

namespace caissonctl {
namespace {

/// "--name" or "--name=value", taken apart.
struct Long {
    std::string_view name;
    std::optional<std::string_view> value;

    explicit Long(std::string_view word) {
        word.remove_prefix(2);
        const std::size_t equals = word.find('=');
        name = word.substr(0, equals);
        if (equals != std::string_view::npos) value = word.substr(equals + 1);
    }
};

std::string text(std::string_view a, std::string_view b, std::string_view c = {}, std::string_view d = {},
                 std::string_view e = {}) {
    return std::string{a}.append(b).append(c).append(d).append(e);
}

}  // namespace

Arguments Arguments::parse(std::string_view verb, std::span<const Option> options, std::span<const std::string> words) {
    Arguments result;
    const auto give = [&](std::string_view name, std::string_view value) {
        if (!result.values_.emplace(name, value).second) throw UsageError{text("option --", name, " already seen")};
    };
    bool only_data = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string_view word = words[i];
        if (!only_data && word == "--") {
            only_data = true;
        } else if (!only_data && word.size() > 2 && word.starts_with("--")) {
            const Long option{word};
            const auto known = std::ranges::find(options, option.name, &Option::name);
            if (known == options.end()) {
                throw UsageError{text("command '", verb, "' doesn't support option --", option.name)};
            }
            if (known->kind == Option::Kind::flag) {
                if (option.value) throw UsageError{text("invalid '=' after option --", option.name)};
                give(option.name, {});
            } else if (option.value) {
                give(option.name, *option.value);
            } else if (i + 1 < words.size()) {
                give(option.name, words[++i]);
            } else {
                throw UsageError{text("expected syntax: --", option.name, " <string>")};
            }
        } else {
            const auto next = std::ranges::find_if(
                options, [&](const Option& o) { return o.kind != Option::Kind::flag && !result.has(o.name); });
            if (next == options.end()) throw UsageError{text("unexpected data '", word, "'")};
            give(next->name, word);
        }
    }
    for (const Option& option : options) {
        if (option.kind == Option::Kind::positional && !result.has(option.name)) {
            throw UsageError{text("command '", verb, "' requires <", option.name, "> option")};
        }
    }
    return result;
}

std::string Arguments::get(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return {};
    if (found->second.empty()) throw Failure{text("Failed to get option '", name, "': Option argument is empty")};
    return found->second;
}

Globals Globals::parse(std::span<const std::string> words) {
    Globals globals;
    std::size_t i = 0;
    for (; i < words.size() && words[i].starts_with("-"); ++i) {
        const std::string& word = words[i];
        if (word == "-q" || word == "--quiet") {
            globals.quiet = true;
        } else if (word == "-h" || word == "--help") {
            globals.help = true;
        } else if (word == "-v" || word == "-V" || word == "--version") {
            globals.version = true;
        } else if (word.starts_with("--state") || word.starts_with("--run")) {
            const Long option{word};
            std::string* target = option.name == "state" ? &globals.state
                                  : option.name == "run" ? &globals.run
                                                         : nullptr;
            if (target == nullptr) throw UsageError{text("unsupported option '", word, "'. See --help.")};
            if (!option.value && i + 1 == words.size()) {
                throw UsageError{text("option '--", option.name, "' requires an argument")};
            }
            *target = option.value ? std::string{*option.value} : words[++i];
            if (target->empty()) throw UsageError{text("option '--", option.name, "' needs a directory")};
        } else {
            throw UsageError{text("unsupported option '", word, "'. See --help.")};
        }
    }
    globals.words.assign(words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
    return globals;
}

}  // namespace caissonctl
