// caisson/detail/freezer.hpp - makes the processes of a control group stand still, and go on.
#pragma once

#include <string>
#include <utility>

#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Freezes and thaws one group. Holds descriptors of its own, so that nobody else's object is busy while it waits.
class [[gnu::visibility("default")]] Freezer {
public:
    /// `v2` and `v1` are the directories in which the group `name` is, O_PATH; one of them may hold nothing.
    Freezer(std::string name, Fd v2, Fd v1) noexcept : name_{std::move(name)}, v2_{std::move(v2)}, v1_{std::move(v1)} {}
    void freeze();
    void thaw();
    [[nodiscard]] bool frozen() const;

private:
    void write(const Fd& parent, const char* file, const char* text, const char* what) const;
    [[nodiscard]] std::string read(const Fd& parent, const char* file, const char* what) const;
    [[nodiscard]] bool frozen(const char* what) const;
    [[nodiscard]] bool frozen_within(int milliseconds) const;
    [[nodiscard]] std::string who_moves() const;

    std::string name_;
    Fd v2_, v1_;
};

/// Thaws the v1 group `name` of `parent` and all below it, in silence: where SIGKILL has been sent and waits.
void thaw_tree(int parent, const std::string& name);

}  // namespace caisson::inline v0::detail
