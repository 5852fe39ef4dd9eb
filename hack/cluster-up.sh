#!/usr/bin/env bash
# A Kubernetes cluster to develop and test on: `make cluster-up`. Run it again at any time; it builds what is missing.
#   1. KUBECONFIG set to a cluster of yours: checked and used as it is.
#   2. container images can be pulled: kind with its released node image.
#   3. neither: kind with a node image built from package registries (hack/airgap/README.md).
# The outcome is written to out/cluster.env (KUBECONFIG and more), which the other scripts read.
#
#   KVSYNC_CLUSTER_MODE=auto|released|airgap   which of 2 and 3 (default: auto)
#   KVSYNC_CLUSTER_NAME=kvsync                 the kind cluster's name
#   KVSYNC_NODES=1                             nodes: one control plane, the rest workers
#   KVSYNC_CACHE=~/.cache/kvsync               what is kept between runs
set -euo pipefail
export KVSYNC_PROG=cluster-up
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/lib/common.sh"
# shellcheck source=/dev/null
. "$here/lib/docker.sh"
# shellcheck source=/dev/null
. "$here/lib/airgap.sh"
# shellcheck source=/dev/null
. "$here/lib/cluster.sh"

mode=${KVSYNC_CLUSTER_MODE:-auto}
case $mode in auto | released | airgap) ;; *) die "KVSYNC_CLUSTER_MODE=$mode: must be auto, released or airgap" ;; esac
case $NODES in [1-9]) ;; *) die "KVSYNC_NODES=$NODES: must be 1 to 9" ;; esac

if given_kubeconfig; then
  check_given_cluster
  write_cluster_env given "$KUBECONFIG" '' ''
  say "using the cluster of KUBECONFIG=$KUBECONFIG"
  exit 0
fi

end_with_children
take_lock
ensure_docker
KIND=$(KVSYNC_PROG=cluster-up "$here/lib/tools.sh" kind 9>&-)
export KIND
case $mode in
  auto)
    airgap_keys
    if airgap_is_cached; then
      mode=airgap
    elif run_step "can images be pulled here?" can_pull_images 2>/dev/null; then
      mode=released
    else
      say "no images can be pulled here: the cluster is built from package registries"
      mode=airgap
    fi
    ;;
  airgap) airgap_keys ;;
esac

if [ "$mode" = airgap ]; then
  airgap_images
  # shellcheck disable=SC2153  # set by airgap_keys
  node_image=$NODE_IMAGE
else
  node_image=${KVSYNC_KIND_IMAGE:-} # kind's own default, by digest
  BASE_IMAGE=python:3.11-slim-bookworm BUILD_IMAGE=python:3.11-bookworm
fi

if ! cluster_is_healthy; then
  if cluster_exists; then revive_cluster || run_step "delete the broken cluster" delete_cluster; fi
  cluster_exists || run_step "create cluster $CLUSTER_NAME ($NODES node)" create_cluster "$node_image"
  [ "$mode" != airgap ] || [ "$NODES" = 1 ] || run_step "routes between nodes" route_pods
  run_step "wait for the cluster's own pods" wait_for_system_pods
fi
write_cluster_env "$mode" "$CLUSTER_KUBECONFIG" "$BASE_IMAGE" "$BUILD_IMAGE"
say "cluster $CLUSTER_NAME ($mode) is up: export KUBECONFIG=$CLUSTER_KUBECONFIG"
