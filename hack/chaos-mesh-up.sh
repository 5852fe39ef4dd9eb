#!/usr/bin/env bash
# Chaos Mesh on the cluster of cluster-up.sh: `make chaos-mesh-up`. Run it again at any time.
#   1. Chaos Mesh is there already: only checked.
#   2. container images can be pulled: the released chart.
#   3. neither: its commands built as packages of its Go module (hack/airgap/chaos-mesh/README.md).
#   KVSYNC_CHAOS_MODE=auto|released|airgap|cached   which of 2 and 3 (default auto); `cached` is 3, and exits 3 unless
#                                                   the images are in the cache already
set -euo pipefail
export KVSYNC_PROG=chaos-mesh-up
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

mode=${KVSYNC_CHAOS_MODE:-auto}
case $mode in auto | released | airgap | cached) ;; *) die "KVSYNC_CHAOS_MODE=$mode: must be auto, released, airgap or cached" ;; esac
[ -f "$CLUSTER_ENV" ] || "$here/cluster-up.sh"
set -a
# shellcheck source=/dev/null
. "$CLUSTER_ENV"
set +a
end_with_children
take_lock

if [ "$mode" = auto ]; then
  case $KVSYNC_CLUSTER in airgap) mode=airgap ;; *) mode=released ;; esac
fi
if [ "$mode" = cached ] || [ "$mode" = airgap ]; then
  [ "$KVSYNC_CLUSTER" != given ] || die "images cannot be loaded into a cluster of yours; KVSYNC_CHAOS_MODE=released installs the released chart"
  chaos_mesh_keys
  if [ "$mode" = cached ] && ! chaos_mesh_is_cached; then
    say "the images of Chaos Mesh are not in the cache: make chaos-mesh-up builds them (10 minutes cold)"
    exit 3
  fi
fi

[ "$KVSYNC_CLUSTER" != given ] || have kubectl || die "KUBECONFIG names a cluster of yours, and kubectl is not installed"
if ! kube -n "$CHAOS_NAMESPACE" get deployment chaos-controller-manager >/dev/null 2>&1 </dev/null; then
  helm=$(KVSYNC_PROG=chaos-mesh-up "$here/lib/tools.sh" helm 9>&-)
  if [ "$mode" = released ]; then
    run_step "Chaos Mesh $CHAOS_MESH_VERSION from its chart" install_released_chart "$helm"
  else
    ensure_images build_chaos_mesh "$CHAOS_CONTROLLER" "$CHAOS_DAEMON" "$CHAOS_PAUSE"
    run_step "load the images into the cluster (20 s)" load_chaos_images
    run_step "install the chart (25 s)" install_built_chart "$helm"
    run_step "patch the CRDs" patch_chaos_crds
  fi
fi
if [ "$mode" != released ]; then
  for node in $(docker ps -q --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME"); do
    run_step "tidy the node's cgroups" tidy_cgroups "$node" # again, because a node that was restarted has them back
  done
fi
run_step "Chaos Mesh accepts experiments" chaos_mesh_accepts
say "Chaos Mesh ($mode) is up in namespace $CHAOS_NAMESPACE"
