// caisson/detail/turns.hpp - one at a time for each container, while nobody waits for what is done to another.
#pragma once

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include <caisson/detail/owned.hpp>
#include <caisson/event.hpp>

namespace caisson::inline v0::detail {

/// Any thread may take a turn. Who has one may outlive the container, but not this object.
class Turns {
public:
    class Turn;

private:
    struct Queue {
        ContainerId id;
        int callers = 0;
        std::mutex mutex{};
    };

    std::mutex mutex_;
    std::vector<Owned<Queue>> queues_;  // of those containers that somebody has a turn of, or waits for one
};

class Turns::Turn {
public:
    /// Waits until it is the caller's.
    Turn(Turns& all, ContainerId id) : all_{all}, queue_{enter(all, id)} { queue_.mutex.lock(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
        queue_.mutex.unlock();
        const std::lock_guard lock{all_.mutex_};
        if (--queue_.callers > 0) return;
        std::erase_if(all_.queues_, [this](const auto& one) { return one.get() == &queue_; });
    }

private:
    static Queue& enter(Turns& all, ContainerId id) {
        const std::lock_guard lock{all.mutex_};
        auto found =
            std::find_if(all.queues_.begin(), all.queues_.end(), [id](const auto& one) { return one->id == id; });
        if (found == all.queues_.end()) {
            Owned<Queue> made{new Queue{id}};
            found = all.queues_.insert(all.queues_.end(), std::move(made));
        }
        ++(*found)->callers;
        return **found;
    }

    Turns& all_;
    Queue& queue_;
};

}  // namespace caisson::inline v0::detail
