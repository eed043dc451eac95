#!/bin/sh
# quickstart.sh - a busybox container from its XML, end to end: builds caisson and runs the walk-through.
set -eu

usage() {
    cat <<'END'
usage: examples/quickstart.sh [--build DIR] [--no-build]

Builds caisson and walks through a container's life with caissonctl: makes a root directory with busybox, describes it
in libvirt's domain XML, defines it, starts it on a bridge, looks at it, gives you its console, and takes all away
again. Each command is printed as it is run. Run it as root on Debian 12.

  --build DIR  where to build (default: build/ beside examples/)
  --no-build   take what is built there already
  --help       this text

What is missing is installed by apt-get: a compiler, meson, tinyxml2, range-v3, libmnl, doctest and a static busybox.
Everything else that it makes (a container, a bridge, a directory with the root, the XML, --state and --run) is gone
when it ends, also by Ctrl+C. Only the build directory stays.
END
}

source_directory=$(cd "$(dirname "$0")/.." && pwd)
build=$source_directory/build
is_built=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --build) [ $# -gt 1 ] || { usage >&2 && exit 2; } && build=$(realpath -m "$2") && shift ;;
        --no-build) is_built=yes ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

say() { printf '\n# %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2 && exit 1; }
# Prints the command and runs it.
run() {
    printf '+ %s\n' "$*"
    "$@"
}

name=mycontainer
work=
bridge=
bridge_address=

caissonctl() { "$build/examples/caissonctl" --state "$work/state" --run "$work/run" "$@"; }

# Not to be interrupted half-way: a domain can be destroyed only once it runs.
start() {
    printf '+ caissonctl start %s\n' "$name"
    (trap '' INT TERM HUP && caissonctl start "$name")
}

# True while the bridge is the one that this script made, and not one that somebody else made with the same name.
is_our_bridge() {
    [ -n "$bridge" ] && ip -o link show dev "$bridge" 2> /dev/null | grep -q "link/ether $bridge_address"
}
clean_up() {
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$work" ]; then
        caissonctl --quiet destroy "$name" > "$work/clean-up" 2>&1 || true
        if is_our_bridge; then ip link delete "$bridge"; fi
        rm -rf --one-file-system "$work"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

[ "$(id -u)" -eq 0 ] || fail 'run it as root: it makes a bridge and a container'

# --- packages and build ---------------------------------------------------------------------------------------------
missing=
need() { # need PACKAGE COMMAND...: the package is wanted if the command fails
    package=$1
    shift
    "$@" > /dev/null 2>&1 || missing="$missing $package"
}
installed() { dpkg-query -W -f '${Status}' "$1" 2> /dev/null | grep -q 'ok installed'; }
static_busybox() {
    for busybox in /usr/bin/busybox /bin/busybox /sbin/busybox; do
        if [ -x "$busybox" ] && ! ldd "$busybox" > /dev/null 2>&1; then return 0; fi
    done
    return 1
}
if [ -z "$is_built" ]; then
    need g++ sh -c 'command -v c++'
    need meson command -v meson
    need ninja-build command -v ninja
    need pkg-config command -v pkg-config
    need libtinyxml2-dev installed libtinyxml2-dev
    need librange-v3-dev installed librange-v3-dev
    need libmnl-dev installed libmnl-dev
    need doctest-dev installed doctest-dev
fi
need iproute2 command -v ip
need bsdutils command -v script
need busybox-static static_busybox
if [ -n "$missing" ]; then
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    run apt-get update -q
    # shellcheck disable=SC2086 # a list of package names
    run apt-get install -q -y --no-install-recommends $missing
fi
static_busybox || fail 'there is no static busybox: apt-get install busybox-static'

if [ -z "$is_built" ]; then
    say "building in $build"
    [ -f "$build/build.ninja" ] || run meson setup "$build" "$source_directory"
    run ninja -C "$build" quickstart
fi
[ -x "$build/examples/caissonctl" ] || fail "there is no caissonctl in $build: leave --no-build out, and it is built"

# --- the walk-through -----------------------------------------------------------------------------------------------
# The name is chosen before the directory is there, so that no moment is without somebody to remove it.
work=$(mktemp -u -d "${TMPDIR:-/tmp}/caisson-quickstart.XXXXXXXXXX")
mkdir -m 0700 "$work" || { work= && exit 1; }
cd "$work"
say "everything below happens in $work; caissonctl is $build/examples/caissonctl with --state and --run there"

say 'a simple root directory, made of busybox'
run mkdir "$name"
run mkdir "$name/bin"
run mkdir "$name/sbin"
run cp "$busybox" "$name/sbin/busybox"
for command in sh ls chdir chmod rm cat vi; do
    run ln -s ../sbin/busybox "$name/bin/$command"
done
printf '+ cat > %s\n' "$name/sbin/init"
tee "$name/sbin/init" <<'END'
#!/sbin/busybox sh
sh
END
run chmod 755 "$name/sbin/init"

say 'a bridge for its network'
number=0
while ip link show dev "br$number" > /dev/null 2>&1; do number=$((number + 1)); done
bridge_address=52:54:00$(od -An -N3 -tx1 /dev/urandom | tr ' ' :)
bridge=br$number
# The address comes with the bridge, in one step: it is how clean_up knows it again.
run ip link add "$bridge" address "$bridge_address" type bridge
run ip link set "$bridge" up

say 'the description'
printf '+ cat > %s.xml\n' "$name"
tee "$name.xml" <<END
<domain type='lxc'>
  <name>$name</name>
  <memory>500000</memory>
  <os>
    <type>exe</type>
    <init>/sbin/init</init>
  </os>
  <devices>
    <filesystem type='mount'>
      <source dir='$work/$name'/>
      <target dir='/'/>
    </filesystem>
    <interface type='bridge'>
      <source network='$bridge'/>
      <mac address='00:11:22:34:34:34'/>
    </interface>
    <console type='pty' />
  </devices>
</domain>
END

say 'define it'
run caissonctl define "$name.xml"
run caissonctl list --inactive

say 'start it, and ask for some information about it'
start
run caissonctl list
run caissonctl dominfo "$name"

if [ -t 0 ] && [ -t 1 ]; then
    say 'its console is yours: Ctrl+] leaves it; "exit" ends its init, and the container with it'
    run caissonctl console "$name"
    if [ "$(caissonctl --quiet domstate "$name")" != running ]; then
        say 'its init has ended, and so has the container: here it is again'
        start
    fi
else
    say 'its console: there is no terminal here, so script(1) lends one and types'
    typescript=$work/typescript
    shown() { # shown TEXT: waits until the console has shown a line with it
        tries=0
        until grep -q "$1" "$typescript" 2> /dev/null; do
            tries=$((tries + 1))
            [ $tries -le 100 ] || return 0
            sleep 0.1
        done
    }
    feed() {
        shown 'Escape character'
        printf 'ls /\n'
        # shellcheck disable=SC2016 # it is for the shell inside
        printf 'echo "this shell is a child of process $PPID"\n'
        shown 'child of process [0-9]'
        printf '\035'
    }
    printf '+ caissonctl console %s\n' "$name"
    feed | script -q -e -f -c "'$build/examples/caissonctl' --state '$work/state' --run '$work/run' console $name" \
        "$typescript"
fi

say 'its live description: which terminal is its console?'
run caissonctl dumpxml "$name"

say 'stop it, and forget it'
run caissonctl destroy "$name"
run caissonctl undefine "$name"
run caissonctl list --all
run ip link delete "$bridge"
say 'done: nothing of it is left'
