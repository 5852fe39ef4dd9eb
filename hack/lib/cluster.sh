#!/usr/bin/env bash
# Creates, restarts, checks and deletes the kind cluster. Sourced after common.sh and docker.sh.
# $KIND is the path of kind.

CLUSTER_NAME=${KVSYNC_CLUSTER_NAME:-kvsync}
NODES=${KVSYNC_NODES:-1}
CLUSTER_KUBECONFIG=$KVSYNC_CACHE/clusters/$CLUSTER_NAME.kubeconfig
CLUSTER_MARK=$CLUSTER_KUBECONFIG.complete # exists once the creation of the cluster has completed
CLUSTER_ENV=$KVSYNC_ROOT/out/cluster.env # a cluster with another name has its own file
[ "$CLUSTER_NAME" = kvsync ] || CLUSTER_ENV=$KVSYNC_ROOT/out/cluster-$CLUSTER_NAME.env

given_kubeconfig() { # succeeds if KUBECONFIG is set to another cluster than that of cluster-up.sh
  [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$CLUSTER_KUBECONFIG" ]
}

kubectl_here() { # runs the kubectl of the node, which has the right version and needs no installation
  docker exec -i "$CLUSTER_NAME-control-plane" kubectl --kubeconfig=/etc/kubernetes/admin.conf "$@"
}

check_given_cluster() {
  local answer
  if have kubectl; then
    answer=$(timeout 30 kubectl get --raw /readyz 2>&1) && return 0
  elif [ -x "$KVSYNC_ROOT/.venv/bin/python" ]; then
    answer=$(timeout 30 "$KVSYNC_ROOT/.venv/bin/python" -c 'import kubernetes as k; k.config.load_kube_config(); print(k.client.VersionApi().get_code().git_version)' 2>&1) && return 0
  else
    die "KUBECONFIG is set, but that cluster cannot be checked: install kubectl, or run make setup"
  fi
  die "the cluster of KUBECONFIG=$KUBECONFIG does not answer: $(tail -n 1 <<<"$answer")" \
    "repair it, or unset KUBECONFIG to create a kind cluster"
}

cluster_exists() { [ -n "$(docker ps -aq --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME")" ]; }

cluster_is_healthy() {
  [ -e "$CLUSTER_MARK" ] && [ -s "$CLUSTER_KUBECONFIG" ] && timeout 15 docker exec "$CLUSTER_NAME-control-plane" \
    kubectl --kubeconfig=/etc/kubernetes/admin.conf get --raw /readyz >/dev/null 2>&1 </dev/null
}

revive_cluster() { # starts the nodes of a stopped cluster, for example after a restart of docker
  [ -e "$CLUSTER_MARK" ] || return 1 # its creation was interrupted
  say "cluster $CLUSTER_NAME exists but does not answer: starting its nodes"
  docker ps -aq --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME" | xargs docker start >/dev/null || return 1
  local tries
  for ((tries = 0; tries < 45; tries++)); do
    if timeout 15 docker exec "$CLUSTER_NAME-control-plane" kubectl --kubeconfig=/etc/kubernetes/admin.conf \
      get --raw /readyz >/dev/null 2>&1 </dev/null; then
      mkdir -p "$(dirname "$CLUSTER_KUBECONFIG")"
      "$KIND" export kubeconfig --name "$CLUSTER_NAME" --kubeconfig "$CLUSTER_KUBECONFIG" >/dev/null 2>&1
      return
    fi
    sleep 2
  done
  return 1
}

kind_config() { # NODE_IMAGE: prints the configuration; '' is the default image of kind
  local number
  echo 'kind: Cluster'
  echo 'apiVersion: kind.x-k8s.io/v1alpha4'
  # The built image has its own pod network (cni-lite). The released image has kindnet, which enforces NetworkPolicy.
  case $1 in kvsync-node:*) printf 'networking:\n  disableDefaultCNI: true\n' ;; esac
  cat <<'CONFIG'
nodes:
- role: control-plane
  kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    maxPods: 250
    serializeImagePulls: false
    registryPullQPS: 0
    kubeAPIQPS: 100
    kubeAPIBurst: 200
CONFIG
  for ((number = 1; number < NODES; number++)); do echo '- role: worker'; done
}

create_cluster() { # NODE_IMAGE
  local config
  config=$(scratch_dir kind)/kind.yaml
  kind_config "$1" >"$config"
  mkdir -p "$(dirname "$CLUSTER_KUBECONFIG")"
  "$KIND" create cluster --name "$CLUSTER_NAME" ${1:+--image "$1"} --config "$config" \
    --kubeconfig "$CLUSTER_KUBECONFIG" --wait 180s 9>&-
  touch "$CLUSTER_MARK"
  rm -rf "$(dirname "$config")"
}

delete_cluster() {
  rm -f "$CLUSTER_MARK"
  "$KIND" delete cluster --name "$CLUSTER_NAME" --kubeconfig "$CLUSTER_KUBECONFIG"
  rm -f "$CLUSTER_KUBECONFIG"*
}

route_pods() { # adds a static route from each node to the pods of each other node, as kindnet would
  local table node range address other
  table=$(kubectl_here get nodes -o \
    jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}' </dev/null)
  while read -r node _; do
    while read -r other range address; do
      [ "$node" = "$other" ] || docker exec "$node" ip route replace "$range" via "$address" </dev/null
    done <<<"$table"
  done <<<"$table"
}

wait_for_system_pods() {
  kubectl_here -n kube-system rollout status daemonset/kube-proxy --timeout=120s
  kubectl_here -n kube-system rollout status deployment/coredns --timeout=120s
  local tries # the default service account is created last, and pods are refused without it
  for ((tries = 0; tries < 60; tries++)); do
    kubectl_here -n default get serviceaccount default && return 0
    sleep 1
  done
  return 1
}

write_cluster_env() { # KIND_OF_CLUSTER KUBECONFIG BASE_IMAGE BUILD_IMAGE
  mkdir -p "$(dirname "$CLUSTER_ENV")"
  {
    echo '# Written by hack/cluster-up.sh for scripts and tests: the settings of the cluster'
    printf 'KUBECONFIG=%q\nKVSYNC_CLUSTER=%q\n' "$2" "$1"
    [ "$1" = given ] || printf 'KVSYNC_KIND=%q\nKVSYNC_KIND_CLUSTER=%q\n' "$KIND" "$CLUSTER_NAME"
    [ -z "${POLICY_GAP:-}" ] || printf 'KVSYNC_POLICY_GAP=%q\n' "$POLICY_GAP"
    [ -z "$3" ] || printf 'KVSYNC_BASE_IMAGE=%q\nKVSYNC_BUILD_IMAGE=%q\n' "$3" "$4"
  } >"$CLUSTER_ENV.tmp"
  mv "$CLUSTER_ENV.tmp" "$CLUSTER_ENV"
}
