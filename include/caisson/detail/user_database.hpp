// caisson/detail/user_database.hpp - /etc/passwd and /etc/group of a container's root, read without the C library: its
// lookups would load modules that the root's owner may have written.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/address.hpp>
#include <caisson/detail/cgroup_hierarchy.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/fd.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// Whom a container's command runs as.
struct Identity {
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::vector<std::uint32_t> groups{};
    std::string home{};  ///< empty: unknown
};

/// The lines of a database file, `:` between their fields; see passwd(5) and group(5). Lines that are not well-formed
/// are not there.
class UserFile {
public:
    static constexpr std::size_t most_bytes = 1u << 20;
    static constexpr std::size_t longest_line = 1u << 16;
    static constexpr std::size_t most_groups = 65536;  ///< NGROUPS_MAX

    /// `name` below the first of the directories `roots` that has it, resolved inside that one. Throws
    /// `Step::credentials` also for what is no regular file and for more than the bounds above.
    UserFile(const std::vector<int>& roots, const char* name) : what_{quote(std::string{"/"} + name) + " of the root"} {
        Fd file;
        errno = ENOENT;
        for (std::size_t i = 0; i < roots.size() && !file && errno == ENOENT; ++i) {
            // Not to wait for the other end of a FIFO.
            file = sys::openat2(roots[i], name, O_RDONLY | O_NONBLOCK | O_NOCTTY, sys::in_root);
        }
        if (!file) fail(Step::credentials, what_, errno == ENOENT ? "give the user and group as numbers" : "");
        struct stat st {};
        if (::fstat(file.get(), &st) != 0) fail(Step::credentials, what_);
        if (!S_ISREG(st.st_mode)) throw Error{Step::credentials, 0, what_ + ": it is no regular file"};
        if (st.st_size > static_cast<off_t>(most_bytes)) refuse_size();
        char buffer[8192];
        while (text_.size() <= most_bytes) {
            const ssize_t n = sys::retry([&] { return ::read(file.get(), buffer, sizeof buffer); });
            if (n < 0) fail(Step::credentials, what_);
            if (n == 0) return;
            text_.append(buffer, static_cast<std::size_t>(n));
        }
        refuse_size();
    }

    /// One whose text is known; `what` names it. Throws for more than the bounds above.
    [[nodiscard]] static UserFile of_text(std::string what, std::string text) {
        UserFile file{std::move(what), std::move(text)};
        if (file.text_.size() > most_bytes) file.refuse_size();
        return file;
    }

    /// Calls `use(fields)` for every line of at least `least` fields, until it returns true.
    template <class Use>
    void each(std::size_t least, Use&& use) const {
        std::size_t number = 0;
        for (std::string_view rest{text_}; !rest.empty();) {
            std::string_view line = take_field(rest, '\n');
            ++number;
            if (line.size() > longest_line) {
                throw Error{Step::credentials, 0,
                            what_ + ": line " + std::to_string(number) + " has " + std::to_string(line.size()) +
                                " bytes, 65536 are possible"};
            }
            std::vector<std::string_view> fields;
            while (!line.empty()) fields.push_back(take_field(line, ':'));
            if (fields.size() >= least && use(fields)) return;
        }
    }
    [[nodiscard]] const std::string& what() const noexcept { return what_; }

private:
    UserFile(std::string what, std::string text) : what_{std::move(what)}, text_{std::move(text)} {}
    [[noreturn]] void refuse_size() const {
        throw Error{Step::credentials, 0, what_ + ": it has more than 1048576 bytes"};
    }
    std::string what_;
    std::string text_;
};

inline constexpr std::uint32_t last_id = 0xfffffffe;

/// What only digits stand for; those are never looked up as a name.
[[nodiscard]] inline std::optional<std::uint32_t> id_of(std::string_view text) noexcept {
    const auto number = parse_decimal(text, last_id);
    return number ? std::optional{static_cast<std::uint32_t>(*number)} : std::nullopt;
}

/// Whom the spec says, with names looked up in what `open("etc/passwd")` and `open("etc/group")` give, which is a
/// UserFile. Throws `Step::credentials`.
template <class Open>
[[nodiscard]] Identity identity_from(const ContainerSpec& spec, Open&& open) {
    Identity found{spec.uid, spec.gid, spec.groups, {}};
    if (const auto number = id_of(spec.user)) {
        found.uid = *number;
    } else if (!spec.user.empty()) {
        const UserFile users = open("etc/passwd");
        bool known = false;
        users.each(4, [&](const std::vector<std::string_view>& fields) {
            const auto uid = id_of(fields[2]);
            const auto gid = id_of(fields[3]);
            if (fields[0] != spec.user || !uid || !gid) return false;
            found.uid = *uid;
            found.gid = *gid;
            if (fields.size() > 5 && fields[5].starts_with('/')) found.home = fields[5];
            return known = true;
        });
        if (!known) {
            throw Error{Step::credentials, 0, "user " + quote(spec.user) + ": it is not in " + users.what(),
                        "add it there, or give a number"};
        }
    }
    if (const auto number = id_of(spec.group)) found.gid = *number;
    const bool by_name = !spec.user.empty() && !id_of(spec.user);
    const bool group_by_name = !spec.group.empty() && !id_of(spec.group);
    if (!by_name && !group_by_name) return found;

    const UserFile groups = open("etc/group");
    bool known = false;
    if (by_name) found.groups.clear();
    groups.each(3, [&](const std::vector<std::string_view>& fields) {
        const auto gid = id_of(fields[2]);
        if (!gid) return false;
        if (group_by_name && !known && fields[0] == spec.group) {
            found.gid = *gid;
            known = true;
        }
        if (!by_name || fields.size() < 4) return false;
        for (std::string_view members = fields[3]; !members.empty();) {
            if (take_field(members, ',') == spec.user && found.groups.size() < UserFile::most_groups) {
                found.groups.push_back(*gid);
                break;
            }
        }
        return false;
    });
    if (group_by_name && !known) {
        throw Error{Step::credentials, 0, "group " + quote(spec.group) + ": it is not in " + groups.what(),
                    "add it there, or give a number"};
    }
    return found;
}

/// With names looked up in the root: a directory, or more that are seen as one, the topmost first.
[[nodiscard]] inline Identity identity_of(const ContainerSpec& spec, const std::vector<int>& root) {
    return identity_from(spec, [&](const char* name) { return UserFile{root, name}; });
}

/// Throws `Step::credentials` where a user namespace with these maps (none: there is none) does not have what was
/// found.
inline void require_mapped(const ContainerSpec& spec, const Identity& found, const std::vector<IdMap>& uid_map,
                           const std::vector<IdMap>& gid_map) {
    const auto require = [](const std::vector<IdMap>& maps, const std::string& name, const char* kind,
                            std::uint32_t id) {
        const bool is_mapped = std::any_of(maps.begin(), maps.end(),
                                           [&](const IdMap& m) { return id >= m.inside && id - m.inside < m.count; });
        if (maps.empty() || name.empty() || is_mapped) return;
        throw Error{Step::credentials, 0,
                    std::string{kind} + " " + quote(name) + ": its number " + std::to_string(id) +
                        " is not mapped into the user namespace",
                    "give uid_map and gid_map that have it"};
    };
    require(uid_map, spec.user, "user", found.uid);
    require(gid_map, spec.group.empty() ? spec.user : spec.group, "group", found.gid);
    for (const std::uint32_t gid : found.groups) require(gid_map, spec.user, "a group of user", gid);
}

}  // namespace caisson::inline v0::detail
