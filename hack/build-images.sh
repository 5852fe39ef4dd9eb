#!/usr/bin/env bash
# The three images: kvsync/operator, kvsync/mockpod, kvsync/indexer. `make build-images`.
#   hack/build-images.sh [--load] [NAME...]   all of them, or those named; --load puts them into the kind cluster
#   hack/build-images.sh --lock UV            refresh images/build.lock
#
#   KVSYNC_IMAGE_TAG=0.1.0            tag (default: the version of the operator package)
#   KVSYNC_BASE_IMAGE, KVSYNC_BUILD_IMAGE   bases of the final and of the build stage; default: what
#                                     `make cluster-up` wrote to out/cluster.env, else the Dockerfiles' own
#   KVSYNC_NO_NATIVE=1                leave the native core out of the indexer even where cargo is installed
#   KVSYNC_DOCKER_ARGS="..."          more arguments for `docker build`, such as --no-cache
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'build-images: %s\n' "$*" >&2; }

if [ "${1:-}" = --lock ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  echo hatchling >"$scratch/build.in"
  "${2:?the path of uv}" pip compile "$scratch/build.in" -o "$scratch/build.lock" --python-version=3.11 --universal \
    --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --constraint requirements/dev.lock
  { sed -n '/^#/p' images/build.lock; cat "$scratch/build.lock"; } >"$scratch/new"
  cat "$scratch/new" >images/build.lock
  exit 0
fi

load=
if [ "${1:-}" = --load ]; then
  load=yes
  shift
fi
names=("$@")
[ ${#names[@]} != 0 ] || names=(operator mockpod indexer)
for name in "${names[@]}"; do
  [ -f "images/$name/Dockerfile" ] || { say "unknown image '$name' (known: operator, mockpod, indexer)"; exit 2; }
done
if ! docker info >/dev/null 2>&1; then
  say "no docker daemon answers: start one, or run make cluster-up, which starts one where it may"
  exit 2
fi

if [ -f out/cluster.env ]; then # what the environment says wins
  while IFS='=' read -r key value; do
    case $key in KVSYNC_BASE_IMAGE | KVSYNC_BUILD_IMAGE | KVSYNC_KIND | KVSYNC_KIND_CLUSTER)
      [ -n "${!key:-}" ] || printf -v "$key" '%s' "$value" ;;
    esac
  done <out/cluster.env
fi
tag=${KVSYNC_IMAGE_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' operator/pyproject.toml)}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

native_wheel() { # into $context/wheels, where cargo and maturin are
  mkdir -p "$context/wheels"
  if [ -n "${KVSYNC_NO_NATIVE:-}" ] || [ ! -f native/Cargo.toml ] || ! command -v cargo >/dev/null; then
    say "indexer: without the native core (no cargo, or KVSYNC_NO_NATIVE is set)"
    return 0
  fi
  local maturin=.venv/bin/maturin
  [ -x "$maturin" ] || maturin=$(command -v maturin) || { say "indexer: without the native core (no maturin)"; return 0; }
  say "indexer: building the native core"
  nice "$maturin" build --quiet --release --strip --manifest-path native/Cargo.toml --out "$context/wheels" \
    --interpreter python3.11 --compatibility linux
}

members_of() { # NAME: the members that the Dockerfile of that image copies
  case $1 in
    indexer) echo events indexer router ;;
    operator) echo events indexer operator ;;
    *) echo events "$1" ;;
  esac
}

fill_context() { # NAME: exactly what the Dockerfile copies, as it is tracked, with fixed times
  local name=$1 members paths
  read -ra members <<<"$(members_of "$name")"
  paths=(LICENSE images/build.lock images/finish.py "images/$name/Dockerfile" "requirements/$name.lock" "${members[@]}")
  git ls-files -z --cached --others --exclude-standard -- "${paths[@]}" ':!*/tests/*' |
    tar --create --null --files-from=- --file=- --ignore-failed-read | tar --extract --file=- --directory "$context"
  # A README that a pyproject.toml names may be left out above; the licence stands for all.
}

for name in "${names[@]}"; do
  [ "$name" != indexer ] || native_wheel
  fill_context "$name"
  arguments=(--file "$context/images/$name/Dockerfile" --tag "kvsync/$name:$tag")
  [ -z "${KVSYNC_BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$KVSYNC_BASE_IMAGE")
  [ -z "${KVSYNC_BUILD_IMAGE:-}" ] || arguments+=(--build-arg "BUILD_IMAGE=$KVSYNC_BUILD_IMAGE")
  [ -z "${PIP_INDEX_URL:-}" ] || arguments+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
  read -ra more <<<"${KVSYNC_DOCKER_ARGS:-}"
  began=$SECONDS
  DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} nice docker build --quiet "${arguments[@]}" "${more[@]}" \
    "$context" >/dev/null
  say "kvsync/$name:$tag, $(($(docker image inspect --format '{{.Size}}' "kvsync/$name:$tag") / 1000000)) MB, $((SECONDS - began)) s"
  if [ -n "$load" ]; then
    "${KVSYNC_KIND:-kind}" load docker-image --name "${KVSYNC_KIND_CLUSTER:-kvsync}" "kvsync/$name:$tag" >/dev/null
    say "kvsync/$name:$tag is in the cluster"
  fi
done
