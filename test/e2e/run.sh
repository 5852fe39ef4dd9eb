#!/usr/bin/env bash
# The e2e suite on a real cluster: `make test-kv-sync-e2e`. Arguments go to pytest.
#   KVSYNC_SCALE=10|50|100     pods of the LargeScale class (default 10)
#   KUBECONFIG=...             a cluster of yours; else the one of `make cluster-up`, which is run first
#   KVSYNC_IMAGE_TAG=...       images that exist already (kvsync/NAME:TAG); else they are built and loaded into kind
#   KVSYNC_IMAGE_PREFIX=...    where they are pulled from, in place of `kvsync`
#   KVSYNC_E2E_KEEP=1          leave namespaces and installation for a look afterwards
# Results: out/e2e (report.json, junit.xml, scale-N.json, and of each failure its objects, events and logs).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'e2e: %s\n' "$*" >&2; }

images_key() { # of everything the images are built from
  {
    echo "${KVSYNC_NO_NATIVE:-native}"
    git ls-files -z --cached --others --exclude-standard -- LICENSE images requirements events workload mockpod indexer operator native ':!*/tests/*' |
      sort -z | xargs -0 sha256sum 2>/dev/null
  } | sha256sum | cut -c1-12
}

hack/cluster-up.sh
set -a
# shellcheck source=/dev/null
if [ "${KVSYNC_CLUSTER_NAME:-kvsync}" = kvsync ]; then . out/cluster.env; else . "out/cluster-$KVSYNC_CLUSTER_NAME.env"; fi
set +a

if [ -z "${KVSYNC_IMAGE_TAG:-}" ]; then
  if [ "$KVSYNC_CLUSTER" = given ]; then
    say "KUBECONFIG names a cluster of yours: push the images of hack/build-images.sh where it can pull them, then set"
    say "KVSYNC_IMAGE_TAG, and KVSYNC_IMAGE_PREFIX if they are not kvsync/NAME"
    exit 2
  fi
  KVSYNC_IMAGE_TAG=e2e-$(images_key)
  export KVSYNC_IMAGE_TAG
  for name in operator mockpod indexer; do
    if ! docker image inspect "kvsync/$name:$KVSYNC_IMAGE_TAG" >/dev/null 2>&1; then hack/build-images.sh "$name"; fi
    "$KVSYNC_KIND" load docker-image --name "$KVSYNC_KIND_CLUSTER" "kvsync/$name:$KVSYNC_IMAGE_TAG" 2>/dev/null
  done
  say "images: $KVSYNC_IMAGE_TAG"
fi

mkdir -p out/e2e
rm -rf out/e2e/test_* # dumps of earlier failures
exec .venv/bin/pytest test/e2e --junitxml=out/e2e/junit.xml --durations=15 -p no:cacheprovider -o timeout=360 "$@"
