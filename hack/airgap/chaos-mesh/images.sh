#!/usr/bin/env bash
# The images of Chaos Mesh's controller, its daemon and the container that stands in for a failed pod.
# usage: images.sh PROGRAMS CONTROLLER_IMAGE DAEMON_IMAGE PAUSE_IMAGE     About 60 seconds. Needs dockerd and mmdebstrap.
# Left out, because they come from no package registry: toda (IOChaos), tproxy (HTTPChaos), byteman (JVMChaos), the
# object files of TimeChaos. Experiments of those kinds are refused by the chaos runner's preflight.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/../../lib/common.sh"
programs=$1 controller=$2 daemon=$3 pause=$4
work=$(scratch_dir chaos-images)
export TMPDIR=$work
chmod 755 "$work"
slim=()
for folder in doc man locale info; do slim+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
mmdebstrap --variant=minbase "${slim[@]}" \
  --include=tzdata,iptables,ebtables,ipset,iproute2,stress-ng,procps,util-linux,net-tools "$DEBIAN_SUITE" "$work/base.tar"
docker import "$work/base.tar" kvsync-chaos-base:build >/dev/null

mkdir "$work/context"
cp "$programs"/{chaos-controller-manager,chaos-daemon,cdh,pause,nsexec,memStress,pause-failure} "$work/context/"
build_image() { # IMAGE: the Dockerfile on standard input
  DOCKER_BUILDKIT=0 docker build --quiet --network none -t "$1" -f - "$work/context"
}
build_image "$controller" <<'DOCKERFILE'
FROM kvsync-chaos-base:build
COPY chaos-controller-manager /usr/local/bin/
DOCKERFILE
build_image "$daemon" <<'DOCKERFILE'
FROM kvsync-chaos-base:build
COPY chaos-daemon cdh pause nsexec memStress /usr/local/bin/
RUN update-alternatives --set iptables /usr/sbin/iptables-legacy && \
    update-alternatives --set ebtables /usr/sbin/ebtables-legacy
DOCKERFILE
build_image "$pause" <<'DOCKERFILE'
FROM scratch
COPY pause-failure /pause
ENTRYPOINT ["/pause"]
DOCKERFILE
docker rmi kvsync-chaos-base:build >/dev/null 2>&1 || true
rm -rf "$work"
