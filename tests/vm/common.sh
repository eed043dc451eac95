# What uml.sh and qemu.sh share; sourced by them, with the arguments BUILD RESULTS SUITE-OR-TEST... The kernel's root is
# this machine's. The machine's own /tmp, /var/tmp, /var/lib and /run are covered: by a scratch ext4, which can be
# id-mapped as a server's file system can, and by a file system in memory.
#
# RESULTS/NAME.rc and RESULTS/NAME.out are what each program left; see tests/support/count.py.

# Sets build, results and source; writes the list of programs and makes the scratch disk.
prepare() {
    build=$(realpath "$1") results=$2
    shift 2
    mkdir -p "$results"
    results=$(realpath "$results")
    source=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
    # One line for each program: name, then its arguments, NUL-free and quoted for the shell.
    meson introspect "$build" --tests | python3 -c '
import json, shlex, sys
wanted = set(sys.argv[2:])
left_out = set(sys.argv[1].split()) | {"long", "consumer", "source"}
for test in json.load(sys.stdin):
    suites = {suite.split(":")[-1] for suite in test["suite"]}
    if test["name"] in wanted or suites & wanted and not suites & left_out:
        settings = [f"{key}={value}" for key, value in test["env"].items()]
        command = "env " + shlex.join(settings + test["cmd"])
        print(test["name"].replace("/", "-"), test["workdir"] or "/", command)
' "$left_out" "$@" > "$results/list"
    [[ -s $results/list ]] || { echo "no such tests in $build: $*" >&2 && exit 2; }
    disk=$results/disk
    truncate -s 1G "$disk"
    mkfs.ext4 -q -F -O ^has_journal -m 0 "$disk"
    trap 'rm -f "$disk"' EXIT
    rm -f "$results/done"
}

# write_init DISK MODULES SECONDS HALT: what the guest runs as pid 1. MODULES is the directory that modprobe(8) is
# given, SECONDS what one program may take, HALT the command that ends the guest. On standard input: what is to be done
# before anything else, with /proc and /sys there.
write_init() {
    cat > "$results/init" << END
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts -o ptmxmode=666
ln -sfn /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sfn /proc/self/fd/\${number%%:*} /dev/\${number#*:}; done
$(cat)
# What is covered is looked at through a second mount where the tests need it.
mount -t tmpfs keep /mnt
keep() { mkdir -p "/mnt/\$1" && mount --bind "\$2" "/mnt/\$1"; }
give() { mkdir -p "\$2" && mount --move "/mnt/\$1" "\$2"; }
keep source "$source"; keep build "$build"; keep results "$results"
mount -t tmpfs run /run
mount -t ext4 $1 /tmp
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
for controller in \$(cat /sys/fs/cgroup/cgroup.controllers); do
    echo +\$controller > /sys/fs/cgroup/cgroup.subtree_control
    echo +\$controller > /sys/fs/cgroup/services/cgroup.subtree_control
done
echo \$\$ > /sys/fs/cgroup/services/tests/cgroup.procs
for module in bridge veth overlay fuse; do modprobe -d "$2" \$module || echo "no module \$module"; done
ip link set lo up
while read -r name place command; do
    echo "== \$name"
    began=\$SECONDS
    cd "\$place" || cd /
    # A session of its own, so that a program that signals its group cannot end this list.
    setsid --wait timeout -k 5 $3 bash -c "\$command" < /dev/null > "$results/\$name.out" 2>&1
    echo \$? > "$results/\$name.rc"
    echo "\$((SECONDS - began)) s"
done < "$results/list"
cd /
echo done > "$results/done"
sync
$4
END
    chmod +x "$results/init"
}

# Last: whether the guest came to the end of the list.
is_done() { [[ -e $results/done ]] || { tail -n 40 "$results/console" && exit 1; }; }
