#!/usr/bin/env bash
# The quick start: the sample upstream and the bridge on the sample site beside this file. Ctrl-C ends both.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
port=${PORT:-9876}
metrics_port=${METRICS_PORT:-9877}
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

pids=()
stop() {
  trap - EXIT INT TERM
  # A program that already ended is no failure.
  kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap stop EXIT
trap 'stop; exit 0' INT TERM

# In the background the shell makes programs ignore Ctrl-C, so it is passed on as SIGTERM by the trap.
"$target/debug/examples/upstream" --listen 127.0.0.1:8090 &
pids+=($!)
"$target/debug/ipxe-bridge" server --manifests config/samples/site --host 127.0.0.1 --port "$port" --metrics-port "$metrics_port" \
  --uri "http://127.0.0.1:$port" --drain-timeout 2s &
pids+=($!)

url=http://127.0.0.1:$port
for _ in $(seq 100); do
  kill -0 "${pids[@]}" 2>/dev/null || { echo "error: a program ended, its reason is above (is a port in use? PORT=… and METRICS_PORT=… choose others)" >&2; exit 1; }
  if curl -fsS -o /dev/null "$url/readyz" 2>/dev/null; then
    cat <<TXT

Ready. The sample site is config/samples/site: edit a file, it is served within a second. Try, in another terminal:

  $url/                                  pages about the bridge and each host, with lines for your DHCP server
  $url/swagger                           every operation, to try out
  $url/inventory                         environments, hosts, conflicts, what was skipped and why
  $url/ipxe-mac-boot/52:54:00:5a:00:01   the script of a machine that is to be discovered (lab/server-1)
  $url/ipxe-mac-boot/52:54:00:5a:00:03   of one that is being installed and boots its own disk (lab/server-3)
  $url/ipxe-mac-boot/52:54:00:5b:00:02   of one whose environment asks upstream first (edge/gateway-2)
  $url/explain/52:54:00:5b:00:01         why a machine boots what it boots (edge/gateway-1)
  $url/boot-artifacts/kernel/lab/discovery   a kernel, streamed from the sample upstream
  http://127.0.0.1:$metrics_port/metrics                  metrics for Prometheus

Ctrl-C ends it.
TXT
    wait -n || true
    exit 1
  fi
  sleep 0.1
done
echo "error: the bridge did not become ready in 10 seconds" >&2
exit 1
