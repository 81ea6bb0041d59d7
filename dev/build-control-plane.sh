#!/usr/bin/env bash
# Prints two lines: the folder that holds etcd, kube-apiserver and kube-controller-manager (and kubectl, where none is
# on the PATH), and the file that is helm 4. What nobody has built yet is built from its Go modules first. Everything
# else goes to stderr.
#
# Looked for in this order: $KUBEBUILDER_ASSETS, then the cache; what is built goes into the cache. helm is taken from the
# PATH where that is helm 4; it has a folder of its own in the cache, so that neither's new version rebuilds the other.
# The cache is $CLAVIGER_CACHE, else $XDG_CACHE_HOME/claviger, else ~/.cache/claviger.
set -euo pipefail

KUBERNETES_VERSION=1.36.3
ETCD_VERSION=3.6.8
HELM_VERSION=4.3.1
GO_MINOR_NEEDED=26 # the oldest Go 1.x that compiles the above

COMPONENTS=(etcd kube-apiserver kube-controller-manager)

say() { printf '%s\n' "$*" >&2; }
fail() { say "control plane: $*"; exit 1; }

# holds DIR: whether DIR has all that a control plane needs
holds() {
  local component
  for component in "${COMPONENTS[@]}"; do
    [ -x "$1/$component" ] || return 1
  done
  [ -x "$1/kubectl" ] || command -v kubectl >/dev/null
}

# find_helm: prints the helm 4 that is there, if any
find_helm() {
  local candidate
  for candidate in "${KUBEBUILDER_ASSETS:-}/helm" "$(command -v helm)" "$helm_home/helm"; do
    [ -x "$candidate" ] || continue
    case $("$candidate" version --short 2>/dev/null) in
      v4.*) realpath -- "$candidate"; return 0 ;;
    esac
  done
}

# Prints the answer and ends, if everything is there.
answer_if_complete() {
  helm=$(find_helm)
  if [ -n "$home" ] && holds "$home" && [ -n "$helm" ]; then
    printf '%s\n' "$home" "$helm"
    exit 0
  fi
}

home='' helm_home=''
if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  if holds "$KUBEBUILDER_ASSETS"; then
    home=$(cd -- "$KUBEBUILDER_ASSETS" && pwd)
    # Whoever brings everything needs no cache.
    answer_if_complete
  else
    say "control plane: KUBEBUILDER_ASSETS lacks one of ${COMPONENTS[*]} kubectl; using the cache instead"
  fi
fi

if [ -z "${CLAVIGER_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ]; then
  fail "no place for a cache; set CLAVIGER_CACHE to a folder that may hold about 320 MB"
fi
cache=${CLAVIGER_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/claviger}
mkdir -p -- "$cache" || fail "cannot create the cache folder $cache; set CLAVIGER_CACHE to one that can be written"
cache=$(cd -- "$cache" && pwd)
home=${home:-$cache/control-plane-$KUBERNETES_VERSION-etcd-$ETCD_VERSION}
helm_home=$cache/helm-$HELM_VERSION
answer_if_complete

for tool in go flock awk sed; do
  command -v "$tool" >/dev/null || fail "$tool is needed to build it: install $tool (Go: 1.$GO_MINOR_NEEDED or newer), or set KUBEBUILDER_ASSETS to a folder with ${COMPONENTS[*]} helm"
done
# Go can fetch a newer toolchain by itself, unless it was told to stay local.
go_version=$(cd / && go env GOVERSION)
go_minor=$(printf '%s' "$go_version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
if [ "${go_minor:-$GO_MINOR_NEEDED}" -lt "$GO_MINOR_NEEDED" ] && [ "$(cd / && go env GOTOOLCHAIN)" = local ]; then
  fail "Go 1.$GO_MINOR_NEEDED or newer is needed to build it, found $go_version: install one, or set GOTOOLCHAIN=auto, or set KUBEBUILDER_ASSETS to a folder with ${COMPONENTS[*]} helm"
fi

# Two at once build once: the second waits here and then finds the first one's work.
exec 9>"$cache/.control-plane.lock"
flock -n 9 || { say "control plane: waiting for another build of it"; flock 9; }
answer_if_complete

# Whoever was killed half way left its folder; nobody else is building now, so it can go.
rm -rf -- "$cache"/.building-*
work=$(mktemp -d "$cache/.building-XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$work/bin"
export CGO_ENABLED=0 GOWORK=off

# logged WHAT COMMAND...: go's hundreds of lines matter only when it fails. It does not get the lock's descriptor,
# which one of its helpers might keep open when it is long done.
logged() {
  local what=$1
  shift
  if ! "$@" >"$work/log" 2>&1 9>&-; then
    tail -n 20 "$work/log" >&2
    fail "$what did not build; see above"
  fi
}

# build_go LDFLAGS OUTPUT PACKAGE...
build_go() {
  local ldflags=$1 output=$2
  shift 2
  go build -mod=mod -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$output" "$@"
}

helm_module() {
  go mod init claviger-helm && go mod edit -require="helm.sh/helm/v4@v$HELM_VERSION"
}

etcd_module() {
  go mod init claviger-etcd && go mod edit -require="go.etcd.io/etcd/server/v3@v$ETCD_VERSION"
}

# The kubernetes module names its staging modules at v0.0.0, which does not exist: their real version is the
# Kubernetes version with a leading 0. (Only an exact v0.0.0: k8s.io/utils and others stand at pseudo-versions.)
kubernetes_module() {
  local staging=v0.${KUBERNETES_VERSION#*.} module file modules
  go mod init claviger-control-plane &&
    go mod edit -require="k8s.io/kubernetes@v$KUBERNETES_VERSION" &&
    module=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION") || { printf '%s\n' "$module"; return 1; }
  file=$(printf '%s\n' "$module" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  modules=$(awk '/^\tk8s\.io\/[a-z0-9-]+ v0\.0\.0( |$)/ { print $1 }' "$file" | sort -u) || return 1
  for module in $modules; do
    go mod edit -replace="$module=$module@$staging" || return 1
  done
}

# Without these /version is empty, and clients that parse it misbehave.
stamp=k8s.io/component-base/version
minor=${KUBERNETES_VERSION#*.}
kubernetes_ldflags="-X $stamp.gitVersion=v$KUBERNETES_VERSION -X $stamp.gitMajor=${KUBERNETES_VERSION%%.*} -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean"

kubernetes_packages=()
if ! holds "$home"; then
  say "control plane: building it into the cache, once (about five minutes on two cores)"
  for component in kube-apiserver kube-controller-manager; do
    [ -x "$home/$component" ] || kubernetes_packages+=("k8s.io/kubernetes/cmd/$component")
  done
  [ -x "$home/kubectl" ] || command -v kubectl >/dev/null || kubernetes_packages+=(k8s.io/kubernetes/cmd/kubectl)
  if [ ! -x "$home/etcd" ]; then
    say "control plane: building etcd $ETCD_VERSION"
    mkdir "$work/etcd" && cd -- "$work/etcd"
    logged etcd etcd_module
    logged etcd build_go "" "$work/bin/etcd" go.etcd.io/etcd/server/v3
  fi
fi
if [ "${#kubernetes_packages[@]}" -gt 0 ]; then
  say "control plane: building ${kubernetes_packages[*]##*/} $KUBERNETES_VERSION"
  mkdir "$work/kubernetes" && cd -- "$work/kubernetes"
  logged Kubernetes kubernetes_module
  logged Kubernetes build_go "$kubernetes_ldflags" "$work/bin/" "${kubernetes_packages[@]}"
fi
if [ -z "$helm" ]; then
  say "control plane: building helm $HELM_VERSION, once (one to two minutes)"
  mkdir "$work/helm" && cd -- "$work/helm"
  logged helm helm_module
  # The module's own version has no patch number in it.
  logged helm build_go "-X helm.sh/helm/v4/internal/version.version=v$HELM_VERSION" "$work/helm-bin/helm" helm.sh/helm/v4/cmd/helm
fi

# put FOLDER HOME: moves what was built home. Where the folder only lacked something, such as kubectl after it left the
# PATH, that alone is added.
put() {
  local binary
  mkdir -p -- "$2"
  for binary in "$1"/*; do
    [ ! -e "$binary" ] || mv -- "$binary" "$2/"
  done
}
put "$work/bin" "$home"
put "$work/helm-bin" "$helm_home"
answer_if_complete
fail "what was built is not complete: remove $home and $helm_home, and start again"
