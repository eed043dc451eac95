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

TEST_CASE("keep-lists and drop-lists are by name, and an unknown name is refused") {
    const CapabilitySet kept = CapabilitySet::of({"chown", "kill"});
    CHECK(kept.bits() == (1u << 0 | 1u << 5));
    CHECK(CapabilitySet::application().without({"kill"}).with({"net_raw"}).has(13));
    CHECK_FALSE(CapabilitySet::application().without({"kill"}).has(5));
    CHECK_THROWS_WITH((void)CapabilitySet::of({"cap_chown"}),
                      "capability 'cap_chown': the kernel has none of that name: write it as capabilities(7) does, in "
                      "lower case and without 'cap_'");
}

TEST_CASE("one set becomes the bounding, permitted and effective one") {
    const CapabilitySpec spec = CapabilitySet::all();
    CHECK(spec.bounding == CapabilitySet::all());
    CHECK(spec.permitted == CapabilitySet::all());
    CHECK(spec.effective == CapabilitySet::all());
    CHECK(spec.inheritable == CapabilitySet{});
    CHECK(spec.ambient == CapabilitySet{});
    CHECK(CapabilitySpec{}.bounding == CapabilitySet::application());
}
