#!/usr/bin/env bash
# Builds every wheel and both charts.
#   hack/dist.sh [FOLDER] [VERSION]   into FOLDER/wheels and FOLDER/charts (default: out/dist, and the version of the chart)
# The native index core is built if cargo is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'dist: %s\n' "$*" >&2; }

out=${1:-out/dist}
version=${2:-$(sed -n 's/^version: //p' charts/kvsync/Chart.yaml)}
uv=$(command -v uv || echo .tools/bin/uv)
helm=$(hack/lib/tools.sh helm)
rm -rf "$out/wheels" "$out/charts"
mkdir -p "$out/wheels" "$out/charts"

for project in */pyproject.toml; do
  member=${project%/*}
  if [ "$member" = native ]; then
    command -v cargo >/dev/null || { say "no cargo, so no wheel of the native index core"; continue; }
    .venv/bin/maturin build --quiet --release --manifest-path native/Cargo.toml --out "$out/wheels"
  else
    "$uv" build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir "$out/wheels" "./$member"
  fi
done
rm -f "$out/wheels/.gitignore"
for chart in charts/*/Chart.yaml; do
  "$helm" package "${chart%/*}" --version "$version" --app-version "$version" --destination "$out/charts" >/dev/null
done
(cd "$out" && find wheels charts -type f -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
say "version $version: $(wc -l <"$out/SHA256SUMS") files in $out"
