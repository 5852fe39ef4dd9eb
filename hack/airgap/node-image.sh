#!/usr/bin/env bash
# Builds the node image of kind, which contains the images of the Kubernetes components.
# usage: node-image.sh IMAGE KUBERNETES_DIR NODE_TOOLS_DIR ROOTFS_DIR     Takes about 30 s and 1 GB; needs dockerd.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
image=$1 kubernetes=$(cd "$2" && pwd) tools=$(cd "$3" && pwd) rootfs=$(cd "$4" && pwd)
work=$(scratch_dir node-image)
builder=kvsync-node-builder-$$
trap 'docker rm -f "$builder" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
registry=registry.k8s.io # only a name, by which kubeadm requests the images from containerd; nothing is pulled
components=()

import_binary() { # IMAGE BINARY PATH: makes an image with one static binary
  local tree=$work/tree
  rm -rf "$tree"
  mkdir -p "$tree$(dirname "$3")" "$tree/tmp" "$tree/etc"
  chmod 1777 "$tree/tmp"
  cp "$2" "$tree$3"
  echo 'root:x:0:0:root:/root:/sbin/nologin' >"$tree/etc/passwd"
  tar -C "$tree" -c . |
    docker import -c "ENTRYPOINT [\"$3\"]" -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$1" >/dev/null
  components+=("$1")
}

import_proxy() { # IMAGE: makes an image with kube-proxy and the network tools of Debian
  local tree=$work/proxy program
  mkdir "$tree"
  tar -C "$tree" -xf "$rootfs/proxy.tar"
  mkdir -p "$tree/usr/local/bin"
  cp "$kubernetes/kube-proxy" "$tree/usr/local/bin/"
  for program in iptables ip6tables iptables-save iptables-restore ip6tables-save ip6tables-restore; do
    ln -sf xtables-nft-multi "$tree/usr/sbin/$program"
  done
  tar -C "$tree" -c . | docker import -c 'ENTRYPOINT ["/usr/local/bin/kube-proxy"]' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$1" >/dev/null
  components+=("$1")
}

for name in kube-apiserver kube-controller-manager kube-scheduler; do
  import_binary "$registry/$name:v$KUBERNETES_VERSION" "$kubernetes/$name" "/usr/local/bin/$name"
done
import_binary "$registry/etcd:${ETCD_VERSION#v}-0" "$tools/etcd" /usr/local/bin/etcd
import_binary "$registry/coredns/coredns:$COREDNS_VERSION" "$tools/coredns" /coredns
import_binary "$registry/pause:$PAUSE_VERSION" "$tools/pause" /pause
import_proxy "$registry/kube-proxy:v$KUBERNETES_VERSION"
docker save -o "$work/all.tar" "${components[@]}"

docker import -c 'ENV container=docker' "$rootfs/node.tar" kvsync-node-base:build >/dev/null
docker run -d --name "$builder" --privileged --cgroupns=private -v "$work:/in:ro" -v "$kubernetes:/bins:ro" \
  kvsync-node-base:build sleep infinity >/dev/null
docker exec -e VERSION="$KUBERNETES_VERSION" "$builder" sh -euc '
  install -m755 /bins/kubelet /bins/kubeadm /bins/kubectl /usr/bin/
  echo "v$VERSION" > /kind/version
  mkdir -p /tmp /run
  containerd >/tmp/containerd.log 2>&1 &
  daemon=$!
  tries=0
  until ctr version >/dev/null 2>&1; do
    tries=$((tries + 1)); [ "$tries" -lt 150 ] || { tail /tmp/containerd.log; exit 1; }
    sleep 0.2
  done
  ctr -n k8s.io images import --all-platforms --no-unpack --digests /in/all.tar
  ctr -n k8s.io images ls -q | grep -v sha256
  kill "$daemon"; wait "$daemon" || true
  rm -rf /tmp/* /run/containerd'
docker stop -t 1 "$builder" >/dev/null
docker commit "$builder" kvsync-node-pre:build >/dev/null
printf '%s\n' 'FROM kvsync-node-pre:build' 'ENV container=docker' 'STOPSIGNAL SIGRTMIN+3' \
  'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' 'CMD []' |
  DOCKER_BUILDKIT=0 docker build -q -t "$image" - >/dev/null
docker rm -f "$builder" >/dev/null
docker rmi "${components[@]}" kvsync-node-pre:build kvsync-node-base:build >/dev/null 2>&1 || true # the node image contains them
