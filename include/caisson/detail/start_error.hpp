// caisson/detail/start_error.hpp - what a refused system call of a start means, in words and with the remedy.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include <sys/stat.h>
#include <sys/wait.h>

#include <caisson/detail/launch.hpp>
#include <caisson/detail/plan.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>
#include <caisson/namespace.hpp>
#include <caisson/process.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

[[nodiscard]] inline Error launch_error(const LaunchFailure& failure) {
    std::string_view remedy;
    // A new number beyond the limit on descriptors is EINVAL to fcntl(2) and EBADF to dup3(2).
    const std::string_view call = failure.call;
    if ((call == "fcntl" && failure.errnum == EINVAL) || (call == "dup3" && failure.errnum == EBADF)) {
        return {Step::clone, EMFILE, "start the keeper"};
    }
    if (failure.errnum == EACCES || failure.errnum == EPERM) {
        remedy = "if this host forbids programs in memory (vm.memfd_noexec), set stage_path to an installed stage";
    } else if (failure.errnum == EAGAIN) {
        remedy = "a limit on processes is reached: see 'ulimit -u' and the pids control group";
    }
    return {Step::clone, failure.errnum, std::string{"start the keeper: "} + failure.call, remedy};
}

/// The file /proc/sys/user/max_KIND_namespaces of a kind that is wanted and whose limit is 0, as a remedy.
[[nodiscard]] inline std::string namespace_limit(NamespaceSet wanted) {
    for (const NamespaceKind kind : all_namespace_kinds) {
        if (!wanted.has(kind)) continue;
        const std::string name = std::string{"max_"} + to_string(kind) + "_namespaces";
        std::string value;
        if (sys::read_file(AT_FDCWD, ("/proc/sys/user/" + name).c_str(), value) && value == "0\n") {
            return "user." + name + " is 0: raise it with sysctl(8)";
        }
    }
    return "a limit of /proc/sys/user/max_*_namespaces is reached: raise it with sysctl(8)";
}

/// The setting by which this kernel keeps user namespaces, or what can be done in them, from an ordinary user; empty if
/// there is none.
[[nodiscard]] inline std::string user_namespace_setting() {
    const auto is = [](const char* name, std::string_view value) {
        std::string text;
        return sys::read_file(AT_FDCWD, (std::string{"/proc/sys/kernel/"} + name).c_str(), text) && text == value;
    };
    if (is("unprivileged_userns_clone", "0\n")) {
        return "kernel.unprivileged_userns_clone is 0: set it to 1 with sysctl(8), or run as root";
    }
    if (is("apparmor_restrict_unprivileged_userns", "1\n")) {
        return "kernel.apparmor_restrict_unprivileged_userns is 1: give the program an AppArmor profile with "
               "'userns,', "
               "or run as root";
    }
    return {};
}

/// Why clone3 refused init.
[[nodiscard]] inline Error clone_error(int errnum, NamespaceSet wanted) {
    std::string remedy;
    if (errnum == ENOSPC || errnum == EUSERS) {
        remedy = namespace_limit(wanted);
    } else if (errnum == EPERM) {
        remedy = wanted.has(NamespaceKind::user) ? user_namespace_setting() : "";
        if (!remedy.empty()) return {Step::clone, errnum, "make init in new namespaces", remedy};
        remedy = "making namespaces needs CAP_SYS_ADMIN: run as root";
        if (wanted.has(NamespaceKind::user)) {
            remedy += "; a user namespace is also refused to a program in a chroot, and by some security products";
        }
    } else if (errnum == EAGAIN) {
        remedy = "a limit on processes is reached: see 'ulimit -u' and the pids control group";
    } else if (errnum == EOPNOTSUPP) {
        remedy =
            "its control group may hold no process, as the group above is threaded (cgroup.type): give another "
            "cgroup_parent";
    } else if (errnum == ENOENT || errnum == ENODEV) {
        remedy = "another program has removed its control group";
    } else if (errnum == EINVAL) {
        for (const NamespaceKind kind : all_namespace_kinds) {
            if (wanted.has(kind) && ::access((std::string{"/proc/self/ns/"} + to_string(kind)).c_str(), F_OK) != 0) {
                remedy = std::string{"this kernel has no "} + to_string(kind) + " namespaces";
            }
        }
    }
    return {Step::clone, errnum, "make init in new namespaces", remedy};
}

/// Why the keeper could not even begin.
[[nodiscard]] inline Error preparation_error(int errnum) {
    return {Step::clone, errnum, "the keeper's preparations",
            errnum == EPERM ? "this needs CAP_SYS_ADMIN and CAP_SYS_CHROOT: run as root" : ""};
}

/// The remedy of what may be refused at any step; empty where the library does not know.
[[nodiscard]] inline std::string_view general_remedy(const std::error_code& code) {
    if (code.category() != std::system_category()) return {};
    if (code.value() == EMFILE) return "no descriptor is left: raise 'ulimit -n'";
    if (code.value() == ENFILE) return "the system has no descriptor left: raise fs.file-max with sysctl(8)";
    if (code.value() == ENAMETOOLONG) return "a name has at most 255 bytes, and a path 4095";
    if (code.value() == ENOTDIR) return "a part of the path is no directory";
    return {};
}

/// The keeper ended without a word. Somebody killed it, or it was born into a pid namespace that ended at once.
[[nodiscard]] inline Error keeper_death_error() {
    struct stat own {};
    struct stat children {};
    const bool unshared = ::stat("/proc/thread-self/ns/pid", &own) == 0 &&
                          ::stat("/proc/thread-self/ns/pid_for_children", &children) == 0 &&
                          own.st_ino != children.st_ino;
    return {Step::clone, 0, "the keeper died during the start",
            unshared ? "the calling thread has unshared its pid namespace: start containers from a thread that has not"
                     : ""};
}

/// True where a rule of the spec may have done this to the start itself, which makes some calls under its filter.
[[nodiscard]] inline bool refused_by_rule(const ContainerSpec& spec, Step step, int errnum, bool is_command) {
    const bool under_filter =
        is_command || (!spec.no_new_privileges && (step == Step::credentials || step == Step::descriptors));
    if (!under_filter || spec.seccomp.audit) return false;
    for (const SeccompRule& rule : spec.seccomp.rules) {
        if (rule.action == SeccompRule::Action::refuse && rule.errnum == errnum &&
            (rule.call == "execve") == is_command)
            return true;
    }
    return false;
}

/// What to do about a label that the kernel does not take.
[[nodiscard]] inline std::string label_remedy(const ContainerSpec& spec, int errnum) {
    const bool apparmor = spec.security_label.starts_with("apparmor:");
    if (errnum == EACCES || errnum == EPERM) return "the policy that holds the host's program does not let it";
    if (apparmor && errnum == ENOENT) return "no such profile is loaded: load it with apparmor_parser(8)";
    if (!apparmor && errnum == EINVAL) return "the policy that is loaded has no such context";
    return {};
}

/// What to do about an instruction of init that was refused; empty where the library does not know. `context` is the
/// instruction's; `is_command`: it is the execve of the command.
[[nodiscard]] inline std::string remedy_of(const ContainerSpec& spec, Step step, int errnum, std::string_view context,
                                           bool is_command) {
    if (refused_by_rule(spec, step, errnum, is_command)) {
        return is_command ? "a rule of seccomp.rules refuses execve with these arguments, and the start needs it"
                          : "a rule of seccomp.rules refuses what the start needs: change it, or set "
                            "no_new_privileges, with which the filter comes later";
    }
    switch (step) {
        case Step::exec:
            if (!is_command) {
                return errnum == ENOENT    ? "make the directory in the root"
                       : errnum == ENOTDIR ? "name a directory"
                       : errnum == ELOOP   ? "a link in it leads in a circle, or through /proc"
                       : errnum == EAGAIN  ? "limits.pids or the resource limit 'nproc' is reached: raise it"
                                           : "";
            }
            if (errnum == ENOENT) {
                return "there is no such file in root " + quote(spec.root) +
                       ", or the interpreter that its first line or its ELF header names is missing there";
            }
            if (errnum == EACCES) {
                return "it is no file that its user may execute: chmod +x it in root " + quote(spec.root) +
                       ", unless what it lies on is mounted noexec";
            }
            if (errnum == EPERM && !spec.security_label.empty()) {
                return spec.no_new_privileges ? "where a policy holds the host's program, no_new_privileges keeps the "
                                                "command from another label: set it to false"
                                              : "the policy that holds the host's program keeps the command from "
                                                "this label";
            }
            if (errnum == ENOEXEC) return "it is no program: it begins neither with an ELF header nor with '#!'";
            if (errnum == ENOTDIR || errnum == ELOOP)
                return "a part of the path is no directory, or a link in a circle";
            break;
        case Step::hostname:
            // The first thing that takes a right in the user namespace.
            if (errnum == EPERM && spec.has_user_namespace()) return user_namespace_setting();
            break;
        case Step::mount:
            if (context.starts_with("bind '/") || context.starts_with("layer '/")) {
                const bool inside = context.ends_with(" of the container");
                if (errnum == ENOENT)
                    return inside ? "the source must exist there" : "the source must exist on the host";
                if (errnum == ELOOP) {
                    return inside ? "a link in it leads in a circle, or through /proc or /sys"
                                  : "a symbolic link is in it: name what it leads to, or set options.follow_links";
                }
                if (errnum == EINVAL) return "what is mounted below it must come along: set recursive";
            }
            if (errnum == EINVAL && context.starts_with("mount '/")) {
                return "a directory goes on a directory, and a file on a file";
            }
            if (errnum == EINVAL && context.starts_with("mount '")) {
                return "it goes on a directory, and takes no options but its own, see mount(8)";
            }
            if (errnum == EUCLEAN) return "a file system that it goes through is damaged: repair it with fsck(8)";
            if (errnum == EROFS) return "the mount point is missing in a read-only root: make it there";
            if (errnum == ENOSPC) return "the root's file system is full: the mount point cannot be made in it";
            if (errnum == ELOOP && context.starts_with("mount 'overlay'")) {
                return "a directory is given twice, or lies in another one of them; or a symbolic link stands in the "
                       "target";
            }
            if (errnum == ELOOP) return "a symbolic link stands where a directory must be: replace it in the root";
            if (errnum == ENOENT) return "the mount point does not exist in the container";
            if (errnum == EACCES || errnum == EOVERFLOW) {
                return "root inside may not write to the root directory: make the mount points there, or give it to "
                       "the "
                       "container's ids";
            }
            if (errnum == EPERM && spec.has_user_namespace() && context.starts_with("mount 'sysfs'") &&
                !spec.effective_namespaces().has(NamespaceKind::net)) {
                return "a sysfs shows a network namespace, which must be the container's own: add NamespaceKind::net "
                       "to namespaces";
            }
            if (errnum == EPERM && spec.has_user_namespace() &&
                (context.starts_with("mount 'proc'") || context.starts_with("mount 'sysfs'"))) {
                return "the kernel refuses a new proc or sysfs in a user namespace where the host's own is partly "
                       "covered";
            }
            break;
        case Step::sysctl:
            if (errnum == ENOENT) return "this kernel has no such setting";
            if (errnum == EISDIR) return "this is a group of settings: name one of them";
            if (errnum == EACCES || errnum == EPERM) return "this kernel does not let a container change it";
            if (errnum == EINVAL) return "the kernel does not take this value";
            break;
        case Step::clone:
            if (errnum == ENOSPC) return namespace_limit(NamespaceKind::cgroup);
            break;
        case Step::credentials:
            if (context.starts_with("security label ")) return label_remedy(spec, errnum);
            if (context == "system call filter") {
                if (errnum == EACCES)
                    return "without no_new_privileges this needs CAP_SYS_ADMIN: run as root, or set it";
                if (errnum == EINVAL || errnum == ENOSYS) {
                    return "this kernel has no filters (CONFIG_SECCOMP_FILTER): set seccomp.profile to none, and "
                           "seccomp.rules to nothing";
                }
                break;
            }
            if (errnum == EPERM) return "this needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP: run as root";
            break;
        case Step::cgroup:
            if (errnum == ENOSPC) return "the group's cpuset.cpus or cpuset.mems is empty";
            if (errnum == ENODEV) return "another program has removed the group";
            break;
        case Step::pivot_root:
            if (errnum == EINVAL) {
                return "the host's own root must be a mount point: not a chroot, nor the kernel's first root file "
                       "system";
            }
            break;
        default: break;
    }
    return {};
}

}  // namespace caisson::inline v0::detail
