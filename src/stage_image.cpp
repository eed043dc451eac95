// src/stage_image.cpp - the stage's bytes inside the library.
#include <caisson/detail/launch.hpp>

namespace caisson::inline v0::detail {
namespace {
constexpr unsigned char image[] = {
#include "stage_image.inc"
};
}  // namespace

std::span<const unsigned char> stage_image() noexcept {
    return image;
}

}  // namespace caisson::inline v0::detail
