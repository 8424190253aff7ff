#!/usr/bin/env bash
# Builds what is committed twice, in two folders of different depth with caches of their own, as the image does, and compares the programs.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '==> %s\n' "$*" >&2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! command -v cargo-auditable >/dev/null; then
  say "installing cargo-auditable (a minute, once) ..."
  cargo install --locked "cargo-auditable@$(sed -n 's/.*cargo-auditable@//p' "$repository/Containerfile")"
fi
sums=()
for folder in "$work/a" "$work/somewhere/deeper/b"; do
  say "building in $folder (about 10 minutes on two cores) ..."
  git -c safe.directory="$repository" clone -q "$repository" "$folder"
  env -u CARGO_TARGET_DIR "$folder/deploy/image/build.sh"
  sums+=("$(sha256sum "$folder"/target/*/release/ipxe-bridge | cut -d' ' -f1)")
done
# The list of crates, which scanners of images read.
readelf -S "$work"/a/target/*/release/ipxe-bridge | grep -q dep-v0 || { say "FAILED: the program does not tell what it is made of"; exit 1; }
printf '%s\n' "${sums[@]}"
[ "${sums[0]}" = "${sums[1]}" ] || { say "FAILED: two builds, two programs"; exit 1; }
say "two builds, one program"
