// helper/guard.cpp - policy `outlive`: a process that owns the container and does nothing, beside one that serves it.
#include "guard.hpp"

#include <cerrno>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/syscall.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/container.hpp>
#include <caisson/detail/sys.hpp>

#include "privileges.hpp"
#include "server.hpp"

namespace caisson_helper {
namespace {

/// The loop, in a process of its own. Its exit status: 0 once the container has ended.
int serve_once(const detail::StartRequest& request, RunDirectory& place, Container& container, const Fd& note,
               Client& first) {
    std::optional<Server> server;
    try {
        container.lend_to_copy();
        server.emplace(request);
        server->take_over(request, std::move(place), std::move(container), note.duplicate(), first);
        server->run();
        return 0;
    } catch (const std::exception&) {
        // Unwound, it would kill the container; the next one may find room for what this one did not.
        ::_exit(1);
    }
}

}  // namespace

void guard(detail::StartRequest request, Client& first) {
    RunDirectory place = RunDirectory::acquire(request.run_directory, request.spec.name);
    place.record();
    std::vector<Fd> borrowed = std::move(first.descriptors);
    take_descriptors(request.spec, borrowed);
    // What clients replace it by is here, too.
    const Fd note{static_cast<int>(::syscall(SYS_memfd_create, "note", MFD_CLOEXEC))};
    if (!note || !keep_note(note, request.note)) detail::fail(Step::helper, "note");
    Container container = Container::start(request.spec);
    borrowed.clear();
    try {
        (void)container.usage(UsagePart::cpu);
    } catch (const Error&) {
        // It has no groups, or has ended already.
    }
    lower_privileges();
    constexpr int most_in_vain = 10;
    for (int in_vain = 0;;) {
        const std::int64_t begun = detail::monotonic_ms();
        const pid_t loop = ::fork();
        if (loop == 0) ::_exit(serve_once(request, place, container, note, first));
        if (loop < 0 && first.socket) detail::fail(Step::helper, "process of the helper");
        first.socket.reset();
        int status = 1;
        if (loop > 0) (void)detail::sys::retry([&] { return ::waitpid(loop, &status, 0); });
        if (status == 0) return;
        request.note = kept_note(note).value_or(request.note);
        // What the one before has written stays.
        if (request.spec.console) request.spec.console->log_append = true;
        for (ConsoleSpec& console : request.spec.more_consoles) console.log_append = true;
        in_vain = detail::monotonic_ms() - begun < 1000 ? in_vain + 1 : 0;
        // A container that has ended is not served for ever by who cannot.
        if (in_vain >= most_in_vain && container.init().ended()) return;
        if (in_vain > 0) (void)::poll(nullptr, 0, 100);
    }
}

}  // namespace caisson_helper
