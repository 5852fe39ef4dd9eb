#!/usr/bin/env bash
# Builds the wheels of kvsync-testkit and of the members that it needs, installs them into an empty environment outside
# the repository, and runs the examples of docs/testing there.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'test-kit-wheels: %s\n' "$*" >&2; }

members=(events workload pages mockpod indexer router testkit)
uv=$(command -v uv || echo .tools/bin/uv)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

say "building ${#members[@]} wheels"
for member in "${members[@]}"; do
  VIRTUAL_ENV=$PWD/.venv "$uv" build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir "$folder/wheels" "$member"
done

say "installing them into an empty environment"
python=$folder/env/bin/python
"$uv" venv --quiet --python .venv/bin/python "$folder/env"
"$uv" pip install --quiet --python "$python" --constraint requirements/dev.lock --find-links "$folder/wheels" \
  "$folder"/wheels/kvsync_testkit-*.whl "kvsync-testkit[browser,pytest]"
"$uv" pip check --quiet --python "$python"

say "running the examples"
mkdir -p "$folder/kit/testkit/tests" "$folder/kit/docs"
cp -r docs/testing "$folder/kit/docs/"
cp testkit/tests/test_testkit_docs.py "$folder/kit/testkit/tests/"
cd "$folder/kit"
where=$("$python" -c 'import kvsync_testkit; print(kvsync_testkit.__file__)')
[[ $where == "$folder"/env/* ]] || { say "kvsync_testkit is imported from $where"; exit 1; }
"$python" -m pytest -q -p no:cacheprovider -o asyncio_default_fixture_loop_scope=function testkit/tests/test_testkit_docs.py
