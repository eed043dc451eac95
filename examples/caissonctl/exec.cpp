#include "exec.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include <sys/ioctl.h>
#include <unistd.h>

#include <caisson/exec.hpp>

#include "console.hpp"
#include "failure.hpp"

namespace caissonctl {
namespace {

caisson::Helper& running(Entry& entry) {
    if (!entry.running) throw Failure{"The domain is not running"};
    return *entry.running;
}

std::vector<std::string> command_of(const Arguments& arguments, const char* option) {
    if (arguments.several().empty()) {
        throw UsageError{std::string{"command requires <"} + option + "> option: give it behind '--'"};
    }
    return arguments.several();
}

/// A shell's way to tell it.
[[noreturn]] void end_as(caisson::ExitStatus status) {
    throw Finished{status.code() ? *status.code() : 128 + status.signal().value_or(0)};
}

caisson::Exec start(caisson::Helper& helper, const std::string& name, const caisson::ExecSpec& spec) {
    return because("Failed to run a command in domain " + quoted(name), [&] { return helper.exec(spec); });
}

/// What is typed goes to the command until it ends.
int run_on_terminal(caisson::Exec& command) {
    const caisson::Fd console{::dup(command.console()->fd())};
    if (const int signal = join_console(
            console, [&](caisson::WindowSize size) { command.console()->resize(size); }, Escape::none);
        signal != 0) {
        return signal;
    }
    end_as(command.wait());
}

/// "DOMAIN:PATH"; a path of the host has a '/' before any ':'.
struct Place {
    std::string domain{};
    std::string path;
    explicit Place(const std::string& word) : path{word} {
        const std::size_t colon = word.find(':');
        if (colon == std::string::npos || colon == 0 || word.find('/') < colon) return;
        domain = word.substr(0, colon);
        path = word.substr(colon + 1);
    }
};

}  // namespace

int exec(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    caisson::ExecSpec spec;
    spec.command = command_of(arguments, "command");
    if (arguments.has("tty") && !has_terminal()) {
        throw Failure{"Cannot run a command on a terminal without one on standard input"};
    }
    const std::string user = arguments.get("user");
    spec.user = user.substr(0, user.find(':'));
    if (user.find(':') != std::string::npos) spec.group = user.substr(user.find(':') + 1);
    for (const std::string& variable : arguments.all("env")) {
        const std::size_t equals = variable.find('=');
        if (equals == std::string::npos) throw Failure{"Variable " + quoted(variable) + " has no '=': give NAME=VALUE"};
        spec.environment.emplace_back(variable.substr(0, equals), variable.substr(equals + 1));
    }
    if (arguments.has("workdir")) spec.working_directory = arguments.get("workdir");
    const bool terminal = has_terminal() && !arguments.has("no-tty");
    if (terminal) spec.console = caisson::WindowSize{};
    else spec.stdio = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    caisson::Exec command = start(running(entry), entry.name, spec);
    if (terminal) return run_on_terminal(command);
    end_as(command.wait());
}

int enter_namespace(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    caisson::ExecSpec spec;
    spec.command = command_of(arguments, "cmd");
    spec.user = "0";
    spec.group = "0";
    spec.working_directory = "/";
    spec.capabilities = caisson::CapabilitySet::all();
    spec.seccomp = caisson::SeccompSpec{};
    spec.seccomp->profile = caisson::SeccompProfile::none;
    spec.no_new_privileges = false;
    if (arguments.has("noseclabel")) spec.security_label = "";
    spec.stdio = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    end_as(start(running(entry), entry.name, spec).wait());
}

int copy(const Session& session, const Arguments& arguments) {
    const Place source{arguments.get("source")};
    const Place target{arguments.get("target")};
    if (source.domain.empty() == target.domain.empty()) {
        throw UsageError{"cp copies between the host and a domain: give one of the two as DOMAIN:PATH"};
    }
    Entry entry = session.domains.find(source.domain + target.domain);
    caisson::Helper& helper = running(entry);
    because("Failed to copy " + quoted(source.path), [&] {
        if (source.domain.empty()) helper.copy_in(source.path, target.path);
        else helper.copy_out(source.path, target.path);
    });
    return 0;
}

}  // namespace caissonctl
