#!/usr/bin/env bash
# Installs into an empty directory and builds a program of two translation units against it through pkg-config alone:
# against the shared library and against the static one.
. "$(dirname "$0")/common.sh"
build_dir=${CAISSON_BUILD:?run it through meson test}
here=$source_dir/tests/consumers

DESTDIR=$temporary/root meson install -C "$build_dir" --no-rebuild --quiet
root=$temporary/root
pc=$(find "$root" -name caisson.pc)
[[ -n $pc ]] || { echo "no caisson.pc was installed" && exit 1; }
prefix=$root$(sed -n 's/^prefix=//p' "$pc")
# The .pc files of dependencies are the system's, ours come first; --define-variable moves our prefix.
export PKG_CONFIG_PATH=${pc%/*}
flags() { pkg-config --define-variable=prefix="$prefix" "$@"; }
lib=$(flags --variable=libdir caisson)

for file in "$prefix"/include/caisson/{caisson,fd,error,spec}.hpp "$lib"/libcaisson.so "$lib"/libcaisson.so.0; do
    [[ -e $file ]] || { echo "not installed: ${file#"$root"}" && exit 1; }
done
if find "$root" \( -name '*doctest*' -o -name 'range*' -o -name '*test*' \) | grep .; then
    echo "what belongs to the build was installed" && exit 1
fi
for file in caisson-stage caisson-helper; do
    [[ -x $(find "$prefix/libexec" -name "$file") ]] || { echo "not installed: libexec/caisson/$file" && exit 1; }
done
soname=$(objdump -p "$lib/libcaisson.so" | awk '$1 == "SONAME" { print $2 }')
[[ $soname == libcaisson.so.0 ]] || { echo "soname is '$soname'" && exit 1; }
# What the library is built from is no part of its interface.
if nm -DC --defined-only "$lib"/libcaisson*.so | grep -E ' (mnl_|tinyxml2::|ranges::)'; then
    echo "names of dependencies are exported" && exit 1
fi

names=(caisson)
definitions=()
if [[ ${CAISSON_HAVE_XML-} == yes && -e ${pc%/*}/caisson-xml.pc ]]; then
    names+=(caisson-xml)
    definitions+=(-DCONSUMER_HAS_XML)
fi
common=(-std=c++20 "${warnings[@]}" "${definitions[@]}" "$here/one.cpp" "$here/two.cpp")

# Shared: users need none of our dependencies, neither to compile nor to link.
read -ra shared <<< "$(flags --cflags --libs "${names[@]}")"
if printf '%s\n' "${shared[@]}" | grep -E 'mnl|tinyxml2|range'; then
    echo "a dependency of the library is asked of shared users" && exit 1
fi
g++ "${common[@]}" "${shared[@]}" -o "$temporary/shared"
LD_LIBRARY_PATH=$lib "$temporary/shared"
readelf -d "$temporary/shared" | grep -q 'NEEDED.*libcaisson\.so\.0' || { echo "not linked to the soname" && exit 1; }
echo "shared: ${shared[*]}"

# Static: without our shared libraries in sight, the linker takes the archives, and --static names what they need.
if [[ -e $lib/libcaisson.a ]]; then
    rm "$lib"/libcaisson*.so*
    read -ra static <<< "$(flags --static --cflags --libs "${names[@]}")"
    g++ "${common[@]}" "${static[@]}" -o "$temporary/static"
    "$temporary/static"
    if readelf -d "$temporary/static" | grep 'NEEDED.*libcaisson'; then echo "not static" && exit 1; fi
    echo "static: ${static[*]}"
fi
