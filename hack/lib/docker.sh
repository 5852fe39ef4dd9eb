#!/usr/bin/env bash
# A docker daemon: the one that runs already (left alone), else one of ours. Sourced after common.sh.

KVSYNC_DOCKER_STATE=${KVSYNC_DOCKER_STATE:-$KVSYNC_CACHE/docker}

docker_answers() { timeout 20 docker info >/dev/null 2>&1; }

ensure_docker() { # starts a daemon where none answers; its images outlive it in $KVSYNC_DOCKER_STATE
  if have docker && docker_answers; then return 0; fi
  if ! is_root; then
    die "no docker daemon answers and this is not root, so none can be started" \
      "start docker (or add this user to its group), or set KUBECONFIG to a cluster that exists"
  fi
  apt_ensure dockerd=docker.io containerd=containerd runc=runc iptables=iptables docker=docker.io
  if docker_answers; then return 0; fi # the package started it
  run_step "start dockerd" start_dockerd
}

lacks_capability() { # NUMBER: is it missing from what a process of ours may ever have?
  local set
  set=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
  [ $((0x$set >> $1 & 1)) = 0 ]
}

start_dockerd() {
  local state=$KVSYNC_DOCKER_STATE options=() tries
  mkdir -p "$state"
  if lacks_capability 24; then # CAP_SYS_RESOURCE: `docker run --privileged` would fail
    cp "$KVSYNC_ROOT/hack/airgap/runc-caps" "$state/runc-caps" # the daemon may outlive this checkout
    options+=(--add-runtime "runc-caps=$state/runc-caps" --default-runtime runc-caps)
  fi
  rm -f "$state/dockerd.pid"
  # A session of its own, no terminal, no lock: it must outlive this shell
  setsid nohup dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" \
    --log-level warn --log-opt max-size=20m "${options[@]}" >"$state/dockerd.log" 2>&1 </dev/null 9>&- &
  for ((tries = 0; tries < 120; tries++)); do
    if docker_answers; then return 0; fi
    kill -0 $! 2>/dev/null || break
    sleep 0.5
  done
  tail -n 20 "$state/dockerd.log"
  return 1
}

docker_is_ours() {
  local pid
  pid=$(cat "$KVSYNC_DOCKER_STATE/dockerd.pid" 2>/dev/null) || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]
}

stop_our_docker() { # only ours, and only when nothing runs in it
  docker_is_ours || return 0
  if [ -n "$(docker ps -q)" ]; then
    say "containers still run in our dockerd: left running"
    return 0
  fi
  local pid
  pid=$(cat "$KVSYNC_DOCKER_STATE/dockerd.pid")
  kill "$pid"
  timeout 30 tail --pid="$pid" -f /dev/null || say "dockerd ($pid) has not ended yet"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

can_pull_images() { # a small public image within a bounded time: is there a registry at all?
  timeout "${KVSYNC_PULL_PROBE_S:-20}" docker pull -q hello-world:latest >/dev/null 2>&1
}
