// What is refused of roots and mounts before anything is made, each with its text.
#include <caisson/check.hpp>

#include <string>

#include "support/doctest.hpp"
#include "support/refusal.hpp"

using namespace caisson;
using caisson_test::refusal;

namespace {

std::string overlay(const RootOverlay& overlay, bool read_only = false) {
    return refusal([&](ContainerSpec& s) {
        s.root_overlay = overlay;
        s.root_read_only = read_only;
    });
}

template <class Change>
std::string mount(MountSpec::Type type, Change change) {
    return refusal([&](ContainerSpec& s) {
        MountSpec m;
        m.type = type;
        m.source = "/a";
        m.target = "/b";
        change(m);
        s.mounts = {m};
    });
}

}  // namespace

TEST_CASE("an overlay of the root is taken in memory, on disk and read-only") {
    CHECK(overlay({}) == "accepted");
    CHECK(overlay({{}, "", "", 1 << 20}) == "accepted");
    CHECK(overlay({{"/l"}, "/u", "/w", 0}) == "accepted");
    CHECK(overlay({{"/l"}, "", "", 0}, true) == "accepted");
    CHECK(overlay({{}, "/u", "/w", 0}, true) == "accepted");
}

TEST_CASE("what contradicts itself in an overlay of the root is refused by name") {
    CHECK(overlay({{}, "/u", "", 0}) ==
          "root_overlay.work: it is empty: an overlay takes upper and work together, or none of them");
    CHECK(overlay({{}, "", "/w", 0}) ==
          "root_overlay.upper: it is empty: an overlay takes upper and work together, or none of them");
    CHECK(overlay({{}, "/u", "/u", 0}) ==
          "root_overlay.work: '/u' is the upper directory: name an empty one beside it");
    CHECK(overlay({{}, "/u", "/u/./w", 0}) ==
          "root_overlay.work: '/u/./w' is in the upper directory '/u': name an empty one beside it");
    CHECK(overlay({{}, "/w//u", "/w/", 0}) ==
          "root_overlay.upper: '/w//u' is in the work directory '/w/': name another beside it");
    CHECK(overlay({{}, "/u", "/u-work", 0}) == "accepted");
    CHECK(overlay({{}, "u", "/w", 0}) == "root_overlay.upper: 'u' is not absolute: begin it with '/'");
    CHECK(overlay({{"/l", "m"}, "", "", 0}) == "root_overlay.lower[1]: 'm' is not absolute: begin it with '/'");
    CHECK(overlay({{}, "/u", "/w", 1}) ==
          "root_overlay.bytes: it is given together with upper: it limits what is written to memory: set it to 0, or "
          "leave upper out");
    CHECK(overlay({{"/l"}, "", "", 1}, true) ==
          "root_overlay.bytes: it is given with a root that is read-only: set it to 0, or root_read_only to false");
    CHECK(overlay({}, true) ==
          "root_overlay: it has neither a layer nor what can be written to: leave it out, or set root_read_only to "
          "false");
}

TEST_CASE("a mount that cannot be is refused by its number, field and remedy") {
    using Type = MountSpec::Type;
    using M = MountSpec;
    const auto nothing = [](M&) {};
    for (const Type type : {Type::bind, Type::image, Type::bind_inside}) {
        CHECK(mount(type, nothing) == "accepted");
        CHECK(mount(type, [](M& m) { m.source = ""; }) == "mounts[0].source: it is empty: give an absolute path");
        CHECK(mount(type, [](M& m) { m.source = "a"; }) == "mounts[0].source: 'a' is not absolute: begin it with '/'");
    }
    for (const Type type : {Type::bind, Type::bind_inside}) {
        CHECK(mount(type, [](M& m) { m.data = "size=1"; }) ==
              "mounts[0].data: 'size=1' is given for a bind: the file system has its options already: use the field "
              "options");
    }
    CHECK(mount(Type::image, [](M& m) { m.data = "noload"; }) == "accepted");
    for (const char bad : {'\0', '\1', '\n'}) {
        CHECK(mount(Type::tmpfs, [&](M& m) { m.data = std::string{"mode=1777,"} + bad + "x"; }) ==
              "mounts[0].data: it holds a control character: write options as mount(8) does");
    }
    CHECK(mount(Type::tmpfs, [](M& m) { m.data = "x=\xc3\xa4"; }) == "accepted");
    CHECK(mount(Type::tmpfs, [](M& m) { m.data = "mode=1777,=5,size=1m"; }) ==
          "mounts[0].data: '=5' is an option without a name: write key=value");
    CHECK(mount(Type::image, [](M& m) { m.upper = "/u"; }) ==
          "mounts[0].upper: it is given for image: only an overlay has one");
    CHECK(mount(Type::bind_inside, [](M& m) { m.work = "/w"; }) ==
          "mounts[0].work: it is given for bind_inside: only an overlay has one");
    CHECK(mount(Type::overlay, nothing) ==
          "mounts[0].source: an overlay without upper needs two lower directories: bind a single one");
    CHECK(mount(Type::overlay, [](M& m) { m.source = "/a:/b"; }) == "accepted");
    CHECK(mount(Type::overlay, [](M& m) { m.source = "/a\\:b"; }) ==
          "mounts[0].source: an overlay without upper needs two lower directories: bind a single one");
    for (const char* data : {"lowerdir=/c", "xino=off,upperdir=/c", "workdir", "lowerdir+=/c", "datadir+=/c"}) {
        CAPTURE(data);
        const std::string text = mount(Type::overlay, [&](M& m) {
            m.source = "/a:/b";
            m.data = data;
        });
        CHECK(text.find("mounts[0].data: '") == 0);
        CHECK(text.find("' names a directory: use source, upper and work") != std::string::npos);
    }
    CHECK(mount(Type::overlay, [](M& m) {
              m.source = "/a:/b";
              m.data = "xino=off,volatile";
          }) == "accepted");
    CHECK(mount(Type::overlay, [](M& m) { m.source = "/a:b"; }) ==
          "mounts[0].source: 'b' is not absolute: begin it with '/'");
    CHECK(mount(Type::overlay, [](M& m) { m.upper = "/u"; }) ==
          "mounts[0].work: it is empty: an overlay takes upper and work together, or none of them");
    CHECK(mount(Type::overlay, [](M& m) { m.upper = m.work = "/u"; }) ==
          "mounts[0].work: '/u' is the upper directory: name an empty one beside it");
    CHECK(mount(Type::overlay, [](M& m) {
              m.upper = std::string{"/u\0", 3};
              m.work = "/w";
          }) == "mounts[0].upper: it holds a NUL byte");
    CHECK(mount(Type::overlay, [](M& m) { m.source = ""; }) ==
          "mounts[0].source: it is empty: name the overlay's lower directories");
}

TEST_CASE("to mask the root itself, or to make it read-only as a path, would do nothing, and is refused") {
    CHECK(refusal([](ContainerSpec& s) {
              s.masked_paths = {"/etc", "/"};
          }) == "masked_paths[1]: '/' is the root itself: name what is below it");
    CHECK(refusal([](ContainerSpec& s) { s.read_only_paths = {"/./"}; }) ==
          "read_only_paths[0]: '/./' is the root itself: set root_read_only to true");
    CHECK(refusal([](ContainerSpec& s) { s.masked_paths = {"etc"}; }) ==
          "masked_paths[0]: 'etc' is not absolute: begin it with '/'");
}
