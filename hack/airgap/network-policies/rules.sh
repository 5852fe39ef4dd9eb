#!/bin/sh
# Runs in a node: hands new connections between pods to the agent, which the agent itself cannot do on a kernel without
# nft_queue (CONFIG_NFT_QUEUE). The xt_NFQUEUE target does the same. Without an agent, connections are accepted.
# usage: rules.sh QUEUE
set -eu
chain=KVSYNC-POLICY pods=10.244.0.0/16
jump="POSTROUTING -s $pods -d $pods -j $chain"
iptables -t mangle -N $chain 2>/dev/null || iptables -t mangle -F $chain
iptables -t mangle -A $chain -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
iptables -t mangle -A $chain -m owner --uid-owner 0 -j RETURN # the kubelet's probes and the API server's proxy
iptables -t mangle -A $chain -j NFQUEUE --queue-num "$1" --queue-bypass
# Only traffic between pods: addresses outside the cluster are in no policy of ours.
# shellcheck disable=SC2086
iptables -t mangle -C $jump 2>/dev/null || iptables -t mangle -A $jump
