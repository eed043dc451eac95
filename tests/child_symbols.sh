#!/usr/bin/env bash
# What the code that runs after clone may refer to outside itself: child_symbols.sh LAUNCH STAGE (object files or
# archives of them). Each name of the list has its reason; adding one needs another.
set -euo pipefail
launch=$1 stage=$2

allowed=(
    __clone          # the C library's wrapper makes one system call and runs no fork handlers; see clone(2)
    close            # Fd, in the host: a plain system call wrapper
    __errno_location # errno of the calling thread, in the host: Fd keeps it; the child looks at results alone
    memcpy memset    # compilers make them of assignments; they touch nothing but their arguments
)

undefined() { nm -u "$1" | awk '$1 == "U" { print $2 }' | grep -vx '_GLOBAL_OFFSET_TABLE_' | sort -u; }

status=0
for symbol in $(undefined "$launch"); do
    if [[ " ${allowed[*]} " != *" $symbol "* ]]; then
        echo "src/launch.cpp refers to '$symbol', which is not on the list of tests/child_symbols.sh"
        status=1
    fi
done
undefined "$launch" | grep -qx __clone || {
    echo "src/launch.cpp does not refer to '__clone': this looks at the wrong file"
    status=1
}
# The stage has no C library at all: its parts refer to each other, and to what stage.ld defines.
defined=$(
    nm --defined-only "$stage" | awk 'NF == 3 { print $3 }'
    grep -oE '^ *stage_[a-z_]+ =' "$(dirname "$0")/../src/stage/stage.ld" | tr -d ' ='
)
for symbol in $(undefined "$stage"); do
    grep -qxF "$symbol" <<< "$defined" && continue
    echo "src/stage refers to '$symbol': it is linked to nothing"
    status=1
done
grep -qx _start <<< "$defined" || {
    echo "src/stage has no '_start': this looks at the wrong file"
    status=1
}
echo "launch: $(undefined "$launch" | tr '\n' ' ')"
exit $status
