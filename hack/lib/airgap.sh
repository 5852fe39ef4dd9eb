#!/usr/bin/env bash
# Builds the parts of the air-gapped cluster. Each part is built once and cached under a key of what it is built from.
# Sourced after common.sh and docker.sh.

AIRGAP=$KVSYNC_ROOT/hack/airgap

airgap_keys() { # sets the name of every part, which changes with what the part is built from
  # shellcheck source=/dev/null
  . "$KVSYNC_ROOT/hack/lib/go.sh"
  ensure_go
  local toolchain
  toolchain=$(go env GOVERSION GOARCH | tr '\n' ' ')
  KUBERNETES_DIR=$KVSYNC_CACHE/airgap/kubernetes-$(content_key "$toolchain" "$KUBERNETES_VERSION" "$AIRGAP/build-kubernetes.sh")
  NODE_TOOLS_DIR=$KVSYNC_CACHE/airgap/node-tools-$(content_key "$toolchain" "$ETCD_VERSION" "$COREDNS_VERSION" \
    "$AIRGAP/build-node-tools.sh" "$AIRGAP/coredns/main.go" "$AIRGAP/node/pause.c")
  ROOTFS_DIR=$KVSYNC_CACHE/airgap/rootfs-$(content_key "$KIND_VERSION" "$DEBIAN_SUITE" "$PAUSE_VERSION" "$(uname -m)" \
    "$AIRGAP/rootfs.sh" "$AIRGAP/node/cni-lite" "$AIRGAP/node/cni-lite.service" "$AIRGAP/node/crictl" "$AIRGAP/node/finish.sh")
  local node base
  node=$(content_key "${KUBERNETES_DIR##*/}" "${NODE_TOOLS_DIR##*/}" "${ROOTFS_DIR##*/}" "$AIRGAP/node-image.sh")
  base=$(content_key "$DEBIAN_SUITE" "$(uname -m)" "$AIRGAP/base-image.sh" /etc/ssl/certs/ca-certificates.crt)
  NODE_IMAGE=kvsync-node:v$KUBERNETES_VERSION-$node
  BASE_IMAGE=kvsync-python:3.11-$base
  BUILD_IMAGE=kvsync-python-build:3.11-$base
}

airgap_is_cached() { [ -s "$(image_archive "$NODE_IMAGE")" ] || has_image "$NODE_IMAGE"; }

image_archive() { # IMAGE...: prints the path of the archive of the images, which is named after the first
  printf '%s/airgap/%s.tar.zst\n' "$KVSYNC_CACHE" "${1//:/-}"
}

save_images() { # ARCHIVE IMAGE...
  local archive=$1
  shift
  mkdir -p "$(dirname "$archive")"
  docker save "$@" | zstd -q -T0 -3 -f -o "$archive.tmp"
  mv "$archive.tmp" "$archive"
}

load_images() { # ARCHIVE
  zstd -dc "$1" | docker load -q
}

ensure_images() { # BUILDER IMAGE...: loads the images into docker from the archive, or builds and archives them
  local builder=$1 image missing=0 archive
  shift
  for image in "$@"; do has_image "$image" || missing=1; done
  archive=$(image_archive "$1")
  if [ "$missing" = 0 ]; then
    [ -s "$archive" ] || run_step "archive ${1%%:*}" save_images "$archive" "$@"
    return 0
  fi
  if [ -s "$archive" ]; then
    run_step "load ${1%%:*} from the cache" load_images "$archive" && return 0
    rm -f "$archive" # the archive is damaged, so the images are built again
  fi
  "$builder"
  run_step "archive ${1%%:*}" save_images "$archive" "$@"
}

build_node_image() {
  apt_ensure mmdebstrap=mmdebstrap gcc=gcc jq=jq zstd=zstd
  [ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib/aarch64-linux-gnu/libc.a ] || ! is_root ||
    run_step "apt: libc6-dev" apt_install libc6-dev
  local rootfs=0
  if [ ! -e "$ROOTFS_DIR" ]; then # it mainly needs the network, so it runs beside the compiler
    build_once "$ROOTFS_DIR" run_step "build the node file system (75 s)" try_twice "$AIRGAP/rootfs.sh" 9>&- &
    rootfs=$!
  fi
  build_once "$KUBERNETES_DIR" run_step "build Kubernetes v$KUBERNETES_VERSION (10 min, or 20 s with a warm cache)" try_twice "$AIRGAP/build-kubernetes.sh"
  build_once "$NODE_TOOLS_DIR" run_step "build etcd, CoreDNS and pause (2 min, or 5 s with a warm cache)" try_twice "$AIRGAP/build-node-tools.sh"
  [ "$rootfs" = 0 ] || wait "$rootfs"
  run_step "build the node image (30 s)" "$AIRGAP/node-image.sh" "$NODE_IMAGE" "$KUBERNETES_DIR" "$NODE_TOOLS_DIR" "$ROOTFS_DIR"
}

build_base_images() {
  apt_ensure mmdebstrap=mmdebstrap zstd=zstd
  run_step "build the base images (40 s)" try_twice "$AIRGAP/base-image.sh" "$BASE_IMAGE" "$BUILD_IMAGE"
}

airgap_images() { # provides the node image and the base images
  apt_ensure zstd=zstd
  ensure_images build_node_image "$NODE_IMAGE"
  ensure_images build_base_images "$BASE_IMAGE" "$BUILD_IMAGE"
}
