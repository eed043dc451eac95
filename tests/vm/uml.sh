#!/usr/bin/env bash
# Runs test programs of a build under a kernel that has cgroup v2 alone: Debian's user-mode Linux, with this machine's
# files as its root. The machine's own /tmp, /var/tmp, /var/lib and /run are covered: by a scratch ext4, which can be
# id-mapped as a server's file system can, and by a file system in memory.
#
#   tests/vm/uml.sh BUILD RESULTS SUITE-OR-TEST...
#
# RESULTS/NAME.rc and RESULTS/NAME.out are what each program left; see tests/support/count.py. The exit status says only
# whether the kernel came up and ran the list to its end.
set -euo pipefail
build=$(realpath "$1") results=$2
shift 2
mkdir -p "$results"
results=$(realpath "$results")
source=$(realpath "$(dirname "$0")/../..")
command -v linux.uml > /dev/null || { echo "linux.uml is missing: install user-mode-linux" >&2 && exit 2; }

# One line for each program: name, then its arguments, NUL-free and quoted for the shell.
meson introspect "$build" --tests | python3 -c '
import json, shlex, sys
wanted = set(sys.argv[1:])
for test in json.load(sys.stdin):
    suites = {suite.split(":")[-1] for suite in test["suite"]}
    if test["name"] in wanted or suites & wanted and not suites & {"long", "consumer", "source", "races"}:
        settings = [f"{key}={value}" for key, value in test["env"].items()]
        command = "env " + shlex.join(settings + test["cmd"])
        print(test["name"].replace("/", "-"), test["workdir"] or "/", command)
' "$@" > "$results/list"
[[ -s $results/list ]] || { echo "no such tests in $build: $*" >&2 && exit 2; }

disk=$results/disk
truncate -s 1G "$disk"
mkfs.ext4 -q -F -O ^has_journal -m 0 "$disk"
trap 'rm -f "$disk"' EXIT

modules=$(find /usr/lib/uml/modules -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
cat > "$results/init" << END
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o ptmxmode=666
ln -sfn /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sfn /proc/self/fd/\${number%%:*} /dev/\${number#*:}; done
# What is covered is looked at through a second mount where the tests need it.
mount -t tmpfs keep /mnt
keep() { mkdir -p "/mnt/\$1" && mount --bind "\$2" "/mnt/\$1"; }
give() { mkdir -p "\$2" && mount --move "/mnt/\$1" "\$2"; }
keep source "$source"; keep build "$build"; keep results "$results"
mount -t tmpfs run /run
mount -t ext4 /dev/ubda /tmp
chmod 1777 /tmp
for place in /var/tmp /var/lib; do
    mkdir -m 1777 -p /tmp/.\$place
    mount --bind /tmp/.\$place \$place
done
give source "$source"; give build "$build"; give results "$results"
umount /mnt
# As a service manager has it: a group of services, whose controllers are handed down, and the tests in one of them.
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/services/tests
for controller in cpu io memory pids; do
    echo +\$controller > /sys/fs/cgroup/cgroup.subtree_control
    echo +\$controller > /sys/fs/cgroup/services/cgroup.subtree_control
done
echo \$\$ > /sys/fs/cgroup/services/tests/cgroup.procs
# modprobe looks below lib/modules of the directory that it is given.
mkdir -p /tmp/modules/lib/modules
ln -s $modules /tmp/modules/lib/modules/\$(uname -r)
for module in bridge veth overlay; do modprobe -d /tmp/modules \$module || echo "no module \$module"; done
ip link set lo up
while read -r name place command; do
    echo "== \$name"
    cd "\$place" || cd /
    # A session of its own, so that a program that signals its group cannot end this list.
    setsid --wait timeout -k 5 300 bash -c "\$command" < /dev/null > "$results/\$name.out" 2>&1
    echo \$? > "$results/\$name.rc"
done < "$results/list"
cd /
echo done > "$results/done"
sync
halt -f -p
END
chmod +x "$results/init"
rm -f "$results/done"
# /dev/null as the console's input: a guest that reads from a terminal would take the caller's keys.
timeout -k 10 1500 linux.uml mem=768M ubd0="$disk" rootfstype=hostfs rootflags=/ rw init="$results/init" \
    con=null con0=null,fd:1 quiet < /dev/null > "$results/console" 2>&1 || true
stty sane 2> /dev/null < /dev/tty || true
[[ -e $results/done ]] || { tail -n 40 "$results/console" && exit 1; }
