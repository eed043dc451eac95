// support/attack.hpp - what tests of attacks share: a part of the host that nothing may touch, and names that change
// all the time.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>

#include <caisson/container.hpp>
#include <caisson/fd.hpp>

#include "support/container.hpp"
#include "support/rootfs.hpp"

namespace caisson_test {

/// A directory of the host that an attack aims at. It holds what a start would make or replace if it were led there:
/// "null", "console", "ptmx", "pts", "self", and so on, and the fifos of an init that reads them. Readable and writable
/// by everybody, so that nothing but the library is in the way.
class Canary {
public:
    Canary();
    Canary(const Canary&) = delete;
    Canary& operator=(const Canary&) = delete;
    [[nodiscard]] const std::string& path() const noexcept { return directory_.path(); }
    [[nodiscard]] std::string operator/(std::string_view name) const { return directory_ / name; }
    /// What was made, removed, changed, opened or read in it since it was made, a line each; empty: nothing. To be
    /// asked once, as this reads it too.
    [[nodiscard]] std::string touched() const;

private:
    [[nodiscard]] std::vector<std::string> look() const;
    TestDirectory directory_;
    std::vector<std::string> before_;
    caisson::Fd readers_[2];
    caisson::Fd watch_;
};

/// A thread that exchanges what two paths name, as fast as it can, until this goes.
class Swapper {
public:
    Swapper(std::string first, std::string second);
    Swapper(const Swapper&) = delete;
    Swapper& operator=(const Swapper&) = delete;
    ~Swapper();

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

/// How often a race is run: `few`, or with the argument `--long` on the program's command line `many` times.
[[nodiscard]] int rounds(int few, int many);

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}
/// Starts it, if it can be, and runs it to its end; what it said on its console, or why it did not start.
inline std::string attempt(const caisson::ContainerSpec& spec) {
    try {
        if (spec.console) return run(spec);
        return caisson::Container::start(spec).wait().success() ? "" : "it failed";
    } catch (const caisson::Error& e) {
        return e.what();
    }
}
/// The /proc/PID of a running container's keeper.
inline std::string keeper_directory(const caisson::Container& container) {
    return "/proc/" + std::to_string(keeper_of(container));
}
/// The spec, without a user namespace where `user` is false: root inside is root outside.
inline caisson::ContainerSpec with_user(caisson::ContainerSpec spec, bool user) {
    if (!user) spec.namespaces = spec.namespaces.without(caisson::NamespaceKind::user);
    return spec;
}

/// What the function throws; empty: nothing.
template <class Act>
std::string error_from(Act&& act) {
    try {
        act();
        return {};
    } catch (const caisson::Error& e) {
        return e.what();
    }
}

/// Puts a symbolic link in the place of `path`, whatever is there.
void replace_by_link(const std::string& path, const std::string& target);

}  // namespace caisson_test
