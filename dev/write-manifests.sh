#!/usr/bin/env bash
# Writes the definitions that `claviger manifests` prints into each FOLDER, a file each, named as the definition is.
# What else was there with such a name goes.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 FOLDER..." >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

"${CARGO:-cargo}" run --quiet --bin claviger -- manifests >"$work/all"
# A document begins with `---`; its name is the first field `name` after the line `metadata:`.
awk -v work="$work" '
  function write_out() { if (text != "") { if (name == "") exit 1; printf "%s", text >(work "/" name ".yaml"); close(work "/" name ".yaml") } }
  /^---$/ { write_out(); text = name = ""; inside = 0; next }
  { text = text $0 "\n" }
  /^metadata:$/ { inside = 1 }
  inside && name == "" && /^  name: / { name = $2 }
  END { write_out() }
' "$work/all"
ls "$work"/*.claviger.dev.yaml >/dev/null

for folder in "$@"; do
  mkdir -p -- "$folder"
  rm -f -- "$folder"/*.claviger.dev.yaml
  cp -- "$work"/*.claviger.dev.yaml "$folder"
done
