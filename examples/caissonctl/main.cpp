// caissonctl: virsh's verbs for containers, on libcaisson alone: no daemon, one file for each definition, and one
// helper process for each container that runs. Tables, wording and exit status are virsh's.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "console.hpp"
#include "failure.hpp"
#include "verbs.hpp"

namespace {

using namespace caissonctl;

void print_usage(std::FILE* to) {
    std::fputs(
        "\n"
        "caissonctl [options]... <command> [args...]\n"
        "\n"
        "  options:\n"
        "    -c | --connect URI   lxc:/// or lxc:///system: what virsh is told\n"
        "    --state DIR      where the definitions are kept (default /var/lib/caisson)\n"
        "    --run DIR        where running domains are found again (default /run/caisson)\n"
        "    -q | --quiet     quiet mode\n"
        "    -h | --help      this help\n"
        "    -v | --version   version\n"
        "  commands:\n"
        "\n",
        to);
    for (const Verb& verb : verbs()) {
        std::fprintf(to, "    %-30s %s\n", std::string{verb.name}.c_str(), std::string{verb.summary}.c_str());
    }
    std::fputs("\n  (specify help <command> for details about the command)\n\n", to);
}

void print_error(const std::string& text) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", text.c_str());
}

/// Runs the verb as virsh does: every call, right or wrong, ends its output with an empty line.
int run(const Verb& verb, const Session& session, const Arguments& arguments) {
    int status = 0;
    try {
        // Nothing more is written then: a terminal that nobody reads would keep the program.
        if (const int signal = verb.run(session, arguments); signal != 0) die_of(signal);
    } catch (const Finished& finished) {
        return finished.status;
    } catch (const Failure& e) {
        print_error(e.what());
        if (!e.reason().empty()) print_error(e.reason());
        status = 1;
    } catch (const Silence&) {
        status = 1;
    } catch (const std::exception& e) {
        print_error(e.what());
        status = 1;
    }
    session.say("\n");
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        std::perror("error: write to standard output");
        status = 1;
    }
    return status;
}

int main_throwing(const std::vector<std::string>& words) {
    const Globals globals = Globals::parse(words);
    if (globals.help) return print_usage(stdout), 0;
    if (globals.version) return std::puts(CAISSON_VERSION) < 0 ? 1 : 0;
    if (globals.words.empty()) return print_usage(stderr), 1;

    const std::string& name = globals.words.front();
    const Verb* verb = find_verb(name);
    if (verb == nullptr) throw UsageError{"unknown command: '" + name + "'"};
    const std::span<const std::string> rest = std::span{globals.words}.subspan(1);
    if (!rest.empty() && rest.front() == "--help") return std::fputs(help_of(*verb).c_str(), stdout) < 0 ? 1 : 0;
    if (!globals.uri.empty() && globals.uri != "lxc:///" && globals.uri != "lxc:///system") {
        throw UsageError{"failed to connect to the hypervisor\nerror: no connection driver available for " +
                         globals.uri + ": leave it out, or give lxc:///system"};
    }
    const Arguments arguments = Arguments::parse(name, verb->options, rest);
    return run(*verb, Session{Domains{globals}, globals.quiet}, arguments);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return main_throwing({argv + 1, argv + argc});
    } catch (const std::exception& e) {
        print_error(e.what());
        return 1;
    }
}
