#!/usr/bin/env bash
# Runs test programs of a build under a kernel that has cgroup v2 alone: Debian's user-mode Linux, with this machine's
# files as its root; see common.sh. Boots in seconds; one processor.
#
#   tests/vm/uml.sh BUILD RESULTS SUITE-OR-TEST...
#
# RESULTS/NAME.rc and RESULTS/NAME.out are what each program left; see tests/support/count.py. The exit status says only
# whether the kernel came up and ran the list to its end.
set -euo pipefail
. "$(dirname "$0")/common.sh"
command -v linux.uml > /dev/null || { echo "linux.uml is missing: install user-mode-linux" >&2 && exit 2; }
# Attacks that race are none on one processor. What the suite `words` tests depends on no kernel, and would take a third
# of the time.
left_out='races words'
prepare "$@"
# modprobe looks below lib/modules of the directory that it is given, for the kernel's own name.
modules=$(find /usr/lib/uml/modules -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
write_init /dev/ubda "$results/modules" 300 'halt -f -p' << END
mkdir -p "$results/modules/lib/modules"
ln -sfn "$modules" "$results/modules/lib/modules/\$(uname -r)"
END
# /dev/null as the console's input: a guest that reads from a terminal would take the caller's keys.
timeout -k 10 1500 linux.uml mem=768M ubd0="$disk" rootfstype=hostfs rootflags=/ rw init="$results/init" \
    con=null con0=null,fd:1 quiet < /dev/null > "$results/console" 2>&1 || true
stty sane 2> /dev/null < /dev/tty || true
is_done
