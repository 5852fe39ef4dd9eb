#!/usr/bin/env bash
# Builds etcd, CoreDNS and the pause program.
# usage: build-node-tools.sh OUT     Takes about 2 minutes on two cores, 5 s with a warm Go cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/../lib/common.sh"
# shellcheck source=/dev/null
. "$here/../lib/go.sh"
mkdir -p "$1"
out=$(cd "$1" && pwd)
ensure_go
go_build_module "$out/etcd" "go.etcd.io/etcd/server/v3@$ETCD_VERSION" go.etcd.io/etcd/server/v3
go_build_module "$out/coredns" "github.com/coredns/coredns@$COREDNS_VERSION" . "$here/coredns"
gcc -Os -static -s -o "$out/pause" "$here/node/pause.c"
