#include <caisson/capability.hpp>

#include "support/doctest.hpp"

using namespace caisson;

TEST_CASE("capability numbers are the kernel's") {
    CHECK(CapabilitySet::number("chown") == 0u);
    CHECK(CapabilitySet::number("sys_admin") == 21u);
    CHECK(CapabilitySet::number("mknod") == 27u);
    CHECK(CapabilitySet::number("checkpoint_restore") == 40u);
    CHECK_FALSE(CapabilitySet::number("cap_chown"));
}

TEST_CASE("the application set has eleven capabilities and libvirt's lacks five") {
    CHECK(__builtin_popcountll(CapabilitySet::application().bits()) == 11);
    CHECK(__builtin_popcountll(CapabilitySet::libvirt().bits()) == 36);
    CHECK_FALSE(CapabilitySet::application().has(*CapabilitySet::number("sys_admin")));
    CHECK(CapabilitySet::libvirt().has(*CapabilitySet::number("sys_admin")));
}
