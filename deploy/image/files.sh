#!/usr/bin/env bash
# Lays out the image's file system: deploy/image/files.sh FOLDER PROGRAM. The program, the libraries it names, CA certificates, Debian's iPXE
# for machines, licences; nothing else.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$1 program=$2
install -D -m 755 "$program" "$folder/usr/bin/ipxe-bridge"

header=$(LC_ALL=C readelf -hld "$program")
case $header in
  *X86-64*) triplet=x86_64-linux-gnu ;;
  *AArch64*) triplet=aarch64-linux-gnu ;;
  *) echo "error: $program is for neither amd64 nor arm64" >&2; exit 1 ;;
esac
# The compiler knows where the libraries of its target are.
compiler=gcc
[ "$(uname -m)-linux-gnu" = "$triplet" ] || compiler=$triplet-gcc
# The loader has its place by name, the others are looked for in the folder of their architecture.
loader=$(sed -n 's/.*interpreter: \(.*\)]$/\1/p' <<<"$header")
install -D -m 755 "$($compiler -print-file-name="$(basename "$loader")")" "$folder$loader"
sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' <<<"$header" | while read -r library; do
  [ "$library" = "$(basename "$loader")" ] || install -D -m 755 "$($compiler -print-file-name="$library")" "$folder/lib/$triplet/$library"
done

install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"

# What `ipxe-bridge netboot` sends to machines, as Debian has built it.
for file in undionly.kpxe snponly.efi ipxe.efi; do
  [ -f "/usr/lib/ipxe/$file" ] || { echo "error: /usr/lib/ipxe/$file is missing: apt-get install ipxe" >&2; exit 1; }
  install -D -m 644 "/usr/lib/ipxe/$file" "$folder/usr/lib/ipxe/$file"
done

install -D -m 644 "$root/LICENSE" "$folder/licenses/LICENSE"
for package in libc6 libgcc-s1 ca-certificates ipxe; do
  install -D -m 644 "/usr/share/doc/$package/copyright" "$folder/licenses/debian/$package"
done
# iPXE's licence (GPL) asks to say where the source of exactly this is.
dpkg-query -W -f 'iPXE in /usr/lib/ipxe is that of the Debian package ${Package} ${Version}.\nIts source: https://snapshot.debian.org/package/${source:Package}/${source:Version}/\n' \
  ipxe > "$folder/licenses/debian/ipxe.source"
cd "$root"
# Some crates come without the text of their licence: the list says which it is.
mkdir -p "$folder/licenses/crates"
cargo tree --locked --edges normal,build --target "${triplet%%-*}-unknown-linux-gnu" --prefix none --format '{p}: {l}' | grep -v '^ipxe-bridge ' |
  sed 's/ (\*)$//; s/ (proc-macro)//' | LC_ALL=C sort -u > "$folder/licenses/crates/list"
cargo metadata --locked --format-version 1 --filter-platform "${triplet%%-*}-unknown-linux-gnu" | grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4 | while read -r manifest; do
  crate=$(dirname "$manifest")
  for text in "$crate"/{LICENSE,LICENCE,COPYING,NOTICE,UNLICENSE,COPYRIGHT}*; do
    [ ! -f "$text" ] || [ "$crate" = "$root" ] || install -D -m 644 "$text" "$folder/licenses/crates/$(basename "$crate")/$(basename "$text")"
  done
done
