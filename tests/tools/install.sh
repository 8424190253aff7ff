#!/usr/bin/env bash
# Builds or finds the programs that the tests run against, once per version, in a cache outside the tree, and prints the folder that holds them.
#
#   tests/tools/install.sh control-plane   etcd, kube-apiserver, kube-controller-manager, kubectl
#   tests/tools/install.sh netboot         DHCP servers of others (dhcpd, Kea), TFTP's clients and server, Debian trixie's iPXE; dnsmasq from packages
#   tests/tools/install.sh boot            vmlinuz and initrd.img of a small Linux guest; QEMU, its firmware and iPXE from packages (Debian)
#
# IPXE_BRIDGE_TOOLS names the cache (default: ~/.cache/ipxe-bridge). KUBEBUILDER_ASSETS, the convention of controller-runtime's
# envtest, names a folder that already holds the control plane: nothing is built then.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${IPXE_BRIDGE_TOOLS:-$HOME/.cache/ipxe-bridge}

say() { printf '==> %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Tests of one run ask at the same time: the first one builds, the others wait for it.
lock() {
  mkdir -p "$cache"
  exec 9>"$cache/$1.lock"
  flock 9
}

control_plane() {
  if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    echo "$KUBEBUILDER_ASSETS"
    return
  fi
  local version key out
  version=$(awk '$1 == "k8s.io/kubernetes" {print $2; exit}' "$here/control-plane/go.mod")
  [ -n "$version" ] || die "no version of k8s.io/kubernetes in $here/control-plane/go.mod"
  key=$(cat "$here/control-plane/go.mod" "$here/control-plane/go.sum" | sha256sum | cut -c1-12)
  out="$cache/control-plane-$version-$key"
  lock control-plane
  # Without the marker an earlier build was interrupted, and what it left may be half a program.
  [ -e "$out/complete" ] || rm -rf "$out"
  local minor=${version#v1.}
  local flags="-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
  local package program
  for package in go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/{kube-apiserver,kubectl,kube-controller-manager}; do
    program=${package##*/}
    [ "$program" != v3 ] || program=etcd
    # A complete folder of an older checkout may lack a program that was added since: it appears under its name when it is whole.
    [ ! -e "$out/$program" ] || continue
    command -v go >/dev/null || die "Go is needed to build $program $version: install it, or set KUBEBUILDER_ASSETS"
    mkdir -p "$out"
    say "building $program $version (all of it takes about 10 minutes on two cores, once) ..."
    (cd "$here/control-plane" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "$flags" -o "$out/$program.part" "$package") >&2
    mv "$out/$program.part" "$out/$program"
  done
  touch "$out/complete"
  # Pods of the tests have network namespaces of their own.
  if ! command -v ip >/dev/null && command -v apt-get >/dev/null; then
    say "installing iproute2 ..."
    apt_get update
    apt_get install -y --no-install-recommends iproute2
  fi
  echo "$out"
}

# Never asks for a password: a test run may have no terminal.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive as_root apt-get -o DPkg::Lock::Timeout=300 -qq "$@" >&2
}

# The package that the metapackage points at today (its version moves with every security update), nothing without package lists.
kernel_package() {
  { apt-cache depends linux-image-cloud-amd64 2>/dev/null || true; } | awk '/Depends:/ && !found++ {print $2}'
}

boot() {
  command -v apt-get >/dev/null || die "the boot tests take QEMU, iPXE and a guest kernel from Debian packages: no apt-get here"
  lock boot
  local package missing=()
  for package in qemu-system-x86 ipxe-qemu seabios ovmf busybox-static cpio kmod; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]} (100 MB, once) ..."
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
  fi

  local kernel key out
  key=$(cat "$here/boot/"* | sha256sum | cut -c1-12)
  kernel=$(kernel_package)
  # Without package lists (containers ship none) a payload made earlier will do, whatever its kernel.
  local release=${kernel#linux-image-}
  for out in "$cache"/boot-${release:-*}-"$key"; do
    [ ! -e "$out/complete" ] || { echo "$out"; return; }
  done

  # Old lists name a kernel that the archive no longer has.
  apt_get update || say "could not refresh the package lists, going on with what is there"
  kernel=$(kernel_package)
  [ -n "$kernel" ] || die "no package linux-image-cloud-amd64 here: the boot tests need Debian's cloud kernel"
  out="$cache/boot-${kernel#linux-image-}-$key"
  say "downloading $kernel and making the guest's initrd (30 MB, once) ..."
  rm -rf "$out"
  mkdir -p "$out"
  # As root, apt would download as its own user, who cannot write here.
  (cd "$out" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" && dpkg -x ./*.deb unpacked && rm ./*.deb) >&2
  cp "$out"/unpacked/boot/vmlinuz-* "$out/vmlinuz"
  bash "$here/boot/initrd.sh" "$out/unpacked" "$out/initrd.img"
  rm -rf "$out/unpacked"
  touch "$out/complete"
  echo "$out"
}

# Servers are unpacked, not installed: an installed one would be started on this machine.
unpacked() {
  local out=$1
  shift
  mkdir -p "$out/archives/partial"
  apt_get install -d --reinstall --no-install-recommends -o Dir::Cache::archives="$out/archives" -o APT::Sandbox::User=root "$@"
  local archive
  for archive in "$out"/archives/*.deb; do dpkg -x "$archive" "$out"; done
  rm -r "$out/archives"
}

# iPXE of the next Debian, from package lists of its own that nothing else on this machine sees.
next_ipxe() {
  local out=$1 apt
  apt=$(mktemp -d)
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/sources"
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "${IPXE_BRIDGE_DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$apt/sources/trixie.sources"
  local private=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/sources" -o Dir::State::Lists="$apt/lists"
    -o Dir::Cache="$apt" -o Dir::State::Status=/dev/null -o APT::Sandbox::User=root)
  apt_get "${private[@]}" update
  (cd "$apt" && apt_get "${private[@]}" download ipxe ipxe-qemu)
  mkdir -p "$out"
  local archive
  for archive in "$apt"/*.deb; do dpkg -x "$archive" "$out"; done
  rm -r "$apt"
}

netboot() {
  command -v apt-get >/dev/null || die "the tests of the boot network take DHCP servers and iPXE from Debian packages: no apt-get here"
  lock netboot
  local package missing=() out key
  for package in dnsmasq-base ipxe isolinux pxelinux syslinux-common xorriso mtools nftables iproute2 atftp tftp-hpa tcpdump; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]} (20 MB, once) ..."
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
  fi
  key=1
  out="$cache/netboot-$key"
  if [ ! -e "$out/complete" ]; then
    say "downloading dhcpd, Kea, tftpd and the next Debian's iPXE (20 MB, once) ..."
    rm -rf "$out"
    apt_get update || say "could not refresh the package lists, going on with what is there"
    unpacked "$out/servers" isc-dhcp-server kea-dhcp4-server tftpd-hpa
    next_ipxe "$out/trixie"
    touch "$out/complete"
  fi
  echo "$out"
}

case "${1:-}" in
  netboot) netboot ;;
  control-plane) control_plane ;;
  boot) boot ;;
  *) say "usage: $0 control-plane|boot|netboot"; exit 2 ;;
esac
