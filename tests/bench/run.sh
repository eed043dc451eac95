#!/bin/sh
# run.sh [BUILD_DIRECTORY]: builds a release and runs all benchmarks, as root. Figures are printed, never asserted.
# A busy machine makes wall clock worthless: compare the ratios, and the processor time.
set -eu
here=$(dirname "$(readlink -f "$0")")
top=$(readlink -f "$here/../..")
build=${1:-$top/build-bench}
[ "$(id -u)" = 0 ] || { echo "run.sh: this needs root" >&2; exit 77; }
[ -f "$build/build.ninja" ] || meson setup "$build" "$top" --buildtype=release -Dexamples=disabled >"$build.log" 2>&1 ||
    { cat "$build.log" >&2; exit 1; }
rm -f "$build.log"
ninja -C "$build" bench >"$build/bench.log" 2>&1 || { cat "$build/bench.log" >&2; exit 1; }

section() { printf '\n== %s\n' "$1"; }
echo "$(uname -sr), $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg)"
section 'a start and its end'
"$build/tests/bench/bench-start"
section 'the same by the size of the host'
"$build/tests/bench/bench-host-size"
section 'many starts among threads that allocate, print, load libraries and set variables'
MALLOC_ARENA_MAX=1 "$build/tests/bench/bench-hammer"
section 'a command in a running container'
"$build/tests/bench/bench-exec"
section 'the keeper'
"$build/tests/bench/bench-keeper" "$build/src/stage/caisson-stage"
section 'one controller for many'
"$build/tests/bench/bench-controller"
section 'consoles'
"$build/tests/bench/bench-console"
"$build/tests/bench/bench-console" --flood 10
section 'what containers use'
"$build/tests/bench/bench-usage"
section 'compiling the umbrella header'
"$here/compile.sh" "$top/include"
