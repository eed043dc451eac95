// What runs, asked again and again: one client of each container's helper, kept open.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include <caisson/helper.hpp>
#include <caisson/usage.hpp>

#include "layout.hpp"

namespace top {

class Collector {
public:
    explicit Collector(std::string run_directory) : run_{std::move(run_directory)} {}
    /// What has been used since the call before, and what is in use now. Throws `caisson::Error` only where the
    /// directory of what runs cannot be read: containers that come, go, do not answer or are another user's are no
    /// errors.
    [[nodiscard]] View collect();

private:
    using Clock = std::chrono::steady_clock;
    struct Client {
        caisson::Helper helper;
        std::optional<caisson::Usage> before{};
        Clock::time_point asked{};
        Clock::time_point silent_until{};  ///< it did not answer, which took long
    };
    /// Of one container; nothing once it has ended.
    [[nodiscard]] std::optional<Row> ask(Client& client, View& view) const;
    void find_new(View& view);

    std::string run_;
    std::map<std::string, Client> clients_;
};

}  // namespace top
