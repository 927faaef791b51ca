#!/usr/bin/env bash
# Builds the fuzz targets and runs them for SECONDS altogether. A crash leaves its input in build/fuzz/.
# usage: tools/fuzz_smoke.sh [SECONDS]
set -euo pipefail

cd "$(dirname "$0")/.."
seconds=${1:-30}
[[ -f build/fuzz/build.ninja ]] || cmake --preset fuzz
cmake --build build/fuzz -j "$(nproc)" --target fuzz_targets

shopt -s nullglob
sources=(fuzz/*_fuzz.cc)
((${#sources[@]})) || { echo "no fuzz targets" >&2; exit 1; }
each=$(((seconds + ${#sources[@]} - 1) / ${#sources[@]}))
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for source in "${sources[@]}"; do
  name=$(basename "$source" _fuzz.cc)
  mkdir "$found/$name"
  # New inputs go to the first folder; the seeds are only read.
  folders=("$found/$name")
  [[ -d fuzz/corpus/$name ]] && folders+=("fuzz/corpus/$name")
  echo "fuzzing $name for $each s"
  build/fuzz/fuzz/"${name}_fuzz" -max_total_time="$each" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/ "${folders[@]}" >"$found/$name.log" 2>&1 || {
    tail -n 60 "$found/$name.log"
    echo "fuzz target $name failed; its input is under build/fuzz/" >&2
    exit 1
  }
  grep -E 'number_of_executed_units|peak_rss' "$found/$name.log" || true
done
