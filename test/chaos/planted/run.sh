#!/usr/bin/env bash
# Runs the planted bugs on a cluster: `make test-kv-sync-mutants`. Arguments are passed to pytest.
# One image of the index has every bug, and a variable of the pod's environment chooses one. It consists of the image under
# test and one more layer, and is not published. Afterwards the bugs of the end-to-end suite run, each in its own image.
#   KVSYNC_MUTANTS=chaos|e2e|all     which of the two (default all)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
# shellcheck source=/dev/null
. test/chaos/operator.sh
which=${KVSYNC_MUTANTS:-all}
use_cluster

if [ "$which" != e2e ]; then
  install_operator
  image=kvsync/indexer:planted-$KVSYNC_IMAGE_TAG
  {
    echo "FROM kvsync/indexer:$KVSYNC_IMAGE_TAG"
    echo "COPY sitecustomize.py planted_bugs.py /planted/"
    echo "ENV PYTHONPATH=/planted:/app"
  } | DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" --file - test/chaos/planted >/dev/null
  "$KVSYNC_KIND" load docker-image --name "$KVSYNC_KIND_CLUSTER" "$image" >/dev/null 2>&1
  KVSYNC_PLANTED_IMAGE=$image .venv/bin/pytest -q -p no:cacheprovider \
    test/chaos/test_chaos_planted_bugs.py -k "planted_bug_is_caught or every_invariant" "$@"
  uninstall_operator
fi
if [ "$which" != chaos ]; then
  .venv/bin/python test/e2e/mutants/run.py
fi
