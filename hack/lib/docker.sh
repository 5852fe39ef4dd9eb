#!/usr/bin/env bash
# Provides a docker daemon: the running one, which is not changed, or one that is started here. Sourced after common.sh.

KVSYNC_DOCKER_STATE=${KVSYNC_DOCKER_STATE:-$KVSYNC_CACHE/docker}

docker_answers() { timeout 20 docker info >/dev/null 2>&1; }

ensure_docker() { # starts a daemon if none answers; its images are kept in $KVSYNC_DOCKER_STATE
  if have docker && docker_answers; then return 0; fi
  if ! is_root; then
    die "no docker daemon answers, and only root can start one" \
      "start docker, add this user to the docker group, or set KUBECONFIG to an existing cluster"
  fi
  apt_ensure dockerd=docker.io containerd=containerd runc=runc iptables=iptables docker=docker.io
  if docker_answers; then return 0; fi # the installation has started it
  run_step "start dockerd" start_dockerd
}

lacks_capability() { # NUMBER: succeeds if the capability is missing from the bounding set
  local set
  set=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
  [ $((0x$set >> $1 & 1)) = 0 ]
}

start_dockerd() {
  local state=$KVSYNC_DOCKER_STATE options=() tries
  mkdir -p "$state"
  if lacks_capability 24; then # without CAP_SYS_RESOURCE `docker run --privileged` would fail
    cp "$KVSYNC_ROOT/hack/airgap/runc-caps" "$state/runc-caps" # copied, because the daemon may outlive this checkout
    options+=(--add-runtime "runc-caps=$state/runc-caps" --default-runtime runc-caps)
  fi
  rm -f "$state/dockerd.pid"
  # In its own session, without a terminal and without the lock, because it outlives this shell
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

stop_our_docker() { # stops the daemon if it was started here and has no running containers
  docker_is_ours || return 0
  if [ -n "$(docker ps -q)" ]; then
    say "the docker daemon still has running containers and is not stopped"
    return 0
  fi
  local pid
  pid=$(cat "$KVSYNC_DOCKER_STATE/dockerd.pid")
  kill "$pid"
  timeout 30 tail --pid="$pid" -f /dev/null || say "dockerd ($pid) has not ended yet"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

can_pull_images() { # succeeds if a small public image can be pulled within 20 s
  timeout "${KVSYNC_PULL_PROBE_S:-20}" docker pull -q hello-world:latest >/dev/null 2>&1
}
