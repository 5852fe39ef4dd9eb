#!/usr/bin/env bash
# Enforces NetworkPolicy on the air-gapped cluster. Sourced after common.sh, docker.sh, airgap.sh and cluster.sh.

POLICIES=$AIRGAP/network-policies
POLICY_QUEUE=98
POLICY_GAP= # why NetworkPolicy is not enforced; empty if it is

enforce_policies() { # installs the agent, or sets POLICY_GAP
  # shellcheck source=/dev/null
  . "$KVSYNC_ROOT/hack/lib/go.sh"
  ensure_go
  local key
  key=$(content_key "$(go env GOVERSION GOARCH | tr '\n' ' ')" "$NETWORK_POLICIES_VERSION" "$POLICIES/build.sh")
  POLICY_PROGRAM=$KVSYNC_CACHE/airgap/network-policies-$key
  POLICY_IMAGE=kvsync-network-policies:$key
  if ! run_step "hand new connections to the policy agent" queue_connections; then
    POLICY_GAP="the kernel cannot queue connections for an agent: it needs xt_NFQUEUE, xt_owner and nfnetlink_queue"
    say "NetworkPolicy is not enforced: $POLICY_GAP"
    return 0
  fi
  if agent_runs; then return 0; fi
  build_once "$POLICY_PROGRAM" run_step "build the policy agent (2 min, or 5 s with a warm cache)" try_twice "$POLICIES/build.sh"
  run_step "install the policy agent" install_agent
}

queue_connections() {
  local node
  for node in $(docker ps -q --filter "label=io.x-k8s.kind.cluster=$CLUSTER_NAME"); do
    docker exec -i "$node" sh -s "$POLICY_QUEUE" <"$POLICIES/rules.sh" || return 1
  done
}

agent_runs() {
  [ "$(kubectl_here -n kube-system get daemonset kube-network-policies -o \
    'jsonpath={.spec.template.spec.containers[0].image} {.status.numberReady}' 2>/dev/null </dev/null)" = \
    "docker.io/library/$POLICY_IMAGE $NODES" ]
}

install_agent() {
  local archive=$KVSYNC_CACHE/tmp/network-policies.tar
  has_image "$POLICY_IMAGE" || tar -C "$POLICY_PROGRAM" --transform 's,^,bin/,' -c netpol | docker import - "$POLICY_IMAGE"
  docker save -o "$archive" "$POLICY_IMAGE"
  "$KIND" load image-archive --name "$CLUSTER_NAME" "$archive"
  rm -f "$archive"
  # The agent's own rules need nft_queue; where the kernel lacks it, the agent says so once, and rules.sh takes its place.
  sed -e "s#image: .*#image: docker.io/library/$POLICY_IMAGE#" -e 's#--v=2#--v=0#' \
    -e "s#--nfqueue-id=[0-9]*#--nfqueue-id=$POLICY_QUEUE#" "$POLICY_PROGRAM/install.yaml" | kubectl_here apply -f -
  kubectl_here -n kube-system rollout status daemonset/kube-network-policies --timeout=120s </dev/null
}
