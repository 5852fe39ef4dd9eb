#!/usr/bin/env bash
# The steps of a release, which .github/workflows/release.yml runs in this order.
#   hack/release.sh build     build images, charts and wheels once, with SBOMs and checksums, into out/release
#   hack/release.sh push      push exactly these images and charts to $KVSYNC_REGISTRY, and note their digests
#   hack/release.sh sign      sign images and charts by digest with cosign, and attach the SBOMs
#   hack/release.sh publish   create the GitHub release with the wheels, charts, SBOMs and checksums
#
#   KVSYNC_VERSION=0.2.0               version (default: the tag of HEAD without its "v", otherwise the version of the chart)
#   KVSYNC_REGISTRY=ghcr.io/owner/repo where images and charts go (push, sign)
#   REGISTRY_USER, REGISTRY_TOKEN      the login at the registry (push)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'release: %s\n' "$*" >&2; }
die() { say "ERROR: $*"; exit 2; }

images=(operator mockpod indexer)
charts=(kvsync kvsync-crds)
out=out/release

version() {
  local tag
  if [ -n "${KVSYNC_VERSION:-}" ]; then
    printf '%s\n' "${KVSYNC_VERSION#v}"
  elif tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
    printf '%s\n' "${tag#v}"
  else
    sed -n 's/^version: //p' charts/kvsync/Chart.yaml
  fi
}
version=$(version)

build() {
  rm -rf "$out"
  mkdir -p "$out/images" "$out/sbom"
  KVSYNC_IMAGE_TAG=$version hack/build-images.sh "${images[@]}"
  local name syft
  syft=$(hack/lib/tools.sh syft)
  for name in "${images[@]}"; do
    docker save "kvsync/$name:$version" --output "$out/images/$name.tar"
    "$syft" scan --quiet "docker-archive:$out/images/$name.tar" --source-name "kvsync/$name" --source-version "$version" \
      --output "spdx-json=$out/sbom/$name.spdx.json"
  done
  hack/dist.sh "$out" "$version"
  (cd "$out" && find images charts wheels sbom -type f -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
  say "version $version: $(wc -l <"$out/SHA256SUMS") files in $out"
}

check_built() {
  [ -s "$out/SHA256SUMS" ] || die "there is no $out: run make release-build first"
  (cd "$out" && sha256sum --quiet --check SHA256SUMS)
}

push() {
  check_built
  : "${KVSYNC_REGISTRY:?names the registry}" "${REGISTRY_USER:?}" "${REGISTRY_TOKEN:?}"
  local name helm host=${KVSYNC_REGISTRY%%/*} digest
  helm=$(hack/lib/tools.sh helm)
  docker login "$host" --username "$REGISTRY_USER" --password-stdin <<<"$REGISTRY_TOKEN" >/dev/null
  "$helm" registry login "$host" --username "$REGISTRY_USER" --password-stdin <<<"$REGISTRY_TOKEN" >/dev/null
  : >"$out/digests"
  for name in "${images[@]}"; do
    docker load --quiet --input "$out/images/$name.tar"
    docker tag "kvsync/$name:$version" "$KVSYNC_REGISTRY/$name:$version"
    docker push --quiet "$KVSYNC_REGISTRY/$name:$version"
    digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$KVSYNC_REGISTRY/$name:$version")
    printf 'image %s %s\n' "$name" "${digest##*@}" >>"$out/digests"
  done
  for name in "${charts[@]}"; do
    digest=$("$helm" push "$out/charts/$name-$version.tgz" "oci://$KVSYNC_REGISTRY/charts" 2>&1 | sed -n 's/^Digest: //p')
    [ -n "$digest" ] || die "helm did not print the digest of $name"
    printf 'chart charts/%s %s\n' "$name" "$digest" >>"$out/digests"
  done
  note_digests
}

note_digests() { # passes the digests of the images to the later steps of the workflow
  local kind name digest
  while read -r kind name digest; do
    [ "$kind" != image ] || printf '%s=%s\n' "$name" "$digest" >>"${GITHUB_OUTPUT:-/dev/stdout}"
  done <"$out/digests"
}

sign() {
  check_built
  command -v cosign >/dev/null || die "cosign is not installed"
  : "${KVSYNC_REGISTRY:?names the registry}"
  local kind name digest
  while read -r kind name digest; do
    cosign sign --yes "$KVSYNC_REGISTRY/$name@$digest"
    [ "$kind" != image ] ||
      cosign attest --yes --type spdxjson --predicate "$out/sbom/$name.spdx.json" "$KVSYNC_REGISTRY/$name@$digest"
  done <"$out/digests"
}

publish() {
  check_built
  command -v gh >/dev/null || die "gh is not installed"
  gh release create "v$version" --verify-tag --title "kvsync $version" --notes "$(hack/release_check.py --notes)" \
    "$out"/charts/*.tgz "$out"/wheels/*.whl "$out"/sbom/*.json "$out/SHA256SUMS"
}

case ${1:-} in
  build | push | sign | publish) "$1" ;;
  *) die "say what to do: build, push, sign or publish" ;;
esac
