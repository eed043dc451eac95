// What caissonctl says when it cannot do what it was asked for, in virsh's two forms.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <caisson/error.hpp>

namespace caissonctl {

/// The command line is wrong: one "error:" line.
class UsageError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The command failed, and has told so itself.
class Silence : public std::exception {};

/// The command failed: "error: what", and "error: reason" where there is one.
class Failure : public std::runtime_error {
public:
    explicit Failure(const std::string& what, std::string reason = {})
        : std::runtime_error{what}, reason_{std::move(reason)} {}
    [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

private:
    std::string reason_;
};

/// A verb has done its work, says nothing more, and the program ends with this status. No error.
struct Finished {
    int status = 0;
};

[[nodiscard]] inline std::string quoted(std::string_view name) {
    return std::string{"'"}.append(name).append("'");
}

/// Runs `work`; what it throws is told as the reason of `outer`.
template <class F>
auto because(const std::string& outer, F&& work) {
    try {
        return work();
    } catch (const caisson::Error& e) {
        throw Failure{outer, e.what()};
    }
}

}  // namespace caissonctl
