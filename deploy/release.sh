#!/usr/bin/env bash
# Prepares a release; docs/releasing.md tells what comes before and after.
#
#   deploy/release.sh 0.2.0          writes the version to every file that states it
#   deploy/release.sh sha256:...     names the operator's image by its digest, once it is pushed: what sites without the Internet need
#
# Nothing is committed. With PREPARE_ONLY set the generated files are left as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
die() { echo "error: $*" >&2; exit 1; }
generate() { [ -n "${PREPARE_ONLY:-}" ] || make generate; }

images=config/manager/kustomization.yaml
csv=config/manifests/bases/ipxe-bridge-operator.clusterserviceversion.yaml
old=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
version=${1:-}

is_written() { grep -q "^## $1 " CHANGELOG.md; }
is_tagged() { git rev-parse --quiet --verify "refs/tags/v$1" >/dev/null; }

if [[ $version =~ ^sha256:[0-9a-f]{64}$ ]]; then
  is_written "$old" || die "CHANGELOG.md has no $old: prepare a version first"
  ! is_tagged "$old" || die "$old is released already, there is a tag v$old: what was published is never changed"
  sed -i -E "s/^  (newTag|digest): .*/  digest: $version/" "$images"
  sed -i -E "s#^( +image: .*/ipxe-bridge)[:@].*#\1@$version#" deploy/server.yaml
  generate
  echo "the image is named by its digest: look at the changes, commit, tag v$old"
  exit
fi

number='(0|[1-9][0-9]{0,8})'
[[ $version =~ ^$number\.$number\.$number$ ]] || die "expected a version such as 0.2.0, or the digest sha256:... of a pushed image"
[ "$(printf '%s\n' "$old" "$version" | sort -V | tail -1)" = "$version" ] || die "$version is older than $old"
! is_tagged "$version" || die "$version is released already: there is a tag v$version"
! is_written "$old" || is_tagged "$old" ||
  die "$old is prepared and has no tag v$old: git fetch --tags if it was released; make generate if it was interrupted; news goes under its heading"
[ "$(grep -c '^## Unreleased$' CHANGELOG.md)" = 1 ] || die "CHANGELOG.md must have one line that is '## Unreleased' and nothing more"
awk '/^## Unreleased$/ {inside = 1; next} /^## / {inside = 0} inside && /^- / {found = 1} END {exit !found}' CHANGELOG.md ||
  die "CHANGELOG.md has nothing under Unreleased: there is nothing to release"

sed -i "s/^version = \"$old\"$/version = \"$version\"/" Cargo.toml
awk -v version="$version" '/^name = "ipxe-bridge"$/ {own = 1} own && /^version = / {$0 = "version = \"" version "\""; own = 0} {print}' Cargo.lock >Cargo.lock.new
mv Cargo.lock.new Cargo.lock
date=$(date -u +%F)
sed -i "s/^## Unreleased$/## Unreleased\n\n## $version - $date/" CHANGELOG.md
sed -i -E "s/^  (newTag|digest): .*/  newTag: $version/" "$images"
sed -i -E "s#^( +image: .*/ipxe-bridge)[:@].*#\1:$version#" deploy/server.yaml
sed -i "s#\(ipxe-bridge/ipxe-bridge:\)$old#\1$version#; s/^ARG VERSION=.*/ARG VERSION=$version/" Containerfile
sed -i "s#\(/ipxe-bridge/raw/v\|--branch v\)$old\b#\1$version#" README.md docs/install.md
sed -i "s/^    createdAt: .*/    createdAt: \"${date}T00:00:00Z\"/" "$csv"
# The one before, if it was published: OLM goes from there, and from everything older, straight to this one.
if is_written "$old" && [ "$old" != "$version" ]; then
  first=$(sed -n 's/^## \([0-9.]*\) .*/\1/p' CHANGELOG.md | tail -1)
  sed -i '/^    olm\.skipRange: /d; /^  replaces: /d' "$csv"
  sed -i "s/^  annotations:$/  annotations:\n    olm.skipRange: \">=$first <$version\"/; s/^spec:$/spec:\n  replaces: ipxe-bridge-operator.v$old/" "$csv"
fi
generate
echo "prepared $version: look at the changes, commit, run make test; the tag v$version is for the commit that has the image's digest"
