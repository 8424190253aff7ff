#!/usr/bin/env bash
# Builds or finds the programs that the tests run against, once per version, in a cache outside the tree, and prints the folder that holds them.
#
#   tests/tools/install.sh control-plane   etcd, kube-apiserver, kube-controller-manager, kubectl
#   tests/tools/install.sh netboot         DHCP servers and a relay of others (dhcpd, Kea, dhcrelay), TFTP's clients and server, Debian trixie's iPXE; dnsmasq from packages
#   tests/tools/install.sh olm             opm, catalog and olm (OLM v0), verify, kustomize, scorecard-test, and in crds the neighbours' definitions
#   tests/tools/install.sh olm-v1          operator-controller and catalogd (OLM v1) with their definitions, and a registry for images
#   tests/tools/install.sh bench           matchbox; nginx and wrk from packages (Debian); what cannot be had is left out, loudly
#   tests/tools/install.sh collector       an OpenTelemetry Collector
#   tests/tools/install.sh boot            vmlinuz and initrd.img of a small Linux guest; QEMU, its firmware and iPXE from packages (Debian)
#   tests/tools/install.sh image           buildah and skopeo, from packages (Debian)
#   tests/tools/install.sh bases           what makes base images of Debian and runs those for arm64: debootstrap, QEMU, from packages (Debian)
#   tests/tools/install.sh browser         drive.mjs with axe and puppeteer-core; Chromium and Node.js from packages (Debian)
#   tests/tools/install.sh prometheus      prometheus and promtool (Debian)
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

# Without the marker an earlier build was interrupted, and what it left may be half a program.
unfinished() {
  [ -e "$1/complete" ] || rm -rf "$1"
}

# build MODULE OUT FLAGS [PROGRAM=]PACKAGE...: Go programs of a module beside this file.
build() {
  local module=$1 out=$2 flags=$3 package program
  shift 3
  for package in "$@"; do
    program=${package##*/}
    [ "$package" = "${package#*=}" ] || { program=${package%%=*}; package=${package#*=}; }
    # A complete folder of an older checkout may lack a program that was added since: it appears under its name when it is whole.
    [ ! -e "$out/$program" ] || continue
    command -v go >/dev/null || die "Go is needed to build $program: install it, or for the control plane set KUBEBUILDER_ASSETS"
    mkdir -p "$out"
    say "building $program (the control plane takes about 10 minutes on two cores, the programs around OLM 5, the collector 3, once) ..."
    (cd "$here/$module" && CGO_ENABLED=0 go build -mod=readonly -trimpath -tags containers_image_openpgp -ldflags "$flags" -o "$out/$program.part" "$package") >&2
    mv "$out/$program.part" "$out/$program"
  done
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
  local minor=${version#v1.}
  local flags="-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
  unfinished "$out"
  build control-plane "$out" "$flags" etcd=go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/{kube-apiserver,kubectl,kube-controller-manager}
  touch "$out/complete"
  # Pods of the tests have network namespaces of their own.
  if ! command -v ip >/dev/null && command -v apt-get >/dev/null; then
    say "installing iproute2 ..."
    apt_get update
    apt_get install -y --no-install-recommends iproute2
  fi
  echo "$out"
}

# Definitions of neighbours' kinds, each as its project publishes it inside a Go module: the module's path, then the file's.
definitions=(
  "github.com/argoproj/argo-cd/v3 manifests/crds/application-crd.yaml"
  "github.com/fluxcd/kustomize-controller config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml"
  "github.com/fluxcd/source-controller config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml"
  "github.com/openshift/api config/v1/zz_generated.crd-manifests/0000_10_config-operator_01_imagedigestmirrorsets.crd.yaml"
  "github.com/openshift/api config/v1/zz_generated.crd-manifests/0000_10_config-operator_01_imagetagmirrorsets.crd.yaml"
  "github.com/openshift/api security/v1/zz_generated.crd-manifests/0000_03_config-operator_01_securitycontextconstraints.crd.yaml"
  "github.com/operator-framework/operator-controller helm/olmv1/base/operator-controller/crd/standard/olm.operatorframework.io_clusterextensions.yaml"
  "github.com/operator-framework/operator-controller helm/olmv1/base/catalogd/crd/standard/olm.operatorframework.io_clustercatalogs.yaml"
  "github.com/operator-framework/operator-lifecycle-manager deploy/chart/crds/*.yaml"
  "github.com/prometheus-operator/prometheus-operator example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
  "github.com/prometheus-operator/prometheus-operator example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
  "github.com/prometheus-operator/prometheus-operator example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"
)

# Copies the definitions, each into the folder of its project.
definitions() {
  local out=$1 line module version folder
  for line in "${definitions[@]}"; do
    module=${line%% *}
    version=$(awk -v module="$module" '$1 == module {print $2}' "$here/neighbours/go.mod")
    folder=$(cd "$here/neighbours" && go mod download -json "$module@$version" | awk -F '"' '$2 == "Dir" {print $4}')
    [ -n "$folder" ] || die "$module $version cannot be downloaded"
    mkdir -p "$out/$(basename "${module%/v[0-9]}")"
    # Unquoted: the file may be a pattern.
    cp "$folder"/${line#* } "$out/$(basename "${module%/v[0-9]}")/"
  done
  chmod -R u+w "$out"
}

olm() {
  local key out
  key=$(cat "$here/olm/"go.* "$here/olm/verify/"* "$here/scorecard/"go.* "$here/neighbours/"go.* - <<<"${definitions[*]}" | sha256sum | cut -c1-12)
  out="$cache/olm-$key"
  lock olm
  unfinished "$out"
  build olm "$out" "-s -w" github.com/operator-framework/{operator-registry/cmd/opm,operator-lifecycle-manager/cmd/{catalog,olm}} \
    ./verify kustomize=sigs.k8s.io/kustomize/kustomize/v5
  build scorecard "$out" "-s -w" github.com/operator-framework/operator-sdk/images/scorecard-test
  [ -e "$out/complete" ] || definitions "$out/crds"
  touch "$out/complete"
  echo "$out"
}

olm_v1() {
  local key out folder project=github.com/operator-framework/operator-controller
  key=$(cat "$here/olm-v1/"go.* | sha256sum | cut -c1-12)
  out="$cache/olm-v1-$key"
  lock olm-v1
  unfinished "$out"
  build olm-v1 "$out" "-s -w" $project/cmd/{operator-controller,catalogd} github.com/google/go-containerregistry/cmd/registry
  if [ ! -e "$out/complete" ]; then
    folder=$(cd "$here/olm-v1" && go list -m -f '{{.Dir}}' $project)/config/base
    mkdir -p "$out/crds"
    cp "$folder"/{catalogd,operator-controller}/crd/standard/olm.*.yaml "$out/crds/"
    cp "$folder/catalogd/webhook/standard/manifests.yaml" "$out/webhook.yaml"
    chmod -R u+w "$out"
    touch "$out/complete"
  fi
  echo "$out"
}

collector() {
  local key out
  key=$(cat "$here/collector/"* | sha256sum | cut -c1-12)
  out="$cache/collector-$key"
  lock collector
  unfinished "$out"
  build collector "$out" "-s -w" collector=.
  touch "$out/complete"
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

image() {
  lock image
  if ! command -v buildah >/dev/null || ! command -v skopeo >/dev/null; then
    command -v apt-get >/dev/null || die "the tests of the images need buildah and skopeo: install them"
    say "installing buildah and skopeo (30 MB, once) ..."
    apt_get update
    apt_get install -y --no-install-recommends buildah skopeo
  fi
  if [ ! -f /usr/lib/ipxe/snponly.efi ]; then
    command -v apt-get >/dev/null || die "the image holds Debian's iPXE: install the package ipxe"
    apt_get update
    apt_get install -y --no-install-recommends ipxe
  fi
  dirname "$(command -v buildah)"
}

bases() {
  lock bases
  if ! command -v debootstrap >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    command -v apt-get >/dev/null || die "base images are made by debootstrap, of Debian packages: no apt-get here"
    say "installing debootstrap and qemu-user-static (50 MB, once) ..."
    apt_get update
    apt_get install -y --no-install-recommends debootstrap qemu-user-static
  fi
  dirname "$(command -v debootstrap)"
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
    "$(apt-get indextargets --format '$(SITE)' | grep -m 1 'debian$' || die "no package source of Debian here")" > "$apt/sources/trixie.sources"
  local private=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/sources" -o Dir::State::Lists="$apt/lists"
    -o Dir::Cache="$apt" -o Dir::State::Status=/dev/null -o APT::Sandbox::User=root)
  apt_get "${private[@]}" update
  (cd "$apt" && apt_get "${private[@]}" download ipxe ipxe-qemu)
  mkdir -p "$out"
  local archive
  for archive in "$apt"/*.deb; do dpkg -x "$archive" "$out"; done
  rm -r "$apt"
}

browser() {
  lock browser
  local program package missing=() key out
  for program in chromium node npm; do
    case $program in node) package=nodejs ;; *) package=$program ;; esac
    command -v "$program" >/dev/null || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "the tests of the pages need ${missing[*]}: install them"
    say "installing ${missing[*]} (Chromium: 100 MB, once) ..."
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
  fi
  key=$(cat "$here/browser/"* "$here/browser/.npmrc" | sha256sum | cut -c1-12)
  out="$cache/browser-$key"
  unfinished "$out"
  if [ ! -e "$out/complete" ]; then
    say "downloading axe and puppeteer-core (60 MB, once) ..."
    mkdir -p "$out"
    cp "$here/browser/"* "$here/browser/.npmrc" "$out/"
    (cd "$out" && npm ci --silent) >&2
    touch "$out/complete"
  fi
  echo "$out"
}

prometheus() {
  command -v apt-get >/dev/null || die "prometheus and promtool are taken from a Debian package: no apt-get here"
  lock prometheus
  local out="$cache/prometheus-1"
  unfinished "$out"
  if [ ! -e "$out/complete" ]; then
    say "downloading prometheus (30 MB, once) ..."
    apt_get update || say "could not refresh the package lists, going on with what is there"
    mkdir -p "$out"
    # Its programs need nothing of what the package depends on, and an installed one would be started.
    (cd "$out" && apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg -x ./*.deb . && rm ./*.deb) >&2
    touch "$out/complete"
  fi
  echo "$out/usr/bin"
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
  key=2
  out="$cache/netboot-$key"
  if [ ! -e "$out/complete" ]; then
    say "downloading dhcpd, a relay, Kea, tftpd and the next Debian's iPXE (20 MB, once) ..."
    rm -rf "$out"
    apt_get update || say "could not refresh the package lists, going on with what is there"
    unpacked "$out/servers" isc-dhcp-server isc-dhcp-relay kea-dhcp4-server tftpd-hpa
    next_ipxe "$out/trixie"
    touch "$out/complete"
  fi
  echo "$out"
}

# The peers of the benchmark. Without one of them the others are still worth measuring.
bench() {
  local program version key out missing=()
  lock bench
  for program in nginx wrk; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$program")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]} (5 MB, once) ..."
    if ! { command -v apt-get >/dev/null && apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; }; then
      say "SKIPPED: no ${missing[*]}: what is measured with them will be missing (they are taken from Debian packages)"
    elif [ -d /run/systemd/system ] && [[ " ${missing[*]} " == *" nginx "* ]]; then
      # The package starts a service that nobody asked for here.
      as_root systemctl disable --now nginx >&2 || say "the service nginx that the package started could not be stopped"
    fi
  fi
  version=$(awk '$1 == "github.com/poseidon/matchbox" {print $2; exit}' "$here/matchbox/go.mod")
  key=$(cat "$here/matchbox/go.mod" "$here/matchbox/go.sum" | sha256sum | cut -c1-12)
  out="$cache/bench-$version-$key"
  mkdir -p "$out"
  if [ ! -e "$out/matchbox" ]; then
    if ! command -v go >/dev/null; then
      say "SKIPPED: no matchbox: Go is needed to build it"
    else
      say "building matchbox $version (about a minute, once) ..."
      if (cd "$here/matchbox" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w" -o "$out/matchbox.part" github.com/poseidon/matchbox/cmd/matchbox) >&2; then
        mv "$out/matchbox.part" "$out/matchbox"
      else
        say "SKIPPED: matchbox could not be built"
      fi
    fi
  fi
  echo "$out"
}

case "${1:-}" in
  netboot) netboot ;;
  control-plane) control_plane ;;
  olm) olm ;;
  olm-v1) olm_v1 ;;
  collector) collector ;;
  boot) boot ;;
  image) image ;;
  bases) bases ;;
  browser) browser ;;
  prometheus) prometheus ;;
  bench) bench ;;
  *) say "usage: $0 control-plane|olm|olm-v1|collector|boot|netboot|image|bases|browser|prometheus|bench"; exit 2 ;;
esac
