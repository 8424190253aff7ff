#!/usr/bin/env bash
# Boot network under load, against dnsmasq and tftpd-hpa: 200 clients fetch 1 MiB by TFTP, 1,000 DISCOVERs a second.
# Writes docs/benchmarks-netboot.md; ROUNDS=1 is for a quick look and writes nothing.
# Needs root; servers come from tests/tools/install.sh. Everything runs in a network namespace of its own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${INSIDE:-}" ]; then
  tools=$("$here/tests/tools/install.sh" netboot)
  cargo build --release --quiet --manifest-path "$here/Cargo.toml" --bin ipxe-bridge --example netboot_load
  target=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  exec env INSIDE=1 TOOLS="$tools" BIN="$target/release" unshare -n -m --propagation private bash "$0"
fi
rounds=${ROUNDS:-3} clients=200 size=1048576
work=$(mktemp -d)
results=$work/results
pid=
finish() { [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT
mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip netns add client
ip link add eth0 type veth peer name eth0 netns client
ip link set eth0 up; ip addr add 10.77.0.1/24 dev eth0
ip -n client link set eth0 up; ip -n client addr add 10.77.0.9/24 dev eth0; ip -n client link set lo up
# Every client has an address of its own.
ip -n client route add local 10.77.1.0/24 dev lo; ip route add 10.77.1.0/24 via 10.77.0.9
mkdir "$work/tftp"; head -c $size /dev/urandom > "$work/tftp/program.efi"; cp /usr/lib/ipxe/snponly.efi "$work/tftp/"; chmod -R a+rX "$work"
# Seconds of processor time of a process and its children that were waited for.
cpu() { awk -v hz="$(getconf CLK_TCK)" '{print ($14+$15+$16+$17)/hz}' "/proc/$1/stat"; }
# A line of results: round, row, server, and what the load said.
measure() {
  local row=$1 server=$2 before said
  shift 2
  before=$(cpu "$pid")
  said=$(ip netns exec client "$BIN/examples/netboot_load" "$@")
  said="$round $row $server $said cpu=$(awk -v a="$(cpu "$pid")" -v b="$before" 'BEGIN {printf "%.2f", a-b}')"
  echo "$said" | tee -a "$results"
}
tftp() { for window in 1 8; do measure "tftp-$window" "$1" tftp 10.77.0.1:69 program.efi $clients $window 10.77.1.1; done; }
dhcp() { measure dhcp "$1" dhcp eth0 1000 5; }
start() { "$@" > "$work/log" 2>&1 & pid=$!; sleep 1; kill -0 "$pid" || { cat "$work/log"; exit 1; }; }
stop() { kill "$pid"; wait "$pid" 2>/dev/null || true; pid=; sleep 0.3; }
for round in $(seq "$rounds"); do
  start "$BIN/ipxe-bridge" netboot --interface eth0 --bridge http://10.77.0.1:9876 --answer all --boot-programs "$work/tftp"
  tftp ipxe-bridge; dhcp ipxe-bridge
  stop
  start dnsmasq --no-daemon --conf-file=/dev/null --user=root --port=0 --interface=eth0 --bind-interfaces --enable-tftp --tftp-root="$work/tftp" \
    --tftp-max=1000 --dhcp-range=10.77.0.0,proxy,255.255.255.0 --pxe-service=X86-64_EFI,i,snponly.efi
  tftp dnsmasq; dhcp dnsmasq
  stop
  start "$TOOLS/servers/usr/sbin/in.tftpd" -L -4 -a 10.77.0.1:69 -u root -s "$work/tftp"
  tftp tftpd-hpa
  stop
done

# Values of a key, one for each round; and the middle one.
values() { awk -v row="$1" -v server="$2" -v key="$3=" '$2 == row && $3 == server {for (i = 4; i <= NF; i++) if (index($i, key) == 1) print substr($i, length(key) + 1)}' "$results"; }
middle() { sort -g | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }
median() { values "$@" | middle; }
# How we stand to the faster of the others, round by round.
ratio() { paste <(values "$1" ipxe-bridge rate) <(values "$1" dnsmasq rate) <(values "$1" tftpd-hpa rate) | awk '{printf "%.2f\n", $1 / ($2 > $3 ? $2 : $3)}' | middle; }
met() { awk -v value="$1" -v than="$2" -v most="$3" 'BEGIN {print (than == "most" ? value + 0 <= most : value + 0 >= most) ? "met" : "missed"}'; }
# Whatever is fast because it left something out is not fast.
for row in tftp-1 tftp-8; do
  for server in ipxe-bridge dnsmasq tftpd-hpa; do
    [ "$(values $row $server bytes | sort -u)" = $((clients * size)) ] || { echo "error: $server did not send everything ($row)" >&2; exit 1; }
  done
done
[ "$(values dhcp ipxe-bridge answered)" = "$(values dhcp ipxe-bridge sent)" ] || { echo "error: not every DISCOVER was answered" >&2; exit 1; }

rate() { echo "$(median "$1" "$2" rate) MiB/s"; }
# Not of tftpd-hpa: nobody waits for its processes, so their time is not known.
of_tftp() { echo "$(rate "$1" "$2"), $(median "$1" "$2" cpu) s"; }
of_dhcp() { echo "$(median dhcp "$1" p99) ms, $(median dhcp "$1" cpu) s"; }
table() {
  cat <<TABLE
# Benchmark of the boot network

Written by \`make bench\` (\`bench/netboot.sh\`): server and clients on one machine, $(nproc) cores of $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1), Linux $(uname -r), $(dnsmasq --version | sed -n '1s/ *Copyright.*//p'). The middle of $rounds rounds; seconds are the server's processor time.
Every byte came, and every DISCOVER was answered by ipxe-bridge; one that is not answered counts as endless.

| Row | ipxe-bridge | dnsmasq | tftpd-hpa | Target |
|---|---|---|---|---|
| 200 clients fetch 1 MiB by TFTP, block by block | $(of_tftp tftp-1 ipxe-bridge) | $(of_tftp tftp-1 dnsmasq) | $(rate tftp-1 tftpd-hpa) | 1.0 x the faster: $(ratio tftp-1), $(met "$(ratio tftp-1)" least 1) |
| the same, a window of 8 where the server has it | $(of_tftp tftp-8 ipxe-bridge) | $(of_tftp tftp-8 dnsmasq) | $(rate tftp-8 tftpd-hpa) | 1.0 x the faster: $(ratio tftp-8), $(met "$(ratio tftp-8)" least 1) |
| 1,000 DISCOVERs a second for 5 s, p99 | $(of_dhcp ipxe-bridge) | $(of_dhcp dnsmasq) | | below 5 ms: $(met "$(median dhcp ipxe-bridge p99)" most 5) |
TABLE
}
if [ "$rounds" = 1 ]; then table; else table > "$here/docs/benchmarks-netboot.md"; echo "docs/benchmarks-netboot.md is written"; fi
