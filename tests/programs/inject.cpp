// inject - lets every system call of one start and stop of a container, or of one thing that is done to one that runs,
// fail once, one at a time.
//
//   inject [--what start|exec|copy|attach] [--role host|intermediate|keeper|init|all] [--errno EPERM,ENOMEM,...]
//          [--interrupt] [--kill ROLE|all] [--hold ROLE|all [--only CALL] [--slow CALL]] [--from K] [--to K] [--stride
//          K]
//          [--user|--overlay|--ordinary] [--range] [--no-network] [--verbose] [-- PROGRAM ARGUMENT...]
//
// Each run must end in time, leave nothing behind, and either succeed or tell an Error with step, object and reason
// (exit status and output as of one_start, which is the default program). A killed host cannot clean up what nobody
// else knows of yet: there, and only there, a sweep may come first. With --hold the process stands still for a moment
// before each call (or each of one name), while all others go on, which may make nothing fail. Prints a line for each
// run that does not hold, and for each role and fault "N of N". Exit status: 0 if all held, 1 if not, 77 where this
// cannot be done.
#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/bridge.hpp>

#include "support/image.hpp"
#include "support/inject.hpp"
#include "support/machine.hpp"
#include "support/ordinary_user.hpp"
#include "support/rootfs.hpp"

namespace {

using namespace caisson_test;

struct Options {
    std::vector<Role> roles{injected_roles.begin(), injected_roles.end()};
    std::vector<std::string> errnos{};
    std::vector<Role> killed{};
    std::vector<Role> held{};
    std::string only{};  // what a hold is made before
    std::string slow{};  // what takes the others a moment meanwhile
    long from = 1;
    long to = LONG_MAX;
    long stride = 1;  // from one call to the next that is looked at
    std::string what = "start";
    bool user = false;
    bool ordinary = false;  // started by an ordinary user
    bool range = false;     // who has a range of ids
    bool overlay = false;
    bool network = true;
    bool verbose = false;
    std::vector<std::string> command{};
};

const std::pair<const char*, int> errno_names[] = {
    {"EPERM", EPERM},   {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"ENOSPC", ENOSPC}, {"EIO", EIO},
    {"ENOSYS", ENOSYS}, {"EINTR", EINTR},   {"EAGAIN", EAGAIN}, {"EACCES", EACCES}, {"EINVAL", EINVAL}};

int errno_of(const std::string& name) {
    for (const auto& [known, number] : errno_names) {
        if (name == known) return number;
    }
    throw std::invalid_argument{"unknown errno " + name};
}

std::vector<Role> roles_of(const std::string& name) {
    if (name == "all") return {injected_roles.begin(), injected_roles.end()};
    for (const Role role : injected_roles) {
        if (name == to_string(role)) return {role};
    }
    throw std::invalid_argument{"unknown role " + name};
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> std::string {
            if (++i == argc) throw std::invalid_argument{word + " wants a value"};
            return argv[i];
        };
        if (word == "--role") options.roles = roles_of(value());
        else if (word == "--errno") {
            std::istringstream names{value()};
            for (std::string name; std::getline(names, name, ',');) options.errnos.push_back(name);
        } else if (word == "--interrupt") options.errnos.push_back("EINTR");
        else if (word == "--kill") options.killed = roles_of(value());
        else if (word == "--hold") options.held = roles_of(value());
        else if (word == "--only") options.only = value();
        else if (word == "--slow") options.slow = value();
        else if (word == "--from") options.from = std::stol(value());
        else if (word == "--to") options.to = std::stol(value());
        else if (word == "--stride") options.stride = std::max(1L, std::stol(value()));
        else if (word == "--what") options.what = value();
        else if (word == "--user") options.user = true;
        else if (word == "--ordinary") options.ordinary = true, options.network = false;
        else if (word == "--range") options.range = true;
        else if (word == "--overlay") options.overlay = true;
        else if (word == "--no-network") options.network = false;
        else if (word == "--verbose") options.verbose = true;
        else if (word == "--") {
            options.command.assign(argv + i + 1, argv + argc);
            break;
        } else throw std::invalid_argument{"unknown option " + word};
    }
    for (const std::string& name : options.errnos) (void)errno_of(name);
    return options;
}

std::string describe(const Fault& fault) {
    switch (fault.action) {
        case Fault::Action::none: return "no fault";
        case Fault::Action::kill: return "SIGKILL";
        case Fault::Action::hold: return "standing still";
        case Fault::Action::fail: break;
    }
    for (const auto& [name, number] : errno_names) {
        if (number == fault.errnum) return name;
    }
    return std::to_string(fault.errnum);
}

class Campaign {
public:
    explicit Campaign(Options options) : options_{std::move(options)}, before_{MachineState::capture(look)} {}

    bool baseline() {
        const Run run = inject(options_.command, {});
        const std::string problem = judge(run, {});
        if (problem.empty() && run.status == 0) {
            std::printf("without a fault:");
            for (const Role role : injected_roles) {
                std::printf(" %s %ld", std::string{to_string(role)}.c_str(), run.calls[static_cast<std::size_t>(role)]);
            }
            std::printf(" system calls\n");
            return true;
        }
        std::printf("FAILED without a fault: %s\n%s", problem.c_str(), run.output.c_str());
        return false;
    }

    /// One fault at every call of its role; true if every run held.
    bool all_calls(Fault fault) {
        long runs = 0, held = 0, went_on = 0, named = 0, killed = 0;
        const std::string what = std::string{to_string(fault.role)} + ", " + describe(fault);
        for (fault.call = options_.from; fault.call <= options_.to; fault.call += options_.stride) {
            const Run run = inject(options_.command, fault);
            const std::string problem = judge(run, fault);
            if (run.hit.empty() && problem.empty()) break;
            ++runs;
            if (problem.empty()) ++held;
            else
                std::printf("FAILED %s at call %ld (%s): %s\n", what.c_str(), fault.call, run.hit.c_str(),
                            problem.c_str());
            if (WIFSIGNALED(run.status)) ++killed;
            else if (WEXITSTATUS(run.status) == 0) ++went_on;
            else ++named;
            if (options_.verbose && problem.empty()) {
                std::printf("%s at call %ld (%s): %s\n", what.c_str(), fault.call, run.hit.c_str(),
                            run.output.empty() ? "went on" : run.output.substr(0, run.output.find('\n')).c_str());
            }
            std::fflush(stdout);
        }
        std::printf("%s: %ld of %ld (%ld went on, %ld named the error", what.c_str(), held, runs, went_on, named);
        if (killed > 0) std::printf(", %ld were killed", killed);
        std::printf(")\n");
        return held == runs;
    }

private:
    // The program looks at itself; nft rules are made by nobody here.
    static constexpr MachineState::Look look{.machine = true, .process = false, .firewall = false};

    /// What is wrong with a run; empty if nothing.
    std::string judge(const Run& run, const Fault& fault) {
        std::string problem;
        const bool host_killed = fault.action == Fault::Action::kill && fault.role == Role::host;
        if (run.hung) problem = "HANG: " + run.still_there;
        else problem = judge_end(run, fault, host_killed);
        std::string left = lasting_difference(before_, host_killed ? 300 : 3000);
        if (!left.empty() && host_killed) {
            (void)inject({program("one_start"), "sweep"}, {});
            left = lasting_difference(before_);
        }
        if (!left.empty()) {
            problem += (problem.empty() ? "LEFT BEHIND:\n" : "; LEFT BEHIND:\n") + left;
            restore(left);
        }
        return problem;
    }

    [[nodiscard]] std::string judge_end(const Run& run, const Fault& fault, bool host_killed) const {
        if (WIFSIGNALED(run.status)) {
            if (host_killed && WTERMSIG(run.status) == SIGKILL) return {};
            return "the program was ended by signal " + std::to_string(WTERMSIG(run.status)) + ": " + run.output;
        }
        switch (WEXITSTATUS(run.status)) {
            case 0:
                // Who joins a container of an ordinary user without a range of ids cannot do it, and keeps his groups.
                if (options_.ordinary && options_.what != "start" && run.hit == "setgroups") return {};
                if (fault.action == Fault::Action::fail && protects(fault.role, run.hit)) {
                    return "went on without what protects the host";
                }
                return {};
            case 3:
                if (fault.action == Fault::Action::hold) return "a moment's pause made it fail: " + run.output;
                return judge_error(run.output);
            case 4:
                // The C++ library's own answer to a host without memory.
                if (fault.role == Role::host && (run.hit == "brk" || run.hit == "mmap")) return {};
                return "std::bad_alloc";
            case 5:
            case 6:
                // No socket gives that reason: to the owner of a container it is the end of the keeper.
                if (fault.role == Role::host && run.hit == "recvmsg" &&
                    (fault.errnum == EPERM || fault.errnum == EMFILE) && run.output.ends_with(" has ended\n")) {
                    return {};
                }
                return run.output;
            default: return "exit status " + std::to_string(WEXITSTATUS(run.status)) + ": " + run.output;
        }
    }

    /// True for a call that takes privileges away, hides the host or ties lives together: it must not be passed over.
    static bool protects(Role role, const std::string& call) {
        static const std::set<std::string> of_init{"capget",    "capset",     "setgroups",     "setresuid",
                                                   "setresgid", "unshare",    "mount_setattr", "close_range",
                                                   "umount2",   "pivot_root", "setsid"};
        if (call == "prctl " + std::to_string(PR_SET_NAME)) return false;
        if (call.starts_with("prctl ") || call == "capset" || call == "capget")
            return role == Role::init || role == Role::keeper;
        return role == Role::init && of_init.contains(call);
    }

    /// STEP|CONTEXT|ERRNO|WHAT: the context must name more than the container, and a reason must follow it.
    static std::string judge_error(const std::string& output) {
        std::istringstream fields{output};
        std::string step, context, number, what;
        if (!std::getline(fields, step, '|') || !std::getline(fields, context, '|') ||
            !std::getline(fields, number, '|') || !std::getline(fields, what)) {
            return "no error text: " + output;
        }
        const std::string container = "container 'walk'";
        const std::size_t at = context.find(container);
        if (at == std::string::npos || context.size() == container.size()) return "names no object: " + what;
        if (number != "0" && what.size() < context.size() + 3) return "names no reason: " + what;
        return {};
    }

    /// So that the next runs are not blamed for this one's leftovers.
    void restore(const std::string& left) {
        std::istringstream lines{left};
        const std::string head = "processes: + pid ";
        for (std::string line; std::getline(lines, line);) {
            if (line.starts_with(head))
                (void)::kill(static_cast<pid_t>(std::atoi(line.c_str() + head.size())), SIGKILL);
        }
        (void)lasting_difference(before_, 500);
        (void)inject({program("one_start"), "sweep"}, {});
        (void)lasting_difference(before_, 500);
        before_ = MachineState::capture(look);
    }

    Options options_;
    MachineState before_;
};

}  // namespace

int main(int argc, char** argv) try {
    Options options = parse(argc, argv);
    const char* const no_range = "newuidmap is missing: install uidmap";
    if (const char* reason = options.range && !OrdinaryUser::has_tools() ? no_range : inject_missing()) {
        std::printf("%s\n", reason);
        return 77;
    }
    std::optional<TestRoot> root;
    std::optional<OrdinaryUser> user;
    std::optional<TestDirectory> images;
    std::optional<caisson::Bridge> bridge;
    if (options.what != "start") options.network = false;
    if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        std::printf("namespaces of the test's own: %s\n", std::strerror(errno));
        return 77;
    }
    if (options.command.empty()) {
        if (const char* reason = TestRoot::missing()) {
            std::printf("%s\n", reason);
            return 77;
        }
        root.emplace();
        std::string path = root->path();
        if (options.overlay) {
            images.emplace();
            const std::string reason = make_image(*images / "root.img", "squashfs", path);
            if (!reason.empty()) {
                std::printf("%s\n", reason.c_str());
                return 77;
            }
            path = *images / "root.img";
        }
        if (options.network) bridge.emplace(caisson::Bridge::create("br0"));
        if (options.ordinary) {
            OrdinaryUser::own(root->path());
            user.emplace();
            if (!user->make_known(options.range)) throw std::runtime_error{"cannot make an ordinary user known"};
        }
        options.command = {program("one_start"), options.what, path, options.network ? "br0" : "-",
                           options.ordinary  ? "ordinary"
                           : options.overlay ? "overlay"
                           : options.user    ? "user"
                                             : "root"};
    }
    Campaign campaign{options};
    if (!campaign.baseline()) return 1;
    bool held = true;
    for (const std::string& name : options.errnos) {
        for (const Role role : options.roles) {
            held &= campaign.all_calls({.action = Fault::Action::fail, .role = role, .errnum = errno_of(name)});
        }
    }
    for (const Role role : options.killed) held &= campaign.all_calls({.action = Fault::Action::kill, .role = role});
    for (const Role role : options.held) {
        held &= campaign.all_calls(
            {.action = Fault::Action::hold, .role = role, .only = options.only, .slow = options.slow});
    }
    return held ? 0 : 1;
} catch (const std::exception& e) {
    std::fprintf(stderr, "inject: %s\n", e.what());
    return 2;
}
