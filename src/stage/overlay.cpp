// src/stage/overlay.cpp - what the keeper does with mounts and file systems of the host's.
#include "stage.hpp"

namespace stage {

[[gnu::section(".early")]] s64 map_mount(int mount, int user) {
    mount_attr attr{};
    attr.attr_set = MOUNT_ATTR_IDMAP;
    attr.userns_fd = static_cast<u64>(user);
    const s64 result = mount_setattr(mount, "", at_empty_path | at_recursive, attr);
    close(mount);
    return result;
}

[[gnu::section(".early")]] s64 make_as_root_inside(int context, u64 uid, u64 gid) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    s64 result = call(__NR_capget, &header, data);
    if (result < 0) return result;
    call(__NR_setfsgid, gid);
    call(__NR_setfsuid, uid);
    result = call(__NR_capset, &header, data);  // some go with the id
    if (result == 0) result = call(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    call(__NR_setfsuid, 0);
    call(__NR_setfsgid, 0);
    close(context);
    return result;
}

}  // namespace stage
