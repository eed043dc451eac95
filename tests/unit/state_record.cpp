#include <caisson/detail/state_record.hpp>

#include <cerrno>
#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <caisson/detail/container_record.hpp>
#include <caisson/error.hpp>

#include "support/doctest.hpp"
#include "support/sanitizer.hpp"

using namespace caisson;
using detail::StateRecord;

TEST_CASE("a record of what a helper runs is read as it was written, and words of later versions are passed over") {
    StateRecord record = StateRecord::of_helper("web");
    CHECK(record.helper == detail::Owner::current());
    CHECK(record.boot.size() == 36);
    record.init = detail::Owner{7, 8, 9};
    const std::string text = record.text();
    CHECK(text ==
          "caisson-state 1\nname web\nboot " + record.boot + "\nhelper " + record.helper.tag() + "\ninit 7-8-9\n");
    const auto read = StateRecord::parse(text + "weather fine today\n");
    REQUIRE(read);
    CHECK(read->text() == text);
    CHECK_FALSE(StateRecord::parse(""));
    CHECK_FALSE(StateRecord::parse("caisson-state 2" + text.substr(15)));
    CHECK_FALSE(StateRecord::parse(text.substr(0, text.size() - 1)));
    CHECK_FALSE(StateRecord::parse("caisson-state 1\nname web\n"));
    CHECK_FALSE(StateRecord::parse("caisson-state 1\nname web\nhelper me\n"));
    CHECK_FALSE(StateRecord::parse("caisson-state 1\nhelper 1-2-3\n"));
}

TEST_CASE("a record replaces the one before at once, for its owner alone, and what was left half-way is no hindrance") {
    char top[] = "/tmp/caisson-record-XXXXXX";
    REQUIRE(::mkdtemp(top) != nullptr);
    const Fd directory = detail::sys::open(top, O_RDONLY | O_DIRECTORY);
    REQUIRE(directory);
    CHECK_FALSE(StateRecord::read(directory.get()));
    StateRecord record = StateRecord::of_helper("web");
    record.write(directory.get(), top);
    // Whoever reads meanwhile reads the one or the other, and no mixture.
    const Fd before = detail::sys::open_at(directory.get(), "state", O_RDONLY);
    const std::string text = record.text();
    record.init = detail::Owner::current();
    REQUIRE(Fd{::openat(directory.get(), "state.new", O_CREAT | O_WRONLY | O_CLOEXEC, 0644)});
    record.write(directory.get(), top);
    const auto read = StateRecord::read(directory.get());
    REQUIRE(read);
    CHECK(read->init == record.init);
    std::string still(text.size() + 1, '\0');
    CHECK(::read(before.get(), still.data(), still.size()) == static_cast<ssize_t>(text.size()));
    CHECK(still.starts_with(text));
    // Where others may write, nothing is believed.
    CHECK(::fchmod(directory.get(), 0770) == 0);
    CHECK_FALSE(StateRecord::read(directory.get()));
    CHECK(::fchmod(directory.get(), 0700) == 0);
    CHECK(StateRecord::read(directory.get()));
    CHECK(::fchmodat(directory.get(), "state", 0620, 0) == 0);
    CHECK_FALSE(StateRecord::read(directory.get()));
    CHECK(::fchmodat(directory.get(), "state", 0600, 0) == 0);
    CHECK(::renameat(directory.get(), "state", directory.get(), "elsewhere") == 0);
    CHECK(::symlinkat("elsewhere", directory.get(), "state") == 0);
    CHECK_FALSE(StateRecord::read(directory.get()));
    CHECK(::renameat(directory.get(), "elsewhere", directory.get(), "state") == 0);
    if (::geteuid() == 0) {
        CHECK(::fchownat(directory.get(), "state", 65534, 0, 0) == 0);
        CHECK_FALSE(StateRecord::read(directory.get()));
    }
    record.write(directory.get(), top);
    CHECK(StateRecord::read(directory.get()));
    struct stat st {};
    CHECK(::fstatat(directory.get(), "state", &st, 0) == 0);
    CHECK((st.st_mode & 07777) == 0600);
    CHECK(::faccessat(directory.get(), "state.new", F_OK, 0) != 0);
    CHECK(::unlinkat(directory.get(), "state", 0) == 0);
    CHECK(::rmdir(top) == 0);
    try {
        record.write(directory.get(), top);
        CHECK(false);
    } catch (const Error& e) {
        CHECK(std::string{e.what()} == "write '" + std::string{top} + "/state': No such file or directory");
    }
}

TEST_CASE("nobody is ended by a record whose helper lives, whose boot is another, or whose process is another") {
    StateRecord record = StateRecord::of_helper("web");
    record.init = detail::Owner::current();
    CHECK(record.end_init());
    record.helper.start_time += 1;  // of a dead one
    record.boot = "another";
    CHECK(record.end_init());
    record.boot = StateRecord::of_helper("web").boot;
    record.init->start_time += 1;
    CHECK(record.end_init());
    CHECK(::getppid() > 0);  // still here
}

TEST_CASE("who has no descriptor left to look with takes nothing for gone") {
    if (const char* reason = caisson_test::why_it_keeps_descriptors()) CAISSON_SKIP(reason);
    char top[] = "/tmp/caisson-record-XXXXXX";
    REQUIRE(::mkdtemp(top) != nullptr);
    const Fd directory = detail::sys::open(top, O_RDONLY | O_DIRECTORY);
    const pid_t left = ::fork();
    if (left == 0) {
        for (;;) ::pause();
    }
    StateRecord record = StateRecord::of_helper("web");
    record.init = detail::Owner::of(left);
    record.helper.start_time += 1;  // of a dead one
    record.write(directory.get(), top);
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const auto free_number = static_cast<rlim_t>(Fd{::dup(0)}.get());
    int refused = 0;
    bool ended = false;
    for (rlim_t room = 0; room < 4 && !ended; ++room) {
        const rlimit most{free_number + room, before.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &most) == 0);
        try {
            const auto read = StateRecord::read(directory.get());
            ended = read && read->end_init();
            CHECK(ended);
        } catch (const Error& e) {
            refused += e.code().value() == EMFILE ? 1 : 0;
        }
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    }
    CHECK(refused >= 2);
    CHECK(ended);
    int status = 0;
    CHECK(::waitpid(left, &status, 0) == left);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    CHECK(::unlinkat(directory.get(), "state", 0) == 0);
    CHECK(::rmdir(top) == 0);
}

TEST_CASE("the lock on a container's file goes with who has it, and does not stay with a copy of that process") {
    char top[] = "/tmp/caisson-record-XXXXXX";
    REQUIRE(::mkdtemp(top) != nullptr);
    pid_t copy = -1;
    {
        const detail::LockedDirectory locked = detail::ContainerRecord::lock(top);
        copy = ::fork();
        if (copy == 0) {
            for (;;) ::pause();
        }
        CHECK_THROWS_WITH_AS((void)detail::ContainerRecord::lock(top),
                             "devices of the container: Device or resource busy: another client is attaching or "
                             "detaching one",
                             Error);
    }
    CHECK_NOTHROW((void)detail::ContainerRecord::lock(top));
    REQUIRE(::kill(copy, SIGKILL) == 0);
    REQUIRE(::waitpid(copy, nullptr, 0) == copy);
    CHECK(::rmdir(top) == 0);
}

TEST_CASE("links of which nobody knows whether they were made are told apart by their names") {
    const auto change = [](unsigned index, const char* name, bool added, bool is_half) {
        return detail::Change{.added = added, .is_half = is_half, .link = {index, name, name, true}};
    };
    detail::ContainerRecord record;
    for (const char* name : {"one", "two", "three"}) record.note(change(0, name, true, true));
    CHECK(record.hotplug.links.size() == 3);
    record.note(change(7, "two", true, false));
    REQUIRE(record.hotplug.links.size() == 3);
    CHECK(record.hotplug.links[2].index == 7);
    record.note(change(0, "one", false, false));
    record.note(change(7, "two", false, false));
    REQUIRE(record.hotplug.links.size() == 1);
    CHECK(record.hotplug.links[0].host_name == "three");
}
