#!/usr/bin/env bash
# Take Chaos Mesh off the cluster of cluster-up.sh: `make chaos-mesh-down`. Its images stay in the cache.
set -euo pipefail
export KVSYNC_PROG=chaos-mesh-down
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/lib/common.sh"
# shellcheck source=/dev/null
. "$here/lib/docker.sh"
# shellcheck source=/dev/null
. "$here/lib/airgap.sh"
# shellcheck source=/dev/null
. "$here/lib/cluster.sh"
# shellcheck source=/dev/null
. "$here/lib/chaos_mesh.sh"

[ -f "$CLUSTER_ENV" ] || { say "no cluster is up: nothing to take down"; exit 0; }
set -a
# shellcheck source=/dev/null
. "$CLUSTER_ENV"
set +a
helm=$(KVSYNC_PROG=chaos-mesh-down "$here/lib/tools.sh" helm)

# Experiments first: the controller has to heal them and to take its finalizers off while it still runs.
experiments=$(kube api-resources --api-group=chaos-mesh.org --namespaced -o name 2>/dev/null </dev/null | paste -sd, -)
if [ -n "$experiments" ] && ! kube delete "$experiments" --all --all-namespaces --timeout=60s >/dev/null </dev/null; then
  say "some experiments do not end: forcing their finalizers off"
  kube annotate "$experiments" --all --all-namespaces --overwrite \
    chaos-mesh.chaos-mesh.org/cleanFinalizer=forced >/dev/null </dev/null || true
  kube delete "$experiments" --all --all-namespaces --timeout=60s >/dev/null </dev/null || true
fi
"$helm" uninstall chaos-mesh --namespace "$CHAOS_NAMESPACE" --ignore-not-found --wait --timeout 120s
mapfile -t crds < <(kube get crd -o name </dev/null | grep '\.chaos-mesh\.org$')
[ ${#crds[@]} = 0 ] || kube delete "${crds[@]}" >/dev/null </dev/null
kube delete namespace "$CHAOS_NAMESPACE" --ignore-not-found --timeout=60s </dev/null
say "Chaos Mesh is gone from the cluster"
