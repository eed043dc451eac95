// What is defined and what runs, and how a word on the command line names one of them.
#pragma once

#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <caisson/error.hpp>
#include <caisson/helper.hpp>
#include <caisson/usage.hpp>
#include <caisson/xml.hpp>

#include "arguments.hpp"
#include "store.hpp"

namespace caissonctl {

/// A domain: defined, running, or both.
struct Entry {
    std::string name;
    bool persistent = false;                 ///< there is a definition
    std::optional<caisson::Helper> running;  ///< what runs it
    bool is_silent = false;                  ///< what runs it cannot be asked

    [[nodiscard]] bool is_active() const noexcept { return running || is_silent; }
    /// The helper's pid, as libvirt takes its controller's; "-" for a domain that does not run.
    [[nodiscard]] std::string id() const;
    /// False for a domain that does not run.
    [[nodiscard]] bool paused() { return ask(&caisson::Helper::suspended).value_or(false); }
    /// "no answer" where the helper does not say.
    [[nodiscard]] const char* state() {
        if (is_silent) return "no answer";
        try {
            const auto info = ask(&caisson::Helper::info);
            if (!info) return "shut off";
            // What is kept to be looked at, as libvirt calls it.
            return info->preserved ? "crashed" : info->suspended ? "paused" : "running";
        } catch (const caisson::Error& e) {
            if (e.code().value() != ETIMEDOUT) throw;
            return "no answer";
        }
    }
    /// What the helper answers; nothing if the domain does not run, or has ended meanwhile: the entry then says so.
    template <class Question>
    [[nodiscard]] std::optional<std::invoke_result_t<Question, caisson::Helper&>> ask(Question&& question) {
        if (!running) return std::nullopt;
        try {
            return std::invoke(std::forward<Question>(question), *running);
        } catch (const caisson::Error& e) {
            // ENODEV: of its control group, which goes a moment before.
            if (e.code().value() != ESRCH && e.code().value() != ENODEV) throw;
        }
        running.reset();
        return std::nullopt;
    }
};

/// Which ways of naming a domain a verb knows.
struct By {
    bool name = true;
    bool id = true;
    bool uuid = true;
};

class Domains {
public:
    explicit Domains(const Globals& globals) : store_{globals.state}, run_{globals.run} {}

    [[nodiscard]] const Store& store() const noexcept { return store_; }
    [[nodiscard]] const std::string& run_directory() const noexcept { return run_; }

    /// Every domain: what runs by id, then the others by name.
    [[nodiscard]] std::vector<Entry> all() const;
    /// The domain called `word`. Throws `Failure` with virsh's words if there is none.
    [[nodiscard]] Entry find(const std::string& word, By by = {}) const;
    /// The domain with this very name, if there is one.
    [[nodiscard]] std::optional<Entry> by_name(const std::string& name) const;

    /// The definition. Throws if there is none, if it cannot be read or if it is another domain's.
    [[nodiscard]] caisson::xml::Domain defined(const std::string& name) const;
    /// What runs if it runs, else the definition.
    [[nodiscard]] caisson::xml::Domain current(Entry& entry) const;
    /// The uuid; nothing if the definition is damaged, or if the domain has just ended.
    [[nodiscard]] std::optional<caisson::xml::Uuid> uuid(Entry& entry) const;
    /// The title; empty also where there is no uuid.
    [[nodiscard]] std::string title(Entry& entry) const;

    /// The map that the definition of this name has already, if `define --idmap auto` gave it one; else one that no
    /// definition has. Throws `Failure` where there is none, or where a definition does not say what it has.
    [[nodiscard]] caisson::IdMap free_id_map(const std::string& name) const;

    /// Throws `Failure{outer, ...}` if the name or the uuid of `domain` belongs to another one.
    void refuse_conflict(const caisson::xml::Domain& domain, const std::string& outer) const;
    /// Starts a container whose helper keeps `domain` as its note, and leaves it running. `open_console`: as of
    /// HelperOptions.
    [[nodiscard]] Entry start(const caisson::xml::Domain& domain, bool persistent, bool open_console) const;

private:
    Store store_;
    std::string run_;
};

/// Reads a document that the user names: a file, or a pipe. Throws `Failure` or `caisson::Error`.
[[nodiscard]] caisson::xml::Domain read_document(const std::string& path);
/// Its text, or as much of it as the parser needs to refuse it.
[[nodiscard]] std::string read_text(const std::string& path);

}  // namespace caissonctl
