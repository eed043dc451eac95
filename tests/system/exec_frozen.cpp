// Commands in a running container, where groups are frozen and where nothing can freeze them.
#include <caisson/container.hpp>

#include <chrono>
#include <string>

#include <signal.h>

#include "support/doctest.hpp"
#include "support/hierarchies.hpp"
#include "support/machine.hpp"
#include "support/suspended.hpp"

using namespace caisson;
using namespace caisson_test;
using namespace std::chrono_literals;

TEST_CASE("a command starts in a container that nothing can suspend") {
    if (const char* reason = cannot()) CAISSON_SKIP(reason);
    if (mounted("freezer").empty()) CAISSON_SKIP("without cgroup v2, this machine has no hierarchy");
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    CHECK(in_host([&]() -> std::string {
              if (!hide("") || !hide("freezer")) return "cannot hide the freezers";
              return Container::start(shell(root, "read line")).exec({.command = {"/bin/true"}}).wait().str();
          }) == "exited with status 0");
}

TEST_CASE(
    "a command whose keeper was killed, and which cannot end yet, leaves its descriptor unreadable until it does") {
    if (const char* reason = cannot()) CAISSON_SKIP(reason);
    if (mounted("freezer").empty()) CAISSON_SKIP("v1's freezer, which alone keeps SIGKILL waiting, is not mounted");
    if (const char* reason = TestRoot::missing()) CAISSON_SKIP(reason);
    const LeavesNothing nothing;
    const TestRoot root;
    CHECK(in_host_with("v1", [&]() -> std::string {
              Container container = Container::start(shell(root, "read line"));
              Exec exec = container.exec({.command = {"/bin/sleep", "1000"}});
              const pid_t command = exec.process().pid();
              const pid_t keeper = status_number(command, "PPid:");
              container.suspend();
              // Of the keeper: another one as soon as that is dead.
              const int of_keeper = exec.fd();
              if (::kill(keeper, SIGKILL) != 0) return "its keeper cannot be killed";
              if (!detail::wait_readable(of_keeper, 10'000)) return "it is told of nothing";
              for (int i = 0; exec.fd() != exec.process().pidfd() && i < 500; ++i) ::usleep(10'000);
              if (exec.try_wait()) return "it has ended";
              if (detail::wait_readable(exec.fd(), 50)) return "readable, and there is no status";
              container.resume();
              if (!detail::wait_readable(exec.fd(), 10'000)) return "it does not end";
              return exec.try_wait().value_or(ExitStatus::exited(99)).str();
          }) == "killed by signal 9");
}
