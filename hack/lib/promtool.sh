#!/usr/bin/env bash
# Prints the path of promtool, which checks and tests alerting rules. As root on Debian, installs the package prometheus if
# there is none, and leaves its server stopped.
#   hack/lib/promtool.sh    exit code 3: there is none, and this user cannot install one
set -euo pipefail
export KVSYNC_PROG=promtool
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! have promtool; then
  if ! is_root || ! have apt-get; then
    say "promtool is not installed; it is in Debian's package prometheus"
    exit 3
  fi
  # Only the tool is wanted: the policy file keeps the package from starting its server.
  policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && trap 'rm -f "$policy"' EXIT; }
  run_step "apt: prometheus" apt_install prometheus >&2
fi
command -v promtool
