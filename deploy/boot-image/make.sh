#!/usr/bin/env bash
# Makes what boots a machine into a bridge where DHCP can't be told of it: docs/boot-image.md. Nothing is compiled, unless IPXE_SRC says so.
#
#   BRIDGE=http://192.0.2.1:9876   address of the bridge (required)
#   OUT=target/boot-image          where it goes: ipxe-bridge.iso for a CD or a USB stick, tftp/ for a TFTP server
#   PROGRAMS=/usr/lib/ipxe         iPXE for UEFI, 2022 or newer: older ones start without the script
#   LKRN=…/ipxe.lkrn               iPXE for BIOS [default: that of PROGRAMS]
#   IPXE_SRC=DIR                   also compiles iPXE's source with the script inside, into OUT/embedded
#   TRUST=ca.pem                   with IPXE_SRC: the certificate of the bridge's issuer
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

bridge=${BRIDGE:-}
[[ $bridge =~ ^https?://[]A-Za-z0-9._:~/%[-]+$ ]] || die "BRIDGE is the address of the bridge, such as http://192.0.2.1:9876; it is ${bridge:-missing}"
bridge=${bridge%/}
out=${OUT:-target/boot-image}
programs=${PROGRAMS:-/usr/lib/ipxe}

packages="apt-get install xorriso mtools isolinux pxelinux syslinux-common ipxe"
need() {
  local missing=() program
  for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
  [ ${#missing[@]} = 0 ] || die "${missing[*]} is missing: $packages"
}
# The first of these files that exists.
first() { local file; for file in "$@"; do [ ! -f "$file" ] || { echo "$file"; return; }; done; }
syslinux() {
  local file; file=$(first "/usr/lib/$1" "/usr/lib/syslinux/$1" "/usr/share/syslinux/${1##*/}")
  [ -n "$file" ] || die "${1##*/} of SYSLINUX is missing: $packages"
  echo "$file"
}

embedded() {
  local source=$IPXE_SRC/src
  [ -f "$source/Makefile" ] || die "IPXE_SRC is the folder of iPXE's source, with src/Makefile in it; $IPXE_SRC is not"
  local certificate=() cross
  [ -z "${TRUST:-}" ] || certificate=(TRUST="$(realpath "$TRUST")" CERT="$(realpath "$TRUST")")
  local script; script=$(realpath "$out/boot.ipxe")
  mkdir -p "$out/embedded"
  # Off in BIOS programs, and in versions before 2.0 in all.
  local settings=$source/config/local/general.h
  if [[ $bridge == https:* ]] && ! grep -qs 'define[[:space:]]*DOWNLOAD_PROTO_HTTPS' "$settings"; then
    say "switching HTTPS on in $settings"
    mkdir -p "${settings%/*}"
    echo '#define DOWNLOAD_PROTO_HTTPS' >> "$settings"
  fi
  say "compiling iPXE with the script inside ..."
  local targets=(bin/undionly.kpxe bin/ipxe.lkrn bin-x86_64-efi/snponly.efi bin-x86_64-efi/ipxe.efi)
  make -C "$source" -j"$(nproc)" "${targets[@]}" EMBED="$script" "${certificate[@]}"
  cp "${targets[@]/#/$source/}" "$out/embedded/"
  cross=aarch64-linux-gnu-
  if command -v ${cross}gcc >/dev/null; then
    make -C "$source" -j"$(nproc)" CROSS_COMPILE=$cross bin-arm64-efi/snponly.efi EMBED="$script" "${certificate[@]}"
    cp "$source/bin-arm64-efi/snponly.efi" "$out/embedded/snponly-arm64.efi"
  else
    say "no arm64: ${cross}gcc is missing"
  fi
}

# iPXE looks for the script beside itself since 2022; older ones don't hold its name.
runs_autoexec() { LC_ALL=C grep -qa -e 'autoexec\.ipxe' -e 'a.u.t.o.e.x.e.c.\..i.p.x.e' "$1"; }

uefi() {
  local what=$1 file
  shift
  file=$(first "$@")
  if [ -z "$file" ]; then
    say "no UEFI $what: $programs has no iPXE for it" >&2
  elif ! runs_autoexec "$file"; then
    say "no UEFI $what: $file is older than 2022 and would not run the script; PROGRAMS names a folder with a newer one" >&2
  else
    echo "$file"
  fi
}

need xorriso mformat mcopy mmd
isolinux=$(syslinux ISOLINUX/isolinux.bin)
isohdpfx=$(syslinux ISOLINUX/isohdpfx.bin)
pxelinux=$(syslinux PXELINUX/pxelinux.0)
ldlinux=$(syslinux syslinux/modules/bios/ldlinux.c32)
[[ $bridge != https:* ]] || say "warning: packaged iPXE trusts no issuer of your own, and BIOS programs mostly lack HTTPS; IPXE_SRC and TRUST make ones that do" >&2
mkdir -p "$out"
sed "s|@BRIDGE@|$bridge|g" "$here/../../src/netboot/handover.ipxe" > "$out/boot.ipxe"

lkrn=${LKRN:-$(first "$programs/ipxe.lkrn")}
[ -n "$lkrn" ] || die "no ipxe.lkrn in $programs: PROGRAMS or LKRN names another place; Debian's package ipxe has one"
x64=$(uefi x86_64 "$programs/ipxe.efi" "$programs/ipxe-amd64.efi" "$programs/ipxe-x86_64.efi" "$programs/x86_64/ipxe.efi")
arm64=$(uefi arm64 "$programs/ipxe-arm64.efi" "$programs/arm64-efi/ipxe.efi" "$programs/arm64/ipxe.efi")
x64_network=$(uefi "x86_64 by TFTP" "$programs/snponly.efi" "$programs/ipxe-snponly-x86_64.efi" "$programs/x86_64/snponly.efi" "$programs/ipxe.efi")
# Of the same package as the image's.
arm64_network=${arm64:+$(first "$programs/arm64-efi/snponly.efi" "$programs/arm64/snponly.efi" "$arm64")}

say "the image for a CD or a USB stick ..."
image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
mkdir -p "$image/isolinux"
cp "$isolinux" "$ldlinux" "$image/isolinux/"
cp "$lkrn" "$image/isolinux/ipxe.lkrn"
cp "$out/boot.ipxe" "$image/isolinux/boot.ipxe"
cat > "$image/isolinux/isolinux.cfg" <<'CFG'
DEFAULT bridge
LABEL bridge
  KERNEL ipxe.lkrn
  INITRD boot.ipxe
CFG
uefi_part=()
if [ -n "$x64$arm64" ]; then
  size=$(cat $x64 $arm64 "$out/boot.ipxe" | wc -c)
  mformat -C -i "$image/efi.img" -T $(((size / 512) + 2048)) ::
  mmd -i "$image/efi.img" ::/EFI ::/EFI/BOOT
  [ -z "$x64" ] || mcopy -i "$image/efi.img" "$x64" ::/EFI/BOOT/BOOTX64.EFI
  [ -z "$arm64" ] || mcopy -i "$image/efi.img" "$arm64" ::/EFI/BOOT/BOOTAA64.EFI
  # Of 2022 it looks in the root, later ones beside themselves.
  for place in ::/autoexec.ipxe ::/EFI/BOOT/autoexec.ipxe; do mcopy -i "$image/efi.img" "$out/boot.ipxe" "$place"; done
  uefi_part=(-eltorito-alt-boot -e efi.img -no-emul-boot -isohybrid-gpt-basdat)
fi
xorriso -as mkisofs -quiet -o "$out/ipxe-bridge.iso" -V IPXE_BRIDGE -isohybrid-mbr "$isohdpfx" \
  -c isolinux/boot.cat -b isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table "${uefi_part[@]}" "$image"

say "the folder for a TFTP server ..."
rm -rf "$out/tftp"
mkdir -p "$out/tftp/pxelinux.cfg"
cp "$pxelinux" "$ldlinux" "$out/tftp/"
cp "$lkrn" "$out/tftp/ipxe.lkrn"
cp "$out/boot.ipxe" "$out/tftp/boot.ipxe"
sed 's/KERNEL /KERNEL \//; s/INITRD /INITRD \//' "$image/isolinux/isolinux.cfg" > "$out/tftp/pxelinux.cfg/default"
[ -z "$x64_network" ] || cp "$x64_network" "$out/tftp/snponly.efi"
[ -z "$arm64_network" ] || cp "$arm64_network" "$out/tftp/ipxe-arm64.efi"
[ -z "$x64_network$arm64_network" ] || cp "$out/boot.ipxe" "$out/tftp/autoexec.ipxe"
[ -z "${IPXE_SRC:-}" ] || embedded
say "done: $out/ipxe-bridge.iso (BIOS${x64:+, UEFI x86_64}${arm64:+, UEFI arm64}), $out/tftp (BIOS: pxelinux.0${x64_network:+, UEFI x86_64: snponly.efi}${arm64_network:+, UEFI arm64: ipxe-arm64.efi})"
