#!/usr/bin/env bash
# Chaos Mesh's programs from the Go module proxy, and the small helpers that it expects from elsewhere.
# usage: build.sh OUT     Cold about 7 minutes on two cores (controller 5 min, daemon 2 min); 20 s with a warm Go cache.
# OUT/chart is the path of the chart in Go's module cache; nothing of Chaos Mesh is kept in this repository.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/../../lib/common.sh"
# shellcheck source=/dev/null
. "$here/../../lib/go.sh"
mkdir -p "$1"
out=$(cd "$1" && pwd)
ensure_go
module=github.com/chaos-mesh/chaos-mesh
work=$(scratch_dir chaos-mesh)
cd "$work"

# Inside its repository Chaos Mesh replaces its API module by a folder; outside, the nearest published commit takes its place.
source_dir=$(go mod download -json "$module@$CHAOS_MESH_MODULE" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
{
  sed -e 's#^module .*#module local/chaosmesh#' -e '/^tool /d' \
    -e "s#$module/api => ./api#$module/api => $module/api $CHAOS_MESH_API_MODULE#" "$source_dir/go.mod"
  printf '\nrequire %s %s\n' "$module" "$CHAOS_MESH_MODULE"
} >go.mod
cp "$source_dir/go.sum" go.sum

build=(go build -p "${KVSYNC_BUILD_JOBS:-$(nproc)}" -buildvcs=false -trimpath -ldflags '-s -w')
"${build[@]}" -o "$out/chaos-controller-manager" "$module/cmd/chaos-controller-manager"
"${build[@]}" -o "$out/cdh" "$module/cmd/chaos-daemon-helper"
CGO_ENABLED=1 "${build[@]}" -o "$out/chaos-daemon" "$module/cmd/chaos-daemon"
for program in pause nsexec memStress pause-failure; do
  gcc -O2 -Wall -Wextra -static -s -o "$out/$program" "$here/$program.c"
done
printf '%s\n' "$source_dir/helm/chaos-mesh" >"$out/chart"
chmod -R u+w "$work"
rm -rf "$work"
