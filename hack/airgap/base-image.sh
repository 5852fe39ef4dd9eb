#!/usr/bin/env bash
# Builds the base images of the Dockerfiles where they cannot be pulled: Debian with Python and libstdc++ (which wheels
# such as pyzmq require), and Debian with Python and pip for the build stages.
# usage: base-image.sh RUNTIME_IMAGE BUILD_IMAGE     Takes about 40 s; needs dockerd and mmdebstrap.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
work=$(scratch_dir base-image)
export TMPDIR=$work
chmod 755 "$work"
# As in official images, leave out documentation, caches and the time stamps of this build.
slim=()
for folder in doc man locale info lintian; do slim+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
# shellcheck disable=SC2016  # mmdebstrap expands $1 to the root directory that it made
tidy='cd "$1" && rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/*.log etc/resolv.conf etc/hostname'
export SOURCE_DATE_EPOCH=1735689600 # 2025-01-01, so that the same packages result in the same archive

mmdebstrap --variant=essential "${slim[@]}" --include=python3,libstdc++6 --customize-hook="$tidy" "$DEBIAN_SUITE" "$work/runtime.tar"
# Build stages use the package indexes of this machine, so they need its certificate authorities.
mmdebstrap --variant=minbase "${slim[@]}" --include=python3,python3-pip,python3-venv,ca-certificates --customize-hook="$tidy" \
  --customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
  "$DEBIAN_SUITE" "$work/build.tar"
for pair in "runtime=$1" "build=$2"; do
  docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' \
    "$work/${pair%%=*}.tar" "${pair#*=}" >/dev/null
done
rm -rf "$work"
