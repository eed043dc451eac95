// caisson/detail/unprivileged.hpp - what is different where an ordinary user starts a container.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// True in a setuid or setgid program that is still its caller's. See getauxval(3), AT_SECURE.
[[nodiscard]] [[gnu::visibility("default")]] bool is_set_id_program() noexcept;
/// Throws `Step::credentials` there: whoever starts a setuid program chooses what it gets, and must not get a container
/// with its rights by surprise.
[[gnu::visibility("default")]] void refuse_set_id_program();

/// True for a thread without CAP_SYS_ADMIN: everything that needs it is then made by init, in a user namespace.
[[nodiscard]] [[gnu::visibility("default")]] bool is_ordinary_user() noexcept;

/// Throws `Step::check_spec` for what an ordinary user cannot give a container.
[[gnu::visibility("default")]] void check_for_ordinary_user(const ContainerSpec& spec);

/// What /etc/subuid and /etc/subgid give the caller.
struct CallersRange {
    std::vector<IdMap> uids{};  ///< `inside` has no meaning
    std::vector<IdMap> gids{};
    std::string missing{};  ///< why nothing of it can be mapped; empty where it can
    std::string remedy{};
};
/// `tools`: see ContainerSpec::id_map_tools.
[[nodiscard]] [[gnu::visibility("default")]] CallersRange range_of_caller(const std::string& tools);

/// The ids of an ordinary user's container.
struct CallersIds {
    std::vector<IdMap> uid_map{};
    std::vector<IdMap> gid_map{};
    bool by_tools = false;  ///< newuidmap(1) and newgidmap(1) write them: the kernel takes the caller's own id only
    bool deny_setgroups = false;  ///< the kernel's condition for a map of the caller's own group alone
};

/// Those of the spec, or where it has none: inside 0 is the caller, and 1, 2, 3 and so on what /etc/subuid and
/// /etc/subgid give him, up to 65,536 ids. Without such a range, or without the programs, the caller's own id alone.
[[nodiscard]] [[gnu::visibility("default")]] CallersIds ids_of_caller(const ContainerSpec& spec);

/// Throws `Step::check_spec` where the command's user or groups are not among them.
[[gnu::visibility("default")]] void require_ids(const CallersIds& ids, std::uint32_t uid, std::uint32_t gid,
                                                const std::vector<std::uint32_t>& groups);

/// Has the maps of process `pid` written, which must not be reaped meanwhile. Throws `Step::map_ids`.
[[gnu::visibility("default")]] void write_id_maps(pid_t pid, const CallersIds& ids, const std::string& tools);

/// The ranges that `text`, a subuid(5), gives to the user `name` or to the number `id`, less those that have ids of an
/// earlier one. For tests.
[[nodiscard]] [[gnu::visibility("default")]] std::vector<IdMap> subordinate_ids(const std::string& text,
                                                                                const std::string& name, uid_t id);

}  // namespace caisson::inline v0::detail
