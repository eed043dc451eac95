#include <caisson/mount.hpp>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "support/doctest.hpp"

using namespace caisson;

static_assert(!std::is_copy_constructible_v<Mount>);
static_assert(std::is_nothrow_move_constructible_v<Mount> && std::is_nothrow_move_assignable_v<Mount>);

namespace {
template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.step() == Step::mount);
        return e.what();
    }
    return "nothing was thrown";
}
}  // namespace

TEST_CASE("a mount that holds nothing has no descriptor and no target, and its use is wrong use") {
    Mount none;
    CHECK_FALSE(none);
    CHECK(none.fd() == -1);
    CHECK(none.target().empty());
    CHECK_FALSE(none.release());
    CHECK_THROWS_AS(none.attach("/"), std::logic_error);
    CHECK_THROWS_AS(none.attach(0), std::logic_error);
    CHECK_THROWS_AS(none.detach(), std::logic_error);
    CHECK_THROWS_AS(none.set({}), std::logic_error);
    Mount& same = none;
    none = std::move(same);
    Mount other{std::move(none)};
    CHECK_FALSE(other);
}

TEST_CASE("destroying a mount that holds nothing keeps errno") {
    errno = ENOTTY;
    { const Mount none; }
    CHECK(errno == ENOTTY);
}

TEST_CASE("the source of a bind must exist, and is named as given") {
    CHECK(error_of([] { (void)Mount::bind("/there is\nno such"); }) ==
          "bind '/there is\\x0ano such': No such file or directory: the source must exist on the host");
    CHECK(error_of([] { (void)Mount::make(MountSpec::bind("/none", "/target")); }) ==
          "bind '/none': No such file or directory: the source must exist on the host");
    CHECK(error_of([] { (void)Mount::bind(1'000'000); }).find("bind descriptor 1000000: ") == 0);
}

TEST_CASE("a source that is reached through a symbolic link is refused, unless the options say so") {
    CHECK(
        error_of([] { (void)Mount::bind("/proc/self"); }) ==
        "bind '/proc/self': Too many levels of symbolic links: a symbolic link is in it: name what it leads to, or set "
        "options.follow_links");
    CHECK(error_of([] { (void)Mount::bind("/proc/self/task"); }).find("a symbolic link is in it") != std::string::npos);
    CHECK(error_of([] { (void)Mount::bind("/proc/self/none such", {.follow_links = true}); }) ==
          "bind '/proc/self/none such': No such file or directory: the source must exist on the host");
    CHECK(error_of([] {
              (void)Mount::overlay({"/proc/self", "/proc"}, "", "");
          }) ==
          "mount 'overlay': lower directory '/proc/self': Too many levels of symbolic links: a symbolic link is in it: "
          "name what it leads to, or set options.follow_links");
}

TEST_CASE("a bind takes no file-system options") {
    MountSpec spec = MountSpec::bind("/", "/target");
    spec.data = "size=1";
    CHECK(error_of([&] { (void)Mount::make(spec); }) ==
          "bind '/': option 'size': Invalid argument: a bind has no file-system options");
}

TEST_CASE("what shows its maker's namespaces is not made from a spec on the host") {
    for (const auto type : {MountSpec::Type::proc, MountSpec::Type::sysfs, MountSpec::Type::mqueue}) {
        MountSpec spec;
        spec.type = type;
        CHECK_FALSE(Mount::can_make(spec));
        CHECK_THROWS_AS((void)Mount::make(spec), std::logic_error);
    }
    CHECK_THROWS_AS((void)Mount::make(MountSpec::bind_inside("/a", "/b")), std::logic_error);
    for (const auto type : {MountSpec::Type::bind, MountSpec::Type::tmpfs, MountSpec::Type::devpts,
                            MountSpec::Type::overlay, MountSpec::Type::image}) {
        MountSpec spec;
        spec.type = type;
        CHECK(Mount::can_make(spec));
    }
}

TEST_CASE("an overlay that cannot be is refused before the kernel is asked") {
    CHECK(error_of([] { (void)Mount::overlay({}, "/u", "/w"); }) ==
          "mount 'overlay': name at least one lower directory");
    CHECK(error_of([] { (void)Mount::overlay({"/a"}, "/u", ""); }) ==
          "mount 'overlay': an upper and a work directory go together: name both or none");
    CHECK(error_of([] { (void)Mount::overlay({"/a"}, "", "/w"); }) ==
          "mount 'overlay': an upper and a work directory go together: name both or none");
    CHECK(error_of([] { (void)Mount::overlay({"/a"}, "", ""); }) ==
          "mount 'overlay': without an upper directory it needs two lower ones: bind a single one");
}

TEST_CASE("options are split at commas, with a backslash before those that belong to a value") {
    using detail::Options;
    CHECK(detail::split_options("").empty());
    CHECK(detail::split_options(",,").empty());
    CHECK(detail::split_options("size=64m,noswap") == Options{{"size", "=64m"}, {"noswap", ""}});
    CHECK(detail::split_options("a=x\\,y,b=\\\\") == Options{{"a", "=x,y"}, {"b", "=\\"}});
    CHECK(detail::split_options("a=b=c") == Options{{"a", "=b=c"}});
    CHECK(detail::split_options("a=") == Options{{"a", "="}});
    CHECK(detail::split_options("a\\") == Options{{"a\\", ""}});
}

TEST_CASE("lists of directories are split at colons, with a backslash before those that belong to a name") {
    using V = std::vector<std::string>;
    CHECK(detail::split_escaped("/a:/b", ':') == V{"/a", "/b"});
    CHECK(detail::split_escaped("/a\\:b,c:/d\\\\", ':') == V{"/a:b,c", "/d\\"});
    CHECK(detail::split_escaped("/a:", ':') == V{"/a", ""});
    CHECK(detail::split_escaped("", ':').empty());
}

TEST_CASE("messages name the file system that a descriptor is on") {
    const Fd proc{::open("/proc", O_PATH | O_CLOEXEC)};
    CHECK(detail::file_system_of(proc.get()) == "proc");
    CHECK(detail::file_system_of(-1) == "unknown");
}
