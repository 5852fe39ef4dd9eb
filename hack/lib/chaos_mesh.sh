#!/usr/bin/env bash
# Chaos Mesh on the cluster of cluster-up.sh. Sourced after common.sh, docker.sh, airgap.sh and cluster.sh.

CHAOS=$KVSYNC_ROOT/hack/airgap/chaos-mesh
CHAOS_NAMESPACE=chaos-mesh
CHAOS_CHARTS=${KVSYNC_CHAOS_CHARTS:-https://charts.chaos-mesh.org}

kube() { # the node's own kubectl on a cluster of ours, the machine's on a given one
  if [ "$KVSYNC_CLUSTER" = given ]; then kubectl "$@"; else kubectl_here "$@"; fi
}

chaos_mesh_keys() { # sets CHAOS_PROGRAMS and the names of the three images, by the content that they are built from
  # shellcheck source=/dev/null
  . "$KVSYNC_ROOT/hack/lib/go.sh"
  ensure_go
  local programs images
  programs=$(content_key "$(go env GOVERSION GOARCH | tr '\n' ' ')" "$CHAOS_MESH_MODULE" "$CHAOS_MESH_API_MODULE" \
    "$CHAOS"/*.c "$CHAOS/build.sh")
  images=$(content_key "$programs" "$DEBIAN_SUITE" "$CHAOS/images.sh")
  CHAOS_PROGRAMS=$KVSYNC_CACHE/airgap/chaos-mesh-$programs
  CHAOS_CONTROLLER=kvsync-chaos-mesh:$images
  CHAOS_DAEMON=kvsync-chaos-daemon:$images
  CHAOS_PAUSE=kvsync-chaos-pause:$images
}

chaos_mesh_is_cached() { [ -s "$(image_archive "$CHAOS_CONTROLLER")" ] || has_image "$CHAOS_CONTROLLER"; }

build_chaos_mesh() {
  apt_ensure mmdebstrap=mmdebstrap gcc=gcc zstd=zstd
  build_once "$CHAOS_PROGRAMS" run_step "Chaos Mesh's programs (7 min cold, 20 s warm)" try_twice "$CHAOS/build.sh"
  run_step "Chaos Mesh's images (60 s)" "$CHAOS/images.sh" "$CHAOS_PROGRAMS" "$CHAOS_CONTROLLER" "$CHAOS_DAEMON" "$CHAOS_PAUSE"
}

chaos_mesh_chart() { # the chart of the commit that was built, from Go's module cache
  (cd "$(scratch_dir chaos-chart)" && go mod download -json "github.com/chaos-mesh/chaos-mesh@$CHAOS_MESH_MODULE") |
    sed -n 's#.*"Dir": "\(.*\)".*#\1/helm/chaos-mesh#p'
}

load_chaos_images() {
  local archive=$KVSYNC_CACHE/tmp/chaos-images.tar
  docker save -o "$archive" "$CHAOS_CONTROLLER" "$CHAOS_DAEMON" "$CHAOS_PAUSE"
  "$KVSYNC_KIND" load image-archive --name "$KVSYNC_KIND_CLUSTER" "$archive"
  rm -f "$archive"
}

install_built_chart() { # HELM
  "$1" upgrade --install chaos-mesh "$(chaos_mesh_chart)" --namespace "$CHAOS_NAMESPACE" --create-namespace \
    --values "$CHAOS/values.yaml" --set images.registry=docker.io --set "images.tag=${CHAOS_CONTROLLER#*:}" \
    --set "controllerManager.image.repository=library/${CHAOS_CONTROLLER%:*}" \
    --set "chaosDaemon.image.repository=library/${CHAOS_DAEMON%:*}" \
    --set "controllerManager.podChaos.podFailure.pauseImage=docker.io/library/$CHAOS_PAUSE" --wait --timeout 180s
}

install_released_chart() { # HELM
  "$1" upgrade --install chaos-mesh chaos-mesh --repo "$CHAOS_CHARTS" --version "$CHAOS_MESH_VERSION" \
    --namespace "$CHAOS_NAMESPACE" --create-namespace --set controllerManager.enableFilterNamespace=true \
    --set chaosDaemon.runtime=containerd --set chaosDaemon.socketPath=/run/containerd/containerd.sock \
    --set dashboard.create=false --set dnsServer.create=false --wait --timeout 600s
}

patch_chaos_crds() { # see patch_crds.py
  local crds=(networkchaos schedules workflows workflownodes)
  kube get crd -o json "${crds[@]/%/.chaos-mesh.org}" | python3 "$CHAOS/patch_crds.py" | kube replace -f -
}

tidy_cgroups() { # NODE: cgroup v1 hosts leave empty folders where a controller is missing, and StressChaos trips over them
  docker exec "$1" sh -c '
    [ -d /sys/fs/cgroup/memory ] || exit 0 # cgroup v2
    cd /sys/fs/cgroup && mount -o remount,rw /sys/fs/cgroup
    for entry in *; do
      if [ -L "$entry" ] && [ -z "$(ls -A "$entry/" 2>/dev/null)" ]; then rm "$entry"; fi
    done
    for entry in *; do
      if [ ! -L "$entry" ] && ! mountpoint -q "$entry"; then rmdir "$entry" 2>/dev/null || true; fi
    done
    mount -o remount,ro /sys/fs/cgroup'
}

chaos_mesh_accepts() { # the controller is ready before the API server reaches its webhook: a server-side dry run tells
  local tries
  for ((tries = 0; tries < 60; tries++)); do
    if kube create --dry-run=server -f - <<'MANIFEST'
apiVersion: chaos-mesh.org/v1alpha1
kind: PodChaos
metadata: {name: kvsync-probe, namespace: default}
spec: {action: pod-kill, mode: one, selector: {namespaces: [default], labelSelectors: {kvsync.dev/nothing: here}}}
MANIFEST
    then return 0; fi
    sleep 1
  done
  return 1
}
