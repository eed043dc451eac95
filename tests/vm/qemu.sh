#!/usr/bin/env bash
# Runs test programs of a build under Debian's own kernel, with this machine's files as its root; see common.sh. It has
# cgroup v2 alone with every controller, pressure figures, AppArmor and two processors. They are emulated, so that it
# works wherever QEMU does: half a minute to boot, and five to ten times slower than the machine.
#
#   tests/vm/qemu.sh BUILD RESULTS SUITE-OR-TEST...
#
# The kernel is BUILD/linux, which is fetched with apt-get where it is not there; nothing is installed. KERNEL_ARGUMENTS
# in the environment are added to its command line, and QEMU_SECONDS is what all may take (three hours). RESULTS and the
# exit status are as uml.sh has them.
set -euo pipefail
. "$(dirname "$0")/common.sh"
PATH=$PATH:/usr/sbin:/sbin
for program in qemu-system-x86_64:qemu-system-x86 modprobe:kmod depmod:kmod busybox:busybox-static; do
    command -v "${program%:*}" > /dev/null ||
        { echo "${program%:*} is missing: install ${program#*:}" >&2 && exit 2; }
done
left_out=
prepare "$@"

linux=$build/linux
if [[ ! -d $linux ]]; then
    rm -rf "$linux.new"
    mkdir "$linux.new"
    name=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [[ -n $name ]] || { echo "there is no package linux-image-amd64: run apt-get update" >&2 && exit 2; }
    (cd "$linux.new" && apt-get -qq download "$name" && dpkg-deb -x ./*.deb . && rm ./*.deb)
    depmod -b "$linux.new" "$(ls "$linux.new/lib/modules")"
    mv "$linux.new" "$linux"
fi
version=$(ls "$linux/lib/modules")

# The first root: modules for the machine's files, which are then the root.
first=$(mktemp -d)
trap 'rm -rf "$disk" "$first"' EXIT
mkdir -p "$first/bin" "$first/host"
cp "$(command -v busybox)" "$first/bin/busybox"
for module in virtio_pci 9p 9pnet_virtio; do
    modprobe -d "$linux" -S "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' > "$first/order"
while read -r file; do cp "$file" "$first/" && echo "insmod /${file##*/}"; done < "$first/order" > "$first/insert"
cat > "$first/init" << END
#!/bin/busybox sh
/bin/busybox --install /bin
$(cat "$first/insert")
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
mount -t devtmpfs dev /host/dev
exec switch_root /host "$results/init"
END
chmod +x "$first/init"
(cd "$first" && find . | busybox cpio -o -H newc 2> /dev/null | gzip -1) > "$results/initrd"

printf '#!/bin/sh\nexec /sbin/modprobe -d "%s" "$@"\n' "$linux" > "$results/modprobe"
chmod +x "$results/modprobe"
write_init /dev/vda "$linux" 1200 'poweroff -f' << END
# Modules that the kernel asks for by itself.
echo "$results/modprobe" > /proc/sys/kernel/modprobe
for module in virtio_blk ext4 loop bfq squashfs erofs; do modprobe -d "$linux" \$module; done
mount -t securityfs securityfs /sys/kernel/security
END
# Where the machine is busy, an emulated timer does not pass the kernel's test of it.
arguments="console=ttyS0 quiet panic=-1 psi=1 hugepages=4 no_timer_check ${KERNEL_ARGUMENTS-}"
timeout -k 10 "${QEMU_SECONDS:-10800}" qemu-system-x86_64 -M q35 -cpu max -accel tcg,thread=multi -smp 2 -m 2048 \
    -kernel "$linux/boot/vmlinuz-$version" -initrd "$results/initrd" \
    -append "$arguments" -nographic -no-reboot -nic none \
    -drive "file=$disk,if=virtio,format=raw,cache=unsafe" \
    -fsdev local,id=files,path=/,security_model=none,multidevs=remap -device virtio-9p-pci,fsdev=files,mount_tag=host \
    < /dev/null > "$results/console" 2>&1 || true
is_done
