// support/attack.hpp - what tests of attacks share: a part of the host that nothing may touch, and names that change
// all the time.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <caisson/fd.hpp>

#include "support/rootfs.hpp"

namespace caisson_test {

/// A directory of the host that an attack aims at. It holds what a start would make or replace if it were led there:
/// "null", "console", "ptmx", "pts", "self", and so on. Readable and writable by everybody, so that nothing but the
/// library is in the way.
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

/// Puts a symbolic link in the place of `path`, whatever is there.
void replace_by_link(const std::string& path, const std::string& target);

}  // namespace caisson_test
