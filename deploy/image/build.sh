#!/usr/bin/env bash
# Builds the released program: deploy/image/build.sh [TARGET]. The same source and the same compiler give the same bytes, wherever it is built. The
# program tells what it is made of: cargo-auditable puts the list of all crates into it (rust-audit-info and scanners of images read it).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
# Paths of this machine would be part of messages of panics.
export RUSTFLAGS="--remap-path-prefix=$root=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export CFLAGS="-ffile-prefix-map=$root=/src -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo"
# mimalloc says when it was compiled, which is this time to a C compiler (reproducible-builds.org/specs/source-date-epoch).
export SOURCE_DATE_EPOCH=0 CARGO_INCREMENTAL=0
# Another architecture has a linker of its own.
architecture=${target%%-*}
[ "$architecture" = "$(uname -m)" ] || export "CARGO_TARGET_${architecture^^}_UNKNOWN_LINUX_GNU_LINKER=$architecture-linux-gnu-gcc"
cargo auditable build --locked --release --target "$target" --bin ipxe-bridge
