// virsh's verbs, and their table.
#pragma once

#include <span>
#include <string_view>

#include "arguments.hpp"
#include "domains.hpp"

namespace caissonctl {

/// What a verb works with.
struct Session {
    Domains domains;
    bool quiet = false;

    /// Prints a message of success, unless they are unwanted.
    void say(const std::string& text) const;
};

/// To standard output, as it is.
void print(const std::string& text);

struct Verb {
    std::string_view name;
    std::string_view summary;
    std::string_view description;
    std::span<const Option> options;
    /// Returns 0, or the number of the signal that the program is to die of. Throws when it cannot do what it is for.
    int (*run)(const Session&, const Arguments&);
};

/// All verbs, in the order of the alphabet.
[[nodiscard]] std::span<const Verb> verbs();
/// nullptr if there is none of this name.
[[nodiscard]] const Verb* find_verb(std::string_view name);
/// What `help VERB` prints.
[[nodiscard]] std::string help_of(const Verb& verb);

}  // namespace caissonctl
