// src/controller_reattach.cpp - containers of helpers in a controller.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
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
    Event last{.id = one.id, .name = one.events.name()};
    const int before = one.events.fd();
    try {
        while (auto event = one.events.next_event()) {
            event->id = one.id;
            const bool is_over = event->kind == Event::Kind::failed;
            push(std::move(*event));
            if (!is_over) continue;
            // A restart has failed. The end before it, which its helper tells as well, was told by `restarting`.
            unwatch(one.events.fd());
            return reattached_.end(one);
        }
        last.status = one.events.try_wait();
        // Of one that was put in its helper's place, the descriptor is another.
        if (!last.status && one.events.fd() != before) watch(one.events.fd(), key(one.id, part_end), EPOLLIN);
        if (!last.status) return;
        last.kind = Event::Kind::exited;
    } catch (const Error& let_go) {
        unwatch(one.events.fd());
        try {
            Helper again = find_helper(last.name, one.run_directory);
            if (again.pid() != one.events.pid()) throw let_go;
            again.watch();
            watch(again.fd(), key(one.id, part_end), EPOLLIN);
            one.events = std::move(again);
            return;
        } catch (const Error& e) {
            last.kind = Event::Kind::failed;
            last.error = e;
        }
    }
    unwatch(one.events.fd());
    push(std::move(last));
    reattached_.end(one);
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
