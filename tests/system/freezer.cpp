// Control groups and containers that stand still, on v2 and on v1.
#include <caisson/cgroup.hpp>
#include <caisson/container.hpp>
#include <caisson/controller.hpp>

#include <chrono>
#include <string>

#include <sys/stat.h>

#include "support/doctest.hpp"
#include "support/hierarchies.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;
using namespace std::chrono_literals;

namespace {

const char* why_not() {
    if (const char* why = cannot()) return why;
    return freezers().empty() ? "neither cgroup v2 nor v1's freezer is mounted" : TestRoot::missing();
}

/// Writes a line a moment to /tmp/count; `at_term` is what it does on SIGTERM.
ContainerSpec counting(const TestRoot& root, const std::string& at_term = "exit 7") {
    return shell(root, "trap '" + at_term + "' TERM; while :; do echo x >> /tmp/count; done");
}
off_t count(const TestRoot& root) {
    struct stat st {};
    return ::stat((root / "/tmp/count").c_str(), &st) == 0 ? st.st_size : 0;
}
/// True once it counts on; false if that does not come.
bool goes_on(const TestRoot& root) {
    const off_t before = count(root);
    for (int waited = 0; waited < 5000; ++waited) {
        if (count(root) > before) return true;
        ::usleep(1000);
    }
    return false;
}
bool stands_still(const TestRoot& root) {
    const off_t before = count(root);
    ::usleep(30'000);
    return count(root) == before;
}
std::int64_t milliseconds_of(const std::int64_t since) {
    return detail::monotonic_ms() - since;
}
template <class Body>
std::string message_of(Body&& body) {
    try {
        body();
        return "nothing was thrown";
    } catch (const Error& e) {
        return e.what();
    }
}

}  // namespace

TEST_CASE("a suspended container stands still at once, and goes on when it is resumed") {
    if (const char* reason = why_not()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    for (const std::string& freezer : freezers()) {
        CAPTURE(freezer);
        const TestRoot root;
        CHECK(in_host_with(freezer, [&]() -> std::string {
                  Container container = Container::start(counting(root));
                  if (!goes_on(root)) return "it does not count";
                  if (container.suspended()) return "suspended from the start";
                  const std::int64_t began = detail::monotonic_ms();
                  container.suspend();
                  if (milliseconds_of(began) > 500) return "it took " + std::to_string(milliseconds_of(began)) + " ms";
                  if (!container.suspended() || !stands_still(root)) return "it does not stand still";
                  container.suspend();
                  if (!stands_still(root)) return "it does not stand still the second time";
                  container.resume();
                  if (container.suspended() || !goes_on(root)) return "it does not go on";
                  container.resume();
                  return container.kill().str();
              }) == "killed by signal 9");
    }
}
