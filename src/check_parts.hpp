// check_parts.hpp - the parts of check(): what they share, and those that have a file of their own.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <caisson/spec.hpp>

namespace caisson::inline v0::checking {

/// Throws `Step::check_spec`: "field: problem: remedy".
[[noreturn]] void refuse(const std::string& field, const std::string& problem, std::string_view remedy = {});
/// "list[index].member"
[[nodiscard]] std::string indexed(const char* list, std::size_t index, const char* member = "");
void check_no_nul(const std::string& field, std::string_view text);
/// Absolute, of bearable length and without `..`, which would be resolved inside the container but misread by people.
void check_path(const std::string& field, const std::string& path);

/// True for "/", "//", "/.": they all lead to the root.
[[nodiscard]] bool names_root(std::string_view path);

void check_consoles(const ContainerSpec& spec);
/// One of `devices`, `mounts` and `networks`, by the name that messages are to give it.
void check_device(const std::string& field, const DeviceSpec& device, const ContainerSpec& spec);
void check_mount(const std::string& field, const MountSpec& mount);
void check_network(const std::string& field, const NetworkSpec& network);

void check_devices(const ContainerSpec& spec);
void check_group_limits(const ContainerSpec& spec);
void check_lifecycle(const ContainerSpec& spec);
void check_mounts(const ContainerSpec& spec);
void check_process(const ContainerSpec& spec);
void check_root(const ContainerSpec& spec);
void check_seccomp(const ContainerSpec& spec);
/// Of a command in a running container, beside what `check_seccomp` looks at.
void check_seccomp_of_exec(const ContainerSpec& command, bool has_console);
/// True for a system call that its start makes under the filter.
[[nodiscard]] bool is_called_by_exec(const ContainerSpec& command, bool has_console, std::string_view call);

}  // namespace caisson::inline v0::checking
