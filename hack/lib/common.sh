#!/usr/bin/env bash
# Functions of all cluster scripts: timed messages, the cache folder, content keys, atomic results, and the lock.
# Sourced by scripts with `set -euo pipefail`.

KVSYNC_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
KVSYNC_CACHE=${KVSYNC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvsync}
KVSYNC_STARTED=${KVSYNC_STARTED:-$(date +%s)} # child processes count from the start of their parent
export KVSYNC_CACHE KVSYNC_STARTED

# shellcheck source=/dev/null
. "$KVSYNC_ROOT/hack/airgap/versions.env"

say() { printf '%s [%4ds] %s\n' "${KVSYNC_PROG:-${0##*/}}" "$(($(date +%s) - KVSYNC_STARTED))" "$*" >&2; }

die() { # MESSAGE...: prints one line per message and exits with code 2
  local line
  for line in "$@"; do say "ERROR: $line"; done
  exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

run_step() { # NAME COMMAND...: prints name and duration, writes the output to a log, and prints its end on failure
  local name=$1 log began=$SECONDS code=0
  shift
  mkdir -p "$KVSYNC_CACHE/logs"
  log=$KVSYNC_CACHE/logs/${name//[^A-Za-z0-9]/-}.log
  say "$name ..."
  "$@" >"$log" 2>&1 </dev/null & # in the background, so that a signal is handled at once and not after the step
  wait $! || code=$?
  if [ "$code" != 0 ]; then
    tail -n 25 "$log" >&2
    say "$name FAILED after $((SECONDS - began)) s (exit code $code; the whole output is in $log)"
    return "$code"
  fi
  say "$name: $((SECONDS - began)) s"
}

try_twice() { # COMMAND...: repeats a program that uses the network if it fails; it must not be a function
  "$@" && return 0
  echo "failed with exit code $?; trying again in 5 s"
  sleep 5
  "$@"
}

end_children() { # PID: ends its descendants, children before parents; a daemon in its own session is none
  local child children=()
  read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || true
  for child in "${children[@]}"; do
    end_children "$child"
    kill "$child" 2>/dev/null || true
  done
}

end_with_children() { # call once: ends all descendants when the script ends or is interrupted
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  trap 'end_children $$' EXIT
}

content_key() { # STRING|FILE...: prints a short hash of all arguments; files are hashed by content
  local item
  for item in "$@"; do
    if [ -f "$item" ]; then cat "$item"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

scratch_dir() { # creates a folder on the disk of the cache, so that a result can be renamed into place
  mkdir -p "$KVSYNC_CACHE/tmp"
  mktemp -d "$KVSYNC_CACHE/tmp/${1:-work}.XXXXXX"
}

build_once() { # RESULT BUILDER...: unless RESULT exists, runs `BUILDER... SCRATCH` and renames SCRATCH to RESULT
  local result=$1 scratch
  shift
  [ ! -e "$result" ] || return 0
  scratch=$(scratch_dir "$(basename "$result")")
  "$@" "$scratch" # no `|| return`, which would disable errexit in the builder, so that a failed build would be kept
  mkdir -p "$(dirname "$result")"
  mv -T "$scratch" "$result"
}

take_lock() { # permits one cluster script at a time; the lock is released when its process ends
  mkdir -p "$KVSYNC_CACHE"
  exec 9>"$KVSYNC_CACHE/lock"
  if ! flock -n 9; then
    say "another run holds $KVSYNC_CACHE/lock; waiting for up to an hour"
    flock -w 3600 9 || die "another run still holds $KVSYNC_CACHE/lock"
  fi
  # remains of interrupted runs; younger folders may belong to a tool that is being built at the moment
  find "$KVSYNC_CACHE/tmp" -mindepth 1 -maxdepth 1 -mmin +120 -exec rm -rf {} + 2>/dev/null || true
}

apt_ensure() { # COMMAND=PACKAGE...: installs the packages whose command is missing, which needs root and apt
  local pair missing=()
  for pair in "$@"; do
    have "${pair%%=*}" || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} != 0 ] || return 0
  if ! is_root || ! have apt-get; then
    die "missing packages: ${missing[*]} (install them, or run as root on a system with apt-get)"
  fi
  run_step "apt: ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
  try_twice apt-get update -qq
  DEBIAN_FRONTEND=noninteractive try_twice apt-get install -y -qq --no-install-recommends "$@"
}
