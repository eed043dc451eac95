// caisson/detail/owned.hpp - the one owner of an object, as std::unique_ptr, whose header has 6,000 lines.
#pragma once

#include <type_traits>
#include <utility>

namespace caisson::inline v0::detail {

struct Delete {
    template <class T>
    void operator()(T* object) const noexcept {
        delete object;
    }
};

/// Owns an object that was made by `new`, or by whatever `End` undoes. Move-only.
template <class T, class End = Delete>
class Owned {
public:
    Owned() noexcept = default;
    explicit Owned(T* object) noexcept : object_{object} {}
    Owned(Owned&& other) noexcept : object_{std::exchange(other.object_, nullptr)} {}
    Owned& operator=(Owned&& other) noexcept {
        reset(std::exchange(other.object_, nullptr));
        return *this;
    }
    /// To a pointer to const.
    template <class U>
    requires(!std::is_same_v<T, U> && std::is_convertible_v<U*, T*>) Owned(Owned<U, End>&& other)
    noexcept : object_{other.release()} {}
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() { reset(); }

    void reset(T* object = nullptr) noexcept {
        T* const old = std::exchange(object_, object);
        if (old != nullptr) End{}(old);
    }
    [[nodiscard]] T* release() noexcept { return std::exchange(object_, nullptr); }
    [[nodiscard]] T* get() const noexcept { return object_; }
    [[nodiscard]] T& operator*() const noexcept { return *object_; }
    [[nodiscard]] T* operator->() const noexcept { return object_; }
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

private:
    T* object_ = nullptr;
};

}  // namespace caisson::inline v0::detail
