#!/bin/sh
# vps.sh - Debian with systemd in a container, on this terminal: builds caisson, makes the root file system, boots it.
set -eu

usage() {
    cat <<'END'
usage: examples/vps.sh [--build DIR] [--no-build] [--root DIR] [--suite NAME] [--mirror URL]

Builds caisson, makes a Debian root file system with debootstrap (a minute and some hundred megabytes, once), and boots
its systemd as the init of a container with a user namespace, a network of its own and the `system` profile. This
terminal becomes its console: log in as root, without a password. `poweroff` inside ends it, as Ctrl+] does. What it
writes is kept in memory and gone with it; the root file system stays as it was. Run it as root on Debian 12.

  --build DIR   where to build (default: build/ beside examples/)
  --no-build    take what is built there already
  --root DIR    the root file system (default: vps/NAME in the build directory; made if it is not there)
  --suite NAME  Debian's release (default: bookworm)
  --mirror URL  where debootstrap takes it from (default: http://deb.debian.org/debian)
  --help        this text
END
}

source_directory=$(cd "$(dirname "$0")/.." && pwd)
build=$source_directory/build root= suite=bookworm mirror=http://deb.debian.org/debian is_built=
wants_value() { [ $# -gt 1 ] || { usage >&2 && exit 2; }; }
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --no-build) is_built=yes ;;
        --build) wants_value "$@" && build=$(realpath -m "$2") && shift ;;
        --root) wants_value "$@" && root=$(realpath -m "$2") && shift ;;
        --suite) wants_value "$@" && suite=$2 && shift ;;
        --mirror) wants_value "$@" && mirror=$2 && shift ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
root=${root:-$build/vps/$suite}

fail() { printf 'vps: %s\n' "$*" >&2 && exit 1; }
run() {
    printf '+ %s\n' "$*"
    "$@"
}
[ "$(id -u)" -eq 0 ] || fail 'run it as root: it makes a root file system and a container'

if [ -z "$is_built" ]; then
    missing=
    for package in g++ meson ninja-build pkg-config libtinyxml2-dev librange-v3-dev libmnl-dev libseccomp-dev \
        doctest-dev; do
        dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        export DEBIAN_FRONTEND=noninteractive
        run apt-get update -q
        # shellcheck disable=SC2086 # a list of package names
        run apt-get install -q -y --no-install-recommends $missing
    fi
    [ -f "$build/build.ninja" ] || run meson setup "$build" "$source_directory"
    run ninja -C "$build" examples/vps
fi
[ -x "$build/examples/vps" ] || fail "there is no vps in $build: leave --no-build out, and it is built"
run "$source_directory/examples/debian_root.sh" "$root" "$suite" "$mirror"
run "$build/examples/vps" --throw-away "$root"
