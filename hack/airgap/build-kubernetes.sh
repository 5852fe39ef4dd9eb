#!/usr/bin/env bash
# Builds the seven binaries of Kubernetes from the Go module proxy, without a git clone.
# usage: build-kubernetes.sh OUT     Takes 8 to 10 minutes on two cores (peak memory 1.9 GB), 20 s with a warm Go cache.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../lib/go.sh"
mkdir -p "$1"
out=$(cd "$1" && pwd)
ensure_go
work=$(scratch_dir kubernetes)
cd "$work"

# k8s.io/kubernetes requires its staging modules at v0.0.0. Their releases have the versions v0.<minor>.<patch>.
staging=v0.${KUBERNETES_VERSION#1.}
source_dir=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
{
  printf 'module local/k8sbin\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n\n' "$KUBERNETES_VERSION"
  sed -n 's/^[[:space:]]*\(k8s.io\/[a-z0-9.-]*\) v0\.0\.0\( .*\)\{0,1\}$/\1/p' "$source_dir/go.mod" | sort -u |
    while read -r module; do echo "replace $module => $module $staging"; done
} >go.mod

stamp="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp="$stamp -X $package.gitVersion=v$KUBERNETES_VERSION -X $package.gitMajor=1"
  stamp="$stamp -X $package.gitMinor=$(echo "$KUBERNETES_VERSION" | cut -d. -f2)"
  stamp="$stamp -X $package.gitCommit=0000000000000000000000000000000000000000"
  stamp="$stamp -X $package.gitTreeState=clean -X $package.buildDate=2025-01-01T00:00:00Z"
done
go build -p "${KVSYNC_BUILD_JOBS:-$(nproc)}" -trimpath -ldflags "$stamp" -o "$out/" \
  k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy,kubelet,kubeadm,kubectl}
rm -rf "$work"
