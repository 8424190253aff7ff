#!/usr/bin/env bash
# Boot network under load, against dnsmasq and tftpd-hpa: 200 clients fetch 1 MiB by TFTP, 1,000 DISCOVERs a second.
# Needs root; servers come from tests/tools/install.sh. Everything runs in a network namespace of its own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${INSIDE:-}" ]; then
  tools=$("$here/tests/tools/install.sh" netboot)
  cargo build --release --quiet --manifest-path "$here/Cargo.toml" --bin ipxe-bridge --example netboot_load
  target=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  exec env INSIDE=1 TOOLS="$tools" BIN="$target/release" unshare -n -m --propagation private bash "$0"
fi
work=$(mktemp -d)
pid=
finish() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT
mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip netns add client
ip link add eth0 type veth peer name eth0 netns client
ip link set eth0 up; ip addr add 10.77.0.1/24 dev eth0
ip -n client link set eth0 up; ip -n client addr add 10.77.0.9/24 dev eth0; ip -n client link set lo up
mkdir "$work/tftp"; head -c 1048576 /dev/urandom > "$work/tftp/program.efi"; cp /usr/lib/ipxe/snponly.efi "$work/tftp/"; chmod -R a+rX "$work"
# Seconds of processor time of a process and its children that were waited for.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{print ($14+$15+$16+$17)/hz}' "/proc/$1/stat"; }
load() { ip netns exec client "$BIN/examples/netboot_load" "$@"; }
measure() {
  local name=$1 before after
  shift
  before=$(cpu "$pid")
  local said; said=$(load "$@")
  after=$(cpu "$pid")
  printf '%-28s %s, %.2f s of processor time\n' "$name" "$said" "$(awk -v a="$after" -v b="$before" 'BEGIN {print a-b}')"
}
start() { "$@" > "$work/log" 2>&1 & pid=$!; sleep 1; kill -0 "$pid" || { cat "$work/log"; exit 1; }; }
stop() { kill "$pid"; wait "$pid" 2>/dev/null || true; pid=; sleep 0.3; }
for round in 1 2 3; do
  start "$BIN/ipxe-bridge" netboot --interface eth0 --bridge http://10.77.0.1:9876 --answer all --boot-programs "$work/tftp" --log-level warn
  measure "TFTP ipxe-bridge" tftp 10.77.0.1:69 program.efi 200 1
  measure "TFTP ipxe-bridge" tftp 10.77.0.1:69 program.efi 200 8
  measure "DHCP ipxe-bridge" dhcp eth0 1000 5
  stop
  start dnsmasq --no-daemon --conf-file=/dev/null --user=root --port=0 --interface=eth0 --bind-interfaces --enable-tftp --tftp-root="$work/tftp" \
    --tftp-max=1000 --dhcp-range=10.77.0.0,proxy,255.255.255.0 --pxe-service=X86-64_EFI,i,snponly.efi
  measure "TFTP dnsmasq" tftp 10.77.0.1:69 program.efi 200 1
  measure "TFTP dnsmasq" tftp 10.77.0.1:69 program.efi 200 8
  measure "DHCP dnsmasq" dhcp eth0 1000 5
  stop
  start "$TOOLS/servers/usr/sbin/in.tftpd" -L -4 -a 10.77.0.1:69 -u root -s "$work/tftp"
  measure "TFTP tftpd-hpa" tftp 10.77.0.1:69 program.efi 200 1
  measure "TFTP tftpd-hpa" tftp 10.77.0.1:69 program.efi 200 8
  stop
done
