// helper_connection.hpp - the way to a helper, by the name of its container or group.
#pragma once

#include <optional>
#include <string>

#include <caisson/fd.hpp>
#include <caisson/process.hpp>

namespace caisson::inline v0::detail {

struct HelperConnection {
    Fd socket;
    Process helper;
};
/// Of RUN/ENTRY/sock, which `what` names; nothing if nobody listens there. Of many who come at once some wait for their
/// turn, or, unless it `waits`, are refused with EAGAIN. Throws `Step::helper`.
[[nodiscard]] std::optional<HelperConnection> connect_to(const std::string& run, const std::string& entry,
                                                         const std::string& what, bool waits = true);
/// A path as the helper finds it, whose working directory is "/".
[[nodiscard]] std::string absolute(const std::string& path);
/// Whose a helper's directory is, and which one, if that process lives; else empty.
[[nodiscard]] std::string owner_of(const std::string& directory);

}  // namespace caisson::inline v0::detail
