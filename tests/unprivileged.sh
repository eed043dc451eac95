#!/usr/bin/env bash
# The unit tests once more, as an ordinary user: none of them needs a privilege. unprivileged.sh BUILD PROGRAM...
# (below BUILD). The user is a number that nobody has; wherever BUILD is, he can get at it.
set -euo pipefail
if ((EUID != 0)); then
    echo 'this needs root, to become an ordinary user'
    exit 77
fi
if [[ $1 != --inside ]]; then exec unshare --mount --propagation private "$0" --inside "$@"; fi
build=$2
shift 2
cd "$build"
programs=()
for program in "$@"; do programs+=("$(realpath --relative-to="$build" "$program")"); done
place=$(mktemp -d /tmp/caisson-test-XXXXXX)
trap 'cd /; umount "$place"; rmdir "$place"' EXIT
mount --bind "$build" "$place"
cd "$place"

failed=0
for program in "${programs[@]}"; do
    if output=$(setpriv --reuid 61234 --regid 61234 --clear-groups --inh-caps=-all "./$program" 2>&1); then
        printf 'ok      %s\n' "$program"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n%s\n' "$program" "$output"
    fi
done
((${#programs[@]} > 0 && failed == 0))
