#!/bin/sh
# compile.sh INCLUDE_DIRECTORY: the processor time of compiling a source file that only includes the umbrella header,
# beside <string>; the least of five runs.
set -eu
include=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#include <string>\nint main() {}\n' >"$work/string.cpp"
printf '#include <caisson/caisson.hpp>\nint main() {}\n' >"$work/umbrella.cpp"
printf '%-30s %10s %10s %10s\n' 'CPU s (least of 5), -O0' '<string>' 'umbrella' 'lines'
for compiler in g++ clang++; do
    command -v "$compiler" >/dev/null || continue
    for source in string umbrella; do
        for i in 1 2 3 4 5; do
            sh -c '"$@" >/dev/null 2>&1; times' sh \
                "$compiler" -std=c++20 -O0 -I"$include" -c "$work/$source.cpp" -o "$work/o" | sed -n 2p
        done | sed 's/[ms]/ /g' | awk -v least=9e9 '
            { t = $1 * 60 + $2 + $3 * 60 + $4; if (t < least) least = t }
            END { printf "%.2f\n", least }' >"$work/$source.time"
    done
    lines=$("$compiler" -std=c++20 -E -P -I"$include" "$work/umbrella.cpp" | wc -l)
    printf '%-30s %10s %10s %10s\n' "$compiler" "$(cat "$work/string.time")" "$(cat "$work/umbrella.time")" "$lines"
done
