// src/cgroup_limits.cpp - the limits of a control group: written, and read back.
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>

#include <caisson/cgroup.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/limits.hpp>

#include "limit_change.hpp"

namespace caisson::inline v0 {
namespace {

using detail::quote;
using limit_words::Change;
using limit_words::first_line;
using limit_words::value_of;

/// What follows the device in its line; empty where it has none.
std::string_view line_of(std::string_view text, std::string_view device) {
    while (!text.empty()) {
        std::string_view line = detail::take_field(text, '\n');
        if (detail::take_field(line, ' ') == device) return line;
    }
    return {};
}

/// Whether `text`, as read back, is what was written.
bool is_in_force(const Change& change, std::string_view text) {
    switch (change.kind) {
        case Change::Kind::word: return first_line(text) == change.text;
        case Change::Kind::bytes: {
            const std::uint64_t is = value_of(first_line(text));
            return is == value_of(change.text) || is == change.value / change.unit * change.unit;
        }
        case Change::Kind::list:
            return limit_words::parse_list(first_line(text)) == limit_words::parse_list(change.text);
        case Change::Kind::weight: {
            text = first_line(text);
            if (text.starts_with("default ")) text.remove_prefix(8);
            return text == change.text;
        }
        case Change::Kind::device: break;
    }
    const std::string_view line = line_of(text, change.device);
    for (std::string_view rest = change.text; !rest.empty();) {
        const std::string_view one = detail::take_field(rest, ' ');
        const bool is_none = one == "0" || one.ends_with("=max");
        if (line.empty() ? !is_none : !detail::list_has(line, one, ' ')) return false;
    }
    return true;
}
/// What puts a file back whose content was `before`.
std::string undo_text(const Change& change, std::string_view before) {
    if (change.kind != Change::Kind::device) return std::string{first_line(before)} + "\n";
    const std::string_view line = line_of(before, change.device);
    return change.device + " " + (line.empty() ? change.if_none : std::string{line});
}

}  // namespace

void Cgroup::LimitChange::make() {
    done_.reserve(changes_.size());
    try {
        for (const Change& change : changes_) apply(change);
    } catch (const Error& e) {
        const std::string stuck = put_back();
        if (stuck.empty()) throw;
        throw e.with_remedy(std::string{e.remedy()} + (e.remedy().empty() ? "" : "; ") + stuck);
    } catch (...) {
        (void)put_back();
        throw;
    }
}

void Cgroup::LimitChange::apply(const Change& change) {
    const CgroupDirectory& d = *change.directory;
    const std::string text = (change.device.empty() ? "" : change.device + " ") + change.text;
    std::string before;
    Done done{&change, {}, {}};
    Fd fd;
    int error = ENOENT;
    for (const std::string& name : change.files) {
        Fd next = group_.open_file(d, name.c_str(), O_RDWR);
        if (!next && errno == ENOENT && !done.file.empty()) continue;
        done.file = name;
        error = 0;
        if (!next || !read_all(next, before)) error = errno;
        if (error == 0 && change.needs_room && value_of(text_of(d, "memory.current")) > change.value) error = EBUSY;
        done.undo = undo_text(change, before);
        if (error == 0 && !detail::sys::write_all(next.get(), text)) error = errno;
        fd = std::move(next);
        if (error != ENOENT && error != EOPNOTSUPP) break;
    }
    if (error == ENOENT && change.may_be_absent) return;
    const std::string context = of_group(change.what) + ": write " + quote(group_.path(d) + "/" + done.file);
    if (error != 0) {
        const char* remedy = change.remedy == nullptr ? nullptr : change.remedy(error);
        throw Error{Step::cgroup, error, context,
                    remedy != nullptr ? std::string{remedy} : detail::remedy_for(error, group_.path(d))};
    }
    done_.push_back(std::move(done));
    std::string is;
    if (!read_all(fd, is)) detail::fail(Step::cgroup, context + " and read it back");
    if (is_in_force(change, is) && is_effective(change, is)) return;
    if (change.kind == Change::Kind::device) is = line_of(is, change.device);
    throw Error{Step::cgroup, 0, context, "the kernel made " + quote(first_line(is)) + " of it"};
}

/// v2 takes a list of CPUs that the group above does not have, and then uses others.
bool Cgroup::LimitChange::is_effective(const Change& change, std::string& is) const {
    if (change.kind != Change::Kind::list || !change.directory->v2()) return true;
    is = text_of(*change.directory, (change.files.front() + ".effective").c_str());
    return limit_words::parse_list(is) == limit_words::parse_list(change.text);
}

/// In the opposite order; what could not be.
std::string Cgroup::LimitChange::put_back() noexcept {
    try {
        std::string stuck;
        for (auto done = done_.rbegin(); done != done_.rend(); ++done) {
            if (group_.write(*done->change->directory, done->file.c_str(), done->undo)) continue;
            stuck += (stuck.empty() ? "changed and not put back: " : ", ") + quote(done->file);
        }
        return stuck;
    } catch (...) {  // no memory
        return {};
    }
}

const CgroupDirectory& Cgroup::need(const char* controller, const std::string& what) const {
    if (const CgroupDirectory* d = find(controller)) return *d;
    const std::string context = what + " for control group " + detail::quote(name_);
    if (directories_.empty()) throw Error{Step::cgroup, 0, context, "there is no group"};
    for (const LeftOut& out : left_out_) {
        if (!detail::list_has(out.controllers, controller)) continue;
        const std::string hierarchy = "cgroup hierarchy " + detail::quote(controller);
        if (out.path.empty()) throw Error{Step::cgroup, out.error, context, hierarchy + " is not mounted"};
        throw Error{Step::cgroup, out.error, context, hierarchy + ": " + detail::remedy_for(out.error, out.path)};
    }
    for (const CgroupDirectory& d : directories_) {
        if (!d.v2()) continue;
        std::string there;
        const std::string what_is = "controller " + detail::quote(controller) + " is not ";
        if (detail::sys::read_file(AT_FDCWD, (d.parent_path + "/cgroup.controllers").c_str(), there) &&
            !detail::list_has(without_newline(there), controller, ' ')) {
            throw Error{Step::cgroup, 0, context,
                        what_is + "handed down to " + detail::quote(d.parent_path) +
                            ": switch it on in the cgroup.subtree_control of each group above, or use a kernel "
                            "that has it"};
        }
        throw Error{Step::cgroup, 0, context,
                    what_is + "switched on in " + detail::quote(d.parent_path + "/cgroup.subtree_control") +
                        ": switch it on, or give a parent without processes of its own"};
    }
    throw Error{Step::cgroup, 0, context, "no cgroup hierarchy has the controller " + detail::quote(controller)};
}

void Cgroup::require_there(const char* what) const {
    const std::string context = std::string{what} + " of control group " + quote(name_);
    if (directories_.empty()) throw Error{Step::cgroup, 0, context, "there is no group"};
    if (open_file(directories_.front(), "", O_PATH) || errno != ENOENT) return;
    throw Error{Step::cgroup, ENOENT, context, "it was removed: what was in it has ended"};
}

void Cgroup::limit(const LimitSpec& limits) {
    if (limits == LimitSpec{}) return;
    require_there("limits");
    LimitChange change{*this, limits};
    change.plan();
    change.make();
}

}  // namespace caisson::inline v0
