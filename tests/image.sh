#!/usr/bin/env bash
# Builds what is committed with the whole Containerfile, for amd64 twice in different folders, for arm64 once, compares the programs and has each image
# answer, arm64 by QEMU. No registry is asked: the base images are made here, of Debian's packages.
#
#   tests/image.sh [amd64] [arm64]     both without arguments; 15 minutes a build on two idle cores, 10 GB in TMPDIR. KEEP=1 leaves the images there.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '==> %s: %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { say "FAILED: $*"; exit 1; }
[ "$(id -u)" = 0 ] || die "base images are made as root"
"$repository/tests/tools/install.sh" image >/dev/null
"$repository/tests/tools/install.sh" bases >/dev/null

work=$(mktemp -d)
export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$work" "$work" > "$CONTAINERS_STORAGE_CONF"
trap '[ -n "${KEEP:-}" ] || { buildah rm --all >/dev/null; rm -rf "$work"; }' EXIT
archive=$(apt-get indextargets --format '$(SITE)' | grep -m 1 'debian$') || die "no package source of Debian here"
# A site whose proxy shows certificates of its own has their CA here.
authorities=/etc/ssl/certs/ca-certificates.crt

# from SUITE PACKAGES: a container with a minimal Debian; prints its name.
from() {
  local container
  container=$(buildah from scratch)
  debootstrap --variant=minbase --include="ca-certificates,gcc,libc6-dev,$2" "$1" "$(buildah mount "$container")" "$archive" >&2
  buildah config --env CARGO_HTTP_CAINFO=/run/authorities.crt "$container"
  echo "$container"
}

# What the registry's image of Rust has, at the same places: Debian, a C compiler, and the toolchain of this machine, which must be of the same version.
rust() {
  local container folder version=${1#*:}
  version=${version%-*}
  rustc --version | grep -q "^rustc $version\." || die "the Containerfile builds with Rust $version, here is $(rustc --version)"
  container=$(from "${1##*-}" curl)
  folder=$(buildah mount "$container")/usr/local
  mkdir -p "$folder/rustup" "$folder/cargo/bin"
  tar -C "$(rustc --print sysroot)" --exclude=./share -c . | tar -C "$folder/rustup" -x
  buildah config --env CARGO_HOME=/usr/local/cargo --env PATH=/usr/local/rustup/bin:/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit -q --rm "$container" "$1" >/dev/null
}

# Debian's own Rust, which has the standard library for arm64 as a package.
debian() {
  local container folder
  container=$(from trixie libc6-dev-arm64-cross,gcc-aarch64-linux-gnu)
  folder=$(buildah mount "$container")
  printf 'deb %s trixie-backports main\n' "$archive" > "$folder/etc/apt/sources.list.d/backports.list"
  buildah run "$container" -- bash -euc 'dpkg --add-architecture arm64 && apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends -t trixie-backports rustc cargo libstd-rust-dev:arm64' >&2
  buildah config --env CARGO_HOME=/usr/local/cargo --env PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit -q --rm "$container" "$1" >/dev/null
}

# image NAME CONTAINERFILE ARCHITECTURE OPTION...: builds an image; prints where its root file system is.
image() {
  local name=$1 containerfile=$2 architecture=$3
  shift 3
  say "building $name for $architecture ..."
  # Buildah of Debian 12 does not know by itself what it runs on.
  buildah build --pull=never --platform "linux/$architecture" --build-arg BUILDPLATFORM=linux/amd64 \
    --volume "$authorities:/run/authorities.crt:ro" "$@" -t "localhost/$name" -f "$containerfile" "$work/source" >&2
  buildah mount "$(buildah from --pull=never --arch "$architecture" "localhost/$name")"
}

# answers ROOT [EMULATOR]: the program tells its version, and serves the sample site as any user on a root that cannot be written.
answers() {
  local root=$1 emulator=${2:-} port=19876 server said version
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -1)
  mkdir -p "$root/site"
  [ -z "$emulator" ] || touch "$root/emulator"
  # shellcheck disable=SC2016
  local mounts='mount --bind "$1" "$1"; mount --bind -o ro "$2" "$1/site"; [ -z "$3" ] || mount --bind "$3" "$1/emulator"; mount -o remount,bind,ro "$1"
    exec env -i PATH=/usr/bin:/usr/sbin setpriv --no-new-privs chroot --userspec 1000660000:0 --groups= "$1" ${3:+/emulator} /usr/bin/ipxe-bridge "${@:4}"'
  run() { exec unshare --mount --propagation private bash -euc "$mounts" run "$root" "$repository/config/samples/site" "$emulator" "$@"; }
  (run --version) | grep -F "ipxe-bridge $version" || die "no version"
  run server --manifests /site --host 127.0.0.1 --port $port --metrics-port 0 >"$work/server.log" 2>&1 &
  server=$!
  said=$(curl -sS --retry 60 --retry-delay 1 --retry-all-errors --fail "http://127.0.0.1:$port/readyz" >/dev/null &&
    curl -sS --fail "http://127.0.0.1:$port/ipxe-mac-boot/52-54-00-5a-00-03") || { cat "$work/server.log" >&2; kill $server; die "no answer"; }
  kill $server
  wait $server || die "it ends with $?"
  grep "boots its own disk" <<<"$said" || die "not the answer that the sample site has: $said"
}

say "making base images ..."
git -c safe.directory="$repository" clone -q "$repository" "$work/source"
for architecture in ${*:-amd64 arm64}; do
  case $architecture in
    amd64)
      rust "$(sed -n 's/^ARG BUILDER=//p' "$work/source/Containerfile")"
      one=$(image one "$work/source/Containerfile" amd64)
      # Folders of other names and depths.
      sed 's#^WORKDIR /src#ENV CARGO_HOME=/elsewhere/cargo\nWORKDIR /some/where/deeper#' "$work/source/Containerfile" > "$work/Containerfile"
      two=$(image two "$work/Containerfile" amd64)
      sha256sum {"$one","$two"}/usr/bin/ipxe-bridge
      cmp {"$one","$two"}/usr/bin/ipxe-bridge || die "two builds, two programs"
      say "two builds, one program"
      # The list of crates, which scanners of images read.
      readelf -S "$one/usr/bin/ipxe-bridge" | grep dep-v0 || die "the program does not tell what it is made of"
      answers "$one"
      ;;
    arm64)
      debian localhost/debian-rust
      image=$(image arm64 "$work/source/Containerfile" arm64 --build-arg BUILDER=localhost/debian-rust)
      readelf -h "$image/usr/bin/ipxe-bridge" | grep AArch64 || die "not a program for arm64"
      answers "$image" "$(command -v qemu-aarch64-static)"
      ;;
    *) die "$architecture: expected amd64 or arm64" ;;
  esac
done
