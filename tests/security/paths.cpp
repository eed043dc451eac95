// Family A: what an untrusted root can do with links, ".." and directories that are swapped while a container starts.
#include <caisson/check.hpp>
#include <caisson/container.hpp>
#include <caisson/helper.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include "support/attack.hpp"
#include "support/container.hpp"
#include "support/doctest.hpp"
#include "support/layout.hpp"
#include "support/machine.hpp"

using namespace caisson;
using namespace caisson_test;

TEST_CASE("CVE-2019-18837: with any directory of the root a link, a start never follows it to the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    each_layout([](const Layout& layout, bool user) {
        layout.place();
        const std::string text = attempt(with_user(shell(layout.root, "echo started; echo $0 > /tmp/x"), user));
        CAPTURE(text);
        const bool own_mount = layout.where == "/proc" || layout.where == "/sys" || layout.where == "/dev";
        CHECK(contains(text, own_mount ? "on '" + layout.where + "' (in the child): Too many levels of symbolic " +
                                             "links: a symbolic link stands where a directory must be: replace it"
                                       : "started\n"));
    });
}

TEST_CASE("CVE-2015-1335: with any directory of the root a link, nothing is mounted or made behind it on the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot source;
    source.write("/data/mark", "bound\n");
    each_layout([&](const Layout& layout, bool user) {
        layout.place();
        const std::string target = layout.where;
        for (const MountSpec& mount :
             {MountSpec::bind(source / "/data", target + "/sub/x"), MountSpec::tmpfs(target + "/sub", 4096),
              MountSpec::bind(source / "/data/mark", target + "/passwd"), MountSpec::tmpfs(target + "/a/b/c", 4096),
              MountSpec::tmpfs(target, 4096)}) {
            ContainerSpec spec = shell(layout.root, "cat /proc/self/mountinfo");
            // The mount of the spec alone is to meet the link.
            spec.dev = spec.sys = false;
            spec.proc = target != "/proc";
            spec.mounts.push_back(mount);
            const std::string text = attempt(with_user(spec, user));
            CAPTURE(mount.target);
            CAPTURE(text);
            const bool refused = contains(text, "container 'test': mount ") && contains(text, "(in the child): ");
            CHECK((refused || layout.where == "/dev/pts" || layout.where == "/proc"));
            CHECK_FALSE(contains(text, layout.canary.path()));
            if (layout.kind == 3) CHECK(contains(text, "Too many levels of symbolic links"));
        }
    });
}

TEST_CASE("CVE-2015-1335: a target behind links is where they lead inside") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    // The attacker's root has what the host has, at the same path.
    std::filesystem::create_directories(root / canary.path());
    replace_by_link(root / "/abs", canary.path());
    replace_by_link(root / "/rel", climbing(canary.path()));
    std::filesystem::create_directory(root / "/mnt");
    replace_by_link(root / "/mnt/a", "/abs");
    for (const char* link : {"/abs", "/rel", "/mnt/a"}) {
        ContainerSpec spec = shell(root, "cat /proc/self/mountinfo");
        spec.mounts.push_back(MountSpec::tmpfs(std::string{link} + "/made/here", 4096));
        const std::string text = attempt(spec);
        CAPTURE(text);
        CHECK(contains(text, " " + canary.path() + "/made/here "));
    }
    // The same in one that runs.
    root.write("/hello", "hello\n");
    Shell shell{plain(root)};
    for (const char* link : {"/abs", "/rel", "/mnt/a"}) {
        const std::string target = std::string{link} + "/late/here";
        shell->attach(MountSpec::tmpfs(target, 4096));
        CHECK(contains(shell.ask("cat /proc/self/mountinfo"), " " + canary.path() + "/late/here "));
        shell->copy_in(root / "/hello", target);
        CHECK(shell.ask("cat " + canary.path() + "/late/here/hello") == "hello\n");
        ExecSpec spec;
        spec.command = {"/bin/cat", "hello"};
        spec.working_directory = target;
        CHECK(shell->exec(spec).wait().success());
        shell->detach_mount(target);
        CHECK_FALSE(contains(shell.ask("cat /proc/self/mountinfo"), "/late/here"));
    }
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2026-41579, CVE-2026-47766: a /dev that is a link to files of the host's names replaces none of them") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    for (const bool console : {true, false}) {
        const TestRoot root;
        const Canary canary;
        replace_by_link(root / "/dev", canary.path());
        ContainerSpec spec = shell(root, "true");
        if (!console) spec.console.reset();
        CHECK(contains(error_of(spec), "on '/dev' (in the child): Too many levels of symbolic links"));
        // With a /dev of the caller's making nothing is made in it at all.
        spec.dev = false;
        CHECK(attempt(spec) == "");
        spec.mounts = {MountSpec::bind(canary.path(), "/mnt")};
        replace_by_link(root / "/dev", "/mnt");
        CHECK(attempt(spec) == "");
        const std::string touched = canary.touched();
        CHECK(touched == "");
    }
}

TEST_CASE("CVE-2026-87766: a missing mount point below a link to the host is made inside or not at all") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot source;
    source.write("/file", "bound\n");
    const Canary canary;
    const TestRoot root;
    std::filesystem::create_directories(root / "/deep/b");
    for (const std::string& out : {"/oldroot" + canary.path(), climbing(canary.path()), canary.path(),
                                   std::string{"/proc/self/root"} + canary.path(), "/proc/1/cwd" + canary.path()}) {
        replace_by_link(root / "/a", out);
        replace_by_link(root / "/deep/b/c", out);
        for (const char* target : {"/a/b/c/file", "/a/file", "/deep/b/c/d/file", "/a/sub/new"}) {
            ContainerSpec spec = shell(root, "true");
            spec.mounts.push_back(MountSpec::bind(source / "/file", target));
            const std::string text = error_of(spec);
            CAPTURE(text);
            CHECK(contains(text, "mount '" + (source / "/file") + "' on '" + target + "' (in the child): "));
        }
    }
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2026-87766: parents of mount points that may be searched but not read are good enough") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    std::filesystem::create_directories(root / "/home/user/private");
    // Of somebody else, and root inside may do nothing but what everybody may.
    REQUIRE(::chown((root / "/home").c_str(), 200000, 200000) == 0);
    REQUIRE(::chmod((root / "/home").c_str(), 0711) == 0);
    ContainerSpec spec = shell(root, "ls -d /home/user/private/mnt/x");
    spec.mounts.push_back(MountSpec::tmpfs("/home/user/private/mnt/x", 4096));
    CHECK(attempt(spec) == "/home/user/private/mnt/x\n");
}

TEST_CASE("CVE-2021-30465: a directory that is swapped for a link while it is mounted on never shows the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot source;
    source.write("/data/mark", "bound\n");
    const Canary canary;
    const std::string targets[] = {"/", canary.path(), climbing("/"), climbing(canary.path()), "/proc/1/root"};
    const int times = rounds(30, 200);
    int bound = 0;
    int other = 0;
    for (const std::string& target : targets) {
        const TestRoot root;
        std::filesystem::create_directories(root / "/vol/x");
        replace_by_link(root / "/vol/y", target);
        ContainerSpec spec = shell(root, "cat /vol/x/mark 2>&-; cat " + canary.path() + "/token /vol/x/token /vol/x" +
                                             canary.path() + "/token 2>&-; echo end");
        spec.mounts.push_back(MountSpec::bind(source / "/data", "/vol/x"));
        const Swapper attacker{root / "/vol/x", root / "/vol/y"};
        for (int i = 0; i < times; ++i) {
            const std::string text = attempt(spec);
            CAPTURE(text);
            const bool refused = contains(text, "/data' on '/vol/x' (in the child): ");
            CHECK((text == "bound\nend\n" || text == "end\n" || refused));
            ++(text == "bound\nend\n" ? bound : other);
        }
    }
    CHECK(canary.touched() == "");
    // The race took place: both states were met.
    CHECK(bound > 0);
    CHECK(other > 0);
}

TEST_CASE("CVE-2024-45310: a directory that is swapped for a link while one is made in it makes none on the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const std::string targets[] = {canary.path(), climbing(canary.path()), "/proc/1/root" + canary.path()};
    const int times = rounds(40, 334);
    int made = 0;
    int refused = 0;
    for (const std::string& target : targets) {
        const TestRoot root;
        std::filesystem::create_directories(root / "/vol/x");
        replace_by_link(root / "/vol/y", target);
        const std::string file = root.write("file", "");
        const Swapper attacker{root / "/vol/x", root / "/vol/y"};
        for (int i = 0; i < times; ++i) {
            ContainerSpec spec = shell(root, "true");
            spec.mounts.push_back(MountSpec::tmpfs("/vol/x/new" + std::to_string(i) + "/deep", 4096));
            spec.mounts.push_back(MountSpec::bind(file, "/vol/x/file" + std::to_string(i)));
            const std::string text = attempt(spec);
            CAPTURE(text);
            CHECK((text.empty() || text.starts_with("container 'test': mount ")));
            ++(text.empty() ? made : refused);
        }
    }
    CHECK(canary.touched() == "");
    CHECK(made > 0);
    CHECK(refused > 0);
}

TEST_CASE("CVE-2025-52565: whatever the root has at /dev/console and in /dev/pts, the console is the container's") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const TestRoot root;
    std::filesystem::create_directories(root / "/dev/pts");
    replace_by_link(root / "/dev/pts/0", canary / "console");
    ContainerSpec spec = shell(root,
                               "stat -c '%F %t' /dev/console; stat -f -c %t /dev/console; tty; echo x > "
                               "/dev/console; ls -1 /dev/pts");
    for (const std::string& target : {std::string{"/proc/sysrq-trigger"}, canary / "console", climbing(canary / "x")}) {
        replace_by_link(root / "/dev/console", target);
        // A terminal's major number is 136, and devpts is 0x1cd1.
        CHECK(attempt(spec) == "character special file 88\n1cd1\n/dev/pts/0\nx\n0\nptmx\n");
    }
    std::filesystem::create_directory(root / "/dev/x");
    const Swapper attacker{root / "/dev/console", root / "/dev/x"};
    const int times = rounds(10, 100);
    for (int i = 0; i < times; ++i) {
        CHECK(attempt(spec) == "character special file 88\n1cd1\n/dev/pts/0\nx\n0\nptmx\n");
    }
    CHECK(canary.touched() == "");
}

TEST_CASE(
    "CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: a /proc or /sys that a link leads into a volume is refused") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary volume;
    for (const char* name : {"/proc", "/sys"}) {
        for (const char* mounted : {"/elsewhere", "/proc", "/sys"}) {
            const TestRoot root;
            std::filesystem::create_directory(root / "/elsewhere");
            replace_by_link(root / name, "elsewhere");
            ContainerSpec spec = shell(root, "true");
            spec.mounts.push_back(MountSpec::bind(volume.path(), mounted));
            CHECK(contains(error_of(spec), std::string{"on '"} + name +
                                               "' (in the child): Too many levels of symbolic links: a symbolic link "
                                               "stands where a directory must be: replace it in the root"));
        }
    }
    CHECK(volume.touched() == "");
}

TEST_CASE("CVE-2026-23954, CVE-2015-5313: names and paths that lead elsewhere are refused before anything is made") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const TestDirectory directory;
    const HelperOptions options{.run_directory = directory / "run"};
    const std::vector<std::string> names{"",
                                         ".",
                                         "..",
                                         "/",
                                         "../x",
                                         "../../x",
                                         "..x",
                                         ".x",
                                         "a/b",
                                         "a/",
                                         "/a",
                                         "a/../b",
                                         "-rf",
                                         "--help",
                                         "_a",
                                         "a b",
                                         " a",
                                         "a ",
                                         "a\nb",
                                         "a\n",
                                         "a\tb",
                                         "a\rb",
                                         "a\x1b[31m",
                                         "a\x7f",
                                         "a:b",
                                         "a;b",
                                         "a|b",
                                         "a&b",
                                         "a$b",
                                         "a`b",
                                         "a*",
                                         "a?",
                                         "a\\b",
                                         "a'b",
                                         "a\"b",
                                         "a%s",
                                         "a@b",
                                         "a=b",
                                         "\xe2\x80\xae"
                                         "a",
                                         "\xc3\xa4",
                                         "\xff",
                                         std::string{"a\0b", 3},
                                         std::string(64, 'a'),
                                         std::string(256, 'a')};
    CHECK(names.size() == 44);
    for (const std::string& name : names) {
        CAPTURE(name);
        ContainerSpec spec = shell(root, "true");
        spec.name = name;
        const std::string refusal = "name: " + detail::quote(name) + " is no valid name: use a letter or digit";
        CHECK(contains(error_of(spec), refusal));
        try {
            const Helper helper = Helper::start(spec, options);
            FAIL("a helper was started");
        } catch (const Error& e) {
            CHECK(contains(e.what(), refusal));
        }
        bool found = false;
        try {
            found = Helper::find(name, options.run_directory).has_value();
        } catch (const Error&) {
        }
        CHECK_FALSE(found);
        CHECK_FALSE(std::filesystem::exists(options.run_directory));
    }
    const auto refused = [&](const std::string& field, auto&& change) {
        for (const std::string& path :
             {std::string{"/../x"}, std::string{"/a/../../x"}, std::string{"/a/.."}, std::string{"x"},
              std::string{"../x"}, std::string{"/a\0b", 4}, "/" + std::string(4095, 'a')}) {
            ContainerSpec spec = shell(root, "true");
            change(spec, path);
            const std::string text = error_of(spec);
            CAPTURE(text);
            CHECK(text.starts_with("container 'test': " + field + ": "));
        }
    };
    refused("root", [](ContainerSpec& spec, const std::string& path) { spec.root = path; });
    refused("working_directory", [](ContainerSpec& spec, const std::string& path) { spec.working_directory = path; });
    refused("cgroup_parent", [](ContainerSpec& spec, const std::string& path) { spec.cgroup_parent = path; });
    refused("stage_path", [](ContainerSpec& spec, const std::string& path) { spec.stage_path = path; });
    refused("mounts[0].target",
            [](ContainerSpec& spec, const std::string& path) { spec.mounts = {MountSpec::tmpfs(path, 4096)}; });
    refused("mounts[0].source",
            [](ContainerSpec& spec, const std::string& path) { spec.mounts = {MountSpec::bind(path, "/mnt")}; });
}

TEST_CASE("CVE-2025-31133: masks are the library's own, whatever the root has in the place of /dev/null") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const TestRoot root;
    const std::string script =
        "n=$(head -c 10 /proc/kcore 2>&- | wc -c); m=$(cat /proc/keys /proc/timer_list 2>&- | wc -c); "
        "( : >> /proc/sys/kernel/core_pattern ) 2>&- && echo opened; ( : >> /proc/sysrq-trigger ) 2>&- && echo opened; "
        "echo $n $m";
    std::filesystem::create_directory(root / "/dev/x");
    for (const std::string& target : {std::string{"/proc/sys/kernel/core_pattern"}, std::string{"/proc/sysrq-trigger"},
                                      canary / "null", climbing(canary / "null")}) {
        replace_by_link(root / "/dev/null", target);
        for (const bool user : {true, false}) {
            ContainerSpec spec = with_user(shell(root, script), user);
            // The root's own /dev, as a caller may want it.
            spec.dev = false;
            CHECK(attempt(spec) == "0 0\n");
            const Swapper attacker{root / "/dev/null", root / "/dev/x"};
            const int times = rounds(5, 100);
            for (int i = 0; i < times; ++i) CHECK(attempt(spec) == "0 0\n");
        }
    }
    CHECK(canary.touched() == "");
}

TEST_CASE("CVE-2025-31133: a path that is swapped for a link while it is masked hides nothing of the host") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const Canary canary;
    const std::string targets[] = {canary.path(), climbing(canary.path()), "/proc/1/root" + canary.path(), "/"};
    for (const std::string& target : targets) {
        const TestRoot root;
        root.write("/vol/x/secret", "secret\n");
        replace_by_link(root / "/vol/y", target);
        ContainerSpec spec = shell(root, "echo started");
        spec.masked_paths = {"/vol/x/secret", "/vol/x"};
        spec.read_only_paths = {"/vol/x", "/vol/x/file"};
        const Swapper attacker{root / "/vol/x", root / "/vol/y"};
        const int times = rounds(20, 250);
        for (int i = 0; i < times; ++i) {
            const std::string text = attempt(spec);
            CAPTURE(text);
            CHECK((text == "started\n" || text.starts_with("container 'test': ma")));
        }
    }
    CHECK(canary.touched() == "");
}

TEST_CASE(
    "CVE-2018-15664, CVE-2019-10152: what is swapped for links while it is copied leads nowhere out of the root") {
    if (!can_run()) CAISSON_SKIP(why_not());
    const LeavesNothing nothing;
    const TestRoot root;
    const Canary canary;
    const TestDirectory host;
    std::ofstream{host / "file"} << "from the host";
    std::filesystem::create_directory(host / "out");
    // A directory that is a link to the host's every other moment, and a file in it.
    ContainerSpec spec =
        shell(root,
              "mkdir -p /vol/x/deep /vol/y; echo inside > /vol/x/secret; echo ready; while true; do "
              "mv /vol/x /vol/z; ln -s " +
                  canary.path() + " /vol/x; rm /vol/x; ln -s / /vol/x; rm /vol/x; mv /vol/z /vol/x; done");
    spec.namespaces = spec.namespaces.without(NamespaceKind::user);
    Container container = Container::start(spec);
    char byte = 0;
    std::string said;
    while (!contains(said, "ready") && ::read(container.console()->fd(), &byte, 1) == 1) said += byte;
    int copied = 0;
    for (int i = 0; i < 30; ++i) {
        try {
            container.copy_in(host / "file", "/vol/x/deep");
            ++copied;
        } catch (const Error&) {
        }
        try {
            container.copy_out("/vol/x", host / "out");
            ++copied;
        } catch (const Error&) {
        }
    }
    CHECK(copied > 0);
    (void)container.kill();
    CHECK(canary.touched() == "");
    for (const auto& entry : std::filesystem::recursive_directory_iterator{host / "out"}) {
        const std::string name = entry.path().filename();
        CAPTURE(name);
        CHECK((name == "x" || name == "deep" || name == "secret" || name == "file"));
    }
}
