#include "ending.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "failure.hpp"

namespace caissonctl {
namespace {

using caisson::ShutdownMode;

constexpr std::string_view not_running = "Requested operation is not valid: domain is not running";

/// The ways to ask that are named, in libvirt's order of trying them, which is that of the list itself.
std::vector<ShutdownMode> modes(const std::string& text, const std::string& outer) {
    if (text.empty()) return {ShutdownMode::automatic};
    bool initctl = false;
    bool signal = false;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        const std::string word = text.substr(at, end - at);
        at = end + 1;
        if (word == "initctl") initctl = true;
        else if (word == "signal") signal = true;
        else if (word == "acpi" || word == "agent" || word == "paravirt")
            throw Failure{outer,
                          "mode " + quoted(word) + " is of virtual machines: a container takes 'initctl' and 'signal'"};
        else
            throw Failure{"Unknown mode " + word +
                          " value, expecting 'acpi', 'agent', 'initctl', 'signal', or 'paravirt'"};
    }
    if (initctl && signal) return {ShutdownMode::automatic};
    return {initctl ? ShutdownMode::initctl : ShutdownMode::signal};
}

int ask(const Session& session, const Arguments& arguments, const char* verb, const char* said,
        bool (caisson::Helper::*request)(ShutdownMode)) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = std::string{"Failed to "} + verb + " domain " + quoted(entry.name);
    const ShutdownMode mode = modes(arguments.get("mode"), outer).front();
    const bool was_running = because(outer, [&] {
        return entry.ask([&](caisson::Helper& helper) { return (helper.*request)(mode); }).value_or(false);
    });
    if (!was_running) throw Failure{outer, std::string{not_running}};
    session.say("Domain " + quoted(entry.name) + " is being " + said + "\n");
    return 0;
}

bool ends_within(caisson::Helper& helper, std::int64_t milliseconds) {
    const std::int64_t deadline = caisson::detail::deadline_in(milliseconds);
    while (!helper.try_wait()) {
        const std::int64_t left = deadline - caisson::detail::monotonic_ms();
        if (left <= 0) return false;
        (void)caisson::detail::wait_readable(helper.fd(), left);
    }
    return true;
}

/// As libvirt: SIGKILL is for who asks for it.
void end_gracefully(caisson::Helper& helper, const std::string& outer) {
    const pid_t init = helper.info().init;
    // It is not started again, nor kept: and as for SIGKILL, that time never comes.
    (void)helper.ask_to_stop(std::chrono::milliseconds::max());
    if (ends_within(helper, 10'000)) return;
    throw Failure{outer,
                  "Failed to terminate process " + std::to_string(init) + " with SIGTERM: Device or resource busy"};
}

void end_at_once(caisson::Helper& helper) {
    (void)helper.ask_to_kill();
    // As long as libvirt. Then who waits in the kernel is named.
    if (!ends_within(helper, 15'000)) (void)helper.stop(std::chrono::milliseconds{0});
}

}  // namespace

int destroy(const Session& session, const Arguments& arguments) {
    Entry entry = session.domains.find(arguments.get("domain"));
    const std::string outer = "Failed to destroy domain " + quoted(entry.name);
    if (!entry.running) throw Failure{outer, std::string{not_running}};
    because(outer, [&] {
        if (arguments.has("graceful")) end_gracefully(*entry.running, outer);
        else end_at_once(*entry.running);
    });
    session.say("Domain " + quoted(entry.name) + " destroyed\n");
    return 0;
}

int reboot(const Session& session, const Arguments& arguments) {
    return ask(session, arguments, "reboot", "rebooted", &caisson::Helper::reboot);
}

int shutdown(const Session& session, const Arguments& arguments) {
    return ask(session, arguments, "shutdown", "shutdown", &caisson::Helper::shutdown);
}

}  // namespace caissonctl
