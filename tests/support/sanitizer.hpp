// support/sanitizer.hpp - which sanitizer a test is built with.
#pragma once

namespace caisson_test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool thread_sanitized = true;
#else
inline constexpr bool thread_sanitized = false;
#endif
#else
inline constexpr bool thread_sanitized = false;
#endif

/// Why a test cannot take its own last descriptors away; nullptr where it can.
[[nodiscard]] constexpr const char* why_it_keeps_descriptors() noexcept {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
    return "the sanitizer's check of virtual calls needs a pipe, and takes its absence for a wrong object";
#endif
#endif
    return nullptr;
}

}  // namespace caisson_test
