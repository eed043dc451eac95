// One of two translation units that include everything: what both define must be inline.
#include <caisson/caisson.hpp>
#include <caisson/error.hpp>

#include <cstdio>
#include <cstring>

bool two_agrees(const caisson::Error& error);

int main() {
    caisson::ContainerSpec spec;
    spec.name = "-not a name";
    spec.command = {"/bin/true"};
    spec.root = "/";
    // The library throws and this program catches: the exception's type is one across the library's border.
    try {
        caisson::check(spec);
    } catch (const caisson::Error& error) {
        if (error.step() == caisson::Step::check_spec && std::strstr(error.what(), "not a name") && two_agrees(error)) {
            return 0;
        }
        std::printf("another error: %s\n", error.what());
        return 1;
    }
    std::puts("a bad name passed");
    return 1;
}
