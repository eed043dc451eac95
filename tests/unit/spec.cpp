#include <caisson/spec.hpp>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("a specification is a value that can be copied and compared") {
    ContainerSpec a;
    a.name = "web";
    a.mounts.push_back(MountSpec::tmpfs("/tmp", 1 << 20));
    ContainerSpec b = a;
    CHECK(a == b);
    b.limits.memory = 1;
    CHECK_FALSE(a == b);
}

TEST_CASE("names that are unsafe as a file name are refused") {
    for (const char* name : {"a", "web-1", "A.b_c", "0"}) CHECK(is_valid_name(name));
    for (const char* name : {"", ".", "..", "-rf", "a/b", "a b", "a\n", "_x", ".x", "\xe2\x80\xae"}) {
        CAPTURE(name);
        CHECK_FALSE(is_valid_name(name));
    }
    CHECK(is_valid_name(std::string(63, 'a')));
    CHECK_FALSE(is_valid_name(std::string(64, 'a')));
    CHECK_FALSE(is_valid_name(std::string_view{"a\0b", 3}));
}

TEST_CASE("a network asks for a network namespace by itself") {
    ContainerSpec spec;
    CHECK(spec.effective_namespaces().has(NamespaceKind::net));
    spec.namespaces = spec.namespaces.without(NamespaceKind::net);
    CHECK_FALSE(spec.effective_namespaces().has(NamespaceKind::net));
    spec.networks.push_back({.bridge = "br0"});
    CHECK(spec.effective_namespaces().has(NamespaceKind::net));
}
