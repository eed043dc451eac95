// src/exec.cpp - a command in a container that runs.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>

#include <caisson/check.hpp>
#include <caisson/detail/asking.hpp>
#include <caisson/detail/plan_payload.hpp>
#include <caisson/detail/start_error.hpp>
#include <caisson/detail/user_database.hpp>
#include <caisson/detail/visit.hpp>
#include <caisson/exec.hpp>

#include "check_parts.hpp"
#include "exec_spec.hpp"

namespace caisson::inline v0 {

namespace detail {
namespace {

constexpr std::string_view in_the_child = " (in the child)";

/// One command on its way into a container.
class Entry {
public:
    Entry(const ExecSpec& exec, const ExecTicket& ticket)
        : exec_{exec},
          ticket_{ticket},
          spec_{merged(exec, ticket.defaults.spec)},
          deadline_{deadline_in(exec.start_timeout.count())},
          // Before anything is looked at.
          visit_{(check_all(), ticket.init), exec.namespaces, spec_.stage_path} {}

    [[nodiscard]] Visitor start() {
        if (exec_.cgroup) open_groups();
        find_user();
        plan_outside();
        visit_.enter(exec_.cgroup ? &*groups_ : nullptr);
        plan_inside();
        return visit_.start(spec_.command, environment_of(spec_, identity_),
                            static_cast<std::uint32_t>(spec_.descriptors.size()), left());
    }
    /// What is to be done about an instruction that was refused.
    [[nodiscard]] Error with_remedy(const Error& e) const {
        if (!e.remedy().empty()) return e;
        const std::size_t end = e.context().rfind(in_the_child);
        if (end == std::string_view::npos) return e.with_remedy(general_remedy(e.code()));
        const std::string context{e.context().substr(0, end)};
        const bool is_command = context.starts_with("command ");
        const int errnum = e.code().value();
        if (context.starts_with("user ") && errnum == EINVAL) {
            return e.with_remedy("the container's user namespace does not have this id");
        }
        if (context == terminals && errnum != 0) {
            return e.with_remedy("the container has no devpts on /dev/pts: leave console out");
        }
        if (context == own_process && errnum == EAGAIN && rule_that_gives(errnum).empty()) {
            return e.with_remedy("a limit on processes is reached: see limits.pids and the resource limit 'nproc'");
        }
        if (context == own_process || context == own_session || context.starts_with(limit_of_processes)) {
            if (std::string remedy = rule_that_gives(errnum); !remedy.empty()) return e.with_remedy(remedy);
        }
        return e.with_remedy(remedy_of(spec_, e.step(), errnum, context, is_command));
    }

private:
    static constexpr const char* own_process = "make the command's process";
    static constexpr const char* own_session = "session and controlling terminal";
    static constexpr const char* terminals = "open '/dev/pts'";
    static constexpr const char* limit_of_processes = "resource limit 'nproc'";

    void check_all() const {
        check(exec_);
        check_in(exec_, ticket_.defaults.spec, !ticket_.groups.hierarchies.empty());
        check_descriptors(spec_);
        check_security_label(spec_);
    }
    PlanBuilder& plan() noexcept { return visit_.plan(); }
    void open_groups() {
        if (!groups_) groups_.emplace(GroupEntrance::open(ticket_.groups, ticket_.init.pid()));
    }
    [[nodiscard]] std::string rule_that_gives(int errnum) const {
        const std::vector<SeccompRule>& rules = spec_.seccomp.rules;
        const auto found = std::find_if(rules.begin(), rules.end(), [&](const SeccompRule& rule) {
            return rule.action == SeccompRule::Action::refuse && rule.errnum == errnum && !spec_.seccomp.audit &&
                   checking::is_called_by_exec(spec_, exec_.console.has_value(), rule.call);
        });
        if (found == rules.end()) return {};
        return checking::indexed("seccomp.rules", static_cast<std::size_t>(found - rules.begin())) + " refuses " +
               quote(found->call) + " with such arguments, and the start of a command calls it under the filter";
    }
    /// Of the time that the whole start may take.
    [[nodiscard]] std::int64_t left() const noexcept { return std::max<std::int64_t>(0, deadline_ - monotonic_ms()); }
    void add(const Instr& instr, Step step, std::string context) { plan().add(instr, step, std::move(context)); }

    /// A file of the container's, as text: who reads it is a visit, which nothing there can hold up for ever.
    [[nodiscard]] std::string read_inside(const char* path, std::size_t most) {
        Fd copy{::memfd_create("caisson-copy", MFD_CLOEXEC)};
        if (!copy) fail(Step::credentials, "file in memory");
        Visit visit{ticket_.init, NamespaceKind::mount | NamespaceKind::user, spec_.stage_path};
        // What is at the path may be a device, and opening that is a deed: its rules are the container's.
        open_groups();
        visit.enter(&*groups_);
        PlanBuilder& inside = visit.plan();
        const std::string what = quote(path) + " of the container";
        const Slot file = inside.dynamic();
        inside.add({.op = Op::open_file, .slot = file, .a = inside.text(path), .x = O_RDONLY | O_NONBLOCK},
                   Step::credentials, what);
        inside.add({.op = Op::send_file, .slot = file, .other = inside.inherit(copy.get()), .x = most + 1},
                   Step::credentials, what);
        try {
            visit.run(left());
        } catch (const Error& e) {
            throw e.remedy().empty() ? e.with_remedy("give the user and group as numbers") : e;
        }
        std::string text;
        char buffer[8192];
        for (;;) {
            const auto at = static_cast<off_t>(text.size());
            const ssize_t n = sys::retry([&] { return ::pread(copy.get(), buffer, sizeof buffer, at); });
            if (n < 0) fail(Step::credentials, what);
            if (n == 0) return text;
            text.append(buffer, static_cast<std::size_t>(n));
        }
    }
    void find_user() {
        identity_ = identity_from(spec_, [&](const char* name) {
            const std::string path = std::string{"/"} + name;
            return UserFile::of_text(quote(path) + " of the container",
                                     read_inside(path.c_str(), UserFile::most_bytes));
        });
        if (exec_.groups) identity_.groups = *exec_.groups;
    }

    /// While the process is in the host's mount namespace, with the host's rights.
    void plan_outside() {
        proc_ = sys::open("/proc", O_PATH | O_DIRECTORY);
        if (!proc_) fail(Step::credentials, "'/proc'");
        const Slot proc = plan().inherit(proc_.get());
        std::string own;
        const bool known = sys::read_file(AT_FDCWD, "/proc/thread-self/oom_score_adj", own);
        const int wanted = spec_.oom_score_adj.value_or(0);
        // Without a word of the spec's, one that the host's user may not lower stays as the host's.
        if (spec_.oom_score_adj || (known && std::atoi(own.c_str()) < wanted)) {
            const std::string text = std::to_string(wanted);
            add({.op = Op::write_setting,
                 .slot = proc,
                 .a = plan().text("thread-self/oom_score_adj"),
                 .b = plan().text(text)},
                Step::credentials, "oom_score_adj " + text);
        }
        limits_ = effective_limits(spec_);
        for (const Raise& raise : raises_of(limits_)) {
            const auto kind = static_cast<ResourceLimit::Kind>(raise.resource);
            add({.op = Op::resource_limit,
                 .other = static_cast<Slot>(raise.resource),
                 .x = raise.soft,
                 .y = raise.hard},
                Step::credentials,
                "resource limit " + quote(ResourceLimit::name(kind)) + ": the hard limit of " + limit_text(raise.hard));
        }
        plan_security_label(plan(), spec_, proc);
    }

    void plan_inside() {
        null_ = sys::open("/dev/null", O_RDWR | O_NOCTTY);
        if (!null_) fail(Step::descriptors, "'/dev/null'");
        const auto standard = [&](int fd) { return plan().inherit(fd >= 0 && !exec_.console ? fd : null_.get()); };
        Slot stdio[3];
        for (int i = 0; i < 3; ++i)
            stdio[i] = standard(i == 0 ? spec_.stdio.in : i == 1 ? spec_.stdio.out : spec_.stdio.err);
        for (const int fd : spec_.descriptors) (void)plan().inherit(fd);
        add({.op = Op::session_keyring}, Step::credentials, "new session keyring");
        if (exec_.console) {
            const Slot pts = plan().dynamic();
            add({.op = Op::open_devpts, .slot = pts, .a = plan().text("/dev/pts")}, Step::terminal, terminals);
            const Slot console = plan().dynamic();
            const std::uint64_t owner = std::uint64_t{identity_.uid} << 32 | 0xffffffffu;  // the group is the mount's
            const std::uint64_t size = std::uint64_t{exec_.console->rows} << 16 | exec_.console->columns;
            add({.op = Op::open_terminal, .slot = console, .other = pts, .x = owner, .y = size}, Step::terminal,
                "open the console");
            for (Slot& slot : stdio) slot = console;
        } else {
            // Root inside may change owner and mode of what it has open, where it is root outside.
            const bool own_null = !spec_.has_user_namespace();
            for (Slot& slot : stdio) {
                const auto i = &slot - stdio;
                const int given = i == 0 ? spec_.stdio.in : i == 1 ? spec_.stdio.out : spec_.stdio.err;
                if (given >= 0 || !own_null) continue;
                slot = plan().dynamic();
                add({.op = Op::open_null, .slot = slot, .a = plan().text("/dev/null")}, Step::descriptors,
                    "'/dev/null' of the container");
            }
        }
        add({.op = Op::standard, .slot = stdio[0], .other = stdio[1], .x = static_cast<std::uint32_t>(stdio[2])},
            Step::descriptors, "standard descriptors");
        add({.op = Op::working_directory, .a = plan().text(spec_.working_directory)}, Step::exec,
            "working directory " + quote(spec_.working_directory));
        const bool twin = spec_.personality == Personality::linux32;
        add({.op = Op::personality, .x = twin ? PER_LINUX32 : PER_LINUX}, Step::exec, "personality");
        add({.op = Op::umask, .x = spec_.umask}, Step::exec, "umask");
        plan_credentials(plan(), spec_, identity_, ticket_.defaults.deny_setgroups);
        add({.op = Op::descriptors, .x = 1}, Step::descriptors, "descriptors of the command");
        // The last, as the command's own process counts too.
        std::vector<ResourceLimit> of_processes;
        const auto counts = [](const ResourceLimit& limit) { return limit.kind == ResourceLimit::Kind::nproc; };
        std::copy_if(limits_.begin(), limits_.end(), std::back_inserter(of_processes), counts);
        std::erase_if(limits_, counts);
        plan_limits(plan(), limits_);
        if (spec_.no_new_privileges) plan_filter(plan(), spec_);
        add({.op = Op::become_visible}, Step::clone, own_process);
        add({.op = Op::session, .x = exec_.console ? 1u : 0u}, Step::terminal, own_session);
        plan_limits(plan(), of_processes);
        add({.op = Op::exec}, Step::exec, "command " + quote(spec_.command.front()));
    }

    const ExecSpec& exec_;
    const ExecTicket& ticket_;
    ContainerSpec spec_;
    std::int64_t deadline_;
    Visit visit_;
    std::optional<GroupEntrance> groups_;
    Identity identity_;
    std::vector<ResourceLimit> limits_;
    Fd proc_;
    Fd null_;
};

}  // namespace

Exec ExecTicket::exec(const ExecSpec& spec) const {
    const std::string outer = "container " + quote(defaults.spec.name);
    if (is_suspended) {
        throw Error{Step::exec, EBUSY, outer + ": start a command", "it is suspended: resume it first"};
    }
    try {
        Entry entry{spec, *this};
        try {
            return Exec{entry.start()};
        } catch (const Error& e) {
            throw entry.with_remedy(e);
        }
    } catch (const Error& e) {
        if (e.step() == Step::check_spec || !is_ending(init)) throw e.in(outer);
        throw Error{e.step(), ESRCH, outer + ": " + std::string{e.context()}, "it has ended"};
    }
}

ExecDefaults ExecDefaults::of(const ContainerSpec& spec, bool deny_setgroups) {
    ExecDefaults kept{.spec = {}, .deny_setgroups = deny_setgroups};
    ContainerSpec& s = kept.spec;
    s.name = spec.name;
    s.root = spec.root;
    s.environment = spec.environment;
    s.working_directory = spec.working_directory;
    s.namespaces = spec.namespaces;
    s.masked_paths.clear();
    s.read_only_paths.clear();
    s.resource_limits = spec.resource_limits;
    s.capabilities = spec.capabilities;
    s.no_new_privileges = spec.no_new_privileges;
    s.seccomp = spec.seccomp;
    s.security_label = spec.security_label;
    s.uid = spec.uid;
    s.gid = spec.gid;
    s.groups = spec.groups;
    s.user = spec.user;
    s.group = spec.group;
    s.oom_score_adj = spec.oom_score_adj;
    s.personality = spec.personality;
    s.umask = spec.umask;
    s.uuid = spec.uuid;
    s.stage_path = spec.stage_path;
    return kept;
}

}  // namespace detail
}  // namespace caisson::inline v0
