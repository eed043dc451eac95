// helper_change.hpp - how a client of a helper attaches something to its container, or detaches it.
#pragma once

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include <caisson/detail/container_record.hpp>
#include <caisson/detail/hotplug.hpp>
#include <caisson/detail/owner.hpp>
#include <caisson/detail/state_record.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/helper.hpp>

namespace caisson::inline v0::detail {

struct HelperChange {
    /// `with` calls what it is given with the Helper, each time for one question, so that others can ask theirs while
    /// `act` is at it: that takes as long as the container makes it take.
    template <class With, class Do>
    static Change make(With&& with, Do&& act) {
        std::optional<Ledger> ledger;
        std::optional<Hotplug> plug;
        std::string name;
        // In writing first: the helper may be nobody to be relied upon.
        const auto tell = [&](Question kind, const Change& change) {
            ledger->write(&change);
            with([&](Helper& helper) { note(helper, kind, change); });
        };
        const auto intend = [&](const Change& change) { tell(Question::intent, change); };
        const auto give_up = [&]() noexcept {
            if (ledger) ledger->restore();
            release(with);
        };
        try {
            with([&](Helper& helper) {
                name = helper.name_;
                plug.emplace(begin(helper, ledger));
            });
            plug->tell_before(intend);
            Change change = act(*plug);
            plug->keep(change, [&] {
                tell(Question::change, change);
                ledger->close();
            });
            return change;
        } catch (const Error& e) {
            give_up();
            const std::string outer = "container " + quote(name);
            if (plug && plug->container_ended()) throw Error{Step::helper, ESRCH, outer, "it has ended"};
            throw name.empty() || e.context().find(outer) != std::string_view::npos ? e : e.in(outer);
        } catch (...) {
            give_up();
            throw;
        }
    }

private:
    using Question = Message::Kind;

    /// The container's file, which nobody else writes meanwhile.
    class Ledger {
    public:
        Ledger(LockedDirectory directory, std::string path, Owner init, ContainerRecord before)
            : directory_{std::move(directory)}, path_{std::move(path)}, init_{init}, before_{std::move(before)} {}
        /// What it was, with this change. Throws with ESRCH where the container has been started again.
        void write(const Change* change) {
            const auto state = StateRecord::read(directory_.fd());
            if (!state || state->init != init_) throw Error{Step::helper, ESRCH, "container", "it has ended"};
            ContainerRecord now = before_;
            if (change != nullptr) now.note(*change);
            is_written_ = true;
            now.write(directory_.fd(), init_, path_);
        }
        void close() noexcept { is_written_ = false; }
        void restore() noexcept {
            try {
                if (is_written_) write(nullptr);
            } catch (...) {
                // It has ended; or what there is no room to take back counts as given, which takes nothing from others.
            }
        }

    private:
        LockedDirectory directory_;
        std::string path_;
        Owner init_;
        ContainerRecord before_;
        bool is_written_ = false;
    };

    static Hotplug begin(Helper& helper, std::optional<Ledger>& ledger) {
        const std::string path = helper.run_directory_ + "/" + helper.name_;
        Fd pidfd;
        (void)helper.ask({.kind = Question::equipment}, &pidfd);
        if (!pidfd) throw helper.without_descriptor();
        Process init = helper.own_init(std::move(pidfd));
        LockedDirectory directory = ContainerRecord::lock(path);
        ContainerRecord record = helper.container_record(init);
        const auto state = helper.record();
        if (!state || !state->init) throw Error{Step::helper, ESRCH, "container", "it has ended"};
        HotplugState hotplug = record.hotplug;
        hotplug.equipment.stage_path = own_stage(hotplug.equipment.stage_path);
        ledger.emplace(std::move(directory), path, *state->init, std::move(record));
        return {std::move(init), std::move(hotplug)};
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
