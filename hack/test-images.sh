#!/usr/bin/env bash
# Builds the images of this checkout under a tag of their content, loads them into the kind cluster, and prints the tag.
# Used by the end-to-end and the chaos suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'test-images: %s\n' "$*" >&2; }

images_key() { # prints a hash of everything from which the images are built
  {
    echo "${KVSYNC_NO_NATIVE:-native}"
    git ls-files -z --cached --others --exclude-standard -- LICENSE images requirements events workload mockpod indexer router operator native ':!*/tests/*' |
      sort -z | xargs -0 sha256sum 2>/dev/null
  } | sha256sum | cut -c1-12
}

if [ "${KVSYNC_CLUSTER:-}" = given ]; then
  say "KUBECONFIG is set: push the images of hack/build-images.sh to a registry from which that cluster can pull them,"
  say "and set KVSYNC_IMAGE_TAG, and KVSYNC_IMAGE_PREFIX if they are not called kvsync/NAME"
  exit 2
fi
KVSYNC_IMAGE_TAG=e2e-$(images_key)
export KVSYNC_IMAGE_TAG
for name in operator mockpod indexer; do
  if ! docker image inspect "kvsync/$name:$KVSYNC_IMAGE_TAG" >/dev/null 2>&1; then hack/build-images.sh "$name" >&2; fi
  "$KVSYNC_KIND" load docker-image --name "$KVSYNC_KIND_CLUSTER" "kvsync/$name:$KVSYNC_IMAGE_TAG" >&2 2>/dev/null
done
say "images: $KVSYNC_IMAGE_TAG"
echo "$KVSYNC_IMAGE_TAG"
