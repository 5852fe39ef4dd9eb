#!/usr/bin/env bash
# Runs the chaos suite: `make test-kv-sync-chaos`. Arguments are passed to `python -m kvsync_testkit.chaos`.
#   CHAOS_BACKEND=auto|local|kubernetes|chaos-mesh   auto (default): a cluster if one is up, otherwise this machine
#   FAULTS=smoke|all|NAME,...                        which faults (default all)
#   KVSYNC_CHAOS_OUT=FOLDER                          where the report is written (default out/chaos)
#   KVSYNC_IMAGE_TAG=TAG                             images kvsync/NAME:TAG on the cluster; by default they are built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
. test/chaos/operator.sh

backend=${CHAOS_BACKEND:-auto}
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
chaos_say "backend $backend"

if [ "$backend" = local ] && [ -z "${KVSYNC_CHAOS_NO_MUTANTS:-}" ]; then
  chaos_say "planted bugs first: a suite that cannot fail proves nothing"
  .venv/bin/pytest -q -p no:cacheprovider -n "${KVSYNC_CHAOS_WORKERS:-3}" test/chaos
fi

if [ "$backend" != local ]; then
  use_cluster
  install_operator
fi

.venv/bin/python -m kvsync_testkit.chaos --backend "$backend" --faults "${FAULTS:-all}" --out "$out" "$@"
