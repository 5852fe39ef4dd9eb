#!/usr/bin/env bash
# The charts without a cluster: lint, unit tests, and every rendering against Kubernetes' own schemas where those can be
# had. helm, helm-unittest and kubeconform are built from the Go module proxy where they are not installed.
#   KVSYNC_SCHEMAS=DIR|URL   schema location for kubeconform (default: its own, on a Git host; skipped out of reach)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'test-charts: %s\n' "$*" >&2; }
helm=$(hack/lib/tools.sh helm)
unittest=$(hack/lib/tools.sh helm-unittest)

"$helm" lint --quiet --strict charts/kvsync charts/kvsync-crds
"$unittest" charts/kvsync charts/kvsync-crds

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
for values in '' 'operator.allNamespaces=true' \
  'metrics.serviceMonitor.enabled=true,metrics.grafanaDashboard.enabled=true,sampleEngine.enabled=true,operator.namespaces={a,b}'; do
  "$helm" template kvsync charts/kvsync --namespace lab --kube-version 1.34.0 ${values:+--set "$values"} >>"$rendered"
  echo --- >>"$rendered"
done
location=${KVSYNC_SCHEMAS:-default}
if [ "$location" = default ] && ! timeout 10 curl --silent --fail --output /dev/null \
  https://raw.githubusercontent.com/yannh/kubernetes-json-schema/master/README.md; then
  say "skipped(capability): Kubernetes' schemas are out of reach, so kubeconform did not run"
  exit 0
fi
"$(hack/lib/tools.sh kubeconform)" -strict -summary -ignore-missing-schemas -schema-location "$location" "$rendered"
