#!/usr/bin/env bash
# Prints the path of a Chromium for the tests of pages. As root on Debian, installs the package if there is none.
#   hack/lib/chromium.sh    exit code 3: there is none, and this user cannot install one
set -euo pipefail
export KVSYNC_PROG=chromium
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

find_chromium() { # the same names as kvsync_testkit.browser.finding
  local name
  for name in ${KVSYNC_CHROMIUM:+"$KVSYNC_CHROMIUM"} chromium chromium-browser google-chrome; do
    if have "$name"; then
      command -v "$name"
      return
    fi
  done
  return 1
}

if ! find_chromium; then
  if ! is_root || ! have apt-get; then
    say "none found; install the package chromium, or name a browser in KVSYNC_CHROMIUM. Tests that need it are skipped"
    exit 3
  fi
  run_step "apt: chromium" apt_install chromium fonts-dejavu-core >&2
  find_chromium
fi
