#!/usr/bin/env bash
# Deletes the kind cluster of cluster-up.sh: `make cluster-down`. It does not touch the cluster of KUBECONFIG, nor a
# docker daemon that cluster-up.sh did not start. The build results remain in the cache (KVSYNC_CACHE).
#   --keep-docker   keep the docker daemon of cluster-up.sh running
set -euo pipefail
export KVSYNC_PROG=cluster-down
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/lib/common.sh"
# shellcheck source=/dev/null
. "$here/lib/docker.sh"
# shellcheck source=/dev/null
. "$here/lib/cluster.sh"

case ${1:-} in '' | --keep-docker) ;; *) die "unknown argument '$1' (allowed: --keep-docker)" ;; esac
if given_kubeconfig; then
  say "the cluster of KUBECONFIG=$KUBECONFIG was not created by cluster-up and is not deleted"
  rm -f "$CLUSTER_ENV"
  exit 0
fi
if ! have docker || ! docker_answers; then
  say "no docker daemon answers, so there is no cluster to delete"
  rm -f "$CLUSTER_ENV"
  exit 0
fi
end_with_children
take_lock
if cluster_exists; then
  KIND=$(KVSYNC_PROG=cluster-down "$here/lib/tools.sh" kind 9>&-)
  export KIND
  run_step "delete cluster $CLUSTER_NAME" delete_cluster
else
  say "there is no cluster $CLUSTER_NAME"
fi
rm -f "$CLUSTER_ENV"
[ "${1:-}" = --keep-docker ] || stop_our_docker
