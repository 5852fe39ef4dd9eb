#!/usr/bin/env bash
# Take the kind cluster of cluster-up.sh away: `make cluster-down`. A cluster given by KUBECONFIG is left alone,
# and so is a docker daemon that we did not start. What was built stays in the cache (KVSYNC_CACHE) for the next time.
#   --keep-docker   leave our dockerd running
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
  say "the cluster of KUBECONFIG=$KUBECONFIG is yours: left alone"
  rm -f "$CLUSTER_ENV"
  exit 0
fi
if ! have docker || ! docker_answers; then
  say "no docker daemon answers: nothing to take down"
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
  say "no cluster $CLUSTER_NAME"
fi
rm -f "$CLUSTER_ENV"
[ "${1:-}" = --keep-docker ] || stop_our_docker
