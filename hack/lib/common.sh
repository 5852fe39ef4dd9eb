#!/usr/bin/env bash
# What every cluster script shares: timed messages, the cache folder, content keys, atomic results, the lock.
# Sourced, never run. The caller has `set -euo pipefail`.

KVSYNC_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KVSYNC_CACHE=${KVSYNC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvsync}
KVSYNC_STARTED=${KVSYNC_STARTED:-$(date +%s)} # children go on counting from their parent's start
export KVSYNC_CACHE KVSYNC_STARTED

# shellcheck source=/dev/null
. "$KVSYNC_ROOT/hack/airgap/versions.env"

say() { printf '%s [%4ds] %s\n' "${KVSYNC_PROG:-${0##*/}}" "$(($(date +%s) - KVSYNC_STARTED))" "$*" >&2; }

die() { # MESSAGE...: one line a problem, exit code 2
  local line
  for line in "$@"; do say "ERROR: $line"; done
  exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

run_step() { # NAME COMMAND...: says the name and the time, keeps the output in a log, shows its end on failure
  local name=$1 log began=$SECONDS code=0
  shift
  mkdir -p "$KVSYNC_CACHE/logs"
  log=$KVSYNC_CACHE/logs/${name//[^A-Za-z0-9]/-}.log
  say "$name ..."
  "$@" >"$log" 2>&1 </dev/null & # waited for, so that a signal is acted on at once and not after the step
  wait $! || code=$?
  if [ "$code" != 0 ]; then
    tail -n 25 "$log" >&2
    say "$name FAILED after $((SECONDS - began)) s (exit code $code; all of it: $log)"
    return "$code"
  fi
  say "$name: $((SECONDS - began)) s"
}

try_twice() { # COMMAND...: for what goes over the network; the command is a program, not a function
  "$@" && return 0
  echo "failed with exit code $?; trying once more in 5 s"
  sleep 5
  "$@"
}

end_children() { # PID: what it started, leaves first; a daemon in a session of its own has left the tree
  local child children=()
  read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || true
  for child in "${children[@]}"; do
    end_children "$child"
    kill "$child" 2>/dev/null || true
  done
}

end_with_children() { # call once: an interrupted script leaves nothing running that would go on changing things
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  trap 'end_children $$' EXIT
}

content_key() { # STRING|FILE...: a short key of all of it; files count by content, other words as they are
  local item
  for item in "$@"; do
    if [ -f "$item" ]; then cat "$item"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

scratch_dir() { # a folder on the cache's own disk, so that results can be renamed into place
  mkdir -p "$KVSYNC_CACHE/tmp"
  mktemp -d "$KVSYNC_CACHE/tmp/${1:-work}.XXXXXX"
}

build_once() { # RESULT BUILDER...: runs `BUILDER... SCRATCH` unless RESULT is there, then renames SCRATCH to it
  local result=$1 scratch
  shift
  [ ! -e "$result" ] || return 0
  scratch=$(scratch_dir "$(basename "$result")")
  "$@" "$scratch" # no `|| return`: that would switch errexit off inside, and a failed build be put in place
  mkdir -p "$(dirname "$result")"
  mv -T "$scratch" "$result"
}

take_lock() { # one bring-up or take-down at a time; the lock dies with the process that holds it
  mkdir -p "$KVSYNC_CACHE"
  exec 9>"$KVSYNC_CACHE/lock"
  if ! flock -n 9; then
    say "another run holds $KVSYNC_CACHE/lock; waiting up to an hour"
    flock -w 3600 9 || die "gave up waiting for $KVSYNC_CACHE/lock"
  fi
  # what an interrupted run left; younger folders may belong to a tool being built beside us
  find "$KVSYNC_CACHE/tmp" -mindepth 1 -maxdepth 1 -mmin +120 -exec rm -rf {} + 2>/dev/null || true
}

apt_ensure() { # COMMAND=PACKAGE...: installs the packages whose command is missing; only as root, only with apt
  local pair missing=()
  for pair in "$@"; do
    have "${pair%%=*}" || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} != 0 ] || return 0
  if ! is_root || ! have apt-get; then
    die "missing: ${missing[*]} (install these packages, or run as root where apt-get is)"
  fi
  run_step "apt: ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
  try_twice apt-get update -qq
  DEBIAN_FRONTEND=noninteractive try_twice apt-get install -y -qq --no-install-recommends "$@"
}
