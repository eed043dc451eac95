// caisson/resource_limit.hpp - limits of a single process, see getrlimit(2).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

namespace caisson::inline v0 {

/// A limit that each process of a container has for itself. Its numbers are the kernel's of x86-64 and aarch64.
struct ResourceLimit {
    enum class Kind : std::uint8_t {
        cpu,
        fsize,
        data,
        stack,
        core,
        rss,
        nproc,
        nofile,
        memlock,
        as,
        locks,
        sigpending,
        msgqueue,
        nice,
        rtprio,
        rttime,
    };
    static constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();
    static constexpr std::array<std::string_view, 16> names{
        "cpu",     "fsize", "data",  "stack",      "core",     "rss",  "nproc",  "nofile",
        "memlock", "as",    "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};

    Kind kind = Kind::nofile;
    std::uint64_t soft = unlimited;
    std::uint64_t hard = unlimited;

    /// getrlimit(2)'s name without "RLIMIT_", in lower case.
    [[nodiscard]] static constexpr std::string_view name(Kind kind) noexcept {
        return names[static_cast<std::size_t>(kind)];
    }
    /// The kind of that name; nothing if there is none.
    [[nodiscard]] static constexpr std::optional<Kind> kind_of(std::string_view name) noexcept {
        for (std::size_t i = 0; i < names.size(); ++i) {
            if (names[i] == name) return static_cast<Kind>(i);
        }
        return std::nullopt;
    }
    friend bool operator==(const ResourceLimit&, const ResourceLimit&) = default;
};

}  // namespace caisson::inline v0
