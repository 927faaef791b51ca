#!/usr/bin/env bash
# The whole way with the bundled model: quantize to 4 bits, audit the routing, run a prompt.
# usage: tools/demo.sh path/to/kedge
set -euo pipefail

kedge=$(realpath "${1:?usage: tools/demo.sh path/to/kedge}")
cd "$(dirname "$0")/.."
out=demo-out

step() { printf '\n$ kedge %s\n' "$*"; }

rm -rf "$out"
mkdir "$out"

step quantize models/demo-4m $out/demo-4m-w4 --scheme w4a16-g128 --nsamples 64 --seqlen 256
"$kedge" quantize models/demo-4m $out/demo-4m-w4 --scheme w4a16-g128 --nsamples 64 --seqlen 256

# A part of the text: enough for the intervals, and done within seconds.
step audit models/demo-4m $out/demo-4m-w4 --text models/demo-text.txt --out $out/audit --limit 64
"$kedge" audit models/demo-4m $out/demo-4m-w4 --text models/demo-text.txt --out $out/audit --limit 64

step run $out/demo-4m-w4 -p '"It was a dark and"' -n 32
"$kedge" run $out/demo-4m-w4 -p "It was a dark and" -n 32

printf '\nThe report: %s\n' "$PWD/$out/audit/report.html"
