#!/usr/bin/env bash
# Builds a program that has caisson as a meson subproject: nothing but the library is built with it, and it runs.
. "$(dirname "$0")/common.sh"
here=$source_dir/tests/consumers

mkdir -p "$temporary/top/consumer/subprojects"
cp "$here/one.cpp" "$here/two.cpp" "$temporary/top/"
cp "$here/subproject/meson.build" "$temporary/top/consumer/"
# A copy of what git has, or would have: build directories stay where they are.
mkdir "$temporary/top/consumer/subprojects/caisson"
(cd "$source_dir" && tar -c --exclude='./build*' --exclude=./.git .) |
    tar -x -C "$temporary/top/consumer/subprojects/caisson"

cd "$temporary/top/consumer"
meson setup build -Dcaisson:default_library=static -Dbuildtype=debug -Ddebug=false > setup.txt 2>&1 ||
    { cat setup.txt && exit 1; }
targets=$(meson introspect build --targets | python3 -c '
import json, sys
print("\n".join(t["name"] for t in json.load(sys.stdin)))')
if grep -E '^(unit-|system-|test-main|hello|caissonctl)' <<< "$targets"; then
    echo "tests or examples are built in a subproject" && exit 1
fi
ninja -C build > ninja.txt 2>&1 || { tail -n 40 ninja.txt && exit 1; }
./build/consumer
meson test -C build --list 2> /dev/null | grep 'caisson' && echo "tests are registered in a subproject" && exit 1
echo "built: $(tr '\n' ' ' <<< "$targets")"
