// caisson/detail/reattached.hpp - a controller's containers that helpers run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <caisson/detail/owned.hpp>
#include <caisson/event.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0::detail {

struct Reattached {
    Reattached(ContainerId number, std::string directory, Helper watching, Helper asked)
        : id{number}, run_directory{std::move(directory)}, events{std::move(watching)}, questions{std::move(asked)} {}

    ContainerId id;
    std::string run_directory;
    Helper events;     // of the controller's loop
    Helper questions;  // of who holds `asking`
    std::mutex asking{};
    int callers = 0;
    bool is_sought = false;    // the helper has hung up on `events`
    std::int64_t lost_at = 0;  // since when nothing has come from it; 0: it is there
    std::int64_t seek_at = 0;
    bool ended = false;
};

class [[gnu::visibility("default")]] Reattachments;

/// The helper of a container, for one question, while others wait for theirs.
class HelperCall {
public:
    HelperCall() noexcept = default;
    HelperCall(Reattachments& all, Reattached& one) noexcept : all_{&all}, one_{&one} {}
    HelperCall(const HelperCall&) = delete;
    ~HelperCall();
    explicit operator bool() const noexcept { return one_ != nullptr; }
    Helper* operator->() const noexcept { return &one_->questions; }
    Helper& operator*() const noexcept { return one_->questions; }

private:
    Reattachments* all_ = nullptr;
    Reattached* one_ = nullptr;
};

/// Any thread may call any of these.
class Reattachments {
public:
    Reattached& add(ContainerId id, const std::string& run_directory, Helper events, Helper questions);
    /// Nothing if the container is none of a helper's, or has ended.
    [[nodiscard]] HelperCall call(ContainerId id);
    [[nodiscard]] Reattached* find(ContainerId id);
    /// It is found no more, and goes with the last question that is under way.
    void end(Reattached& one);
    [[nodiscard]] std::vector<ContainerId> ids() const;

private:
    friend class HelperCall;
    Reattached* look_up(ContainerId id) noexcept;
    void forget(Reattached& one) noexcept;

    mutable std::mutex mutex_;
    std::vector<Owned<Reattached>> all_;
};

inline HelperCall::~HelperCall() {
    if (one_ == nullptr) return;
    one_->asking.unlock();
    const std::lock_guard lock{all_->mutex_};
    --one_->callers;
    all_->forget(*one_);
}

}  // namespace caisson::inline v0::detail
