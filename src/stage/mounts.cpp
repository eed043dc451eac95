// src/stage/mounts.cpp - init's instructions about paths and mounts.
#include "init.hpp"

namespace stage {
namespace {

constexpr u64 in_root = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
constexpr u64 harmless = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

}  // namespace

s64 resolve(const char* path, u64 extra) {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = in_root | extra;
    for (int attempt = 0;; ++attempt) {
        const s64 fd = call(__NR_openat2, at_fdcwd, path, &how, sizeof how);
        if (fd == eagain && attempt < 128) continue;  // a rename raced with ".."
        if (fd != -4 /* EINTR */) return fd;
    }
}

s64 open_below(int base, const char* path, u64 flags) {
    open_how how{};
    how.flags = flags | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    return retry(__NR_openat2, base, path, &how, sizeof how);
}

namespace {

/// Below a mount that this process has placed itself: by its descriptor, and without leaving it, so that nobody who can
/// write to the root can put another directory in its place meanwhile.
s64 resolve_below(int base, const char* path, u64 extra = RESOLVE_NO_SYMLINKS) {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | extra;
    return retry(__NR_openat2, base, path, &how, sizeof how);
}

/// As `resolve`, but makes what is missing, one component after the other, each relative to the descriptor of its
/// parent and never through a symbolic link in its own place.
s64 resolve_making(char* path, u64 extra, bool directory) {
    s64 fd = resolve(path, extra);
    if (fd != enoent) return fd;
    s64 parent = resolve("/", extra);
    if (parent < 0) return parent;
    char* component = path;
    for (;;) {
        while (*component == '/') ++component;
        char* finish = component;
        while (*finish != 0 && *finish != '/') ++finish;
        char* rest = finish;
        while (*rest == '/') ++rest;
        const bool last = *rest == 0;
        const char saved = *finish;
        *finish = 0;
        fd = resolve(path, extra);
        if (fd == enoent) {
            const s64 created = last && !directory ? call(__NR_mknodat, parent, component, 0100644, 0)
                                                   : call(__NR_mkdirat, parent, component, 0755);
            fd = created < 0 && created != eexist ? created : resolve(path, extra);
        }
        *finish = saved;
        close(parent);
        if (fd < 0 || last) return fd;
        parent = fd;
        component = rest;
    }
}

}  // namespace

namespace {

/// The kernel takes no longer ones.
using Value = char[256];

/// A value with the names of the descriptors that it speaks of; null where that is too long.
const char* with_descriptors(const char* value, Value& into) {
    constexpr char directory[] = "/proc/self/fd/";
    u64 n = 0;
    for (; *value != 0; ++value) {
        if (n + sizeof directory + 10 > sizeof into) return nullptr;
        if (*value != plan::descriptor_mark) {
            into[n++] = *value;
            continue;
        }
        for (const char* c = directory; *c != 0; ++c) into[n++] = *c;
        const int fd = made[*++value - 1];
        int unit = 1;
        while (fd / unit >= 10) unit *= 10;
        for (; unit > 0; unit /= 10) into[n++] = static_cast<char>('0' + fd / unit % 10);
    }
    into[n] = 0;
    return into;
}

}  // namespace

s64 open_path(Stage& stage, const Instr& instr) {
    const u64 links = (instr.x & plan::clone_no_symlinks) != 0 ? RESOLVE_NO_SYMLINKS : 0;
    const s64 fd = instr.other == plan::no_slot ? resolve(stage.text(instr.a), links)
                                                : resolve_below(descriptor(instr.other), stage.text(instr.a));
    if (fd < 0) return fd;
    if (instr.y != 0) {
        struct stat status;
        s64 result = call(__NR_newfstatat, fd, "", &status, at_empty_path);
        if (result == 0 && status.st_dev != instr.y) result = estale;
        if (result < 0) {
            close(fd);
            return result;
        }
    }
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(fd);
    return 0;
}

s64 new_filesystem(Stage& stage, const Instr& instr) {
    const s64 context = call(__NR_fsopen, stage.text(instr.a), FSOPEN_CLOEXEC);
    if (context < 0) return context;
    s64 result = 0;
    if (instr.b != 0) {
        const char* option = stage.text(instr.b);
        while (*option != 0 && result == 0) {
            const char* value = option + length(option) + 1;
            const char* after = value + length(value) + 1;
            const char* marked = value;
            while (*marked != 0 && *marked != plan::descriptor_mark) ++marked;
            Value named;
            if (*marked != 0) value = with_descriptors(value, named);
            if (value == nullptr) result = einval;
            else if (*value != 0) result = call(__NR_fsconfig, context, FSCONFIG_SET_STRING, option, value, 0);
            else result = call(__NR_fsconfig, context, FSCONFIG_SET_FLAG, option, 0, 0);
            option = after;
        }
    }
    if (result == 0) result = call(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (result == 0) result = call(__NR_fsmount, context, FSMOUNT_CLOEXEC, instr.x);
    close(context);
    if (result < 0) return result;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(result);
    return 0;
}

s64 mount_context(const Instr& instr) {
    const s64 result = call(__NR_fsmount, descriptor(instr.other), FSMOUNT_CLOEXEC, instr.x);
    if (result < 0) return result;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(result);
    return 0;
}

s64 set_attributes(int fd, u64 set, u64 flags) {
    if (fd < 0) return 0;
    mount_attr attr{};
    attr.attr_set = set;
    return mount_setattr(fd, "", at_empty_path | flags, attr);
}

s64 private_mounts() {
    mount_attr attr{};
    attr.propagation = 1 << 18;  // MS_PRIVATE
    return mount_setattr(at_fdcwd, "/", at_recursive, attr);
}

namespace {

/// True for what is in a proc or sysfs.
bool is_of_kernel(s64 fd) {
    struct {
        s64 type, rest[14];
    } system{};
    if (call(__NR_fstatfs, fd, &system) < 0) return true;
    return system.type == PROC_SUPER_MAGIC || system.type == SYSFS_MAGIC;
}

}  // namespace

s64 clone_mount(Stage& stage, const Instr& instr) {
    const u64 links = (instr.x & plan::clone_no_symlinks) != 0 ? RESOLVE_NO_SYMLINKS : 0;
    const s64 source = instr.a == 0                   ? descriptor(instr.other)
                       : instr.other == plan::no_slot ? resolve(stage.text(instr.a), links)
                                                      : resolve_below(descriptor(instr.other), stage.text(instr.a));
    if (source == enoent && (instr.x & plan::clone_optional) != 0) {
        made[instr.slot - plan::first_dynamic_slot] = -1;
        return 0;
    }
    if (source < 0) return source;
    if ((instr.x & plan::clone_no_kernel) != 0 && is_of_kernel(source)) return eloop;
    const s64 tree = call(__NR_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | at_empty_path | instr.y);
    if (instr.a != 0) close(source);
    if (tree < 0) return tree;
    made[instr.slot - plan::first_dynamic_slot] = static_cast<int>(tree);
    return 0;
}

s64 make_node(Stage& stage, const Instr& instr) {
    const int directory = descriptor(instr.slot);
    const char* name = stage.text(instr.a);
    if (instr.b != 0) return call(__NR_symlinkat, stage.text(instr.b), directory, name);
    if ((instr.x & 0170000) == 0040000) return call(__NR_mkdirat, directory, name, instr.x & 07777);
    return call(__NR_mknodat, directory, name, instr.x, instr.y);
}

s64 enter_root(int tree) {
    // The tree is laid over "/", so that no path string of the host is needed, and the old root goes away before the
    // first path of the container is resolved.
    s64 result = call(__NR_move_mount, tree, "", at_fdcwd, "/", MOVE_MOUNT_F_EMPTY_PATH);
    if (result == 0) result = call(__NR_fchdir, tree);
    if (result == 0) result = call(__NR_pivot_root, ".", ".");
    if (result == 0) result = call(__NR_umount2, ".", 2 /* MNT_DETACH */);
    if (result == 0) result = call(__NR_chdir, "/");
    return result;
}

bool is_directory(s64 fd) {
    struct stat status;
    return call(__NR_newfstatat, fd, "", &status, at_empty_path) == 0 && (status.st_mode & 0170000) == 0040000;
}

s64 place(Stage& stage, const Instr& instr) {
    if (descriptor(instr.slot) < 0) return 0;  // an optional source that is not there
    const bool directory = (instr.x & plan::place_make_directory) != 0 ||
                           ((instr.x & plan::place_make_same_kind) != 0 && is_directory(descriptor(instr.slot)));
    constexpr u64 making = plan::place_make_directory | plan::place_make_same_kind;
    const u64 extra = (instr.x & plan::place_no_symlinks) != 0 ? RESOLVE_NO_SYMLINKS : 0;
    char* path = stage.base + instr.a;
    const s64 target = instr.other != plan::no_slot ? resolve_below(descriptor(instr.other), path)
                       : (instr.x & making) != 0    ? resolve_making(path, extra, directory)
                                                    : resolve(path, extra);
    if (target < 0) return target;
    const s64 result = call(__NR_move_mount, descriptor(instr.slot), "", target, "",
                            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    close(target);
    return result;
}

namespace {

/// Places a copy of the mount (or of what is below it) that `source` is open on, over what `target` is open on.
s64 cover(s64 source, s64 target, u64 attributes, u64 recursive) {
    const s64 tree = call(__NR_open_tree, source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | at_empty_path | recursive);
    if (tree < 0) return tree;
    mount_attr attr{};
    attr.attr_set = attributes;
    s64 result = mount_setattr(tree, "", at_empty_path | recursive, attr);
    if (result == 0) {
        result = call(__NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    }
    close(tree);
    return result;
}

/// What is to be masked or read-only. In proc and sysfs the kernel's own links are followed.
s64 resolve_protected(const Stage& stage, const Instr& instr) {
    const char* path = stage.text(instr.a);
    return instr.other == plan::no_slot ? resolve(path, 0) : resolve_below(descriptor(instr.other), path, 0);
}

}  // namespace

s64 mask_begin(Stage& stage, const Instr& instr) {
    s64 result = new_filesystem(stage, instr);
    if (result < 0) return result;
    const int both = descriptor(instr.slot);
    result = call(__NR_mknodat, both, "file", 0100444, 0);
    if (result == 0) result = call(__NR_mkdirat, both, "directory", 0555);
    if (result < 0) return result;
    // The kernel copies only mounts that are in the caller's namespace. Over "/" it is in nobody's way: this process's
    // root is what is below it.
    return call(__NR_move_mount, both, "", at_fdcwd, "/", MOVE_MOUNT_F_EMPTY_PATH);
}

s64 mask(Stage& stage, const Instr& instr) {
    const s64 target = resolve_protected(stage, instr);
    if (target < 0) return target == enoent || target == enotdir ? 0 : target;
    const s64 empty = open_below(descriptor(instr.slot), is_directory(target) ? "directory" : "file", O_PATH);
    const s64 result = empty < 0 ? empty : cover(empty, target, harmless, 0);
    close(empty);
    close(target);
    return result;
}

s64 mask_end(Stage&, const Instr& instr) {
    s64 result = call(__NR_fchdir, descriptor(instr.slot));
    if (result == 0) result = call(__NR_umount2, ".", 2 /* MNT_DETACH */);
    return result == 0 ? call(__NR_chdir, "/") : result;
}

s64 read_only(Stage& stage, const Instr& instr) {
    const s64 target = resolve_protected(stage, instr);
    if (target < 0) return target == enoent || target == enotdir ? 0 : target;
    const s64 result = cover(target, target, instr.x, at_recursive);
    close(target);
    return result;
}

}  // namespace stage
