// helper/privileges.cpp - how the helper comes to be a process of its own, and what it gives up.
#include "privileges.hpp"

#include <csignal>

#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/sys.hpp>
#include <caisson/error.hpp>

namespace caisson_helper {

void become_independent() {
    for (int number = 1; number < NSIG; ++number) (void)::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::setsid();
    if (::chdir("/") != 0) detail::fail(Step::helper, "working directory '/'");
    (void)::prctl(PR_SET_NAME, "caisson-helper");
    // Only what the container's start names goes on to it.
    (void)::close_range(detail::helper_socket, ~0U, CLOSE_RANGE_CLOEXEC);
}

void lower_privileges() {
    constexpr __u32 kept = 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE;
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
        if (capability >= 32 || (kept >> capability & 1) == 0) (void)::prctl(PR_CAPBSET_DROP, capability);
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capget, &header, data) != 0) detail::fail(Step::credentials, "capabilities of the helper");
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[0].inheritable = 0;
    data[1] = {};
    if (::syscall(SYS_capset, &header, data) != 0 || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        detail::fail(Step::credentials, "capabilities of the helper");
    }
}

ResourceLimit make_room() {
    (void)::mallopt(M_ARENA_MAX, 1);
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) detail::fail(Step::descriptors, "number of descriptors");
    const ResourceLimit before{.kind = ResourceLimit::Kind::nofile, .soft = limit.rlim_cur, .hard = limit.rlim_max};
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
    return before;
}

}  // namespace caisson_helper
