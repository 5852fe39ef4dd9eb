#!/usr/bin/env bash
# Installs the wheels of out/dist into an empty environment outside the repository, asks every command for its version or
# help, and runs a small demo there. The charts are rendered from their packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'test-dist: %s\n' "$*" >&2; }

root=$PWD
uv=$(command -v uv || echo "$root/.tools/bin/uv")
helm=$(hack/lib/tools.sh helm)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(cd out/dist && sha256sum --quiet --check SHA256SUMS)

say "installing the wheels into an empty environment"
python=$folder/env/bin/python
"$uv" venv --quiet --python .venv/bin/python "$folder/env"
"$uv" pip install --quiet --python "$python" --constraint requirements/dev.lock out/dist/wheels/*.whl
"$uv" pip check --quiet --python "$python"

cd "$folder"
export XDG_STATE_HOME=$folder/state
for program in kvsync kvsync-mockpod kvsync-operator; do
  "env/bin/$program" --version
done
for program in kvsync-indexer kvsync-router; do
  "env/bin/$program" --help >/dev/null
done
env/bin/kvsync doctor || { say "kvsync doctor found a problem"; exit 1; }

say "running a small demo"
env/bin/kvsync demo --requests 200 --engines 2 --policy kv --trace "$root/examples/traces/mooncake_conversation.jsonl" --out demo
[ -s demo/report.html ] || { say "the demo wrote no page"; exit 1; }
where=$("$python" -c 'import kvsync; print(kvsync.__file__)')
[[ $where == "$folder"/env/* ]] || { say "kvsync is imported from $where"; exit 1; }

say "rendering the charts"
for chart in "$root"/out/dist/charts/*.tgz; do
  "$helm" template test "$chart" --kube-version 1.34.0 >/dev/null
done
say "ok"
