#!/bin/sh
# Runs in mmdebstrap on the unpacked node: enables the units that a kind node runs and removes the others.
set -eu
root=$1
cd "$root"
rm -f lib/systemd/system/multi-user.target.wants/* etc/systemd/system/*.wants/* \
  lib/systemd/system/local-fs.target.wants/* lib/systemd/system/sockets.target.wants/*udev* \
  lib/systemd/system/sockets.target.wants/*initctl* lib/systemd/system/basic.target.wants/*
rm -f lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
echo ReadKMsg=no >>etc/systemd/journald.conf
for unit in kubelet containerd undo-mount-hacks cni-lite; do
  chroot "$root" systemctl enable "$unit.service"
done
chroot "$root" systemctl mask systemd-binfmt.service
mkdir -p etc/kubernetes/manifests opt/cni etc/cni/net.d kind/manifests
ln -sfn /usr/lib/cni opt/cni/bin
# The default container specification, with the hook of kind and without limits that need CAP_SYS_RESOURCE
chroot "$root" ctr oci spec |
  jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
    >etc/containerd/cri-base.json
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale var/log/*.log
