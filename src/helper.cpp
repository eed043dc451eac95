// src/helper.cpp - where the helper program is, and how it is started.
#include <caisson/helper.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/check.hpp>
#include <caisson/detail/helper_wire.hpp>
#include <caisson/detail/launch.hpp>
#include <caisson/detail/plan_payload.hpp>
#include <caisson/detail/unprivileged.hpp>

namespace caisson::inline v0 {
namespace {

using detail::quote;

constexpr std::string_view program_name = "caisson-helper";

/// The file that this function was loaded from: the shared library, or the program that the library is linked into.
std::string own_file() {
    Dl_info info{};
    if (::dladdr(reinterpret_cast<const void*>(&own_file), &info) != 0 && info.dli_fname != nullptr &&
        info.dli_fname[0] == '/') {
        return info.dli_fname;
    }
    char path[4096];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
    return n > 0 ? std::string{path, static_cast<std::size_t>(n)} : std::string{};
}

std::vector<std::string> places() {
    std::vector<std::string> all;
    const std::string file = own_file();
    // Only for what itself runs from the build tree: an installed library never looks there.
    if (file.starts_with(std::string{CAISSON_BUILD_ROOT} + "/")) all.emplace_back(CAISSON_HELPER_BUILT);
    const std::size_t slash = file.rfind('/');
    if (slash != std::string::npos) {
        const std::string directory = file.substr(0, slash + 1);
        for (const char* way : {CAISSON_LIBDIR_TO_HELPER, CAISSON_BINDIR_TO_HELPER}) {
            all.push_back(directory + way + "/" + std::string{program_name});
        }
    }
    all.push_back(std::string{CAISSON_HELPER_DIRECTORY} + "/" + std::string{program_name});
    return all;
}

/// As the helper finds it, whose working directory is "/".
std::string absolute(const std::string& path) {
    if (path.starts_with('/')) return path;
    char here[4096];
    if (::getcwd(here, sizeof here) == nullptr) {
        detail::fail(Step::helper, "working directory, from which " + detail::quote(path) + " counts",
                     "give run_directory as an absolute path");
    }
    return here + ("/" + path);
}

void check_note(const std::string& note) {
    if (note.size() <= detail::most_note) return;
    throw Error{Step::check_spec, E2BIG, "note of " + std::to_string(note.size()) + " bytes",
                "at most 1048576 bytes are kept"};
}

}  // namespace

namespace detail {

Fd open_helper_program(const std::string& path) {
    if (!path.empty()) {
        Fd program = sys::open(path, O_PATH);
        if (!program)
            fail(Step::helper, "helper program " + quote(path), "set helper_path to an installed caisson-helper");
        return program;
    }
    std::string tried;
    for (const std::string& place : places()) {
        Fd program = sys::open(place, O_PATH);
        struct stat st {};
        if (program && ::fstat(program.get(), &st) == 0 && S_ISREG(st.st_mode)) return program;
        tried += (tried.empty() ? "" : ", ") + quote(place);
    }
    throw Error{Step::helper, ENOENT, "helper program in " + tried, "install caisson, or set helper_path"};
}

}  // namespace detail

void Helper::set_note(const std::string& note) {
    check_note(note);
    const Fd file = detail::to_memory_file(note);
    (void)ask({.kind = detail::Message::Kind::note}, nullptr, file.get());
}

Helper Helper::begin(const ContainerSpec& spec, const HelperOptions& options) {
    if (options.run_directory.empty() || options.run_directory.find('\0') != std::string::npos) {
        throw Error{Step::check_spec, 0, "run_directory: " + detail::quote(options.run_directory) + " is no path",
                    "name a directory, such as /run/caisson"};
    }
    check_note(options.note);
    detail::check_descriptors(spec);
    const Fd program = detail::open_helper_program(options.helper_path);
    const Fd null = detail::sys::open("/dev/null", O_RDWR | O_NOCTTY);
    if (!null) detail::fail(Step::helper, "'/dev/null'");
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        detail::fail(Step::helper, "socket to the helper");
    }
    Fd ours{ends[0]};
    Fd theirs{ends[1]};

    detail::StartRequest request{.run_directory = absolute(options.run_directory),
                                 .note = options.note,
                                 .open_console = options.open_console,
                                 .spec = spec};
    std::vector<int> descriptors{null.get(), null.get(), null.get(), theirs.get(), -1};
    const auto send = [&](std::int32_t& fd) {
        if (fd < 0) return;
        descriptors.push_back(fd);
        fd = static_cast<std::int32_t>(descriptors.size()) - 1;  // as the helper has it
    };
    if (spec.console) request.spec.stdio = {};
    for (std::int32_t* const fd : {&request.spec.stdio.in, &request.spec.stdio.out, &request.spec.stdio.err}) {
        send(*fd);
    }
    for (std::int32_t& fd : request.spec.descriptors) send(fd);
    const Fd file = detail::to_memory_file(detail::encode(request));
    descriptors[detail::helper_request] = file.get();

    std::string title = "caisson-helper";
    std::string name = spec.name;
    char* const argv[] = {title.data(), name.data(), nullptr};
    char* const envp[] = {nullptr};
    detail::LaunchFailure failure;
    detail::Launched launched = detail::launch({.program = program.get(),
                                                .argv = argv,
                                                .envp = envp,
                                                .descriptors = descriptors.data(),
                                                .descriptor_count = descriptors.size()},
                                               failure);
    if (!launched.pidfd) {
        const std::string& path = options.helper_path;
        throw Error{
            Step::helper, failure.errnum,
            "start the helper program" + (path.empty() ? path : " " + detail::quote(path)) + ": " + failure.call,
            failure.errnum == EACCES || failure.errnum == ENOEXEC
                ? "it must be an installed caisson-helper, an executable file"
                : ""};
    }
    theirs.reset();
    Helper helper{spec.name, Process{launched.pid, std::move(launched.pidfd)}, std::move(ours)};
    detail::Message answer;
    detail::Taken taken;
    // As long as a start takes; the helper's death ends it.
    while ((taken = detail::take_message(helper.fd(), answer, &helper.console_)) == detail::Taken::nothing_yet) {
        (void)detail::wait_readable(helper.fd(), -1);
    }
    if (taken == detail::Taken::closed) {
        throw Error{Step::helper, ECONNRESET, "helper program: it ended before it had started the container",
                    "run it by hand to see whether it can be loaded"};
    }
    if (answer.kind == detail::Message::Kind::refused) throw detail::decode<detail::PlainError>(answer.body).error();
    return helper;
}

Helper Helper::start(const ContainerSpec& spec, const HelperOptions& options) {
    try {
        detail::refuse_set_id_program();
        check(spec);
        return begin(spec, options);
    } catch (const Error& e) {
        const std::string outer = "container " + quote(spec.name);
        throw e.context().starts_with(outer) ? e : e.in(outer);
    }
}

}  // namespace caisson::inline v0
