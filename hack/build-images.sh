#!/usr/bin/env bash
# Builds the images kvsync/operator, kvsync/mockpod and kvsync/indexer: `make build-images`.
#   hack/build-images.sh [--load] [NAME...]   build all images, or the named ones; --load loads them into kind
#   hack/build-images.sh --lock UV            update images/build.lock
#
#   KVSYNC_IMAGE_TAG=0.1.0            tag (default: the version of the operator package)
#   KVSYNC_BASE_IMAGE, KVSYNC_BUILD_IMAGE   base images of the final and of the build stage (default: those that
#                                     `make cluster-up` wrote to out/cluster.env, otherwise those of the Dockerfiles)
#   KVSYNC_NO_NATIVE=1                build the indexer without its native core even if cargo is installed
#   KVSYNC_DOCKER_ARGS="..."          further arguments for `docker build`, such as --no-cache
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
  say "no docker daemon answers: start one, or run make cluster-up, which starts one if it is permitted to"
  exit 2
fi

if [ -f out/cluster.env ]; then # the environment takes precedence
  while IFS='=' read -r key value; do
    case $key in KVSYNC_BASE_IMAGE | KVSYNC_BUILD_IMAGE | KVSYNC_KIND | KVSYNC_KIND_CLUSTER)
      [ -n "${!key:-}" ] || printf -v "$key" '%s' "$value" ;;
    esac
  done <out/cluster.env
fi
tag=${KVSYNC_IMAGE_TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' operator/pyproject.toml)}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

native_wheel() { # builds the native core into $context/wheels if cargo and maturin are installed
  mkdir -p "$context/wheels"
  if [ -n "${KVSYNC_NO_NATIVE:-}" ] || [ ! -f native/Cargo.toml ] || ! command -v cargo >/dev/null; then
    say "the indexer image will have no native core: cargo is not installed, or KVSYNC_NO_NATIVE is set"
    return 0
  fi
  local maturin=.venv/bin/maturin
  [ -x "$maturin" ] || maturin=$(command -v maturin) || { say "the indexer image will have no native core: maturin is not installed"; return 0; }
  say "building the native core for the indexer image"
  nice "$maturin" build --quiet --release --strip --manifest-path native/Cargo.toml --out "$context/wheels" \
    --interpreter python3.11 --compatibility linux
}

members_of() { # NAME: the members that the Dockerfile of that image copies
  case $1 in
    indexer) echo events indexer router ;;
    operator) echo events indexer operator ;;
    mockpod) echo events workload mockpod ;;
    *) echo events "$1" ;;
  esac
}

fill_context() { # NAME: exactly what the Dockerfile copies, as it is tracked, with fixed times
  local name=$1 members paths
  read -ra members <<<"$(members_of "$name")"
  paths=(LICENSE images/build.lock images/finish.py "images/$name/Dockerfile" "requirements/$name.lock" "${members[@]}")
  git ls-files -z --cached --others --exclude-standard -- "${paths[@]}" ':!*/tests/*' |
    tar --create --null --files-from=- --file=- --ignore-failed-read | tar --extract --file=- --directory "$context"
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
    say "loaded kvsync/$name:$tag into the cluster"
  fi
done
