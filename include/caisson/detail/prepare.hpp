// caisson/detail/prepare.hpp - from a ContainerSpec to a Plan: everything that the host makes for a container before it
// launches it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <caisson/cgroup.hpp>
#include <caisson/check.hpp>
#include <caisson/detail/consoles.hpp>
#include <caisson/detail/device_tree.hpp>
#include <caisson/detail/host_devices.hpp>
#include <caisson/detail/id_range.hpp>
#include <caisson/detail/network.hpp>
#include <caisson/detail/plan_builder.hpp>
#include <caisson/detail/plan_mounts.hpp>
#include <caisson/detail/plan_payload.hpp>
#include <caisson/detail/plan_protect.hpp>
#include <caisson/detail/prepare_inside.hpp>
#include <caisson/detail/root_tree.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/detail/unprivileged.hpp>
#include <caisson/detail/user_database.hpp>
#include <caisson/mount.hpp>
#include <caisson/pty.hpp>
#include <caisson/spec.hpp>

namespace caisson::inline v0::detail {

/// What a container needs and what its plan says. Everything made is a member, so that any throw unwinds what is there.
class Preparation {
public:
    /// Checks the spec and makes the plan's first part. Throws the start's errors, without the container's name.
    explicit Preparation(const ContainerSpec& spec) : spec_{spec}, namespaces_{spec.effective_namespaces()} {
        check(spec_);
        check_machine_has(spec_.limits);
        refuse_set_id_program();
        if (is_ordinary_user_) check_for_ordinary_user(spec_);
        check_descriptors(spec_);
        host_devices_.emplace(spec_);
        check_security_label(spec_);
        if (!spec_.networks.empty()) check_network(spec_.networks);
        open_root();
        map_ids();
        if (is_ordinary_user_) cgroup_ = begin_cgroup_if_allowed(spec_);
        else if (spec_.cgroup) cgroup_.emplace(Cgroup::begin(spec_.name, spec_.cgroup_parent));
        find_user();
        compile_first();
    }
    /// Makes everything else, and the second part; meanwhile the stage makes the namespaces. Throws as above.
    void finish() {
        if (cgroup_) {
            cgroup_->complete();
            cgroup_->limit(spec_.limits);
            if (spec_.count_cpus) cgroup_->count_cpus();
            host_devices_->limit(*cgroup_);
            // The hierarchy that is shown inside; see cgroups(7), "Delegating a hierarchy".
            for (const CgroupDirectory& d : cgroup_->directories()) {
                if (spec_.cgroup_mount != CgroupMount::read_write || !d.v2()) continue;
                delegate_group(d.parent.get(), cgroup_->name(), outside(uid_map_, 0), outside(gid_map_, 0));
            }
        }
        if (!is_ordinary_user_) open_terminal();
        compile_rest();
    }
    Preparation(const Preparation&) = delete;
    Preparation& operator=(const Preparation&) = delete;

    [[nodiscard]] const ContainerSpec& spec() const noexcept { return spec_; }
    [[nodiscard]] NamespaceSet namespaces() const noexcept { return namespaces_; }
    [[nodiscard]] bool has_new(NamespaceKind kind) const noexcept { return namespaces_.has(kind); }
    /// The first part's descriptors are -1 where the launch fills them in; so is the second part's first.
    [[nodiscard]] const PlanPart& first() const noexcept { return first_; }
    [[nodiscard]] const PlanPart& rest() const noexcept { return rest_; }
    /// What the keeper gets with `Go`; the second and third descriptor are filled in where there are links.
    [[nodiscard]] const Go& go() const noexcept { return go_; }
    [[nodiscard]] const std::vector<int>& go_descriptors() const noexcept { return go_descriptors_; }
    /// What each of the plan's instructions means.
    [[nodiscard]] const std::vector<PlanNote>& notes() const noexcept { return plan_.notes(); }
    /// Of each limit that the keeper raises.
    [[nodiscard]] const std::vector<Raise>& raises() const noexcept { return raises_; }
    /// What the id-mapped mounts are, whose descriptors follow the first `kept_descriptors` of `go_descriptors`.
    [[nodiscard]] const std::vector<std::string>& idmapped() const noexcept { return idmapped_what_; }
    /// The overlays that the keeper makes.
    [[nodiscard]] const std::vector<OverlayTree>& overlays() const noexcept { return overlays_; }
    /// What the keeper cannot tell of an init that dies before `Go`: there is no file to read it from yet.
    [[nodiscard]] bool has_run_out_of_memory() noexcept {
        try {
            return cgroup_ && cgroup_->usage(UsagePart::memory | UsagePart::details).oom_kills.value_or(0) > 0;
        } catch (...) {
            return false;
        }
    }
    [[nodiscard]] const CallersIds& callers_ids() const noexcept { return callers_ids_; }
    /// How many consoles init opens, of which it sends the controlling ends.
    [[nodiscard]] std::size_t consoles_inside() const noexcept {
        return inside_.console() != no_slot ? consoles_of(spec_) : 0;
    }
    [[nodiscard]] Equipment equipment() const {
        return host_devices_->equipment(devices_ ? devices_->devices.fd() : -1, uid_map_, gid_map_);
    }
    /// For the running container.
    [[nodiscard]] std::optional<Cgroup> take_cgroup() noexcept { return std::move(cgroup_); }
    [[nodiscard]] std::vector<Pty> take_consoles() noexcept { return std::move(consoles_); }

private:
    static constexpr std::uint64_t attributes_of_proc = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

    /// The host's own root is kept as it is; to be read-only it must be seen through a mount of its own, as any other.
    [[nodiscard]] bool own_root() const noexcept {
        return spec_.root != "/" || spec_.root_read_only || spec_.root_overlay;
    }

    void open_root() {
        if (!own_root()) return;
        if (is_ordinary_user_) layers_ = inside_.open_layers();
        else root_.emplace(spec_);
    }

    void map_ids() {
        if (!spec_.has_user_namespace()) return;
        if (is_ordinary_user_) {
            callers_ids_ = ids_of_caller(spec_);
            uid_map_ = callers_ids_.uid_map;
            gid_map_ = callers_ids_.gid_map;
        } else if (spec_.wants_automatic_map()) {
            range_.emplace(IdRange::reserve());
            uid_map_ = gid_map_ = {{0, range_->begin(), IdRange::size}};
        } else {
            uid_map_ = spec_.uid_map;
            gid_map_ = spec_.gid_map;
            if (IdRange::concerns(uid_map_) || IdRange::concerns(gid_map_)) {
                shared_ids_.emplace(IdRange::share(uid_map_, gid_map_));
            }
        }
    }

    void find_user() {
        Mount held;
        std::vector<int> places;
        if (root_ && !(spec_.user.empty() && spec_.group.empty())) places.push_back(root_->look(held));
        if (!own_root()) layers_.push_back(sys::open("/", O_PATH | O_DIRECTORY));
        for (const Fd& layer : layers_) places.push_back(layer.get());
        identity_ = identity_of(spec_, places);
        if (is_ordinary_user_) require_ids(callers_ids_, identity_.uid, identity_.gid, identity_.groups);
        require_mapped(spec_, identity_, uid_map_, gid_map_);
    }

    void open_terminal() {
        const std::uint32_t uid = outside(uid_map_, 0);
        const std::uint32_t tty = outside(gid_map_, 5);
        if (spec_.dev) devices_.emplace(DeviceTree::make(uid, outside(gid_map_, 0), tty, consoles_of(spec_)));
        if (devices_) host_devices_->make_in(devices_->devices.fd(), uid_map_, gid_map_);
        for (std::size_t i = 0; i < consoles_of(spec_); ++i) {
            const WindowSize size = console_of(spec_, i).size;
            consoles_.push_back(devices_ ? Pty::open_in(devices_->terminals.fd(), size) : Pty::open(size));
            Fd terminal = consoles_.back().open_peer();
            // Made by the host's root, it would belong to nobody inside.
            if (::fchown(terminal.get(), outside(uid_map_, identity_.uid), tty) != 0)
                fail(Step::terminal, "owner of " + name_of_console(i));
            if (i == 0) terminal_ = std::move(terminal);
        }
    }

    void compile_first() {
        for (Slot slot = 0; slot < first_free_slot; ++slot) (void)plan_.inherit(-1);  // set by launch_stage
        if (range_) (void)plan_.inherit(range_->fd());
        if (shared_ids_) (void)plan_.inherit(shared_ids_->fd());
        for (const Fd& lock : locks_ = lock_uppers(spec_)) (void)plan_.inherit(lock.get());
        if (cgroup_) tell_groups();
        set_hostname();
        if (has_new(NamespaceKind::net)) add({.op = Op::loopback_up}, Step::network, "interface 'lo'");
        add({.op = Op::private_mounts}, Step::mount, "make all mounts private");
        plan_.end_of_early();
        if (has_new(NamespaceKind::user)) {
            add({.op = Op::become_root}, Step::credentials, "become root of the user namespace");
            if (!callers_ids_.by_tools) {
                plan_.header.uid_map = plan_.text(map_text(uid_map_));
                plan_.header.gid_map = plan_.text(map_text(gid_map_));
            }
        }
        add({.op = Op::session_keyring}, Step::credentials, "new session keyring");
        make_proc_and_sys();
        if (is_ordinary_user_) inside_.make_terminals(gid_map_, identity_.uid);
        add({.op = Op::receive_rest}, Step::descriptors, "descriptors from the host");

        plan_.header.clone_flags = namespaces_.bits();
        // A cgroup namespace shows the group that its maker is in as "/": init makes it once it is in all of its own.
        plan_.header.clone_flags &= ~static_cast<std::uint64_t>(NamespaceKind::cgroup);
        if (!spec_.networks.empty()) plan_.header.flags |= plan_send_netlink;
        if (own_root()) plan_.header.flags |= plan_own_root;
        if (is_ordinary_user_) plan_.header.flags |= plan_unprivileged;
        if (callers_ids_.by_tools) plan_.header.flags |= plan_host_maps;
        else if (callers_ids_.deny_setgroups) plan_.header.flags |= plan_deny_setgroups;
        if (spec_.init) plan_.header.flags |= plan_first_process;
        plan_.header.oom_score_adj = plan_.text(std::to_string(spec_.oom_score_adj.value_or(0)));
        plan_.header.strict_oom_score_adj = spec_.oom_score_adj ? 1 : 0;
        limits_ = effective_limits(spec_);
        raises_ = raises_of(limits_);
        plan_.header.raise_count = static_cast<std::uint32_t>(raises_.size());
        plan_.header.raises = plan_.array(raises_);
        plan_.header.name = plan_.text(("caisson:" + spec_.name).substr(0, 15));
        first_ = plan_.finish_first();
    }

    void compile_rest() {
        (void)plan_.inherit(-1);  // the second part itself, set by send_rest
        inherit_standard();
        const int oom = cgroup_ ? cgroup_->oom_fd() : -1;
        go_descriptors_ = {oom >= 0 ? oom : null_.get(), null_.get(), null_.get()};
        join_groups();
        plan_sysctls(plan_, spec_, proc_);
        make_mounts();
        if (own_root()) {
            const std::string what = "root " + quote(spec_.root);
            std::optional<OverlayTree> overlay = root_ ? root_->take_overlay() : std::nullopt;
            const Slot slot = overlay ? inherit_overlay(std::move(*overlay), root_->options())
                              : root_ ? inherit_mount(root_->mount(), what)
                                      : inside_.root();
            add({.op = Op::enter_root, .slot = slot}, Step::pivot_root, what);
        }
        place_system_mounts();
        for (std::size_t i = 0; i < spec_.mounts.size(); ++i) place_mount(i);
        plan_protection(plan_, spec_, has_new(NamespaceKind::net),
                        {spec_.proc ? proc_ : no_slot, spec_.sys ? sys_ : no_slot});
        if (spec_.init) add({.op = Op::first_process}, Step::exec, "the command's own process");
        add({.op = Op::session, .slot = inside_.console(), .x = spec_.console ? 1u : 0u}, Step::terminal,
            "session and controlling terminal");
        add({.op = Op::working_directory, .a = plan_.text(spec_.working_directory)}, Step::exec,
            "working directory " + quote(spec_.working_directory));
        // The native one, too: a host that runs without address space randomisation does not hand that down.
        const bool twin = spec_.personality == Personality::linux32;
        add({.op = Op::personality, .x = twin ? PER_LINUX32 : PER_LINUX}, Step::exec, "personality");
        add({.op = Op::umask, .x = spec_.umask}, Step::exec, "umask");
        plan_security_label(plan_, spec_, proc_);
        plan_credentials(plan_, spec_, identity_, callers_ids_.deny_setgroups);
        add({.op = Op::descriptors}, Step::descriptors, "descriptors of the command");
        plan_limits(plan_, limits_);
        if (spec_.no_new_privileges) plan_filter(plan_, spec_);
        add({.op = Op::exec}, Step::exec, "command " + quote(spec_.command.front()));
        for (const OverlayTree& overlay : overlays_) go_descriptors_.push_back(overlay.context().fd());
        go_.context_count = static_cast<std::uint32_t>(overlays_.size());
        go_.root_uid = outside(uid_map_, 0);
        go_.root_gid = outside(gid_map_, 0);
        rest_ = plan_.finish_rest(spec_.command, environment_of(spec_, identity_),
                                  static_cast<std::uint32_t>(spec_.descriptors.size()));
        if (rest_.descriptors.size() > most_received) {
            throw Error{Step::descriptors, E2BIG, "mounts of one container", "some 480 binds are possible"};
        }
    }

    void add(const Instr& instr, Step step, std::string context) { plan_.add(instr, step, std::move(context)); }

    void inherit_standard() {
        // The container's own where it has one: root inside may change owner and mode of what it has open.
        null_ = devices_ ? sys::open_at(devices_->devices.fd(), "null", O_RDWR | O_NOCTTY)
                         : sys::open("/dev/null", O_RDWR | O_NOCTTY);
        if (!null_) fail(Step::descriptors, "'/dev/null'");
        const auto standard = [&](int fd) { (void)plan_.inherit(fd >= 0 ? fd : null_.get()); };
        if (spec_.console) {
            for (int i = 0; i < 3; ++i) standard(terminal_.get());
        } else {
            for (const int fd : {spec_.stdio.in, spec_.stdio.out, spec_.stdio.err}) standard(fd);
        }
        for (const int fd : spec_.descriptors) (void)plan_.inherit(fd);
    }

    /// What the keeper removes at the end, and the group in which init is born.
    void tell_groups() {
        if (cgroup_->into_fd() >= 0) plan_.header.cgroup_slot = plan_.inherit(cgroup_->into_fd());
        const std::vector<int> parents = cgroup_->parent_fds();
        std::vector<Slot> teardowns;
        for (auto fd = parents.rbegin(); fd != parents.rend(); ++fd) teardowns.push_back(plan_.inherit(*fd));
        if (teardowns.size() > most_teardowns || cgroup_->name().size() > longest_teardown_name) {
            throw Error{Step::cgroup, E2BIG, "control group " + quote(cgroup_->name())};
        }
        plan_.header.teardown_name = plan_.text(cgroup_->name());
        plan_.header.teardown_count = static_cast<std::uint32_t>(teardowns.size());
        plan_.header.teardowns = plan_.array(teardowns);
    }

    void join_groups() {
        if (cgroup_) {
            for (const CgroupDirectory& directory : cgroup_->directories()) {
                if (!directory.tasks) continue;
                add({.op = Op::join_group, .slot = plan_.inherit(directory.tasks.get())}, Step::cgroup,
                    "join the control group in hierarchy " + quote(directory.controllers));
            }
        }
        if (has_new(NamespaceKind::cgroup)) add({.op = Op::unshare_cgroup}, Step::clone, "new cgroup namespace");
        if (spec_.cgroup_mount != CgroupMount::none) {
            std::uint64_t attributes = attributes_of_proc;
            if (spec_.cgroup_mount == CgroupMount::read_only) attributes |= MOUNT_ATTR_RDONLY;
            groups_ = make_file_system("cgroup2", "/sys/fs/cgroup", attributes, {{"source", "cgroup2"}});
        }
    }

    void set_hostname() {
        std::string name = spec_.hostname;
        if (name.empty()) {
            for (const char c : spec_.name) name += c == '_' ? '-' : c;
        }
        add({.op = Op::hostname, .a = plan_.text(name), .x = name.size()}, Step::hostname, "host name " + quote(name));
    }

    /// A detached mount of the host, seen through the id map where that is wanted.
    [[nodiscard]] Slot inherit_mount(const Mount& mount, const std::string& what) {
        const Slot slot = plan_.inherit(mount.fd());
        if (spec_.maps_mounts()) {
            ++go_.idmap_count;
            go_descriptors_.push_back(mount.fd());
            idmapped_what_.push_back(what);
        }
        return slot;
    }
    /// An overlay, of layers that are seen through the id map where that is wanted.
    [[nodiscard]] Slot inherit_overlay(OverlayTree tree, MountOptions options, std::string_view data = {}) {
        if (!spec_.maps_mounts()) {
            mounts_.push_back(tree.make(options, data));
            return plan_.inherit(mounts_.back().fd());
        }
        tree.configure(uid_map_, gid_map_, data);
        for (const Mount& layer : tree.mapped()) {
            ++go_.idmap_count;
            go_descriptors_.push_back(layer.fd());
            idmapped_what_.push_back(tree.what());
        }
        const Slot slot = plan_.dynamic();
        add({.op = Op::mount_context,
             .slot = slot,
             .other = plan_.inherit(tree.context().fd()),
             .x = Mount::attributes(options)},
            Step::mount, tree.what());
        overlays_.push_back(std::move(tree));
        return slot;
    }

    [[nodiscard]] Slot make_file_system(const char* type, const std::string& target, std::uint64_t attributes,
                                        const std::vector<std::pair<std::string, std::string>>& options = {}) {
        const Slot slot = plan_.dynamic();
        add({.op = Op::new_filesystem, .slot = slot, .a = plan_.text(type), .b = plan_.pairs(options), .x = attributes},
            Step::mount, "mount " + quote(type) + " on " + quote(target));
        return slot;
    }
    void place(Slot slot, const std::string& target, std::uint64_t flags, const std::string& what) {
        add({.op = Op::place, .slot = slot, .a = plan_.text(target), .x = flags}, Step::mount,
            "mount " + what + " on " + quote(target));
    }

    /// Made before the old root goes away: in a user namespace the kernel gives a new proc or sysfs only to who already
    /// sees a whole one (mount_too_revealing).
    void make_proc_and_sys() {
        if (spec_.proc || !spec_.sysctls.empty() || !spec_.security_label.empty()) {
            proc_ = make_file_system("proc", "/proc", attributes_of_proc, {{"source", "proc"}});
        }
        if (spec_.dev) {
            shm_ = make_file_system("tmpfs", "/dev/shm", attributes_of_proc,
                                    {{"source", "shm"}, {"size", "64m"}, {"mode", "1777"}});
            mqueue_ = make_file_system("mqueue", "/dev/mqueue", attributes_of_proc, {{"source", "mqueue"}});
        }
        if (spec_.sys && !shows_hosts_sys()) {
            sys_ = make_file_system("sysfs", "/sys", attributes_of_proc | MOUNT_ATTR_RDONLY, {{"source", "sysfs"}});
        }
    }
    /// A sysfs shows a network namespace, which must belong to the user namespace; else the host's is shown.
    [[nodiscard]] bool shows_hosts_sys() const noexcept {
        return has_new(NamespaceKind::user) && !has_new(NamespaceKind::net);
    }

    /// Those of the spec, before the old root goes away, as above.
    void make_mounts() {
        if (spec_.sys && shows_hosts_sys()) {
            if (is_ordinary_user_) {
                sys_ = inside_.make_hosts_sys();
            } else {
                mounts_.push_back(Mount::bind("/sys", {.read_only = true, .no_exec = true, .recursive = false}));
                sys_ = plan_.inherit(mounts_.back().fd());
            }
        }
        if (is_ordinary_user_) inside_.make_devices();
        for (std::size_t i = 0; i < spec_.mounts.size(); ++i) {
            const MountSpec& mount = spec_.mounts[i];
            mount_slots_.push_back(no_slot);
            if (is_ordinary_user_ && PrepareInside::makes(mount.type)) {
                mount_slots_[i] = inside_.mount(mount);
                continue;
            }
            switch (mount.type) {
                case MountSpec::Type::bind:
                case MountSpec::Type::image:
                    mounts_.push_back(Mount::make(mount));
                    mount_slots_[i] = inherit_mount(mounts_.back(), "mount on " + quote(mount.target));
                    break;
                case MountSpec::Type::overlay:
                    mount_slots_[i] = inherit_overlay(OverlayTree::open(mount), mount.options, mount.data);
                    break;
                case MountSpec::Type::bind_inside: break;  // when its source is there
                default: {
                    const auto options = plan_options(mount.data);
                    std::uint64_t attributes = Mount::attributes(mount.options);
                    // A devpts without devices is of no use.
                    if (mount.type == MountSpec::Type::devpts) attributes &= ~std::uint64_t{MOUNT_ATTR_NODEV};
                    mount_slots_[i] = make_file_system(to_string(mount.type), mount.target, attributes, options);
                }
            }
        }
    }

    void place_system_mounts() {
        constexpr std::uint64_t flags = place_make_directory | place_no_symlinks;
        if (spec_.proc) place(proc_, "/proc", flags, "'proc'");
        if (spec_.sys) place(sys_, "/sys", flags, "'sysfs'");
        inside_.cover_cgroups();
        if (groups_ != no_slot) {
            const std::string what = "'cgroup2' on '/sys/fs/cgroup'";
            if (sys_ != no_slot && !is_ordinary_user_) place_below(sys_, groups_, "fs/cgroup", what);
            else place(groups_, "/sys/fs/cgroup", flags, "'cgroup2'");
        }
        if (inside_.devices() != no_slot) {
            place(inside_.devices(), "/dev", flags, "the devices");
            inside_.place_devices(shm_, mqueue_);
        }
        if (!devices_) return;
        const Slot devices = plan_.inherit(devices_->devices.fd());
        place(devices, "/dev", flags, "the devices");
        place_below(devices, plan_.inherit(devices_->terminals.fd()), "pts", "'devpts' on '/dev/pts'");
        place_below(devices, shm_, "shm", "'tmpfs' on '/dev/shm'");
        place_below(devices, mqueue_, "mqueue", "'mqueue' on '/dev/mqueue'");
        if (spec_.console) {
            const Slot slot = plan_.dynamic();
            add({.op = Op::clone_mount, .slot = slot, .other = standard_slot}, Step::terminal,
                "bind the console's terminal");
            place_below(devices, slot, "console", "the terminal on '/dev/console'");
        }
    }
    /// On `path` below a mount that has been placed.
    void place_below(Slot base, Slot slot, const char* path, const std::string& what) {
        add({.op = Op::place, .slot = slot, .other = base, .a = plan_.text(path)}, Step::mount, "mount " + what);
    }

    void place_mount(std::size_t i) {
        const MountSpec& mount = spec_.mounts[i];
        const bool inside = mount.type == MountSpec::Type::bind_inside;
        if (inside) mount_slots_[i] = plan_bind_inside(plan_, spec_, mount);
        const bool by_source = inside || mount.type == MountSpec::Type::bind || mount.type == MountSpec::Type::image;
        place(mount_slots_[i], mount.target, place_make_same_kind,
              by_source ? quote(mount.source) : quote(to_string(mount.type)));
    }

    const ContainerSpec& spec_;
    NamespaceSet namespaces_;
    bool is_ordinary_user_ = is_ordinary_user();
    CallersIds callers_ids_;
    std::vector<IdMap> uid_map_;
    std::vector<IdMap> gid_map_;
    std::optional<IdRange> range_;
    std::optional<IdRange> shared_ids_;
    std::optional<Cgroup> cgroup_;
    std::vector<Pty> consoles_;
    std::optional<RootTree> root_;
    std::vector<OverlayTree> overlays_;  // those that the keeper makes
    std::vector<Fd> locks_;
    std::optional<HostDevices> host_devices_;
    std::vector<Fd> layers_;  // of a root that is no mount of the library's, the topmost first
    std::optional<DeviceTree> devices_;
    std::vector<Mount> mounts_;
    std::vector<Slot> mount_slots_;
    Identity identity_;
    std::vector<ResourceLimit> limits_;
    std::vector<Raise> raises_;
    Go go_;
    std::vector<int> go_descriptors_;
    std::vector<std::string> idmapped_what_;
    Slot proc_ = no_slot;
    Slot sys_ = no_slot;
    Slot groups_ = no_slot;
    Slot shm_ = no_slot;
    Slot mqueue_ = no_slot;
    Fd terminal_;
    Fd null_;
    PlanBuilder plan_;
    PrepareInside inside_{spec_, plan_};
    PlanPart first_;
    PlanPart rest_;
};

}  // namespace caisson::inline v0::detail
