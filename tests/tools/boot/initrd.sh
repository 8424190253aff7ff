#!/usr/bin/env bash
# initrd.sh KERNEL OUT: the guest's initrd from busybox, the virtio network modules of the unpacked kernel package and ./init.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernel=$1 out=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,proc,sys,dev,etc,tmp,lib/modules}
cp /bin/busybox "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/udhcpc.sh" "$root/etc/udhcpc.sh"

# The package ships no modules.dep, and which module needs which one changes between kernels.
version=$(ls "$kernel/lib/modules")
depmod -b "$kernel" "$version"
n=10
for module in virtio_pci virtio_net; do
  modprobe -d "$kernel" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
  cp "$file" "$root/lib/modules/$n-$(basename "$file")"
  n=$((n + 1))
done

(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --owner=0:0 --quiet | gzip -1) > "$out"
