// src/check_mounts.cpp - what makes a root, or a mount, impossible.
#include "check_parts.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <range/v3/view/enumerate.hpp>

#include <caisson/detail/fscontext.hpp>
#include <caisson/detail/plan_mounts.hpp>

namespace caisson::inline v0::checking {
namespace {

using detail::quote;
namespace views = ranges::views;
using Type = MountSpec::Type;

/// `upper` and `work` of an overlay, the fields of which are called `field` and a member.
void check_upper(const std::string& field, const std::string& upper, const std::string& work) {
    if (upper.empty() != work.empty()) {
        refuse(field + (upper.empty() ? ".upper" : ".work"), "it is empty",
               "an overlay takes upper and work together, or none of them");
    }
    if (upper.empty()) return;
    check_path(field + ".upper", upper);
    check_path(field + ".work", work);
    if (upper == work) {
        refuse(field + ".work", quote(work) + " is the upper directory", "name an empty one beside it");
    }
    const auto is_in = [](const std::string& path, const std::string& above) {
        const auto parts = detail::path_parts(path);
        const auto first = detail::path_parts(above);
        return parts.size() >= first.size() && std::equal(first.begin(), first.end(), parts.begin());
    };
    if (is_in(work, upper)) {
        refuse(field + ".work", quote(work) + " is in the upper directory " + quote(upper),
               "name an empty one beside it");
    }
    if (is_in(upper, work)) {
        refuse(field + ".upper", quote(upper) + " is in the work directory " + quote(work), "name another beside it");
    }
}

void check_overlay(const std::string& field, const MountSpec& mount) {
    if (mount.source.empty()) refuse(field + ".source", "it is empty", "name the overlay's lower directories");
    const std::vector<std::string> lower = detail::split_escaped(mount.source, ':');
    for (const std::string& path : lower) check_path(field + ".source", path);
    check_upper(field, mount.upper, mount.work);
    for (const auto& [key, value] : detail::split_options(mount.data)) {
        constexpr std::string_view layers[] = {"lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"};
        if (std::find(std::begin(layers), std::end(layers), key) == std::end(layers)) continue;
        refuse(field + ".data", quote(key + value) + " names a directory", "use source, upper and work");
    }
    if (mount.upper.empty() && lower.size() < 2) {
        refuse(field + ".source", "an overlay without upper needs two lower directories", "bind a single one");
    }
}

}  // namespace

bool names_root(std::string_view path) {
    return !path.empty() && path.find_first_not_of("/.") == std::string_view::npos &&
           path.find("..") == std::string_view::npos;
}

void check_root(const ContainerSpec& spec) {
    check_path("root", spec.root);
    if (spec.root != "/" && names_root(spec.root)) {
        refuse("root", quote(spec.root) + " is the host's own root", "write it as '/'");
    }
    if (!spec.root_overlay) return;
    const RootOverlay& overlay = *spec.root_overlay;
    for (auto&& [i, path] : views::enumerate(overlay.lower)) check_path(indexed("root_overlay.lower", i), path);
    check_upper("root_overlay", overlay.upper, overlay.work);
    if (overlay.bytes != 0 && !overlay.upper.empty()) {
        refuse("root_overlay.bytes", "it is given together with upper",
               "it limits what is written to memory: set it to 0, or leave upper out");
    }
    if (!spec.root_read_only || !overlay.upper.empty()) return;
    if (overlay.bytes != 0) {
        refuse("root_overlay.bytes", "it is given with a root that is read-only",
               "set it to 0, or root_read_only to false");
    }
    if (overlay.lower.empty()) {
        refuse("root_overlay", "it has neither a layer nor what can be written to",
               "leave it out, or set root_read_only to false");
    }
}

void check_mount(const std::string& field, const MountSpec& mount) {
    check_path(field + ".target", mount.target);
    if (names_root(mount.target)) {
        refuse(field + ".target", quote(mount.target) + " is the root's own place", "use the field root");
    }
    if (std::any_of(mount.data.begin(), mount.data.end(), [](char c) { return c >= 0 && c < ' '; })) {
        refuse(field + ".data", "it holds a control character", "write options as mount(8) does");
    }
    for (const auto& [key, value] : detail::split_options(mount.data)) {
        if (key.empty()) refuse(field + ".data", quote(value) + " is an option without a name", "write key=value");
    }
    check_no_nul(field + ".source", mount.source);
    if (mount.type != Type::overlay && (!mount.upper.empty() || !mount.work.empty())) {
        refuse(field + (mount.upper.empty() ? ".work" : ".upper"),
               std::string{"it is given for "} + to_string(mount.type), "only an overlay has one");
    }
    const bool bind = mount.type == Type::bind || mount.type == Type::bind_inside;
    if (bind || mount.type == Type::image) check_path(field + ".source", mount.source);
    if (bind && !mount.data.empty()) {
        refuse(field + ".data", quote(mount.data) + " is given for a bind",
               "the file system has its options already: use the field options");
    }
    if (mount.type == Type::overlay) check_overlay(field, mount);
}

void check_mounts(const ContainerSpec& spec) {
    for (auto&& [i, mount] : views::enumerate(spec.mounts)) check_mount(indexed("mounts", i), mount);
}

}  // namespace caisson::inline v0::checking
