// caisson/error.hpp - the one exception type of the library.
#pragma once

#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace caisson::inline v0 {

/// What the library was doing when it failed; for programs. `what()` is for people.
enum class Step : std::uint8_t {
    check_spec,
    read_xml,
    open_root,
    open_namespace,
    clone,
    map_ids,
    mount,
    pivot_root,
    hostname,
    network,
    terminal,
    cgroup,
    credentials,
    descriptors,
    sysctl,
    exec,
    wait,
    signal,
    event_loop,
    helper,
    sweep,
    report,
    copy,
};

/// The step's name as in the enumerator: "mount", "pivot_root".
[[nodiscard]] constexpr std::string_view to_string(Step step) noexcept {
    constexpr std::string_view names[] = {
        "check_spec", "read_xml", "open_root",  "open_namespace", "clone",       "map_ids",     "mount",  "pivot_root",
        "hostname",   "network",  "terminal",   "cgroup",         "credentials", "descriptors", "sysctl", "exec",
        "wait",       "signal",   "event_loop", "helper",         "sweep",       "report",      "copy"};
    const auto index = static_cast<std::size_t>(step);
    return index < sizeof names / sizeof names[0] ? names[index] : "unknown";
}

/// Thrown by every function of the library that can fail at run time.
///
/// `what()` reads outermost context first, then the kernel's reason, then the remedy where the cause is known:
///
///     container 'web': clone: No space left on device: user.max_user_namespaces is 0: raise it with sysctl(8)
///     container 'web': mount 'proc' on '/proc' (in the child): Operation not permitted
///
/// Broken preconditions are not errors: they throw `std::logic_error`. Copying never throws.
class [[gnu::visibility("default")]] Error : public std::system_error {
public:
    Error(Step step, std::error_code code, std::string_view context, std::string_view remedy = {})
        : std::system_error{code},
          step_{step},
          text_{compose(code, context, remedy)},
          context_size_{context.size()},
          remedy_size_{remedy.size()} {}
    /// From an errno value; 0 means that no system call refused, and the context says it all.
    Error(Step step, int errnum, std::string_view context, std::string_view remedy = {})
        : Error{step, std::error_code{errnum, std::system_category()}, context, remedy} {}

    [[nodiscard]] Step step() const noexcept {
        return step_;
    }
    [[nodiscard]] const char* what() const noexcept override {
        return text_.what();
    }
    /// `what()` without the kernel's reason and the remedy.
    [[nodiscard]] std::string_view context() const noexcept {
        return std::string_view{text_.what()}.substr(0, context_size_);
    }
    /// What the user can do about it; empty where the library does not know.
    [[nodiscard]] std::string_view remedy() const noexcept {
        const std::string_view all{text_.what()};
        return all.substr(all.size() - remedy_size_);
    }
    /// The same error seen from one level further out: `outer: context: reason`.
    [[nodiscard]] Error in(std::string_view outer) const {
        return {step_, code(), std::string{outer}.append(": ").append(context()), remedy()};
    }
    /// The same error with another remedy.
    [[nodiscard]] Error with_remedy(std::string_view remedy) const {
        return {step_, code(), context(), remedy};
    }

private:
    static std::string compose(std::error_code code, std::string_view context, std::string_view remedy) {
        std::string text{context};
        if (code) text.append(text.empty() ? "" : ": ").append(code.message());
        if (!remedy.empty()) text.append(": ").append(remedy);
        return text;
    }

    Step step_;
    std::runtime_error text_;  // a reference-counted string: copying an exception must not throw
    std::size_t context_size_;
    std::size_t remedy_size_;
};

namespace detail {

/// Throws `Error` from the current `errno`.
[[noreturn]] inline void fail(Step step, std::string_view context, std::string_view remedy = {}) {
    throw Error{step, errno, context, remedy};
}

/// `'text'`: how every message names an object. Bytes that a terminal could act on are written as \xHH.
[[nodiscard]] inline std::string quote(std::string_view text) {
    const auto at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
    std::string out{"'"};
    for (std::size_t i = 0; i < text.size(); ++i) {
        const unsigned byte = at(i);
        // In UTF-8, U+0080 to U+009F: an ESC with the character after it, in one.
        const bool c1 = (byte == 0xc2 && at(i + 1) >= 0x80 && at(i + 1) < 0xa0) ||
                        (i > 0 && at(i - 1) == 0xc2 && byte >= 0x80 && byte < 0xa0);
        if (byte < 0x20 || byte == 0x7f || c1) {
            constexpr char digits[] = "0123456789abcdef";
            out.append({'\\', 'x', digits[byte >> 4], digits[byte & 15]});
        } else {
            out += text[i];
        }
    }
    return out += '\'';
}

}  // namespace detail
}  // namespace caisson::inline v0
