#!/usr/bin/env bash
# Runs the commands of the README and of the tour as a newcomer would: in a clean clone of what is committed, in an empty folder.
#
# `make run` is started and waited for, then every other command of a ```console block is run and each line of its printed output
# ('...' stands for anything) must be in the real output, in this order.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '==> %s\n' "$*" >&2; }
command -v curl >/dev/null || { say "the README's commands need curl"; exit 1; }

work=$(mktemp -d)
run=
finish() {
  [ -z "$run" ] || kill -INT -- "-$run" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

git -c safe.directory="$repository" clone -q "$repository" "$work/ipxe-bridge"
cd "$work/ipxe-bridge"
if [ -n "$(git -C "$repository" status --porcelain 2>/dev/null)" ]; then
  say "note: there are changes that are not committed, the clone does not have them"
fi
# The dependencies that are built already are used again; the program itself is built anew.
target=$(cd "$repository" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$target}

say "make run in $PWD"
# With job control it has a process group of its own and hears Ctrl-C, as in a terminal.
set -m
make run >"$work/log" 2>&1 &
run=$!
set +m
for _ in $(seq 1200); do
  grep -q '^Ready' "$work/log" && break
  kill -0 "$run" 2>/dev/null || { cat "$work/log"; say "make run ended"; exit 1; }
  sleep 0.5
done
grep -q '^Ready' "$work/log" || { cat "$work/log"; say "make run was not ready within 10 minutes"; exit 1; }

passed=0 failed=0
check() {
  local shown=$1 expected=$2 real line rest
  real=$(bash -c "$shown" 2>&1 | tr -d '\r') || true
  rest=$real
  while IFS= read -r line; do
    case $line in '' | ...) continue ;; esac
    if [[ $rest != *"$line"* ]]; then
      printf 'FAILED: $ %s\n  not in the output: %s\n  the output:\n%s\n' "$shown" "$line" "$real"
      failed=$((failed + 1))
      return
    fi
    rest=${rest#*"$line"}
  done <<<"$expected"
  printf 'ok: $ %s\n' "$shown"
  passed=$((passed + 1))
}

shown= expected= inside=
while IFS= read -r line; do
  case $line in
    '```console') inside=1 ;;
    '```') [ -z "$shown" ] || check "$shown" "$expected"; shown= expected= inside= ;;
    '$ '*)
      if [ -n "$inside" ]; then
        [ -z "$shown" ] || check "$shown" "$expected"
        shown=${line#\$ } expected=
        # These start a server of their own, need a cluster, or are what runs this script.
        case $shown in curl\ *) ;; *) shown= ;; esac
      fi
      ;;
    *) [ -z "$shown" ] || expected+=$line$'\n' ;;
  esac
done < <(cat README.md docs/tour.md)

say "Ctrl-C"
kill -INT -- "-$run"
for _ in $(seq 100); do
  kill -0 "$run" 2>/dev/null || break
  sleep 0.1
done
if kill -0 "$run" 2>/dev/null || curl -s -o /dev/null http://127.0.0.1:9876/livez || curl -s -o /dev/null http://127.0.0.1:8090/health; then
  say "FAILED: Ctrl-C did not end everything"
  failed=$((failed + 1))
fi
[ "$passed" -ge 5 ] || { say "FAILED: only $passed commands were found in README and tour"; failed=$((failed + 1)); }
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
