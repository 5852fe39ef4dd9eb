#!/usr/bin/env bash
# Tests the charts without a cluster: lint, unit tests, unit tests of the alerting rules, and validation against the
# Kubernetes schemas. Tools that are not installed are built from the Go module proxy, promtool comes from Debian.
#   KVSYNC_SCHEMAS=DIR|URL   schema location for kubeconform; the default is on a Git host, and validation is skipped if
#                            that host cannot be reached
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'test-charts: %s\n' "$*" >&2; }
helm=$(hack/lib/tools.sh helm)
unittest=$(hack/lib/tools.sh helm-unittest)

"$helm" lint --quiet --strict charts/kvsync charts/kvsync-crds
"$unittest" charts/kvsync charts/kvsync-crds

if promtool=$(hack/lib/promtool.sh); then
  "$promtool" check rules charts/kvsync/alerts/kvsync.yaml
  "$promtool" test rules charts/kvsync/tests/alerts/promtool.yaml
else
  say "skipped(capability): there is no promtool, so the alerting rules were not tested"
fi

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
for values in '' 'operator.allNamespaces=true' \
  'metrics.serviceMonitor.enabled=true,metrics.grafanaDashboard.enabled=true,metrics.alerts.enabled=true,metrics.alerts.kind=ConfigMap,sampleEngine.enabled=true,operator.namespaces={a,b}'; do
  "$helm" template kvsync charts/kvsync --namespace lab --kube-version 1.34.0 ${values:+--set "$values"} >>"$rendered"
  echo --- >>"$rendered"
done
location=${KVSYNC_SCHEMAS:-default}
if [ "$location" = default ] && ! timeout 10 curl --silent --fail --output /dev/null \
  https://raw.githubusercontent.com/yannh/kubernetes-json-schema/master/README.md; then
  say "skipped(capability): the Kubernetes schemas cannot be downloaded, so kubeconform did not run"
  exit 0
fi
"$(hack/lib/tools.sh kubeconform)" -strict -summary -ignore-missing-schemas -schema-location "$location" "$rendered"
