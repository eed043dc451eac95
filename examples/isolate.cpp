// isolate - runs a command on the host's own root, with a private /tmp, without network, with 64 MiB of memory.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <unistd.h>

#include <caisson/caisson.hpp>

namespace {

constexpr std::uint64_t mib = 1024 * 1024;

/// The absolute path of a program; what has no '/' is looked for where programs are. Empty if it is nowhere.
std::string find_program(const std::string& name) {
    if (name.empty()) return {};
    if (name.find('/') != std::string::npos) return std::filesystem::absolute(name);
    for (const char* directory : {"/usr/local/bin/", "/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/"}) {
        if (::access((directory + name).c_str(), X_OK) == 0) return directory + name;
    }
    return {};
}

/// The host's root belongs to the host's users, so every id is itself inside; an ordinary user has but one to give,
/// and the container's root is what it must be.
caisson::IdMap id_map(std::uint32_t own) {
    if (::geteuid() == 0) return {0, 0, UINT32_MAX};
    return {0, own, 1};
}

}  // namespace

int main(int argc, char** argv) try {
    const bool help = argc == 2 && std::string_view{argv[1]} == "--help";
    if (argc < 3 || std::string_view{argv[1]} != "--") {
        std::fputs(
            "usage: isolate -- COMMAND [ARGUMENT]...\n"
            "Runs COMMAND on the host's files with an empty /tmp, no network and at most 64 MiB of memory.\n"
            "Exit status: the command's; 128 + N if signal N ended it; 125 if it could not be started.\n",
            help ? stdout : stderr);
        return help ? 0 : 125;
    }
    caisson::ContainerSpec spec;
    spec.name = "isolate-" + std::to_string(::getpid());
    spec.root = "/";
    spec.command.assign(argv + 2, argv + argc);
    spec.command.front() = find_program(spec.command.front());
    if (spec.command.front().empty()) {
        std::fprintf(stderr, "isolate: %s: there is no such program\n", argv[2]);
        return 125;
    }
    spec.namespaces = spec.namespaces | caisson::NamespaceSet{caisson::NamespaceKind::net};
    spec.uid_map = {id_map(::geteuid())};
    spec.gid_map = {id_map(::getegid())};
    spec.mounts = {caisson::MountSpec::tmpfs("/tmp", 64 * mib)};
    spec.limits.memory = 64 * mib;
    spec.console = std::nullopt;
    spec.stdio = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

    caisson::Container container = caisson::Container::start(spec);
    const caisson::ExitStatus status = container.wait();
    if (status.code()) return *status.code();
    std::fprintf(stderr, "isolate: %s: %s\n", argv[2], status.str().c_str());
    return 128 + status.signal().value_or(0);
} catch (const std::exception& e) {
    std::fprintf(stderr, "isolate: %s\n", e.what());
    return 125;
}
