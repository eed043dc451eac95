// caisson/detail/device_control.hpp - which devices the processes of a control group may use, enforced by the kernel.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/device.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>

namespace caisson::inline v0::detail {

/// Lets the processes of the v2 group that `group` is a descriptor of use what `rules` name, and no other device. The
/// program that decides lives as long as the group; groups below may add programs, all of which must agree. Throws
/// `Step::cgroup`. Implemented in src/device_program.cpp.
[[gnu::visibility("default")]] void attach_device_program(int group, const std::vector<DeviceRule>& rules);

/// The same for a group that has such a program already: the new one takes its place, and nothing is allowed between.
/// False if it has none.
[[gnu::visibility("default")]] bool replace_device_program(int group, const std::vector<DeviceRule>& rules);

/// A rule as v1's devices.allow takes it: "c 1:3 rwm".
[[nodiscard]] inline std::string device_rule_text(const DeviceRule& rule) {
    const auto number = [](std::optional<std::uint32_t> n) { return n ? std::to_string(*n) : std::string{"*"}; };
    std::string text = rule.type == DeviceRule::Type::block ? "b " : "c ";
    text += number(rule.major) + ":" + number(rule.minor) + " ";
    if (rule.access.read) text += 'r';
    if (rule.access.write) text += 'w';
    if (rule.access.make) text += 'm';
    return text;
}

/// What a container may use of the host's devices: null, zero, full, random, urandom, tty, ptmx and terminals, and what
/// is added.
class DeviceControl {
public:
    DeviceControl() {
        struct Standard {
            std::uint32_t major;
            std::optional<std::uint32_t> minor;
        };
        constexpr std::uint32_t terminals = 136;  // of every devpts instance
        for (const Standard& s : {Standard{1, 3}, Standard{1, 5}, Standard{1, 7}, Standard{1, 8}, Standard{1, 9},
                                  Standard{5, 0}, Standard{5, 2}, Standard{terminals, std::nullopt}}) {
            entries_.push_back(
                {{DeviceRule::Type::character, s.major, s.minor, {.read = true, .write = true, .make = true}}, false});
        }
    }
    /// Rules for the same device are one rule with the access of both: the kernel wants all of it from one.
    void allow(const DeviceRule& rule) {
        const auto same = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) {
            return e.rule.type == rule.type && e.rule.major == rule.major && e.rule.minor == rule.minor;
        });
        if (same == entries_.end()) {
            entries_.push_back({rule, true});
            return;
        }
        DeviceAccess& access = same->rule.access;
        access.read = access.read || rule.access.read;
        access.write = access.write || rule.access.write;
        access.make = access.make || rule.access.make;
        same->asked = true;
    }
    [[nodiscard]] std::vector<DeviceRule> rules() const {
        std::vector<DeviceRule> all;
        for (const Entry& e : entries_) all.push_back(e.rule);
        return all;
    }

    struct Demand {
        bool asked = false;         ///< the spec asks for rules: they are set, or it is an error
        bool root_outside = false;  ///< root inside is root outside, and may make nodes and mount
    };
    /// Makes a group follow the rules, by v1's controller where the group has it, else by a program on its v2
    /// directory. Processes in the group are held to it from their next open(2) on. Throws `Step::cgroup`.
    ///
    /// What nobody asks for is left out where the machine cannot give it; with root that is root outside, only for a
    /// caller who may not set rules, and so may not make nodes either.
    void apply(const Cgroup& group, Demand demand) const {
        const auto bearable = [&](const Error& e) {
            return !demand.asked && (demand.root_outside ? may_not(e) : cannot(e));
        };
        try {
            const CgroupDirectory* v1 = find(group, "devices");
            const CgroupDirectory* v2 = find(group, "");
            if (v1 == nullptr) {
                (void)attempt([&] { attach(v2); }, bearable);
                return;
            }
            if (!attempt([&] { deny_all(group, *v1); }, bearable)) return;
            allow_entries(group, *v1);
            // v1's hierarchy can be mounted inside, and the rules taken off there; to take a program off needs bpf(2),
            // which the profiles of system calls refuse to who has not CAP_BPF.
            if (demand.root_outside && v2 != nullptr) (void)attempt([&] { attach(v2); }, cannot);
        } catch (const Error& e) {
            throw e.in("device rules for control group " + quote(group.name()));
        }
    }

    /// Makes a group that follows `before` follow these, as far as it follows rules at all. All or nothing, and what
    /// both allow is allowed all the time. False if it follows none. Throws `Step::cgroup`, with ENOENT if the group is
    /// gone.
    [[nodiscard]] bool change(const Cgroup& group, const DeviceControl& before) const {
        try {
            const CgroupDirectory* const v1 = find(group, "devices");
            const CgroupDirectory* const v2 = find(group, "");
            if (v1 != nullptr) change_entries(group, *v1, before);
            if (v2 == nullptr) return v1 != nullptr;
            try {
                const Fd directory = sys::open(v2->parent_path + "/" + group.name(), O_PATH | O_DIRECTORY);
                if (!directory) fail(Step::cgroup, "open " + quote(v2->parent_path + "/" + group.name()));
                return replace_device_program(directory.get(), rules()) || v1 != nullptr;
            } catch (...) {
                if (v1 != nullptr) before.change_entries(group, *v1, *this);
                throw;
            }
        } catch (const Error& e) {
            throw e.in("device rules for control group " + quote(group.name()));
        }
    }

private:
    struct Entry {
        DeviceRule rule;
        bool asked;
    };

    /// What of `entry` the entries here do not allow.
    [[nodiscard]] std::optional<DeviceRule> missing(const Entry& entry) const {
        DeviceRule left = entry.rule;
        for (const Entry& e : entries_) {
            if (e.rule.type != left.type || e.rule.major != left.major || e.rule.minor != left.minor) continue;
            left.access.read = left.access.read && !e.rule.access.read;
            left.access.write = left.access.write && !e.rule.access.write;
            left.access.make = left.access.make && !e.rule.access.make;
        }
        if (!left.access.read && !left.access.write && !left.access.make) return std::nullopt;
        return left;
    }
    void change_entries(const Cgroup& group, const CgroupDirectory& d, const DeviceControl& before) const {
        const auto write_missing = [&](const char* file, const DeviceControl& from, const DeviceControl& of) {
            for (const Entry& entry : of.entries_) {
                const auto rule = from.missing(entry);
                if (!rule) continue;
                const std::string text = device_rule_text(*rule);
                const Fd fd = open(group, d, file);
                if (!sys::write_all(fd.get(), text)) fail_to_write(group, d, file, text);
            }
        };
        try {
            write_missing("devices.allow", before, *this);
            write_missing("devices.deny", *this, before);
        } catch (...) {
            try {
                write_missing("devices.deny", before, *this);
            } catch (const Error&) {
                // The first refusal is the one to tell.
            }
            throw;
        }
    }
    [[noreturn]] static void fail_to_write(const Cgroup& group, const CgroupDirectory& d, const char* file,
                                           const std::string& text) {
        fail(Step::cgroup, "write " + quote(text) + " to " + path(group, d, file),
             errno != EPERM                              ? ""
             : std::string_view{file} == "devices.allow" ? "the group above may not use this device itself"
                                                         : "this needs CAP_SYS_ADMIN in the host's first user "
                                                           "namespace");
    }

    [[nodiscard]] static const CgroupDirectory* find(const Cgroup& group, std::string_view controller) {
        for (const CgroupDirectory& d : group.directories()) {
            if (controller.empty() ? d.v2() : list_has(d.controllers, controller)) return &d;
        }
        return nullptr;
    }
    [[nodiscard]] static Fd open(const Cgroup& group, const CgroupDirectory& d, const char* file) {
        const std::string below = group.name() + "/" + file;
        // A group that has settled is reached by its path.
        Fd fd = d.parent ? sys::open_at(d.parent.get(), below.c_str(), O_WRONLY)
                         : sys::open(d.parent_path + "/" + below, O_WRONLY);
        if (!fd) fail(Step::cgroup, "open " + path(group, d, file));
        return fd;
    }
    [[nodiscard]] static std::string path(const Cgroup& group, const CgroupDirectory& d, const char* file) {
        return quote(d.parent_path + "/" + group.name() + "/" + file);
    }

    /// False where `f` throws what can be borne.
    template <class F, class Bearable>
    [[nodiscard]] static bool attempt(F f, Bearable bearable) {
        try {
            f();
            return true;
        } catch (const Error& e) {
            if (!bearable(e)) throw;
            return false;
        }
    }
    [[nodiscard]] static bool may_not(const Error& e) noexcept {
        return e.code().value() == EPERM || e.code().value() == EACCES;
    }
    /// The caller or the machine; not a refusal that may pass.
    [[nodiscard]] static bool cannot(const Error& e) noexcept {
        const int error = e.code().value();
        return may_not(e) || error == 0 || error == EROFS || error == ENOSYS || error == EINVAL;
    }

    void attach(const CgroupDirectory* v2) const {
        if (v2 != nullptr) return attach_device_program(v2->directory.get(), rules());
        throw Error{Step::cgroup, 0, "there is neither cgroup v1's controller 'devices' nor cgroup v2",
                    "mount one of them so that the caller may write to it"};
    }
    static void deny_all(const Cgroup& group, const CgroupDirectory& d) {
        const Fd deny = open(group, d, "devices.deny");
        if (sys::write_all(deny.get(), "a")) return;
        fail(Step::cgroup, "write 'a' to " + path(group, d, "devices.deny"),
             errno == EPERM ? "this needs CAP_SYS_ADMIN in the host's first user namespace" : "");
    }
    void allow_entries(const Cgroup& group, const CgroupDirectory& d) const {
        const Fd allow = open(group, d, "devices.allow");
        for (const Entry& e : entries_) {
            const std::string text = device_rule_text(e.rule);
            if (sys::write_all(allow.get(), text)) continue;
            // What the group above may not use is not there to be given.
            if (errno == EPERM && !e.asked) continue;
            fail_to_write(group, d, "devices.allow", text);
        }
    }

    std::vector<Entry> entries_;
};

}  // namespace caisson::inline v0::detail
