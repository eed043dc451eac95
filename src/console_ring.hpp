// console_ring.hpp - the latest bytes of a stream, in as much memory as they take.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>

namespace caisson::inline v0::detail {

/// Bytes are known by their place in all that ever came. Those from `begin` to `end` are kept, as many as the owner
/// leaves there; there is no memory while there are none.
class Ring {
public:
    [[nodiscard]] std::uint64_t begin() const noexcept { return begin_; }
    [[nodiscard]] std::uint64_t end() const noexcept { return end_; }
    [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(end_ - begin_); }
    [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }
    /// What it takes at this moment.
    [[nodiscard]] std::size_t memory() const noexcept { return room_; }

    /// What is read can be kept afterwards, whatever the allocator has left then. Lasts until `drop_before`.
    void reserve(std::size_t more) {
        if (size() + more > room_) move_to(std::bit_ceil(size() + more));
    }
    /// Throws nothing where there is room.
    void append(std::string_view bytes) {
        reserve(bytes.size());
        while (!bytes.empty()) {
            const std::size_t at = place(end_);
            const std::size_t part = std::min(bytes.size(), room_ - at);
            std::copy_n(bytes.data(), part, bytes_.get() + at);
            end_ += part;
            bytes.remove_prefix(part);
        }
    }
    /// The bytes from `position` on, as far as they lie together: not empty before the end.
    [[nodiscard]] std::string_view from(std::uint64_t position) const noexcept {
        if (position == end_) return {};
        const std::size_t at = place(position);
        return {bytes_.get() + at, std::min(static_cast<std::size_t>(end_ - position), room_ - at)};
    }
    /// Forgets what is before `position`.
    void drop_before(std::uint64_t position) noexcept {
        begin_ = std::clamp(position, begin_, end_);
        if (empty()) {
            bytes_.reset();
            room_ = 0;
        } else if (room_ > least && size() * 4 <= room_) {
            try {
                move_to(std::bit_ceil(size()));
            } catch (const std::bad_alloc&) {
                // There is room enough where they are.
            }
        }
    }

private:
    static constexpr std::size_t least = 256;

    [[nodiscard]] std::size_t place(std::uint64_t position) const noexcept {
        return static_cast<std::size_t>(position - base_) & (room_ - 1);
    }
    void move_to(std::size_t room) {
        room = std::max(room, least);
        auto fresh = std::make_unique_for_overwrite<char[]>(room);
        char* to = fresh.get();
        for (std::uint64_t at = begin_; at != end_;) {
            const std::string_view part = from(at);
            to = std::copy_n(part.data(), part.size(), to);
            at += part.size();
        }
        bytes_ = std::move(fresh);
        room_ = room;
        base_ = begin_;
    }

    std::unique_ptr<char[]> bytes_;
    std::size_t room_ = 0;  // a power of two, or none
    std::uint64_t base_ =
        0;  // what lies at the front of the memory: what comes where nothing is kept lies in one piece
    std::uint64_t begin_ = 0;
    std::uint64_t end_ = 0;
};

}  // namespace caisson::inline v0::detail
