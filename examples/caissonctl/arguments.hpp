// The command line: options before the verb, the verb, and its arguments, read as virsh reads them.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caissonctl {

/// An argument of a verb.
struct Option {
    /// `positional` is required and may be given as --name VALUE; so is `optional`, which may be left out. `named` may
    /// be left out too, and is given in no other way; `repeated` any number of times. `several`, the last one, takes
    /// any number of words, in both ways.
    enum class Kind { flag, named, repeated, optional, positional, several };
    std::string_view name;
    Kind kind = Kind::flag;
    std::string_view help;
    /// What help and messages call its value. Empty, of `several`: help does not say that the name may be given.
    std::string_view type = "string";
    char letter = '\0';  ///< "-t" for "--tty", "-it" for two of them
};

/// The arguments of one call of a verb.
class Arguments {
public:
    /// Reads what follows the verb. Throws `UsageError` with virsh's words.
    static Arguments parse(std::string_view verb, std::span<const Option> options, std::span<const std::string> words);

    [[nodiscard]] bool has(std::string_view name) const { return values_.contains(name); }
    /// The value of an option, which must not be empty; "" if it was not given. Throws `Failure`.
    [[nodiscard]] std::string get(std::string_view name) const;

    /// The same, and it may be empty.
    [[nodiscard]] std::string raw(std::string_view name) const;
    /// The value of a whole number; nothing if it was not given. Throws `Failure`.
    [[nodiscard]] std::optional<int> number(std::string_view name) const;
    /// The values of an option that may be repeated, in order.
    [[nodiscard]] std::vector<std::string> all(std::string_view name) const;
    /// What was given for the option `several`.
    [[nodiscard]] const std::vector<std::string>& several() const noexcept { return several_; }

private:
    std::map<std::string, std::string, std::less<>> values_;
    std::multimap<std::string, std::string, std::less<>> repeated_;
    std::vector<std::string> several_;
};

/// The options before the verb.
struct Globals {
    std::string state = "/var/lib/caisson";  ///< the directory of the definitions
    std::string run = "/run/caisson";        ///< the directory of what is running
    std::string uri{};                       ///< of what virsh would connect to
    bool quiet = false;                      ///< no table heads, no messages of success
    bool help = false;
    bool version = false;
    std::vector<std::string> words;  ///< the verb and what follows it

    /// Throws `UsageError`.
    static Globals parse(std::span<const std::string> words);
};

}  // namespace caissonctl
