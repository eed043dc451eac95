// helper_change.hpp - how a client of a helper attaches something to its container, or detaches it.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0::detail {

struct HelperChange {
    /// `with` calls what it is given with the Helper, each time for one question, so that others can ask theirs while
    /// `act` is at it: that takes as long as the container makes it take.
    template <class With, class Do>
    static Change make(With&& with, Do&& act) {
        std::optional<Hotplug> plug;
        std::string name;
        const auto tell = [&](Question kind, const Change& change) {
            with([&](Helper& helper) { note(helper, kind, change); });
        };
        const auto intend = [&](const Change& change) { tell(Question::intent, change); };
        try {
            with([&](Helper& helper) {
                name = helper.name_;
                plug.emplace(begin(helper));
            });
            plug->tell_before(intend);
            Change change = act(*plug);
            plug->keep(change, [&] { tell(Question::change, change); });
            return change;
        } catch (const Error& e) {
            release(with);
            const std::string outer = "container " + quote(name);
            if (plug && plug->container_ended()) throw Error{Step::helper, ESRCH, outer, "it has ended"};
            throw name.empty() || e.context().find(outer) != std::string_view::npos ? e : e.in(outer);
        } catch (...) {
            release(with);
            throw;
        }
    }

private:
    using Question = Message::Kind;

    static Hotplug begin(Helper& helper) {
        Fd pidfd;
        const Message told = helper.ask({.kind = Question::equipment}, &pidfd);
        auto state = decode<HotplugState>(told.body);
        Process init = helper.own_init(std::move(pidfd));
        helper.require_groups({state.group, state.directories}, init);
        state.equipment.stage_path = own_stage(state.equipment.stage_path);
        return {std::move(init), std::move(state)};
    }
    static void note(Helper& helper, Question kind, const Change& change) {
        const bool is_network = change.kind == Change::Kind::network && change.added;
        // The helper may have given up what it takes to open one, and may be in another network namespace.
        const Fd netlink = is_network ? open_netlink() : Fd{};
        (void)helper.ask({.kind = kind, .body = encode(change)}, nullptr, netlink.get());
    }
    /// Others may attach and detach from now on.
    template <class With>
    static void release(With&& with) noexcept {
        try {
            with([](Helper& helper) { (void)helper.ask({.kind = Question::change}); });
        } catch (...) {
            // Who cannot be told has ended, or forgets a client that goes away.
        }
    }
};

}  // namespace caisson::inline v0::detail
