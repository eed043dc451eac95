// Family D: who can use a container's terminal, and what comes out of it. What can be typed into it is in seccomp.cpp.
#include <caisson/container.hpp>

#include <cstddef>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

namespace {

/// Reads the console until it has said `word`.
std::string read_until(Container& container, const std::string& word) {
    std::string said;
    for (char c = 0; !contains(said, word) && ::read(container.console()->fd(), &c, 1) == 1;) said += c;
    return said;
}

}  // namespace

TEST_CASE("a container's terminals belong to its user, and no other user of it can write to them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    for (const bool user : {true, false}) {
        for (const std::uint32_t uid : {0u, 1000u}) {
            ContainerSpec spec = with_user(
                shell(root, "stat -c '%a %u %g' /dev/pts/0; stat -L -c %a /dev/ptmx; stat -f -c %t /dev/pts"), user);
            spec.uid = spec.gid = uid;
            CHECK(attempt(spec) == "620 " + std::to_string(uid) + " 5\n666\n1cd1\n");
        }
    }
}

TEST_CASE("a container's terminals are in no other container, and not among the host's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    // Root inside is the same root outside for both.
    for (const bool user : {true, false}) {
        Container first = Container::start(
            with_user(shell(root,
                            "exec 4<>/dev/ptmx 5<>/dev/ptmx 6<>/dev/ptmx 7<>/dev/ptmx; ls -1 /dev/pts; echo rea\"\"dy; "
                            "read line"),
                      user));
        const std::string all = read_until(first, "ready");
        CHECK(contains(all, "0\r\n1\r\n2\r\n3\r\n4\r\nptmx\r\n"));
        ContainerSpec spec = with_user(shell(root,
                                             "ls -1 /dev/pts; for n in 1 2 3 4; do ( : > /dev/pts/$n ) && echo "
                                             "opened $n; done 2>&-; [ -c /dev/pts/1 ] && echo there; true"),
                                       user);
        spec.capabilities = CapabilitySet::all().without({"mknod"});
        CHECK(attempt(spec) == "0\nptmx\n");
        struct stat inside {};
        REQUIRE(::fstat(first.console()->open_peer().get(), &inside) == 0);
        for (const auto& entry : std::filesystem::directory_iterator{"/dev/pts"}) {
            struct stat st {};
            if (::stat(entry.path().c_str(), &st) != 0) continue;
            CHECK_FALSE((st.st_dev == inside.st_dev && st.st_ino == inside.st_ino));
        }
    }
}

TEST_CASE("what a container writes comes out byte for byte, and nothing of it reaches the host's own descriptors") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    std::string bytes;
    // What terminals obey: titles, answers that are typed back, colours, and every byte there is.
    for (const char* sequence : {"\x1b]0;title\x07", "\x1b[c", "\x1b[6n", "\x1bP$q\"p\x1b\\", "\x1b]52;c;eA==\x07",
                                 "\x9b"
                                 "31m"}) {
        bytes += sequence;
    }
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    root.write("/bytes", bytes);
    const TestDirectory directory;
    const std::string file = directory / "output";
    const int result = in_child([&] {
        const Fd output{::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
        if (::dup2(output.get(), 1) != 1 || ::dup2(output.get(), 2) != 2) return 90;
        Container container = Container::start(shell(root, "stty raw; cat /bytes"));
        std::string all;
        char buffer[4096];
        for (ssize_t n = 0; (n = ::read(container.console()->fd(), buffer, sizeof buffer)) > 0;) {
            all.append(buffer, static_cast<std::size_t>(n));
        }
        if (!container.wait().success()) return 91;
        ContainerSpec bad = shell(root, "true");
        bad.command = {"/bytes"};
        (void)error_of(bad);
        return all == bytes ? 0 : 1;
    });
    CHECK(result == 0);
    CHECK(std::filesystem::file_size(file) == 0);
}
