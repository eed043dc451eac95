// The run directory, in which helpers are found.
#include <caisson/helper.hpp>

#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <caisson/detail/owner.hpp>

#include "support/doctest.hpp"
#include "support/helper.hpp"
#include "support/rootfs.hpp"

using namespace caisson;
using namespace std::chrono_literals;
using namespace caisson_test;

namespace {

const char* why_not() {
    return ::geteuid() != 0 ? "this needs root" : TestRoot::missing();
}

}  // namespace

TEST_CASE("a name that a sweep is about to free is waited for") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::mkdir((place.run + "/web").c_str(), 0700) == 0);
    detail::Owner dead = detail::Owner::current();
    dead.start_time += 1;
    Fd lock = detail::sys::open(place.run + "/web/owner", O_RDWR | O_CREAT, 0600);
    REQUIRE(lock);
    REQUIRE(detail::sys::write_all(lock.get(), dead.tag()));
    REQUIRE(::flock(lock.get(), LOCK_EX | LOCK_NB) == 0);
    std::thread sweeper{[&] {
        std::this_thread::sleep_for(100ms);
        (void)::unlink((place.run + "/web/owner").c_str());
        std::this_thread::sleep_for(100ms);
        (void)::rmdir((place.run + "/web").c_str());
        lock.reset();
    }};
    CHECK(error_of(place.spec("web"), place.options) == "it started: killed by signal 9");
    sweeper.join();
    CHECK(place.empty());
}

TEST_CASE("a relative run directory is the caller's, for who starts as for who looks") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    CHECK(in_child([&] {
              if (::chdir((place.directory / "").c_str()) != 0) return 1;
              Helper helper = Helper::start(place.spec("web"), {.run_directory = "run"});
              if (!Helper::find("web", "run")) return 2;
              (void)helper.kill();
              return 0;
          }) == 0);
    CHECK(place.empty());
    HelperOptions options = place.options;
    options.run_directory.clear();
    CHECK(error_of(place.spec("web"), options) ==
          "container 'web': run_directory: '' is no path: name a directory, such as /run/caisson");
}

TEST_CASE("another user's run directory is refused with a remedy") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    Helper helper = Helper::start(place.spec("web"), place.options);
    CHECK(in_child([&] {
              if (::setresuid(65534, 65534, 65534) != 0) return 1;
              const auto is_told = [](auto&& call) {
                  try {
                      call();
                  } catch (const Error& e) {
                      return std::strstr(e.what(), "Permission denied: it is another user's") != nullptr;
                  }
                  return false;
              };
              if (!is_told([&] { (void)Helper::list(place.run); })) return 2;
              return is_told([&] { (void)Helper::find("web", place.run); }) ? 0 : 3;
          }) == 0);
    (void)helper.kill();
    CHECK(place.empty());
}

TEST_CASE("a limit on the size of files is told, and does not end the program") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    CHECK(in_child([&] {
              rlimit most{};
              if (::getrlimit(RLIMIT_FSIZE, &most) != 0) return 1;
              most.rlim_cur = 0;
              if (::setrlimit(RLIMIT_FSIZE, &most) != 0) return 2;
              return error_of(place.spec("web"), place.options) ==
                             "container 'web': file in memory: File too large: the limit on the size of files "
                             "(RLIMIT_FSIZE) is 0 bytes: raise 'ulimit -f'"
                         ? 0
                         : 3;
          }) == 0);
    CHECK(Helper::list(place.run).empty());
}

TEST_CASE("a run directory that others may write to, or that cannot be made, is refused") {
    if (why_not() != nullptr) CAISSON_SKIP(why_not());
    const Place place;
    REQUIRE(::mkdir(place.run.c_str(), 0700) == 0);
    REQUIRE(::chmod(place.run.c_str(), 0777) == 0);
    CHECK(error_of(place.spec("web"), place.options) ==
          "container 'web': directory '" + place.run +
              "': Operation not permitted: it must belong to user 0 and be writable by no other");
    REQUIRE(::rmdir(place.run.c_str()) == 0);
    HelperOptions options = place.options;
    options.run_directory += "/a/b";
    CHECK(error_of(place.spec("web"), options) == "container 'web': make directory '" + options.run_directory +
                                                      "': No such file or directory: make its parent directory, or set "
                                                      "run_directory");
    CHECK(Helper::list(options.run_directory).empty());
    CHECK_FALSE(Helper::find("web", options.run_directory));
}
