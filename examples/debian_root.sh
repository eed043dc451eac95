#!/bin/sh
# debian_root.sh DIR [SUITE [MIRROR]] - a Debian root file system with systemd in DIR, by debootstrap. What is there
# already is taken as it is. root has no password in it: it is for a machine that is looked at from its console.
set -eu
[ $# -ge 1 ] && [ $# -le 3 ] || { echo "usage: debian_root.sh DIR [SUITE [MIRROR]]" >&2 && exit 2; }
root=$(realpath -m "$1") suite=${2:-bookworm} mirror=${3:-http://deb.debian.org/debian}
if [ -e "$root/etc/debian_version" ]; then exit 0; fi
[ "$(id -u)" -eq 0 ] || { echo "debian_root.sh: run it as root" >&2 && exit 1; }
if ! command -v debootstrap > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -q -y --no-install-recommends debootstrap
fi
mkdir -p "$(dirname "$root")"
# In a place of its own until it is whole.
work=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"
debootstrap --variant=minbase --include=systemd-sysv,dbus,login,procps,iproute2 "$suite" "$work/root" "$mirror"
rm -f "$work/root/var/cache/apt/archives/"*.deb
sed -i 's/^root:[^:]*:/root::/' "$work/root/etc/shadow"
echo debian > "$work/root/etc/hostname"
# systemd makes one of its own at the first boot.
: > "$work/root/etc/machine-id"
mv -T "$work/root" "$root"
