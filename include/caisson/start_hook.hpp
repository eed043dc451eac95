// caisson/start_hook.hpp - what the caller does for a container between the making of its namespaces and its command.
#pragma once

#include <concepts>
#include <string_view>
#include <type_traits>

#include <caisson/process.hpp>

namespace caisson::inline v0 {

/// A container that is about to run its command: its namespaces, control groups, id maps and links are there, and its
/// pid 1 waits. Its mounts are not made yet.
struct Starting {
    std::string_view name;
    const Process& init;  ///< for Namespace::of, or, by its pid, for a program that sets networks up
};

/// Refers to a callable that takes a `const Starting&`, as a parameter of the functions that start containers. It is
/// called by them, on the caller's thread, and never kept: what it refers to has to live as long as that call.
///
/// What it throws ends the start, and nothing is left of the container. There is no such thing for other moments of a
/// container's life, since the caller has them: before and after the call, and when it is told of the end.
class StartHook {
public:
    StartHook() = default;
    template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, StartHook> && std::is_object_v<std::remove_reference_t<F>> &&
             std::invocable<F&, const Starting&>) StartHook(F&& callable)   // NOLINT: constrained
    noexcept                                                                // implicit: a lambda is given as it is
        : object_{const_cast<void*>(static_cast<const void*>(&callable))},  // NOLINT: `call_` has its own type
          call_{[](void* object, const Starting& starting) {
              (void)(*static_cast<std::remove_reference_t<F>*>(object))(starting);
          }} {}

    [[nodiscard]] explicit operator bool() const noexcept { return call_ != nullptr; }
    void operator()(const Starting& starting) const { call_(object_, starting); }

private:
    void* object_ = nullptr;
    void (*call_)(void* object, const Starting& starting) = nullptr;
};

}  // namespace caisson::inline v0
