// The definitions: one file DIR/NAME.xml each, replaced whole or not at all.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <caisson/fd.hpp>

namespace caissonctl {

/// A directory of definitions, 0700. Nothing is kept in memory: two programs may use one directory at once, and who
/// changes it holds its lock. Every function throws `caisson::Error` with the path in it.
class Store {
public:
    /// Touches nothing yet.
    explicit Store(std::string directory) : path_{std::move(directory)} {}

    /// The exclusive lock; given back when it is destroyed, and by the kernel when its holder dies.
    class Lock {
    public:
        Lock(Lock&&) noexcept = default;

    private:
        friend Store;
        Lock(caisson::Fd directory, caisson::Fd file) noexcept
            : directory_{std::move(directory)}, file_{std::move(file)} {}
        caisson::Fd directory_;
        caisson::Fd file_;
    };
    /// Waits for the lock; makes the directory if it is missing.
    [[nodiscard]] Lock lock() const;

    /// The names that have a definition, sorted; none if the directory does not exist.
    [[nodiscard]] std::vector<std::string> names() const;
    /// True if there is a definition, be it one that cannot be read.
    [[nodiscard]] bool has(std::string_view name) const;
    /// The text of a definition; nothing if there is none.
    [[nodiscard]] std::optional<std::string> load(std::string_view name) const;
    /// Replaces or makes the definition: whoever reads it, and whatever stops the machine, sees the old or the new one.
    void save(const Lock& lock, std::string_view name, std::string_view text) const;
    /// Removes the definition, and its mark for autostart.
    void remove(const Lock& lock, std::string_view name) const;
    /// Puts `text` under the name `to` in the place of the definition `from`, of which the mark for autostart goes
    /// along. Whatever stops the machine meanwhile, one of the two is there, or both are.
    void rename(const Lock& lock, std::string_view from, std::string_view to, std::string_view text) const;

    /// True for a definition that is to be started with the machine: DIR/autostart/NAME.xml links to it.
    [[nodiscard]] bool autostarts(std::string_view name) const;
    void set_autostart(const Lock& lock, std::string_view name, bool on) const;
    [[nodiscard]] const std::string& directory() const noexcept { return path_; }
    /// How messages name a definition: "DIR/NAME.xml".
    [[nodiscard]] std::string file(std::string_view name) const;

private:
    /// Holds nothing if the directory does not exist.
    [[nodiscard]] caisson::Fd open() const;

    std::string path_;
};

}  // namespace caissonctl
