// src/controller_reattach.cpp - containers of helpers in a controller.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/epoll.h>

#include <caisson/controller.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0 {
namespace {

Helper find_helper(const std::string& name, const std::string& run_directory) {
    if (auto found = Helper::find(name, run_directory)) return std::move(*found);
    throw Error{Step::helper, ESRCH, "container " + detail::quote(name),
                "no helper in " + detail::quote(run_directory) + " runs it"};
}

}  // namespace

namespace detail {

Reattached& Reattachments::add(ContainerId id, const std::string& run_directory, Helper events, Helper questions) {
    Owned<Reattached> one{new Reattached{id, run_directory, std::move(events), std::move(questions)}};
    const std::lock_guard lock{mutex_};
    return *all_.emplace_back(std::move(one));
}

HelperCall Reattachments::call(ContainerId id) {
    Reattached* one = nullptr;
    {
        const std::lock_guard lock{mutex_};
        one = look_up(id);
        if (one == nullptr) return {};
        ++one->callers;
    }
    one->asking.lock();
    return {*this, *one};
}

Reattached* Reattachments::find(ContainerId id) {
    const std::lock_guard lock{mutex_};
    return look_up(id);
}

Reattached* Reattachments::look_up(ContainerId id) noexcept {
    const auto found =
        std::find_if(all_.begin(), all_.end(), [id](const auto& one) { return one->id == id && !one->ended; });
    return found == all_.end() ? nullptr : found->get();
}

void Reattachments::end(Reattached& one) {
    const std::lock_guard lock{mutex_};
    one.ended = true;
    forget(one);
}

void Reattachments::forget(Reattached& one) noexcept {
    if (!one.ended || one.callers > 0) return;
    std::erase_if(all_, [&one](const auto& other) { return other.get() == &one; });
}

std::vector<ContainerId> Reattachments::ids() const {
    const std::lock_guard lock{mutex_};
    std::vector<ContainerId> ids;
    for (const auto& one : all_) {
        if (!one->ended) ids.push_back(one->id);
    }
    return ids;
}

}  // namespace detail

ContainerId Controller::reattach(const std::string& name, const std::string& run_directory) {
    const ContainerId id = next_id();
    Helper events = find_helper(name, run_directory);
    events.watch();
    events.waits_ = false;
    Helper questions = find_helper(name, run_directory);
    const std::lock_guard lock{own()};
    watch(events.fd(), key(id, part_end), EPOLLIN);
    // What its helper has told together with an answer is not announced again.
    hear(reattached_.add(id, run_directory, std::move(events), std::move(questions)));
    return id;
}

bool Controller::hear_helper(ContainerId id) {
    detail::Reattached* const one = reattached_.find(id);
    if (one != nullptr) hear(*one);
    return one != nullptr;
}

void Controller::hear(detail::Reattached& one) {
    if (one.is_sought) return;
    Event last{.id = one.id, .name = one.events.name()};
    try {
        // Once: the others have their turns before what it tells meanwhile.
        std::optional<Error> error;
        try {
            last.status = one.events.try_wait();
        } catch (const Error& e) {
            error = e;
        }
        while (auto event = one.events.take_event()) {
            event->id = one.id;
            // A restart has failed. The end before it, which its helper tells as well, was told by `restarting`.
            if (event->kind == Event::Kind::failed) return end_reattached(one, std::move(*event));
            push(std::move(*event));
        }
        if (error) throw Error{*error};
        if (!last.status) {
            one.lost_at = 0;
            return;
        }
    } catch (const Error&) {
        const std::int64_t now = detail::monotonic_ms();
        unwatch(one.events.fd());
        one.is_sought = true;
        if (one.lost_at == 0) one.lost_at = now;
        return seek(one, now);
    }
    last.kind = Event::Kind::exited;
    end_reattached(one, std::move(last));
}

void Controller::end_reattached(detail::Reattached& one, Event last) {
    unwatch(one.events.fd());
    push(std::move(last));
    reattached_.end(one);
}

void Controller::seek(detail::Reattached& one, std::int64_t now) {
    std::optional<Error> error;
    try {
        // It may be about to end, or have too many clients at this moment.
        if (one.seek_at <= now) {
            one.seek_at = now + seek_ms;
            if (one.events.find_again()) {
                watch(one.events.fd(), key(one.id, part_end), EPOLLIN);
                one.is_sought = false;
                return;
            }
        }
    } catch (const Error& e) {
        error = e;
    }
    // That it has ended since, or another has its name, is so for good.
    const bool is_gone = error && error->code().value() == ESRCH;
    if (!is_gone && now - one.lost_at < give_up_seeking_ms) {
        seeks_helpers_ = true;
        return arm(one.seek_at);
    }
    if (!error) {
        error.emplace(Step::helper, ECONNRESET, "helper of container " + detail::quote(one.events.name()),
                      "it has let this client go, and is not found again");
    }
    Event last{.kind = Event::Kind::failed, .id = one.id, .name = one.events.name(), .error = std::move(error)};
    end_reattached(one, std::move(last));
}

void Controller::seek_helpers(std::int64_t now) {
    if (!std::exchange(seeks_helpers_, false)) return;
    for (const ContainerId id : reattached_.ids()) {
        detail::Reattached* const one = reattached_.find(id);
        if (one != nullptr && one->is_sought) seek(*one, now);
    }
}

void Controller::add_reattached_usage(UsageParts parts, std::vector<ContainerUsage>& into, std::size_t filled) {
    for (const ContainerId id : reattached_.ids()) {
        const auto helper = call_helper(id);
        if (!helper) continue;
        if (filled == into.size()) into.emplace_back();
        ContainerUsage& one = into[filled++];
        one = {.id = id, .name = helper->name()};
        try {
            one.usage = helper->usage(parts);
        } catch (const Error& e) {
            if (e.code().value() == ESRCH) --filled;
            else one.missing = e.what();
        }
    }
    into.resize(filled);
}

}  // namespace caisson::inline v0
