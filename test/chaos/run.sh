#!/usr/bin/env bash
# Runs the chaos suite: `make test-kv-sync-chaos`. Arguments are passed to `python -m kvsync_testkit.chaos`.
#   CHAOS_BACKEND=auto|local|kubernetes|chaos-mesh   auto (default): a cluster if one is up, otherwise this machine
#   FAULTS=smoke|all|NAME,...                        which faults (default all)
#   KVSYNC_CHAOS_OUT=FOLDER                          where the report is written (default out/chaos)
#   KVSYNC_IMAGE_TAG=TAG                             images kvsync/NAME:TAG on the cluster; by default they are built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'chaos: %s\n' "$*" >&2; }

backend=${CHAOS_BACKEND:-auto}
system=kvsync-chaos-system
out=${KVSYNC_CHAOS_OUT:-out/chaos}

cluster_answers() {
  [ -n "${KUBECONFIG:-}" ] || [ -f out/cluster.env ] || return 1
  .venv/bin/python - <<'PYTHON' 2>/dev/null
from pathlib import Path
from kvsync_testkit.kube import Kube, find_kubeconfig
Kube(find_kubeconfig(Path.cwd())).call("GET", "/readyz", timeout_s=10.0)
PYTHON
}

if [ "$backend" = auto ]; then
  if cluster_answers; then backend=kubernetes; else backend=local; fi
fi
say "backend $backend"

if [ "$backend" = local ] && [ -z "${KVSYNC_CHAOS_NO_MUTANTS:-}" ]; then
  say "planted bugs first: a suite that cannot fail proves nothing"
  .venv/bin/pytest -q -p no:cacheprovider test/chaos
fi

if [ "$backend" != local ]; then
  if [ -f out/cluster.env ]; then
    set -a
    # shellcheck source=/dev/null
    . out/cluster.env
    set +a
  fi
  if [ -z "${KVSYNC_IMAGE_TAG:-}" ]; then
    KVSYNC_IMAGE_TAG=$(hack/test-images.sh)
    export KVSYNC_IMAGE_TAG
  fi
  helm=$(hack/lib/tools.sh helm)
  values=(--set operator.allNamespaces=true --set index.enabled=false --set operator.syncPollSeconds=2)
  for name in operator mockpod indexer; do
    values+=(--set "images.$name.repository=${KVSYNC_IMAGE_PREFIX:-kvsync}/$name" --set "images.$name.tag=$KVSYNC_IMAGE_TAG")
  done
  "$helm" upgrade --install kvsync-crds charts/kvsync-crds -n "$system" --create-namespace --take-ownership --wait \
    --timeout 180s >/dev/null
  "$helm" upgrade --install kvsync charts/kvsync -n "$system" --wait --timeout 180s "${values[@]}" >/dev/null
  say "the operator of images $KVSYNC_IMAGE_TAG is installed in $system"
  cleanup() {
    "$helm" uninstall kvsync -n "$system" --ignore-not-found --wait >/dev/null 2>&1 || true
    "$helm" uninstall kvsync-crds -n "$system" --ignore-not-found --wait >/dev/null 2>&1 || true
  }
  [ -n "${KVSYNC_CHAOS_KEEP:-}" ] || trap cleanup EXIT
fi

.venv/bin/python -m kvsync_testkit.chaos --backend "$backend" --faults "${FAULTS:-all}" --out "$out" "$@"
