#!/usr/bin/env bash
# The helper program is found from where the library is: in the build tree, in an installation that was moved as a whole
# (linked shared and static), and where it is missing the error says where it was looked for.
. "$(dirname "$0")/common.sh"
build_dir=${CAISSON_BUILD:?run it through meson test}

cat > "$temporary/find.cpp" << 'END'
#include <cstdio>
#include <caisson/helper.hpp>
int main() {
    try {
        const caisson::Fd program = caisson::detail::open_helper_program("");
        char path[4096]{};
        (void)!::readlink(("/proc/self/fd/" + std::to_string(program.get())).c_str(), path, sizeof path - 1);
        std::puts(path);
    } catch (const caisson::Error& e) {
        std::puts(e.what());
        return 1;
    }
}
END
expect() {
    [[ $2 == "$3" ]] && echo "$1: $2" && return
    printf '%s: found\n  %s\nwanted\n  %s\n' "$1" "$2" "$3"
    exit 1
}

DESTDIR=$temporary/root meson install -C "$build_dir" --no-rebuild --quiet
pc=$(find "$temporary/root" -name caisson.pc)
prefix=$(sed -n 's/^prefix=//p' "$pc")
mv "$temporary/root$prefix" "$temporary/moved"
export PKG_CONFIG_PATH=$temporary/moved/${pc#"$temporary/root$prefix"}
PKG_CONFIG_PATH=${PKG_CONFIG_PATH%/*}
flags() { pkg-config --define-variable=prefix="$temporary/moved" "$@" caisson; }
lib=$(flags --variable=libdir)
helper=$temporary/moved/libexec/caisson/caisson-helper
[[ -x $helper ]] || helper=$(find "$temporary/moved" -name caisson-helper)

# Nothing of the build tree is used by what was installed, and the helper runs without the library in sight.
"$helper" 2> "$temporary/said" && exit 1
grep -q 'not by hand' "$temporary/said"

mkdir -p "$temporary/moved/bin"
read -ra shared <<< "$(flags --cflags --libs)"
g++ -std=c++20 "$temporary/find.cpp" "${shared[@]}" -o "$temporary/shared"
expect 'moved, shared' "$(LD_LIBRARY_PATH=$lib "$temporary/shared")" "$helper"

if [[ -e $build_dir/src/libcaisson.so ]]; then
    expect 'build tree' "$(LD_LIBRARY_PATH=$build_dir/src "$temporary/shared")" "$build_dir/src/caisson-helper"
fi
if [[ -e $lib/libcaisson.a ]]; then
    # Without the shared library in sight, the linker takes the archive.
    mkdir "$temporary/aside"
    mv "$lib"/libcaisson.so* "$temporary/aside"
    read -ra static <<< "$(flags --static --cflags --libs)"
    g++ -std=c++20 "$temporary/find.cpp" "${static[@]}" -o "$temporary/moved/bin/find"
    expect 'moved, static' "$("$temporary/moved/bin/find")" "$helper"
    mv "$temporary/aside"/* "$lib"
fi

mv "$helper" "$temporary/elsewhere"
if [[ ! -e $prefix/libexec/caisson/caisson-helper ]]; then
    said=$(LD_LIBRARY_PATH=$lib "$temporary/shared" || true)
    remedy=': No such file or directory: install caisson, or set helper_path'
    if [[ $said != "helper program in '$lib/"*"caisson-helper'$remedy" ]]; then
        echo "missing: $said" && exit 1
    fi
    echo "missing: $said"
fi
