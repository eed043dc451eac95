// console_log.hpp - the file that gets what comes out of a console.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <caisson/console.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Never waits for more than a write to a file takes, and never throws once it is open: what could not be written is
/// counted.
class ConsoleLog {
public:
    /// See ConsoleSpec::log. Throws `Step::terminal`.
    explicit ConsoleLog(const ConsoleSpec& spec);
    void write(std::string_view bytes) noexcept;
    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_; }
    /// Why, the last time; 0: nothing was lost.
    [[nodiscard]] int error() const noexcept { return error_; }

private:
    bool begin_anew() noexcept;
    bool open_again() noexcept;
    void copy_to(const std::string& old) const noexcept;

    Fd directory_;
    std::string name_;
    Fd file_;
    std::uint64_t size_ = 0;
    std::uint64_t limit_;
    std::uint64_t lost_ = 0;
    int error_ = 0;
};

}  // namespace caisson::inline v0::detail
