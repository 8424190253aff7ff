#!/bin/busybox sh
[ "$1" = bound ] || exit 0
busybox ip addr add "$ip/${mask:-24}" dev "$interface"
[ -z "$router" ] || busybox ip route add default via "${router%% *}"
