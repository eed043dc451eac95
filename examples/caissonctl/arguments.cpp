#include "arguments.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <getopt.h>

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

const Option* by_letter(std::span<const Option> options, char letter) {
    const auto known = std::ranges::find(options, letter, &Option::letter);
    return known == options.end() ? nullptr : &*known;
}

}  // namespace

Arguments Arguments::parse(std::string_view verb, std::span<const Option> options, std::span<const std::string> words) {
    Arguments result;
    const auto give = [&](const Option& option, std::string_view value) {
        if (option.kind == Option::Kind::several) result.several_.emplace_back(value);
        else if (option.kind == Option::Kind::repeated) result.repeated_.emplace(option.name, value);
        else if (!result.values_.emplace(option.name, value).second) {
            throw UsageError{text("option --", option.name, " already seen")};
        }
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
                give(*known, {});
            } else if (option.value) {
                give(*known, *option.value);
            } else if (i + 1 < words.size()) {
                give(*known, words[++i]);
            } else {
                throw UsageError{
                    text("expected syntax: --", option.name, " <", known->type.empty() ? "string" : known->type, ">")};
            }
        } else if (!only_data && word.size() > 1 && word[0] == '-' && word[1] != '-' && by_letter(options, word[1])) {
            for (std::size_t at = 1; at < word.size(); ++at) {
                const Option* const known = by_letter(options, word[at]);
                if (known == nullptr) {
                    throw UsageError{text("command '", verb, "' doesn't support option -", word.substr(at, 1))};
                }
                if (known->kind == Option::Kind::flag) {
                    give(*known, {});
                    continue;
                }
                if (at + 1 == word.size() && i + 1 == words.size()) {
                    throw UsageError{text("expected syntax: -", word.substr(at, 1), " <", known->type, ">")};
                }
                give(*known, at + 1 < word.size() ? word.substr(at + 1) : std::string_view{words[++i]});
                break;
            }
        } else {
            const auto next = std::ranges::find_if(options, [&](const Option& o) {
                return o.kind != Option::Kind::flag && o.kind != Option::Kind::named &&
                       o.kind != Option::Kind::repeated && !result.has(o.name);
            });
            if (next == options.end()) throw UsageError{text("unexpected data '", word, "'")};
            give(*next, word);
        }
    }
    std::string missing;
    for (const Option& option : options) {
        if (option.kind != Option::Kind::positional || result.has(option.name)) continue;
        const bool word = option.type == "string";
        missing += missing.empty() ? "" : "\nerror: ";
        missing += text("command '", verb, word ? "' requires <" : "' requires --", option.name,
                        word ? "> option" : " option");
    }
    if (!missing.empty()) throw UsageError{missing};
    return result;
}

std::string Arguments::get(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return {};
    if (found->second.empty()) throw Failure{text("Failed to get option '", name, "': Option argument is empty")};
    return found->second;
}

std::vector<std::string> Arguments::all(std::string_view name) const {
    std::vector<std::string> values;
    const auto [begin, end] = repeated_.equal_range(name);
    for (auto at = begin; at != end; ++at) values.push_back(at->second);
    return values;
}

std::string Arguments::raw(std::string_view name) const {
    const auto found = values_.find(name);
    return found != values_.end() ? found->second : std::string{};
}

std::optional<int> Arguments::number(std::string_view name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return std::nullopt;
    const std::string& digits = found->second;
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size()) {
        throw Failure{text("Numeric value '", digits, "' for <", name) + "> option is malformed or out of range"};
    }
    return value;
}

Globals Globals::parse(std::span<const std::string> words) {
    enum : int { state_option = 256, run_option, version_option };
    static constexpr std::array<option, 7> known{{{"connect", required_argument, nullptr, 'c'},
                                                  {"state", required_argument, nullptr, state_option},
                                                  {"run", required_argument, nullptr, run_option},
                                                  {"quiet", no_argument, nullptr, 'q'},
                                                  {"help", no_argument, nullptr, 'h'},
                                                  {"version", optional_argument, nullptr, version_option},
                                                  {}}};
    std::vector<std::string> copy{"caissonctl"};
    copy.insert(copy.end(), words.begin(), words.end());
    std::vector<char*> argv;
    for (std::string& word : copy) argv.push_back(word.data());
    argv.push_back(nullptr);

    Globals globals;
    const auto directory = [](std::string_view name) {
        if (*optarg == '\0') throw UsageError{text("option '--", name, "' needs a directory")};
        return std::string{optarg};
    };
    optind = 0;
    opterr = 0;
    // '+': the verb ends them; ':': a missing argument is told apart from an unknown option.
    for (int c = 0;
         (c = ::getopt_long(static_cast<int>(copy.size()), argv.data(), "+:c:qhvV", known.data(), nullptr)) >= 0;) {
        const char* const word = argv[static_cast<std::size_t>(optind - 1)];
        switch (c) {
            case 'c': globals.uri = optarg; break;
            case state_option: globals.state = directory("state"); break;
            case run_option: globals.run = directory("run"); break;
            case 'q': globals.quiet = true; break;
            case 'h': globals.help = true; break;
            case 'v':
            case 'V':
            case version_option: globals.version = true; break;
            case ':':
                if (optopt == 'c') throw UsageError{"option '-c'/'--connect' requires an argument"};
                throw UsageError{text("option '", word, "' requires an argument")};
            default:
                if (optopt > 0 && optopt < 256) {
                    const char letter[]{static_cast<char>(optopt), '\0'};
                    throw UsageError{text("unsupported option '-", letter, "'. See --help.")};
                }
                throw UsageError{text("unsupported option '", word, "'. See --help.")};
        }
    }
    globals.words.assign(copy.begin() + optind, copy.end());
    return globals;
}

}  // namespace caissonctl
