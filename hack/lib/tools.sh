#!/usr/bin/env bash
# Prints the path of a tool. A tool that is not installed is built from the Go module proxy into the cache.
#   hack/lib/tools.sh helm          print the path of helm
#   hack/lib/tools.sh --list        print the names of all tools
# kind is always built at the pinned version; of the other tools, an installed one is used.
set -euo pipefail
export KVSYNC_PROG=tools
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/go.sh"

TOOLS="kind helm helm-unittest kubeconform actionlint syft"

module_of() { # NAME: prints MODULE@VERSION PACKAGE
  case $1 in
    kind) echo "sigs.k8s.io/kind@$KIND_VERSION sigs.k8s.io/kind" ;;
    helm) echo "helm.sh/helm/v3@$HELM_VERSION helm.sh/helm/v3/cmd/helm" ;;
    helm-unittest) echo "github.com/helm-unittest/helm-unittest@$HELM_UNITTEST_VERSION github.com/helm-unittest/helm-unittest/cmd/helm-unittest" ;;
    kubeconform) echo "github.com/yannh/kubeconform@$KUBECONFORM_VERSION github.com/yannh/kubeconform/cmd/kubeconform" ;;
    actionlint) echo "github.com/rhysd/actionlint@$ACTIONLINT_VERSION github.com/rhysd/actionlint/cmd/actionlint" ;;
    syft) echo "github.com/anchore/syft@$SYFT_VERSION github.com/anchore/syft/cmd/syft" ;;
    *) die "unknown tool '$1' (known: $TOOLS)" ;;
  esac
}

build_tool() { # NAME MODULE@VERSION PACKAGE SCRATCH
  go_build_module "$4/$1" "$2" "$3"
}

tool_path() { # NAME
  local name=$1 known module package folder
  known=$(module_of "$name")
  read -r module package <<<"$known"
  if [ "$name" != kind ] && have "$name"; then
    command -v "$name"
    return
  fi
  folder=$KVSYNC_CACHE/tools/$name-${module##*@}
  if [ ! -x "$folder/$name" ]; then
    ensure_go
    build_once "$folder" run_step "build $name ${module##*@} from the Go module proxy" build_tool "$name" "$module" "$package"
  fi
  printf '%s\n' "$folder/$name"
}

case ${1:-} in
  --list) tr ' ' '\n' <<<"$TOOLS" ;;
  '') die "name a tool: $TOOLS" ;;
  *) tool_path "$1" ;;
esac
