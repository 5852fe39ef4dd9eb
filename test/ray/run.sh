#!/usr/bin/env bash
# Runs the tests of test/ray in an environment of its own, which has this checkout and Ray.
# The environment is kept in the cache folder, by what it is made of.
set -euo pipefail
cd "$(dirname "$0")/../.."
. hack/lib/common.sh
uv=$(command -v uv || echo "$PWD/.tools/bin/uv")
RAY_VERSION=2.49.2
key=$({ cat requirements/dev.lock; echo "ray $RAY_VERSION"; .venv/bin/python -V; } | sha256sum | cut -c1-16)
environment=$KVSYNC_CACHE/ray/$key
if [ ! -x "$environment/bin/ray" ]; then
  echo "test-ray: installing Ray $RAY_VERSION (about a minute)" >&2
  rm -rf "$environment"
  "$uv" venv --quiet --python .venv/bin/python "$environment"
  VIRTUAL_ENV=$environment "$uv" pip install --quiet --require-hashes -r requirements/dev.lock
  VIRTUAL_ENV=$environment "$uv" pip install --quiet "ray==$RAY_VERSION"
fi
members=(events workload mockpod indexer router operator cli testkit pages)
path=$(printf ":$PWD/%s/src" "${members[@]}")
PYTHONPATH=${path#:} PATH=$environment/bin:$PATH "$environment/bin/python" -m pytest -q -p no:cacheprovider -W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning -W default::DeprecationWarning test/ray "$@"
