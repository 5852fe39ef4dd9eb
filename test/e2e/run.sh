#!/usr/bin/env bash
# Runs the e2e suite on a real cluster: `make test-kv-sync-e2e`. Arguments are passed to pytest.
#   KVSYNC_SCALE=10|50|100     number of pods of the LargeScale test (default 10)
#   KUBECONFIG=...             use this cluster; by default `make cluster-up` is run first and its cluster is used
#   KVSYNC_IMAGE_TAG=...       use the existing images kvsync/NAME:TAG; by default images are built and loaded into kind
#   KVSYNC_IMAGE_PREFIX=...    use the images PREFIX/NAME:TAG instead of kvsync/NAME:TAG
#   KVSYNC_E2E_KEEP=1          keep the namespaces and the installation for inspection
# Results are written to out/e2e: report.json, junit.xml, scale-N.json, and the objects, events and logs of failures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
hack/cluster-up.sh
set -a
# shellcheck source=/dev/null
if [ "${KVSYNC_CLUSTER_NAME:-kvsync}" = kvsync ]; then . out/cluster.env; else . "out/cluster-$KVSYNC_CLUSTER_NAME.env"; fi
set +a

if [ -z "${KVSYNC_IMAGE_TAG:-}" ]; then
  KVSYNC_IMAGE_TAG=$(hack/test-images.sh)
  export KVSYNC_IMAGE_TAG
fi

mkdir -p out/e2e
rm -rf out/e2e/test_* # dumps of earlier failures
exec .venv/bin/pytest test/e2e --junitxml=out/e2e/junit.xml --durations=15 -p no:cacheprovider -o timeout=360 "$@"
