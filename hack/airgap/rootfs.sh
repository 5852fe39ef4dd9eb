#!/usr/bin/env bash
# Builds the file systems of a kind node and of kube-proxy from the Debian mirror. The image files of kind (entrypoint,
# units and configuration) come from its Go module.
# usage: rootfs.sh OUT     Writes OUT/node.tar and OUT/proxy.tar; takes about 75 s.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
. "$here/../lib/common.sh"
# shellcheck source=/dev/null
. "$here/../lib/go.sh"
mkdir -p "$1"
out=$(cd "$1" && pwd)
ensure_go
work=$(scratch_dir rootfs)
export TMPDIR=$work
chmod 755 "$work"

files=$work/files
kind_module=$(cd "$work" && go mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
mkdir "$files"
cp -r "$kind_module/images/base/files/." "$files/"
chmod -R u+w "$files"
rm -rf "$files/LICENSES" "$files/usr/local/bin/clean-install"
cp "$here/node/cni-lite" "$here/node/crictl" "$files/usr/local/bin/"
cp "$here/node/cni-lite.service" "$files/etc/systemd/system/"
chmod 0755 "$files"/usr/local/bin/* "$files"/kind/bin/*
# containerd must not lower oom_score_adj, which needs CAP_SYS_RESOURCE; the tag of pause is the one kubeadm expects
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
  -e "s#pause:[0-9.]*#pause:$PAUSE_VERSION#" "$files/etc/containerd/config.toml"
sed -i -e 's#/usr/local/bin/containerd$#/usr/bin/containerd#' "$files/etc/systemd/system/containerd.service"

packages=systemd,systemd-sysv,dbus,containerd,runc,containernetworking-plugins,conntrack,iptables,nftables,iproute2
packages=$packages,ethtool,socat,util-linux,mount,kmod,libseccomp2,pigz,bash,ca-certificates,curl,jq,procps,hostname
packages=$packages,ebtables,rsync
slim=()
for folder in doc man locale; do slim+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
mmdebstrap --variant=minbase "${slim[@]}" --include="$packages" \
  --customize-hook="cp -a $files/. \"\$1\"/ && chown -R 0:0 \"\$1\"/kind \"\$1\"/etc/containerd" \
  --customize-hook="sh $here/node/finish.sh \"\$1\"" "$DEBIAN_SUITE" "$out/node.tar"
# --variant=extract runs no maintainer scripts, so node-image.sh creates the alternatives of iptables
mmdebstrap --variant=extract --include=iptables,conntrack,ipset,nftables,kmod "$DEBIAN_SUITE" "$out/proxy.tar"
rm -rf "$work"
