#!/bin/bash
# Builds the fuzz targets with the coverage that libFuzzer follows and runs each for FUZZ_SECONDS (20). Arguments are the targets to
# run; without any, all are. Stable Rust does: cargo-fuzz and a nightly compiler are not needed.
#
# What is found new goes to fuzz/found (kept out of git), what fails to fuzz/artifacts; the seeds in fuzz/corpus are only read.
# A failure is run again by `dev/fuzz.sh <target> <file>`.
set -euo pipefail
if [ $# -eq 2 ] && [ -f "$2" ]; then
  failure=$(realpath -- "$2")
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

seconds=${FUZZ_SECONDS:-20}
# With a target of its own, build scripts and macros are left without instruments.
host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
"${CARGO:-cargo}" build --release --target "$host" --bins
built=${CARGO_TARGET_DIR:-target}/$host/release

all=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
if [ -n "${failure:-}" ]; then
  exec "$built/$1" "$failure"
fi
for name in ${*:-$all}; do
  mkdir -p "found/$name" "artifacts/$name"
  log=artifacts/$name/log
  printf '%-16s' "$name"
  if ! "$built/$name" -max_total_time="$seconds" -max_len=4096 -artifact_prefix="artifacts/$name/" -print_final_stats=1 \
    "found/$name" "corpus/$name" 2>"$log"; then
    echo "failed"
    tail -n 40 "$log" >&2
    exit 1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  printf '%10s runs, %6s edges, no failure\n' "$runs" "$coverage"
done
