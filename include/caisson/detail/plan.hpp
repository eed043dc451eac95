// caisson/detail/plan.hpp - the Plan: a ContainerSpec compiled to flat, pointer-free bytes, which the stage executes
// with system calls alone. Read by the freestanding stage too: nothing but fixed-size integers here.
//
// A plan has two parts. The stage is launched with the first, which needs little that the host has to make: namespaces
// and id maps. While the kernel makes those, the host makes the rest, and sends the second part with the descriptors.
#pragma once

#include <cstdint>

namespace caisson::inline v0::detail {

/// Offset into the plan's own bytes; 0 is "none".
using Ref = std::uint32_t;

/// A descriptor of the stage. Below `first_dynamic_slot`: inherited, and the number itself. From there on: made by an
/// instruction while the plan runs. From `first_received_slot` on: come with the second part, in that order.
using Slot = std::int32_t;
inline constexpr Slot no_slot = -1;
inline constexpr Slot first_dynamic_slot = 4096;
inline constexpr Slot dynamic_slots = 64;
inline constexpr Slot first_received_slot = 8192;
inline constexpr std::uint32_t most_received = 512;

/// The descriptors that every stage inherits. The payload's 0, 1 and 2 come with the second part.
inline constexpr Slot plan_slot = 0;     ///< the first part (memfd)
inline constexpr Slot host_slot = 1;     ///< reports to the host; the inherited one brings its `Go` (SOCK_SEQPACKET)
inline constexpr Slot owner_slot = 2;    ///< pidfd of the host
inline constexpr Slot rest_slot = 3;     ///< init: brings the second part (SOCK_SEQPACKET)
inline constexpr Slot program_slot = 4;  ///< the stage's own program, of which the keeper gives back what it can
inline constexpr Slot first_free_slot = 5;

/// What comes first with the second part.
inline constexpr Slot second_plan_slot = first_received_slot;   ///< the second part itself (memfd)
inline constexpr Slot standard_slot = first_received_slot + 1;  ///< the payload's 0; its 1 and 2 follow
inline constexpr Slot passed_slot = standard_slot + 3;          ///< the payload's 3 and on, as many as are passed
/// Descriptors of one message; there are as many messages as it takes.
inline constexpr std::uint32_t most_in_message = 60;

/// One thing that init does; each is one system call or a few that belong together.
enum class Op : std::uint16_t {
    join_group,  ///< slot: a v1 hierarchy's `tasks` file
    unshare_cgroup,
    loopback_up,        ///< sets `lo` up
    receive_rest,       ///< the second part, with its descriptors; 0, 1 and 2 become the payload's
    become_root,        ///< set{res}gid, setresuid, setgroups to root of the user namespace
    session_keyring,    ///< a new one, without the host's keys
    hostname,           ///< a: text, x: length
    domainname,         ///< as well
    private_mounts,     ///< no mount event goes to or comes from the host
    new_filesystem,     ///< a: type, b: options (pairs of strings, "" ends), x: mount attributes; slot: takes the mount
    set_attributes,     ///< slot: a mount, x: attributes to set, y: AT_RECURSIVE or 0
    open_path,          ///< slot: takes a descriptor (O_PATH) of what the path a is below that of `other` or, without
                        ///< one, in the tree that init has; x: as clone_mount; y: the device number of its file
                        ///< system, else ESTALE, or 0: whichever
    mount_context,      ///< slot: takes the mount of a file system that the keeper has made, other: its context
                        ///< (fsopen(2)), x: mount attributes
    clone_mount,        ///< slot: takes a bind of what `other` (a descriptor) refers to, or of the path a below it,
                        ///< or, without one, of what the path a is in the tree that init has; x: CloneFlag bits; y:
                        ///< AT_RECURSIVE or 0
    make_node,          ///< slot: a directory; a: a name in it; b: a link's target; x: mode of a directory, file or
                        ///< device; y: its number as mknod(2) takes it
    open_terminal,      ///< other: a devpts; slot: takes the terminal, if there is one, the host its controlling
                        ///< end; x: uid << 32 | gid of the owner, y: rows << 16 | columns
    enter_root,         ///< slot: a detached tree that becomes "/"; the old root goes away
    place,              ///< slot: a detached mount, a: target path, x: PlaceFlag bits; other: a mount that has been
                        ///< placed, below which the path is, or none
    mask_begin,         ///< as new_filesystem; makes an empty file and directory in it
    mask,               ///< a: a path, which gets the empty file or directory over it; slot: as mask_begin; other: a
                        ///< mount that has been placed, below which the path is, or none
    mask_end,           ///< slot: as mask_begin
    read_only,          ///< a: a path, which gets a copy of itself over it; other: as mask; x: mount attributes
    write_setting,      ///< slot: a file system that has been made; a: a file's path below it, b: what is written
    personality,        ///< x: see personality(2)
    umask,              ///< x: the mask
    first_process,      ///< what follows is done by a child, for which this process waits
    session,            ///< setsid; x: 1: stdin becomes the controlling terminal; slot: becomes 0, 1 and 2 before
    working_directory,  ///< a: path
    bounding_set,       ///< x: capabilities kept
    credentials,        ///< x: uid << 32 | gid; a: array of y supplementary groups; b: CredentialFlag bits
    capabilities,       ///< a: a Capabilities
    no_new_privileges,
    descriptors,     ///< those that are passed get their numbers, all others are closed; x: 1: what tells of the
                     ///< keeper's death is still needed
    resource_limit,  ///< other: the kernel's number of the limit, x: soft, y: hard
    filter,          ///< a: a system call filter, x: its instructions
    exec,            ///< argv and envp of the plan
    join,            ///< of a visit, the last of its first part: slot: a pidfd, x: namespaces of that process,
                     ///< y: 1 for an ordinary user, who keeps the groups that he may not give up
    standard,        ///< of a visit: 0, 1 and 2 become copies of slot, other and x
    become_visible,  ///< of a visit: what follows is done by a child in the container's pid namespace, where root may
                     ///< take hold of it at once: it must have nothing that the command will not have
    pass_up,         ///< of a visit: slot: goes to the host
    open_netlink,    ///< slot: takes a NETLINK_ROUTE socket of the network namespace that this process is in
    open_devpts,     ///< slot: takes the directory a, which must be the root of a devpts, else ENOTTY
    open_null,       ///< slot: takes the device a, which must be the null device, else ENODEV
    send_file,       ///< slot: a regular file, other: gets its content, at most x bytes
    serve,           ///< of a visit: slot: a SOCK_SEQPACKET socket by which the host has system calls made, to its end
    open_file,       ///< slot: takes what the path a is, opened with the flags x and, if it is made, the mode y
    unmount,         ///< a: path; what is on top there, busy or not, if its mount has the number x, or x is 0: else
                     ///< ESTALE; y: how the number was asked for, as a mask of statx(2)
    remove_name,     ///< a: path, whose last part is removed; x: flags of unlinkat(2)
};

/// Four of the five sets; the bounding set has an instruction of its own.
struct Capabilities {
    std::uint64_t permitted = 0;
    std::uint64_t effective = 0;
    std::uint64_t inheritable = 0;
    std::uint64_t ambient = 0;
};

/// In the value of a file system's option: with the byte after it, it stands for a descriptor's name in /proc. That
/// byte is 1 for the first dynamic slot. `check` lets no such byte of a spec's own come here.
inline constexpr char descriptor_mark = '\1';

enum CloneFlag : std::uint64_t {
    clone_optional = 1,     ///< a missing path is skipped, with what would be done to the copy
    clone_no_symlinks = 2,  ///< a symbolic link on the way to the path a is an error, also without `other`
    clone_no_kernel = 4,    ///< a proc or sysfs at the path a is an error: ELOOP, as only a link can lead there
};

enum CredentialFlag : std::uint32_t {
    credentials_keep_capabilities = 1,
    credentials_keep_groups = 2,  ///< setgroups(2) is denied
};

enum PlaceFlag : std::uint64_t {
    place_make_directory = 1,  ///< a missing target is made, as a directory
    place_make_same_kind = 2,  ///< a missing target is made, as a directory for a directory, as a file for a file
    place_no_symlinks = 4,     ///< a symbolic link on the way is an error: for /proc, /sys and /dev
};

struct Instr {
    Op op{};
    std::uint16_t pad = 0;
    Slot slot = no_slot;
    Slot other = no_slot;
    Ref a = 0;
    Ref b = 0;
    std::uint32_t pad2 = 0;
    std::uint64_t x = 0;
    std::uint64_t y = 0;
};
static_assert(sizeof(Instr) == 40);

/// The keeper holds the names that it needs to the end in memory of its own, so that the plan can go.
inline constexpr std::uint32_t most_teardowns = 32;
inline constexpr std::uint32_t longest_teardown_name = 255;

enum PlanFlag : std::uint32_t {
    plan_send_netlink = 1,   ///< init opens a NETLINK_ROUTE socket in its namespace and passes it to the host
    plan_own_root = 2,       ///< the container's root is not the host's
    plan_first_process = 4,  ///< there is an `Op::first_process`: the stage goes on running as pid 1
    plan_unprivileged = 8,   ///< the host is an ordinary user
    plan_host_maps = 16,     ///< the host has init's id maps written, and sends `mapped_mark` or `unmapped_mark`
    plan_deny_setgroups = 32,
    plan_visit = 64,  ///< the stage joins a container that runs; see src/stage/visit.cpp
};

inline constexpr std::uint32_t plan_magic = 0x43616973;

/// To the keeper: init's id maps are there and it may go on, or could not be written.
inline constexpr char mapped_mark = 'M';
inline constexpr char unmapped_mark = 'U';

/// Begins the first part.
struct PlanHeader {
    std::uint32_t magic = plan_magic;
    std::uint32_t size = 0;
    std::uint32_t flags = 0;
    Ref name = 0;  ///< for the keeper's entry in ps(1), at most 15 bytes
    std::uint32_t instr_count = 0;
    Ref instrs = 0;
    std::uint32_t early_count = 0;  ///< instructions that need no id map: init runs them while the keeper writes it
    Slot cgroup_slot = no_slot;     ///< a v2 group for CLONE_INTO_CGROUP
    std::uint64_t clone_flags = 0;
    Ref uid_map = 0;
    Ref gid_map = 0;
    std::uint32_t teardown_count = 0;
    Ref teardowns = 0;  ///< array of Slot: directories in which the keeper removes `teardown_name` at the end
    Ref teardown_name = 0;
    Ref oom_score_adj = 0;                   ///< text
    std::uint32_t strict_oom_score_adj = 0;  ///< 1: it was asked for, and a refusal ends the start
    std::uint32_t raise_count = 0;
    Ref raises = 0;        ///< array of Raise: limits that only the keeper may raise
    Slot received_at = 0;  ///< a visit's: what the first of the received slots is; the others follow
};

/// A visit inherits both parts of its plan and their descriptors at once. What it is in: a pidfd of the container's
/// init.
inline constexpr Slot visited_slot = first_free_slot;
/// What its stage keeps open as long as it is there, for the host's sake.
inline constexpr Slot marks_slot = visited_slot + 1;

/// A resource limit of init, whose hard value is above the host's.
struct Raise {
    std::uint32_t resource = 0;  ///< the kernel's number
    std::uint32_t pad = 0;
    std::uint64_t soft = 0;
    std::uint64_t hard = 0;
};

/// Begins the second part. Its instructions are counted on from those of the first.
struct RestHeader {
    std::uint32_t magic = plan_magic;
    std::uint32_t size = 0;
    std::uint32_t instr_count = 0;
    Ref instrs = 0;
    Ref argv = 0;  ///< arrays of 64-bit offsets, 0 ends: the stage turns them into pointers
    Ref envp = 0;
    std::uint32_t passed_count = 0;
    std::uint32_t pad = 0;
};

/// Goes to init with the descriptors of the second part, and tells how many they are in all messages together.
struct Rest {
    std::uint32_t count = 0;
};

/// Goes to the keeper, in as many messages as its descriptors need, when the second part is on its way: it id-maps
/// mounts and lets init go on. With it come, in this order: the file with an `oom_kill N` line, a netlink socket and a
/// file of the requests that remove the links, and the mounts; then the contexts of file systems (fsopen(2)) that it
/// makes of those mounts, as root of the container. Of the first three, what is not there is a null device.
struct Go {
    std::uint32_t has_links = 0;
    std::uint32_t idmap_count = 0;  ///< mounts that get the user namespace's id map
    std::uint32_t context_count = 0;
    std::uint32_t root_uid = 0;  ///< user and group of root inside, as the host numbers them
    std::uint32_t root_gid = 0;
};
inline constexpr std::uint32_t kept_descriptors = 3;

/// A system call that the host has a visit make; it makes them one after the other.
struct CallRequest {
    std::int64_t number = 0;
    std::int64_t arguments[6] = {};
    std::uint32_t pointers = 0;     ///< bit i: argument i is an offset into `data`
    std::uint32_t descriptors = 0;  ///< bit i: argument i is the descriptor that has come along
    char data[8192] = {};
};
struct CallAnswer {
    std::int64_t result = 0;  ///< negative: the error
    char data[8192] = {};     ///< as the call has left it
};

/// What init writes to its status pipe: 'E' right before execve, and instead of it or after it the instruction that
/// failed. The keeper makes the pipe, and only init has the writing end, so that a fork(2)ed copy of the host cannot
/// keep it open: its end-of-file means that init has executed its command or has died.
struct InitFailure {
    std::uint32_t instr = 0;
    std::int32_t errnum = 0;
};
inline constexpr char exec_mark = 'E';
static_assert(sizeof(InitFailure) == 8);

/// Of the page of numbers that keeper and init share; the first is the instruction that init is at.
inline constexpr std::uint32_t child_status = 1;  ///< of the child of an `Op::first_process`, as wait4(2) gives it
inline constexpr std::uint32_t child_told = 2;    ///< 1: it is there
inline constexpr std::uint32_t visitor_pid = 3;   ///< of the child of an `Op::become_visible`; 0: there is none

/// What the keeper does before init runs, for its failures.
enum class KeeperStep : std::uint32_t {
    read_plan,
    prepare,
    clone,
    id_map,
    id_map_mount,
    oom_score_adj,
    raise_limit,
    context
};

/// One message from the keeper (or, `netlink` and `terminal`, from init) to the host. The first is `channel`: it brings
/// the socket that takes the place of the inherited one. A copy of the host that was forked meanwhile may hold both
/// ends of that one, and would keep the keeper's death from the host.
struct Report {
    enum class Kind : std::uint32_t {
        cloned,
        netlink,
        refused,
        ended,
        channel,  ///< of a visit: with the status pipe
        terminal,
        passed,    ///< from a visit: a descriptor
        given_up,  ///< of a visit whose host has hung up: the instruction that it was at
    };
    Kind kind{};
    std::int32_t value = 0;   ///< cloned: init's pid (its pidfd and the status pipe come along); refused: errno; ended:
                              ///< si_status of waitid(2)
    std::uint32_t place = 0;  ///< refused: KeeperStep; ended: si_code
    std::uint32_t index =
        0;  ///< refused: which id-mapped mount, limit or context; ended, given_up: the instruction that was reached
    std::uint64_t oom_kills = 0;  ///< ended
    std::uint32_t left = 0;       ///< ended: directories that could not be removed
    std::uint32_t of_child = 0;   ///< ended: 1: value and place are those of the child of an `Op::first_process`
};
static_assert(sizeof(Report) == 32);

}  // namespace caisson::inline v0::detail
