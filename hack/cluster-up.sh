#!/usr/bin/env bash
# Provides a Kubernetes cluster for development and tests: `make cluster-up`. It can be run again at any time and builds
# only what is missing.
#   1. If KUBECONFIG is set, that cluster is checked and used.
#   2. Otherwise, if container images can be pulled, kind creates a cluster from its released node image.
#   3. Otherwise kind creates a cluster from a node image that is built from package registries (hack/airgap/README.md).
# The settings of the cluster are written to out/cluster.env, which the other scripts read.
#
#   KVSYNC_CLUSTER_MODE=auto|released|airgap   automatic choice between 2 and 3, or one of them (default: auto)
#   KVSYNC_CLUSTER_NAME=kvsync                 name of the kind cluster
#   KVSYNC_NODES=1                             number of nodes: one control plane node, the others are workers
#   KVSYNC_CACHE=~/.cache/kvsync               folder of what is kept between runs
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
# shellcheck source=/dev/null
. "$here/lib/network_policies.sh"

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
    elif run_step "check whether images can be pulled" can_pull_images 2>/dev/null; then
      mode=released
    else
      say "images cannot be pulled, so the cluster is built from package registries"
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
  node_image=${KVSYNC_KIND_IMAGE:-} # empty selects the default image of kind, by digest
  BASE_IMAGE=python:3.11-slim-bookworm BUILD_IMAGE=python:3.11-bookworm
fi

if ! cluster_is_healthy; then
  if cluster_exists; then revive_cluster || run_step "delete the broken cluster" delete_cluster; fi
  cluster_exists || run_step "create cluster $CLUSTER_NAME ($NODES node)" create_cluster "$node_image"
  [ "$mode" != airgap ] || [ "$NODES" = 1 ] || run_step "add routes between nodes" route_pods
  run_step "wait for the system pods" wait_for_system_pods
fi
[ "$mode" != airgap ] || enforce_policies
write_cluster_env "$mode" "$CLUSTER_KUBECONFIG" "$BASE_IMAGE" "$BUILD_IMAGE"
say "cluster $CLUSTER_NAME ($mode) is ready: export KUBECONFIG=$CLUSTER_KUBECONFIG"
