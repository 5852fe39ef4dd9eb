#!/usr/bin/env bash
# Creates .venv with every member of the workspace. If nothing changed since the last run, according to the hash in
# .venv/.state, it does nothing.
#   PYTHON=python3.12 hack/setup.sh    use another interpreter
#   KVSYNC_NO_NATIVE=1 hack/setup.sh   do not build the Rust core even if cargo is installed
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*" >&2; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  say "needs Python 3.11 or newer (looked at \$PYTHON, python3.11, python3.12, python3.13, python3)"
  exit 1
}

find_uv() { # prints the path of the installed uv, otherwise installs one into .tools
  if command -v uv >/dev/null; then
    command -v uv
    return
  fi
  if [ ! -x .tools/bin/uv ]; then
    say "installing uv into .tools"
    if "$1" -m venv .tools >/dev/null 2>&1 && [ -x .tools/bin/pip ]; then
      .tools/bin/pip install --quiet uv
    else # Debian without the package python3-venv
      rm -rf .tools
      "$1" -m pip --version >/dev/null 2>&1 || install_pip "$1"
      "$1" -m pip install --quiet --target .tools/lib uv
      mkdir -p .tools/bin
      ln -sf ../lib/bin/uv .tools/bin/uv
    fi
  fi
  printf '%s/.tools/bin/uv\n' "$PWD"
}

install_pip() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-pip"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip >/dev/null
  else
    say "$1 has neither venv nor pip: install the packages python3-venv or python3-pip"
    exit 1
  fi
}

members=(events workload pages mockpod indexer router operator cli testkit)
python=$(find_python)
state() {
  { "$python" -V; cat requirements/dev.lock hack/setup.sh "${members[@]/%//pyproject.toml}"; pwd; } | sha256sum
}
native_state() { # prints a hash of what the native core is built from, or "none" if it is not built
  if [ -n "${KVSYNC_NO_NATIVE:-}" ] || ! command -v cargo >/dev/null || [ ! -f native/Cargo.toml ]; then
    echo none
  else
    {
      cargo --version
      find native \( -name target -o -name fuzz -o -name __pycache__ \) -prune -o -type f -not -name '*.so' -print0 | sort -z | xargs -0 cat
    } | sha256sum
  fi
}

if [ "$(cat .venv/.state 2>/dev/null)" != "$(state)" ]; then
  uv=$(find_uv "$python")
  say "creating .venv ($("$python" -V))"
  [ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
  export VIRTUAL_ENV=$PWD/.venv
  "$uv" pip sync --quiet --require-hashes requirements/dev.lock
  "$uv" pip install --quiet --no-deps --no-build-isolation "${members[@]/#/--editable=./}"
  rm -f .venv/.native
  state >.venv/.state
fi

want=$(native_state)
if [ "$(cat .venv/.native 2>/dev/null)" != "$want" ]; then
  uv=$(find_uv "$python")
  export VIRTUAL_ENV=$PWD/.venv
  "$uv" pip uninstall --quiet kvsync-native 2>/dev/null || true
  if [ "$want" = none ]; then
    say "LEFT OUT: the native index core (no cargo, or KVSYNC_NO_NATIVE is set); the pure-Python core runs instead"
  else
    say "building the native index core (about a minute the first time)"
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    if PATH="$PWD/.venv/bin:$PATH" maturin build --quiet --release --locked --manifest-path native/Cargo.toml --out "$wheels"; then
      "$uv" pip install --quiet --no-deps "$wheels"/*.whl
    else
      say "LEFT OUT: the native index core (its build failed, see above); the pure-Python core runs instead"
    fi
  fi
  echo "$want" >.venv/.native
fi
core=$(.venv/bin/python -c 'import kvsync_native' 2>/dev/null && echo native || echo python)
say "ready: .venv ($(.venv/bin/python -V), index core: $core)"
