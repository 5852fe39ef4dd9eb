#!/usr/bin/env bash
# Provides the operator for the chaos suite on a cluster. Sourced from the root of the repository.

CHAOS_SYSTEM=kvsync-chaos-system

chaos_say() { printf 'chaos: %s\n' "$*" >&2; }

use_cluster() { # reads the settings of the cluster, and builds the images unless KVSYNC_IMAGE_TAG names them
  hack/cluster-up.sh
  set -a
  # shellcheck source=/dev/null
  if [ "${KVSYNC_CLUSTER_NAME:-kvsync}" = kvsync ]; then . out/cluster.env; else . "out/cluster-$KVSYNC_CLUSTER_NAME.env"; fi
  set +a
  if [ -z "${KVSYNC_IMAGE_TAG:-}" ]; then
    KVSYNC_IMAGE_TAG=$(hack/test-images.sh)
    export KVSYNC_IMAGE_TAG
  fi
}

install_operator() { # installs the charts, and uninstalls them when the script ends unless KVSYNC_CHAOS_KEEP is set
  local values name
  CHAOS_HELM=$(hack/lib/tools.sh helm)
  values=(--set operator.allNamespaces=true --set index.enabled=false --set operator.syncPollSeconds=2)
  for name in operator mockpod indexer; do
    values+=(--set "images.$name.repository=${KVSYNC_IMAGE_PREFIX:-kvsync}/$name" --set "images.$name.tag=$KVSYNC_IMAGE_TAG")
  done
  "$CHAOS_HELM" upgrade --install kvsync-crds charts/kvsync-crds -n "$CHAOS_SYSTEM" --create-namespace --take-ownership \
    --wait --timeout 180s >/dev/null
  "$CHAOS_HELM" upgrade --install kvsync charts/kvsync -n "$CHAOS_SYSTEM" --wait --timeout 180s "${values[@]}" >/dev/null
  chaos_say "the operator of images $KVSYNC_IMAGE_TAG is installed in $CHAOS_SYSTEM"
  [ -n "${KVSYNC_CHAOS_KEEP:-}" ] || trap uninstall_operator EXIT
}

uninstall_operator() {
  "$CHAOS_HELM" uninstall kvsync -n "$CHAOS_SYSTEM" --ignore-not-found --wait >/dev/null 2>&1 || true
  "$CHAOS_HELM" uninstall kvsync-crds -n "$CHAOS_SYSTEM" --ignore-not-found --wait >/dev/null 2>&1 || true
}
